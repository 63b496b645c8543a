//! The global pull secret of a cluster: `{"auths": {"host[:port][/path]": {"auth": …}}}`, read with the place of every mistake,
//! changed with everything else left as it was, and never shown.
//!
//! Mirrors are only ever asked with credentials from here (mirror-rules 2.7 step 11, 5.3), so a missing or misspelt key is a pull
//! that fails on every node. Secrets stay inside of [`PullSecret`]: it has no `Debug`, problems quote lines with everything
//! masked but brackets and names, and what leaves are [`Listing`]s and [`Change`]s. Only [`PullSecret::to_json`] and
//! [`PullSecret::to_secret`] give the content, for the file it goes into.

mod check;
mod json;
mod mask;

use airlock_oci::{Registry, Repository};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Serialize;

use crate::problem::{Problem, Problems};
use json::{Key, Node, Place, Value};

/// Largest file that is read, in bytes; real ones have a few kilobytes.
pub const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The key of a Secret's data under which it lies.
pub const SECRET_KEY: &str = ".dockerconfigjson";
/// Where a cluster keeps it: namespace and name.
pub const CLUSTER_SECRET: (&str, &str) = ("openshift-config", "pull-secret");

/// The stable codes of problems.
pub mod code {
    /// Not JSON.
    pub const SYNTAX: &str = "E0520";
    /// JSON, but not of the form of a credential file.
    pub const FORM: &str = "E0521";
    /// `auth` is not base64 of `user:password`.
    pub const AUTH: &str = "E0522";
    /// Two keys mean the same registry.
    pub const TWICE: &str = "W0520";
    /// An entry with nothing to log in with.
    pub const EMPTY: &str = "W0521";
    /// User name and password without `auth`: kubelet and some tools ignore them.
    pub const NO_AUTH: &str = "W0522";
    /// A key with a scheme, a version or a slash at its end.
    pub const SPELLING: &str = "W0523";
    /// The same credential is used for pushing: every node could write to the mirror.
    pub const PUSHES: &str = "W0524";
}

/// A pull secret. Equal when everything in it is equal, in whatever order.
#[derive(Clone)]
pub struct PullSecret {
    name: String,
    text: String,
    root: Node,
}

/// How an entry logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// With user name and password.
    Password,
    /// With an identity or registry token.
    Token,
    /// Not at all.
    None,
}

/// An entry without its secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// `host[:port][/path]`, as tools understand the key.
    pub registry: String,
    /// The key as it is written.
    pub key: String,
    /// How it logs in.
    pub login: Login,
    /// The user name; empty where there is none or it cannot be read.
    pub user: String,
    /// Empty where there is none.
    pub email: String,
    /// Other entries with the same user name and password.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub same_as: Vec<String>,
}

/// What happens to an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `host[:port][/path]`.
    pub registry: String,
    /// What happens.
    pub action: Action,
    /// What is different: `user`, `password`, `email`, or the name of another field. No values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
}

/// What happens to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It is different.
    Changed,
}

/// What to do with an entry that two files have differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Conflict {
    /// Nothing is merged.
    #[default]
    Refuse,
    /// The one that is merged in counts.
    Replace,
    /// The one that is there counts.
    Keep,
}

/// The entries that keep two files from being merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts(pub Vec<Change>);

/// A user name and a password.
#[derive(PartialEq, Eq)]
struct Pair {
    user: String,
    password: String,
}

impl PullSecret {
    /// An empty one.
    pub fn empty() -> Self {
        let auths = (Key::new("auths"), Node::new(Value::Object(Vec::new())));
        Self { name: String::new(), text: String::new(), root: Node::new(Value::Object(vec![auths])) }
    }

