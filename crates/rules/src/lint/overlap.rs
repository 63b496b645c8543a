//! Sources and mirrors that meet: MR010, MR011, MR018 to MR028.

use std::collections::BTreeSet;

use super::names::canonical;
use super::{Lint, SAME_CONTENT_ANNOTATION};
use crate::objects::{Origin, Policy, Pull};
use crate::problem::Severity;
use crate::render::merge::Merged;
use crate::scope::{host_name, lies_within, matches};

pub(super) fn check(lint: &mut Lint<'_>) {
    for pull in [Pull::Digest, Pull::Tag] {
        merged_lists(lint, pull);
        nested(lint, pull);
        cross_kind(lint, pull);
    }
    wildcards(lint);
    shared_mirrors(lint);
    chains(lint);
}

/// MR010, MR011: several lists for one source.
fn merged_lists(lint: &mut Lint<'_>, pull: Pull) {
    let objects = lint.objects;
    for set in lint.merged(pull).to_vec() {
        let last = set.origins[set.origins.len() - 1];
        let list = |o: &Origin| objects.entry(*o).mirrors.iter().map(|m| m.value.as_str()).collect::<BTreeSet<_>>();
        let listed = set.origins.iter().any(|o| list(o).contains(set.source.as_str()));
        let source_first = !listed && set.mirrors.contains(&set.source);
        if set.cyclic && (set.origins.len() > 1 || source_first) {
            let order = set.mirrors.join(", ");
            let message = format!("the lists for `{}` contradict each other; nodes try {order}", set.source);
            let finding = lint.at("MR011", last, None, message);
            if source_first {
                finding.severity(Severity::Error);
            }
            continue;
        }
        let disjoint = set
            .origins
            .iter()
            .enumerate()
            .any(|(at, a)| set.origins[..at].iter().any(|b| list(a).is_disjoint(&list(b))));
        if disjoint {
            let order = set.mirrors.join(", ");
            let message = format!("`{}` has several lists without a common mirror; nodes try {order}", set.source);
            lint.at("MR010", last, None, message);
        }
    }
}

/// The nearest source around another of the same kind; wildcards are looked at on their own.
fn parent<'s>(sets: &'s [Merged], source: &str) -> Option<&'s Merged> {
    sets.iter()
        .filter(|p| p.source != source && !p.source.starts_with("*.") && lies_within(source, &p.source))
        .max_by_key(|p| p.source.len())
}

/// MR018, MR019, MR021: a source within a source of the same kind.
fn nested(lint: &mut Lint<'_>, pull: Pull) {
    let sets = lint.merged(pull).to_vec();
    for child in &sets {
        let Some(parent) = parent(&sets, &child.source) else { continue };
        let rest = &child.source[parent.source.len()..];
        let derived: Vec<String> = parent.mirrors.iter().map(|mirror| format!("{mirror}{rest}")).collect();
        let origin = child.origins[0];
        let (p, c) = (&parent.source, &child.source);
        if parent.never && !child.never {
            lint.at("MR021", origin, None, format!("`{c}` may be contacted, although `{p}` may not"));
        }
        if derived == child.mirrors && parent.never == child.never {
            lint.at("MR019", origin, None, format!("`{c}` says what `{p}` says already"));
        } else if derived != child.mirrors || (child.never && !parent.never) {
            let message = format!(
                "`{c}` goes to {}, where `{p}` would send it to {}",
                child.mirrors.join(", "),
                derived.join(", ")
            );
            lint.at("MR018", origin, None, message);
        }
    }
}

