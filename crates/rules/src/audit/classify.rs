//! One image: what is tried for it, and what that means.

use airlock_oci::registries_conf::{self, Candidate};
use airlock_oci::{Digest, Reference, Tag, reference};

use super::{Class, Endpoint, Finding, INTERNAL_REGISTRY, Options, Rules, Via};
use crate::scope;
use crate::usage::Image;

pub(super) struct Judge<'r> {
    rules: &'r Rules,
    options: &'r Options,
    latest: Option<Tag>,
    /// Stands for any digest where only the kind of pull matters.
    some_digest: Digest,
}

/// What one full name comes to.
struct Judged {
    class: Class,
    codes: Vec<&'static str>,
    detail: String,
    endpoints: Vec<Endpoint>,
    prefix: Option<String>,
    reference: Reference,
}

impl<'r> Judge<'r> {
    pub(super) fn new(rules: &'r Rules, options: &'r Options) -> Self {
        Self { rules, options, latest: Tag::new("latest").ok(), some_digest: Digest::of(b"") }
    }

    pub(super) fn judge(&self, at: usize, image: &Image) -> Finding {
        let mut finding = Finding {
            image: at,
            normalized: None,
            class: Class::Invalid,
            matched_prefix: None,
            endpoints: Vec::new(),
            via: Via::default(),
            codes: Vec::new(),
            detail: String::new(),
            suggestion: None,
            check: None,
        };
        let candidates = match self.rules.resolve(image.text()) {
            Ok(candidates) => candidates,
            Err(error) => {
                finding.detail = format!("{} ({})", error.cause, error.code);
                if error.code.starts_with("E_SHORT_NAME") {
                    finding.codes.push("MR066");
                }
                return finding;
            }
        };
        let short = candidates.len() > 1 || reference::is_short_name(image.text()) == Ok(true);
        // All candidates of a short name are tried, so that one which is served is enough.
        let best = candidates.into_iter().map(|candidate| self.candidate(candidate)).reduce(better);
        let Some(judged) = best else { return finding };
        finding.class = judged.class;
        finding.codes = judged.codes;
        finding.detail = judged.detail;
        finding.endpoints = judged.endpoints;
        finding.matched_prefix = judged.prefix;
        finding.via = self.via(&judged.reference, image);
        if short {
            finding.codes.push("MR066");
        }
        let tag = judged.reference.tag().map(Tag::as_str);
        if tag == Some("latest") && judged.reference.digest().is_none() {
            finding.codes.push("MR065");
        }
        finding.normalized = Some(judged.reference);
        finding
    }

    fn candidate(&self, candidate: Candidate) -> Judged {
        let Candidate { reference, matched_prefix, endpoints } = candidate;
        let mut judged = Judged {
            class: Class::Invalid,
            codes: Vec::new(),
            detail: String::new(),
            endpoints: Vec::new(),
            prefix: matched_prefix,
            reference,
        };
        let endpoints = match endpoints {
            Ok(endpoints) => endpoints,
            Err(error) => {
                judged.codes.push("MR041");
                judged.detail = format!("{} ({})", error.cause, error.code);
                return judged;
            }
        };
        judged.endpoints = endpoints.iter().map(|endpoint| self.rules.endpoint(endpoint)).collect();
        self.classify(&mut judged, &endpoints);
        if let Some(why) = self.rules.refusal(&judged.reference)
            && judged.class != Class::Internal
        {
            judged.class = Class::Rejected;
            judged.codes.push(if why.starts_with("allowed") { "MR046" } else { "MR049" });
            judged.detail = format!("policy.json refuses the name: {why}");
        }
        judged
    }

