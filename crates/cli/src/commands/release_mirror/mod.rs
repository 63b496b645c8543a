//! `airlock release mirror`, in place of `oc adm release mirror` (updates-and-releases.md 7.1).
//!
//! Unlike `oc`, this judges the release's signature by the trust that is configured here, and before anything is copied; takes cosign
//! signatures along; and gives the release image its name only when all components are there.

mod places;
mod trust;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use airlock_client::RegistrySink;
use airlock_content::image::instance;
use airlock_content::release::{Component, Parts, Payload, machine};
use airlock_content::signature::Signed;
use airlock_mirror::event::{Event, Events, Phase};
use airlock_mirror::plan::{Attachments, Cache};
use airlock_mirror::run::{OneImage, one_image};
use airlock_oci::{Digest, Error, ErrorKind, Found, Manifest, Platform, Reference, Shape, Sink, Source};
use airlock_store::file_tree::Writer;
use airlock_transfer::{Job, Outcome, Stop};
use futures_util::{StreamExt, TryStreamExt};

use crate::args::release::MirrorArgs;
use crate::commands::mirror::client;
use crate::commands::places::{Destination, Origin, is_in_tree, shown};
use crate::exit::Failure;
use crate::progress::{Look, Progress};
use crate::signals;
use places::Targets;
use trust::Judge;

/// Components that are looked up at once.
const PARALLEL_LOOKUPS: usize = 8;

/// An image of the release on its way.
struct Item {
    /// `None`: the release image itself.
    component: Option<String>,
    /// The names by which clusters ask for it.
    origins: Vec<String>,
    source: Reference,
    destination: Destination,
    image: OneImage,
}

/// Everything that is known before anything is written.
struct Plan {
    payload: Payload,
    signed: Option<Signed>,
    targets: Targets,
    /// Components first.
    items: Vec<Item>,
}

/// The release image that is carried: what its name stands for, or of a release for several architectures one image of it.
struct Chosen {
    name: Reference,
    found: Found<Manifest>,
    /// The index that it was taken out of.
    list: Option<Digest>,
}

/// Runs the verb.
pub(crate) async fn run(args: MirrorArgs, look: Look) -> Result<u8, Failure> {
    refuse_clusters(&args)?;
    let (release, targets) = (places::release(&args)?, Targets::read(&args)?);
    let progress = Progress::start(look);
    let result = mirror(&args, &release, targets, look, &progress).await;
    progress.end();
    let Some(done) = result? else { return Ok(0) };
    words::print(&args, &release, &done)?;
    Ok(0)
}

/// What came of it.
struct Done {
    plan: Plan,
    /// Which repositories clusters find where; sorted.
    mirrors: BTreeMap<String, BTreeSet<String>>,
    signature_files: Vec<PathBuf>,
}

/// Flags of `oc` that change a live cluster.
fn refuse_clusters(args: &MirrorArgs) -> Result<(), Failure> {
    if args.to_image_stream.is_some() {
        return Err(Failure::usage(
            "--to-image-stream imports into a live cluster, which this program does not write to",
            "mirror with --to HOST/NAME, then import from there: oc import-image NAME --from HOST/NAME:TAG --confirm",
        ));
    }
    if args.apply_release_image_signature || args.overwrite {
        return Err(Failure::usage(
            "--apply-release-image-signature and --overwrite write to a live cluster, which this program does not",
            "use --release-image-signature-to-dir DIR, then: oc apply -f DIR/signature-sha256-….json",
        ));
    }
    Ok(())
}

