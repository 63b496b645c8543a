//! `airlock mirror`: arguments to a request, a run, what to say of its report.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use airlock_client::Client;
use airlock_mirror::config::{self, Loaded};
use airlock_mirror::event::{Event, Events};
use airlock_mirror::plan::catalogs::{OnMissing, Rules};
use airlock_mirror::policy::Policy;
use airlock_mirror::report::Report;
use airlock_mirror::run::{DryRun, Request, Settings, Workflow};
use airlock_oci::{Error, ErrorKind};
use airlock_transfer::Stop;

use crate::args::mirror::{
    AttachmentsArg, MirrorArgs, OnMissingArg, OperatorArgs, PlatformArgs, PolicyArgs, SelectionArg, VerifyArg,
};
use crate::args::registries::{CommonArgs, Side};
use crate::commands::version::VERSION;
use crate::commands::{file_path, host_of, registry_name, summary};
use crate::exit::{Exit, Failure};
use crate::output;
use crate::progress::{Look, Progress};
use crate::{environment, signals};

/// Runs the verb.
pub(crate) async fn run(args: MirrorArgs, look: Look) -> Result<u8, Failure> {
    let (config, workflow, settings, retry) = match &args.retry {
        Some(path) => from_report(path)?,
        None => {
            let workflow = workflow(&args)?;
            let config = args.config.clone().ok_or_else(|| Failure::usage("--config is mandatory", "add -c FILE"))?;
            let settings = settings(&args, &workflow)?;
            (config, workflow, settings, None)
        }
    };
    let progress = Progress::start(look);
    let loaded = config::load(&config)?;
    warn(&loaded, &progress, look);
    for flag in idle(&args, &workflow).into_iter().filter(|_| !look.quiet && args.retry.is_none()) {
        progress.line(&format!("note: {flag} has no effect in this direction"));
    }
    let events = progress.events();
    let (source, target) = clients(&args, &workflow, &loaded, &events)?;
    let mut transfer = airlock_transfer::Options { image_timeout: args.image_timeout, ..Default::default() };
    if let Some(images) = args.parallel_images {
        transfer.parallel_images = images.into();
    }
    if let Some(layers) = args.parallel_layers {
        transfer.parallel_layers = layers.into();
    }
    let dry_run = match (args.dry_run, args.dry_run_manifest_lists) {
        (true, _) => Some(DryRun::Images),
        (_, true) => Some(DryRun::Instances),
        _ => None,
    };
    let request = Request {
        loaded,
        workflow: workflow.clone(),
        settings,
        dry_run,
        services: environment::services(),
        source,
        target,
        transfer,
        cache: environment::cache(),
        state: environment::state(),
        retry,
        version: VERSION.into(),
    };
    let stop = Stop::default();
    signals::listen(&stop);
    let report = airlock_mirror::run::run(request, events, &stop).await;
    progress.end();
    let report = report?;
    match args.output {
        Some(format) if output::value(format, &report)? => {}
        _ => summary::tell(&report, &workflow, &args),
    }
    Ok(report.exit_code())
}

/// Flags that were given and say nothing to this workflow.
fn idle(args: &MirrorArgs, workflow: &Workflow) -> Vec<&'static str> {
    let reads_archives = matches!(workflow, Workflow::FromDisk { .. });
    let writes_archives = matches!(workflow, Workflow::ToDisk { .. });
    let side = |creds: &Option<String>, cert_dir: &Option<PathBuf>, authfile: &Option<PathBuf>| {
        creds.is_some() || cert_dir.is_some() || authfile.is_some()
    };
    let (source, target) = (&args.source, &args.target);
    [
        ("--since", args.since.is_some() && !writes_archives),
        ("--strict-archive", args.strict_archive && !writes_archives),
        ("--replace", args.replace && !writes_archives),
        ("--verify", args.verify == VerifyArg::Quick && !reads_archives),
        ("--max-nested-paths", args.max_nested_paths > 0 && writes_archives),
        ("--target-version", args.target_version.is_some() && writes_archives),
        ("--dest-*", side(&target.dest_creds, &target.dest_cert_dir, &target.dest_authfile) && writes_archives),
        ("--src-*", side(&source.src_creds, &source.src_cert_dir, &source.src_authfile) && reads_archives),
    ]
    .into_iter()
    .filter_map(|(flag, idle)| idle.then_some(flag))
    .collect()
}