    fn classify(&self, judged: &mut Judged, endpoints: &[registries_conf::Endpoint]) {
        let Some((source, mirrors)) = endpoints.split_last() else { return };
        let usable = mirrors.iter().any(|mirror| !mirror.blocked);
        if !usable && !mirrors.is_empty() {
            judged.codes.push("MR048");
            judged.detail = "its mirrors are blocked by other rules".to_owned();
        }
        if usable {
            judged.class = if source.blocked { Class::MirroredStrict } else { Class::Mirrored };
            return;
        }
        let host = source.reference.registry().as_str();
        if self.is_internal(host) {
            judged.class = Class::Internal;
            return;
        }
        let declared = self.options.mirror_hosts.iter().any(|h| h == host);
        if !source.blocked && (declared || self.rules.is_mirror_host(host)) {
            judged.class = Class::DirectMirror;
            judged.detail = "the name is that of a mirror".to_owned();
            return;
        }
        let by_digest = judged.reference.digest().is_some();
        let fails = if source.blocked { "; its source is blocked, so that the pull fails" } else { "" };
        if mirrors.is_empty() && self.serves_other(&judged.reference, by_digest) {
            judged.class = Class::WrongKind;
            let (code, detail) = if by_digest {
                ("MR030", "is asked for by digest, and its mirrors serve tags only")
            } else {
                ("MR029", "is asked for by tag, and its mirrors serve digests only")
            };
            judged.codes.push(code);
            judged.detail = format!("it {detail}{fails}");
            if self.shorter(judged, by_digest).is_some() {
                judged.codes.push("MR020");
            }
        } else if let Some(shorter) = self.shorter(judged, by_digest) {
            judged.class = Class::Shadowed;
            judged.codes.push("MR020");
            let longest = judged.prefix.as_deref().unwrap_or_default();
            judged.detail = format!(
                "`{shorter}` would serve it, but only the longest match counts, and `{longest}` does not{fails}"
            );
        } else if source.blocked {
            judged.class = Class::Blocked;
            let by = source.blocked_by.as_deref().unwrap_or_default();
            judged.detail = format!("`{by}` is blocked, and no mirror serves it");
        } else {
            judged.class = Class::Uncovered;
            judged.codes.push("MR031");
            if judged.detail.is_empty() {
                judged.detail = format!("no rule covers it: it is pulled from `{host}`");
            }
        }
    }

    fn is_internal(&self, host: &str) -> bool {
        let name = scope::host_name(host);
        name == INTERNAL_REGISTRY
            || name == "localhost"
            || name.strip_prefix(INTERNAL_REGISTRY).is_some_and(|rest| rest.starts_with('.'))
            || self.options.internal_hosts.iter().any(|h| h == host || h == name)
    }

    /// Whether the rule that applies has mirrors for the other kind of pull.
    fn serves_other(&self, reference: &Reference, by_digest: bool) -> bool {
        let other = if by_digest {
            self.latest.clone().map(|tag| reference.with_tag(tag))
        } else {
            Some(reference.with_digest(self.some_digest.clone()))
        };
        other.is_some_and(|other| self.rules.endpoints(&other).len() > 1)
    }

    /// The prefix of a shorter rule that has mirrors for this kind of pull.
    fn shorter(&self, judged: &Judged, by_digest: bool) -> Option<String> {
        let longest = judged.prefix.as_ref()?;
        let name = judged.reference.name();
        let mut end = longest.len().min(name.len());
        loop {
            end = name[..end].rfind('/')?;
            // What applies to a parent of the name applies to the name, but for longer rules.
            let table = self.rules.config().table(&name[..end])?;
            let serves = |mirror: &registries_conf::Mirror| match mirror.pull_from_mirror {
                registries_conf::PullFromMirror::DigestOnly => by_digest,
                registries_conf::PullFromMirror::TagOnly => !by_digest,
                _ => by_digest || !table.mirror_by_digest_only,
            };
            if table.mirrors.iter().any(serves) {
                return Some(table.prefix.clone());
            }
        }
    }

    fn via(&self, reference: &Reference, image: &Image) -> Via {
        let mirrors = |reference: &Reference| -> Vec<String> {
            let endpoints = self.rules.endpoints(reference);
            let mirrors = endpoints.iter().filter(|endpoint| !endpoint.is_source && !endpoint.blocked);
            mirrors.map(|endpoint| endpoint.reference.name()).collect()
        };
        let tag = reference.tag().cloned().or_else(|| self.latest.clone());
        let digest = reference.digest().or_else(|| image.running().first().map(|r| &r.digest));
        let digest = digest.unwrap_or(&self.some_digest).clone();
        Via {
            tag: tag.map(|tag| mirrors(&reference.with_tag(tag))).unwrap_or_default(),
            digest: mirrors(&reference.with_digest(digest)),
        }
    }
}

/// Of two candidates the one that is served; the endpoints of both are tried, one after the other.
fn better(first: Judged, second: Judged) -> Judged {
    let (mut best, other, first_wins) = match (first.class.is_gap(), second.class.is_gap()) {
        (true, false) => (second, first, false),
        _ => (first, second, true),
    };
    let rest = other.endpoints;
    if first_wins {
        best.endpoints.extend(rest);
    } else {
        best.endpoints.splice(0..0, rest);
    }
    best
}
