//! `airlock registry import`: into storage, through the registry that serves it where one does, or into another registry.

use std::path::PathBuf;
use std::sync::Arc;

use airlock_client::RegistrySink;
use airlock_mirror::event::Events;
use airlock_mirror::import::{Destination, Filter, ImportReport, Origin, Request, run as run_import};
use airlock_mirror::plan::Cache;
use airlock_mirror::report::Status;
use airlock_oci::{Registry, Repository};
use airlock_registry::admin::Served;
use airlock_store::distribution::{Directory, Durability, Intake, Keeper, Writer};
use airlock_transfer::Stop;

use super::blocking;
use super::upkeep::root_of;
use crate::args::registry::ImportArgs;
use crate::commands::mirror::client;
use crate::commands::plain_path;
use crate::exit::Failure;
use crate::output::{self, size};
use crate::progress::{Look, Progress};
use crate::{environment, signals};

/// Failures that are printed; the JSON has all.
const MAX_PRINTED_FAILURES: usize = 20;

/// Runs the verb.
pub(crate) async fn run(args: ImportArgs, look: Look) -> Result<u8, Failure> {
    let progress = Progress::start(look);
    let events = progress.events();
    let outcome = import(&args, &events).await;
    progress.end();
    let report = outcome?;
    if !output::value(args.output, &report)? {
        output::text(&output::table(&["WHAT", "HOW MUCH"], &rows(&report)))?;
    }
    summary(&report, &args);
    Ok(report.exit_code())
}

async fn import(args: &ImportArgs, events: &Events) -> Result<ImportReport, Failure> {
    let stop = Stop::default();
    signals::listen(&stop);
    let filter = Filter { include: args.include.clone(), exclude: args.exclude.clone() };
    let origin = origin(args, &filter, events).await?;
    let (destination, place) = match (&args.root, &args.to) {
        (Some(root), _) => {
            let root = root_of(root)?;
            let place = root.display().to_string();
            (storage(args, &origin, root).await?, place)
        }
        (None, Some(to)) => {
            let (registry, below) = registry(to)?;
            let client = client(&args.common, &args.target.side(), &[registry.to_string()], events)?;
            (Destination::Registry(Arc::new(RegistrySink::new(client, registry, below)?)), to.clone())
        }
        (None, None) => return Err(Failure::usage("there is no destination", "add --root DIR or --to docker://HOST")),
    };
    let prefix = args.prefix.as_deref().map(|text| repository(text, "--prefix")).transpose()?;
    let mut transfer = airlock_transfer::Options::default();
    if let Some(images) = args.parallel_images {
        transfer.parallel_images = images.into();
    }
    if let Some(layers) = args.parallel_layers {
        transfer.parallel_layers = layers.into();
    }
    let request = Request { origin, destination, place, prefix, dry_run: args.dry_run, transfer };
    Ok(run_import(request, Arc::clone(events), &stop).await?)
}

async fn origin(args: &ImportArgs, filter: &Filter, events: &Events) -> Result<Origin, Failure> {
    let name = args.name.as_deref().map(|text| repository(text, "--name")).transpose()?;
    if let [source] = &args.source[..]
        && source.starts_with("docker://")
    {
        let (registry, below) = registry(source)?;
        let client = client(&args.common, &args.from.side(), &[registry.to_string()], events)?;
        let cache = Arc::new(Cache::open(&environment::cache()));
        return Ok(Origin::registry(&client, &registry, below.as_ref(), filter, cache).await?);
    }
    if let Some(other) = args.source.iter().find(|s| s.contains("://") && !s.starts_with("file://")) {
        return Err(Failure::usage(
            format!("`{other}` cannot be imported from together with others"),
            "give one docker://HOST, or directories; several only where they are archives",
        ));
    }
    let plain = |source: &String| {
        let path = source.strip_prefix("oci:").unwrap_or(source);
        plain_path(std::path::Path::new(path))
    };
    let paths: Vec<PathBuf> = args.source.iter().map(plain).collect();
    let filter = filter.clone();
    Ok(blocking(move || Origin::disk(&paths, name.as_ref(), &filter)).await?)
}

