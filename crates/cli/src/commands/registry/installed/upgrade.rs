//! `airlock registry upgrade`: another program in the place of the installed one, and back again when it does not work.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use airlock_oci::{Error, ErrorKind};
use airlock_registry::install::{Host, Root, Settings, Undo, trial, unit};
use airlock_registry::tls::facts;
use airlock_registry::tls::own::Folder;
use tokio::process::Command;

use super::cert;
use super::cluster::kept_password;
use super::install::{is_same, program, turn};
use super::prepare::{is_ours_or_free, read};
use super::{START_PATIENCE, is_served, places, probe, remote, systemd_of, tell_needless, wait};
use crate::args::registry_install::{CertSetArgs, UpgradeArgs};
use crate::exit::{Exit, Failure};

/// Runs the verb.
pub(crate) async fn run(args: UpgradeArgs) -> Result<u8, Failure> {
    tell_needless(&args.needless);
    if remote::is_elsewhere(&args.target) {
        return remote::upgrade(&args).await;
    }
    let (root, before) = places::installed(args.root.as_deref())?;
    conflicts(&args, &root, &before)?;
    check_unit(&root, &before)?;
    let certificate = certificate(&args, &root)?;
    if let Some(certificate) = &certificate {
        cert::check(certificate, &before)?;
    }
    let (new, version) = new_program(args.program.as_deref()).await?;
    let mut settings = before.clone();
    settings.airlock.clone_from(&version);
    let is_new = !is_same(&new, &before.service.program);
    if args.dry_run {
        let what = if is_new { "would be replaced" } else { "is this one already" };
        let program = before.service.program.display();
        crate::output::text(&format!("`{program}` ({}) {what}; new: {version}\n", before.airlock))?;
        return Ok(0);
    }
    let turn = turn(&root)?;
    let mut undo = Undo::default();
    let outcome = replace(&root, &settings, &new, &mut undo).await;
    match outcome {
        Ok(note) => {
            undo.keep();
            let change =
                if is_new { format!("{} -> {version}", before.airlock) } else { format!("{version}, unchanged") };
            match note {
                Some(note) if is_new => eprintln!("{} is upgraded ({change})\nnote: {note}", settings.url()),
                _ => eprintln!("{} is upgraded ({change}) and works", settings.url()),
            }
            drop(turn);
            match certificate {
                Some(certificate) => cert::set(certificate).await,
                None => Ok(0),
            }
        }
        Err(error) => Err(fall_back(&root, &before, undo, &error).await.into()),
    }
}

/// The certificate that is to be served from now on, where one was given and it is another: what was given at the installation may be repeated.
fn certificate(args: &UpgradeArgs, root: &Root) -> Result<Option<CertSetArgs>, Error> {
    let (Some(cert), Some(key)) = (args.ssl_cert.clone(), args.ssl_key.clone()) else { return Ok(None) };
    let chain = facts::chain(&read(&cert)?).map_err(|e| e.context(format!("read `{}`", cert.display())))?;
    if chain.first() == Some(&Folder::at(&root.tls()).read()?.leaf()?) {
        return Ok(None);
    }
    Ok(Some(CertSetArgs { cert, key, ca: None, check_skip: args.ssl_check_skip, root: args.root.clone() }))
}

/// What was remembered cannot be changed here.
fn conflicts(args: &UpgradeArgs, root: &Root, before: &Settings) -> Result<(), Failure> {
    let refused = |flag: &str, given: String, remembered: String| {
        Err(Failure::usage(
            format!("{flag} is `{given}`, but `{}` was installed with `{remembered}`", root.path().display()),
            "leave it out, it is remembered; `airlock registry install` with it changes the installation",
        ))
    };
    if let Some(text) = &args.hostname {
        let host: Host = text.parse()?;
        if host.name() != before.hostname || host.port().is_some_and(|port| port != before.port) {
            return refused("--hostname", text.clone(), before.authority());
        }
    }
    if let Some(path) = &args.storage {
        let given = std::path::absolute(path).map_err(|e| Error::io(format!("find `{}`", path.display()), &e))?;
        if given != before.storage {
            return refused("--storage", given.display().to_string(), before.storage.display().to_string());
        }
    }
    Ok(())
}

