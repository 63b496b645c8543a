//! The program under its other name: `oc-mirror`'s flags, texts and exit codes over the same run.
//!
//! Lines are `YYYY/MM/DD HH:MM:SS [LEVEL]  : message`, to stderr until the workspace's log is open, then to stdout and the log
//! (oc-mirror 3.2, 13), because that is what scripts match.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use airlock_client::Client;
use airlock_mirror::clock;
use airlock_mirror::config;
use airlock_mirror::event::{Event, Phase};
use airlock_mirror::plan::Kind;
use airlock_mirror::plan::catalogs::{OnMissing, Rules};
use airlock_mirror::report::{Report, Status};
use airlock_mirror::run::{DryRun, Request, Settings, Workflow};
use airlock_mirror::workspace::Workspace;
use airlock_oci::{Error, ErrorKind};
use airlock_transfer::Stop;
use clap::{CommandFactory, Parser};

use crate::args::mirror::PolicyArgs;
use crate::args::oc_mirror::OcMirrorArgs;
use crate::args::registries::{CommonArgs, Side};
use crate::commands::host_of;
use crate::commands::mirror::{policy_file, source_hosts};
use crate::commands::version::VERSION;
use crate::exit::Failure;
use crate::progress::time;
use crate::{environment, logging, signals};

/// Verbs of oc-mirror that this version does not have.
const LATER: [&str; 3] = ["delete", "init", "describe"];

/// Writes lines as oc-mirror does.
struct Log {
    file: Mutex<Option<File>>,
    level: u8,
}

/// Runs the program.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    let words: Vec<String> = arguments.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let has = |flag: &str| words.iter().any(|w| w == flag);
    if words.first().is_some_and(|w| w == "version") {
        eprintln!("airlock {VERSION}, in place of oc-mirror v2");
        println!("Client Version: version.Info{{GitVersion:\"{VERSION}\"}}");
        return ExitCode::SUCCESS;
    }
    if words.first().is_some_and(|w| w == "completion") {
        let shell =
            words.get(1).and_then(|s| s.parse::<clap_complete::Shell>().ok()).unwrap_or(clap_complete::Shell::Bash);
        clap_complete::generate(shell, &mut OcMirrorArgs::command(), "oc-mirror", &mut std::io::stdout());
        return ExitCode::SUCCESS;
    }
    if super::oc_mirror_list::is_meant(&words) {
        return super::oc_mirror_list::main(arguments);
    }
    if let Some(verb) = words.first().filter(|w| LATER.contains(&w.as_str())) {
        eprintln!("error: `oc-mirror {verb}` is not yet supported by airlock {VERSION}");
        eprintln!("hint: mirroring works: oc-mirror -c isc.yaml file://DIR --v2");
        return ExitCode::from(1);
    }
    if has("--v1") {
        eprintln!("error: oc-mirror v1 is not provided; its image sets (v1alpha2) are read by --v2");
        return ExitCode::from(1);
    }
    let args = match OcMirrorArgs::try_parse_from(&arguments) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::from(error.use_stderr()));
        }
    };
    if args.version {
        println!("v2.0.0 (airlock {VERSION})");
        return ExitCode::SUCCESS;
    }
    if !args.v2 {
        eprintln!("error: one of the flags --v1 or --v2 must be given; for airlock it is --v2");
        return ExitCode::from(255);
    }
    let level: u8 = match args.log_level.as_str() {
        "error" => 0,
        "info" => 1,
        "debug" => 2,
        "trace" => 3,
        other => {
            eprintln!("error: invalid log-level {other}; it must be info, debug, trace or error");
            return ExitCode::from(1);
        }
    };
    logging::init(level.saturating_sub(1), level == 0, false);
    let log = Arc::new(Log { file: Mutex::default(), level });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            log.error(&format!("cannot start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(async {
        match run(&args, &log).await {
            Ok(code) => code,
            Err(failure) => {
                let usage = matches!(failure, Failure::Usage { .. });
                log.error(&format!("[Executor] {}", describe(&failure)));
                if usage {
                    let _ = OcMirrorArgs::command().print_help();
                }
                1
            }
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    ExitCode::from(code)
}

fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Config(problems) => format!("invalid configuration: {problems}"),
        Failure::Rules(problems) => problems.to_string(),
        Failure::Usage { message, hint } => {
            hint.as_ref().map_or_else(|| message.clone(), |h| format!("{message} (hint: {h})"))
        }
        Failure::Error(error) | Failure::Coded(error, _) => {
            error.hint_text().map_or_else(|| error.to_string(), |h| format!("{error} (hint: {h})"))
        }
    }
}

