//! Moving in: everything that a registry, its storage, archives or layouts hold, into registry storage (as a generation) or into another
//! registry. A composition like every other run: [`Origin`] is read, jobs are planned, the transfer moves them.

mod origin;
pub mod pattern;
mod plan;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use airlock_client::RegistrySink;
use airlock_oci::{Descriptor, Error, ErrorKind, Repository, Sink};
use airlock_store::distribution::generations::State;
use airlock_store::distribution::{Directory, Generation, Intake, Members};
use airlock_transfer::{Job, Outcome, Stop};
use futures_util::StreamExt;

pub use origin::{Files, Origin};
pub use pattern::{Filter, Pattern};
pub use report::{ImportBytes, ImportReport, Imported};

use crate::clock;
use crate::event::{Event, Events, Phase};
use crate::report::Status;
use plan::{Planned, plan};

/// Blobs that a destination is asked about at once.
const PARALLEL_LOOKUPS: usize = 8;

/// Where an import goes.
pub enum Destination {
    /// Registry storage.
    Storage(Arc<Intake>),
    /// Registry storage, for a dry run: what it has now, if there is any.
    Seen(Option<Arc<Directory>>),
    /// A registry.
    Registry(Arc<RegistrySink>),
}

/// An import.
pub struct Request {
    /// Where from.
    pub origin: Origin,
    /// Where to.
    pub destination: Destination,
    /// What the destination is called, for the report.
    pub place: String,
    /// Put before the name of each repository.
    pub prefix: Option<Repository>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// How much at once.
    pub transfer: airlock_transfer::Options,
}

impl Destination {
    fn directory(&self) -> Option<&Directory> {
        match self {
            Self::Storage(intake) => Some(intake.directory()),
            Self::Seen(directory) => directory.as_deref(),
            Self::Registry(_) => None,
        }
    }

    /// Whether the blob need not be moved.
    async fn has(&self, repository: &Repository, blob: &Descriptor) -> Result<bool, Error> {
        match self {
            Self::Registry(sink) => sink.has_blob(repository, blob).await,
            // Wherever in the storage it lies, it is linked.
            Self::Storage(_) | Self::Seen(_) => {
                Ok(self.directory().and_then(|d| d.length(&blob.digest)) == Some(blob.size))
            }
        }
    }

    async fn bytes(&self, planned: &Planned) -> Result<ImportBytes, Error> {
        let mut bytes = ImportBytes { planned: planned.bytes(), ..ImportBytes::default() };
        let mut looked = futures_util::stream::iter(planned.blobs())
            .map(|(repository, blob)| async move { (blob, self.has(repository, blob).await) })
            .buffer_unordered(PARALLEL_LOOKUPS);
        while let Some((blob, there)) = looked.next().await {
            if there? {
                bytes.present += blob.size;
            } else {
                let kept = self.directory().map_or(0, |directory| directory.kept(blob));
                bytes.resumed += kept;
                bytes.needed += blob.size - kept;
            }
        }
        Ok(bytes)
    }
}

/// Does an import. An error is what ended it before anything could be moved; what went wrong with single images is in the report.
pub async fn run(request: Request, events: Events, stop: &Stop) -> Result<ImportReport, Error> {
    let started = clock::now();
    let Request { origin, destination, place, prefix, dry_run, transfer } = request;
    if origin.repositories.is_empty() && origin.failures.is_empty() {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("import from {}", origin.name),
            "no repository there is to be imported",
        )
        .hint(
            "look at --include and --exclude: `*` is a part of one component of a name, `**` any number of components",
        ));
    }
    events(Event::Phase(Phase::Plan));
    let rename = |repository: &Repository| match &prefix {
        None => Ok(repository.clone()),
        Some(prefix) => {
            let name = format!("{prefix}/{repository}");
            Repository::new(&name).map_err(|e| Error::new(ErrorKind::Refused, format!("name `{name}`"), e))
        }
    };
    let planning = async {
        let planned = plan(&origin, &rename, &events).await;
        let bytes = destination.bytes(&planned).await?;
        Ok::<_, Error>((planned, bytes))
    };
    let (planned, bytes) = tokio::select! {
        done = planning => done?,
        () = stop.stopped() => return Err(
            Error::new(ErrorKind::Interrupted, format!("import from {}", origin.name), "stopped on request")
                .hint("nothing has been moved yet; run the same command again")
        ),
    };
    let mut report = ImportReport::begun(&origin, place, &planned, bytes, started);
    report.dry_run = dry_run;
    if planned.left_out > 0 {
        report
            .warnings
            .push(format!("the source lacks {} platforms of its indexes; they stay sparse", planned.left_out));
    }
    report.retagged = retagged(&destination, &planned)?;
    events(Event::Forecast {
        images: planned.images.len(),
        bytes: bytes.planned,
        blobs: bytes.planned,
        carried_before: bytes.present.min(bytes.planned),
        resumed: bytes.resumed,
        missing: planned.failures.len(),
    });
    if dry_run {
        report.end(None, clock::now());
        return Ok(report);
    }
    if let Destination::Storage(intake) = &destination {
        check_space(intake, &planned, bytes.needed)?;
    }
    let mut record = Generation::begun(origin.name.clone(), started.rfc3339(), bytes.planned, planned.members());
    if let Destination::Storage(intake) = &destination {
        record.number = intake.record(record.clone()).await?;
        report.generation = Some(record.number);
    }
    events(Event::Phase(Phase::Copy));
    let jobs: Vec<Job> = planned.images.iter().map(|image| image.job.clone()).collect();
    let outcomes = transferred(jobs, &origin, &destination, transfer, stop, &events, &mut report).await;
    report.end(Some(&outcomes), clock::now());
    if let Destination::Storage(intake) = &destination {
        report.bytes.linked = intake.linked_bytes();
        if !settle(intake, record, &planned, &outcomes, report.status).await? {
            report.generation = None;
        }
    }
    origin.cache.close();
    Ok(report)
}

