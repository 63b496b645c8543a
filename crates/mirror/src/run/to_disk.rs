//! Registry to archive: plan, lay out, fetch every blob straight to its place, seal.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};

use airlock_oci::{Digest, Error, ErrorKind, Repository};
use airlock_store::archive::layout::PLAN_PATH;
use airlock_store::archive::volume::LocalVolume;
use airlock_store::archive::{Archive, ArchiveSink, Options, Pending, Sealed, Volume, Writer, pending};
use airlock_transfer::{Outcome, Stop};

use super::outcome::Ledger;
use super::{DryRun, PLANNING, Planned, Request, forecast, part_limit, plan, unless_stopped};
use crate::archives::DOCUMENTS;
use crate::event::{Event, Events, Phase};
use crate::history::{Carried, History};
use crate::outputs::mapping::{destination_of, mapping};
use crate::plan::{Discovered, Plan, jobs, locked};
use crate::report::{ArchiveReport, Report};
use crate::workspace::Workspace;

/// Where the configuration lies in an archive.
const CONFIG_PATH: &str = "airlock/config.yaml";

pub(super) async fn run(request: Request, directory: &Path, events: Events, stop: &Stop) -> Result<Report, Error> {
    let ledger = Ledger::new(events);
    let events = ledger.events();
    let workspace = Workspace::of(directory);
    let planning = plan(&request.loaded, request.upstream(&workspace), &request.settings, None, &events);
    let Planned { discovered, source } = unless_stopped(stop, PLANNING, planning).await?;
    let Discovered { plan, documents, .. } = discovered;
    if let Some(kind) = request.dry_run {
        return dry_run(&request, &plan, directory, &workspace, kind, &ledger);
    }
    if plan.images.is_empty() {
        // Nothing can be had: what lies in the directory stays as it is.
        let mut report = ledger.report(&request, &plan, None, Some(&[]), None)?;
        ledger.write_report(&mut report, &workspace, false)?;
        return Ok(report);
    }

    workspace.keep(&documents)?;
    let volume: Arc<dyn Volume> =
        Arc::new(LocalVolume::create(directory).map_err(|e| Error::io(format!("make {}", directory.display()), &e))?);
    let mut history = History::read(workspace.path());
    let portable = plan.portable().to_json();
    let pending = pending(volume.as_ref())?;
    if let Some(found) = finished(&request, directory, &plan, &portable, &history) {
        // The archive of exactly this plan is here, whole: made by a run that was killed before it could say so, or by the last one.
        history.add(found.carried)?;
        events(Event::Warning(format!("{} holds the whole archive of this plan already", directory.display())));
        forecast(&plan, 0, plan.bytes().blobs, &events);
        events(Event::Phase(Phase::Copy));
        for blob in &plan.blobs {
            let (digest, bytes) = (blob.0.clone(), blob.1.size);
            events(Event::Transfer(airlock_transfer::Event::Reused { digest, bytes }));
        }
        for job in 0..plan.images.len() {
            events(Event::Transfer(airlock_transfer::Event::Done { job }));
        }
        let outcomes: Vec<Outcome> = plan.images.iter().map(|_| Outcome::Done).collect();
        if request.settings.oc_mirror {
            ledger.write_pins(&request, &plan, &workspace)?;
        }
        let mut report = ledger.report(&request, &plan, None, Some(&outcomes), Some(found.archive))?;
        ledger.write_report(&mut report, &workspace, false)?;
        return Ok(report);
    }
    let (sequence, created) = number_and_date(&request, directory, pending, &history, &portable);
    let earlier = history.carried(sequence, request.settings.since.as_deref());
    let mut contents = jobs::contents(&plan, &earlier);
    contents.files = vec![
        (PLAN_PATH.into(), portable.into()),
        (CONFIG_PATH.into(), request.loaded.text.clone().into_bytes().into()),
    ];
    contents.files.extend(documents.iter().map(|(name, bytes)| (format!("{DOCUMENTS}{name}"), bytes.clone())));
    contents.sequence = sequence;
    contents.created.clone_from(&created);
    contents.previous = history.previous(sequence).map(|a| a.identity.clone());
    let carried_before = contents.absent.iter().map(|a| a.item.size).sum();

    let options = Options {
        limit: part_limit(&request.loaded, &request.settings),
        strict: request.settings.strict_archive,
        replace: request.settings.replace,
        salvage: salvage(&request, directory),
    };
    let writer = {
        let (volume, contents) = (Arc::clone(&volume), contents.clone());
        tokio::task::spawn_blocking(move || Writer::open(volume, &contents, options))
            .await
            .map_err(|e| Error::new(ErrorKind::Io, "begin the archive", e))??
    };
    let writer = Arc::new(writer);
    for item in &writer.layout().oversized {
        events(Event::Warning(format!(
            "blob `{}` ({} bytes) is larger than archiveSize and gets a part of its own; an archiveSize of {} GiB would hold it",
            item.digest,
            item.size,
            item.size.div_ceil(1 << 30) + 1
        )));
    }
    forecast(&plan, carried_before, writer.reused_bytes(), &events);

    events(Event::Phase(Phase::Copy));
    let disk_failure: Arc<Mutex<Option<Error>>> = Arc::default();
    let outcomes = {
        let mut transfer = request.transfer.clone();
        transfer.ordered = writer.is_ordered();
        transfer.keep_going = request.settings.keep_going;
        transfer.critical_failed = plan.lacks_release();
        let forward = Arc::clone(&events);
        // A disk that is full or broken fails every image that is left: nothing more is begun.
        let halt = Stop::default();
        let (asked, halted) = (stop.clone(), halt.clone());
        let listener = tokio::spawn(async move {
            asked.stopped().await;
            halted.stop();
        });
        let (on_disk_failure, broken) = (halt.clone(), Arc::clone(&disk_failure));
        let outcomes = airlock_transfer::run(
            jobs::jobs(&plan, None)?,
            source,
            Arc::new(ArchiveSink(Arc::clone(&writer))),
            transfer,
            &halt,
            Arc::new(move |event| {
                if let airlock_transfer::Event::Failed { error, .. } = &event
                    && matches!(error.kind(), ErrorKind::Full | ErrorKind::Io)
                {
                    locked(&broken).get_or_insert_with(|| error.clone());
                    on_disk_failure.stop();
                }
                forward(Event::Transfer(event));
            }),
        )
        .await;
        listener.abort();
        outcomes
    };
    // Such a failure is none of an image: the run ends, and goes on when the disk is mended.
    let broken = locked(&disk_failure).take();
    if let Some(error) = broken {
        // What cannot be synced now either is fetched again; the first failure is the one to tell.
        let _ = checkpoint(&writer).await;
        return Err(error);
    }
    let stopped = outcomes.iter().any(|o| matches!(o, Outcome::Stopped));
    let none = !outcomes.iter().any(Outcome::is_done);
    let missing = !plan.missing.is_empty();
    let failed = outcomes.iter().any(|o| !o.is_done());
    // A release that lacks something installs no cluster: the archive waits for it.
    let half_release =
        plan.lacks_release() || plan.images.iter().zip(&outcomes).any(|(i, o)| i.kind.is_release() && !o.is_done());
    if stopped || none || half_release || (request.settings.oc_mirror && (failed || missing)) {
        checkpoint(&writer).await?;
        let mut report = ledger.report(&request, &plan, None, Some(&outcomes), None)?;
        ledger.write_report(&mut report, &workspace, false)?;
        return Ok(report);
    }

    events(Event::Phase(Phase::Seal));
    let sealed = {
        let writer = Arc::clone(&writer);
        tokio::task::spawn_blocking(move || writer.seal(true))
            .await
            .map_err(|e| Error::new(ErrorKind::Io, "seal the archive", e))??
    };
    history.add(carried(&plan, &contents, &sealed, sequence, &created))?;
    for (path, _) in &sealed.parts {
        events(Event::Wrote(path.clone()));
    }
    events(Event::Phase(Phase::Outputs));
    ledger.write_pins(&request, &plan, &workspace)?;
    let archive = ArchiveReport {
        identity: sealed.identity,
        sequence,
        created,
        parts: sealed
            .parts
            .iter()
            .map(|(path, bytes)| {
                (path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(), *bytes)
            })
            .collect(),
        voids: sealed.voids,
    };
    let mut report = ledger.report(&request, &plan, None, Some(&outcomes), Some(archive))?;
    ledger.write_report(&mut report, &workspace, false)?;
    Ok(report)
}

