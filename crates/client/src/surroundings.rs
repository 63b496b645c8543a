//! The process's environment as a value, so that lookups can be tested without changing the real one.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

/// Variables of the environment.
#[derive(Clone)]
pub(crate) struct Surroundings(Arc<dyn Fn(&str) -> Option<OsString> + Send + Sync>);

impl Surroundings {
    /// Those of this process.
    pub(crate) fn process() -> Self {
        Self(Arc::new(|name| std::env::var_os(name)))
    }

    #[cfg(test)]
    pub(crate) fn of(vars: &[(&str, &str)]) -> Self {
        let vars: std::collections::HashMap<String, OsString> =
            vars.iter().map(|(k, v)| ((*k).to_owned(), OsString::from(v))).collect();
        Self(Arc::new(move |name| vars.get(name).cloned()))
    }

    /// A variable; an empty one counts as not set.
    pub(crate) fn var(&self, name: &str) -> Option<OsString> {
        (self.0)(name).filter(|v| !v.is_empty())
    }

    /// A variable that names a file or directory.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.var(name).map(PathBuf::from)
    }

    /// The user's home directory.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.path("HOME")
    }

    /// `$XDG_CONFIG_HOME`, else `~/.config`.
    pub(crate) fn config_home(&self) -> Option<PathBuf> {
        self.path("XDG_CONFIG_HOME").or_else(|| self.home().map(|home| home.join(".config")))
    }
}