/// Prints the warnings of a configuration.
pub(crate) fn warn(loaded: &Loaded, progress: &Progress, look: Look) {
    if !look.quiet {
        for warning in &loaded.warnings {
            progress.line(&warning.to_string());
        }
    }
}

type Recorded = (PathBuf, Workflow, Settings, Option<(u32, String)>);

fn from_report(path: &Path) -> Result<Recorded, Failure> {
    let what = || format!("read the report {}", path.display());
    let bytes = std::fs::read(path).map_err(|e| Error::io(what(), &e))?;
    let report: Report = serde_json::from_slice(&bytes).map_err(|e| {
        Error::new(ErrorKind::Invalid, what(), e)
            .hint("give the report.json that `airlock mirror` wrote into its working-dir")
    })?;
    Ok((report.retry.config, report.retry.workflow, report.retry.settings, report.retry.archive))
}

fn workflow(args: &MirrorArgs) -> Result<Workflow, Failure> {
    let destination = args
        .destination
        .as_deref()
        .ok_or_else(|| Failure::usage("no destination", "add file://DIR or docker://HOST[:PORT][/NAMESPACE]"))?;
    let workspace = args.workspace.as_deref().map(|w| file_path(w, "--workspace")).transpose()?;
    if destination.starts_with("file://") {
        let directory = file_path(destination, "")?;
        if !args.from.is_empty() {
            return Err(Failure::usage(
                "--from is not needed with a file:// destination",
                "--from loads an archive into a registry: the destination is then docker://…",
            ));
        }
        if workspace.is_some() {
            return Err(Failure::usage(
                "--workspace is not needed with a file:// destination",
                "the workspace is DIR/working-dir beside the archive",
            ));
        }
        return Ok(Workflow::ToDisk { directory });
    }
    if !destination.starts_with("docker://") {
        return Err(Failure::usage(
            format!("destination `{destination}` must begin with file:// or docker://"),
            format!("for a registry write `docker://{destination}`, for an archive `file://{destination}`"),
        ));
    }
    let registry = registry_name(destination)?;
    if !args.from.is_empty() {
        let from = args.from.iter().map(|f| file_path(f, "--from")).collect::<Result<_, _>>()?;
        return Ok(Workflow::FromDisk { from, workspace, registry });
    }
    let workspace = workspace.ok_or_else(|| {
        Failure::usage(
            "a docker:// destination needs --from (to load an archive) or --workspace (to mirror from registries)",
            format!("for example: --workspace file://workspace docker://{registry}"),
        )
    })?;
    Ok(Workflow::ToRegistry { workspace, registry })
}

fn settings(args: &MirrorArgs, workflow: &Workflow) -> Result<Settings, Failure> {
    if let Some(date) = &args.since
        && !airlock_mirror::clock::is_date(date)
    {
        return Err(Failure::usage(
            format!("--since {date} is not a date"),
            "the form is yyyy-MM-dd, such as 2026-11-21",
        ));
    }
    Ok(Settings {
        all_attachments: args.attachments == AttachmentsArg::All,
        remove_signatures: args.remove_signatures,
        max_nested_paths: args.max_nested_paths,
        strict_archive: args.strict_archive,
        replace: args.replace,
        since: args.since.clone(),
        verify_quick: args.verify == VerifyArg::Quick,
        legacy_resources: args.target_version.as_deref().map(is_legacy).transpose()?.unwrap_or(false),
        policy: policy_file(&args.policy, workflow)?,
        keep_going: args.keep_going,
        ..found_by(&args.release, &args.operators)
    })
}

