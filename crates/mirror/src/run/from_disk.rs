//! Archive to registry: verify, discover again inside the archive, push from where the bytes lie. No network but the target.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use airlock_client::{RegistrySink, RegistrySource};
use airlock_oci::{Digest, Error, ErrorKind, Reference, Repository, Sink, Source};
use airlock_store::Storage;
use airlock_store::archive::verify;
use airlock_transfer::Stop;
use futures_util::StreamExt;

use super::outcome::Ledger;
use super::to_registry::{Load, load, sink};
use super::{Carried, PLANNING, Request, Settings, forecast, plan_from, unless_stopped};
use crate::archives::{ArchiveSource, Archives, Opened};
use crate::event::{Event, Events, Phase};
use crate::plan::naming::is_local;
use crate::plan::{AttachmentKind, Image, Kind, Missing, Plan, Target, jobs};
use crate::receipt;
use crate::report::Report;
use crate::sources::Backed;
use crate::workspace::Workspace;

/// What is being done until the first byte can be pushed.
const READING: &str = "read the archives";
/// Damaged entries that one message names.
const MAX_NAMED_DAMAGES: usize = 20;
/// Look-ups at the target at once.
const PARALLEL_LOOKUPS: usize = 16;

pub(super) async fn run(
    request: Request,
    from: &[PathBuf],
    workspace: Option<PathBuf>,
    registry: &str,
    events: Events,
    stop: &Stop,
) -> Result<Report, Error> {
    let ledger = Ledger::new(events);
    let events = ledger.events();
    let first = from.first().map(PathBuf::as_path).unwrap_or(Path::new("."));
    let workspace = Workspace::of(workspace.as_deref().unwrap_or(first));
    let target = Target::parse(registry, request.settings.max_nested_paths)?;
    for directory in from {
        // A folder that is not there, mistyped perhaps, must not come into being by preparing the workspace in it.
        airlock_store::archive::reader::parts_in(directory)?;
    }
    workspace.prepare()?;

    if let Some(policy) = &request.settings.policy {
        events(Event::Warning(format!(
            "the policy {} is not applied to archives: what they hold was judged when they were written",
            policy.display()
        )));
    }
    events(Event::Phase(Phase::Verify));
    let archives = {
        let (from, state) = (from.to_vec(), request.state.clone());
        let (quick, events) = (request.settings.verify_quick, Arc::clone(&events));
        let reading = tokio::task::spawn_blocking(move || {
            let archives = Archives::open(&from)?;
            check(&archives, quick, &state, &events)?;
            Ok::<_, Error>(Arc::new(archives))
        });
        let read = async { reading.await.map_err(|e| Error::new(ErrorKind::Io, READING, e))? };
        unless_stopped(stop, READING, read).await?
    };
    let source: Arc<dyn Source> = Arc::new(ArchiveSource(Arc::clone(&archives)));
    // Most registries mount a blob of an earlier archive from where it is; one that does not gets its bytes by way of this machine.
    let backed = Arc::new(Backed {
        archives: Arc::clone(&archives),
        first: source,
        target: Arc::new(RegistrySource::new(request.target.clone())),
        held: OnceLock::new(),
        aim: target.clone(),
    });
    let carried = Carried { archives: &archives, source: backed.clone(), cache: &request.cache };
    let planning = plan_from(&request.loaded, carried, &request.settings, Some(&target), &events);
    let planned = unless_stopped(stop, PLANNING, planning).await?;
    let source = planned.source;
    let (mut plan, documents) = (planned.discovered.plan, planned.discovered.documents);

    let sink = sink(&request, &target)?;
    unless_stopped(stop, PLANNING, sink.ping()).await?;
    note_lost_attachments(&mut plan, &archives, &request.settings);
    if let Some(text) = left_out(&plan, &archives, &request.settings) {
        events(Event::Warning(text));
    }
    let built = built_here(&plan, &archives, source.as_ref()).await?;
    let asking = held_by_target(&plan, &archives, &built, &sink, &target, &events);
    let held = unless_stopped(stop, PLANNING, asking).await?;
    forecast(&plan, held.keys().filter_map(|d| plan.blobs.get(d)).map(|b| b.size).sum(), 0, &events);
    let references = held
        .iter()
        .map(|(d, repository)| (d.clone(), Reference::new(target.registry.clone(), repository.clone(), None, None)))
        .collect();
    // Set once, here.
    let _ = backed.held.set(references);
    let mut request = request;
    request.transfer.held = held;
    load(request, Load { plan: &plan, documents: &documents }, &target, source, sink, &workspace, &ledger, stop).await
}

