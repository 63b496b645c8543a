//! Which images may be mirrored: containers-policy.json(5), judged while planning (oc-mirror 8.6).
//!
//! ```text
//! policy.json -> file (strict) -> Policy { default, docker scopes, oci scopes }
//! image name  -> scope          -> the requirements that apply; all of them must hold
//! sigstoreSigned: sha256-<hex>.sig at the place that served the image -> signature -> key, identity
//! ```
//!
//! * The name is always the logical one, as the configuration has it; a mirror in registries.conf changes nothing.
//! * Images of an archive are never judged: they were when the archive was written.
//! * What cannot be judged (a kind of signature that this version does not know, a key that cannot be read) counts as refused, and only
//!   for the images that the requirement applies to.

mod check;
mod file;
mod identity;
mod json;
mod key;
mod scope;
mod signature;

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};

use airlock_oci::{Error, ErrorKind, Repository};

pub(crate) use check::Verdict;
use file::Requirement;

/// The largest policy file that is read (bytes).
const MAX_POLICY_BYTES: u64 = 4 * 1024 * 1024;

/// Where the policy of a user lies below the home directory.
const USER_POLICY: &str = ".config/containers/policy.json";
/// Where the policy of a machine lies.
const SYSTEM_POLICY: &str = "/etc/containers/policy.json";

/// A policy file, read and checked.
///
/// * Every list of requirements has at least one entry.
#[derive(Debug)]
pub struct Policy {
    /// The file, for messages.
    file: PathBuf,
    default: Vec<Requirement>,
    /// Requirements by scope, of the transport `docker`.
    docker: BTreeMap<String, Vec<Requirement>>,
    /// Requirements by directory, of the transport `oci`.
    oci: BTreeMap<String, Vec<Requirement>>,
}

/// A policy, and what a plan needs to ask it.
#[derive(Debug)]
pub struct Gate {
    policy: Policy,
    /// The directories of OCI layouts, by the repository under which a plan knows them.
    layouts: HashMap<Repository, PathBuf>,
}

impl Policy {
    /// Reads a policy file. An error names the file, and the line and column of what is wrong. Keys are not read before an image needs
    /// them: a policy may name keys that are on other machines.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let bytes = read_at_most(path, MAX_POLICY_BYTES).map_err(|cause| {
            Error::new(ErrorKind::Invalid, format!("read the policy {}", path.display()), cause)
                .hint("give the path of a containers-policy.json file with --policy")
        })?;
        file::parse(path, &bytes)
    }

    /// The policy file of the user, else of the machine: what podman and skopeo go by.
    pub fn system_file(home: Option<&Path>) -> Result<PathBuf, Error> {
        let candidates = home.map(|h| h.join(USER_POLICY)).into_iter().chain([PathBuf::from(SYSTEM_POLICY)]);
        let tried: Vec<PathBuf> = candidates.collect();
        match tried.iter().find(|path| path.exists()) {
            Some(found) => Ok(found.clone()),
            None => {
                let names: Vec<String> = tried.iter().map(|p| p.display().to_string()).collect();
                let cause = format!("there is none: looked for {}", names.join(" and "));
                Err(Error::new(ErrorKind::Invalid, "find a policy file", cause).hint(
                    "write one of them, or give a file with --policy; the form is described in containers-policy.json(5)",
                ))
            }
        }
    }
}

impl Gate {
    /// A policy for a plan in which OCI layouts are known by these repositories.
    pub(crate) fn new(policy: Policy, layouts: HashMap<Repository, PathBuf>) -> Self {
        Self { policy, layouts }
    }
}

/// A file's bytes, or why there are none.
fn read_at_most(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("it is larger than {limit} bytes"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_policy_goes_before_the_machines() {
        let home = tempfile::tempdir().unwrap();
        let own = home.path().join(USER_POLICY);
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::fs::write(&own, "{}").unwrap();
        assert_eq!(Policy::system_file(Some(home.path())).unwrap(), own);
    }

    #[test]
    fn a_file_that_is_not_there_or_too_large_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        let error = Policy::load(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("policy.json"), "{error}");
        std::fs::write(&path, vec![b' '; MAX_POLICY_BYTES as usize + 1]).unwrap();
        assert!(Policy::load(&path).unwrap_err().to_string().contains("larger than"));
    }
}
