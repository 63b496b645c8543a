//! What a node tries for a reference, in order, and why: which table applied, which entry of which object asked for each
//! endpoint, and which mirrors were passed over.
//!
//! The resolving itself is containers/image's ([`Config::resolve`]); here its answer is explained. Fields are named as in the
//! test vectors of mirror-rules, which is also the shape of `-o json`.

use airlock_oci::Reference;
use airlock_oci::registries_conf::{Candidate, Config, Endpoint, LoadError, Mirror, Mode, PullFromMirror, Table};
use serde::Serialize;

use crate::objects::{Objects, Origin, Place};
use crate::problem::{Problem, Problems};
use crate::render::{Base, Effective, Payload, Rendered, search_dropin};

/// File name of the drop-in with the search registries.
pub const SEARCH_DROPIN: &str = "01-image-searchRegistries.conf";

/// What decides on a node: a loaded configuration and, where it comes from objects, what it was rendered from.
#[derive(Clone, Debug)]
pub struct Node {
    config: Config,
    rules: Option<Rules>,
}

/// What a configuration was rendered from.
#[derive(Clone, Debug)]
struct Rules {
    objects: Objects,
    rendered: Rendered,
    lists: Effective,
}

/// Why objects do not become a configuration that a node can use.
#[derive(Clone, Debug)]
pub enum Unusable {
    /// The Machine Config Operator refuses them.
    Refused(Problems),
    /// It writes them, and CRI-O cannot load the file.
    Unloadable(LoadError),
}

/// The answer for one reference as it was asked.
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// As asked.
    pub reference: String,
    /// Nothing can be tried: the class of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_class: Option<String>,
    /// The error in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The reference has a tag beside its digest; the tag does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag_and_digest_input: Option<bool>,
    /// One for a full name, one for each search registry for a short one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates: Option<Vec<Explained>>,
}

/// One full name that is tried.
#[derive(Clone, Debug, Serialize)]
pub struct Explained {
    /// The logical name: what policy.json and `crictl images` know.
    pub reference: String,
    /// The prefix of the table that applies.
    pub matched_prefix: Option<String>,
    /// What policy.json says about the logical name; only where an image configuration was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<&'static str>,
    /// No endpoint can be tried: the class of the error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_class: Option<String>,
    /// The error in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// In the order of attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Vec<Attempt>>,
    /// How many of them are not blocked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usable_endpoints: Option<usize>,
    /// Mirrors of the table that do not serve this kind of pull.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOver>,
}

/// One attempt.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    /// The physical name.
    pub reference: String,
    /// The location that replaced the prefix.
    pub location: String,
    /// Certificates are not checked, and plain HTTP is tried.
    pub insecure: bool,
    /// `digest-only`, `tag-only`, `all` or empty.
    pub pull_from_mirror: String,
    /// The last one: the source itself.
    pub is_source: bool,
    /// The attempt fails without a connection.
    pub blocked: bool,
    /// The prefix of the table that blocks it.
    pub blocked_by: Option<String>,
    /// In words.
    pub why: String,
    /// The entries that asked for it; for a blocked source those that say NeverContactSource.
    pub from: Vec<Place>,
}

/// A mirror that is not tried.
#[derive(Clone, Debug, Serialize)]
pub struct PassedOver {
    /// The mirror.
    pub location: String,
    /// In words.
    pub why: String,
    /// The entries that asked for it.
    pub from: Vec<Place>,
}

impl Unusable {
    /// The class, such as `E_SOURCE_FORMAT`.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Refused(problems) => problems.0.first().map_or("", |p| p.code),
            Self::Unloadable(error) => error.code,
        }
    }
}

impl std::fmt::Display for Unusable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(problems) => write!(f, "{problems}"),
            Self::Unloadable(error) => write!(f, "error: the rendered file does not load: {error}"),
        }
    }
}

impl From<Problem> for Unusable {
    fn from(problem: Problem) -> Self {
        Self::Refused(problem.into())
    }
}