impl Log {
    fn write(&self, name: &str, colour: &str, message: &str) {
        let now = clock::now().rfc3339();
        let (date, rest) = now.split_at(10);
        let stamp = format!("{} {}", date.replace('-', "/"), rest.trim_matches(['T', 'Z']));
        let line = format!("{stamp} {colour}[{name}]\x1b[0m  : {message}\n");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        match file.as_mut() {
            Some(file) => {
                let _ = file.write_all(line.as_bytes());
                let _ = std::io::stdout().write_all(line.as_bytes());
            }
            None => eprint!("{line}"),
        }
    }

    fn info(&self, message: &str) {
        if self.level >= 1 {
            self.write("INFO", "\x1b[32m", message);
        }
    }

    fn warn(&self, message: &str) {
        if self.level >= 1 {
            self.write("WARN", "\x1b[33m", message);
        }
    }

    fn debug(&self, message: &str) {
        if self.level >= 2 {
            self.write("DEBUG", "\x1b[34m", message);
        }
    }

    fn error(&self, message: &str) {
        self.write("ERROR", "\x1b[31m", message);
    }

    fn open(&self, workspace: &Workspace) -> Result<(), Error> {
        let path = workspace.path().join("logs").join(format!("oc-mirror-{}.log", clock::now().compact()));
        let failed = |e: &std::io::Error| Error::io(format!("open {}", path.display()), e);
        std::fs::create_dir_all(workspace.path().join("logs")).map_err(|e| failed(&e))?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = Some(File::create(&path).map_err(|e| failed(&e))?);
        Ok(())
    }
}

fn path_of(text: &str, flag: &str) -> Result<Option<PathBuf>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    text.strip_prefix("file://").map(|p| Some(PathBuf::from(p))).ok_or_else(|| {
        Failure::usage(format!("when {flag} is used, it must have file:// prefix"), format!("{flag} file://{text}"))
    })
}

/// The conflicts of oc-mirror 2.3. Paths that merely contain one of its internal words are no error here: nothing is found by substring.
/// The rules that choose bundles: oc-mirror's own, unless the environment names others.
fn selection() -> Result<Rules, Failure> {
    match std::env::var("AIRLOCK_SELECTION").as_deref() {
        Err(_) | Ok("" | "head") => Ok(Rules::Head),
        Ok("table") => Ok(Rules::Table),
        Ok(other) => {
            Err(Failure::usage(format!("AIRLOCK_SELECTION is `{other}`, which are no rules"), "`table` or `head`"))
        }
    }
}

fn workflow(args: &OcMirrorArgs) -> Result<Workflow, Failure> {
    let usage = |message: &str, hint: &str| Failure::usage(message, hint);
    let [destination] = &args.destination[..] else {
        return Err(usage("exactly one destination is needed", "file://DIR or docker://REGISTRY[/NAMESPACE]"));
    };
    let from = path_of(&args.from, "--from")?;
    let workspace = path_of(&args.workspace, "--workspace")?;
    for (name, value) in [("parallel-images", args.parallel_images), ("parallel-layers", args.parallel_layers)] {
        if !(1..=10).contains(&value) {
            return Err(usage(&format!("the flag {name} must be between 1 and 10"), "4 and 5 are the defaults"));
        }
    }
    if args.dry_run && args.dry_run_manifest_lists {
        return Err(usage(
            "--dry-run and --dry-run-manifest-lists cannot be used together",
            "the second includes the first",
        ));
    }
    if !args.since.is_empty() && !clock::is_date(&args.since) {
        return Err(usage("--since flag needs to be in format yyyy-MM-dd", "such as 2026-11-21"));
    }
    if args.cache_dir.is_some() && std::env::var_os("OC_MIRROR_CACHE").is_some() {
        return Err(usage("either OC_MIRROR_CACHE or --cache-dir can be used, not both", "neither is needed"));
    }
    if let Some(directory) = destination.strip_prefix("file://") {
        if from.is_some() {
            return Err(usage("when destination is file://, --from is not needed", "leave it out"));
        }
        if workspace.is_some() {
            return Err(usage("when destination is file://, --workspace is not needed", "leave it out"));
        }
        return Ok(Workflow::ToDisk { directory: directory.into() });
    }
    let Some(registry) = destination.strip_prefix("docker://") else {
        return Err(usage("destination must have either file:// or docker:// protocol prefixes", "add one"));
    };
    let registry = registry.to_owned();
    match (from, workspace) {
        (Some(_), Some(_)) => {
            Err(usage("when destination is docker://, --from and --workspace cannot be used together", "give one"))
        }
        (Some(from), None) => Ok(Workflow::FromDisk { from: vec![from], workspace: None, registry }),
        (None, Some(workspace)) => Ok(Workflow::ToRegistry { workspace, registry }),
        (None, None) => Err(usage("when destination is docker://, either --from or --workspace is needed", "give one")),
    }
}