async fn checkpoint(writer: &Arc<Writer>) -> Result<(), Error> {
    let writer = Arc::clone(writer);
    tokio::task::spawn_blocking(move || writer.checkpoint())
        .await
        .map_err(|e| Error::new(ErrorKind::Io, "write the journal", e))?
}

/// A run that goes on keeps the number and the date of the one it continues, so that the bytes come out the same; so does one that
/// finds the partial archive of this very plan.
fn number_and_date(
    request: &Request,
    directory: &Path,
    pending: Option<Pending>,
    history: &History,
    plan: &[u8],
) -> (u32, String) {
    if let Some(archive) = &request.retry {
        return archive.clone();
    }
    if let Some(pending) = pending.filter(|p| p.plan == Digest::of(plan)) {
        return (pending.sequence, pending.created);
    }
    if let Ok(archive) = Archive::open(directory)
        && !archive.voids().is_empty()
        && is_of(&archive, request, plan)
    {
        return (archive.sequence(), archive.created().to_owned());
    }
    (history.next_sequence(), crate::clock::now().rfc3339())
}

/// Whether an archive is of this plan and this configuration.
fn is_of(archive: &Archive, request: &Request, plan: &[u8]) -> bool {
    let holds = |path: &str, bytes: &[u8]| archive.file(path).is_ok_and(|f| f.is_some_and(|f| f == bytes));
    holds(PLAN_PATH, plan) && holds(CONFIG_PATH, request.loaded.text.as_bytes())
}