/// Blobs of catalogs that were built now, from the catalog that an archive carries.
async fn built_here(plan: &Plan, archives: &Archives, source: &dyn Source) -> Result<BTreeSet<Digest>, Error> {
    let mut built = BTreeSet::new();
    for image in plan.images.iter().filter(|i| i.kind == Kind::Catalog && is_local(&i.source)) {
        for digest in plan.blobs_of(image) {
            let elsewhere = archives.region(&digest).is_some() || archives.absent(&digest).is_some();
            let Some(blob) = plan.blob(&digest).filter(|_| !elsewhere) else { continue };
            if source.has_blob(&image.source, &blob, None).await? {
                built.insert(digest);
            }
        }
    }
    Ok(built)
}

/// Reads the archives once, unless a receipt tells that these very files have been read before.
fn check(archives: &Archives, quick: bool, state: &Path, events: &Events) -> Result<(), Error> {
    let ours = || {
        archives.list().iter().filter_map(|o| match o {
            Opened::Ours { archive, proved, .. } => Some((archive, proved)),
            Opened::Theirs(_) => None,
        })
    };
    let total: u64 = ours().flat_map(|(a, _)| &a.seal().parts).map(|p| p.length).sum();
    let done = AtomicU64::new(0);
    for (archive, proved) in ours() {
        if !archive.voids().is_empty() {
            events(Event::Warning(format!(
                "the archive in {} is partial: {} of its entries are missing",
                archive.directory().display(),
                archive.voids().len()
            )));
        }
        let damages = if quick {
            verify::quick(archive)?
        } else if receipt::holds(state, archive) {
            let length: u64 = archive.seal().parts.iter().map(|p| p.length).sum();
            done.fetch_add(length, Ordering::Relaxed);
            Vec::new()
        } else {
            let damages = verify::full(archive, &|bytes| {
                let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                events(Event::Verified { done, total });
            })?;
            if damages.is_empty() {
                proved.store(true, Ordering::Relaxed);
                receipt::leave(state, archive);
            }
            damages
        };
        if !damages.is_empty() {
            return Err(damaged(&Storage::describe(archive.as_ref()), &damages));
        }
    }
    Ok(())
}

/// The error that names what is altered.
pub(super) fn damaged(place: &str, damages: &[verify::Damage]) -> Error {
    let mut named: Vec<String> = damages
        .iter()
        .take(MAX_NAMED_DAMAGES)
        .map(|d| format!("{} at offset {}: {}", d.part, d.offset, d.what))
        .collect();
    if damages.len() > MAX_NAMED_DAMAGES {
        named.push(format!("and {} more", damages.len() - MAX_NAMED_DAMAGES));
    }
    Error::new(ErrorKind::Content, format!("verify the archive in {place}"), named.join("; "))
        .hint("copy the named files again from where the archive was written; nothing has been pushed")
}

