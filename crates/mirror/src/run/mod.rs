//! A whole run: configuration, plan, transfer, outputs. Three workflows of the same few parts.

mod alone;
mod check;
mod from_disk;
mod outcome;
pub(crate) mod single;
mod to_disk;
mod to_registry;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use airlock_client::{Client, RegistrySource};
use airlock_oci::{Error, ErrorKind, Reference, Source};
use airlock_transfer::Stop;
use serde::{Deserialize, Serialize};

pub use check::{Absence, VerifyReport, verify_target};
pub use single::{OneImage, one_image};

use crate::archives::{ArchiveSource, Archives};
use crate::config::Loaded;
use crate::event::{Event, Events, Job, Phase};
use crate::plan::catalogs::{Choice, OnMissing, Rules};
use crate::plan::discover::Workshop;
use crate::plan::graph::{DEFAULT_BASE, Generator};
use crate::plan::origins::Services;
use crate::plan::{Attachments, Cache, Discovered, Origins, Plan, Request as PlanRequest, Target, discover};
use crate::policy::{Gate, Policy};
use crate::report::Report;
use crate::sources::{self, Cached, Router};
use crate::workspace::Workspace;

/// Where, in the user's cache folder, what is built while planning is kept.
const GENERATED: &str = "generated";
/// What is being done until it is known what there is to move.
const PLANNING: &str = "plan the image set";

/// Where from, where to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Workflow {
    /// Registry to archive.
    ToDisk {
        /// Where the parts go.
        directory: PathBuf,
    },
    /// Archive to registry.
    FromDisk {
        /// Directories with archives.
        from: Vec<PathBuf>,
        /// Where outputs go, when not beside the first archive.
        workspace: Option<PathBuf>,
        /// `host[:port][/namespace]`.
        registry: String,
    },
    /// Registry to registry.
    ToRegistry {
        /// Where outputs go.
        workspace: PathBuf,
        /// `host[:port][/namespace]`.
        registry: String,
    },
}

/// How to run; everything that a later `--retry` must repeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// cosign attestations and SBOMs as well.
    pub all_attachments: bool,
    /// No signatures, no referrers.
    pub remove_signatures: bool,
    /// Most components of a repository at the target; 0: no limit.
    pub max_nested_paths: usize,
    /// Refuse blobs that do not fit into a part.
    pub strict_archive: bool,
    /// Bytes of a part, in place of the configuration's `archiveSize`.
    pub part_bytes: Option<u64>,
    /// Remove the old archive first.
    pub replace: bool,
    /// Only what was sent before this date counts as sent.
    pub since: Option<String>,
    /// Check only the structure of an archive before anything is pushed (otherwise every byte is read).
    pub verify_quick: bool,
    /// The cluster is older than 4.13.
    pub legacy_resources: bool,
    /// Behave and speak as oc-mirror v2: nothing partial is sealed.
    pub oc_mirror: bool,
    /// Signatures of releases are neither fetched nor judged.
    pub ignore_release_signature: bool,
    /// When something of a release cannot be had, everything else goes on.
    pub keep_going: bool,
    /// Where the update graph's data come from: an address or a file.
    pub graph_data: Option<String>,
    /// The image that the graph image is built upon.
    pub graph_base: Option<String>,
    /// Which rules choose bundles of operators.
    pub selection: Rules,
    /// What becomes of bundles of which an image cannot be had.
    pub on_missing: OnMissing,
    /// What the chosen bundles need is added.
    pub with_dependencies: bool,
    /// Of a range of versions only what an update passes is kept.
    #[serde(default)]
    pub minimal_path: bool,
    /// The containers-policy.json file that says which images may be mirrored from registries. Archives are not judged.
    pub policy: Option<PathBuf>,
}

/// What a later run needs to finish this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// The configuration's absolute path.
    pub config: PathBuf,
    /// The workflow, with absolute paths.
    pub workflow: Workflow,
    /// The settings.
    pub settings: Settings,
    /// Number and date of the archive that the run wrote.
    pub archive: Option<(u32, String)>,
}

/// A run that is to be done.
pub struct Request {
    /// The configuration.
    pub loaded: Loaded,
    /// Where from, where to.
    pub workflow: Workflow,
    /// How.
    pub settings: Settings,
    /// Plan and outputs only.
    pub dry_run: Option<DryRun>,
    /// What the environment says of update services and signatures.
    pub services: Services,
    /// Reads sources.
    pub source: Client,
    /// Writes to the target.
    pub target: Client,
    /// How much at once.
    pub transfer: airlock_transfer::Options,
    /// The user's cache folder.
    pub cache: PathBuf,
    /// Where receipts of verified archives are kept.
    pub state: PathBuf,
    /// Number and date of the archive that a retried run wrote.
    pub retry: Option<(u32, String)>,
    /// Version of the program, for reports and resources.
    pub version: String,
}