async fn mirror(
    args: &MirrorArgs,
    release: &Reference,
    targets: Targets,
    look: Look,
    progress: &Arc<Progress>,
) -> Result<Option<Done>, Failure> {
    let events = progress.events();
    let say = |text: String| {
        if !look.quiet {
            progress.line(&text);
        }
    };
    events(Event::Phase(Phase::Plan));
    let began = Instant::now();
    let hosts: Vec<String> = (!is_in_tree(release)).then(|| release.registry().to_string()).into_iter().collect();
    let client = client(&args.common, &args.source.side(), &hosts, &events)?;
    let from_dir = args.from_dir.as_deref().filter(|_| is_in_tree(release));
    let origin = Arc::new(Origin::open(from_dir, client.clone())?);
    let chosen = choose(&origin, release, args).await?;
    let signed = if args.skip_verification {
        None
    } else {
        Some(judge(&Judge::new(client, from_dir.map(places::signatures))?, &chosen, &say).await?)
    };
    let payload = Payload::of(origin.as_ref(), &chosen.name, chosen.found.clone(), Parts::default()).await?;
    let kept = payload.manifest.shape() == Shape::Index;
    let architecture = if kept { "multi" } else { machine(&payload.config.platform.architecture) };
    let targets = targets.of(&payload.version(), architecture);
    if args.to_mirror {
        return words::pairs(args, release, &origin, &payload, &targets).await.map(|()| None);
    }
    if !kept && payload.metadata.is_multi() {
        say(format!(
            "warning: `{}` is a release for several architectures, of which only the images for {} are taken; clusters ask for its \
             components by the digests of the lists, which will not be there; --keep-manifest-list takes them whole",
            shown(release),
            payload.config.platform
        ));
    }
    let plan = Plan {
        items: items(args, &origin, release, &payload, signed.as_ref(), &targets, &events).await?,
        payload,
        signed,
        targets,
    };
    for line in words::plan(&plan, args)? {
        say(line);
    }
    say(format!("info: Planning completed in {}", words::took(began.elapsed())));
    let mut mirrors = BTreeMap::<String, BTreeSet<String>>::new();
    for item in plan.items.iter().filter(|i| i.destination.spot.registry.is_some()) {
        let to = item.destination.spot.name();
        for from in item.origins.iter().filter(|from| **from != to) {
            mirrors.entry(from.clone()).or_default().insert(to.clone());
        }
    }
    let mut done = Done { plan, mirrors, signature_files: Vec::new() };
    if args.dry_run {
        say("info: Dry run complete".to_owned());
        return Ok(Some(done));
    }
    let began = Instant::now();
    copy(args, &done.plan, origin, &events).await?;
    let (bytes, time) = (words::Totals::of(&done.plan)?.unique_bytes, began.elapsed());
    let speed = bytes as f64 / 1e6 / time.as_secs_f64().max(0.001);
    say(format!("info: Mirroring completed in {} ({speed:.1}MB/s)", words::took(time)));
    let folder = args.release_image_signature_to_dir.clone().or_else(|| args.to_dir.as_deref().map(places::signatures));
    match (&done.plan.signed, folder) {
        (Some(signed), Some(folder)) => done.signature_files = trust::write(&folder, signed)?.into(),
        (None, Some(folder)) => say(format!(
            "warning: no signature is written to `{}`, since none was looked for (--skip-verification)",
            folder.display()
        )),
        _ => {}
    }
    Ok(Some(done))
}

/// Linux on this machine's architecture.
fn own_platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    };
    Platform { os: "linux".into(), architecture: architecture.into(), ..Platform::default() }
}

/// The platform that lists are reduced to.
fn wanted(args: &MirrorArgs) -> Platform {
    args.platform.clone().unwrap_or_else(own_platform)
}

async fn choose(origin: &Origin, release: &Reference, args: &MirrorArgs) -> Result<Chosen, Error> {
    let found = origin.manifest(release).await?;
    let by_digest =
        |found: Found<Manifest>, list| Chosen { name: release.with_digest(found.value.digest().clone()), found, list };
    if found.value.shape() != Shape::Index || args.keep_manifest_list {
        return Ok(by_digest(found, None));
    }
    let image = instance(origin, release, &found, Some(&wanted(args))).await?;
    Ok(by_digest(Found { value: image, place: found.place }, Some(found.value.digest().clone())))
}

