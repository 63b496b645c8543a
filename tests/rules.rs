//! `airlock rules` from outside: every vector fed through the commands, and what bad input gets.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on says so by failing")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const IDMS: &str = "apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata:\n  name: acme\nspec:\n  imageDigestMirrors:\n  - source: quay.io/acme\n    mirrors:\n    - m.lab/acme\n";
const ITMS: &str = "apiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata:\n  name: acme\nspec:\n  imageTagMirrors:\n  - source: quay.io/acme\n    mirrors:\n    - m.lab/acme\n";

fn airlock(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_airlock"))
        .args(args)
        .current_dir(folder)
        .env("HOME", folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}\n{}", out(output), err(output)))
}

fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// The vectors of a folder, or none with a printed line.
fn vectors(name: &str) -> Vec<Value> {
    let shared = std::env::var_os("AIRLOCK_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let Ok(entries) = std::fs::read_dir(shared.join("vectors/rules").join(name)) else {
        assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "vectors/rules/{name} is missing");
        println!("skipped: vectors/rules/{name} is missing");
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()).collect()
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(|a| a.iter().map(|v| v.as_str().unwrap()).collect()).unwrap_or_default()
}

/// The fields of `wanted`, as `found` has them: more may be there.
fn only(found: &Value, wanted: &Value) -> Value {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            let pick = |key: &String| Some((key.clone(), only(found.get(key)?, &wanted[key])));
            Value::Object(wanted.keys().filter_map(pick).collect())
        }
        (Value::Array(found), Value::Array(wanted)) if found.len() == wanted.len() => {
            Value::Array(found.iter().zip(wanted).map(|(f, w)| only(f, w)).collect())
        }
        _ => found.clone(),
    }
}

#[test]
fn every_render_vector_through_the_command() {
    for vector in vectors("render") {
        let (id, input) = (vector["id"].as_str().unwrap(), &vector["input"]);
        let here = folder();
        for (n, text) in strings(&input["objects_yaml"]).into_iter().enumerate() {
            write(here.path(), &format!("objects/{n:02}.yaml"), text);
        }
        write(here.path(), "base.conf", input["base_registries_conf"].as_str().unwrap());
        let mut args = vec!["rules", "render", "--base", "base.conf", "-o", "json"];
        if here.path().join("objects").exists() {
            args.push("objects");
        }
        let lists = json!({ "registrySources": {
            "insecureRegistries": input["insecure_registries"], "blockedRegistries": input["blocked_registries"] } });
        let spec = input.get("image_config_spec").unwrap_or(&lists);
        let image = json!({ "apiVersion": "config.openshift.io/v1", "kind": "Image",
            "metadata": { "name": "cluster" }, "spec": spec });
        write(here.path(), "image.json", &image.to_string());
        args.extend(["--image-config", "image.json"]);
        if let Some(release) = input["release_image"].as_str() {
            args.extend(["--release-image", release]);
        }
        let output = airlock(here.path(), &args);
        let (found, wanted) = (json_of(&output), &vector["expected"]);
        assert_eq!(&only(&found, wanted), wanted, "{id}");
        let code = match (&wanted["error_class"], &wanted["loadable"]) {
            (Value::String(_), _) => 2,
            (_, Value::Bool(false)) => 4,
            _ => 0,
        };
        assert_eq!(output.status.code(), Some(code), "{id}: {}", err(&output));
        if let Some(text) = wanted["registries_conf_toml"].as_str() {
            args.retain(|a| !matches!(*a, "-o" | "json"));
            assert_eq!(out(&airlock(here.path(), &args)), text, "{id}");
        }
    }
}

#[test]
fn every_resolve_vector_through_the_command() {
    for vector in vectors("resolve") {
        let id = vector["id"].as_str().unwrap();
        let here = folder();
        if let Some(main) = vector["config"]["main"].as_str() {
            write(here.path(), "registries.conf", main);
        }
        for dropin in vector["config"]["dropins"].as_array().unwrap() {
            let name = format!("registries.conf.d/{}", dropin["name"].as_str().unwrap());
            write(here.path(), &name, dropin["content"].as_str().unwrap());
        }
        let queries = vector["queries"].as_array().unwrap();
        if queries.is_empty() {
            continue;
        }
        let mut args = vec!["rules", "resolve", "--registries-conf", "registries.conf", "-o", "json"];
        args.extend(["--dropins", "registries.conf.d", "--"]);
        args.extend(queries.iter().map(|q| q["reference"].as_str().unwrap()));
        let found = json_of(&airlock(here.path(), &args));
        assert_eq!(found.as_array().unwrap().len(), queries.len(), "{id}");
        for (found, query) in found.as_array().unwrap().iter().zip(queries) {
            assert_eq!(found["reference"], query["reference"], "{id}");
            assert_eq!(&only(found, &query["expected"]), &query["expected"], "{id}: {}", query["reference"]);
            let extra = found.as_object().unwrap().contains_key("candidates");
            assert_eq!(extra, query["expected"].get("candidates").is_some(), "{id}");
        }
    }
}

