//! `airlock registry install`: everything that was decided is done, shown, and taken back when a step fails.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::SystemTime;

use airlock_oci::{Error, ErrorKind};
use airlock_registry::install::probe::Answer;
use airlock_registry::install::{Root, Scope, Settings, Undo, trial, unit};
use airlock_registry::tls::own::Folder;
use airlock_registry::{Password, PasswordFile, Users};
use serde::Serialize;

use super::accounts::{self, Owner};
use super::cluster::{self, Cluster};
use super::prepare::Prepared;
use super::service::Systemd;
use super::{START_PATIENCE, command_line, is_served, places, probe, remote, systemd_of, tell_needless, wait};
use crate::args::registry_install::InstallArgs;
use crate::exit::Failure;
use crate::output;

/// What the user is told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Installed {
    url: String,
    user: String,
    /// Known when it was made or given now, or is still kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
    /// The file that clients must trust.
    #[serde(skip_serializing_if = "Option::is_none")]
    ca: Option<String>,
    root: String,
    storage: String,
    /// The unit, or the command that starts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
    command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pull_secret: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_map: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    image_config: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    install_config: Option<String>,
}

/// What the steps came to.
struct Done {
    password: Option<String>,
    cluster: Cluster,
    notes: Vec<String>,
}

/// Runs the verb.
pub(crate) async fn run(args: InstallArgs) -> Result<u8, Failure> {
    tell_needless(&args.needless);
    if remote::is_elsewhere(&args.target) {
        return remote::install(&args).await;
    }
    let mut prepared = Prepared::of(&args).await?;
    for warning in &prepared.warnings {
        eprintln!("warning: {warning}");
    }
    if args.dry_run {
        return describe(&prepared);
    }
    let mut undo = Undo::default();
    let mut user_made = None;
    let done = match steps(&mut prepared, &mut undo, &mut user_made).await {
        Ok(done) => done,
        Err(error) => {
            let left = taken_back(&prepared, undo, user_made).await;
            return Err(error.hint_after(left).into());
        }
    };
    undo.keep();
    for note in &done.notes {
        eprintln!("note: {note}");
    }
    show(&args, &prepared, done)
}

/// Does it, one step after the other.
async fn steps(prepared: &mut Prepared, undo: &mut Undo, user_made: &mut Option<String>) -> Result<Done, Error> {
    let root = prepared.root.clone();
    let mut owner = prepared.owner().await?;
    undo.folder(root.path(), 0o755)?;
    let lock = root.path().join(".lock");
    if !lock.exists() {
        undo.watch(&lock)?;
    }
    let _turn = turn(&root)?;
    if let (None, Some(user)) = (owner, prepared.settings.service.user.clone()) {
        owner = Some(accounts::make(&user, root.path()).await?);
        *user_made = Some(user.clone());
        prepared.settings.service.user_made = true;
        eprintln!("made the user `{user}`");
    }
    let settings = prepared.settings.clone();
    undo.folder(&settings.storage, 0o750)?;
    undo.folder(&root.tls(), 0o755)?;
    if let Some(owner) = owner {
        // Root may have put it on another disk by a link.
        let storage = fs::canonicalize(&settings.storage)
            .map_err(|e| Error::io(format!("find `{}`", settings.storage.display()), &e))?;
        accounts::give(&storage, owner)?;
        accounts::give(&root.tls(), owner)?;
    }
    let authority = certificate(prepared, undo, owner)?;
    let (password, mut notes) = first_user(prepared, undo, owner).await?;
    if let Some(text) = &prepared.rights {
        undo.put(&root.rights(), text.as_bytes(), 0o640)?;
        for_service(&root.rights(), owner)?;
    }
    program(&prepared.program, &settings, undo)?;
    undo.put(&root.settings(), settings.to_json().as_bytes(), 0o644)?;
    if let Some(password) = &password {
        undo.put(&root.pull_secret(), cluster::pull_secret(&settings, password)?.as_bytes(), 0o600)?;
    }
    let cluster = Cluster::of(&settings, authority.as_deref())?;
    write_cluster(&root, &cluster, undo)?;
    let credentials = password.as_deref().map(|password| (settings.init_user.as_str(), password));
    let answer = match prepared.systemd {
        Some(systemd) => {
            undo.folder(&settings.service.folder, 0o755)?;
            undo.put(&settings.unit(), unit::unit(&settings, &root).as_bytes(), 0o644)?;
            systemd.start(&settings.service.unit).await?;
            let answer = wait(&systemd, &root, &settings, credentials).await?;
            eprintln!("started `{}`; it answers at {}", settings.service.unit, settings.listen);
            notes.extend(systemd.linger().await);
            answer
        }
        None if is_served(&settings.storage) => {
            notes.push("it is running; start it anew for changes to take effect".to_owned());
            Answer::Open
        }
        None => {
            let log = root.path().join("trial.log");
            undo.watch(&log)?;
            let arguments = settings.arguments(&root);
            let ask = probe(&root, &settings)?;
            let answer =
                trial::run(&settings.service.program, &arguments, &ask, credentials, START_PATIENCE, &log).await?;
            let _ = fs::remove_file(&log);
            eprintln!("tried it: it starts and answers at {}", settings.listen);
            answer
        }
    };
    if answer == Answer::Unauthorized && credentials.is_some() {
        notes.push(format!(
            "the password in `{}` is not that of `{}` any more: `airlock registry user passwd {}` makes a new one",
            root.pull_secret().display(),
            settings.init_user,
            settings.init_user
        ));
    }
    places::record(&root)?;
    Ok(Done { password, cluster, notes })
}