/// MR020: a nested source that only the other kind knows.
fn cross_kind(lint: &mut Lint<'_>, pull: Pull) {
    let (own, other) = (lint.merged(pull).to_vec(), lint.merged(pull.other()).to_vec());
    for set in &own {
        if other.iter().any(|o| o.source == set.source) {
            continue;
        }
        let around = other
            .iter()
            .filter(|o| o.source.len() < set.source.len() && matches(&set.source, &o.source))
            .max_by_key(|o| o.source.len());
        let Some(around) = around else { continue };
        let rest = set.source.strip_prefix(around.source.as_str()).unwrap_or_default();
        let derived: Vec<String> = around.mirrors.iter().map(|m| format!("{m}{rest}")).collect();
        let (child, parent) = (&set.source, &around.source);
        let (lost, kind) = (pull.other().as_str(), if pull == Pull::Digest { "ITMS" } else { "IDMS" });
        let message =
            format!("pulls of `{child}` by {lost} lose the mirrors of `{parent}`: the longest source alone counts");
        let help = format!("add `source: {child}` with mirrors {} to an {kind}", derived.join(", "));
        lint.at("MR020", set.origins[0], None, message).help(help);
    }
}

/// MR022 to MR024: wildcards.
fn wildcards(lint: &mut Lint<'_>) {
    let objects = lint.objects;
    let all: Vec<(String, Origin)> =
        lint.real_entries().into_iter().map(|o| (objects.entry(o).source.value.clone(), o)).collect();
    let mut scopes: Vec<String> = Vec::new();
    if let Some(image) = &objects.image {
        scopes.extend(image.blocked.iter().chain(&image.insecure).map(|text| text.value.clone()));
    }
    if let Some(base) = &lint.input.base {
        scopes.extend(base.tables.iter().map(|table| table.scope().to_owned()));
    }
    for (wildcard, origin) in all.iter().filter(|(source, _)| source.starts_with("*.")) {
        let domain = &wildcard[1..];
        for (plain, _) in all.iter().filter(|(plain, _)| plain != wildcard && host_name(plain).ends_with(domain)) {
            let winner = if plain.len() > wildcard.len() { plain } else { wildcard };
            lint.at(
                "MR022",
                *origin,
                None,
                format!("`{wildcard}` and `{plain}` overlap; where both match, `{winner}` counts"),
            );
        }
        for scope in &scopes {
            let own = all.iter().any(|(source, _)| source == scope);
            if !own && scope != wildcard && lies_within(scope, wildcard) {
                let message = format!(
                    "`{wildcard}` covers `{scope}`, which is blocked, insecure or in the base: rendering fails"
                );
                lint.at("MR023", *origin, None, message);
            }
        }
        let mirror = &objects.entry(*origin).mirrors[0].value;
        let message = format!("every host below `{}` is sent to `{mirror}`: which host it was is lost", &domain[1..]);
        lint.at("MR024", *origin, None, message);
    }
}

/// Sources that annotations declare to hold the same content.
fn declared_same(lint: &Lint<'_>, a: &str, b: &str) -> bool {
    lint.objects.sets.iter().flat_map(|set| &set.annotations).any(|(key, value)| {
        let names: Vec<&str> = value.split(',').map(str::trim).collect();
        key == SAME_CONTENT_ANNOTATION && names.contains(&a) && names.contains(&b)
    })
}

/// Image of the list that two sources bring to one repository of the mirror.
fn meeting(lint: &Lint<'_>, a: (&str, &str), b: (&str, &str)) -> Option<(String, String)> {
    let target = |name: &str, (source, mirror): (&str, &str)| {
        name.strip_prefix(source).filter(|_| matches(name, source)).map(|rest| format!("{mirror}{rest}"))
    };
    let images = lint.images();
    images.iter().find_map(|one| {
        let at = target(&one.reference.name(), a)?;
        let other = images.iter().find(|other| {
            let differ = one.reference.digest().is_none() || one.reference.digest() != other.reference.digest();
            differ && target(&other.reference.name(), b).is_some_and(|t| t == at)
        })?;
        Some((one.written.clone(), other.written.clone()))
    })
}

