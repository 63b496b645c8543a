//! Rendering against what the Machine Config Operator wrote, byte by byte; and what must not matter, does not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod shared;

use airlock_rules::Objects;
use airlock_rules::render::{Base, Effective, Payload, search_dropin};
use airlock_rules::scope::{is_listed_registry, is_mirror, is_source};
use serde_json::{Value, json};

fn strings(value: &Value) -> Vec<String> {
    value.as_array().map(|a| a.iter().map(|v| v.as_str().unwrap().to_owned()).collect()).unwrap_or_default()
}

fn image_text(spec: &Value) -> String {
    json!({ "apiVersion": "config.openshift.io/v1", "kind": "Image", "metadata": { "name": "cluster" }, "spec": spec })
        .to_string()
}

/// What the vector's input renders to, in the vector's own words.
fn rendered(input: &Value, reverse: bool) -> Value {
    let mut files: Vec<(String, String)> =
        strings(&input["objects_yaml"]).into_iter().enumerate().map(|(n, text)| (format!("{n}.yaml"), text)).collect();
    if reverse {
        files.reverse();
    }
    let lists = json!({ "registrySources": {
        "insecureRegistries": input["insecure_registries"], "blockedRegistries": input["blocked_registries"] } });
    let from_config = input.get("image_config_spec").is_some();
    files.push(("image.json".to_owned(), image_text(if from_config { &input["image_config_spec"] } else { &lists })));
    let objects = Objects::load(&files).unwrap_or_else(|p| panic!("{p}"));
    let base = Base::parse("base", input["base_registries_conf"].as_str().unwrap()).unwrap();
    let payload = input["release_image"].as_str().map(|text| Payload::parse(text).unwrap());
    let done =
        Effective::of(&objects, &base, payload.as_ref()).and_then(|lists| Ok((lists.render(&objects, &base)?, lists)));
    let (rendered, lists) = match done {
        Err(problem) => return json!({ "error_class": problem.code }),
        Ok(done) => done,
    };
    let mut shown = json!({ "registries_conf_toml": rendered.mco() });
    match rendered.config() {
        Ok(_) => shown["loadable"] = json!(true),
        Err(error) => {
            shown["loadable"] = json!(false);
            shown["load_error_class"] = json!(error.code);
        }
    }
    if from_config {
        shown["registries_blocked"] = json!(lists.blocked);
        shown["policy_blocked"] = json!(lists.policy_blocked);
        shown["policy_allowed"] = json!(lists.policy_allowed);
        shown["warning"] = json!(lists.warning());
        if let Some(policy) = lists.policy() {
            shown["policy_json"] = policy;
        }
        if let Some(text) = objects.image.as_ref().and_then(search_dropin) {
            shown["search_dropin_toml"] = json!(text);
        }
    }
    shown
}

#[test]
fn every_vector_renders_to_the_same_bytes() {
    let vectors = shared::vectors("rules/render");
    assert!(vectors.is_empty() || vectors.len() >= 48 - 1, "{}", vectors.len());
    for (id, vector) in vectors {
        let mut expected = vector["expected"].clone();
        expected.as_object_mut().unwrap().remove("registries_conf");
        assert_eq!(rendered(&vector["input"], false), expected, "{id}");
        assert_eq!(rendered(&vector["input"], true), expected, "{id}, objects reversed");
    }
}

#[test]
fn both_styles_mean_the_same() {
    for (id, vector) in shared::vectors("rules/render") {
        let Some(mco) = vector["expected"]["registries_conf_toml"].as_str() else { continue };
        let rendered = Base::parse(&id, mco).unwrap();
        let objects = Objects::default();
        let plain = airlock_rules::render::render(&objects, &rendered).unwrap();
        assert_eq!(plain.mco(), mco, "{id}: decoding and encoding changes nothing");
        let again = Base::parse(&id, &plain.plain()).unwrap();
        assert_eq!(airlock_rules::render::render(&objects, &again).unwrap().mco(), mco, "{id}");
    }
}

#[test]
fn every_scope_is_judged_as_upstream() {
    let mut cases = 0;
    for (_, file) in shared::vectors("rules/scopes") {
        for case in file["cases"].as_array().unwrap() {
            cases += 1;
            let text = case["value"].as_str().unwrap();
            assert_eq!(is_source(text), case["valid_source"], "source {text}");
            assert_eq!(is_mirror(text), case["valid_mirror"], "mirror {text}");
            assert_eq!(is_listed_registry(text), case["valid_mco_scope"], "scope {text}");
        }
    }
    assert!(cases == 0 || cases >= 34, "{cases}");
}

#[test]
fn a_refusal_says_file_line_and_what_helps() {
    let text = "apiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata:\n  name: t\nspec:\n  imageTagMirrors:\n  - source: quay.io/acme/\n    mirrors: [m.lab/acme]\n";
    let problem = airlock_rules::render::render(&shared::objects(&[text]), &Base::of_pools()).unwrap_err();
    assert_eq!((problem.code, problem.line, &*problem.file), ("E_SOURCE_FORMAT", 7, "0.yaml"));
    assert_eq!(problem.hint.as_deref(), Some("write `quay.io/acme`"));
}

#[test]
fn lists_that_exclude_each_other_are_refused() {
    let image =
        image_text(&json!({ "registrySources": { "allowedRegistries": ["a.io"], "blockedRegistries": ["b.io"] } }));
    let problem = airlock_rules::render::render(&shared::objects(&[&image]), &Base::of_pools()).unwrap_err();
    assert_eq!(problem.code, "E_ALLOWED_AND_BLOCKED");
    assert_eq!(Payload::parse("ocp-release:4.18").unwrap_err().code, "E_RELEASE_IMAGE");
}

#[test]
fn mirrors_remember_their_entries() {
    let one = "apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata:\n  name: one\nspec:\n  imageDigestMirrors:\n  - source: quay.io/a\n    mirrors: [m.lab/a, n.lab/a]\n";
    let two = one.replace("name: one", "name: two").replace("m.lab/a, ", "");
    let image = image_text(&json!({ "registrySources": { "blockedRegistries": ["quay.io/a/b"] } }));
    let objects = shared::objects(&[one, &two, &image]);
    let rendered = airlock_rules::render::render(&objects, &Base::of_pools()).unwrap();
    let from = |location: &str| {
        let mirror = rendered.tables.iter().flat_map(|t| &t.mirrors).find(|m| m.location == location).unwrap();
        mirror.origins.iter().map(|o| objects.place(*o).object).collect::<Vec<_>>()
    };
    assert_eq!(from("m.lab/a"), ["ImageDigestMirrorSet/one"]);
    assert_eq!(from("n.lab/a"), ["ImageDigestMirrorSet/one", "ImageDigestMirrorSet/two"]);
    assert_eq!(from("n.lab/a/b"), ["ImageDigestMirrorSet/one", "ImageDigestMirrorSet/two"], "handed down");
}
