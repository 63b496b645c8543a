//! The cluster's image configuration, its CAs and pull secret beside the rules: MR043 to MR049.

use std::collections::BTreeSet;

use super::Lint;
use super::form::same_host_name;
use crate::objects::{ImageConfig, Origin};
use crate::render::{Base, Effective, Payload};
use crate::scope::{host, lies_within};

/// The payload of every cluster that nothing else is said about.
const USUAL_PAYLOAD: &str =
    "quay.io/openshift-release-dev/ocp-release@sha256:0000000000000000000000000000000000000000000000000000000000000000";

pub(super) fn check(lint: &mut Lint<'_>) {
    pull_secret(lint);
    let Some(image) = &lint.objects.image else { return };
    certificates(lint, image);
    insecure_ports(lint, image);
    allowed(lint, image);
    blocked(lint, image);
    payload(lint);
}

/// The first entry of each mirror.
fn mirrors(lint: &Lint<'_>) -> Vec<(Origin, String)> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for origin in lint.real_entries() {
        let entry = lint.objects.entry(origin);
        for mirror in entry.mirrors.iter().filter(|m| m.value != entry.source.value) {
            if seen.insert(mirror.value.clone()) {
                found.push((origin, mirror.value.clone()));
            }
        }
    }
    found
}

/// The first entry of each mirror host.
fn mirror_hosts(lint: &Lint<'_>) -> Vec<(Origin, String)> {
    let mut seen = BTreeSet::new();
    let mut hosts: Vec<(Origin, String)> =
        mirrors(lint).into_iter().map(|(origin, mirror)| (origin, host(&mirror).to_owned())).collect();
    hosts.retain(|(_, host)| seen.insert(host.clone()));
    hosts
}

/// MR043.
fn pull_secret(lint: &mut Lint<'_>) {
    let Some(keys) = &lint.input.pull_secret else { return };
    for (origin, mirror) in mirrors(lint) {
        let found = keys.iter().any(|key| mirror == *key || lies_within(&mirror, key));
        if !found {
            let near = keys.iter().find(|key| same_host_name(key, &mirror));
            let message = match near {
                Some(key) => format!("the pull secret has `{key}`, which is another name than `{}`", host(&mirror)),
                None => format!("the pull secret has nothing for `{}`", host(&mirror)),
            };
            lint.at("MR043", origin, None, message).about(&mirror);
        }
    }
}

/// MR044.
fn certificates(lint: &mut Lint<'_>, image: &ImageConfig) {
    let known = match (&lint.input.trusted_ca, &image.trusted_ca) {
        (Some(keys), _) => keys.clone(),
        (None, None) => Vec::new(),
        // It names a ConfigMap that nobody showed.
        (None, Some(_)) => return,
    };
    for (origin, host) in mirror_hosts(lint) {
        let trusted = known.iter().any(|key| key.replace("..", ":") == host);
        let insecure = image.insecure.iter().any(|entry| lies_within(&host, &entry.value));
        if !trusted && !insecure {
            let key = host.replace(':', "..");
            let message = format!("no CA for `{host}`: pulls fail unless its certificate is trusted publicly");
            lint.at("MR044", origin, None, message)
                .help(format!("add the key `{key}` to the ConfigMap of additionalTrustedCA"))
                .about(&host);
        }
    }
}

/// MR045.
fn insecure_ports(lint: &mut Lint<'_>, image: &ImageConfig) {
    for (_, host) in mirror_hosts(lint) {
        for entry in &image.insecure {
            if !entry.value.contains(':') && same_host_name(&entry.value, &host) {
                let message = format!("`{}` does not cover the mirror `{host}`", entry.value);
                lint.at_image("MR045", entry, message).help(format!("write `{host}`"));
            }
        }
    }
}

/// MR046.
fn allowed(lint: &mut Lint<'_>, image: &ImageConfig) {
    if image.allowed.is_empty() {
        return;
    }
    let objects = lint.objects;
    let covers = |name: &str| image.allowed.iter().any(|entry| lies_within(name, &entry.value));
    let mut told = BTreeSet::new();
    for origin in lint.real_entries() {
        let source = objects.entry(origin).source.value.clone();
        // Something below the source may be allowed on purpose.
        let partly = image.allowed.iter().any(|entry| lies_within(&entry.value, &source));
        if !covers(&source) && !partly && told.insert(source.clone()) {
            let message = format!("`{source}` is not allowed: policy.json rejects it, wherever it is pulled from");
            lint.at("MR046", origin, None, message).help(format!("add `{source}` to allowedRegistries"));
        }
    }
    for listed in lint.images() {
        let name = listed.reference.name();
        let by_rule = objects.entries().any(|(_, _, e)| crate::scope::matches(&name, &e.source.value));
        if !covers(&name) && !by_rule && told.insert(name.clone()) {
            let file = lint.input.images.as_ref().map(|(file, _)| file.clone()).unwrap_or_default();
            let message = format!("`{name}` is not allowed: policy.json rejects it");
            lint.at_file("MR046", &file, listed.line, message).about(&name);
        }
    }
}

/// MR048, MR049.
fn blocked(lint: &mut Lint<'_>, image: &ImageConfig) {
    let objects = lint.objects;
    for entry in &image.blocked {
        for (_, mirror) in mirrors(lint) {
            if lies_within(&mirror, &entry.value) {
                lint.at_image(
                    "MR048",
                    entry,
                    format!("`{}` covers the mirror `{mirror}`, which is skipped", entry.value),
                );
            }
        }
        for origin in lint.real_entries() {
            let source = &objects.entry(origin).source.value;
            if lies_within(source, &entry.value) || lies_within(&entry.value, source) {
                let message =
                    format!("`{}` is blocked: policy.json rejects what `{source}` has mirrors for", entry.value);
                lint.at_image("MR049", entry, message);
            }
        }
    }
}

/// MR047.
fn payload(lint: &mut Lint<'_>) {
    let usual = Payload::parse(USUAL_PAYLOAD).ok();
    let payload = lint.input.payload.as_ref().or(usual.as_ref());
    let base = lint.input.base.clone().unwrap_or_else(Base::of_pools);
    let Ok(lists) = Effective::of(lint.objects, &base, payload) else { return };
    let Some(image) = &lint.objects.image else { return };
    for text in image.blocked.iter().filter(|text| lists.dropped.contains(&text.value)) {
        let message = format!(
            "`{}` is NOT blocked: the release payload comes from there, and no digest mirror serves it",
            text.value
        );
        lint.at_image("MR047", text, message);
    }
}
