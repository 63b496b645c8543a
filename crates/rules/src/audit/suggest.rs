//! Rules that would cover what is not covered, in the scheme that the existing ones have (mirror-rules 8.3 step 6).

use std::collections::{BTreeMap, BTreeSet};

use airlock_oci::Reference;
use serde::Serialize;

use super::{Class, Finding, Rules};
use crate::objects::{Kind, Pull};
use crate::scope;

/// A rule that would cover an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Suggestion {
    /// `ImageDigestMirrorSet` or `ImageTagMirrorSet`.
    pub kind: &'static str,
    /// What pulls name.
    pub source: String,
    /// Where they go.
    pub mirror: String,
}

/// Fills the suggestions in.
pub(super) fn complete(findings: &mut [Finding], rules: &Rules) {
    let scheme = Scheme::of(rules);
    for finding in findings {
        let Some(reference) = &finding.normalized else { continue };
        let kind = if reference.digest().is_some() { Kind::Idms } else { Kind::Itms };
        let pair = match finding.class {
            Class::Uncovered => scheme.as_ref().map(|scheme| scheme.apply(reference)),
            // The same mirror for the other kind: whoever mirrored it by one mirrored the repository.
            Class::WrongKind | Class::Shadowed => existing(finding, rules, kind.pull()),
            _ => None,
        };
        finding.suggestion = pair.map(|(source, mirror)| Suggestion { kind: kind.as_str(), source, mirror });
    }
}

/// The rule that applies, for the kind of pull that it does not serve.
fn existing(finding: &Finding, rules: &Rules, wanted: Pull) -> Option<(String, String)> {
    let prefix = finding.matched_prefix.as_ref()?;
    let name = finding.normalized.as_ref()?.name();
    let table = rules.config().table(&name)?;
    if let Some(mirror) = table.mirrors.first() {
        return Some((prefix.clone(), mirror.location.clone()));
    }
    let via = match wanted {
        Pull::Digest => &finding.via.tag,
        Pull::Tag => &finding.via.digest,
    };
    let rest = name.strip_prefix(prefix.as_str())?;
    via.first().and_then(|mirror| mirror.strip_suffix(rest)).map(|mirror| (prefix.clone(), mirror.to_owned()))
}

/// How most of the rules name things at the mirror.
struct Scheme {
    /// What stands before the part that is kept.
    prefix: String,
    /// The host of the source is part of the path at the mirror.
    with_host: bool,
}

impl Scheme {
    /// The commonest way, the smaller in bytes among equals. `None` without any rule.
    fn of(rules: &Rules) -> Option<Self> {
        let mut seen: BTreeMap<(String, bool), usize> = BTreeMap::new();
        for table in rules.config().registries() {
            let source = table.prefix.trim_start_matches("*.");
            for mirror in &table.mirrors {
                let kept = [(source, true), (scope::path(source), false)].into_iter().find_map(|(part, host)| {
                    let part = format!("/{part}");
                    mirror.location.strip_suffix(part.trim_end_matches('/')).map(|prefix| (prefix.to_owned(), host))
                });
                // Where nothing is kept, at least the host is where mirrors are.
                let way = kept.unwrap_or_else(|| (scope::host(&mirror.location).to_owned(), false));
                *seen.entry(way).or_default() += 1;
            }
        }
        let most = seen.values().max().copied()?;
        let ((prefix, with_host), _) = seen.into_iter().find(|(_, count)| *count == most)?;
        Some(Self { prefix, with_host })
    }

    /// Source and mirror for an image: its namespace, or the repository itself where there is none.
    fn apply(&self, reference: &Reference) -> (String, String) {
        let path = reference.repository().as_str();
        let path = path.split_once('/').map_or(path, |(namespace, _)| namespace);
        let source = format!("{}/{path}", reference.registry());
        let mirror =
            if self.with_host { format!("{}/{source}", self.prefix) } else { format!("{}/{path}", self.prefix) };
        (source, mirror)
    }
}

/// The suggestions as objects to be applied: one for digests, one for tags, in one file, since two files cost two roll-outs.
/// Empty where there is nothing to suggest.
pub fn objects(findings: &[Finding], name: &str) -> String {
    let wanted: BTreeSet<&Suggestion> = findings.iter().filter_map(|finding| finding.suggestion.as_ref()).collect();
    let mut out = Vec::new();
    for (kind, suffix) in [(Kind::Idms, "digest"), (Kind::Itms, "tag")] {
        let entries: Vec<&&Suggestion> = wanted.iter().filter(|s| s.kind == kind.as_str()).collect();
        if entries.is_empty() {
            continue;
        }
        let mut text = format!(
            "apiVersion: {}\nkind: {}\nmetadata:\n  name: {name}-{suffix}\nspec:\n  {}:\n",
            kind.api_version(),
            kind.as_str(),
            kind.list()
        );
        for entry in entries {
            text.push_str(&format!("  - source: {}\n    mirrors:\n    - {}\n", entry.source, entry.mirror));
        }
        out.push(text);
    }
    out.join("---\n")
}
