use super::*;
use crate::objects::Objects;
use crate::render::Base;
use crate::resolve::Node;
use crate::usage::{Form, Images};
use airlock_oci::registries_conf::Config;

const D: &str = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn images(list: &str) -> Images {
    let mut images = Images::default();
    images.read("list", Form::List, list.as_bytes()).unwrap();
    images
}

fn rules_with(yaml: &str) -> Rules {
    let objects = Objects::load(&[("rules.yaml".to_owned(), yaml.to_owned())]).unwrap();
    Rules::of(Node::of_objects(objects, &Base::of_pools(), None).unwrap())
}

fn set(kind: &str, name: &str, entries: &[(&str, &str, bool)]) -> String {
    let list = if kind == "ImageDigestMirrorSet" { "imageDigestMirrors" } else { "imageTagMirrors" };
    let mut text =
        format!("apiVersion: config.openshift.io/v1\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n  {list}:\n");
    for (source, mirror, never) in entries {
        text.push_str(&format!("  - source: \"{source}\"\n    mirrors: [\"{mirror}\"]\n"));
        if *never {
            text.push_str("    mirrorSourcePolicy: NeverContactSource\n");
        }
    }
    text.push_str("---\n");
    text
}

fn idms(entries: &[(&str, &str, bool)]) -> String {
    set("ImageDigestMirrorSet", "d", entries)
}

fn itms(entries: &[(&str, &str, bool)]) -> String {
    set("ImageTagMirrorSet", "t", entries)
}

/// The class and codes of one image.
fn judged(rules: &Rules, image: &str) -> (Class, Vec<&'static str>) {
    let audit = Audit::of(&images(image), rules, &Options::default());
    let finding = &audit.findings()[0];
    (finding.class, finding.codes.clone())
}

#[test]
fn the_example_of_the_specification() {
    // mirror-rules 8.7
    let rules = rules_with(
        &[
            idms(&[("ghcr.io/grafana", "m.lab/grafana", false)]),
            itms(&[
                ("nvcr.io/nvidia", "m.lab/nvidia", false),
                ("registry-1.docker.io/mpioperator", "m.lab/mpi", false),
            ]),
        ]
        .concat(),
    );
    assert_eq!(judged(&rules, "nvcr.io/nvidia/gpu-operator:v24.9"), (Class::Mirrored, vec![]));
    let by_digest = format!("nvcr.io/nvidia/gpu-operator{D}");
    assert_eq!(judged(&rules, &by_digest), (Class::WrongKind, vec!["MR030"]));
    assert_eq!(judged(&rules, "mpioperator/mpi-operator:0.6"), (Class::Uncovered, vec!["MR031", "MR066"]));
    assert_eq!(judged(&rules, "ghcr.io/grafana/grafana:11"), (Class::WrongKind, vec!["MR029"]));
}

#[test]
fn each_class_has_an_image() {
    let rules = rules_with(
        &[
            idms(&[
                ("quay.io/acme", "m.lab:5000/acme", true),
                ("quay.io/deep", "m.lab:5000/deep", false),
                ("quay.io/up", "mirrorhost/Up".to_lowercase().as_str(), false),
            ]),
            itms(&[("quay.io/deep/er", "m.lab:5000/er", true)]),
        ]
        .concat(),
    );
    let class = |image: &str| judged(&rules, image).0;
    assert_eq!(class(&format!("quay.io/acme/app{D}")), Class::MirroredStrict);
    assert_eq!(class("quay.io/acme/app:1"), Class::WrongKind);
    assert_eq!(class(&format!("quay.io/deep/app{D}")), Class::Mirrored);
    assert_eq!(judged(&rules, &format!("quay.io/deep/er/app{D}")), (Class::WrongKind, vec!["MR030", "MR020"]));
    assert_eq!(class("quay.io/deep/er/app"), Class::MirroredStrict);
    assert_eq!(class("m.lab:5000/anything:1"), Class::DirectMirror);
    assert_eq!(class("image-registry.openshift-image-registry.svc:5000/ns/app:1"), Class::Internal);
    assert_eq!(class("docker.io/library/nginx:1"), Class::Uncovered);
    assert_eq!(class("quay.io/Upper/x:1"), Class::Invalid);
    // A mirror's host without a dot cannot be spoken of: every pull under the rule fails.
    assert_eq!(judged(&rules, &format!("quay.io/up/app{D}")), (Class::Invalid, vec!["MR041"]));
    let detail = |image: &str| Audit::of(&images(image), &rules, &Options::default()).findings()[0].detail.clone();
    assert!(detail("quay.io/acme/app:1").contains("its source is blocked"), "{}", detail("quay.io/acme/app:1"));
}

