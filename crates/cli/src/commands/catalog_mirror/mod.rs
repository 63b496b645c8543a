//! `airlock catalog mirror`, in place of `oc adm catalog mirror` (updates-and-releases.md 9).
//!
//! Unlike `oc`, this takes cosign signatures along, copies the catalog itself last, tells every image that could not be had, and writes rules
//! for the names that clusters ask for also where the catalog comes out of a file tree.

mod files;
mod mapping;

use std::path::PathBuf;
use std::sync::Arc;

use airlock_client::RegistrySink;
use airlock_content::catalog::{self, Form};
use airlock_content::image::platforms;
use airlock_mirror::clock;
use airlock_mirror::event::{Event, Events, Phase};
use airlock_mirror::plan::{Attachments, Cache};
use airlock_mirror::run::{OneImage, one_image};
use airlock_oci::{Digest, Error, ErrorKind, Reference, Shape, Sink, Source};
use airlock_rules::convert::draft::DraftEntry;
use airlock_rules::{Kind, Pull};
use airlock_store::file_tree::Writer;
use airlock_transfer::{Job, Outcome, Stop};
use futures_util::StreamExt;
use serde::Serialize;

use crate::args::catalog::MirrorArgs;
use crate::commands::mirror::client;
use crate::commands::places::{Origin, is_in_tree, shown};
use crate::exit::Failure;
use crate::output;
use crate::progress::{Look, Progress};
use crate::{diagnostics, signals};
use mapping::{Mapped, Mount};

/// Images that are looked up at once.
const PARALLEL_LOOKUPS: usize = 8;
/// The exit code when only a part was mirrored.
const PARTIAL: u8 = 3;
/// Failures that are printed; all of them are in `-o json`.
const MAX_PRINTED_FAILURES: usize = 20;

/// Everything that is known before anything is written.
struct Plan {
    mount: Mount,
    index: Mapped,
    digest: Digest,
    content: Vec<Mapped>,
    failed: Vec<Failed>,
}

/// An image that is not mirrored.
struct Failed {
    image: String,
    error: Error,
}

/// An image on its way.
struct Item<'p> {
    mapped: &'p Mapped,
    image: OneImage,
}

/// What came of it.
#[derive(Default)]
struct Done {
    /// What each image is.
    copied: Vec<(String, Digest)>,
    files: Vec<PathBuf>,
    folder: Option<PathBuf>,
    failed: Vec<Failed>,
}

/// `-o json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    source: String,
    digest: Digest,
    destination: String,
    dry_run: bool,
    images: Vec<Line>,
    files: Vec<PathBuf>,
    failed: Vec<FailedLine>,
}

#[derive(Serialize)]
struct Line {
    source: String,
    destination: String,
}

#[derive(Serialize)]
struct FailedLine {
    image: String,
    error: String,
}

/// Runs the verb.
pub(crate) async fn run(args: MirrorArgs, look: Look) -> Result<u8, Failure> {
    if args.path.is_some() {
        return Err(Failure::usage(
            "--path unpacks the catalog, which this program reads as it streams by",
            "leave it out; `airlock catalog list` shows what is in a catalog",
        ));
    }
    let source = mapping::source(&args.source)?;
    let mount = Mount::read(&args.destination, &source, args.max_components)?;
    let progress = Progress::start(look);
    let result = mirror(&args, source, mount, look, &progress).await;
    progress.end();
    let (plan, done) = result?;
    print(&args, &plan, &done)?;
    Ok(if done.failed.is_empty() { 0 } else { PARTIAL })
}