/// A whole archive of this plan that lies in the directory.
struct Finished {
    archive: ArchiveReport,
    carried: Carried,
}

fn finished(request: &Request, directory: &Path, plan: &Plan, portable: &[u8], history: &History) -> Option<Finished> {
    // Both ask for an archive to be written whatever there is.
    if request.settings.since.is_some() || request.settings.replace {
        return None;
    }
    let archive = Archive::open(directory).ok()?;
    if !archive.voids().is_empty() || !is_of(&archive, request, portable) {
        return None;
    }
    // One that stands on earlier archives is the answer only while the history knows them.
    let earlier = history.carried(archive.sequence(), None);
    if archive.absent_digests().any(|digest| !earlier.contains_key(digest)) {
        return None;
    }
    let repositories = repositories_of_blobs(plan);
    let blobs = plan
        .blobs
        .iter()
        .filter(|(digest, _)| archive.region(digest).is_some())
        .filter_map(|(digest, blob)| Some((digest.clone(), (blob.size, repositories.get(digest)?.clone()))))
        .collect();
    let (sequence, created, identity) = (archive.sequence(), archive.created().to_owned(), archive.identity().clone());
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Some(Finished {
        archive: ArchiveReport {
            identity: identity.clone(),
            sequence,
            created: created.clone(),
            parts: archive.parts().iter().map(|p| (name(&p.path), p.len)).collect(),
            voids: Vec::new(),
        },
        carried: Carried { sequence, created, identity, blobs },
    })
}

fn repositories_of_blobs(plan: &Plan) -> HashMap<Digest, Repository> {
    let mut repositories = HashMap::new();
    for image in &plan.images {
        for digest in plan.blobs_of(image) {
            repositories.entry(digest).or_insert_with(|| image.repository.clone());
        }
    }
    repositories
}

/// A retried run takes what its partial archive has from there, even where the plan has changed since.
fn salvage(request: &Request, directory: &Path) -> HashMap<Digest, airlock_store::Region> {
    if request.retry.is_none() {
        return HashMap::new();
    }
    let Ok(archive) = Archive::open(directory) else { return HashMap::new() };
    archive.regions().map(|(digest, region)| (digest.clone(), region)).collect()
}

/// What the history keeps of an archive: the blobs it carries and did not lack.
fn carried(
    plan: &Plan,
    contents: &airlock_store::archive::Contents,
    sealed: &Sealed,
    sequence: u32,
    created: &str,
) -> Carried {
    let repositories = repositories_of_blobs(plan);
    let blobs: BTreeMap<_, _> = contents
        .blobs
        .iter()
        .filter(|item| !sealed.voids.contains(&item.digest))
        .filter_map(|item| Some((item.digest.clone(), (item.size, repositories.get(&item.digest)?.clone()))))
        .collect();
    Carried { sequence, created: created.to_owned(), identity: sealed.identity.clone(), blobs }
}

fn dry_run(
    request: &Request,
    plan: &Plan,
    directory: &Path,
    workspace: &Workspace,
    kind: DryRun,
    ledger: &Arc<Ledger>,
) -> Result<Report, Error> {
    let history = History::read(workspace.path());
    let earlier = history.carried(u32::MAX, request.settings.since.as_deref());
    let carried: u64 = plan.blobs.iter().filter(|(d, _)| earlier.contains_key(*d)).map(|(_, b)| b.size).sum();
    forecast(plan, carried, 0, &ledger.events());
    workspace.clear("dry-run")?;
    let archive = format!("file://{}", directory.display());
    let text = mapping(plan, None, &archive, kind == DryRun::Instances)?;
    ledger.tell(Event::Wrote(workspace.write("dry-run/mapping.txt", text.as_bytes())?));
    // What no earlier archive has, whole: that is what the run would fetch.
    let mut missing = String::new();
    for image in &plan.images {
        if plan.blobs_of(image).iter().any(|d| !earlier.contains_key(d)) {
            let source = crate::outputs::mapping::source_of(image);
            missing.push_str(&format!("{source}={}\n", destination_of(image, None, &archive)?));
        }
    }
    if !missing.is_empty() {
        ledger.tell(Event::Wrote(workspace.write("dry-run/missing.txt", missing.as_bytes())?));
    }
    let mut report = ledger.report(request, plan, None, None, None)?;
    ledger.write_report(&mut report, workspace, true)?;
    Ok(report)
}
