//! registries.conf version 2: text in, ordered endpoints out, as containers/image does it (mirror-rules.md 2).
//!
//! * [`Config::parse`] reads a main file and its drop-ins; any error in any of them is an error of the whole, because that is
//!   how CRI-O and podman behave, and a configuration that would stop every node must not look fine here.
//! * [`Config::resolve`] takes what a user wrote, short names included; [`Config::endpoints`] takes a qualified reference.
//! * [`Lookup`] says which files count; reading them is the caller's.
//!
//! Upstream's quirks are reproduced on purpose (a prefix without a port matches any port, a wildcard looks at the first
//! occurrence only): a resolver that is cleverer than the node's would predict pulls that do not happen.

mod decode;
mod error;
mod file;
mod lookup;
mod resolve;

use std::collections::{BTreeMap, HashMap};

pub use error::{LoadError, ResolveError};
pub use lookup::{Files, Lookup};
pub use resolve::{Candidate, Endpoint, Mode};

use crate::Reference;

/// The name under which errors of the main file are reported.
pub const MAIN_FILE: &str = "registries.conf";

/// The entry of `credential-helpers` that stands for the credential files themselves.
pub const AUTH_FILE_HELPER: &str = "containers-auth.json";

/// A main file and its drop-ins, normalised and merged.
#[derive(Clone, Debug)]
pub struct Config {
    registries: Vec<Table>,
    search: Vec<String>,
    credential_helpers: Vec<String>,
    short_name_mode: ShortNameMode,
    layer_store_auth_helper: String,
    aliases: BTreeMap<String, Reference>,
    /// Prefix to position in `registries`: a set of 10,000 images must not walk 2,000 tables for each.
    plain: HashMap<String, usize>,
    /// The same for `*.D`, by `D`.
    wildcards: HashMap<String, usize>,
}

/// One `[[registry]]`, normalised: prefix filled in, trailing slashes gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// What a name must start with; `*.D` for the subdomains of `D`.
    pub prefix: String,
    /// What replaces the prefix; empty (only with a wildcard) means: nothing is replaced.
    pub location: String,
    /// Certificates are not checked, and plain HTTP is tried.
    pub insecure: bool,
    /// The location must not be contacted.
    pub blocked: bool,
    /// The mirrors serve digest pulls only.
    pub mirror_by_digest_only: bool,
    /// In the order in which they are tried.
    pub mirrors: Vec<Mirror>,
}

/// One `[[registry.mirror]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// What replaces the table's prefix.
    pub location: String,
    /// Certificates are not checked, and plain HTTP is tried.
    pub insecure: bool,
    /// Which pulls it serves.
    pub pull_from_mirror: PullFromMirror,
}

/// Which pulls a mirror serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullFromMirror {
    /// Nothing was written: all.
    #[default]
    Unset,
    /// `all`.
    All,
    /// `digest-only`.
    DigestOnly,
    /// `tag-only`.
    TagOnly,
}

/// What happens to a short name for which several registries come into question.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShortNameMode {
    /// Ask on a terminal; without one it is an error.
    Enforcing,
    /// Ask on a terminal; without one all are tried.
    #[default]
    Permissive,
    /// All are tried.
    Disabled,
}

impl PullFromMirror {
    /// As written in the file; empty where nothing was.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "",
            Self::All => "all",
            Self::DigestOnly => "digest-only",
            Self::TagOnly => "tag-only",
        }
    }

    fn serves(self, by_digest: bool) -> bool {
        match self {
            Self::Unset | Self::All => true,
            Self::DigestOnly => by_digest,
            Self::TagOnly => !by_digest,
        }
    }
}

impl ShortNameMode {
    /// As written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforcing => "enforcing",
            Self::Permissive => "permissive",
            Self::Disabled => "disabled",
        }
    }
}

impl Default for Config {
    /// Nothing configured: every reference is pulled from where it says.
    fn default() -> Self {
        Self::merge(Vec::new())
    }
}