    /// Reads a credential file, or the Secret that holds one, as JSON or YAML. `name` is the file's name in problems.
    pub fn parse(name: &str, text: &str) -> Result<Self, Problems> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if !text.trim_start().starts_with('{')
            && let Some(inner) = of_yaml_secret(name, text)?
        {
            return Self::parse_json(&format!("{name} ({SECRET_KEY})"), &inner);
        }
        Self::parse_json(name, text)
    }

    fn parse_json(name: &str, text: &str) -> Result<Self, Problems> {
        let (root, faults) = json::parse(text);
        if !faults.is_empty() {
            let shown = faults.into_iter().map(|fault| {
                let problem = show(name, text, fault.place, code::SYNTAX, fault.message);
                Problem { hint: fault.hint.map(str::to_owned), ..problem }
            });
            return Err(Problems(shown.collect()));
        }
        let root = root.unwrap_or_else(|| Node::new(Value::Object(Vec::new())));
        if root.get("kind").and_then(Node::text) == Some("Secret") {
            let data = root.get("data").and_then(|d| d.get(SECRET_KEY));
            let plain = root.get("stringData").and_then(|d| d.get(SECRET_KEY)).and_then(Node::text).map(str::to_owned);
            let inner = match (plain, data.and_then(Node::text)) {
                (Some(plain), _) => Some(plain),
                (None, Some(encoded)) => decode(encoded).and_then(|bytes| String::from_utf8(bytes).ok()),
                (None, None) => None,
            };
            let Some(inner) = inner else {
                let place = data.map_or(root.place, |d| d.place);
                let message = format!("the Secret has no `data` key `{SECRET_KEY}` in base64");
                return Err(show(name, text, place, code::FORM, message).into());
            };
            return Self::parse_json(&format!("{name} ({SECRET_KEY})"), &inner);
        }
        let secret = Self { name: name.to_owned(), text: text.to_owned(), root };
        let wrong = secret.form();
        if wrong.is_empty() { Ok(secret) } else { Err(Problems(wrong)) }
    }

    /// The entries, in the order of the file, without their secrets.
    pub fn listings(&self) -> Vec<Listing> {
        let pairs: Vec<Option<Pair>> = self.auths().iter().map(|(_, entry)| pair(entry)).collect();
        let listing = |(at, (key, entry)): (usize, &(Key, Node))| {
            let own = pairs[at].as_ref();
            let same = |(other, _): &(usize, &(Key, Node))| *other != at && own.is_some() && pairs[*other] == pairs[at];
            Listing {
                registry: normal_key(&key.text),
                key: key.text.clone(),
                login: if own.is_some() {
                    Login::Password
                } else if has_token(entry) {
                    Login::Token
                } else {
                    Login::None
                },
                user: own.map(|p| p.user.clone()).unwrap_or_default(),
                email: entry.get("email").and_then(Node::text).unwrap_or_default().to_owned(),
                same_as: self.auths().iter().enumerate().filter(same).map(|(_, (k, _))| normal_key(&k.text)).collect(),
            }
        };
        self.auths().iter().enumerate().map(listing).collect()
    }

    /// The most specific key with which `host[:port]/path` is asked, if there is one that can log in.
    pub fn key_for(&self, name: &str) -> Option<String> {
        let mut name = canonical(name);
        loop {
            let known = self
                .auths()
                .iter()
                .find(|(key, entry)| normal_key(&key.text) == name && (pair(entry).is_some() || has_token(entry)));
            if let Some((key, _)) = known {
                return Some(key.text.clone());
            }
            name.truncate(name.rfind('/')?);
        }
    }

    /// Sets the entry of a registry; its other fields stay. `None` as e-mail leaves that as it is.
    pub fn add(&mut self, registry: &str, user: &str, password: &str, email: Option<&str>) -> Result<Change, Problem> {
        let registry = checked_key(registry)?;
        if user.is_empty() || user.contains(':') {
            let message = "a user name is not empty and has no colon";
            return Err(Problem::of_file(code::AUTH, "", message));
        }
        let before = self.clone();
        let auth = STANDARD.encode(format!("{user}:{password}"));
        let auths = self.auths_mut();
        let at = auths.iter().position(|(key, _)| normal_key(&key.text) == registry).unwrap_or_else(|| {
            auths.push((Key::new(&registry), Node::new(Value::Object(Vec::new()))));
            auths.len() - 1
        });
        let entry = &mut auths[at].1;
        if !matches!(entry.value, Value::Object(_)) {
            entry.value = Value::Object(Vec::new());
        }
        if let Value::Object(fields) = &mut entry.value {
            fields.retain(|(key, _)| {
                !matches!(key.text.as_str(), "username" | "password" | "identitytoken" | "registrytoken")
            });
            set(fields, "auth", &auth);
            if let Some(email) = email {
                set(fields, "email", email);
            }
        }
        let unchanged = Change { registry, action: Action::Changed, fields: Vec::new() };
        Ok(before.diff(self).into_iter().next().unwrap_or(unchanged))
    }

    /// Takes the entries of a registry out, in all their spellings.
    pub fn remove(&mut self, registry: &str) -> Option<Change> {
        let registry = normal_key(registry);
        let auths = self.auths_mut();
        let before = auths.len();
        auths.retain(|(key, _)| normal_key(&key.text) != registry);
        (auths.len() < before).then_some(Change { registry, action: Action::Removed, fields: Vec::new() })
    }

    /// Takes another's entries in. What it says besides `auths` is taken where nothing is there yet.
    pub fn merge(&mut self, other: &Self, conflict: Conflict) -> Result<Vec<Change>, Conflicts> {
        let changes = self.diff(other);
        let conflicts: Vec<Change> = changes.iter().filter(|c| c.action == Action::Changed).cloned().collect();
        if conflict == Conflict::Refuse && !conflicts.is_empty() {
            return Err(Conflicts(conflicts));
        }
        let auths = self.auths_mut();
        for (key, entry) in other.auths() {
            match auths.iter_mut().find(|(known, _)| normal_key(&known.text) == normal_key(&key.text)) {
                Some((_, known)) if conflict == Conflict::Replace => *known = entry.clone(),
                Some(_) => {}
                None => auths.push((key.clone(), entry.clone())),
            }
        }
        if let Value::Object(fields) = &mut self.root.value {
            for (key, value) in other.root.entries() {
                if fields.iter().all(|(known, _)| known != key) {
                    fields.push((key.clone(), value.clone()));
                }
            }
        }
        let applied = |c: &Change| match c.action {
            Action::Added => true,
            Action::Changed => conflict == Conflict::Replace,
            Action::Removed => false,
        };
        Ok(changes.into_iter().filter(applied).collect())
    }

    /// What leads from this to another, sorted by registry.
    pub fn diff(&self, other: &Self) -> Vec<Change> {
        let find = |secret: &'_ Self, registry: &str| {
            secret.auths().iter().find(|(key, _)| normal_key(&key.text) == registry).map(|(_, entry)| entry.clone())
        };
        let mut registries: Vec<String> =
            self.auths().iter().chain(other.auths()).map(|(key, _)| normal_key(&key.text)).collect();
        registries.sort();
        registries.dedup();
        let change = |registry: String| {
            let (action, fields) = match (find(self, &registry), find(other, &registry)) {
                (None, _) => (Action::Added, Vec::new()),
                (_, None) => (Action::Removed, Vec::new()),
                (Some(old), Some(new)) => (Action::Changed, different(&old, &new)),
            };
            (action != Action::Changed || !fields.is_empty()).then_some(Change { registry, action, fields })
        };
        registries.into_iter().filter_map(change).collect()
    }

    /// The file, as people read it.
    pub fn to_json(&self) -> String {
        json::write(&self.root)
    }

    /// The Secret of the cluster, as YAML to be applied.
    pub fn to_secret(&self) -> String {
        let (namespace, name) = CLUSTER_SECRET;
        let data = STANDARD.encode(self.to_json());
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}\n  namespace: {namespace}\ntype: kubernetes.io/dockerconfigjson\ndata:\n  {SECRET_KEY}: {data}\n"
        )
    }

    fn auths(&self) -> &[(Key, Node)] {
        self.root.get("auths").map_or(&[], Node::entries)
    }

    fn auths_mut(&mut self) -> &mut Vec<(Key, Node)> {
        if !matches!(self.root.value, Value::Object(_)) {
            self.root.value = Value::Object(Vec::new());
        }
        let Value::Object(fields) = &mut self.root.value else { unreachable!("it was made an object just now") };
        let at = fields.iter().position(|(key, _)| key.text == "auths").unwrap_or_else(|| {
            fields.insert(0, (Key::new("auths"), Node::new(Value::Object(Vec::new()))));
            0
        });
        let auths = &mut fields[at].1.value;
        if !matches!(auths, Value::Object(_)) {
            *auths = Value::Object(Vec::new());
        }
        match auths {
            Value::Object(entries) => entries,
            _ => unreachable!("it was made an object just now"),
        }
    }
}