async fn run(args: &OcMirrorArgs, log: &Arc<Log>) -> Result<u8, Failure> {
    let began = Instant::now();
    log.info("👋 Hello, welcome to oc-mirror");
    log.info(&format!("⚙️  version: {VERSION} (airlock)"));
    let config_path =
        args.config.clone().ok_or_else(|| Failure::usage("the --config flag is mandatory", "add -c FILE"))?;
    let workflow = workflow(args)?;
    let loaded = config::load(&config_path)?;
    let (workspace, mode) = match &workflow {
        Workflow::ToDisk { directory } => (Workspace::of(directory), "mirrorToDisk"),
        Workflow::FromDisk { from, .. } => {
            let directory = from.first().cloned().unwrap_or_default();
            // The log lies beside the archive; a folder that is not there must not be made by opening it.
            airlock_store::archive::reader::parts_in(&directory)?;
            (Workspace::of(&directory), "diskToMirror")
        }
        Workflow::ToRegistry { workspace, .. } => (Workspace::of(workspace), "mirrorToMirror"),
    };
    log.open(&workspace)?;
    log.info(&format!("🔀 workflow mode: {mode}"));
    if args.cache_dir.is_some() {
        log.info("--cache-dir is not needed: no cache is kept, layers go straight to their place");
    }
    if args.port.is_some() {
        log.info("--port is not needed: no cache registry is started");
    }
    if args.registries_d.is_some() {
        log.info(
            "--registries.d is not needed: signatures are always looked for as sigstore attachments, beside the images",
        );
    }
    let policy = if args.secure_policy {
        policy_file(&PolicyArgs { secure_policy: true, policy: args.policy.clone() }, &workflow)?
    } else {
        if let Some(path) = &args.policy {
            log.warn(&format!("--policy {} is not used without --secure-policy: anything is accepted", path.display()));
        }
        None
    };
    if std::env::var_os("VERSION_FILTER").is_some_and(|filter| !filter.is_empty()) {
        // What loads an archive would not know of it, and find other versions there than were carried.
        log.warn("VERSION_FILTER is not used: minVersion and maxVersion of a channel say which versions are meant");
    }
    for warning in &loaded.warnings {
        log.warn(&warning.message);
    }
    let settings = Settings {
        oc_mirror: true,
        remove_signatures: args.remove_signatures,
        policy,
        max_nested_paths: args.max_nested_paths,
        strict_archive: args.strict_archive,
        since: (!args.since.is_empty()).then(|| args.since.clone()),
        // Whether data are at hand or the environment names a place is the same here as in the program's own commands.
        graph_data: std::env::var("AIRLOCK_GRAPH_DATA").ok().filter(|v| !v.is_empty()),
        // As there, without effect on channels.
        ignore_release_signature: args.ignore_release_signature
            && loaded.config.mirror.platform.as_ref().is_some_and(|p| p.release.is_some()),
        selection: selection()?,
        // As there: the catalog stays as it was chosen, and only the bundle's image is withheld.
        on_missing: OnMissing::Keep,
        ..Settings::default()
    };
    let common = CommonArgs {
        authfile: args.authfile.clone(),
        retry_times: args.retry_times,
        retry_delay: args.retry_delay,
        ..CommonArgs::default()
    };
    let content = &loaded.config.mirror;
    let collected = [
        (content.platform.is_some(), "release"),
        (!content.operators.is_empty(), "operator"),
        (!content.additional_images.is_empty(), "additional"),
    ];
    let kinds: Vec<&'static str> = collected.iter().filter(|(wanted, _)| *wanted).map(|(_, kind)| *kind).collect();
    let events = {
        let log = Arc::clone(log);
        Arc::new(move |event: Event| tell(&log, &kinds, &event))
    };
    let client = |side: Side, hosts: &[String]| -> Result<Client, Failure> {
        let mut options = common.options(&side, hosts)?;
        let events = Arc::clone(&events);
        options.notices = Some(Arc::new(move |notice| events(Event::Client(notice))));
        Ok(Client::new(options)?)
    };
    let targets = match &workflow {
        Workflow::ToDisk { .. } => Vec::new(),
        Workflow::FromDisk { registry, .. } | Workflow::ToRegistry { registry, .. } => vec![host_of(registry)],
    };
    let source = client(
        Side {
            creds: args.src_creds.clone(),
            tls_verify: Some(args.tls_verify.unwrap_or(args.src_tls_verify)),
            cert_dir: args.src_cert_dir.clone(),
            no_creds: args.src_no_creds,
            authfile: args.src_authfile.clone(),
            rules: None,
        },
        &source_hosts(&loaded),
    )?;
    let target = client(
        Side {
            creds: args.dest_creds.clone(),
            tls_verify: Some(args.tls_verify.unwrap_or(args.dest_tls_verify)),
            cert_dir: args.dest_cert_dir.clone(),
            no_creds: args.dest_no_creds,
            authfile: args.dest_authfile.clone(),
            rules: None,
        },
        &targets,
    )?;
    let transfer = airlock_transfer::Options {
        parallel_images: args.parallel_images as usize,
        parallel_layers: args.parallel_layers as usize,
        image_timeout: args.image_timeout,
        ..airlock_transfer::Options::default()
    };
    let dry_run = match (args.dry_run, args.dry_run_manifest_lists) {
        (true, _) => Some(DryRun::Images),
        (_, true) => Some(DryRun::Instances),
        _ => None,
    };
    let request = Request {
        loaded,
        workflow,
        settings,
        dry_run,
        services: environment::services(),
        source,
        target,
        transfer,
        cache: environment::cache(),
        state: environment::state(),
        retry: None,
        version: VERSION.into(),
    };
    let stop = Stop::default();
    signals::listen(&stop);
    let report = airlock_mirror::run::run(request, events, &stop).await?;
    results(&report, log, &workspace);
    log.info(&format!("mirror time     : {}", time(began.elapsed().as_secs())));
    log.info("👋 Goodbye, thank you for using oc-mirror");
    Ok(report.exit_mask())
}

