//! Where registries are installed: a list in the user's state folder, so that nothing has to be repeated.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use airlock_oci::{Error, ErrorKind};
use airlock_registry::install::{Root, Settings};

use crate::environment;
use crate::exit::Failure;

/// The user that runs this.
pub(super) fn uid() -> u32 {
    fs::metadata("/proc/self").map_or(u32::MAX, |about| about.uid())
}

/// Where a registry goes unless it is said.
fn default_root() -> PathBuf {
    if uid() == 0 { "/var/lib/airlock-registry".into() } else { environment::data().join("registry") }
}

fn list() -> PathBuf {
    environment::state().join("registries")
}

/// The roots that were installed and are still there.
pub(super) fn recorded() -> Vec<Root> {
    let text = fs::read_to_string(list()).unwrap_or_default();
    let roots = text.lines().filter(|line| !line.is_empty()).filter_map(|line| Root::at(Path::new(line)).ok());
    roots.filter(|root| root.settings().is_file()).collect()
}

fn write(roots: &[Root]) -> Result<(), Error> {
    let path = list();
    let text: String = roots.iter().map(|root| format!("{}\n", root.path().display())).collect();
    let beside = path.with_extension("new");
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&beside, text))
        .and_then(|()| fs::rename(&beside, &path))
        .map_err(|e| Error::io(format!("write `{}`", path.display()), &e))
}

/// Remembers where a registry is.
pub(super) fn record(root: &Root) -> Result<(), Error> {
    let mut roots = recorded();
    if roots.contains(root) {
        return Ok(());
    }
    roots.push(root.clone());
    write(&roots)
}

/// Forgets it.
pub(super) fn forget(root: &Root) -> Result<(), Error> {
    let mut roots = recorded();
    roots.retain(|known| known != root);
    write(&roots)
}

/// The root that was named, the only one that is known, or where one goes by default.
pub(super) fn for_install(given: Option<&Path>) -> Result<Root, Failure> {
    if let Some(path) = given {
        return Ok(Root::at(path)?);
    }
    match &recorded()[..] {
        [] => Ok(Root::at(&default_root())?),
        [root] => Ok(root.clone()),
        several => Err(ambiguous(several)),
    }
}

fn ambiguous(roots: &[Root]) -> Failure {
    let names: Vec<String> = roots.iter().map(|root| root.path().display().to_string()).collect();
    Failure::usage(format!("several registries are installed: {}", names.join(", ")), "say which one with --root DIR")
}

/// What is installed at the root that was named, or at the only one that is known.
pub(super) fn installed(given: Option<&Path>) -> Result<(Root, Settings), Failure> {
    let root = for_install(given)?;
    match root.read()? {
        Some(settings) if settings.installed => Ok((root, settings)),
        other => {
            let cause = if other.is_some() { "it was uninstalled" } else { "there is no `registry.json` in it" };
            let what = format!("find an installed registry in `{}`", root.path().display());
            Err(Error::new(ErrorKind::NotFound, what, cause)
                .hint("`airlock registry install` installs one; --root DIR says where another one is")
                .into())
        }
    }
}

/// The users of the installed registry; `None` where none is installed.
pub(in super::super) fn htpasswd() -> Result<Option<PathBuf>, Failure> {
    match &recorded()[..] {
        [] => Ok(None),
        [root] => Ok(Some(root.htpasswd())),
        several => {
            let names: Vec<String> = several.iter().map(|root| root.htpasswd().display().to_string()).collect();
            let message = format!("several registries are installed, with users in {}", names.join(", "));
            Err(Failure::usage(message, "say which with --htpasswd FILE"))
        }
    }
}