impl Config {
    /// Reads a main file (`None`: there is none, which is fine for the default one; see [`LoadError::missing`] for one that
    /// was asked for) and drop-ins as (file name or path, text). Only names that end in `.conf` count: directory by directory
    /// in the order given, within one in byte order of the names.
    pub fn parse(main: Option<&str>, dropins: &[(String, String)]) -> Result<Self, LoadError> {
        let mut files = Vec::new();
        if let Some(text) = main {
            files.push(file::read(MAIN_FILE, text, false)?);
        }
        for (name, text) in in_order(dropins) {
            files.push(file::read(name, text, true)?);
        }
        Ok(Self::merge(files))
    }

    /// Later files win: tables by prefix, lists as a whole, aliases by key (mirror-rules 2.2).
    fn merge(files: Vec<file::File>) -> Self {
        let mut registries = BTreeMap::new();
        let mut aliases = BTreeMap::new();
        let (mut search, mut helpers, mut mode, mut layer_helper) = (Vec::new(), Vec::new(), None, String::new());
        for file in files {
            registries.extend(file.registries.into_iter().map(|t| (t.prefix.clone(), t)));
            search = file.search.unwrap_or(search);
            helpers = file.credential_helpers.unwrap_or(helpers);
            mode = file.short_name_mode.or(mode);
            if !file.layer_store_auth_helper.is_empty() {
                layer_helper = file.layer_store_auth_helper;
            }
            for (key, value) in file.aliases {
                match value {
                    Some(value) => aliases.insert(key, value),
                    None => aliases.remove(&key),
                };
            }
        }
        if helpers.is_empty() {
            helpers.push(AUTH_FILE_HELPER.to_owned());
        }
        let registries: Vec<Table> = registries.into_values().collect();
        let (mut plain, mut wildcards) = (HashMap::new(), HashMap::new());
        for (at, table) in registries.iter().enumerate() {
            match table.prefix.strip_prefix("*.") {
                Some(domain) => wildcards.insert(domain.to_owned(), at),
                None => plain.insert(table.prefix.clone(), at),
            };
        }
        Self {
            registries,
            search,
            credential_helpers: helpers,
            short_name_mode: mode.unwrap_or_default(),
            layer_store_auth_helper: layer_helper,
            aliases,
            plain,
            wildcards,
        }
    }

    /// The tables, sorted by the bytes of their prefixes.
    pub fn registries(&self) -> &[Table] {
        &self.registries
    }

    /// `unqualified-search-registries`, in order.
    pub fn search_registries(&self) -> &[String] {
        &self.search
    }

    /// `credential-helpers`, in order; [`AUTH_FILE_HELPER`] alone where none is configured.
    pub fn credential_helpers(&self) -> &[String] {
        &self.credential_helpers
    }

    /// `short-name-mode`.
    pub fn short_name_mode(&self) -> ShortNameMode {
        self.short_name_mode
    }

    /// `additional-layer-store-auth-helper`; empty where none is configured.
    pub fn layer_store_auth_helper(&self) -> &str {
        &self.layer_store_auth_helper
    }

    /// `[aliases]`: short name to full name, without tag and digest.
    pub fn aliases(&self) -> impl Iterator<Item = (&str, &Reference)> {
        self.aliases.iter().map(|(key, value)| (key.as_str(), value))
    }
}

fn in_order(dropins: &[(String, String)]) -> Vec<(&str, &str)> {
    let mut directories: Vec<&str> = Vec::new();
    let mut keyed = Vec::new();
    for (path, text) in dropins {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.ends_with(".conf") {
            let at = directories.iter().position(|known| *known == directory).unwrap_or_else(|| {
                directories.push(directory);
                directories.len() - 1
            });
            keyed.push((at, name, path.as_str(), text.as_str()));
        }
    }
    keyed.sort_by_key(|(at, name, ..)| (*at, *name));
    keyed.into_iter().map(|(_, _, path, text)| (path, text)).collect()
}