/// The unit's file is written anew. One that somebody else has put there in the meantime is theirs.
fn check_unit(root: &Root, before: &Settings) -> Result<(), Failure> {
    if systemd_of(before).is_none() || is_ours_or_free(&before.unit(), root) {
        return Ok(());
    }
    let what = format!("upgrade the registry in `{}`", root.path().display());
    let cause =
        format!("`{}` is not the unit of this registry: it was written by somebody else", before.unit().display());
    let error = Error::new(ErrorKind::Refused, what, cause).hint(
        "if it is another registry's, `airlock registry install` gives this one a unit of its own; if it was changed by hand, move it away (changes belong \
         in a drop-in: `systemctl edit`)",
    );
    Err(Failure::Coded(error, Exit::Refused.code()))
}

/// The new program, and the version that it says it is. One that cannot even say that is not tried.
async fn new_program(given: Option<&Path>) -> Result<(PathBuf, String), Failure> {
    let Some(path) = given else {
        let own = std::env::current_exe().map_err(|e| Error::io("find the program that is running", &e))?;
        return Ok((own, env!("CARGO_PKG_VERSION").to_owned()));
    };
    let path = std::path::absolute(path).map_err(|e| Error::io(format!("find `{}`", path.display()), &e))?;
    let what = || format!("ask `{}` for its version", path.display());
    let output = Command::new(&path).args(["version", "-o", "json"]).output().await;
    let output = output.map_err(|e| Error::io(what(), &e).hint("--program takes an airlock for this machine"))?;
    let value: Option<serde_json::Value> = serde_json::from_slice(&output.stdout).ok();
    match value.as_ref().and_then(|value| value["version"].as_str()) {
        Some(version) => Ok((path.clone(), version.to_owned())),
        None => Err(Error::new(ErrorKind::Invalid, what(), "it gives none")
            .hint("--program takes an airlock for this machine")
            .into()),
    }
}

/// Replaces program, settings and unit, and starts it; a word for the user.
async fn replace(root: &Root, settings: &Settings, new: &Path, undo: &mut Undo) -> Result<Option<String>, Error> {
    backup(root, settings, undo)?;
    Folder::at(&root.tls()).keep(&settings.names, SystemTime::now())?;
    program(new, settings, undo)?;
    undo.put(&root.settings(), settings.to_json().as_bytes(), 0o644)?;
    let password = kept_password(root, settings);
    let credentials = password.as_deref().map(|password| (settings.init_user.as_str(), password));
    if let Some(systemd) = systemd_of(settings) {
        undo.put(&settings.unit(), unit::unit(settings, root).as_bytes(), 0o644)?;
        systemd.start(&settings.service.unit).await?;
        wait(&systemd, root, settings, credentials).await?;
        return Ok(None);
    }
    if is_served(&settings.storage) {
        return Ok(Some("it is running with the old program; start it anew".to_owned()));
    }
    let log = root.path().join("trial.log");
    let arguments = settings.arguments(root);
    let ask = probe(root, settings)?;
    trial::run(&settings.service.program, &arguments, &ask, credentials, START_PATIENCE, &log).await?;
    let _ = std::fs::remove_file(&log);
    Ok(None)
}

/// What is small and dear is kept as it was before, in `previous/`.
fn backup(root: &Root, settings: &Settings, undo: &mut Undo) -> Result<(), Error> {
    let folder = root.path().join("previous");
    undo.folder(&folder, 0o700)?;
    for path in [root.settings(), root.htpasswd(), root.rights(), settings.unit()] {
        let (Ok(bytes), Some(name)) = (std::fs::read(&path), path.file_name()) else { continue };
        undo.put(&folder.join(name), &bytes, 0o600)?;
    }
    Ok(())
}

/// Back to the program that was there; what the user is told.
async fn fall_back(root: &Root, before: &Settings, undo: Undo, error: &Error) -> Error {
    let left = undo.roll_back();
    let again = match systemd_of(before) {
        None => Ok(()),
        Some(systemd) => match systemd.start(&before.service.unit).await {
            Ok(()) => wait(&systemd, root, before, None).await.map(drop),
            Err(e) => Err(e),
        },
    };
    let how = match (again, left.is_empty()) {
        (Ok(()), true) => format!("the program that was there ({}) is back and works", before.airlock),
        (Ok(()), false) => format!("the program that was there is back, but not {}", left.join("; ")),
        (Err(e), _) => format!("the program that was there does not start any more either: {e}"),
    };
    let hint = error.hint_text().map(|hint| format!("{hint}\nhint: {how}")).unwrap_or(how);
    Error::new(error.kind(), "upgrade the registry", format!("cannot {}: {}", error.what(), error.cause())).hint(hint)
}