/// The storage, with whoever changes it: the registry that serves it, or this process.
async fn storage(args: &ImportArgs, origin: &Origin, root: PathBuf) -> Result<Destination, Failure> {
    let same = |source: &String| {
        let source = root_of(std::path::Path::new(source)).ok().and_then(|path| path.canonicalize().ok());
        source.is_some() && source == root.canonicalize().ok()
    };
    if args.source.iter().any(same) {
        return Err(Failure::usage(
            format!("`{}` is the source and the destination", root.display()),
            "what is in a storage need not be imported into it",
        ));
    }
    let files = origin.files().filter(|_| !args.copy);
    let dry_run = args.dry_run;
    Ok(blocking(move || {
        let is_storage = root.join("docker/registry/v2").is_dir();
        if dry_run {
            let seen = is_storage.then(|| Directory::open(&root)).transpose()?;
            return Ok(Destination::Seen(seen.map(Arc::new)));
        }
        let keeper: Arc<dyn Keeper> = match Served::at(&root) {
            Some(served) => Arc::new(served),
            None => Arc::new(Writer::open(&root, Durability::Image)?),
        };
        let mut intake = Intake::open(&root, keeper)?;
        if let Some(files) = files {
            intake = intake.linking(move |digest| files(digest));
        }
        Ok(Destination::Storage(Arc::new(intake)))
    })
    .await?)
}

/// `docker://HOST[:PORT][/PATH]`.
fn registry(text: &str) -> Result<(Registry, Option<Repository>), Failure> {
    let name = text.strip_prefix("docker://").unwrap_or(text).trim_end_matches('/');
    let (host, path) = name.split_once('/').map_or((name, None), |(host, path)| (host, Some(path)));
    let hint = "write docker://HOST[:PORT][/PATH], without a tag";
    let registry = Registry::new(host).map_err(|e| Failure::usage(format!("`{text}`: {e}"), hint))?;
    let path = path.map(Repository::new).transpose().map_err(|e| Failure::usage(format!("`{text}`: {e}"), hint))?;
    Ok((registry, path))
}

fn repository(text: &str, flag: &str) -> Result<Repository, Failure> {
    Repository::new(text).map_err(|e| {
        Failure::usage(format!("{flag} `{text}`: {e}"), "give the name of a repository, such as `mirror/app`")
    })
}

fn rows(report: &ImportReport) -> Vec<Vec<String>> {
    let bytes = &report.bytes;
    let done = report.images.iter().filter(|image| image.status == Status::Complete).count();
    let mut rows = vec![
        ("images".to_owned(), report.images.len().to_string()),
        ("all of them".to_owned(), size(bytes.planned)),
        ("there before".to_owned(), size(bytes.present)),
        ("left by an interrupted import".to_owned(), size(bytes.resumed)),
    ];
    if report.dry_run {
        rows.push(("to be fetched or linked".to_owned(), format!("{} ({} bytes)", size(bytes.needed), bytes.needed)));
    } else {
        rows.push(("imported".to_owned(), format!("{done} of {}", report.images.len())));
        rows.push(("written".to_owned(), size(bytes.moved.saturating_sub(bytes.linked))));
        rows.push(("linked".to_owned(), size(bytes.linked)));
    }
    if !report.retagged.is_empty() {
        rows.push(("tags that pointed elsewhere".to_owned(), report.retagged.len().to_string()));
    }
    rows.extend(report.generation.map(|number| ("generation".to_owned(), number.to_string())));
    rows.into_iter().map(|(name, value)| vec![name, value]).collect()
}

/// Says what is missing and what to do next.
fn summary(report: &ImportReport, args: &ImportArgs) {
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    let failures: Vec<_> = report.failures().filter(|image| !image.errors.is_empty()).collect();
    for image in failures.iter().take(MAX_PRINTED_FAILURES) {
        for error in &image.errors {
            eprintln!("error: `{}`: {}", image.name, error.cause);
            if let Some(hint) = &error.hint {
                eprintln!("hint: {hint}");
            }
        }
    }
    if failures.len() > MAX_PRINTED_FAILURES {
        eprintln!("… and {} more, all of them with `-o json`", failures.len() - MAX_PRINTED_FAILURES);
    }
    match (report.dry_run, report.status) {
        (true, _) => eprintln!("next: run it without --dry-run"),
        (false, Status::Complete) => {
            if let Some(root) = &args.root {
                eprintln!("next: airlock registry generations --root {}", root.display());
            }
        }
        (false, _) => eprintln!("next: run the same command again; what has arrived is not fetched again"),
    }
}