impl Node {
    /// A node with these files.
    pub fn of_config(config: Config) -> Self {
        Self { config, rules: None }
    }

    /// A node of a cluster with these objects.
    pub fn of_objects(objects: Objects, base: &Base, payload: Option<&Payload>) -> Result<Self, Unusable> {
        let lists = Effective::of(&objects, base, payload)?;
        let rendered = lists.render(&objects, base)?;
        let dropin = objects.image.as_ref().and_then(search_dropin);
        let dropins: Vec<(String, String)> = dropin.map(|text| (SEARCH_DROPIN.to_owned(), text)).into_iter().collect();
        let config = Config::parse(Some(&rendered.mco()), &dropins).map_err(Unusable::Unloadable)?;
        Ok(Self { config, rules: Some(Rules { objects, rendered, lists }) })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What the node's file was rendered from.
    pub fn objects(&self) -> Option<&Objects> {
        self.rules.as_ref().map(|rules| &rules.objects)
    }

    /// Whether policy.json lets a logical name run. Without an image configuration everything may.
    pub fn accepts(&self, name: &Reference) -> bool {
        self.rules.as_ref().is_none_or(|rules| rules.lists.accepts(name))
    }

    /// What is tried for a text, as CRI-O does it.
    pub fn resolve(&self, text: &str) -> Answer {
        match self.config.resolve(text, Mode::Crio) {
            Err(error) => Answer::failed(text, error.code, error.to_string()),
            Ok(candidates) => Answer {
                reference: text.to_owned(),
                error_class: None,
                error: None,
                tag_and_digest_input: Some(has_tag_and_digest(text)),
                candidates: Some(candidates.iter().map(|c| self.explain(c)).collect()),
            },
        }
    }

    /// The first endpoint that is not blocked, or why there is none; for comparisons.
    pub fn first_endpoint(&self, text: &str) -> String {
        let candidates = match self.config.resolve(text, Mode::Crio) {
            Err(error) => return format!("nothing ({})", error.code),
            Ok(candidates) => candidates,
        };
        for candidate in &candidates {
            match &candidate.endpoints {
                Err(error) => return format!("nothing ({})", error.code),
                Ok(endpoints) => {
                    if let Some(endpoint) = endpoints.iter().find(|endpoint| !endpoint.blocked) {
                        return endpoint.reference.to_string();
                    }
                }
            }
        }
        "nothing (blocked)".to_owned()
    }

    fn explain(&self, candidate: &Candidate) -> Explained {
        let table = candidate.matched_prefix.as_ref().and_then(|prefix| self.table(prefix));
        let by_digest = candidate.reference.digest().is_some();
        let passed_over = table.map_or_else(Vec::new, |table| self.passed_over(table, by_digest));
        let policy = self
            .rules
            .as_ref()
            .filter(|rules| rules.objects.image.is_some())
            .map(|rules| if rules.lists.accepts(&candidate.reference) { "accept" } else { "reject" });
        let mut explained = Explained {
            reference: candidate.reference.to_string(),
            matched_prefix: candidate.matched_prefix.clone(),
            policy,
            error_class: None,
            error: None,
            endpoints: None,
            usable_endpoints: None,
            passed_over,
        };
        match &candidate.endpoints {
            Err(error) => {
                explained.error_class = Some(error.code.to_owned());
                explained.error = Some(error.to_string());
            }
            Ok(endpoints) => {
                explained.usable_endpoints = Some(endpoints.iter().filter(|e| !e.blocked).count());
                explained.endpoints = Some(endpoints.iter().map(|e| self.attempt(e, table)).collect());
            }
        }
        explained
    }

    fn table(&self, prefix: &str) -> Option<&Table> {
        self.config.registries().iter().find(|table| table.prefix == prefix)
    }

    fn passed_over(&self, table: &Table, by_digest: bool) -> Vec<PassedOver> {
        let why = |mirror: &Mirror| match (table.mirror_by_digest_only, mirror.pull_from_mirror, by_digest) {
            (true, _, false) => Some("the table's mirrors serve pulls by digest only, and this is one by tag"),
            (false, PullFromMirror::DigestOnly, false) => {
                Some("it serves pulls by digest only, and this is one by tag")
            }
            (false, PullFromMirror::TagOnly, true) => Some("it serves pulls by tag only, and this is one by digest"),
            _ => None,
        };
        let passed = table.mirrors.iter().filter_map(|mirror| Some((mirror, why(mirror)?)));
        passed
            .map(|(mirror, why)| PassedOver {
                location: mirror.location.clone(),
                why: why.to_owned(),
                from: self.places(&self.mirror_origins(&table.prefix, &mirror.location, mirror.pull_from_mirror)),
            })
            .collect()
    }

    fn attempt(&self, endpoint: &Endpoint, table: Option<&Table>) -> Attempt {
        let mut why = match table {
            None => "no table covers the name: it is pulled from where it says".to_owned(),
            Some(table) if !endpoint.is_source => {
                let serves = match (table.mirror_by_digest_only, endpoint.pull_from_mirror) {
                    (true, _) | (_, PullFromMirror::DigestOnly) => "for pulls by digest",
                    (_, PullFromMirror::TagOnly) => "for pulls by tag",
                    (_, PullFromMirror::All | PullFromMirror::Unset) => "for all pulls",
                };
                format!("mirror of `{}` {serves}", table.prefix)
            }
            Some(table) if endpoint.location.is_empty() => {
                format!("the source itself, after the mirrors of `{}`", table.prefix)
            }
            Some(table) if table.location != table.prefix => {
                format!("`{}` is moved to `{}`", table.prefix, table.location)
            }
            Some(table) if table.mirrors.is_empty() => format!("`{}` has no mirrors", table.prefix),
            Some(table) => format!("the source itself, after the mirrors of `{}`", table.prefix),
        };
        if endpoint.insecure {
            why.push_str("; certificates are not checked, plain HTTP is tried");
        }
        if let Some(by) = &endpoint.blocked_by {
            why.push_str(&format!("; blocked by `{by}`: never contacted"));
        }
        let origins = match table {
            None => Vec::new(),
            Some(table) if endpoint.is_source => {
                self.rendered(&table.prefix).map_or_else(Vec::new, |table| table.never.clone())
            }
            Some(table) => self.mirror_origins(&table.prefix, &endpoint.location, endpoint.pull_from_mirror),
        };
        Attempt {
            reference: endpoint.reference.to_string(),
            location: endpoint.location.clone(),
            insecure: endpoint.insecure,
            pull_from_mirror: endpoint.pull_from_mirror.as_str().to_owned(),
            is_source: endpoint.is_source,
            blocked: endpoint.blocked,
            blocked_by: endpoint.blocked_by.clone(),
            why,
            from: self.places(&origins),
        }
    }

    fn rendered(&self, prefix: &str) -> Option<&crate::render::Table> {
        self.rules.as_ref()?.rendered.table_of(prefix)
    }

    /// The entries that asked for a mirror; none where the base did, or where the node has files and no objects.
    pub fn mirror_origins(&self, prefix: &str, location: &str, serves: PullFromMirror) -> Vec<Origin> {
        let Some(table) = self.rendered(prefix) else { return Vec::new() };
        let mut same = table.mirrors.iter().filter(|mirror| {
            mirror.location.trim_end_matches('/') == location && mirror.pull_from_mirror == serves.as_str()
        });
        same.next().map_or_else(Vec::new, |mirror| mirror.origins.clone())
    }

    fn places(&self, origins: &[Origin]) -> Vec<Place> {
        let Some(rules) = &self.rules else { return Vec::new() };
        origins.iter().map(|origin| rules.objects.place(*origin)).collect()
    }
}

impl Answer {
    /// The answer where nothing can be tried.
    pub fn failed(reference: &str, class: &str, error: String) -> Self {
        Self {
            reference: reference.to_owned(),
            error_class: Some(class.to_owned()),
            error: Some(error),
            tag_and_digest_input: None,
            candidates: None,
        }
    }

