//! `airlock registry gc|generations|scrub|repair`: through the registry that serves the storage where one does, otherwise
//! directly, as always in a bucket.

use std::path::{Path, PathBuf};

use airlock_oci::{Error, ErrorKind};
use airlock_registry::admin::{Sources, Work, ask};
use airlock_store::distribution::generations::State;
use airlock_store::distribution::{Collected, Directory, Durability, Generation, Repaired, Scrubbed, Writer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{blocking, open_bucket};
use crate::args::registry::{GcArgs, GenerationsArgs, RepairArgs, ScrubArgs};
use crate::commands::plain_path;
use crate::exit::Failure;
use crate::output;

/// Has the work done by whoever holds the storage.
async fn done<T: DeserializeOwned + Send + 'static>(root: PathBuf, work: Work) -> Result<T, Failure> {
    let json = blocking(move || {
        if !root.join("docker/registry/v2").is_dir() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("open registry storage `{}`", root.display()),
                "there is no `docker/registry/v2` below it",
            )
            .hint("give the directory that `airlock registry serve --root` serves"));
        }
        match ask(&root, &work)? {
            Some(json) => Ok(json),
            None => work.carry_out(&Writer::open(&root, Durability::Image)?),
        }
    })
    .await?;
    serde_json::from_value(json).map_err(|e| Error::new(ErrorKind::Invalid, "read the result", e).into())
}

pub(super) fn root_of(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(plain_path(path)).map_err(|e| Error::io(format!("find `{}`", path.display()), &e).into())
}

/// `registry gc`.
pub(crate) async fn gc(args: GcArgs) -> Result<u8, Failure> {
    let collected: Collected = match (open_bucket(&args.bucket).await?, &args.root) {
        (Some(bucket), _) => bucket.collect_garbage(args.dry_run).await?,
        (None, root) => {
            let root = root_of(root.as_deref().unwrap_or(Path::new(".")))?;
            let keep = args.keep.map(|keep| keep as usize);
            done(root, Work::CollectGarbage { dry_run: args.dry_run, keep }).await?
        }
    };
    if output::value(args.output, &collected)? {
        return Ok(0);
    }
    let removed = if args.dry_run { "would be removed" } else { "removed" };
    let names = [("tag", &collected.retired_tags), ("manifest", &collected.retired_manifests)];
    let names: Vec<Vec<String>> = names
        .into_iter()
        .flat_map(|(kind, names)| names.iter().map(move |name| vec![name.clone(), kind.to_owned(), removed.to_owned()]))
        .collect();
    if !names.is_empty() {
        output::text(&format!("{}\n", output::table(&["NAME", "WHAT", "STATE"], &names)))?;
    }
    let rows = [
        ("repositories", collected.repositories.to_string()),
        ("manifests", collected.manifests.to_string()),
        ("files", format!("{} ({})", collected.files, output::size(collected.bytes))),
        (removed, format!("{} ({})", collected.removed_files, output::size(collected.removed_bytes))),
        ("generations that go", numbers(&collected.generations)),
        ("kept for pushes under way", collected.leased.to_string()),
        ("signatures and such without their image", collected.orphans.to_string()),
    ];
    let rows = rows.into_iter().filter(|(name, _)| args.keep.is_some() || *name != "generations that go");
    let rows: Vec<Vec<String>> = rows.map(|(name, value)| vec![name.to_owned(), value]).collect();
    output::text(&output::table(&["WHAT", "HOW MANY"], &rows))?;
    Ok(0)
}

fn numbers(numbers: &[u64]) -> String {
    let words: Vec<String> = numbers.iter().map(u64::to_string).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// A generation without the names of all that it brought.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    number: u64,
    created: String,
    source: String,
    state: State,
    repositories: usize,
    tags: usize,
    manifests: usize,
    bytes: u64,
}