/// A signature that holds for what is carried. One of the list that it was taken out of is as good to us, for the list names it by digest;
/// to a cluster it is not.
async fn judge(judge: &Judge, chosen: &Chosen, say: &impl Fn(String)) -> Result<Signed, Error> {
    let error = match judge.find(chosen.found.value.digest()).await {
        Ok(signed) => return Ok(signed),
        Err(error) => error,
    };
    if let Some(list) = &chosen.list
        && let Ok(signed) = judge.find(list).await
    {
        say(format!(
            "warning: the signature is that of the list `{list}`, not of the one image taken out of it; no cluster accepts it for that \
             image; --keep-manifest-list carries what was signed"
        ));
        return Ok(signed);
    }
    let hint = error.hint_text().unwrap_or_default().to_owned();
    Err(error.hint(format!(
        "nothing was copied. Name other keys with OCP_SIGNATURE_VERIFICATION_PK, another store with OCP_SIGNATURE_URL, or trust the \
         release unseen with --skip-verification ({hint})"
    )))
}

/// Looks every image up with everything that belongs to it.
async fn items(
    args: &MirrorArgs,
    origin: &Arc<Origin>,
    release: &Reference,
    payload: &Payload,
    signed: Option<&Signed>,
    targets: &Targets,
    events: &Events,
) -> Result<Vec<Item>, Failure> {
    let reduced = !args.keep_manifest_list && payload.metadata.is_multi();
    let platform = reduced.then(|| wanted(args));
    let components = &payload.references.components;
    let total = components.len() + usize::from(!args.skip_release_image);
    let lookups = components.iter().map(|component| {
        let platform = platform.as_ref();
        async move { component_item(origin, release, component, platform, targets).await }
    });
    let mut found = futures_util::stream::iter(lookups).buffered(PARALLEL_LOOKUPS);
    let mut items = Vec::with_capacity(total);
    while let Some(item) = found.try_next().await? {
        items.push(item);
        events(Event::Planned { done: items.len(), total });
    }
    if !args.skip_release_image {
        let image = look_up(&shown(release), &payload.name, origin).await?;
        let mut origins: Vec<String> = signed.iter().map(|s| s.reference.name()).collect();
        // A name within a file tree is none that a cluster knows.
        if !is_in_tree(release) && !origins.contains(&release.name()) {
            origins.push(release.name());
        }
        let destination = targets.release()?;
        items.push(Item { component: None, origins, source: payload.name.clone(), destination, image });
    }
    Ok(items)
}

async fn component_item(
    origin: &Arc<Origin>,
    release: &Reference,
    component: &Component,
    platform: Option<&Platform>,
    targets: &Targets,
) -> Result<Item, Failure> {
    let what = |error: Error| {
        error.context(format!("look up the component `{}` of the release `{}`", component.name, shown(release)))
    };
    let mut source = places::component(origin, release, component).await?;
    if let Some(platform) = platform {
        let found = origin.manifest(&source).await.map_err(what)?;
        let image = instance(origin.as_ref(), &source, &found, Some(platform)).await.map_err(what)?;
        source = source.with_digest(image.digest().clone());
    }
    let image = look_up(&component.name, &source, origin).await.map_err(what)?;
    Ok(Item {
        component: Some(component.name.clone()),
        origins: vec![component.image.name()],
        source,
        destination: targets.component(&component.name)?,
        image,
    })
}

async fn look_up(name: &str, reference: &Reference, origin: &Arc<Origin>) -> Result<OneImage, Error> {
    let source: Arc<dyn Source> = Arc::clone(origin) as _;
    one_image(name, reference, source, Arc::new(Cache::none()), Attachments::Signatures, &[]).await
}