/// What a dry run writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// `mapping.txt`.
    Images,
    /// With the platforms of each index.
    Instances,
}

impl Request {
    fn upstream(&self, workspace: &Workspace) -> Upstream<'_> {
        Upstream {
            client: &self.source,
            services: &self.services,
            cache: Arc::new(Cache::open(&self.cache)),
            workspace: Some(workspace.path().to_owned()),
            archive: matches!(self.workflow, Workflow::ToDisk { .. }),
        }
    }
}

impl Settings {
    /// How bundles of operators are chosen.
    pub fn choice(&self) -> Choice {
        Choice {
            rules: self.selection,
            on_missing: self.on_missing,
            with_dependencies: self.with_dependencies,
            minimal_path: self.minimal_path,
        }
    }

    /// Which attachments are wanted.
    pub fn attachments(&self) -> Attachments {
        if self.remove_signatures {
            Attachments::None
        } else if self.all_attachments {
            Attachments::All
        } else {
            Attachments::Signatures
        }
    }
}

/// Runs what comes before the first byte. A run that is asked to stop meanwhile ends at once: there is nothing yet that is worth a checkpoint.
async fn unless_stopped<T>(stop: &Stop, what: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        done = work => done,
        () = stop.stopped() => Err(Error::new(ErrorKind::Interrupted, what, "stopped on request")
            .hint("nothing has been moved yet; run the same command again")),
    }
}

/// Does a run. An error is what ended it before anything could be moved; what went wrong with single images is in the report.
pub async fn run(request: Request, events: Events, stop: &Stop) -> Result<Report, Error> {
    match request.workflow.clone() {
        Workflow::ToDisk { directory } => {
            let stop = stop.clone();
            alone::alone(
                "mirror to disk",
                move || async move { to_disk::run(request, &directory, events, &stop).await },
            )
            .await
        }
        Workflow::FromDisk { from, workspace, registry } => {
            from_disk::run(request, &from, workspace, &registry, events, stop).await
        }
        Workflow::ToRegistry { workspace, registry } => {
            to_registry::run(request, &workspace, &registry, events, stop).await
        }
    }
}

/// What a plan from the network takes.
pub struct Upstream<'a> {
    /// Reads registries, update services, signatures.
    pub client: &'a Client,
    /// Which services.
    pub services: &'a Services,
    /// What is known from before; its folder also keeps what is built while planning.
    pub cache: Arc<Cache>,
    /// The workspace, in which oc-mirror may have left a graph image.
    pub workspace: Option<PathBuf>,
    /// The plan is for an archive.
    pub archive: bool,
}

/// A plan, and the source that its content is read from.
pub struct Planned {
    /// The plan.
    pub discovered: Discovered,
    /// Registries, layouts on disk, what was built; manifests at hand are not asked for again.
    pub source: Arc<dyn Source>,
}

/// The plan of a configuration, read from its registries. The policy of the settings decides what of it is carried.
pub async fn plan(
    loaded: &Loaded,
    upstream: Upstream<'_>,
    settings: &Settings,
    target: Option<&Target>,
    events: &Events,
) -> Result<Planned, Error> {
    let gate = match &settings.policy {
        Some(path) => Some(Arc::new(Gate::new(Policy::load(path)?, sources::layouts(loaded)))),
        None => None,
    };
    let Upstream { client, services, cache, workspace, archive } = upstream;
    let router = Arc::new(Router::new(Arc::new(RegistrySource::new(client.clone())), loaded));
    let source: Arc<dyn Source> = Arc::new(Cached { cache: Arc::clone(&cache), source: router.clone() });
    let origins = Origins::network(client, services, settings.graph_data.as_deref(), Arc::clone(&cache))?;
    let base = settings.graph_base.as_deref().unwrap_or(DEFAULT_BASE);
    let base: Reference =
        base.parse().map_err(|e| Error::new(ErrorKind::Invalid, format!("use --graph-base `{base}`"), e))?;
    let generator = Generator {
        router: Arc::clone(&router),
        source: Arc::clone(&source),
        folder: generated_folder(cache.folder()),
        workspace,
        base,
    };
    let request = PlanRequest {
        loaded,
        workshop: Workshop { router: Arc::clone(&router), folder: generated_folder(cache.folder()), network: true },
        choice: settings.choice(),
        originals: archive,
        planned: &|_| false,
        source: router,
        origins: &origins,
        cache,
        attachments: settings.attachments(),
        gate,
        target,
        generator: Some(generator),
        unsigned_releases: settings.ignore_release_signature,
        // oc-mirror's exit code says which kind of content failed, so the plan must.
        tells_missing_releases: settings.keep_going || settings.oc_mirror,
        progress: &|done, total| events(Event::Planned { done, total }),
    };
    Ok(Planned { discovered: discovered(request, events).await?, source })
}

