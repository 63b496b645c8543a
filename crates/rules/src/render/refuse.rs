//! What the Machine Config Operator refuses (mirror-rules 3.4): then it writes nothing, and says so only in its own log.

use std::collections::HashMap;

use crate::objects::{Entry, Kind, MirrorSet, Objects, Origin, Policy, Text};
use crate::problem::Problem;
use crate::scope::{is_listed_registry, is_mirror, is_source};

/// The stable classes of refusals.
pub mod class {
    /// An entry of insecureRegistries.
    pub const INSECURE_SCOPE: &str = "E_INSECURE_SCOPE";
    /// An entry of blockedRegistries.
    pub const BLOCKED_SCOPE: &str = "E_BLOCKED_SCOPE";
    /// An entry of allowedRegistries.
    pub const ALLOWED_SCOPE: &str = "E_ALLOWED_SCOPE";
    /// Both allowedRegistries and blockedRegistries.
    pub const ALLOWED_AND_BLOCKED: &str = "E_ALLOWED_AND_BLOCKED";
    /// The release image is no full name.
    pub const RELEASE_IMAGE: &str = "E_RELEASE_IMAGE";
    /// A source that is no host with path and no wildcard.
    pub const SOURCE_FORMAT: &str = "E_SOURCE_FORMAT";
    /// A mirror that is no host with path.
    pub const MIRROR_FORMAT: &str = "E_MIRROR_FORMAT";
    /// Two policies for one source.
    pub const POLICY_CONFLICT: &str = "E_POLICY_CONFLICT";
    /// NeverContactSource, with the source among the mirrors.
    pub const NEVER_WITH_SOURCE_MIRROR: &str = "E_NEVER_WITH_SOURCE_MIRROR";
    /// A blocked or insecure scope, or a table of the base, below a wildcard source.
    pub const WILDCARD_NESTED: &str = "E_WILDCARD_NESTED";
    /// The base cannot be decoded: not TOML.
    pub const TOML_SYNTAX: &str = "E_TOML_SYNTAX";
    /// The base cannot be decoded: a wrong type.
    pub const TOML_TYPE: &str = "E_TOML_TYPE";
}

/// The entries in the order in which the operator looks at them: IDMS, then ICSP, then ITMS.
fn in_order(objects: &Objects) -> impl Iterator<Item = (Origin, &MirrorSet, &Entry)> {
    [Kind::Idms, Kind::Icsp, Kind::Itms]
        .into_iter()
        .flat_map(move |kind| objects.entries().filter(move |(_, set, _)| set.kind == kind))
}

/// The first thing that is refused.
pub fn check(objects: &Objects) -> Result<(), Problem> {
    check_image(objects)?;
    let mut policies: HashMap<&str, (Policy, Origin)> = HashMap::new();
    for (origin, set, entry) in in_order(objects) {
        let at = |class, text: &Text, message: String| problem(objects, set.file, class, text, message);
        let source = entry.source.value.as_str();
        if !is_source(source) {
            let message = format!("`{source}` cannot be a source: expected host[:port][/path] or *.domain");
            return Err(at(class::SOURCE_FORMAT, &entry.source, message).hint(source_hint(source)));
        }
        let (first, place) = *policies.entry(source).or_insert((entry.policy, origin));
        if first != entry.policy {
            let message = format!(
                "`{source}` has {} here, and {} in {}",
                entry.policy.as_str(),
                first.as_str(),
                objects.place(place)
            );
            let hint =
                "one source has one policy over all IDMS, ITMS and ICSP; an ICSP always means AllowContactingSource";
            return Err(at(class::POLICY_CONFLICT, &entry.source, message).hint(hint));
        }
        for mirror in &entry.mirrors {
            let name = mirror.value.as_str();
            if !is_mirror(name) {
                let message = format!("`{name}` cannot be a mirror: expected host[:port][/path]");
                return Err(at(class::MIRROR_FORMAT, mirror, message).hint(mirror_hint(name)));
            }
            if entry.policy == Policy::NeverContactSource && name == source {
                let message = format!("`{source}` is a mirror of itself and must never be contacted at once");
                let hint = "remove the source from its mirrors";
                return Err(at(class::NEVER_WITH_SOURCE_MIRROR, mirror, message).hint(hint));
            }
        }
    }
    Ok(())
}

fn check_image(objects: &Objects) -> Result<(), Problem> {
    let Some(image) = &objects.image else { return Ok(()) };
    for (class, field, list) in [
        (class::INSECURE_SCOPE, "insecureRegistries", &image.insecure),
        (class::BLOCKED_SCOPE, "blockedRegistries", &image.blocked),
        (class::ALLOWED_SCOPE, "allowedRegistries", &image.allowed),
    ] {
        if let Some(text) = list.iter().find(|text| !is_listed_registry(&text.value)) {
            let message = format!("`{}` cannot stand in {field}", text.value);
            let hint = "a wildcard is `*.` and a domain, without port and path";
            return Err(problem(objects, image.file, class, text, message).hint(hint));
        }
    }
    if let (Some(_), Some(blocked)) = (image.allowed.first(), image.blocked.first()) {
        let message = "allowedRegistries and blockedRegistries exclude each other".to_owned();
        let problem = problem(objects, image.file, class::ALLOWED_AND_BLOCKED, blocked, message);
        return Err(problem.hint("keep one of them: what is not allowed is rejected anyway"));
    }
    Ok(())
}

/// A problem at a text of a file of the objects.
pub(crate) fn problem(objects: &Objects, file: usize, class: &'static str, text: &Text, message: String) -> Problem {
    let source = &objects.files[file];
    Problem::at(class, &source.name, &source.text, text.mark, message)
}

fn source_hint(text: &str) -> String {
    match proposed(text, true) {
        Some(better) => format!("write `{better}`"),
        None => "without scheme, tag, digest and trailing slash; a wildcard is `*.` and a domain".to_owned(),
    }
}

fn mirror_hint(text: &str) -> String {
    match proposed(text, false) {
        Some(better) => format!("write `{better}`"),
        None => "without scheme, tag, digest, wildcard and trailing slash".to_owned(),
    }
}

/// What the author probably meant: without scheme, tag, digest, trailing slashes and blanks, with a path in lower case.
pub fn proposed(text: &str, source: bool) -> Option<String> {
    let trimmed = text.trim();
    let bare = ["https://", "http://", "docker://"]
        .into_iter()
        .find_map(|scheme| trimmed.strip_prefix(scheme))
        .unwrap_or(trimmed);
    let bare = bare.split_once('@').map_or(bare, |(name, _)| name).trim_end_matches('/');
    let bare = match (bare.rfind('/'), bare.rfind(':')) {
        (Some(slash), Some(colon)) if colon > slash => &bare[..colon],
        _ => bare,
    };
    let better = match bare.split_once('/') {
        Some((host, path)) => format!("{host}/{}", path.to_lowercase()),
        None => bare.to_owned(),
    };
    let valid = if source { is_source(&better) } else { is_mirror(&better) };
    (valid && better != text).then_some(better)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_proposed() {
        for (text, better) in [
            ("https://quay.io/a/", Some("quay.io/a")),
            ("quay.io/a:1.0", Some("quay.io/a")),
            ("quay.io:5000/A/b@sha256:00", Some("quay.io:5000/a/b")),
            ("*.a.io/x", None),
            ("under_score.io/a", None),
        ] {
            assert_eq!(proposed(text, true).as_deref(), better, "{text}");
        }
    }
}
