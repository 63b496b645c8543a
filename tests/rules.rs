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
    write(here.path(), "both.json", &json!({ "apiVersion": "v1", "kind": "List", "items": [] }).to_string());
    let of_directory = airlock(here.path(), &["rules", "render", "rules", "both.json"]);
    assert!(of_directory.status.success(), "{}", err(&of_directory));
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
