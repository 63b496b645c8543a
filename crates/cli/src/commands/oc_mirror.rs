//! The program under its other name: `oc-mirror`'s flags, texts and exit codes over the same run.
//!
//! Lines are `YYYY/MM/DD HH:MM:SS [LEVEL]  : message`, to stderr until the workspace's log is open, then to stdout and the log
//! (oc-mirror 3.2, 13), because that is what scripts match.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

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
use crate::args::oc_mirror::{OcMirrorArgs, first_word, plain_switches};
use crate::args::registries::{CommonArgs, Side};
use crate::commands::host_of;
use crate::commands::mirror::{policy_file, source_hosts};
use crate::commands::version::VERSION;
use crate::exit::Failure;
use crate::output::{self, Format};
use crate::progress::{Progress, QUIET_PERIOD, time};
use crate::{environment, logging, signals};

/// Verbs of oc-mirror that this version does not have.
const LATER: [&str; 3] = ["delete", "init", "describe"];

/// The code of a run that was stopped.
const INTERRUPTED: u8 = 130;
/// How often it is looked whether the run has been silent.
const LOOK: Duration = Duration::from_secs(1);

/// Writes lines as oc-mirror does.
struct Log {
    file: Mutex<Option<File>>,
    level: u8,
    /// Counts, and on a terminal a bar beneath the lines.
    progress: OnceLock<Arc<Progress>>,
    /// When the last line came.
    last: Mutex<Instant>,
    /// Images of which a failure was told.
    failed: Mutex<HashSet<usize>>,
}

/// Runs the program.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    let command = OcMirrorArgs::command();
    let words: Vec<String> = arguments.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let has = |flag: &str| words.iter().any(|w| w == flag);
    let at = first_word(&words, &command);
    match at.map(|at| words[at].as_str()) {
        Some("version") => return version(&words),
        Some("help") => {
            let _ = OcMirrorArgs::command().print_long_help();
            return ExitCode::SUCCESS;
        }
        Some("completion") => {
            let shell = at.and_then(|at| words.get(at + 1)).and_then(|s| s.parse::<clap_complete::Shell>().ok());
            let shell = shell.unwrap_or(clap_complete::Shell::Bash);
            clap_complete::generate(shell, &mut OcMirrorArgs::command(), "oc-mirror", &mut std::io::stdout());
            return ExitCode::SUCCESS;
        }
        Some(verb) if LATER.contains(&verb) => {
            eprintln!("error: `oc-mirror {verb}` is not yet supported by airlock {VERSION}");
            eprintln!("hint: mirroring works: oc-mirror -c isc.yaml file://DIR --v2");
            return ExitCode::from(1);
        }
        _ => {}
    }
    if super::oc_mirror_list::is_meant(&words) {
        return super::oc_mirror_list::main(arguments);
    }
    if has("--v1") {
        eprintln!("error: oc-mirror v1 is not provided; its image sets (v1alpha2) are read by --v2");
        return ExitCode::from(1);
    }
    let args = match OcMirrorArgs::try_parse_from(plain_switches(arguments, &command)) {
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
    let log = Arc::new(Log::new(level));
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
                // There every failure before the copy is 1; that it was stopped has no code there.
                if failure.code() == INTERRUPTED { INTERRUPTED } else { 1 }
            }
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    ExitCode::from(code)
}

/// `oc-mirror version [--output json|yaml]`.
fn version(words: &[String]) -> ExitCode {
    let output = words.iter().enumerate().find_map(|(at, word)| match word.split_once('=') {
        Some(("--output" | "-o", value)) => Some(value.to_owned()),
        None if word == "--output" || word == "-o" => words.get(at + 1).cloned().or(Some(String::new())),
        _ => None,
    });
    let mut numbers = VERSION.split('.');
    let platform = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    let object = serde_json::json!({"clientVersion": {
        "major": numbers.next().unwrap_or_default(), "minor": numbers.next().unwrap_or_default(), "gitVersion": VERSION,
        "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "rustc", "platform": platform,
    }});
    let format = match output.as_deref() {
        None => {
            eprintln!("airlock {VERSION}, in place of oc-mirror v2");
            println!("Client Version: version.Info{{GitVersion:\"{VERSION}\"}}");
            return ExitCode::SUCCESS;
        }
        Some("json") => Format::Json,
        Some("yaml") => Format::Yaml,
        Some(other) => {
            eprintln!("error: --output must be 'yaml' or 'json', not `{other}`");
            return ExitCode::from(1);
        }
    };
    match output::value(format, &object) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
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
    fn new(level: u8) -> Self {
        Self {
            file: Mutex::default(),
            level,
            progress: OnceLock::new(),
            last: Mutex::new(Instant::now()),
            failed: Mutex::default(),
        }
    }

    fn write(&self, name: &str, colour: &str, message: &str) {
        let now = clock::now().rfc3339();
        let (date, rest) = now.split_at(10);
        let stamp = format!("{} {}", date.replace('-', "/"), rest.trim_matches(['T', 'Z']));
        let line = format!("{stamp} {colour}[{name}]\x1b[0m  : {message}\n");
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut print = || match file.as_mut() {
            Some(file) => {
                let _ = file.write_all(line.as_bytes());
                let _ = std::io::stdout().write_all(line.as_bytes());
            }
            None => eprint!("{line}"),
        };
        match self.progress.get() {
            Some(progress) => progress.beneath(print),
            None => print(),
        }
    }

    /// Tells where the run is when nothing else was told for a while. Ends with the log.
    fn keep_talking(self: &Arc<Self>) {
        let log = Arc::downgrade(self);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(log) = log.upgrade() else { return };
                let quiet = log.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
                let Some(progress) = log.progress.get().filter(|_| quiet + LOOK >= QUIET_PERIOD) else { continue };
                if !progress.is_drawn() {
                    log.info(&format!("⏳ {}", progress.status()));
                }
            }
        });
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

