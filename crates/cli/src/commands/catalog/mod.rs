//! `airlock catalog list|diff|init`: looks into catalogs of operators. What writes is `catalog_mirror`.

mod diff;
mod init;
mod list;
pub(super) mod view;

pub(super) use list::published;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use airlock_content::catalog::{self, Catalog};
use airlock_mirror::archives::{ArchiveSource, Archives, Opened as OpenedArchive, plan_of};
use airlock_mirror::event::Events;
use airlock_mirror::plan::Plan;
use airlock_oci::{Descriptor, Error, ErrorKind, Reference, Source};
use airlock_store::oci_layout::Layout;

use crate::args::catalog::{DiffArgs, InitArgs, ListArgs, WhereArgs};
use crate::args::registries::{CommonArgs, Side};
use crate::commands::{file_path, image};
use crate::exit::Failure;
use crate::progress::{Look, Progress};

/// Runs `catalog list`.
pub(crate) async fn list(args: ListArgs, look: Look) -> Result<u8, Failure> {
    let progress = Progress::start(look);
    let result = list::run(&args, &progress.events()).await;
    progress.end();
    result
}

/// Runs `catalog diff`.
pub(crate) async fn diff(args: DiffArgs, look: Look) -> Result<u8, Failure> {
    let progress = Progress::start(look);
    let result = diff::run(&args, &progress).await;
    progress.end();
    result
}

/// Runs `catalog init`.
pub(crate) async fn init(args: InitArgs, look: Look) -> Result<u8, Failure> {
    let progress = Progress::start(look);
    let result = init::run(&args, &progress.events()).await;
    progress.end();
    result
}

/// A catalog that was read.
pub(super) struct Opened {
    pub catalog: Catalog,
    /// As it is named to people.
    pub shown: String,
}

/// Where the documents of a catalog are kept while it is looked at.
pub(super) fn folder() -> PathBuf {
    std::env::temp_dir()
}

/// Reads a catalog from wherever [`WhereArgs`] says.
async fn open(text: &str, place: &WhereArgs, events: &Events) -> Result<Opened, Failure> {
    let Some(from) = &place.from else { return read(text, &place.common, &place.side.side(), events).await };
    let archives = Arc::new(Archives::open(&[file_path(from, "--from")?])?);
    let name = match (in_archive(&archives, text)?, image::parse(text)?) {
        (Some(name), _) => name,
        (None, image::Place::Registry(name)) => name.pulled(),
        (None, image::Place::Layout { .. }) => {
            return Err(Failure::usage(
                format!("`{text}` is no name within the archive"),
                format!("list the catalogs in it with `airlock catalog list --from {from}`"),
            ));
        }
    };
    let catalog = catalog::read(&ArchiveSource(archives), &name, &folder()).await?;
    Ok(Opened { catalog, shown: text.to_owned() })
}

/// The image that the archive's plan has under this name: of a catalog that was built anew the published one, from which it was chosen.
fn in_archive(archives: &Archives, text: &str) -> Result<Option<Reference>, Failure> {
    let plans = archives.list().iter().filter_map(|opened| match opened {
        OpenedArchive::Ours { archive, .. } => Some(plan_of(archive)),
        OpenedArchive::Theirs(_) => None,
    });
    let plans: Vec<Plan> = plans.collect::<Result<_, _>>()?;
    let images = plans.iter().flat_map(|plan| &plan.images);
    let named = images.filter(|i| i.name == text || i.source.to_string() == text);
    let image = named.max_by_key(|image| image.original);
    Ok(image.map(|image| image.source.with_digest(image.digest.clone())))
}

/// Reads a catalog in a registry, an OCI layout, or a directory of catalog files.
async fn read(text: &str, common: &CommonArgs, side: &Side, events: &Events) -> Result<Opened, Failure> {
    let shown = text.strip_prefix("docker://").unwrap_or(text).to_owned();
    if is_directory(text) {
        let directory = PathBuf::from(text);
        let read = tokio::task::spawn_blocking(move || catalog::read_directory(&directory, &folder())).await;
        let catalog = read.map_err(|e| Error::new(ErrorKind::Io, format!("read the catalog `{text}`"), e))??;
        return Ok(Opened { catalog, shown });
    }
    let (source, name): (Arc<dyn Source>, Reference) = match image::parse(text)? {
        image::Place::Layout { path, tag: None } => layout(&path)?,
        place => image::open(&place, common, side, events)?,
    };
    let catalog = catalog::read(source.as_ref(), &name, &folder()).await?;
    Ok(Opened { catalog, shown })
}

/// A path, as opposed to a name in a registry.
fn is_directory(text: &str) -> bool {
    text.starts_with('/') || text.starts_with("./") || text.starts_with("../") || text == "."
}

/// A layout without an index over its images has one for each platform: the catalog is the same in each.
fn layout(path: &Path) -> Result<(Arc<dyn Source>, Reference), Failure> {
    let layout = Layout::open(path)?;
    let usual = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.os == "linux" && p.architecture == "amd64");
    let manifests = layout.manifests();
    let platforms = manifests.len() > 1 && manifests.iter().all(|d| d.platform.is_some());
    let found = match manifests.iter().find(usual).or(manifests.first()) {
        Some(found) if platforms => found,
        _ => layout.find(None)?,
    };
    let name: Reference = "oci-layout.localhost/image"
        .parse()
        .map_err(|e| Error::new(ErrorKind::Invalid, "name the image of an OCI layout", e))?;
    let name = name.with_digest(found.digest.clone());
    Ok((Arc::new(layout), name))
}