/// `registry generations`.
pub(crate) async fn generations(args: GenerationsArgs) -> Result<u8, Failure> {
    let root = root_of(&args.root)?;
    let all = blocking(move || Directory::open(&root)?.generations()).await?;
    let lines: Vec<Line> = all.iter().map(line).collect();
    if output::value(args.output, &lines)? {
        return Ok(0);
    }
    let row = |line: &Line| {
        let state = serde_json::to_value(line.state).ok().and_then(|v| v.as_str().map(str::to_owned));
        vec![
            line.number.to_string(),
            line.created.clone(),
            state.unwrap_or_default(),
            line.repositories.to_string(),
            line.tags.to_string(),
            line.manifests.to_string(),
            output::size(line.bytes),
            line.source.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    let header = ["NUMBER", "WHEN", "STATE", "REPOSITORIES", "TAGS", "MANIFESTS", "BYTES", "SOURCE"];
    output::text(&output::table(&header, &rows))?;
    Ok(0)
}

fn line(generation: &Generation) -> Line {
    let (tags, manifests) = generation.counts();
    Line {
        number: generation.number,
        created: generation.created.clone(),
        source: generation.source.clone(),
        state: generation.state,
        repositories: generation.repositories.len(),
        tags,
        manifests,
        bytes: generation.bytes,
    }
}

/// `registry scrub`.
pub(crate) async fn scrub(args: ScrubArgs) -> Result<u8, Failure> {
    let bytes_per_second = args.rate.map(|mib| mib * 1024 * 1024);
    let (scrubbed, place): (Scrubbed, _) = match (open_bucket(&args.bucket).await?, &args.root) {
        (Some(bucket), _) => (bucket.scrub(bytes_per_second).await?, bucket.describe()),
        (None, root) => {
            let root = root_of(root.as_deref().unwrap_or(Path::new(".")))?;
            let place = root.display().to_string();
            (done(root, Work::Scrub { bytes_per_second }).await?, place)
        }
    };
    if !output::value(args.output, &scrubbed)? {
        let rows: Vec<Vec<String>> = scrubbed.damage.iter().map(row).collect();
        let read = format!("read {} files ({})\n", scrubbed.files, output::size(scrubbed.bytes));
        let damage = if rows.is_empty() { String::new() } else { output::table(&["FILE", "FAULT", "IMAGES"], &rows) };
        output::text(&format!("{read}{damage}"))?;
    }
    scrubbed.verdict(&place)?;
    Ok(0)
}

/// `registry repair`.
pub(crate) async fn repair(args: RepairArgs) -> Result<u8, Failure> {
    let from: Vec<PathBuf> = args.from.iter().map(|path| root_of(path)).collect::<Result<_, _>>()?;
    let (repaired, place): (Repaired, _) = match (open_bucket(&args.bucket).await?, &args.root) {
        (Some(bucket), _) => {
            let sources = blocking(move || Sources::open(&from)).await?;
            (bucket.repair(args.quick, &|digest| sources.find(digest)).await?, bucket.describe())
        }
        (None, root) => {
            let root = root_of(root.as_deref().unwrap_or(Path::new(".")))?;
            let place = root.display().to_string();
            (done(root, Work::Repair { from, quick: args.quick }).await?, place)
        }
    };
    if !output::value(args.output, &repaired)? {
        let mut rows: Vec<Vec<String>> =
            repaired.restored.iter().map(|digest| vec![digest.to_string(), "restored".into(), String::new()]).collect();
        rows.extend(repaired.left.iter().map(row));
        if rows.is_empty() {
            output::text("nothing is damaged or missing\n")?;
        } else {
            output::text(&output::table(&["FILE", "STATE", "IMAGES"], &rows))?;
        }
    }
    if repaired.left.is_empty() {
        return Ok(0);
    }
    let cause = format!("files that are still damaged or missing: {}", repaired.left.len());
    Err(Error::new(ErrorKind::Damaged, format!("repair `{place}`"), cause)
        .hint("give another archive with `--from`, or push or mirror the images again")
        .into())
}

fn row(damage: &airlock_store::distribution::Damage) -> Vec<String> {
    let fault = serde_json::to_value(damage.fault).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    let more = damage.affected.saturating_sub(1);
    let first = damage.images.first().cloned().unwrap_or_default();
    let images = if more > 0 { format!("{first} and {more} more") } else { first };
    vec![damage.digest.to_string(), fault, images]
}