/// The text of a Secret in YAML; `None` where it is no YAML object at all.
fn of_yaml_secret(name: &str, text: &str) -> Result<Option<String>, Problems> {
    let (roots, faults) = crate::yaml::read(text);
    let secret = roots.iter().find(|root| root.get("kind").and_then(|k| k.as_text()) == Some("Secret"));
    let Some(secret) = secret.filter(|_| faults.is_empty()) else { return Ok(None) };
    let plain = secret.at(&["stringData", SECRET_KEY]).and_then(|n| n.as_scalar());
    let encoded = secret.at(&["data", SECRET_KEY]).and_then(|n| n.as_scalar());
    let inner = match (plain, encoded) {
        (Some(plain), _) => Some(plain.to_owned()),
        (None, Some(encoded)) => decode(encoded).and_then(|bytes| String::from_utf8(bytes).ok()),
        (None, None) => None,
    };
    inner.map(Some).ok_or_else(|| {
        let message = format!("the Secret has no `data` key `{SECRET_KEY}` in base64");
        Problem::of_file(code::FORM, name, message).into()
    })
}

/// A problem at a place of a text whose secrets are masked.
fn show(name: &str, text: &str, place: Place, code: &'static str, message: impl Into<String>) -> Problem {
    let (source, column, length) = mask::line(text, place);
    Problem {
        line: place.line,
        column: place.column,
        length: length as u32,
        source: source.into(),
        // What stands before the mark is shorter than in the file, because secrets are.
        source_cut: place.column.saturating_sub(1).saturating_sub(column as u32),
        ..Problem::of_file(code, name, message)
    }
}