fn tell(log: &Log, kinds: &[&str], event: &Event) {
    use airlock_transfer::Event as Moved;
    match event {
        Event::Phase(Phase::Plan) => {
            log.info("🕵  going to discover the necessary images...");
            for kind in kinds {
                log.info(&format!("🔍 collecting {kind} images..."));
            }
        }
        Event::Forecast { images, missing, .. } => {
            log.info("🚀 Start copying the images...");
            log.info(&format!("📌 images to copy {}", images + missing));
        }
        Event::Phase(Phase::Seal) => log.info("📦 Preparing the tarball archive..."),
        Event::Transfer(Moved::Failed { error, .. }) => log.error(&format!("[Worker] {error}")),
        Event::Client(notice) => log.debug(&notice.to_string()),
        Event::Warning(text) => log.warn(text),
        Event::Wrote(path) => log.info(&format!("{} file created", path.display())),
        _ => {}
    }
}

/// The types that results are counted by.
fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Release | Kind::ReleaseContent | Kind::Graph => "release",
        Kind::Catalog | Kind::Bundle | Kind::Related => "operator",
        Kind::Additional => "additional",
    }
}

fn results(report: &Report, log: &Log, workspace: &Workspace) {
    let mut releases = report.images.iter().filter(|image| type_of(image.kind) == "release").peekable();
    if releases.peek().is_some() && releases.all(|image| image.digest.is_none()) {
        // The words that scripts look for; oc-mirror leaves it at them, here the causes follow.
        log.error("[Executor] [GetReleaseReferenceImages] no release images found");
    }
    let counts = ["release", "operator", "additional"].map(|kind| {
        let of_kind = || report.images.iter().filter(|i| type_of(i.kind) == kind);
        (kind, of_kind().filter(|i| i.status == Status::Complete).count(), of_kind().count())
    });
    let counts: Vec<_> = counts.into_iter().filter(|(_, _, all)| *all > 0).collect();
    if report.dry_run {
        for (kind, done, all) in counts {
            log.info(&format!("{done} / {all} {kind} images would be mirrored"));
        }
        return;
    }
    for image in report.images.iter().filter(|i| i.status == Status::Complete) {
        let place = if report.workflow == "mirrorToDisk" {
            "archive"
        } else {
            report.destination.trim_start_matches("docker://")
        };
        // Components of a release are many; oc-mirror's scripts look for this word at payloads.
        let release = if image.kind == Kind::Release { "release " } else { "" };
        log.info(&format!("Success copying {release}{} ➡️  {place}", image.name));
    }
    log.info("=== Results ===");
    let mut whole = true;
    for (kind, done, all) in counts {
        if done == all {
            log.info(&format!(" ✓  {done} / {all} {kind} images mirrored successfully"));
        } else {
            whole = false;
            log.info(&format!(" ✗  {done} / {all} {kind} images mirrored: Some {kind} images failed to be mirrored - please check the logs"));
        }
    }
    if whole {
        return;
    }
    for line in report.error_lines().lines() {
        log.error(&format!("[Worker] {line}"));
    }
    let errors = report.files.iter().find(|f| f.contains("mirroring_errors_")).cloned();
    let place = errors.unwrap_or_else(|| workspace.path().join("logs").display().to_string());
    let error = Error::new(
        ErrorKind::Invalid,
        "mirror the image set",
        format!(
            "some errors occurred during the mirroring.\n\t Please review {place} for a list of mirroring errors.\n\t You may consider:\n\t * removing images or operators that cause the error from the image set config, and retrying\n\t * keeping the image set config (images are mandatory for you), and retrying\n\t * mirroring the failing images manually, if retries also fail."
        ),
    );
    log.error(&format!("[Executor] {}", error.cause()));
}
