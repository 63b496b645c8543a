//! Paths at mirrors: MR039, MR040.

use super::Lint;
use crate::objects::{Entry, Origin};
use crate::scope::{host, matches, path};

/// Most components of a repository's path, by host.
const DEPTHS: [(&str, usize); 2] = [("quay.io", 2), ("docker.io", 2)];
/// The registry inside OpenShift: namespace and image stream, neither more nor less.
const INTERNAL: [&str; 2] = ["image-registry.openshift-image-registry.svc", "default-route-openshift-image-registry."];
const INTERNAL_DEPTH: usize = 2;

pub(super) fn check(lint: &mut Lint<'_>) {
    for origin in lint.real_entries() {
        depth(lint, origin);
        flattened(lint, origin);
    }
}

/// (most components, whether fewer are wrong too).
fn limit(lint: &Lint<'_>, mirror: &str) -> Option<(usize, bool)> {
    let host = host(mirror);
    if let Some((_, depth)) = lint.input.nested_paths.iter().find(|(name, _)| name == host) {
        return Some((*depth, false));
    }
    if INTERNAL.iter().any(|internal| host.starts_with(internal)) {
        return Some((INTERNAL_DEPTH, true));
    }
    DEPTHS.iter().find(|(name, _)| *name == host).map(|(_, depth)| (*depth, false))
}

/// The repositories below the mirror that the images in use come to; without images what is certain for any image.
fn rewritten(lint: &Lint<'_>, entry: &Entry, mirror: &str) -> Vec<String> {
    let source = entry.source.value.as_str();
    let covered = lint.names.iter().filter(|name| matches(name, source));
    let mut found: Vec<String> =
        covered.filter_map(|name| name.strip_prefix(source).map(|rest| format!("{mirror}{rest}"))).collect();
    if found.is_empty() {
        // Below a whole registry there are at least a namespace and a name.
        let rest = if path(source).is_empty() && !source.starts_with("*.") { "/NAMESPACE/NAME" } else { "" };
        found.push(format!("{mirror}{rest}"));
    }
    found
}

fn depth(lint: &mut Lint<'_>, origin: Origin) {
    let objects = lint.objects;
    let entry = objects.entry(origin);
    for mirror in entry.mirrors.iter().filter(|m| m.value != entry.source.value) {
        let Some((most, exactly)) = limit(lint, &mirror.value) else { continue };
        let by_images = !lint.images().is_empty();
        let found = rewritten(lint, entry, &mirror.value).into_iter().find(|repository| {
            let parts = path(repository).split('/').filter(|part| !part.is_empty()).count();
            parts > most || (exactly && by_images && parts < most)
        });
        if let Some(repository) = found {
            let how = if exactly { "exactly" } else { "at most" };
            let message = format!("`{repository}`: {} takes {how} {most} parts in a path", host(&repository));
            lint.at("MR039", origin, Some(mirror), message);
        }
    }
}

/// MR040: `ns-name` at the mirror, and a source that covers a namespace.
fn flattened(lint: &mut Lint<'_>, origin: Origin) {
    let objects = lint.objects;
    let entry = objects.entry(origin);
    let source = entry.source.value.as_str();
    let components: Vec<&str> = path(source).split('/').filter(|c| !c.is_empty()).collect();
    let Some(last) = components.last() else { return };
    let below = || lint.names.iter().any(|name| name != source && matches(name, source));
    let mut found = Vec::new();
    for mirror in entry.mirrors.iter().filter(|m| m.value != source) {
        let end = mirror.value.rsplit('/').next().unwrap_or_default();
        let joined = components.len() > 1 && end.ends_with(&components.join("-"));
        let prefixed = components.len() == 1 && end.len() > last.len() && end.ends_with(&format!("-{last}"));
        if prefixed || (joined && below()) {
            found.push(mirror);
        }
    }
    for mirror in found {
        let message = format!("names below `{source}` come to `{}/…`, not to `{}-…`", mirror.value, mirror.value);
        lint.at("MR040", origin, Some(mirror), message);
    }
}