#[test]
fn blocked_shadowed_and_rejected() {
    let conf = "[[registry]]\nlocation = \"quay.io\"\n[[registry.mirror]]\nlocation = \"m.lab/quay\"\n\
                [[registry]]\nlocation = \"quay.io/inner\"\n[[registry]]\nlocation = \"ghcr.io\"\nblocked = true\n";
    let rules = Rules::of(Node::of_config(Config::parse(Some(conf), &[]).unwrap()));
    assert_eq!(judged(&rules, "quay.io/inner/app:1"), (Class::Shadowed, vec!["MR020"]));
    assert_eq!(judged(&rules, "quay.io/other/app:1").0, Class::Mirrored);
    assert_eq!(judged(&rules, "ghcr.io/a/b:1"), (Class::Blocked, vec![]));
    let config =
        "apiVersion: config.openshift.io/v1\nkind: Image\nmetadata: {name: cluster}\nspec:\n  registrySources:\n    ";
    let idms = idms(&[("quay.io/acme", "m.lab/acme", false)]);
    let rejecting = rules_with(&format!("{idms}{config}blockedRegistries: [quay.io]\n"));
    assert_eq!(judged(&rejecting, &format!("quay.io/acme/app{D}")), (Class::Rejected, vec!["MR049"]));
    let narrow = rules_with(&format!("{idms}{config}allowedRegistries: [m.lab]\n"));
    assert_eq!(judged(&narrow, &format!("quay.io/acme/app{D}")), (Class::Rejected, vec!["MR046"]));
    let right = rules_with(&format!("{idms}{config}allowedRegistries: [quay.io]\n"));
    assert_eq!(judged(&right, &format!("quay.io/acme/app{D}")).0, Class::Mirrored);
}

#[test]
fn endpoints_name_the_entries_they_come_from() {
    let rules = rules_with(&[idms(&[("quay.io/b", "m.lab/b", false), ("quay.io/a", "m.lab/a", false)])].concat());
    let audit = Audit::of(&images(&format!("quay.io/a/x{D}")), &rules, &Options::default());
    let finding = &audit.findings()[0];
    assert_eq!(finding.endpoints[0].reference, format!("m.lab/a/x{D}"));
    assert_eq!(
        (finding.endpoints[0].from[0].object.as_str(), finding.endpoints[0].from[0].index),
        ("ImageDigestMirrorSet/d", 1)
    );
    assert!(finding.endpoints[1].is_source && finding.endpoints[1].from.is_empty());
    assert_eq!(audit.unused(), ["ImageDigestMirrorSet/d[0] quay.io/b"]);
    assert!(!audit.has_gap());
}

#[test]
fn short_names_and_what_is_not_pinned_are_noted() {
    let rules = rules_with(&itms(&[("docker.io/library", "m.lab/library", false)]));
    let audit = Audit::of(&images("nginx"), &rules, &Options::default());
    let finding = &audit.findings()[0];
    // The first search registry is tried, and fails; the second is mirrored.
    assert_eq!((finding.class, finding.codes.as_slice()), (Class::Mirrored, &["MR066", "MR065"][..]));
    let tried: Vec<_> = finding.endpoints.iter().map(|e| e.reference.as_str()).collect();
    assert_eq!(
        tried,
        ["registry.access.redhat.com/nginx:latest", "m.lab/library/nginx:latest", "docker.io/library/nginx:latest"]
    );
}

#[test]
fn suggestions_follow_the_scheme_of_the_rules() {
    let kept = idms(&[("quay.io/a", "m.lab/mirror/quay.io/a", false), ("ghcr.io/b", "m.lab/mirror/ghcr.io/b", false)]);
    let list = format!(
        "quay.io/new/app:1\nquay.io/new/other:1\nquay.io/a/app:1\ndocker.io/library/nginx{D}\nquay.io/a/fine{D}"
    );
    let audit = Audit::of(&images(&list), &rules_with(&kept), &Options::default());
    let text = suggested_objects(audit.findings(), "airlock");
    let objects = Objects::load(&[("s".to_owned(), text.clone())]).unwrap();
    let pairs: Vec<_> = objects
        .entries()
        .map(|(_, set, entry)| format!("{} {} {}", set.title(), entry.source.value, entry.mirrors[0].value))
        .collect();
    let expected = [
        "ImageDigestMirrorSet/airlock-digest docker.io/library m.lab/mirror/docker.io/library",
        "ImageTagMirrorSet/airlock-tag quay.io/a m.lab/mirror/quay.io/a",
        "ImageTagMirrorSet/airlock-tag quay.io/new m.lab/mirror/quay.io/new",
    ];
    assert_eq!(pairs, expected, "{text}");
    // With the suggestions beside the rules nothing is left over.
    let all = rules_with(&format!("{kept}{text}"));
    assert!(!Audit::of(&images(&list), &all, &Options::default()).has_gap());
    let dropped = idms(&[("quay.io/a", "m.lab/x/a", false)]);
    let audit = Audit::of(&images("ghcr.io/b/c:1"), &rules_with(&dropped), &Options::default());
    assert_eq!(audit.findings()[0].suggestion.as_ref().unwrap().mirror, "m.lab/x/b");
    let none = Rules::of(Node::of_config(Config::default()));
    assert_eq!(Audit::of(&images("a.io/b:1"), &none, &Options::default()).findings()[0].suggestion, None);
}

