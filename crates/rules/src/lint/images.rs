//! The images in use beside the rules: MR029 to MR032, MR037, MR057, MR059, MR062 to MR066.

use std::collections::{BTreeMap, BTreeSet};

use airlock_oci::reference::is_short_name;

use super::Lint;
use super::form::same_host_name;
use crate::convert::images::Listed;
use crate::objects::Pull;
use crate::render::{Base, render};
use crate::scope::{host, lies_within, matches, path};

/// How many images a message names.
const MAX_NAMED: usize = 3;

pub(super) fn check(lint: &mut Lint<'_>) {
    observed(lint);
    let Some((file, images)) = &lint.input.images else { return };
    written(lint, file, images);
    coverage(lint, file, images);
    unused(lint);
    ports(lint, images);
    direct(lint, file, images);
}

fn named(images: &[&Listed]) -> String {
    let mut text = images.iter().take(MAX_NAMED).map(|i| format!("`{}`", i.written)).collect::<Vec<_>>().join(", ");
    if images.len() > MAX_NAMED {
        text.push_str(&format!(" and {} more", images.len() - MAX_NAMED));
    }
    text
}

fn pull_of(image: &Listed) -> Pull {
    if image.reference.digest().is_some() { Pull::Digest } else { Pull::Tag }
}

/// Hosts that need no rule: mirrors, this machine, the cluster's own registry.
fn is_internal(lint: &Lint<'_>, host: &str) -> bool {
    let own = host == "localhost"
        || host.starts_with("localhost:")
        || host.starts_with("image-registry.openshift-image-registry");
    own || lint.digest.iter().chain(&lint.tag).flat_map(|s| &s.mirrors).any(|m| crate::scope::host(m) == host)
}

/// MR065, MR066.
fn written(lint: &mut Lint<'_>, file: &str, images: &[Listed]) {
    for image in images {
        let tag = image.reference.tag().map(airlock_oci::Tag::as_str);
        let mirrored = lint.tag.iter().any(|set| matches(&image.reference.name(), &set.source));
        if image.reference.digest().is_none() && matches!(tag, None | Some("latest")) && mirrored {
            let what = if tag.is_none() { "no tag" } else { "the tag `latest`" };
            lint.at_file("MR065", file, image.line, format!("`{}` has {what}", image.written)).about(&image.written);
        }
        if is_short_name(&image.written).unwrap_or(false) {
            let message =
                format!("`{}` is a short name: the node's search registries decide what it is", image.written);
            lint.at_file("MR066", file, image.line, message)
                .help(format!("write `{}`", image.reference))
                .about(&image.written);
        }
    }
}

/// MR029, MR030, MR031, MR041, MR059.
fn coverage(lint: &mut Lint<'_>, file: &str, images: &[Listed]) {
    let base = lint.input.base.clone().unwrap_or_else(Base::of_pools);
    let config = render(lint.objects, &base).ok().and_then(|rendered| rendered.config().ok());
    let mut wrong_kind: BTreeMap<(Pull, String), Vec<&Listed>> = BTreeMap::new();
    let mut siblings: BTreeMap<&str, Vec<&Listed>> = BTreeMap::new();
    for image in images {
        let name = image.reference.name();
        if let Some(Err(error)) = config.as_ref().map(|config| config.endpoints(&image.reference)) {
            lint.at_file("MR041", file, image.line, error.to_string()).about(&image.written);
            continue;
        }
        match lint.longest(&name).map(str::to_owned) {
            Some(source) if lint.merged_of(pull_of(image), &source).is_none() => {
                wrong_kind.entry((pull_of(image), source)).or_default().push(image);
            }
            Some(_) => {}
            None if is_internal(lint, host(&name)) => {}
            None => {
                let message = format!("no rule covers `{}`", image.written);
                let help = proposal(lint, &name, pull_of(image));
                lint.at_file("MR031", file, image.line, message).help(help).about(&image.written);
                let neighbours = lint
                    .objects
                    .entries()
                    .any(|(_, _, e)| host(&e.source.value) == host(&name) && !path(&e.source.value).is_empty());
                if neighbours {
                    siblings.entry(image.reference.registry().as_str()).or_default().push(image);
                }
            }
        }
    }
    for ((pull, source), images) in wrong_kind {
        let (id, rule, other) = match pull {
            Pull::Tag => ("MR029", "digests", "tag"),
            Pull::Digest => ("MR030", "tags", "digest"),
        };
        let Some(origin) = lint.merged_of(pull.other(), &source).map(|set| set.origins[0]) else { continue };
        let message =
            format!("the rule for `{source}` serves {rule} only, and these are pulled by {other}: {}", named(&images));
        lint.at(id, origin, None, message);
    }
    for (host, images) in siblings {
        let covered: BTreeSet<&str> = lint
            .objects
            .entries()
            .map(|(_, _, e)| e.source.value.as_str())
            .filter(|s| crate::scope::host(s) == host)
            .collect();
        let origin =
            lint.objects.entries().find(|(_, _, e)| crate::scope::host(&e.source.value) == host).map(|(o, ..)| o);
        let covered = covered.into_iter().take(MAX_NAMED).collect::<Vec<_>>().join(", ");
        let message =
            format!("rules cover {covered} of `{host}`, and these beside them are in use: {}", named(&images));
        if let Some(origin) = origin {
            lint.at("MR059", origin, None, message);
        }
    }
}