#[test]
fn directories_lists_and_standard_input_are_read() {
    let here = folder();
    write(here.path(), "rules/a.yaml", &format!("# ours\n{IDMS}---\n---\n{ITMS}"));
    write(here.path(), "rules/sub/notes.txt", "not rules");
    write(here.path(), "rules/catalog.yaml", "apiVersion: v1\nkind: CatalogSource\nmetadata: {name: c}\n");
    write(here.path(), "both.json", &json!({ "apiVersion": "v1", "kind": "List", "items": [] }).to_string());
    let of_directory = airlock(here.path(), &["rules", "render", "rules", "both.json"]);
    assert!(of_directory.status.success(), "{}", err(&of_directory));
    assert!(
        err(&of_directory).contains("rules/catalog.yaml:2: CatalogSource `c` passed over"),
        "{}",
        err(&of_directory)
    );
    write(here.path(), "slip/a.yaml", &IDMS.replace("MirrorSet", "Mirrorset"));
    assert_eq!(
        airlock(here.path(), &["rules", "render", "slip"]).status.code(),
        Some(2),
        "a misspelt kind is no other kind"
    );
    let mut child = Command::new(env!("CARGO_BIN_EXE_airlock"))
        .args(["rules", "render", "-", "--style", "plain"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{IDMS}---\n{ITMS}").as_bytes()).unwrap();
    let of_stdin = child.wait_with_output().unwrap();
    assert_eq!(
        out(&of_stdin),
        "unqualified-search-registries = [\"registry.access.redhat.com\", \"docker.io\"]\n\n[[registry]]\nlocation = \"quay.io/acme\"\n\n\
         [[registry.mirror]]\nlocation = \"m.lab/acme\"\npull-from-mirror = \"digest-only\"\n\n[[registry.mirror]]\nlocation = \"m.lab/acme\"\n\
         pull-from-mirror = \"tag-only\"\n"
    );
    assert!(out(&of_directory).contains("  prefix = \"\"\n"));
}

#[test]
fn bad_input_has_file_line_and_reason_and_writes_nothing() {
    let here = folder();
    for (name, text, said) in [
        ("words.yaml", "{\n", "words.yaml"),
        ("kind.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n", "kind.yaml:2:7"),
        ("field.yaml", &IDMS.replace("mirrors:", "mirror:"), "field.yaml:8:5"),
        ("refused.yaml", &IDMS.replace("m.lab/acme", "m.lab/acme:1"), "refused.yaml:9:7"),
        ("dup.yaml", &IDMS.replace("  name: acme", "  name: acme\n  name: b"), "dup.yaml:5:3"),
    ] {
        write(here.path(), name, text);
        let output = airlock(here.path(), &["rules", "render", name, "--to", "node"]);
        assert_eq!((output.status.code(), out(&output)), (Some(2), String::new()), "{name}");
        assert!(err(&output).contains(said), "{name}: {}", err(&output));
        assert!(!here.path().join("node").exists(), "{name} wrote something");
    }
    let missing = airlock(here.path(), &["rules", "render", "missing.yaml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(err(&missing).contains("missing.yaml"));
}

#[test]
fn all_files_of_a_node_are_written() {
    let here = folder();
    write(here.path(), "idms.yaml", IDMS);
    let image = "apiVersion: config.openshift.io/v1\nkind: Image\nmetadata: {name: cluster}\nspec:\n  registrySources:\n    allowedRegistries: [quay.io]\n    containerRuntimeSearchRegistries: [quay.io]\n";
    write(here.path(), "image.yaml", image);
    let args = ["rules", "render", "idms.yaml", "--image-config", "image.yaml", "--to", "node"];
    let output = airlock(here.path(), &args);
    assert!(output.status.success(), "{}", err(&output));
    for file in ["registries.conf", "registries.conf.d/01-image-searchRegistries.conf", "policy.json"] {
        assert!(here.path().join("node/etc/containers").join(file).is_file(), "{file}");
    }
    let conf = "node/etc/containers/registries.conf";
    let args = [
        "rules",
        "resolve",
        "quay.io/acme/a:1",
        "short",
        "--registries-conf",
        conf,
        "--dropins",
        "node/etc/containers/registries.conf.d",
    ];
    let shown = out(&airlock(here.path(), &args));
    assert!(shown.contains("m.lab/acme not tried: it serves pulls by digest only"), "{shown}");
    assert!(shown.contains("quay.io/short:latest"), "{shown}");
}

#[test]
fn resolving_rules_names_objects_and_entries() {
    let here = folder();
    write(here.path(), "rules.yaml", &format!("{IDMS}    mirrorSourcePolicy: NeverContactSource\n"));
    let reference = format!("quay.io/acme/a@sha256:{}", "1".repeat(64));
    let output = airlock(here.path(), &["rules", "resolve", &reference, "--rules", "rules.yaml", "-o", "json"]);
    let endpoints = &json_of(&output)[0]["candidates"][0]["endpoints"];
    let from = json!({ "object": "ImageDigestMirrorSet/acme", "index": 0, "file": "rules.yaml", "line": 7, "source": "quay.io/acme" });
    assert_eq!(endpoints[0]["from"][0], from);
    assert_eq!((&endpoints[1]["blocked_by"], &endpoints[1]["from"][0]), (&json!("quay.io/acme"), &from));
    let refused = airlock(here.path(), &["rules", "resolve", "a", "Quay.io/B", "--rules", "rules.yaml", "-o", "json"]);
    assert_eq!(refused.status.code(), Some(2));
    assert_eq!(json_of(&refused)[1]["error_class"], "E_REF_UPPERCASE");
}

#[test]
fn every_drain_vector_through_the_command() {
    for vector in vectors("drain") {
        let id = vector["id"].as_str().unwrap();
        let here = folder();
        write(here.path(), "old.conf", vector["old_registries_conf"].as_str().unwrap());
        write(here.path(), "new.conf", vector["new_registries_conf"].as_str().unwrap());
        let output = airlock(here.path(), &["rules", "impact", "old.conf", "new.conf", "-o", "json"]);
        let found = json_of(&output);
        assert_eq!(&only(&found, &vector["expected"]), &vector["expected"], "{id}: {found}");
        assert_eq!(output.status.code(), Some(0), "{id}");
    }
}

#[test]
fn an_icsp_is_migrated_as_oc_does_it_or_in_place() {
    let here = folder();
    let icsp = "# first\napiVersion: operator.openshift.io/v1alpha1\nkind: ImageContentSourcePolicy\nmetadata:\n  name: ubi8repo\nspec:\n  repositoryDigestMirrors:\n  - mirrors:\n    - example.io/example/ubi-minimal # near\n    source: registry.access.redhat.com/ubi8/ubi-minimal\n";
    write(here.path(), "icsp.yaml", icsp);
    write(here.path(), "empty.yaml", "");
    let kept = airlock(here.path(), &["rules", "convert", "icsp.yaml"]);
    assert!(
        out(&kept).starts_with("# first\napiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\n"),
        "{}",
        out(&kept)
    );
    assert!(out(&kept).contains("# near"));
    let as_oc =
        airlock(here.path(), &["rules", "convert", "empty.yaml", "icsp.yaml", "--style", "oc", "--dest-dir", "out"]);
    assert_eq!(as_oc.status.code(), Some(1), "{}", err(&as_oc));
    assert!(err(&as_oc).contains("no data found"), "{}", err(&as_oc));
    let said = out(&as_oc);
    let path = said.trim().strip_prefix("wrote ImageDigestMirrorSet to ").unwrap();
    assert!(path.starts_with("out/imagedigestmirrorset_ubi8repo.") && path.ends_with(".yaml"), "{said}");
    assert_eq!(
        std::fs::read_to_string(here.path().join(path)).unwrap(),
        "apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata:\n    name: ubi8repo\nspec:\n    imageDigestMirrors:\n        - mirrors:\n            - example.io/example/ubi-minimal\n          source: registry.access.redhat.com/ubi8/ubi-minimal\n"
    );
    let render = |file: &str| out(&airlock(here.path(), &["rules", "render", file]));
    assert_eq!(render("icsp.yaml"), render(path), "the nodes do not notice");
    assert_eq!(airlock(here.path(), &["rules", "convert"]).status.code(), Some(2));
}

#[test]
fn rules_are_made_of_lists_mappings_and_files_of_nodes() {
    let here = folder();
    write(
        here.path(),
        "images.txt",
        &format!("# Storage\nquay.io/dell/csm:1\nquay.io/acme/a@sha256:{}\n", "1".repeat(64)),
    );
    write(here.path(), "mapping.txt", "quay.io/a/b:1=m.lab/x/a/b:1\n");
    let images =
        airlock(here.path(), &["rules", "convert", "--images", "images.txt", "--mirror", "m.lab/x", "--name", "ai"]);
    assert!(
        out(&images).contains("  name: ai-tag\n") && out(&images).contains("  # Storage\n  - source: quay.io/dell\n"),
        "{}",
        out(&images)
    );
    let never = airlock(here.path(), &["rules", "convert", "--mapping", "mapping.txt", "--policy", "never"]);
    assert!(out(&never).contains("    mirrorSourcePolicy: NeverContactSource\n"), "{}", out(&never));
    write(here.path(), "itms.yaml", ITMS);
    write(here.path(), "r.conf", &out(&airlock(here.path(), &["rules", "render", "itms.yaml"])));
    let back = airlock(here.path(), &["rules", "convert", "--registries-conf", "r.conf", "--name", "acme"]);
    assert_eq!(out(&back), "---\n".to_owned() + &ITMS.replace("name: acme", "name: acme-tag"));
    assert_eq!(airlock(here.path(), &["rules", "convert", "--images", "images.txt"]).status.code(), Some(2));
}

#[test]
fn a_policy_keeps_the_file_and_a_scope_shows_its_effect() {
    let here = folder();
    write(
        here.path(),
        "rules.yaml",
        &format!("# staging\n{ITMS}  - source: ghcr.io/a/b # by hand\n    mirrors: [m.lab/a/b]\n"),
    );
    let never = out(&airlock(here.path(), &["rules", "convert", "rules.yaml", "--policy", "never"]));
    assert_eq!(never.matches("NeverContactSource").count(), 2);
    assert!(never.starts_with("# staging\n") && never.contains("# by hand"), "{never}");
    write(here.path(), "images.txt", "ghcr.io/a/c:1\nghcr.io/a/b:1\n");
    let args = ["rules", "convert", "rules.yaml", "--scope", "namespace", "--images", "images.txt"];
    let wide = airlock(here.path(), &args);
    assert!(out(&wide).contains("- source: ghcr.io/a # by hand\n"), "{}", out(&wide));
    assert!(out(&wide).starts_with("# staging\n"), "{}", out(&wide));
    assert!(err(&wide).contains("effect: ghcr.io/a/c:1: ghcr.io/a/c:1 -> m.lab/a/c:1"), "{}", err(&wide));
    assert!(!err(&wide).contains("effect: ghcr.io/a/b"));
}

#[test]
fn an_impact_names_its_reasons_and_undo_the_way_back() {
    let here = folder();
    write(here.path(), "old/idms.yaml", IDMS);
    write(here.path(), "new/idms.yaml", &IDMS.replace("m.lab", "n.lab"));
    write(here.path(), "new/itms.yaml", ITMS);
    write(here.path(), "images.txt", "quay.io/acme/a:1\n");
    let args = ["rules", "impact", "old", "new", "--openshift-version", "4.18", "--images", "images.txt"];
    let said = out(&airlock(here.path(), &args));
    for line in [
        "every node of every pool is drained",
        "the mirror `n.lab/acme` (digest-only) is new",
        "the mirror `m.lab/acme` now serves tag-only",
        "applied together: one roll-out; one by one: 2",
        "quay.io/acme/a:1: quay.io/acme/a:1 -> m.lab/acme/a:1",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let old =
        json_of(&airlock(here.path(), &["rules", "impact", "old", "new", "--openshift-version", "4.12", "-o", "json"]));
    assert!(old["notes"][0].as_str().unwrap().contains("has no ImageDigestMirrorSet"), "{old}");
    let undo = airlock(here.path(), &["rules", "undo", "old", "new", "--to", "undo"]);
    assert!(undo.status.success(), "{}", err(&undo));
    let read = |name: &str| std::fs::read_to_string(here.path().join("undo").join(name)).unwrap();
    assert_eq!(read("restore.yaml"), "---\n".to_owned() + IDMS);
    assert!(read("delete.yaml").contains("kind: ImageTagMirrorSet"));
    let shown = out(&airlock(here.path(), &["rules", "undo", "old", "new"]));
    assert!(shown.contains("oc delete imagetagmirrorset acme"), "{shown}");
}

#[test]
fn lint_denies_allows_fixes_and_explains() {
    let here = folder();
    let bad = format!("# ours\n{}", IDMS.replace("m.lab/acme", "https://m.lab/acme/ # typo"));
    write(here.path(), "bad.yaml", &bad);
    let found = airlock(here.path(), &["rules", "lint", "bad.yaml", "-o", "json"]);
    assert_eq!(found.status.code(), Some(1));
    let first = json_of(&found).as_array().unwrap().iter().find(|f| f["id"] == "MR002").unwrap().clone();
    assert_eq!(
        (&first["line"], &first["fixable"], &first["path"]),
        (&json!(10), &json!(true), &json!("spec.imageDigestMirrors[0]"))
    );
    let run = |args: &[&str]| {
        let mut all = vec!["rules", "lint", "bad.yaml"];
        all.extend(args);
        airlock(here.path(), &all)
    };
    let fixed = run(&["--fix"]);
    assert_eq!(fixed.status.code(), Some(0), "{}", out(&fixed));
    assert_eq!(
        std::fs::read_to_string(here.path().join("bad.yaml")).unwrap(),
        bad.replace("https://m.lab/acme/", "m.lab/acme")
    );
    assert_eq!(run(&["--deny", "MR033"]).status.code(), Some(1));
    assert_eq!(run(&["--deny", "MR033", "--allow", "MR033"]).status.code(), Some(0));
    assert_eq!(run(&["--deny", "warning", "--profile", "connected"]).status.code(), Some(0));
    assert_eq!(run(&["--deny", "MR999"]).status.code(), Some(2));
    let sarif = json_of(&run(&["-o", "sarif"]));
    assert_eq!(sarif["version"], "2.1.0");
    let explained = out(&airlock(here.path(), &["rules", "lint", "--explain", "MR020"]));
    assert!(explained.contains("longest source alone counts"), "{explained}");
    write(here.path(), "pod.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n");
    assert_eq!(airlock(here.path(), &["rules", "lint", "pod.yaml"]).status.code(), Some(2));
}

#[test]
fn lint_reads_what_stands_around_the_rules_and_never_shows_secrets() {
    let here = folder();
    write(here.path(), "rules.yaml", &IDMS.replace("m.lab/acme", "m.lab:5000/acme"));
    let config = "{\"auths\":{\"https://m.lab/v1/\":{\"auth\":\"c2VjcmV0OnNlY3JldA==\"}}}";
    let encoded = base64(config.as_bytes());
    write(
        here.path(),
        "secret.yaml",
        &format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: pull-secret}}\ndata:\n  .dockerconfigjson: {encoded}\n"
        ),
    );
    write(
        here.path(),
        "image.yaml",
        "apiVersion: config.openshift.io/v1\nkind: Image\nmetadata: {name: cluster}\nspec: {additionalTrustedCA: {name: ca}}\n",
    );
    write(here.path(), "ca.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ca}\ndata: {m.lab: x}\n");
    write(here.path(), "node.conf", "[[registry]]\nlocation = \"quay.io\"\nblock = true\n");
    let args = [
        "rules",
        "lint",
        "rules.yaml",
        "ca.yaml",
        "--image-config",
        "image.yaml",
        "--pull-secret",
        "secret.yaml",
        "--registries-conf",
        "node.conf",
    ];
    let output = airlock(here.path(), &args);
    let said = out(&output);
    for part in ["[MR043]", "the pull secret has `m.lab`", "[MR044]", "[MR051] node.conf:3:1"] {
        assert!(said.contains(part), "{part}: {said}{}", err(&output));
    }
    write(here.path(), "secret.yaml", "{\"auths\": {\"m.lab\": {\"auth\": \"c2VjcmV0\"");
    let broken = airlock(here.path(), &args);
    assert_eq!(broken.status.code(), Some(2));
    assert!(!err(&broken).contains("c2VjcmV0"), "{}", err(&broken));
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0_u32, |sum, b| sum << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let letter = LETTERS[(group >> (18 - 6 * at) & 63) as usize];
            out.push(if at > chunk.len() { '=' } else { char::from(letter) });
        }
    }
    out
}