fn set(fields: &mut Vec<(Key, Node)>, name: &str, text: &str) {
    let value = Node::new(Value::Text(text.to_owned()));
    match fields.iter_mut().find(|(key, _)| key.text == name) {
        Some((_, known)) => *known = value,
        None => fields.push((Key::new(name), value)),
    }
}

/// The names of what differs between two entries.
fn different(old: &Node, new: &Node) -> Vec<String> {
    let mut fields = Vec::new();
    let (old_pair, new_pair) = (pair(old), pair(new));
    let user = |p: &Option<Pair>| p.as_ref().map(|p| p.user.clone());
    let password = |p: &Option<Pair>| p.as_ref().map(|p| p.password.clone());
    if user(&old_pair) != user(&new_pair) {
        fields.push("user".to_owned());
    }
    if password(&old_pair) != password(&new_pair) {
        fields.push("password".to_owned());
    }
    let mut names: Vec<&str> = old.entries().iter().chain(new.entries()).map(|(key, _)| key.text.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let readable = old_pair.is_some() && new_pair.is_some();
    for name in names {
        let of_pair = matches!(name, "auth" | "username" | "password") && readable;
        if !of_pair && old.get(name) != new.get(name) {
            fields.push(name.to_owned());
        }
    }
    fields
}

/// User name and password of an entry.
fn pair(entry: &Node) -> Option<Pair> {
    if let Some(auth) = entry.get("auth").and_then(Node::text).filter(|a| !a.trim().is_empty()) {
        let text = String::from_utf8(decode(auth)?).ok()?;
        let (user, password) = text.split_once(':')?;
        // Docker pads with NUL bytes.
        return Some(Pair { user: user.to_owned(), password: password.trim_matches('\0').to_owned() });
    }
    let user = entry.get("username").and_then(Node::text)?;
    let password = entry.get("password").and_then(Node::text)?;
    Some(Pair { user: user.to_owned(), password: password.to_owned() })
}

fn has_token(entry: &Node) -> bool {
    ["identitytoken", "registrytoken"].iter().any(|t| entry.get(t).and_then(Node::text).is_some_and(|t| !t.is_empty()))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let lenient = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    lenient.decode(text).ok()
}

/// Docker Hub has several names; keys under any of them mean the same.
fn canonical(name: &str) -> String {
    let (host, path) = name.split_once('/').map_or((name, None), |(host, path)| (host, Some(path)));
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
    path.map_or_else(|| host.to_owned(), |path| format!("{host}/{path}"))
}

/// A key as `host[:port][/path]`: without scheme, `/v1/` and trailing slashes, Docker Hub under one name.
fn normal_key(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let had_scheme = bare.is_some();
    let name = bare.unwrap_or(key).trim_end_matches('/');
    let (host, path) = name.split_once('/').unwrap_or((name, ""));
    // With a scheme the key is an address of docker's old form: its path says nothing about repositories.
    canonical(if path.is_empty() || had_scheme || matches!(path, "v1" | "v2") { host } else { name })
}

/// A key that is written: it must be the name of a registry, with or without a path.
fn checked_key(registry: &str) -> Result<String, Problem> {
    let bare = registry.strip_prefix("docker://").unwrap_or(registry);
    let key = normal_key(bare);
    let (host, path) = key.split_once('/').map_or((key.as_str(), None), |(host, path)| (host, Some(path)));
    if Registry::new(host).is_err() || path.is_some_and(|path| Repository::new(path).is_err()) {
        let message = format!("`{registry}` is not the name of a registry");
        return Err(Problem::of_file(code::FORM, "", message)
            .hint("write HOST, HOST:PORT or HOST:PORT/PATH, as mirrors are written in the rules"));
    }
    Ok(key)
}

#[cfg(test)]
mod tests;