/// Blobs of the plan that none of the archives carries must be at the target already. Which are where; what is nowhere is an error that
/// names the archive that has it.
async fn held_by_target(
    plan: &Plan,
    archives: &Archives,
    built: &BTreeSet<Digest>,
    sink: &RegistrySink,
    target: &Target,
    events: &Events,
) -> Result<HashMap<Digest, Repository>, Error> {
    // Every place where a blob may be: the image's own repository, and the one in which its archive offered it.
    let mut wanted: BTreeMap<Digest, (&Image, Vec<Repository>)> = BTreeMap::new();
    for image in &plan.images {
        let own = jobs::destination(image, Some(target))?;
        for digest in plan.blobs_of(image) {
            if archives.region(&digest).is_none() && !built.contains(&digest) {
                let places = &mut wanted.entry(digest).or_insert_with(|| (image, Vec::new())).1;
                if !places.contains(&own) {
                    places.push(own.clone());
                }
            }
        }
    }
    for (digest, (_, places)) in &mut wanted {
        if let Some(absent) = archives.absent(digest) {
            places.push(target.repository(&absent.repository)?);
        }
    }
    let total = wanted.len() as u64;
    let mut looked = futures_util::stream::iter(wanted)
        .map(|(digest, (image, places))| async move {
            let Some(blob) = plan.blob(&digest) else { return Ok((digest, image, None)) };
            for place in places {
                if sink.has_blob(&place, &blob).await? {
                    return Ok((digest, image, Some(place)));
                }
            }
            Ok::<_, Error>((digest, image, None))
        })
        .buffered(PARALLEL_LOOKUPS);
    let mut held = HashMap::new();
    let mut nowhere: BTreeMap<(u32, String), (Vec<Digest>, String)> = BTreeMap::new();
    let mut unknown = Vec::new();
    let mut done = 0;
    while let Some(result) = looked.next().await {
        let (digest, image, place) = result?;
        done += 1;
        events(Event::Sought { done, total });
        match (place, archives.absent(&digest)) {
            (Some(place), _) => drop(held.insert(digest, place)),
            (None, Some(absent)) => nowhere
                .entry((absent.sequence, absent.created.clone()))
                .or_insert_with(|| (Vec::new(), absent.identity.to_string()))
                .0
                .push(digest),
            (None, None) => unknown.push(format!("blob `{digest}` of `{}`", image.name)),
        }
    }
    if nowhere.is_empty() && unknown.is_empty() {
        return Ok(held);
    }
    let mut causes: Vec<String> = nowhere
        .iter()
        .map(|((sequence, created), (digests, identity))| {
            format!(
                "{} blobs lie in archive number {sequence} of {created} ({identity}), the first is `{}`",
                digests.len(),
                digests[0]
            )
        })
        .collect();
    causes.extend(unknown.into_iter().take(MAX_NAMED_DAMAGES));
    Err(Error::new(
        ErrorKind::Damaged,
        format!("load {}", Storage::describe(archives)),
        format!("neither the archives given with --from nor the target have everything: {}", causes.join("; ")),
    )
    .hint("give the named archive with another --from, or load it first; nothing has been pushed"))
}

/// Says what the newest archive carries and this load does not ask for: by a narrower configuration on purpose, by a forgotten flag not.
fn left_out(plan: &Plan, archives: &Archives, settings: &Settings) -> Option<String> {
    let Some(Opened::Ours { archive, outline, .. }) = archives.list().first() else { return None };
    let asked: HashSet<&Digest> = plan.images.iter().flat_map(Image::all_nodes).collect();
    let carried = || outline.images().iter().filter(|i| !i.is_catalog && archive.region(&i.digest).is_some());
    let images: Vec<_> = carried().filter(|i| !asked.contains(&i.digest)).collect();
    let belonging = carried()
        .filter(|i| asked.contains(&i.digest) && !settings.remove_signatures)
        .flat_map(|i| &i.attachments)
        .filter(|a| !asked.contains(&a.digest) && archive.region(&a.digest).is_some())
        .count();
    if images.is_empty() && belonging == 0 {
        return None;
    }
    let first = images.first().map(|i| format!(" (`{}` is the first)", i.source)).unwrap_or_default();
    Some(format!(
        "the archive in {} holds {} images{first} and {belonging} signatures, attestations or SBOMs more than this configuration and \
         these flags ask for; they are not loaded. If the archive was written with flags such as --attachments all or --selection \
         head, give the same here",
        archive.directory().display(),
        images.len(),
    ))
}

/// Signatures and referrers that the archive's own plan has and the archive has not: the image comes, but not as it was.
fn note_lost_attachments(plan: &mut Plan, archives: &Archives, settings: &Settings) {
    if settings.remove_signatures {
        return;
    }
    let mut lost = Vec::new();
    for image in &plan.images {
        let planned = archives
            .list()
            .iter()
            .filter_map(Opened::outline)
            .find_map(|outline| outline.named(&image.source).iter().find(|planned| planned.digest == image.digest));
        for attachment in planned.into_iter().flat_map(|i| &i.attachments) {
            let wanted = settings.all_attachments
                || !matches!(attachment.kind, AttachmentKind::Attestation | AttachmentKind::Sbom);
            if wanted && attachment.nodes.iter().any(|n| archives.region(n).is_none()) {
                let name = attachment.tag.as_ref().map_or_else(|| attachment.digest.to_string(), ToString::to_string);
                lost.push(Missing {
                    name: format!("{} ({name})", image.name),
                    kind: image.kind,
                    reasons: image.reasons.clone(),
                    code: ErrorKind::NotFound.code().into(),
                    cause: format!(
                        "what belongs to `{}` is void in the archive: `{name}` could not be had when it was written",
                        attachment.subject
                    ),
                    hint: Some(
                        "complete the archive on the connected side with `airlock mirror --retry REPORT`".into(),
                    ),
                });
            }
        }
    }
    plan.missing.extend(lost);
}