/// One installation at a time.
pub(super) fn turn(root: &Root) -> Result<fs::File, Error> {
    let path = root.path().join(".lock");
    let failed = |e: &std::io::Error| Error::io(format!("lock `{}`", path.display()), e);
    let file = fs::File::options().create(true).append(true).open(&path).map_err(|e| failed(&e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            let cause = "another command is changing this registry";
            Err(Error::new(ErrorKind::Locked, format!("lock `{}`", path.display()), cause)
                .hint("wait until it is done"))
        }
        Err(fs::TryLockError::Error(e)) => Err(failed(&e)),
    }
}

/// Only the service reads it, and only root changes it.
fn for_service(path: &Path, owner: Option<Owner>) -> Result<(), Error> {
    let Some((_, group)) = owner else { return Ok(()) };
    accounts::give(path, (0, group))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o640))
        .map_err(|e| Error::io(format!("set the permissions of `{}`", path.display()), &e))
}

/// The certificate is there and good; what clients must trust.
fn certificate(prepared: &Prepared, undo: &mut Undo, owner: Option<Owner>) -> Result<Option<String>, Error> {
    let folder = Folder::at(&prepared.root.tls());
    for path in folder.all_files() {
        undo.watch(&path)?;
    }
    if let Some(given) = &prepared.given {
        folder.put_given(given)?;
    }
    folder.keep(&prepared.settings.names, SystemTime::now())?;
    if let Some(owner) = owner {
        for path in folder.all_files().iter().filter(|path| fs::symlink_metadata(path).is_ok()) {
            accounts::give(path, owner)?;
        }
    }
    folder.authority()
}

/// The first user is there; the password, where it is known.
async fn first_user(
    prepared: &Prepared,
    undo: &mut Undo,
    owner: Option<Owner>,
) -> Result<(Option<String>, Vec<String>), Error> {
    let (root, settings) = (&prepared.root, &prepared.settings);
    let path = root.htpasswd();
    undo.watch(&path)?;
    let file = PasswordFile::at(&path);
    let user = settings.init_user.clone();
    let is_there = file.names()?.contains(&user);
    let mut notes = Vec::new();
    let password = match (&prepared.password, is_there) {
        (Some(given), true) => {
            if !Users::read(&path)?.has(&user, given.reveal()).await {
                file.change_password(&user, given)?;
                notes.push(format!("`{user}` has the password that was given now"));
            }
            Some(given.reveal().to_owned())
        }
        (Some(given), false) => {
            file.add(&user, given)?;
            Some(given.reveal().to_owned())
        }
        (None, false) => {
            let made = Password::generate()?;
            file.add(&user, &made)?;
            Some(made.reveal().to_owned())
        }
        // The pull secret has the name that the registry had when it was written.
        (None, true) => {
            let known = prepared.before.as_ref().unwrap_or(settings);
            cluster::kept_password(root, known).filter(|_| known.init_user == user)
        }
    };
    for_service(&path, owner)?;
    Ok((password, notes))
}

