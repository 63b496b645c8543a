//! Rules in the form in which images are judged: a loaded registries.conf, with the entries that made it where they are known.

use std::collections::{BTreeSet, HashMap, HashSet};

use airlock_oci::Reference;
use airlock_oci::registries_conf::{self, Candidate, Config, LoadError, Mode, ResolveError};
use serde::Serialize;

use super::Finding;
use crate::objects::{Objects, Origin};
use crate::problem::Problem;
use crate::render::{Base, Effective, Payload, Rendered};
use crate::scope;

/// What images are judged by.
#[derive(Debug)]
pub struct Rules {
    config: Config,
    made: Option<Made>,
    mirror_hosts: BTreeSet<String>,
}

/// Where a configuration that was rendered comes from.
#[derive(Debug)]
struct Made {
    objects: Objects,
    rendered: Rendered,
    effective: Effective,
    /// Position in the rendered tables, by scope.
    tables: HashMap<String, usize>,
}

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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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
    /// Objects, rendered onto a base. Refused as the Machine Config Operator refuses them.
    pub fn of_objects(objects: Objects, base: &Base, payload: Option<&Payload>) -> Result<Self, Problem> {
        let effective = Effective::of(&objects, base, payload)?;
        let rendered = effective.render(&objects, base)?;
        let config = rendered.config().map_err(|error| unloadable(&error))?;
        let tables = rendered.tables.iter().enumerate().map(|(at, table)| (normal(table.scope()), at)).collect();
        Ok(Self { mirror_hosts: hosts(&config), config, made: Some(Made { objects, rendered, effective, tables }) })
    }

    /// A registries.conf as it is.
    pub fn of_conf(config: Config) -> Self {
        Self { mirror_hosts: hosts(&config), config, made: None }
    }

    /// The configuration that a node has.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The objects, where the rules are such.
    pub fn objects(&self) -> Option<&Objects> {
        self.made.as_ref().map(|made| &made.objects)
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
        self.config.resolve(text, Mode::Crio)
    }

    /// The same for a full name.
    pub(super) fn endpoints(&self, reference: &Reference) -> Vec<registries_conf::Endpoint> {
        self.config.endpoints(reference).unwrap_or_default()
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
        let (Some(made), Some(prefix), false) = (&self.made, &endpoint.matched_prefix, endpoint.is_source) else {
            return Vec::new();
        };
        let Some(table) = made.tables.get(prefix).map(|at| &made.rendered.tables[*at]) else { return Vec::new() };
        let same = table.mirrors.iter().filter(|mirror| {
            normal(&mirror.location) == endpoint.location && mirror.pull_from_mirror == endpoint.pull_from_mirror.as_str()
        });
        let mut from: Vec<From> = same.flat_map(|mirror| &mirror.origins).map(|origin| made.from(*origin)).collect();
        from.sort();
        from.dedup();
        from
    }

    /// Whether policy.json lets a name be pulled, and the scope that decides; rules that are a registries.conf say nothing about it.
    pub(super) fn policy(&self, reference: &Reference) -> Result<(), String> {
        let Some(effective) = self.made.as_ref().map(|made| &made.effective) else { return Ok(()) };
        let decide = |scope: &str| {
            let listed = |list: &[String]| list.iter().any(|s| s == scope);
            // An entry that is in both lists is accepted: the payload's own repository is put there on purpose.
            if listed(&effective.policy_allowed) {
                Some(Ok(()))
            } else {
                listed(&effective.policy_blocked).then(|| Err(format!("blockedRegistries has `{scope}`")))
            }
        };
        let name = reference.name();
        let mut scope = name.as_str();
        loop {
            if let Some(decided) = decide(scope) {
                return decided;
            }
            match scope.rfind('/') {
                Some(slash) => scope = &scope[..slash],
                None => break,
            }
        }
        let mut domain = scope::host_name(&name);
        while let Some((_, parent)) = domain.split_once('.') {
            if let Some(decided) = decide(&format!("*.{parent}")) {
                return decided;
            }
            domain = parent;
        }
        if effective.reject_rest { Err("allowedRegistries does not have it".to_owned()) } else { Ok(()) }
    }

    pub(super) fn usage(&self) -> Usage<'_> {
        Usage { rules: self, entries: HashSet::new(), prefixes: HashSet::new() }
    }
}

impl Made {
    fn from(&self, origin: Origin) -> From {
        From { object: self.objects.sets[origin.set].title(), index: origin.entry }
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
        match &self.rules.made {
            Some(made) => {
                let entries = made.objects.entries().map(|(origin, _, entry)| (made.from(origin), entry));
                let unused = entries.filter(|(from, _)| !self.entries.contains(from));
                unused.map(|(from, entry)| format!("{}[{}] {}", from.object, from.index, entry.source.value)).collect()
            }
            None => {
                let tables = self.rules.config.registries().iter().filter(|table| !table.mirrors.is_empty());
                tables.map(|table| table.prefix.clone()).filter(|prefix| !self.prefixes.contains(prefix)).collect()
            }
        }
    }
}

/// As registries.conf is normalised when it is loaded.
fn normal(location: &str) -> String {
    location.trim_end_matches('/').to_owned()
}

fn hosts(config: &Config) -> BTreeSet<String> {
    let mirrors = config.registries().iter().flat_map(|table| &table.mirrors);
    mirrors.map(|mirror| scope::host(&mirror.location).to_owned()).collect()
}

fn unloadable(error: &LoadError) -> Problem {
    Problem::of_file(error.code, &error.file, format!("what the rules are rendered to cannot be loaded: {}", error.cause))
}
