//! What the environment says: folders of the user (XDG base directories), update services.

use std::path::PathBuf;

use airlock_mirror::plan::origins::Services;

/// Update services and signatures of releases.
pub(crate) fn services() -> Services {
    let text = |name: &str| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
    Services {
        update_url: text("UPDATE_URL_OVERRIDE"),
        signature_url: text("OCP_SIGNATURE_URL"),
        signature_keys: text("OCP_SIGNATURE_VERIFICATION_PK").map(PathBuf::from),
    }
}

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

/// A user's own settings, those of other programs too: the folder without our name.
pub(crate) fn config() -> PathBuf {
    let mut path = xdg("XDG_CONFIG_HOME", ".config");
    path.pop();
    path
}

/// What is to stay: an installed registry.
pub(crate) fn data() -> PathBuf {
    xdg("XDG_DATA_HOME", ".local/share")
}