/// An entry for an uncovered name, in the way of the other entries of its host, or of most of all.
fn proposal(lint: &Lint<'_>, name: &str, pull: Pull) -> String {
    let namespace = name.rsplit_once('/').map_or(name, |(parent, _)| parent);
    let source = if path(namespace).is_empty() { name } else { namespace };
    let mut roots: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, _, entry) in lint.objects.entries() {
        let suffix = format!("/{}", path(&entry.source.value));
        let kept = entry.mirrors.first().and_then(|mirror| mirror.value.strip_suffix(&suffix));
        if let Some(root) = kept {
            *roots.entry(root).or_default() += 1;
        }
    }
    let root = roots.into_iter().max_by_key(|(_, count)| *count).map_or("MIRROR", |(root, _)| root);
    let kind = if pull == Pull::Digest { "IDMS" } else { "ITMS" };
    format!("add to an {kind}: `source: {source}`, `mirrors: [{root}/{}]`", path(source))
}

/// MR032.
fn unused(lint: &mut Lint<'_>) {
    let used: BTreeSet<String> = lint.names.iter().filter_map(|name| lint.longest(name)).map(str::to_owned).collect();
    for pull in [Pull::Digest, Pull::Tag] {
        for set in lint.merged(pull).to_vec() {
            if !used.contains(&set.source) {
                let message = format!("no image of the list is covered by `{}`", set.source);
                lint.at("MR032", set.origins[0], None, message);
            }
        }
    }
}

/// MR037.
fn ports(lint: &mut Lint<'_>, images: &[Listed]) {
    let objects = lint.objects;
    // The first image of each host: there are few hosts, and many images.
    let mut hosts: BTreeMap<String, usize> = BTreeMap::new();
    for (at, name) in lint.names.iter().enumerate() {
        hosts.entry(host(name).to_owned()).or_insert(at);
    }
    for (origin, _, entry) in objects.entries() {
        let source = entry.source.value.as_str();
        let found = hosts.iter().find(|(host, _)| same_host_name(host, source)).map(|(_, at)| *at);
        if let Some(image) = found.map(|at| &images[at]) {
            let message = format!("`{source}` and `{}` differ in the port", image.written);
            lint.at("MR037", origin, None, message);
        }
    }
}

/// MR057.
fn direct(lint: &mut Lint<'_>, file: &str, images: &[Listed]) {
    let mirrors = lint.digest.iter().chain(&lint.tag).flat_map(|set| &set.mirrors);
    let hosts: BTreeSet<String> = mirrors.map(|mirror| host(mirror).to_owned()).collect();
    for image in images.iter().filter(|image| hosts.contains(image.reference.registry().as_str())) {
        let name = image.reference.name();
        let mirror = lint.digest.iter().chain(&lint.tag).find_map(|set| {
            let mirror = set.mirrors.iter().find(|m| **m != set.source && lies_within(&name, m))?;
            Some((set.source.clone(), mirror.clone()))
        });
        if let Some((source, mirror)) = mirror {
            let message = format!("`{}` names `{mirror}` itself, which is the mirror of `{source}`", image.written);
            lint.at_file("MR057", file, image.line, message).about(&image.written);
        }
    }
}

/// MR062 to MR064: what the mirror answered.
fn observed(lint: &mut Lint<'_>) {
    let file = lint.input.images.as_ref().map(|(file, _)| file.clone()).unwrap_or_default();
    for seen in &lint.input.observed {
        let line = lint.images().iter().find(|image| image.written == seen.written).map_or(0, |image| image.line);
        let (written, mirror) = (&seen.written, &seen.mirror);
        let (id, message) = match (seen.has_digest, &seen.tag) {
            (Some(false), Some((digest, false))) => {
                ("MR063", format!("`{mirror}` has another, single manifest ({digest}) instead of `{written}`"))
            }
            (Some(false), Some((digest, true))) => {
                ("MR062", format!("the tag at `{mirror}` means {digest} now; `{written}` is not there"))
            }
            (None, Some((digest, _))) => match &seen.source_tag {
                Some(source) if source != digest => {
                    ("MR064", format!("`{written}` is {source} at its source and {digest} at `{mirror}`"))
                }
                _ => continue,
            },
            _ => continue,
        };
        lint.at_file(id, &file, line, message).about(written);
    }
}
