//! Digests and tags, policies, kinds of objects: MR033 to MR036, MR060, MR061, MR070.

use std::collections::BTreeMap;

use super::Lint;
use crate::objects::{Kind, Origin, Policy, Pull};
use crate::scope::{host, matches, path};

/// What a release is read from.
const PAYLOAD: [&str; 2] =
    ["quay.io/openshift-release-dev/ocp-release", "quay.io/openshift-release-dev/ocp-v4.0-art-dev"];

pub(super) fn check(lint: &mut Lint<'_>) {
    policy(lint);
    icsp(lint);
    both_kinds(lint);
    whole_hosts(lint);
    catalogs(lint);
    payload(lint);
}

/// MR033, MR034.
fn policy(lint: &mut Lint<'_>) {
    let objects = lint.objects;
    let never = objects.entries().any(|(_, _, e)| e.policy == Policy::NeverContactSource);
    if let (false, false, Some(first)) = (never, lint.input.connected, lint.real_entries().first().copied()) {
        let set = &objects.sets[first.set];
        let message = "no source is forbidden: a missing mirror goes unnoticed while the internet answers".to_owned();
        lint.at_set("MR033", first.set, set.mark, message);
    }
    for pull in [Pull::Digest, Pull::Tag] {
        for set in lint.merged(pull).to_vec() {
            if set.never && lint.merged_of(pull.other(), &set.source).is_none() {
                let (source, other) = (&set.source, pull.other().as_str());
                let message = format!("`{source}` is blocked for pulls by {other} too, which have no mirror");
                let kind = if pull == Pull::Digest { Kind::Itms } else { Kind::Idms };
                lint.at("MR034", set.origins[0], None, message).help(format!("add the source to an {}", kind.short()));
            }
        }
    }
}

/// MR035.
fn icsp(lint: &mut Lint<'_>) {
    let objects = lint.objects;
    for (at, set) in objects.sets.iter().enumerate().filter(|(_, set)| set.kind == Kind::Icsp) {
        let mixed = set.entries.iter().find(|entry| {
            objects.entries().any(|(_, s, e)| s.kind == Kind::Idms && e.source.value == entry.source.value)
        });
        let message = match mixed {
            Some(entry) => format!("`{}` is in this ImageContentSourcePolicy and in an IDMS", entry.source.value),
            None => "ImageContentSourcePolicy is deprecated since OpenShift 4.13".to_owned(),
        };
        lint.at_set("MR035", at, set.mark, message);
    }
}

/// MR036.
fn both_kinds(lint: &mut Lint<'_>) {
    for digest in lint.digest.clone() {
        let Some(tag) = lint.merged_of(Pull::Tag, &digest.source).cloned() else { continue };
        if tag.mirrors != digest.mirrors {
            let message = format!(
                "`{}` goes to {} by tag and to {} by digest",
                tag.source,
                tag.mirrors.join(", "),
                digest.mirrors.join(", ")
            );
            lint.at("MR036", tag.origins[0], None, message);
        }
    }
}

/// MR060: all entries of a host keep their path below one mirror.
fn whole_hosts(lint: &mut Lint<'_>) {
    let objects = lint.objects;
    for kind in [Pull::Digest, Pull::Tag] {
        let mut hosts: BTreeMap<&str, Vec<(Origin, Option<&str>)>> = BTreeMap::new();
        for (origin, set, entry) in objects.entries() {
            let source = entry.source.value.as_str();
            if set.kind.pull() != kind || path(source).is_empty() || !entry.has_real_mirror() {
                continue;
            }
            let suffix = format!("/{}", path(source));
            let root = match entry.mirrors.as_slice() {
                [one] => one.value.strip_suffix(&suffix),
                _ => None,
            };
            hosts.entry(host(source)).or_default().push((origin, root));
        }
        for (host, entries) in hosts {
            let root = entries[0].1;
            if entries.len() > 1 && root.is_some() && entries.iter().all(|(_, r)| *r == root) {
                let root = root.unwrap_or_default();
                let message = format!("{} entries of `{host}` keep their path below `{root}`", entries.len());
                let help = format!("one entry would do: source `{host}`, mirror `{root}`");
                lint.at("MR060", entries[0].0, None, message).help(help);
            }
        }
    }
}

/// MR061: what looks like a catalog or its bundles.
fn catalogs(lint: &mut Lint<'_>) {
    for (pull, looks) in [(Pull::Digest, is_catalog as fn(&str) -> bool), (Pull::Tag, is_bundles as fn(&str) -> bool)] {
        for set in lint.merged(pull).to_vec() {
            let other = lint.merged(pull.other()).iter().any(|o| matches(&set.source, &o.source));
            if other || !looks(&set.source) {
                continue;
            }
            let (source, missing) = (&set.source, pull.other().as_str());
            let what = if pull == Pull::Digest { "a catalog" } else { "bundles of a catalog" };
            let message = format!("`{source}` looks like {what}, which are pulled by {missing}");
            lint.at("MR061", set.origins[0], None, message);
        }
    }
}

fn is_catalog(source: &str) -> bool {
    let last = source.rsplit('/').next().unwrap_or_default();
    path(source).contains('/') && (last.ends_with("-index") || last.ends_with("-catalog"))
}

fn is_bundles(source: &str) -> bool {
    let last = source.rsplit('/').next().unwrap_or_default();
    !path(source).is_empty()
        && (last.ends_with("-bundle") || last.ends_with("-bundles") || last.contains("operator-pipeline"))
}

/// MR070.
fn payload(lint: &mut Lint<'_>) {
    let covered = |repository: &str| lint.digest.iter().any(|set| matches(repository, &set.source));
    let missing: Vec<&str> = PAYLOAD.into_iter().filter(|repository| !covered(repository)).collect();
    if missing.is_empty() || lint.input.connected || lint.objects.sets.is_empty() {
        return;
    }
    let message = match missing.as_slice() {
        [one] => format!("`{one}` is not covered by digest, the other half of the release payload is"),
        _ => "no part of the release payload is covered by digest".to_owned(),
    };
    lint.overall("MR070", message);
}
