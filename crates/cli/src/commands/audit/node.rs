//! The files of a node that a dump has.

use std::path::Path;

use airlock_oci::Error;
use airlock_rules::node::{CERTS_D, DROPINS, Files, PULL_SECRET, REGISTRIES_CONF};

use crate::commands::rules::input;
use crate::exit::Failure;

/// Reads them. What is not there is not there; what cannot be read is an error.
pub(crate) fn read(root: &Path) -> Result<Files, Failure> {
    if !root.is_dir() {
        return Err(Failure::usage(
            format!("`{}` is no folder", root.display()),
            "give the root of the node's file system, with etc/containers in it",
        ));
    }
    let optional = |relative: &str| {
        let path = root.join(relative);
        path.exists().then(|| input::text(&path)).transpose()
    };
    let mut dropins = Vec::new();
    for (path, text) in input::dropins(&root.join(DROPINS))? {
        let name = Path::new(&path).file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        dropins.push((name, text));
    }
    dropins.sort();
    let mut certificates = Vec::new();
    for (at, folder) in CERTS_D.iter().enumerate() {
        for host in names(&root.join(folder))? {
            let files = names(&root.join(folder).join(&host))?;
            certificates.push((at, host, files));
        }
    }
    let files = Files { conf: optional(REGISTRIES_CONF)?, dropins, pull_secret: optional(PULL_SECRET)?, certificates };
    if files.conf.is_none() && files.pull_secret.is_none() && files.certificates.is_empty() && files.dropins.is_empty()
    {
        return Err(Failure::usage(
            format!("`{}` has no files of a node", root.display()),
            "give the root of the node's file system, with etc/containers and var/lib/kubelet in it",
        ));
    }
    Ok(files)
}

/// What is in a folder, by name; nothing where there is no folder.
fn names(path: &Path) -> Result<Vec<String>, Failure> {
    let failed = |e: &std::io::Error| Failure::from(Error::io(format!("read `{}`", path.display()), e));
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(failed(&e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(|e| failed(&e))?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
