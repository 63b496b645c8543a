//! What holds for any objects: rendering, loading and resolving gives what the objects say directly; order means nothing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use airlock_oci::Reference;
use airlock_rules::render::{Base, merge::merged, render};
use airlock_rules::scope::matches;
use airlock_rules::{Objects, Pull};
use proptest::prelude::*;

const SOURCES: [&str; 10] = [
    "quay.io",
    "quay.io/acme",
    "quay.io/acme/app",
    "quay.io:443/acme",
    "*.corp.example",
    "reg.corp.example",
    "reg.corp.example/team",
    "docker.io/library",
    "docker.io",
    "m.lab:5000",
];
const MIRRORS: [&str; 8] = [
    "m.lab:5000",
    "m.lab:5000/acme",
    "n.lab/acme",
    "n.lab/acme/app",
    "a.lab/x",
    "z.lab/y/z",
    "quay.io/acme",
    "reg.corp.example/mirror",
];
const REFERENCES: [&str; 9] = [
    "quay.io/acme/app",
    "quay.io/acme/other",
    "quay.io/acmecorp/x",
    "quay.io:443/acme/app",
    "reg.corp.example/team/a",
    "x.y.corp.example:5000/team/a",
    "docker.io/library/busybox",
    "m.lab:5000/acme/app",
    "ghcr.io/nobody/nothing",
];

/// Kind (0 IDMS, 1 ITMS, 2 ICSP), and entries as (source, mirrors).
type Drawn = Vec<(u8, Vec<(usize, Vec<usize>)>)>;

fn drawn() -> impl Strategy<Value = (Drawn, u16)> {
    let entry = (0..SOURCES.len(), prop::collection::vec(0..MIRRORS.len(), 0..4));
    let object = (0..3_u8, prop::collection::vec(entry, 0..4));
    (prop::collection::vec(object, 0..6), any::<u16>())
}

/// Objects as texts. Which sources must never be contacted is drawn for the source, since two policies are refused.
fn texts((objects, never): &(Drawn, u16)) -> Vec<String> {
    let kinds = [
        ("config.openshift.io/v1", "ImageDigestMirrorSet", "imageDigestMirrors"),
        ("config.openshift.io/v1", "ImageTagMirrorSet", "imageTagMirrors"),
        ("operator.openshift.io/v1alpha1", "ImageContentSourcePolicy", "repositoryDigestMirrors"),
    ];
    let icsp: Vec<usize> = objects.iter().filter(|o| o.0 == 2).flat_map(|o| o.1.iter().map(|e| e.0)).collect();
    let text = |(at, (kind, entries)): (usize, &(u8, Vec<(usize, Vec<usize>)>))| {
        let (version, name, list) = kinds[*kind as usize];
        let mut text = format!("apiVersion: {version}\nkind: {name}\nmetadata: {{name: n{at}}}\nspec:\n  {list}: [");
        for (source, mirrors) in entries {
            let never = never & (1 << source) != 0 && !icsp.contains(source);
            let mirrors: Vec<&str> =
                mirrors.iter().map(|m| MIRRORS[*m]).filter(|m| !never || *m != SOURCES[*source]).collect();
            let policy = if never { ", mirrorSourcePolicy: NeverContactSource" } else { "" };
            text.push_str(&format!(
                "{{source: \"{}\", mirrors: [{}]{policy}}},",
                SOURCES[*source],
                mirrors.iter().map(|m| format!("\"{m}\"")).collect::<Vec<_>>().join(",")
            ));
        }
        text + "]\n"
    };
    objects.iter().enumerate().map(text).collect()
}

fn load(texts: &[String]) -> Objects {
    let files: Vec<(String, String)> =
        texts.iter().enumerate().map(|(n, text)| (format!("{n}.yaml"), text.clone())).collect();
    Objects::load(&files).unwrap_or_else(|p| panic!("{p}"))
}

/// (physical name, blocked) in order, or nothing where a rewriting is no legal name.
type Tried = Option<Vec<(String, bool)>>;

/// What the objects say, without a file between.
fn direct(objects: &Objects, reference: &Reference) -> Tried {
    let by_kind = |pull| merged(objects, pull);
    let (digest, tag) = (by_kind(Pull::Digest), by_kind(Pull::Tag));
    let name = reference.name();
    let longest = |name: &str| {
        let all = digest.iter().chain(&tag).filter(|set| matches(name, &set.source));
        // Of equally long ones the smaller in bytes.
        all.map(|set| set.source.clone()).max_by(|a, b| a.len().cmp(&b.len()).then_with(|| b.cmp(a)))
    };
    let blocked = |name: &str| {
        longest(name).is_some_and(|source| digest.iter().chain(&tag).any(|set| set.source == source && set.never))
    };
    let Some(source) = longest(&name) else { return Some(vec![(reference.to_string(), false)]) };
    let pull = if reference.digest().is_some() { &digest } else { &tag };
    let mirrors = pull.iter().find(|set| set.source == source).map_or_else(Vec::new, |set| set.mirrors.clone());
    let length = source.strip_prefix('*').map_or(source.len(), |domain| name.find(domain).unwrap() + domain.len());
    let text = reference.to_string();
    let mut tried = Vec::new();
    for mirror in mirrors {
        let physical: Reference = format!("{mirror}{}", &text[length..]).parse().ok()?;
        if physical.to_string() != format!("{mirror}{}", &text[length..]) {
            return None;
        }
        tried.push((physical.to_string(), blocked(&physical.name())));
    }
    tried.push((text, blocked(&name)));
    Some(tried)
}

fn references() -> Vec<Reference> {
    let digest = format!("@sha256:{}", "5".repeat(64));
    let both = |name: &&str| [format!("{name}:1").parse().unwrap(), format!("{name}{digest}").parse().unwrap()];
    REFERENCES.iter().flat_map(both).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_loaded_file_says_what_the_objects_say(drawn in drawn()) {
        let objects = load(&texts(&drawn));
        let rendered = render(&objects, &Base::of_pools()).unwrap();
        let config = rendered.config().unwrap();
        for reference in references() {
            let through_file: Tried = config.endpoints(&reference).ok().map(|endpoints| {
                endpoints.iter().map(|e| (e.reference.to_string(), e.blocked)).collect()
            });
            prop_assert_eq!(through_file, direct(&objects, &reference), "{}", reference);
        }
    }

    #[test]
    fn the_order_of_objects_and_entries_means_nothing(drawn in drawn(), turn in any::<usize>()) {
        let text = |drawn: &(Drawn, u16)| render(&load(&texts(drawn)), &Base::of_pools()).unwrap().mco();
        let mut other = drawn.clone();
        let turns = turn % other.0.len().max(1);
        other.0.rotate_left(turns);
        for (_, entries) in &mut other.0 {
            entries.reverse();
        }
        prop_assert_eq!(text(&drawn), text(&other));
    }
}