/// The program is where the service starts it.
pub(super) fn program(from: &Path, settings: &Settings, undo: &mut Undo) -> Result<(), Error> {
    let to = &settings.service.program;
    if from == to || is_same(from, to) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        undo.folder(folder, 0o755)?;
    }
    undo.program(from, to)
}

/// Whether two files have the same content.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    let size = |path: &Path| fs::metadata(path).map(|about| about.len()).ok();
    if size(one).is_none() || size(one) != size(other) {
        return false;
    }
    let same = || -> std::io::Result<bool> {
        use std::io::BufRead as _;
        let open = |path| fs::File::open(path).map(|file| std::io::BufReader::with_capacity(1 << 20, file));
        let (mut one, mut other) = (open(one)?, open(other)?);
        loop {
            let (a, b) = (one.fill_buf()?, other.fill_buf()?);
            let length = a.len().min(b.len());
            if length == 0 {
                return Ok(a.len() == b.len());
            }
            if a[..length] != b[..length] {
                return Ok(false);
            }
            one.consume(length);
            other.consume(length);
        }
    };
    same().unwrap_or(false)
}

/// The files for clusters say what is true now.
pub(super) fn write_cluster(root: &Root, cluster: &Cluster, undo: &mut Undo) -> Result<(), Error> {
    undo.folder(&root.cluster(), 0o755)?;
    for (path, text) in cluster.files(root) {
        match text {
            Some(text) => undo.put(&path, text.as_bytes(), 0o644)?,
            None => {
                undo.watch(&path)?;
                let _ = fs::remove_file(&path);
            }
        }
    }
    Ok(())
}

/// Puts everything back as it was; what the user is told of that.
async fn taken_back(prepared: &Prepared, undo: Undo, user_made: Option<String>) -> String {
    let mut left = Vec::new();
    let unit = &prepared.settings.service.unit;
    let was_installed = prepared.before.as_ref().is_some_and(|old| old.installed);
    if let (Some(systemd), false) = (prepared.systemd, was_installed)
        && prepared.settings.unit().exists()
        && let Err(e) = systemd.stop(unit).await
    {
        left.push(format!("`{unit}`: {e}"));
    }
    left.extend(undo.roll_back());
    if let Some(systemd) = prepared.systemd
        && let Err(e) = back_in_service(prepared, systemd, was_installed).await
    {
        left.push(format!("`{unit}`: {e}"));
    }
    if let Some(user) = user_made
        && let Err(e) = accounts::remove(&user).await
    {
        left.push(format!("the user `{user}`: {e}"));
    }
    match (left.is_empty(), was_installed) {
        (true, false) => "nothing was left behind; install again when this is mended".to_owned(),
        (true, true) => "everything is as it was before".to_owned(),
        (false, _) => format!("this could not be put back: {}", left.join("; ")),
    }
}

/// systemd knows again what was there before, and what ran before runs.
async fn back_in_service(prepared: &Prepared, systemd: Systemd, was_installed: bool) -> Result<(), Error> {
    let Some(old) = prepared.before.as_ref().filter(|_| was_installed) else {
        return systemd.run(&["daemon-reload"]).await.map(drop);
    };
    systemd.start(&old.service.unit).await?;
    wait(&systemd, &prepared.root, old, None).await.map(drop)
}

/// A hint that may come after another.
trait HintAfter {
    fn hint_after(self, more: String) -> Self;
}

impl HintAfter for Error {
    fn hint_after(self, more: String) -> Self {
        match self.hint_text().map(str::to_owned) {
            Some(hint) => self.hint(format!("{hint}\nhint: {more}")),
            None => self.hint(more),
        }
    }
}

