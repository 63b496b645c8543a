//! Folders of the user (XDG base directories).

use std::path::PathBuf;

fn xdg(variable: &str, fallback: &str) -> PathBuf {
    std::env::var_os(variable)
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/".into())).join(fallback))
        .join("airlock")
}

/// Manifests at hand.
pub(crate) fn cache() -> PathBuf {
    xdg("XDG_CACHE_HOME", ".cache")
}

/// Receipts.
pub(crate) fn state() -> PathBuf {
    xdg("XDG_STATE_HOME", ".local/state")
}