/// Where what is built is kept: in the user's cache folder, and where nothing can be written there among the temporary files.
fn generated_folder(cache: &Path) -> PathBuf {
    let folder = cache.join(GENERATED);
    let probe = folder.join(format!(".writable-{}", std::process::id()));
    let writable = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&probe, b""));
    let _ = std::fs::remove_file(&probe);
    match writable {
        Ok(()) => folder,
        Err(_) => std::env::temp_dir().join(format!("airlock-{GENERATED}-{}", std::process::id())),
    }
}

/// The plan of a configuration, found again inside archives. Their content was judged when they were written.
pub async fn plan_from(
    loaded: &Loaded,
    from: Carried<'_>,
    settings: &Settings,
    target: Option<&Target>,
    events: &Events,
) -> Result<Planned, Error> {
    let Carried { archives, source, cache } = from;
    let router = Arc::new(Router::over(source));
    let request = PlanRequest {
        loaded,
        workshop: Workshop { router: Arc::clone(&router), folder: generated_folder(cache), network: false },
        choice: settings.choice(),
        originals: false,
        planned: &|wanted| archives.planned(&wanted.source, &wanted.name),
        source: router.clone(),
        origins: &archives.origins()?,
        cache: Arc::new(Cache::none()),
        attachments: settings.attachments(),
        gate: None,
        target,
        generator: None,
        unsigned_releases: settings.ignore_release_signature,
        // oc-mirror's exit code says which kind of content failed, so the plan must.
        tells_missing_releases: settings.keep_going || settings.oc_mirror,
        progress: &|done, total| events(Event::Planned { done, total }),
    };
    Ok(Planned { discovered: discovered(request, events).await?, source: router })
}

/// What a plan from archives takes.
pub struct Carried<'a> {
    /// The archives.
    pub archives: &'a Arc<Archives>,
    /// The archives as a source, and what stands behind them.
    pub source: Arc<dyn Source>,
    /// The user's cache folder, for what is built.
    pub cache: &'a Path,
}

impl<'a> Carried<'a> {
    /// Archives with nothing behind them.
    pub fn alone(archives: &'a Arc<Archives>, cache: &'a Path) -> Self {
        Self { archives, source: Arc::new(ArchiveSource(Arc::clone(archives))), cache }
    }
}

async fn discovered(request: PlanRequest<'_>, events: &Events) -> Result<Discovered, Error> {
    events(Event::Phase(Phase::Plan));
    let path = request.loaded.path.display();
    let content = &request.loaded.config.mirror;
    let blocked = &content.blocked_images;
    let asks = !content.additional_images.is_empty() || !content.operators.is_empty() || content.platform.is_some();
    let discovered = discover(request).await?;
    for warning in &discovered.warnings {
        events(Event::Warning(warning.clone()));
    }
    if discovered.plan.images.is_empty() && discovered.plan.missing.is_empty() {
        if !blocked.is_empty() && asks {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("plan {path}"),
                format!(
                    "no images to copy: `blockedImages` leaves nothing of what is asked for ({} patterns)",
                    blocked.len()
                ),
            )
            .hint("a pattern matches any part of a name; `^` and `$` hold it to the whole"));
        }
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("plan {path}"),
            "no images to copy: the configuration asks for nothing",
        )
        .hint("name releases under `mirror.platform`, catalogs under `mirror.operators`, or images under `mirror.additionalImages`"));
    }
    Ok(discovered)
}

/// The bytes of a part that a configuration and its settings ask for.
fn part_limit(loaded: &Loaded, settings: &Settings) -> u64 {
    settings.part_bytes.unwrap_or_else(|| loaded.config.archive_size.bytes())
}

/// Tells what is going to happen.
fn forecast(plan: &Plan, carried_before: u64, resumed: u64, events: &Events) {
    let job = |image: &crate::plan::Image| Job { name: image.name.clone(), kind: image.kind };
    events(Event::Images(plan.images.iter().map(job).collect()));
    events(Event::Forecast {
        images: plan.images.len(),
        bytes: plan.bytes().total(),
        blobs: plan.bytes().blobs,
        carried_before,
        resumed,
        missing: plan.missing.len(),
    });
}