/// Copies the components, and when all of them are there the release image.
async fn copy(args: &MirrorArgs, plan: &Plan, origin: Arc<Origin>, events: &Events) -> Result<(), Failure> {
    let hosts = plan.items.iter().filter_map(|i| Some(i.destination.spot.registry.as_ref()?.to_string()));
    let hosts: Vec<String> = hosts.collect::<BTreeSet<_>>().into_iter().collect();
    let target = client(&args.common, &args.target.side(), &hosts, events)?;
    let mut tree: Option<Arc<dyn Sink>> = None;
    let most = args.max_per_registry.get();
    let options = airlock_transfer::Options {
        parallel_images: most,
        parallel_blobs: most,
        parallel_layers: most.min(airlock_transfer::Options::default().parallel_layers),
        ..Default::default()
    };
    let stop = Stop::default();
    signals::listen(&stop);
    let bytes = words::Totals::of(plan)?.unique_bytes;
    events(Event::Forecast {
        images: plan.items.len(),
        bytes,
        blobs: bytes,
        carried_before: 0,
        resumed: 0,
        missing: 0,
    });
    events(Event::Phase(Phase::Copy));
    let (components, release): (Vec<&Item>, Vec<&Item>) = plan.items.iter().partition(|i| i.component.is_some());
    for items in [components, release] {
        let Some(first) = items.first() else { continue };
        // All components go to one place: a pattern varies the tag only.
        let sink: Arc<dyn Sink> = match (&first.destination.spot.registry, &args.to_dir) {
            (Some(registry), _) => Arc::new(RegistrySink::new(target.clone(), registry.clone(), None)?),
            (None, Some(root)) => match &tree {
                Some(tree) => Arc::clone(tree),
                None => Arc::clone(tree.insert(Arc::new(Writer::open(root)?))),
            },
            (None, None) => return Err(Failure::usage("no file tree to write to", "add --to-dir DIR")),
        };
        let jobs = items.iter().map(|item| job(item)).collect::<Result<Vec<Job>, Error>>()?;
        let forward = Arc::clone(events);
        let events: airlock_transfer::Events = Arc::new(move |event| forward(Event::Transfer(event)));
        let source: Arc<dyn Source> = Arc::clone(&origin) as _;
        let outcomes = airlock_transfer::run(jobs, source, sink, options.clone(), &stop, events).await;
        judge_outcomes(&items, outcomes)?;
    }
    Ok(())
}

fn job(item: &Item) -> Result<Job, Error> {
    let job = item.image.job(item.destination.spot.repository.clone(), Some(item.destination.tag.clone()))?;
    // Without one of them the release is of no use.
    Ok(Job { critical: true, ..job })
}

/// The first failure as the error.
fn judge_outcomes(items: &[&Item], outcomes: Vec<Outcome>) -> Result<(), Failure> {
    let mut failures = Vec::new();
    let (mut withheld, mut stopped) = (0, false);
    for (item, outcome) in items.iter().zip(outcomes) {
        match outcome {
            Outcome::Done => {}
            Outcome::Failed(errors) => failures.extend(
                errors
                    .into_iter()
                    .map(|e| e.context(format!("copy `{}` to `{}`", shown(&item.source), item.destination))),
            ),
            Outcome::Withheld => withheld += 1,
            Outcome::Stopped => stopped = true,
        }
    }
    if failures.is_empty() {
        return if stopped {
            Err(Error::new(ErrorKind::Interrupted, "copy the release", "it was stopped")
                .hint("run the same command again: what has arrived is not copied twice")
                .into())
        } else {
            Ok(())
        };
    }
    // The others were told when they happened.
    let first = failures.remove(0);
    if withheld > 0 {
        eprintln!("{withheld} images were not begun, and the release image was not written");
    }
    let hint = match first.hint_text() {
        Some(hint) => hint.to_owned(),
        None => "half a release is none; run the same command again: what has arrived is not copied twice".to_owned(),
    };
    Err(first.hint(hint).into())
}