/// Settings that say nothing but how releases are found and bundles chosen.
pub(crate) fn found_by(args: &PlatformArgs, operators: &OperatorArgs) -> Settings {
    // A retry may be run from another folder.
    let absolute = |place: &String| match std::path::absolute(place) {
        Ok(path) if !place.contains("://") => path.display().to_string(),
        _ => place.clone(),
    };
    Settings {
        ignore_release_signature: args.ignore_release_signature,
        graph_data: args.graph_data.as_ref().map(absolute),
        graph_base: args.graph_base.clone(),
        selection: rules(operators.selection),
        on_missing: match operators.on_missing {
            OnMissingArg::Skip => OnMissing::Skip,
            OnMissingArg::Keep => OnMissing::Keep,
            OnMissingArg::Fail => OnMissing::Fail,
        },
        with_dependencies: operators.with_dependencies,
        minimal_path: operators.minimal_path,
        ..Settings::default()
    }
}

fn rules(selection: SelectionArg) -> Rules {
    match selection {
        SelectionArg::Table => Rules::Table,
        SelectionArg::Head => Rules::Head,
    }
}

/// The policy file that these flags stand for, as an absolute path. It is read here too: a mistake in it ends the run before anything
/// else, as one in the configuration does. A run that loads archives judges nothing and needs no such file.
pub(crate) fn policy_file(args: &PolicyArgs, workflow: &Workflow) -> Result<Option<PathBuf>, Failure> {
    let system = || Policy::system_file(std::env::home_dir().as_deref());
    let usage = |error: Error| Failure::Coded(error, Exit::Usage.code());
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    if matches!(workflow, Workflow::FromDisk { .. }) {
        let named = args.policy.clone().or_else(|| args.secure_policy.then(|| system().ok()).flatten());
        return Ok(named.map(absolute));
    }
    let path = match &args.policy {
        Some(path) => path.clone(),
        None if args.secure_policy => system().map_err(usage)?,
        None => return Ok(None),
    };
    Policy::load(&path).map_err(usage)?;
    Ok(Some(absolute(path)))
}

/// Whether a cluster of this version knows no IDMS (before 4.13).
fn is_legacy(version: &str) -> Result<bool, Failure> {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor) < (4, 13)),
        _ => {
            Err(Failure::usage(format!("--target-version {version} is not a version"), "the form is X.Y, such as 4.18"))
        }
    }
}

fn clients(
    args: &MirrorArgs,
    workflow: &Workflow,
    loaded: &Loaded,
    events: &Events,
) -> Result<(Client, Client), Failure> {
    let sources = source_hosts(loaded);
    let targets = match workflow {
        Workflow::ToDisk { .. } => Vec::new(),
        Workflow::FromDisk { registry, .. } | Workflow::ToRegistry { registry, .. } => vec![host_of(registry)],
    };
    Ok((
        client(&args.common, &args.source.side(), &sources, events)?,
        client(&args.common, &args.target.side(), &targets, events)?,
    ))
}

/// The hosts that a configuration names: explicit source credentials go to these and nowhere else.
pub(crate) fn source_hosts(loaded: &Loaded) -> Vec<String> {
    let content = &loaded.config.mirror;
    let release = content.platform.as_ref().and_then(|p| p.release.as_ref());
    let mut hosts: Vec<String> = content
        .additional_images
        .iter()
        .map(|i| &i.name)
        .chain(content.operators.iter().map(|o| &o.catalog))
        .chain(release)
        .filter_map(|name| match &name.location {
            config::ImageLocation::Registry(reference) => Some(reference.registry().to_string()),
            config::ImageLocation::Layout(_) => None,
        })
        .collect();
    hosts.sort();
    hosts.dedup();
    hosts
}

/// A client for one side, whose notices become events.
pub(crate) fn client(common: &CommonArgs, side: &Side, hosts: &[String], events: &Events) -> Result<Client, Failure> {
    let mut options = common.options(side, hosts)?;
    let events = Arc::clone(events);
    options.notices = Some(Arc::new(move |notice| events(Event::Client(notice))));
    Ok(Client::new(options)?)
}
