//! A whole run: configuration, plan, transfer, outputs. Three workflows of the same few parts.

mod check;
mod from_disk;
mod outcome;
mod single;
mod to_disk;
mod to_registry;

use std::path::PathBuf;
use std::sync::Arc;

use airlock_client::{Client, RegistrySource};
use airlock_oci::{Error, ErrorKind, Source};
use airlock_transfer::Stop;
use serde::{Deserialize, Serialize};

pub use check::{Absence, VerifyReport, verify_target};
pub use single::{OneImage, one_image};

use crate::config::Loaded;
use crate::event::{Event, Events, Phase};
use crate::plan::{Attachments, Discovered, ManifestCache, Plan, Request as PlanRequest, Target, discover};
use crate::policy::{Gate, Policy};
use crate::report::Report;
use crate::sources::{self, Router};

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

impl Settings {
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
        Workflow::ToDisk { directory } => to_disk::run(request, &directory, events, stop).await,
        Workflow::FromDisk { from, workspace, registry } => {
            from_disk::run(request, &from, workspace, &registry, events, stop).await
        }
        Workflow::ToRegistry { workspace, registry } => {
            to_registry::run(request, &workspace, &registry, events, stop).await
        }
    }
}

/// The plan of a configuration, read from its registries.
pub async fn plan(
    loaded: &Loaded,
    client: &Client,
    settings: &Settings,
    cache: Arc<ManifestCache>,
    target: Option<&Target>,
    events: &Events,
) -> Result<Discovered, Error> {
    let source = registries(loaded, client);
    plan_judged(loaded, source, settings, cache, target, events).await
}

/// The plan of a configuration, read from a source that holds what the world's registries do: the policy decides what of it is carried.
async fn plan_judged(
    loaded: &Loaded,
    source: Arc<dyn Source>,
    settings: &Settings,
    cache: Arc<ManifestCache>,
    target: Option<&Target>,
    events: &Events,
) -> Result<Discovered, Error> {
    let gate = match &settings.policy {
        Some(path) => Some(Arc::new(Gate::new(Policy::load(path)?, sources::layouts(loaded)))),
        None => None,
    };
    discovered(loaded, source, gate, settings, cache, target, events).await
}

fn registries(loaded: &Loaded, client: &Client) -> Arc<dyn Source> {
    Arc::new(Router::new(Arc::new(RegistrySource::new(client.clone())), loaded))
}

/// The plan of a configuration, read from a source whose content has been judged before: an archive.
pub async fn plan_from(
    loaded: &Loaded,
    source: Arc<dyn Source>,
    settings: &Settings,
    cache: Arc<ManifestCache>,
    target: Option<&Target>,
    events: &Events,
) -> Result<Discovered, Error> {
    discovered(loaded, source, None, settings, cache, target, events).await
}

async fn discovered(
    loaded: &Loaded,
    source: Arc<dyn Source>,
    gate: Option<Arc<Gate>>,
    settings: &Settings,
    cache: Arc<ManifestCache>,
    target: Option<&Target>,
    events: &Events,
) -> Result<Discovered, Error> {
    events(Event::Phase(Phase::Plan));
    let discovered = discover(PlanRequest {
        loaded,
        source,
        cache,
        attachments: settings.attachments(),
        gate,
        target,
        progress: &|done, total| events(Event::Planned { done, total }),
    })
    .await?;
    for warning in &discovered.warnings {
        events(Event::Warning(warning.clone()));
    }
    if discovered.plan.images.is_empty() && discovered.plan.missing.is_empty() {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("plan {}", loaded.path.display()),
            "no images to copy: the configuration asks for nothing",
        )
        .hint("list images under `mirror.additionalImages`"));
    }
    Ok(discovered)
}

/// The bytes of a part that a configuration and its settings ask for.
fn part_limit(loaded: &Loaded, settings: &Settings) -> u64 {
    settings.part_bytes.unwrap_or_else(|| loaded.config.archive_size.bytes())
}

/// Tells what is going to happen.
fn forecast(plan: &Plan, carried_before: u64, resumed: u64, events: &Events) {
    events(Event::Forecast {
        images: plan.images.len(),
        bytes: plan.bytes().total(),
        carried_before,
        resumed,
        missing: plan.missing.len(),
    });
}