/// MR025, MR026: two sources, one mirror.
fn shared_mirrors(lint: &mut Lint<'_>) {
    let objects = lint.objects;
    let mut listed: Vec<(Origin, &str, &str)> = Vec::new();
    for origin in lint.real_entries() {
        let entry = objects.entry(origin);
        let source = entry.source.value.as_str();
        let mirrors = entry.mirrors.iter().map(|m| m.value.as_str()).filter(|m| *m != source);
        listed.extend(mirrors.map(|mirror| (origin, source, mirror)));
    }
    let mut told: BTreeSet<(&str, &str, &'static str)> = BTreeSet::new();
    for (at, (origin, source, mirror)) in listed.iter().enumerate() {
        for (_, other, other_mirror) in &listed[..at] {
            if !may_meet(source, mirror, other, other_mirror) || canonical(other) == canonical(source) {
                continue;
            }
            let id = if mirror == other_mirror { "MR025" } else { "MR026" };
            if !told.insert((source, other, id)) {
                continue;
            }
            if id == "MR026" {
                let message =
                    format!("`{mirror}` (of `{source}`) and `{other_mirror}` (of `{other}`) lie within each other");
                lint.at(id, *origin, None, message);
            } else {
                one_mirror(lint, *origin, source, other, mirror);
            }
        }
    }
}

/// MR025, as bad as it is.
fn one_mirror(lint: &mut Lint<'_>, origin: Origin, source: &str, other: &str, mirror: &str) {
    let met = meeting(lint, (source, mirror), (other, mirror));
    let same = declared_same(lint, source, other);
    let message = match &met {
        Some((a, b)) if !same => format!("`{a}` and `{b}` are different images on one repository below `{mirror}`"),
        _ => format!("`{source}` and `{other}` share the mirror `{mirror}`"),
    };
    let severity = match (same, met.is_some()) {
        (true, _) => Severity::Information,
        (false, true) => Severity::Error,
        (false, false) => Severity::Warning,
    };
    let help = format!("give each a path of its own, or annotate `{SAME_CONTENT_ANNOTATION}: {other},{source}`");
    lint.at("MR025", origin, None, message).severity(severity).help(help);
}

/// Whether repositories of two entries may meet: equal mirrors, or one within the other while the sources are not nested the
/// same way.
fn may_meet(source: &str, mirror: &str, other: &str, other_mirror: &str) -> bool {
    let rest = |inner: &str, outer: &str| inner.strip_prefix(outer).filter(|r| r.starts_with('/')).map(str::to_owned);
    let consistent = |inner: (&str, &str), outer: (&str, &str)| match rest(inner.1, outer.1) {
        Some(path) => rest(inner.0, outer.0) == Some(path),
        None => false,
    };
    if mirror == other_mirror {
        return source != other;
    }
    let nested = rest(mirror, other_mirror).is_some() || rest(other_mirror, mirror).is_some();
    let (this, that) = ((source, mirror), (other, other_mirror));
    nested && source != other && !consistent(this, that) && !consistent(that, this)
}

/// MR027, MR028: mirrors that are sources.
fn chains(lint: &mut Lint<'_>) {
    let objects = lint.objects;
    let all = lint.real_entries();
    for origin in all.iter().copied() {
        let entry = objects.entry(origin);
        let source = entry.source.value.as_str();
        for mirror in entry.mirrors.iter().filter(|m| m.value != source) {
            let next = all.iter().copied().find(|o| {
                objects.entry(*o).source.value != source && matches(&mirror.value, &objects.entry(*o).source.value)
            });
            let Some(next) = next else { continue };
            let other = objects.entry(next);
            let back = other.mirrors.iter().any(|m| m.value != other.source.value && matches(&m.value, source));
            let never = |policy: Policy| policy == Policy::NeverContactSource;
            if back && never(entry.policy) && never(other.policy) {
                let message =
                    format!("`{source}` and `{}` are mirrors of each other, and both are blocked", other.source.value);
                lint.at("MR028", origin, Some(mirror), message);
            } else {
                let message = format!(
                    "the mirror `{}` is the source `{}` of another entry, whose mirrors are not tried",
                    mirror.value, other.source.value
                );
                lint.at("MR027", origin, Some(mirror), message);
            }
        }
    }
}