fn credentials(creds: &Option<String>, user: &Option<String>, password: &Option<String>) -> Option<String> {
    creds.clone().or_else(|| Some(format!("{}:{}", user.as_ref()?, password.as_ref()?)))
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
    for (flag, why) in args.ignored.given() {
        log.warn(&format!("{flag} has no effect: {why}"));
    }
    if !args.since.is_empty() && !matches!(workflow, Workflow::ToDisk { .. }) {
        log.warn("--since has no effect here: it is for writing archives");
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
        let progress = Arc::clone(log.progress.get_or_init(Progress::beside));
        log.keep_talking();
        let place = match &workflow {
            Workflow::ToDisk { .. } => "archive".to_owned(),
            Workflow::FromDisk { registry, .. } | Workflow::ToRegistry { registry, .. } => registry.clone(),
        };
        Arc::new(move |event: Event| {
            progress.on(&event);
            tell(&log, &progress, &kinds, &place, &event);
        })
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
            creds: credentials(&args.src_creds, &args.src_username, &args.src_password),
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
            creds: credentials(&args.dest_creds, &args.dest_username, &args.dest_password),
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
    let report = airlock_mirror::run::run(request, events, &stop).await;
    if let Some(progress) = log.progress.get() {
        progress.end();
    }
    let report = report?;
    results(&report, log, &workspace);
    log.info(&format!("mirror time     : {}", time(began.elapsed().as_secs())));
    log.info("👋 Goodbye, thank you for using oc-mirror");
    Ok(report.exit_mask())
}

fn tell(log: &Log, progress: &Progress, kinds: &[&str], place: &str, event: &Event) {
    use airlock_transfer::Event as Moved;
    match event {
        Event::Phase(Phase::Verify) => log.info("🔎 reading and verifying the archives..."),
        Event::Phase(Phase::Plan) => {
            log.info("🕵  going to discover the necessary images...");
            for kind in kinds {
                log.info(&format!("🔍 collecting {kind} images..."));
            }
        }
        Event::Images(jobs) => {
            for job in jobs.iter().filter(|job| job.kind == Kind::Release) {
                log.info(&format!("Success collecting release {}", job.name));
            }
        }
        Event::Forecast { images, missing, .. } => {
            log.info("🚀 Start copying the images...");
            log.info(&format!("📌 images to copy {}", images + missing));
        }
        Event::Phase(Phase::Probe) => log.info("🔌 asking the destination what it takes..."),
        Event::Phase(Phase::Seal) => log.info("📦 Preparing the tarball archive..."),
        Event::Transfer(Moved::Done { job }) => {
            if let Some(job) = progress.job(*job) {
                // Components of a release are many; oc-mirror's scripts look for this word at payloads.
                let release = if job.kind == Kind::Release { "release " } else { "" };
                log.info(&format!("Success copying {release}{} ➡️  {place}", job.name));
            }
        }
        Event::Transfer(Moved::Failed { job: number, error }) => {
            log.error(&format!("[Worker] {error}"));
            let first = log.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(*number);
            if let Some(job) = progress.job(*number).filter(|_| first) {
                log.error(&format!("Failed to copy {} {}", type_of(job.kind), job.name));
            }
        }
        Event::Client(notice) => {
            use airlock_client::Notice;
            match notice {
                Notice::Retrying { .. } | Notice::Waiting { .. } => log.info(&notice.to_string()),
                Notice::Warning { .. } => log.warn(&notice.to_string()),
                _ => log.debug(&notice.to_string()),
            }
        }
        Event::Warning(text) => log.warn(text),
        Event::Wrote(path) => {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("isc_pinned_") {
                log.info(&format!("📄 Pinned ISC written to {}", path.display()));
            } else if name.starts_with("disc_pinned_") {
                log.info(&format!("📄 Pinned DISC written to {}", path.display()));
            } else {
                log.info(&format!("{} file created", path.display()));
            }
        }
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
    if report.status == Status::Interrupted {
        log.warn("stopped on request: run the same command again, it goes on where it stopped");
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
