//! One file a verb.

pub(crate) mod archive;
pub(crate) mod audit;
pub(crate) mod catalog;
pub(crate) mod catalog_mirror;
pub(crate) mod cluster;
pub(crate) mod completion;
pub(crate) mod image;
pub(crate) mod login;
pub(crate) mod mirror;
pub(crate) mod oc_mirror;
pub(crate) mod oc_mirror_list;
pub(crate) mod places;
pub(crate) mod plan;
pub(crate) mod quickstart;
pub(crate) mod registry;
pub(crate) mod release_graph;
pub(crate) mod release_mirror;
pub(crate) mod release_payload;
pub(crate) mod rules;
pub(crate) mod summary;
pub(crate) mod verify;
pub(crate) mod version;

use std::path::PathBuf;

use crate::exit::Failure;

/// The path after `file://`.
pub(crate) fn file_path(text: &str, flag: &str) -> Result<PathBuf, Failure> {
    match text.strip_prefix("file://") {
        Some("") => {
            Err(Failure::usage(format!("`{flag} {text}` names no directory"), "write file:///path or file://relative"))
        }
        // A URL may name this machine.
        Some(path) => Ok(PathBuf::from(path.strip_prefix("localhost").filter(|p| p.starts_with('/')).unwrap_or(path))),
        None => Err(Failure::usage(
            format!("`{flag} {text}` must begin with file://"),
            format!("write `{flag} file://{text}`"),
        )),
    }
}

/// A directory with or without `file://`.
pub(crate) fn plain_path(path: &std::path::Path) -> PathBuf {
    path.to_str().and_then(|t| t.strip_prefix("file://")).map_or_else(|| path.to_owned(), PathBuf::from)
}

/// `host[:port][/namespace]` after `docker://`.
pub(crate) fn registry_name(text: &str) -> Result<String, Failure> {
    text.strip_prefix("docker://").map(str::to_owned).ok_or_else(|| {
        Failure::usage(format!("`{text}` must begin with docker://"), format!("write `docker://{text}`"))
    })
}

/// The host of `host[:port][/namespace]`.
pub(crate) fn host_of(name: &str) -> String {
    name.split('/').next().unwrap_or(name).to_owned()
}

/// A word for a POSIX shell: in quotes where it needs them.
pub(crate) fn shell(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::shell;

    #[test]
    fn words_for_a_shell() {
        assert_eq!(shell("file:///mnt/usb-1"), "file:///mnt/usb-1");
        assert_eq!(shell("/my disk/it's"), r"'/my disk/it'\''s'");
        assert_eq!(shell(""), "''");
        assert_eq!(shell("a$b"), "'a$b'");
    }
}