    /// Whether anything is wrong with the reference or with what a table makes of it.
    pub fn has_error(&self) -> bool {
        self.error_class.is_some() || self.candidates.iter().flatten().any(|c| c.error_class.is_some())
    }
}

/// Whether a text has a tag in front of its digest.
fn has_tag_and_digest(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, _)| name.rsplit('/').next().unwrap_or(name).contains(':'))
}

impl Effective {
    /// Whether policy.json lets a logical name run: the reference, its repository and its parents are looked up, then the
    /// wildcards over its host, then the default (mirror-rules 5.5).
    pub fn accepts(&self, reference: &Reference) -> bool {
        let full = reference.to_string();
        let name = reference.name();
        let parents =
            std::iter::successors(Some(name.as_str()), |scope| scope.rsplit_once('/').map(|(parent, _)| parent));
        let host = crate::scope::host_name(&name);
        let wildcards = host.match_indices('.').map(|(at, _)| format!("*{}", &host[at..]));
        let scopes = std::iter::once(full).chain(parents.map(str::to_owned)).chain(wildcards);
        for scope in scopes {
            // An accepted payload repository inside a rejected registry stands in the file after it, and replaces it.
            if self.policy_allowed.contains(&scope) {
                return true;
            }
            if self.policy_blocked.contains(&scope) {
                return false;
            }
        }
        !self.reject_rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(text: &str) -> Node {
        let objects = Objects::load(&[("a.yaml".to_owned(), text.to_owned())]).expect("objects");
        Node::of_objects(objects, &Base::of_pools(), None).expect("usable")
    }

    const RULES: &str = "apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata: {name: d}\nspec:\n  imageDigestMirrors:\n  - source: quay.io/a\n    mirrors: [m.lab/a]\n    mirrorSourcePolicy: NeverContactSource\n---\napiVersion: config.openshift.io/v1\nkind: Image\nmetadata: {name: cluster}\nspec:\n  registrySources:\n    allowedRegistries: [quay.io, '*.lab']\n    containerRuntimeSearchRegistries: [quay.io]\n";

    #[test]
    fn each_endpoint_says_where_it_comes_from() {
        let node = node(RULES);
        let digest = format!("quay.io/a/b:1@sha256:{}", "a".repeat(64));
        let answer = node.resolve(&digest);
        assert_eq!(answer.tag_and_digest_input, Some(true));
        let candidate = &answer.candidates.as_ref().expect("candidates")[0];
        let endpoints = candidate.endpoints.as_ref().expect("endpoints");
        assert_eq!(endpoints[0].from[0].to_string(), "ImageDigestMirrorSet/d entry 0 (a.yaml:6)");
        assert_eq!(endpoints[0].why, "mirror of `quay.io/a` for pulls by digest");
        assert!(endpoints[1].blocked && endpoints[1].from[0].index == 0);
        assert_eq!(candidate.policy, Some("accept"));
        let by_tag = node.resolve("quay.io/a/b:1").candidates.expect("candidates");
        assert_eq!(by_tag[0].passed_over[0].location, "m.lab/a");
        assert_eq!(by_tag[0].usable_endpoints, Some(0));
    }

    #[test]
    fn policy_and_search_registries_come_with_the_image_configuration() {
        let node = node(RULES);
        assert_eq!(node.resolve("short").candidates.expect("one").len(), 1);
        for (name, accepted) in [("quay.io/x/y", true), ("a.lab:5000/x", true), ("docker.io/library/x", false)] {
            assert_eq!(node.accepts(&name.parse().expect("reference")), accepted, "{name}");
        }
    }
}
