//! `airlock registry uninstall`: the service and the program go; what is mirrored stays unless it is said.

use std::fs;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use airlock_oci::{Error, ErrorKind};
use airlock_registry::install::settings::UNIT;
use airlock_registry::install::undo::previous;
use airlock_registry::install::{Root, Settings};

use super::install::turn;
use super::prepare::is_ours_or_free;
use super::{accounts, is_served, places, remote, systemd_of, tell_needless};
use crate::args::registry_install::UninstallArgs;
use crate::exit::{Exit, Failure};

/// Runs the verb.
pub(crate) async fn run(args: UninstallArgs) -> Result<u8, Failure> {
    tell_needless(&args.needless);
    if remote::is_elsewhere(&args.target) {
        return remote::uninstall(&args).await;
    }
    let (root, settings) = match places::installed(args.root.as_deref()) {
        Ok(found) => found,
        // What was uninstalled before may still be deleted.
        Err(failure) => match places::for_install(args.root.as_deref())?.read()? {
            Some(settings) if args.delete_data => (places::for_install(args.root.as_deref())?, settings),
            _ => return Err(failure),
        },
    };
    if let Some(path) = &args.storage {
        let given = std::path::absolute(path).map_err(|e| Error::io(format!("find `{}`", path.display()), &e))?;
        if given != settings.storage {
            return Err(Failure::usage(
                format!("--storage is `{}`, but the registry's is `{}`", given.display(), settings.storage.display()),
                "leave it out, it is remembered",
            ));
        }
    }
    let what = format!("{} in `{}`", settings.url(), root.path().display());
    let question = if args.delete_data {
        format!("Uninstall {what} and DELETE everything that is mirrored in `{}`?", settings.storage.display())
    } else {
        format!("Uninstall {what}? What is mirrored stays.")
    };
    confirm(&question, args.yes)?;
    let turn = turn(&root)?;
    // What was uninstalled before has neither service nor program any more: the names may be another registry's now.
    let has_service = settings.installed && is_ours_or_free(&settings.unit(), &root);
    if let Some(systemd) = systemd_of(&settings).filter(|_| has_service) {
        systemd.stop(&settings.service.unit).await?;
        remove(&settings.unit())?;
        systemd.run(&["daemon-reload"]).await?;
    }
    if is_served(&settings.storage) {
        let what = "uninstall the registry";
        let error = Error::new(ErrorKind::Refused, what, "it is being served by a process that systemd does not know")
            .hint("stop that process, then uninstall again");
        return Err(Failure::Coded(error, Exit::Refused.code()));
    }
    if has_service {
        remove(&settings.service.program)?;
        remove(&previous(&settings.service.program))?;
    }
    // Ours alone; where it is not empty it was not.
    let _ = fs::remove_dir(root.path().join("bin"));
    places::forget(&root)?;
    if !args.delete_data {
        let mut remembered = settings.clone();
        remembered.installed = false;
        let text = remembered.to_json();
        fs::write(root.settings(), text)
            .map_err(|e| Error::io(format!("write `{}`", root.settings().display()), &e))?;
        eprintln!("uninstalled {what}");
        eprintln!(
            "kept: what is mirrored (`{}`), users, CA and settings (`{}`); `airlock registry install --root {}` goes on with them",
            settings.storage.display(),
            root.path().display(),
            root.path().display()
        );
        return Ok(0);
    }
    drop(turn);
    let left = delete(&root, &settings)?;
    if let Some(user) = settings.service.user.as_deref().filter(|_| settings.service.user_made) {
        if is_needed(user, &settings.service.folder) {
            eprintln!("note: the user `{user}` stays: another registry runs as it");
        } else {
            accounts::remove(user).await?;
        }
    }
    eprintln!("uninstalled {what}, with everything that was mirrored");
    for path in left {
        eprintln!("note: `{}` has files that are not the registry's, and stays", path.display());
    }
    Ok(0)
}

/// Whether another registry runs as this user: a unit among these says so, or the settings of one that is known.
fn is_needed(user: &str, units: &Path) -> bool {
    let line = format!("User={user}");
    let named = |entry: fs::DirEntry| {
        let is_ours = entry.file_name().to_string_lossy().starts_with(UNIT);
        is_ours && fs::read_to_string(entry.path()).is_ok_and(|text| text.lines().any(|l| l == line))
    };
    let in_units = fs::read_dir(units).is_ok_and(|entries| entries.flatten().any(named));
    let remembers = |root: &Root| matches!(root.read(), Ok(Some(other)) if other.service.user.as_deref() == Some(user));
    in_units || places::recorded().iter().any(remembers)
}

/// Asks, where there is somebody to answer.
pub(super) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    let refused = |cause: &str| {
        let error = Error::new(ErrorKind::Refused, "uninstall the registry", cause);
        Failure::Coded(error.hint("--yes uninstalls without asking"), Exit::Refused.code())
    };
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(refused("nobody is there to be asked"));
    }
    eprint!("{question} [y/N] ");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|e| Error::io("read the answer", &e))?;
    if matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(refused("the answer was not yes"))
}

fn remove(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(about) if about.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(|e| Error::io(format!("remove `{}`", path.display()), &e))
}

/// Deletes what is the registry's and nothing else; the folders that are not empty then.
fn delete(root: &Root, settings: &Settings) -> Result<Vec<PathBuf>, Error> {
    for name in ["docker", ".airlock"] {
        remove(&settings.storage.join(name))?;
    }
    let own = [root.tls(), root.htpasswd(), root.rights(), root.pull_secret(), root.cluster()];
    let small = ["previous", "trial.log", ".lock"].map(|name| root.path().join(name));
    for path in own.into_iter().chain(small) {
        remove(&path)?;
    }
    // The settings go last: what is interrupted can be done again.
    remove(&root.settings())?;
    let mut left = Vec::new();
    let program_folder = root.program().parent().map(Path::to_owned);
    let folders = [Some(settings.storage.clone()), program_folder, Some(root.path().to_owned())];
    for folder in folders.into_iter().flatten().filter(|folder| folder.exists()) {
        if fs::remove_dir(&folder).is_err() {
            left.push(folder);
        }
    }
    Ok(left)
}