async fn mirror(
    args: &MirrorArgs,
    source: Reference,
    mount: Mount,
    look: Look,
    progress: &Arc<Progress>,
) -> Result<(Plan, Done), Failure> {
    let events = progress.events();
    let say = |text: String| {
        if !look.quiet {
            progress.line(&text);
        }
    };
    events(Event::Phase(Phase::Plan));
    let hosts: Vec<String> = (!is_in_tree(&source)).then(|| source.registry().to_string()).into_iter().collect();
    let client = client(&args.common, &args.side.side(), &hosts, &events)?;
    let from_dir = is_in_tree(&source).then(|| args.from_dir.as_deref().unwrap_or(&args.dir));
    let origin = Arc::new(Origin::open(from_dir, client)?);
    let mut plan = plan(args, &origin, source, mount, &say).await?;
    let failed = std::mem::take(&mut plan.failed);
    if let (false, Some(_)) = (args.continue_on_error, failed.first()) {
        return Err(stopped_by(failed));
    }
    let mut done = Done { failed, ..Done::default() };
    if !args.manifests_only {
        let total = plan.content.len() + 1;
        let mut items = Vec::with_capacity(total);
        let mapped: Vec<&Mapped> = plan.content.iter().chain([&plan.index]).collect();
        let lookups = mapped.iter().map(|mapped| {
            let source: Arc<dyn Source> = Arc::clone(&origin) as _;
            async move { (*mapped, look_up(mapped, source).await) }
        });
        let mut found = futures_util::stream::iter(lookups).buffered(PARALLEL_LOOKUPS);
        let mut looked = 0;
        while let Some((mapped, result)) = found.next().await {
            match result {
                Ok(image) => items.push(Item { mapped, image }),
                Err(error) => done.failed.push(Failed { image: shown(&mapped.name), error }),
            }
            looked += 1;
            events(Event::Planned { done: looked, total });
        }
        if let (false, Some(_)) = (args.continue_on_error, done.failed.first()) {
            return Err(stopped_by(done.failed));
        }
        say(format!("info: Mirroring {} images to {} ...", items.len(), args.destination));
        if args.dry_run {
            say("info: Dry run complete".to_owned());
        } else {
            copy(args, &plan, &items, Arc::clone(&origin), &events, &mut done).await?;
        }
    }
    if !args.dry_run {
        let folder = manifests_folder(args, &plan.index.name);
        done.files = files::write(&folder, cluster_files(args, &plan, &say)?)?;
        done.folder = Some(folder);
    }
    Ok((plan, done))
}

/// Reads the catalog and finds out where everything goes.
async fn plan(
    args: &MirrorArgs,
    origin: &Arc<Origin>,
    source: Reference,
    mount: Mount,
    say: &impl Fn(String),
) -> Result<Plan, Failure> {
    let (digest, instance) = chosen(origin, &source, args.index_filter_by_os.as_deref()).await?;
    let read = catalog::read(origin.as_ref(), &instance, &super::catalog::folder()).await;
    let catalog = read.map_err(|e| e.context(format!("read the catalog `{}`", shown(&source))))?;
    let kind = match catalog.origin.form {
        Form::Files => "declarative configs",
        Form::Sqlite => "database",
    };
    say(format!("src image has index label for {kind} path: /{}", catalog.origin.path));
    let (content, unmapped) = mount.content(&source, &catalog);
    let failed = unmapped.into_iter().map(|one| Failed { image: one.text.to_string(), error: one.error });
    Ok(Plan { index: mount.index(&source)?, mount, digest, content, failed: failed.collect() })
}

/// What the catalog's name stands for, and the name of the image in it that is read.
async fn chosen(origin: &Arc<Origin>, name: &Reference, filter: Option<&str>) -> Result<(Digest, Reference), Failure> {
    let found = origin.manifest(name).await?;
    let digest = found.value.digest().clone();
    let by_digest = name.with_digest(digest.clone());
    let Some(filter) = filter.filter(|_| found.value.shape() == Shape::Index) else { return Ok((digest, by_digest)) };
    let wanted = regex::Regex::new(filter).map_err(|e| {
        Failure::usage(format!("--index-filter-by-os `{filter}`: {e}"), "write a platform, such as linux/amd64")
    })?;
    let instance = platforms(&found.value).find(|(platform, _)| wanted.is_match(&platform.to_string()));
    let Some((_, instance)) = instance else {
        let known: Vec<String> = platforms(&found.value).map(|(platform, _)| platform.to_string()).collect();
        return Err(Failure::usage(
            format!("`{}` has no image for --index-filter-by-os `{filter}`", shown(name)),
            format!("it has {}", known.join(", ")),
        ));
    };
    Ok((digest, name.with_digest(instance.digest.clone())))
}