#[test]
fn answers_of_mirrors_change_the_verdict() {
    let rules = rules_with(&itms(&[("quay.io/a", "m.lab/a", false)]));
    let images = images("quay.io/a/x:1\nquay.io/a/y:1");
    let mut audit = Audit::of(&images, &rules, &Options::default());
    assert!(!audit.has_gap());
    assert_eq!(audit.findings()[0].mirrors().map(|e| e.reference.as_str()).collect::<Vec<_>>(), ["m.lab/a/x:1"]);
    let check =
        |status| Check { status, endpoint: "m.lab/a/x:1".into(), digest: None, running: None, detail: String::new() };
    for (status, verdict, gap) in [
        (Status::Present, Verdict::Covered, false),
        (Status::Absent, Verdict::NotInMirror, true),
        (Status::TagDiffers, Verdict::DifferentDigest, true),
        (Status::Unreachable, Verdict::Unknown, false),
    ] {
        audit.set_check(0, check(status));
        assert_eq!((audit.findings()[0].verdict(), audit.has_gap()), (verdict, gap));
    }
    audit.set_check(0, check(Status::Absent));
    assert_eq!(audit.findings()[0].detail, "no mirror has it: the pull falls through to `quay.io/a/x:1`");
    audit.set_check(0, check(Status::Unreachable));
    let summary = audit.summary(&images);
    assert_eq!((summary.images, summary.gaps, summary.by_class["MIRRORED"]), (2, 0, 2));
}

#[test]
fn secrets_of_projects_are_noted_for_mirrored_images_only() {
    let pod = r#"{"kind":"Pod","metadata":{"name":"p","namespace":"n"},"spec":{"imagePullSecrets":[{"name":"mine"}],
        "containers":[{"name":"c","image":"quay.io/a/x:1"},{"name":"d","image":"ghcr.io/a/x:1"}]}}"#;
    let mut images = Images::default();
    images.read("dump", Form::Objects, pod.as_bytes()).unwrap();
    let rules = rules_with(&itms(&[("quay.io/a", "m.lab/a", false)]));
    let audit = Audit::of(&images, &rules, &Options::default());
    let codes: Vec<_> = audit.findings().iter().map(|f| (f.class, f.codes.contains(&PROJECT_SECRET))).collect();
    assert_eq!(codes, [(Class::Uncovered, false), (Class::Mirrored, true)]);
    let document = serde_json::to_value(audit.document(&images, None, false)).unwrap();
    assert_eq!(document["images"][1]["users"][0]["pull_secret"], "mine");
    assert_eq!(document["images"][0]["users"][0]["container"], "d");
    assert_eq!((&document["summary"]["uncovered"], &document["summary"]["gaps"]), (&1.into(), &1.into()));
}

proptest::proptest! {
    /// What the audit calls mirrored has a mirror as first usable endpoint, and the reverse.
    #[test]
    fn the_class_agrees_with_the_endpoints(
        rules in proptest::collection::vec(("(quay|ghcr)\\.io(/[ab]){0,2}", "[mn]\\.lab/[ab]", proptest::bool::ANY, proptest::bool::ANY), 1..6),
        image in "(quay|ghcr|m)\\.(io|lab)(/[ab]){1,3}",
        by_digest in proptest::bool::ANY,
    ) {
        let (mut digest, mut tag) = (Vec::new(), Vec::new());
        let never = rules[0].3;
        for (source, mirror, is_tag, _) in &rules {
            if *is_tag { &mut tag } else { &mut digest }.push((source.as_str(), mirror.as_str(), never));
        }
        let rules = rules_with(&[idms(&digest), itms(&tag)].concat());
        let image = if by_digest { format!("{image}{D}") } else { format!("{image}:1") };
        let audit = Audit::of(&images(&image), &rules, &Options::default());
        let finding = &audit.findings()[0];
        let mirror = finding.endpoints.iter().any(|e| !e.is_source && !e.blocked);
        let mirrored = matches!(finding.class, Class::Mirrored | Class::MirroredStrict);
        proptest::prop_assert_eq!(mirror, mirrored, "{:?}", finding);
        let usable = finding.endpoints.iter().any(|e| !e.blocked);
        proptest::prop_assert!(usable || finding.class.is_gap());
    }
}