/// `--dry-run`: what would be done.
fn describe(prepared: &Prepared) -> Result<u8, Failure> {
    let (root, settings) = (&prepared.root, &prepared.settings);
    let verb = match &prepared.before {
        None => "install",
        Some(old) if old == settings => "check",
        Some(_) => "change",
    };
    let mut out = format!("would {verb} {} in `{}`\n", settings.url(), root.path().display());
    let line = |path: &Path, mode: &str, what: &str| format!("  {mode}  {:<44}  {what}\n", path.display());
    out.push_str(&line(&settings.service.program, "0755", "the program"));
    out.push_str(&line(&settings.storage, "0750", "content"));
    out.push_str(&line(&root.tls(), "0755", &format!("certificate for {}", settings.names.join(", "))));
    out.push_str(&line(&root.htpasswd(), "0600", &format!("the user `{}`", settings.init_user)));
    out.push_str(&line(&root.pull_secret(), "0600", "that user's credentials"));
    out.push_str(&line(&root.cluster(), "0755", "what a cluster must be told"));
    out.push_str(&line(&root.settings(), "0644", "what is remembered"));
    match settings.service.scope {
        Scope::None => out.push_str(&format!("no service; it is started with\n  {}\n", command_line(root, settings))),
        Scope::System | Scope::User => {
            out.push_str(&line(&settings.unit(), "0644", "the unit"));
            if let Some(user) = &settings.service.user {
                out.push_str(&format!("it would run as the user `{user}`\n"));
            }
            out.push_str(&format!("\n{}", unit::unit(settings, root)));
        }
    }
    output::text(&out)?;
    Ok(0)
}

fn show(args: &InstallArgs, prepared: &Prepared, done: Done) -> Result<u8, Failure> {
    let (root, settings) = (&prepared.root, &prepared.settings);
    let Done { password, cluster, .. } = done;
    let secret = match &password {
        Some(password) => Some(cluster::pull_secret(settings, password)?),
        None => None,
    };
    let folder = Folder::at(&root.tls());
    let has_given = folder.given().exists();
    let installed = Installed {
        url: settings.url(),
        user: settings.init_user.clone(),
        password,
        ca: (!has_given).then(|| folder.ca().display().to_string()),
        root: root.path().display().to_string(),
        storage: settings.storage.display().to_string(),
        unit: systemd_of(settings).map(|_| settings.service.unit.clone()),
        command: command_line(root, settings),
        pull_secret: secret.as_deref().and_then(|text| serde_json::from_str(text).ok()),
        config_map: cluster.config_map.clone(),
        image_config: cluster.image.clone(),
        install_config: cluster.install_config.clone(),
    };
    if output::value(args.output, &installed)? {
        return Ok(0);
    }
    let kept = format!("unchanged; `airlock registry user passwd {}` makes a new one", installed.user);
    let mut rows = vec![
        ("URL", installed.url.clone()),
        ("user", installed.user.clone()),
        ("password", installed.password.clone().unwrap_or(kept)),
    ];
    rows.extend(installed.ca.clone().map(|ca| ("CA", ca)));
    rows.extend([("storage", installed.storage.clone()), ("settings", root.settings().display().to_string())]);
    rows.push(match &installed.unit {
        Some(unit) => ("service", unit.clone()),
        None => ("start it with", installed.command.clone()),
    });
    let mut out: String = rows.iter().map(|(name, value)| format!("{name:<13}  {value}\n")).collect();
    let mut part = |title: &str, path: &Path, text: &str| {
        out.push_str(&format!("\n# {title}: {}\n{}\n", path.display(), text.trim_end()));
    };
    if let Some(secret) = &secret {
        part("pull secret (also an auth.json for podman, skopeo, airlock)", &root.pull_secret(), secret);
    }
    let titles = ["CA for a cluster", "image configuration of a cluster", "for install-config.yaml of a new cluster"];
    for (title, (path, text)) in titles.into_iter().zip(cluster.files(root)) {
        if let Some(text) = text {
            part(title, &path, text);
        }
    }
    if let Some(password) = &installed.password {
        let (url, user) = (&installed.url, &installed.user);
        out.push_str(&format!("\nAirlock registry is available at {url} with credentials ({user}, {password})\n"));
    }
    output::text(&out)?;
    if let Some(path) = cluster.files(root).first().filter(|(_, text)| text.is_some()).map(|(path, _)| path) {
        let folder = path.parent().unwrap_or(root.path()).display();
        eprintln!("next: oc apply -f {folder}/registry-ca.yaml -f {folder}/image-config.yaml --server-side");
        let own = root.pull_secret();
        eprintln!("next: airlock cluster pull-secret merge --to merged.json PULL-SECRET.json {}", own.display());
    }
    Ok(0)
}
