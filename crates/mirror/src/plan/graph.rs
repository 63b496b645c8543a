//! The image with the update graph's data: built while planning, from then on an image like any other (oc-mirror 5.7).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use airlock_content::graph_image::{Base, GraphData, GraphImageSource, Target, build};
use airlock_oci::{Error, ErrorKind, Reference, Registry, Repository, Source, Tag};
use airlock_store::oci_layout::{Layout, Writer};
use airlock_updates::GraphData as Fetched;

use super::cache::used;
use super::model::{Kind, Reason, Release};
use super::naming::GENERATED_REGISTRY;
use super::origins::Origins;
use super::releases::PAYLOADS;
use super::wanted::{Wanted, file_name};
use crate::config::Loaded;
use crate::sources::Router;

/// Where the graph image goes (oc-mirror 4.3).
pub(crate) const GRAPH_IMAGE: &str = "openshift/graph-image";
/// The tag there, and the one under which it is known while planning.
const TAG: &str = "latest";
/// The base where none is named (oc-mirror 5.7).
pub(crate) const DEFAULT_BASE: &str = "registry.access.redhat.com/ubi9/ubi:latest";
/// Where oc-mirror keeps a graph image in its workspace.
const OC_MIRROR_LAYOUT: &str = "graph-preparation";

/// What building takes.
pub(crate) struct Generator {
    /// Serves what was built.
    pub router: Arc<Router>,
    /// Reads the base: manifests at hand are not asked for again.
    pub source: Arc<dyn Source>,
    /// Where what is built is kept.
    pub folder: PathBuf,
    /// The workspace, in which oc-mirror may have left an image.
    pub workspace: Option<PathBuf>,
    /// The base image.
    pub base: Reference,
}

/// The graph image of a configuration that asks for one. The error is that of this image, not of the plan.
pub(super) async fn graph_image(
    loaded: &Loaded,
    origins: &Origins,
    generator: Option<&Generator>,
    releases: &[Release],
) -> Option<(Wanted, Option<Error>)> {
    let platform = loaded.config.mirror.platform.as_ref().filter(|p| p.graph)?;
    let generated = name().ok()?;
    let reasons = vec![Reason { file: file_name(loaded), line: platform.line, what: "platform.graph".into() }];
    let repository = Repository::new(GRAPH_IMAGE).ok()?;
    let mut wanted = Wanted::new(generated.name(), generated, Kind::Graph, reasons, repository);
    let (Some(service), Some(generator)) = (&origins.service, generator) else {
        // An archive has it under the name that it was built by, if it has one.
        return Some((wanted, None));
    };
    let outcome = match service.graph_data().await {
        Ok(Fetched::Archive { bytes, from }) => generator.build(&wanted, &bytes, &from, &platform.platforms).await,
        Ok(Fetched::Enclave { cause }) => match generator.enclave(&wanted, releases, cause).await {
            Ok(Some(source)) => {
                wanted.name = source.to_string();
                wanted.source = source;
                Ok(())
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    };
    Some((wanted, outcome.err()))
}

fn name() -> Result<Reference, Error> {
    let invalid = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Invalid, "name the graph image", e);
    let registry = Registry::new(GENERATED_REGISTRY).map_err(|e| invalid(&e))?;
    let repository = Repository::new(GRAPH_IMAGE).map_err(|e| invalid(&e))?;
    Ok(Reference::new(registry, repository, Tag::new(TAG).ok(), None))
}

impl Generator {
    async fn build(
        &self,
        wanted: &Wanted,
        packed: &[u8],
        from: &str,
        platforms: &[airlock_oci::Platform],
    ) -> Result<(), Error> {
        let data = GraphData::read(packed, from)?;
        let folder = self.folder.join("graph-image");
        let writer = Writer::open(&folder)?;
        let Some(tag) = &wanted.tag else { return Ok(()) };
        let base = Base { source: self.source.as_ref(), name: &self.base, platforms };
        let target = Target { sink: &writer, repository: &wanted.repository, tag };
        let built = build(&data, base, target)
            .await
            .map_err(|e| e.context(format!("build the graph image upon `{}`", self.base)))?;
        used(&folder);
        let layout: Arc<dyn Source> = Arc::new(Layout::open(&folder)?);
        let source = GraphImageSource::new(&built, layout, Arc::clone(&self.source));
        self.router.serve(wanted.repository.clone(), Arc::new(source));
        Ok(())
    }

    /// Without graph data there is still an image that somebody built: in the workspace, or at the registry that the releases come from.
    /// Answers its name where that is another than the one it would have been built by.
    async fn enclave(&self, wanted: &Wanted, releases: &[Release], cause: Error) -> Result<Option<Reference>, Error> {
        if let Some(layout) = self.workspace.as_deref().and_then(left_by_oc_mirror) {
            self.router.serve(wanted.repository.clone(), Arc::new(layout));
            return Ok(None);
        }
        for release in releases {
            let Ok(found) = self.source.resolve(&release.source).await else { continue };
            // A mirror that Airlock or oc-mirror filled has the graph image beside its payloads.
            let Some(beside) = found.place.0.strip_suffix(PAYLOADS) else { continue };
            let Ok(candidate) = format!("{beside}{GRAPH_IMAGE}:{TAG}").parse::<Reference>() else { continue };
            if self.source.resolve(&candidate).await.is_ok() {
                return Ok(Some(candidate));
            }
        }
        Err(cause.context("find a graph image").hint(
            "the update service has no graph data, and neither the workspace nor the source registry has a graph image: give the \
             data with --graph-data FILE|URL, or take `graph: true` out",
        ))
    }
}

fn left_by_oc_mirror(workspace: &Path) -> Option<Layout> {
    let layout = Layout::open(&workspace.join(OC_MIRROR_LAYOUT)).ok()?;
    (layout.manifests().len() == 1).then_some(layout)
}