async fn look_up(mapped: &Mapped, source: Arc<dyn Source>) -> Result<OneImage, Error> {
    one_image(&shown(&mapped.name), &mapped.source, source, Arc::new(Cache::none()), Attachments::Signatures, &[]).await
}

fn stopped_by(mut failed: Vec<Failed>) -> Failure {
    let first = failed.remove(0);
    if !failed.is_empty() {
        eprintln!("{} more images cannot be had", failed.len());
    }
    let error = first.error.context(format!("mirror `{}`", first.image));
    match error.hint_text().map(str::to_owned) {
        Some(_) => error.into(),
        None => error.hint("nothing was copied; without --continue-on-error=false the rest is").into(),
    }
}

/// Copies the images of the operators, then the catalog.
async fn copy(
    args: &MirrorArgs,
    plan: &Plan,
    items: &[Item<'_>],
    origin: Arc<Origin>,
    events: &Events,
    done: &mut Done,
) -> Result<(), Failure> {
    let sink: Arc<dyn Sink> = match &plan.index.destination.spot.registry {
        Some(registry) => {
            let target = client(&args.common, &args.target.side(), &[registry.to_string()], events)?;
            Arc::new(RegistrySink::new(target, registry.clone(), None)?)
        }
        None => Arc::new(Writer::open(&args.dir)?),
    };
    let most = args.max_per_registry.get();
    let options = airlock_transfer::Options {
        parallel_images: most,
        parallel_blobs: most,
        parallel_layers: most.min(airlock_transfer::Options::default().parallel_layers),
        ..Default::default()
    };
    let stop = Stop::default();
    signals::listen(&stop);
    events(Event::Forecast {
        images: items.len(),
        bytes: items.iter().map(|item| item.image.bytes()).sum(),
        blobs: items.iter().map(|item| item.image.blob_bytes()).sum(),
        carried_before: 0,
        resumed: 0,
        missing: done.failed.len(),
    });
    events(Event::Phase(Phase::Copy));
    let is_index = |item: &&Item<'_>| std::ptr::eq(item.mapped, &raw const plan.index);
    let (index, content): (Vec<&Item<'_>>, Vec<&Item<'_>>) = items.iter().partition(is_index);
    for items in [content, index] {
        let jobs = items.iter().map(|item| job(args, item)).collect::<Result<Vec<Job>, Error>>()?;
        let forward = Arc::clone(events);
        let events: airlock_transfer::Events = Arc::new(move |event| forward(Event::Transfer(event)));
        let source: Arc<dyn Source> = Arc::clone(&origin) as _;
        let outcomes = airlock_transfer::run(jobs, source, Arc::clone(&sink), options.clone(), &stop, events).await;
        let mut withheld = 0;
        for (item, outcome) in items.iter().zip(outcomes) {
            match outcome {
                Outcome::Done => {
                    done.copied.push((item.mapped.destination.to_string(), item.image.digest().clone()));
                }
                Outcome::Failed(errors) => done
                    .failed
                    .extend(errors.into_iter().take(1).map(|error| Failed { image: shown(&item.mapped.name), error })),
                Outcome::Withheld => withheld += 1,
                Outcome::Stopped => {
                    return Err(Error::new(ErrorKind::Interrupted, "copy the catalog", "it was stopped")
                        .hint("run the same command again: what has arrived is not copied twice")
                        .into());
                }
            }
        }
        if !args.continue_on_error && !done.failed.is_empty() {
            if withheld > 0 {
                eprintln!("{withheld} images were not begun, and the catalog was not written");
            }
            let first = done.failed.remove(0);
            return Err(first.error.context(format!("copy `{}`", first.image)).into());
        }
    }
    if !done.copied.iter().any(|(destination, _)| *destination == plan.index.destination.to_string()) {
        let last = done.failed.pop().map(|failed| failed.error);
        let cause = last.map_or_else(|| "it was not copied".to_owned(), |error| error.to_string());
        return Err(
            Error::new(ErrorKind::Invalid, format!("copy the catalog `{}`", shown(&plan.index.name)), cause).into()
        );
    }
    Ok(())
}

fn job(args: &MirrorArgs, item: &Item<'_>) -> Result<Job, Error> {
    let destination = &item.mapped.destination;
    let job = item.image.job(destination.spot.repository.clone(), Some(destination.tag.clone()))?;
    Ok(Job { critical: !args.continue_on_error, ..job })
}

fn manifests_folder(args: &MirrorArgs, index: &Reference) -> PathBuf {
    let usual = || PathBuf::from(format!("manifests-{}-{}", files::index_name(index), clock::now().0));
    args.to_manifests.clone().unwrap_or_else(usual)
}

/// The files for a cluster; in front of a file tree there is none.
fn cluster_files(args: &MirrorArgs, plan: &Plan, say: &impl Fn(String)) -> Result<Vec<(&'static str, String)>, Error> {
    let all: Vec<&Mapped> = plan.content.iter().chain([&plan.index]).collect();
    let mut written = vec![("mapping.txt", files::mapping(&all))];
    if plan.mount.is_tree() {
        return Ok(written);
    }
    let name = files::index_name(&plan.index.name);
    let by_digest = files::entries(args.idms_scope, Pull::Digest, &all);
    // The catalog itself is asked for at the mirror, by its CatalogSource.
    let content: Vec<&Mapped> = plan.content.iter().collect();
    let by_tag = files::entries(args.idms_scope, Pull::Tag, &content);
    let rules = |kind, entries: &[DraftEntry]| files::rules(kind, &name, entries, args.max_idms_size);
    if !by_digest.is_empty() {
        written.push(("imageDigestMirrorSet.yaml", rules(Kind::Idms, &by_digest)?));
        written.push(("imageContentSourcePolicy.yaml", rules(Kind::Icsp, &by_digest)?));
    }
    if !by_tag.is_empty() {
        written.push(("imageTagMirrorSet.yaml", rules(Kind::Itms, &by_tag)?));
        let tags = content.iter().filter(|image| image.name.digest().is_none()).count();
        say(format!(
            "note: {tags} images are named by tag, which clusters find by imageTagMirrorSet.yaml only (4.13 and later)"
        ));
    }
    written.push(("catalogSource.yaml", files::catalog_source(&plan.index)));
    Ok(written)
}

fn print(args: &MirrorArgs, plan: &Plan, done: &Done) -> Result<(), Failure> {
    let all: Vec<&Mapped> = plan.content.iter().chain([&plan.index]).collect();
    let line = |m: &&Mapped| Line { source: shown(&m.listed), destination: m.destination.to_string() };
    let failed = |f: &Failed| FailedLine { image: f.image.clone(), error: f.error.to_string() };
    let document = Document {
        source: shown(&plan.index.name),
        digest: plan.digest.clone(),
        destination: args.destination.clone(),
        dry_run: args.dry_run,
        images: all.iter().map(line).collect(),
        files: done.files.clone(),
        failed: done.failed.iter().map(failed).collect(),
    };
    if !output::value(args.output, &document)? {
        let mut text = String::new();
        if args.dry_run {
            text.push_str(&files::mapping(&all));
        }
        for (destination, digest) in &done.copied {
            text.push_str(&format!("{digest} {destination}\n"));
        }
        if plan.mount.is_tree() && !args.dry_run && !args.manifests_only {
            text.push_str(&format!(
                "\nTo upload local images to a registry, run:\n\n    oc adm catalog mirror {} REGISTRY/REPOSITORY\n\n",
                plan.index.destination
            ));
        }
        if let Some(folder) = &done.folder {
            text.push_str(&format!("wrote mirroring manifests to {}\n", folder.display()));
        }
        output::text(&text)?;
        if plan.mount.is_tree() && !args.dry_run && !args.manifests_only {
            let from = args.dir.display();
            eprintln!("next: airlock catalog mirror {} REGISTRY/REPOSITORY --from-dir {from}", plan.index.destination);
        }
    }
    for failed in done.failed.iter().take(MAX_PRINTED_FAILURES) {
        diagnostics::print_error(&failed.error);
    }
    if done.failed.len() > MAX_PRINTED_FAILURES {
        eprintln!("and {} more; -o json lists all", done.failed.len() - MAX_PRINTED_FAILURES);
    }
    if !done.failed.is_empty() {
        eprintln!("partial: {} of {} images cannot be had", done.failed.len(), all.len() + done.failed.len());
    }
    Ok(())
}