async fn transferred(
    jobs: Vec<Job>,
    origin: &Origin,
    destination: &Destination,
    options: airlock_transfer::Options,
    stop: &Stop,
    events: &Events,
    report: &mut ImportReport,
) -> Vec<Outcome> {
    let sink: Arc<dyn Sink> = match destination {
        Destination::Storage(intake) => intake.clone(),
        Destination::Registry(sink) => sink.clone(),
        Destination::Seen(_) => return Vec::new(),
    };
    let (moved, reused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (moved_here, reused_here, forward) = (Arc::clone(&moved), Arc::clone(&reused), Arc::clone(events));
    let tell = Arc::new(move |event: airlock_transfer::Event| {
        match &event {
            airlock_transfer::Event::Written { bytes, .. } => moved_here.fetch_add(*bytes, Ordering::Relaxed),
            airlock_transfer::Event::Reused { bytes, .. } => reused_here.fetch_add(*bytes, Ordering::Relaxed),
            _ => 0,
        };
        forward(Event::Transfer(event));
    });
    let outcomes = airlock_transfer::run(jobs, Arc::clone(&origin.source), sink, options, stop, tell).await;
    report.bytes.moved = moved.load(Ordering::Relaxed);
    report.bytes.reused = reused.load(Ordering::Relaxed);
    outcomes
}

/// What does not fit is not begun. Links take no space.
fn check_space(intake: &Intake, planned: &Planned, needed: u64) -> Result<(), Error> {
    let free = intake.available()?;
    if needed <= free {
        return Ok(());
    }
    let is_missing = |blob: &Descriptor| intake.directory().length(&blob.digest) != Some(blob.size);
    let missing = planned.blobs().into_iter().map(|(_, blob)| blob).filter(|blob| is_missing(blob));
    let linkable = missing.filter(|blob| intake.can_link(&blob.digest));
    let linked: u64 = linkable.map(|blob| blob.size - intake.directory().kept(blob)).sum();
    let needed = needed.saturating_sub(linked);
    if needed <= free {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Full,
        format!("import into `{}`", intake.directory().root().display()),
        format!("{needed} bytes are needed, {free} are free"),
    )
    .hint("make space, or leave repositories out with --exclude"))
}

/// Writes what came of the import into its record; `false`: nothing came, and there is no record any more.
async fn settle(
    intake: &Intake,
    mut record: Generation,
    planned: &Planned,
    outcomes: &[Outcome],
    status: Status,
) -> Result<bool, Error> {
    // A blob that an image lacked has come, but the image's manifest was there already and gives it no place.
    intake.flush().await?;
    match status {
        // It says what was to be brought, and the next run goes on.
        Status::Interrupted => return Ok(true),
        Status::Complete => {
            record.state = State::Complete;
            intake.record(record).await?;
            intake.tidy()?;
            return Ok(true);
        }
        Status::Partial | Status::Failed => {}
    }
    let mut there: BTreeMap<Repository, Members> = BTreeMap::new();
    for (name, members) in &record.repositories {
        let present = intake.directory().present_of(name, members)?;
        if present != Members::default() {
            there.insert(name.clone(), present);
        }
    }
    if there.is_empty() {
        intake.forget(record.number).await?;
        return Ok(false);
    }
    record.state = State::Partial;
    record.bytes = planned.bytes_of(outcomes);
    record.repositories = there;
    intake.record(record).await?;
    Ok(true)
}

/// Tags of the storage that will point elsewhere.
fn retagged(destination: &Destination, planned: &Planned) -> Result<Vec<String>, Error> {
    let Some(directory) = destination.directory() else { return Ok(Vec::new()) };
    let members = planned.members();
    let mut retagged = Vec::new();
    for name in planned.repositories() {
        let Some(members) = members.get(name) else { continue };
        for (tag, digest) in directory.targets(name)? {
            if members.tags.get(&tag).is_some_and(|new| *new != digest) {
                retagged.push(format!("{name}:{tag}"));
            }
        }
    }
    Ok(retagged)
}
