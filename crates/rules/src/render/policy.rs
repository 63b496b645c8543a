//! What the cluster's image configuration becomes: the blocked list that really goes into registries.conf, policy.json, and
//! the drop-in of search registries (mirror-rules 4.5, 5.5).

use airlock_oci::Reference;
use airlock_oci::reference::parse_docker;
use serde_json::{Map, Value, json};

use super::refuse::class;
use super::{Base, Rendered, refuse, render_with, search_text};
use crate::objects::{ImageConfig, Objects};
use crate::problem::Problem;
use crate::scope::lies_within;

/// An entry of blockedRegistries covers the release payload, which no digest mirror serves: the operator drops the entry and
/// says so only in its log.
pub const W_PAYLOAD_REGISTRY_NOT_BLOCKED: &str = "W_PAYLOAD_REGISTRY_NOT_BLOCKED";

/// Deepest scope that the transport `atomic` knows.
const MAX_ATOMIC_SLASHES: usize = 2;

/// Repository of the release payload.
#[derive(Clone, Debug)]
pub struct Payload(Reference);

/// The lists that come out of an image configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    /// `insecure = true` in registries.conf.
    pub insecure: Vec<String>,
    /// `blocked = true` in registries.conf.
    pub blocked: Vec<String>,
    /// Rejected by policy.json.
    pub policy_blocked: Vec<String>,
    /// Accepted by policy.json.
    pub policy_allowed: Vec<String>,
    /// What everything else gets is `reject`: the user gave a list of allowed registries.
    pub reject_rest: bool,
    /// Entries that were dropped because the payload comes from there.
    pub dropped: Vec<String>,
}

impl Payload {
    /// A release image as ClusterVersion names it: with host, and a digest or a tag.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let refuse = |cause: String| {
            let message = format!("release image `{text}`: {cause}");
            Problem::of_file(class::RELEASE_IMAGE, "", message)
                .hint("as `oc get clusterversion version -o jsonpath={.status.desired.image}` prints it")
        };
        let name = parse_docker(text).map_err(|e| refuse(e.to_string()))?;
        if name.to_string() != text {
            return Err(refuse(format!("not a full name; it would mean `{name}`")));
        }
        text.parse().map(Self).map_err(|e: airlock_oci::reference::ParseError| refuse(e.to_string()))
    }

    /// `host/path`.
    pub fn repository(&self) -> String {
        self.0.name()
    }
}

impl Effective {
    /// The lists as the operator uses them. Without a payload they stand as written.
    pub fn of(objects: &Objects, base: &Base, payload: Option<&Payload>) -> Result<Self, Problem> {
        refuse::check(objects)?;
        let Some(image) = &objects.image else { return Ok(Self::default()) };
        let mut lists = Self { insecure: texts(&image.insecure), ..Self::default() };
        let allowed = texts(&image.allowed);
        lists.reject_rest = !allowed.is_empty();
        for entry in texts(&image.blocked) {
            let covers = payload.filter(|p| lies_within(&p.repository(), &entry));
            match covers {
                None => lists.policy_blocked.push(entry.clone()),
                Some(payload) if has_usable_mirror(objects, base, payload, image)? => {
                    let repository = payload.repository();
                    if entry != repository {
                        lists.policy_blocked.push(entry.clone());
                    }
                    if !lists.policy_allowed.contains(&repository) {
                        lists.policy_allowed.push(repository);
                    }
                }
                Some(_) => {
                    lists.dropped.push(entry);
                    continue;
                }
            }
            lists.blocked.push(entry);
        }
        lists.policy_allowed.extend(allowed);
        Ok(lists)
    }

    /// The rendered file with these lists.
    pub fn render(&self, objects: &Objects, base: &Base) -> Result<Rendered, Problem> {
        refuse::check(objects)?;
        render_with(objects, base, &self.insecure, &self.blocked)
    }

    /// policy.json; nothing where both lists are empty, because then none is written.
    pub fn policy(&self) -> Option<Value> {
        if self.policy_allowed.is_empty() && self.policy_blocked.is_empty() {
            return None;
        }
        let accept = json!([{ "type": "insecureAcceptAnything" }]);
        let reject = json!([{ "type": "reject" }]);
        let (mut docker, mut atomic) = (Map::new(), Map::new());
        let rules =
            self.policy_blocked.iter().map(|s| (s, &reject)).chain(self.policy_allowed.iter().map(|s| (s, &accept)));
        for (scope, rule) in rules {
            docker.insert(scope.clone(), rule.clone());
            if scope.matches('/').count() <= MAX_ATOMIC_SLASHES {
                atomic.insert(scope.clone(), rule.clone());
            }
        }
        let default = if self.reject_rest { &reject } else { &accept };
        let daemon = json!({ "": accept });
        Some(json!({
            "default": default,
            "transports": { "atomic": atomic, "docker": docker, "docker-daemon": daemon },
        }))
    }

    /// The warning class, if an entry was dropped.
    pub fn warning(&self) -> Option<&'static str> {
        (!self.dropped.is_empty()).then_some(W_PAYLOAD_REGISTRY_NOT_BLOCKED)
    }
}

/// Whether a pull of the payload has any endpoint outside of everything blocked. An ITMS never counts, not even for a
/// payload that is named by tag.
fn has_usable_mirror(objects: &Objects, base: &Base, payload: &Payload, image: &ImageConfig) -> Result<bool, Problem> {
    let digest_sets = Objects {
        files: objects.files.clone(),
        sets: objects.sets.iter().filter(|s| s.kind != crate::Kind::Itms).cloned().collect(),
        ..Objects::default()
    };
    let rendered = render_with(&digest_sets, base, &[], &[])?;
    let Ok(config) = rendered.config() else { return Ok(false) };
    let Ok(endpoints) = config.endpoints(&payload.0) else { return Ok(false) };
    Ok(endpoints.iter().any(|endpoint| {
        let name = endpoint.reference.name();
        !image.blocked.iter().any(|entry| lies_within(&name, &entry.value))
    }))
}

/// The drop-in with the search registries of an image configuration, if it names any.
pub fn search_dropin(image: &ImageConfig) -> Option<String> {
    (!image.search.is_empty()).then(|| search_text(&texts(&image.search)))
}

fn texts(list: &[crate::objects::Text]) -> Vec<String> {
    list.iter().map(|text| text.value.clone()).collect()
}
