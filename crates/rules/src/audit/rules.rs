//! Rules in the form in which images are judged: what a node tries, with the entries that asked for it where they are known.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};

use airlock_oci::Reference;
use airlock_oci::registries_conf::{self, Candidate, Config, Mode, PullFromMirror, ResolveError};
use serde::Serialize;

use super::Finding;
use crate::objects::{Objects, Origin};
use crate::resolve::Node;
use crate::scope;

/// What images are judged by.
#[derive(Debug)]
pub struct Rules {
    node: Node,
    mirror_hosts: BTreeSet<String>,
    /// Entries of mirrors that were asked for before: images share few rules.
    origins: RefCell<HashMap<Mirror, Vec<From>>>,
}

/// A mirror of a table: prefix, location, kind of pull.
type Mirror = (String, String, &'static str);

/// One attempt, and which entries asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// The physical name.
    pub reference: String,
    /// It must not be contacted.
    pub blocked: bool,
    /// Certificates are not checked.
    pub insecure: bool,
    /// The place that the name itself says.
    pub is_source: bool,
    /// The entries it comes from; none for the source, and where the rules are a registries.conf.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<From>,
}

/// An entry of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct From {
    /// `ImageDigestMirrorSet/name`.
    pub object: String,
    /// Position in the object's list, counted from 0.
    pub index: usize,
}

/// Which rules have served an image so far.
pub(super) struct Usage<'r> {
    rules: &'r Rules,
    entries: HashSet<From>,
    prefixes: HashSet<String>,
}

impl Rules {
    /// What a node does, from objects or from its files.
    pub fn of(node: Node) -> Self {
        let mirrors = node.config().registries().iter().flat_map(|table| &table.mirrors);
        let mirror_hosts = mirrors.map(|mirror| scope::host(&mirror.location).to_owned()).collect();
        Self { node, mirror_hosts, origins: RefCell::default() }
    }

    /// The configuration that a node has.
    pub fn config(&self) -> &Config {
        self.node.config()
    }

    /// The objects, where the rules are such.
    pub fn objects(&self) -> Option<&Objects> {
        self.node.objects()
    }

    /// Hosts of mirrors, sorted.
    pub fn mirror_hosts(&self) -> impl Iterator<Item = &str> {
        self.mirror_hosts.iter().map(String::as_str)
    }

    pub(super) fn is_mirror_host(&self, host: &str) -> bool {
        self.mirror_hosts.contains(host)
    }

    /// What CRI-O tries for a text.
    pub(super) fn resolve(&self, text: &str) -> Result<Vec<Candidate>, ResolveError> {
        self.config().resolve(text, Mode::Crio)
    }

    /// The same for a full name.
    pub(super) fn endpoints(&self, reference: &Reference) -> Vec<registries_conf::Endpoint> {
        self.config().endpoints(reference).unwrap_or_default()
    }

    /// An endpoint with the entries that asked for it.
    pub(super) fn endpoint(&self, endpoint: &registries_conf::Endpoint) -> Endpoint {
        Endpoint {
            reference: endpoint.reference.to_string(),
            blocked: endpoint.blocked,
            insecure: endpoint.insecure,
            is_source: endpoint.is_source,
            from: self.from(endpoint),
        }
    }

    fn from(&self, endpoint: &registries_conf::Endpoint) -> Vec<From> {
        let (Some(objects), Some(prefix), false) = (self.objects(), &endpoint.matched_prefix, endpoint.is_source)
        else {
            return Vec::new();
        };
        let serves: PullFromMirror = endpoint.pull_from_mirror;
        let mirror = (prefix.clone(), endpoint.location.clone(), serves.as_str());
        let mut known = self.origins.borrow_mut();
        let made = |mirror: &Mirror| {
            let origins = self.node.mirror_origins(&mirror.0, &mirror.1, serves);
            let mut from: Vec<From> = origins.into_iter().map(|origin| From::of(objects, origin)).collect();
            from.sort();
            from
        };
        known.entry(mirror).or_insert_with_key(made).clone()
    }

    /// Why policy.json refuses a name, if it does.
    pub(super) fn refusal(&self, reference: &Reference) -> Option<&'static str> {
        if self.node.accepts(reference) {
            return None;
        }
        let allowed = self.objects().and_then(|o| o.image.as_ref()).is_some_and(|image| !image.allowed.is_empty());
        Some(if allowed { "allowedRegistries does not have it" } else { "blockedRegistries has it" })
    }

    pub(super) fn usage(&self) -> Usage<'_> {
        Usage { rules: self, entries: HashSet::new(), prefixes: HashSet::new() }
    }
}

impl From {
    fn of(objects: &Objects, origin: Origin) -> Self {
        Self { object: objects.sets[origin.set].title(), index: origin.entry }
    }
}

impl Usage<'_> {
    pub(super) fn note(&mut self, finding: &Finding) {
        for from in finding.endpoints.iter().flat_map(|endpoint| &endpoint.from) {
            if !self.entries.contains(from) {
                self.entries.insert(from.clone());
            }
        }
        if let Some(prefix) = finding.matched_prefix.as_ref().filter(|p| !self.prefixes.contains(*p)) {
            self.prefixes.insert(prefix.clone());
        }
    }

    /// The rest, in the order of the rules.
    pub(super) fn unused(&self) -> Vec<String> {
        match self.rules.objects() {
            Some(objects) => {
                let entries = objects.entries().map(|(origin, _, entry)| (From::of(objects, origin), entry));
                let unused = entries.filter(|(from, _)| !self.entries.contains(from));
                unused.map(|(from, entry)| format!("{}[{}] {}", from.object, from.index, entry.source.value)).collect()
            }
            None => {
                let tables = self.rules.config().registries().iter().filter(|table| !table.mirrors.is_empty());
                tables.map(|table| table.prefix.clone()).filter(|prefix| !self.prefixes.contains(prefix)).collect()
            }
        }
    }
}
