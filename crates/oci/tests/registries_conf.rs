//! registries.conf: upstream's vectors field by field, what they do not cover, and the time for large sets.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod vectors;

use std::time::Duration;

use airlock_oci::Reference;
use airlock_oci::registries_conf::{Candidate, Config, Endpoint, LoadError, Mode};
use serde_json::{Value, json};

fn load(config: &Value) -> Result<Config, LoadError> {
    let text = |v: &Value| v.as_str().map(str::to_owned);
    let Some(main) = text(&config["main"]) else { return Err(LoadError::missing("registries.conf")) };
    let dropins: Vec<(String, String)> = config["dropins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (text(&d["name"]).unwrap(), text(&d["content"]).unwrap()))
        .collect();
    Config::parse(Some(&main), &dropins)
}

fn merged(config: &Config) -> Value {
    let registries: Vec<Value> = config
        .registries()
        .iter()
        .map(|t| {
            let mirrors: Vec<Value> = t
                .mirrors
                .iter()
                .map(|m| json!({ "location": m.location, "insecure": m.insecure, "pull_from_mirror": m.pull_from_mirror.as_str() }))
                .collect();
            json!({
                "prefix": t.prefix, "location": t.location, "insecure": t.insecure, "blocked": t.blocked,
                "mirror_by_digest_only": t.mirror_by_digest_only, "mirrors": mirrors,
            })
        })
        .collect();
    json!({
        "unqualified_search_registries": config.search_registries(),
        "short_name_mode": config.short_name_mode().as_str(),
        "credential_helpers": config.credential_helpers(),
        "registries": registries,
    })
}

fn endpoint(e: &Endpoint) -> Value {
    json!({
        "reference": e.reference.to_string(), "location": e.location, "insecure": e.insecure,
        "pull_from_mirror": e.pull_from_mirror.as_str(), "is_source": e.is_source, "blocked": e.blocked,
        "blocked_by": e.blocked_by,
    })
}

fn candidate(c: &Candidate) -> Value {
    let mut shown = json!({ "reference": c.reference.to_string(), "matched_prefix": c.matched_prefix });
    match &c.endpoints {
        Ok(endpoints) => {
            shown["endpoints"] = endpoints.iter().map(endpoint).collect();
            shown["usable_endpoints"] = json!(endpoints.iter().filter(|e| !e.blocked).count());
            assert_eq!(endpoints.iter().filter(|e| e.is_source).count(), 1);
        }
        Err(error) => shown["error_class"] = json!(error.code),
    }
    shown
}

fn resolved(config: &Config, text: &str) -> Value {
    match config.resolve(text, Mode::Crio) {
        Err(error) => json!({ "error_class": error.code }),
        Ok(candidates) => json!({
            "tag_and_digest_input": text.contains('@') && text.split('@').next().unwrap().rsplit('/').next().unwrap().contains(':'),
            "candidates": candidates.iter().map(candidate).collect::<Vec<_>>(),
        }),
    }
}

#[test]
fn every_vector_resolves_as_upstream() {
    let Some(folder) = vectors::folder("resolve") else { return };
    let (mut files, mut queries) = (0, 0);
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = vectors::json(&entry.unwrap().path());
        let id = file["id"].as_str().unwrap();
        files += 1;
        let config = load(&file["config"]);
        match &config {
            Err(error) => assert_eq!(json!({ "ok": false, "error_class": error.code }), file["load"], "{id}"),
            Ok(config) => assert_eq!(json!({ "ok": true, "merged": merged(config) }), file["load"], "{id}"),
        }
        for query in file["queries"].as_array().unwrap() {
            queries += 1;
            let text = query["reference"].as_str().unwrap();
            let shown = match &config {
                Err(error) => json!({ "error_class": error.code }),
                Ok(config) => resolved(config, text),
            };
            assert_eq!(shown, query["expected"], "{id}: {text}");
        }
    }
    assert!(files >= 64 && queries >= 150, "{files} files, {queries} queries");
}

fn config(text: &str) -> Config {
    Config::parse(Some(text), &[]).unwrap_or_else(|e| panic!("{e}"))
}

fn physical(config: &Config, text: &str) -> Vec<String> {
    let reference: Reference = text.parse().unwrap();
    config.endpoints(&reference).unwrap().iter().map(|e| e.reference.to_string()).collect()
}

#[test]
fn nothing_configured_means_the_reference_itself() {
    let endpoints = Config::default().endpoints(&"quay.io/a/b".parse().unwrap()).unwrap();
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].reference.to_string(), "quay.io/a/b:latest");
    assert!(endpoints[0].is_source && !endpoints[0].insecure && !endpoints[0].blocked);
}

#[test]
fn ipv6_hosts_are_sources_and_mirrors() {
    let config = config(
        "[[registry]]\nlocation = \"[fd00::1]:5000\"\n[[registry.mirror]]\nlocation = \"[::1]:5001/m\"\ninsecure = true\n\
         [[registry]]\nlocation = \"quay.io\"\n[[registry.mirror]]\nlocation = \"[::1]:5001\"\n[[registry]]\nprefix = \"[fd00\"\nlocation = \"wrong.lab\"\n",
    );
    assert_eq!(physical(&config, "[fd00::1]:5000/a/b:1"), ["[::1]:5001/m/a/b:1", "[fd00::1]:5000/a/b:1"]);
    assert_eq!(physical(&config, "quay.io/a/b:1"), ["[::1]:5001/a/b:1", "quay.io/a/b:1"]);
    assert_eq!(physical(&config, "[fd00::2]:5000/a:1"), ["[fd00::2]:5000/a:1"]);
    let candidates = config.resolve("[fd00::1]:5000/a/b:1", Mode::Crio).unwrap();
    assert_eq!(candidates[0].endpoints.as_ref().unwrap().len(), 2);
}

#[test]
fn podman_asks_its_short_name_mode() {
    let two = "unqualified-search-registries = [\"a.io\", \"b.io\"]\nshort-name-mode = \"enforcing\"\n";
    assert_eq!(config(two).resolve("x", Mode::Podman).unwrap_err().code, "E_SHORT_NAME_AMBIGUOUS");
    assert_eq!(config(two).resolve("x", Mode::Crio).unwrap().len(), 2);
    let one = "unqualified-search-registries = [\"a.io\"]\nshort-name-mode = \"enforcing\"\n";
    assert_eq!(config(one).resolve("x", Mode::Podman).unwrap().len(), 1);
}

#[test]
fn errors_say_file_line_and_column() {
    let broken = "[[registry]]\nlocation = \"quay.io\"\nblocked = \"yes\"\n";
    let error = Config::parse(Some(broken), &[]).unwrap_err();
    assert_eq!((error.file.as_str(), error.line, error.column), ("registries.conf", 3, 11));
    assert_eq!(error.to_string(), "registries.conf:3:11: `blocked` must be true or false, found string (E_TOML_TYPE)");
    let dropin = ("/etc/x/10-a.conf".to_owned(), "\n\n[[registry]]\nprefix = \"a.io\"\n".to_owned());
    let error = Config::parse(None, &[dropin]).unwrap_err();
    assert_eq!(
        (error.code, error.file.as_str(), error.line, error.column),
        ("E_PREFIX_WITHOUT_LOCATION", "/etc/x/10-a.conf", 4, 10)
    );
    let duplicate = "[[registry]]\nlocation = \"a\"\nlocation = \"b\"\n";
    assert_eq!(Config::parse(Some(duplicate), &[]).unwrap_err().code, "E_TOML_SYNTAX");
}

#[test]
fn every_load_error_has_its_class() {
    for (class, text) in [
        ("E_NO_LOCATION_NO_PREFIX", "[[registry]]\nblocked = true\n"),
        (
            "E_PULL_FROM_MIRROR_CONFLICT",
            "[[registry]]\nlocation=\"a.io\"\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation=\"m\"\npull-from-mirror=\"all\"\n",
        ),
        (
            "E_CONFLICT_INSECURE",
            "[[registry]]\nlocation=\"a.io\"\ninsecure=true\n[[registry]]\nprefix=\"b.io\"\nlocation=\"a.io\"\nblocked=true\n",
        ),
        ("E_CONFLICT_BLOCKED", "[[registry]]\nprefix=\"*.a.io\"\nblocked=true\n[[registry]]\nprefix=\"*.a.io\"\n"),
        ("E_SHORT_NAME_MODE", "short-name-mode = \"Enforcing\"\n"),
        ("E_WILDCARD_FORMAT", "[[registry]]\nprefix=\"*.a.io/x\"\n"),
        ("E_TOML_TYPE", "unqualified-search-registries = \"docker.io\"\n"),
        ("E_TOML_TYPE", "[registry]\nlocation = \"a.io\"\n"),
        ("E_TOML_TYPE", "aliases = 1\n"),
        ("E_SEARCH_ENTRY", "[registries.search]\nregistries = [\"a.io/b\"]\n"),
        ("E_V1_V2_MIXED", "[registries.insecure]\nregistries = []\n[aliases]\n"),
        ("E_ALIAS", "[aliases]\n\"a:1\" = \"quay.io/a\"\nb = \"b/c\"\n"),
    ] {
        // An empty list of version 1 has no place of its own, but it is there.
        assert_eq!(Config::parse(Some(text), &[]).map(|_| ()).unwrap_err().code, class, "{text}");
    }
    let both = Config::parse(Some("[aliases]\n\"a:1\" = \"quay.io/a\"\nb = \"b/c\"\n"), &[]).unwrap_err();
    assert!(both.cause.contains("`a:1`") && both.cause.contains("`b`"), "{}", both.cause);
}

#[test]
fn later_directories_win_and_names_count_within_one() {
    let file = |path: &str, host: &str| (path.to_owned(), format!("unqualified-search-registries = [\"{host}\"]\n"));
    let dropins = [file("/home/10.conf", "home"), file("/home/.hidden", "hidden")];
    let system = [file("/etc/99.conf", "late"), file("/etc/10.conf", "early"), file("/etc/zz.txt", "text")];
    let all: Vec<_> = system.iter().chain(&dropins).cloned().collect();
    assert_eq!(Config::parse(None, &all).unwrap().search_registries(), ["home"]);
    assert_eq!(Config::parse(None, &system).unwrap().search_registries(), ["late"]);
}

#[test]
fn an_empty_alias_erases_an_earlier_one() {
    let main = "unqualified-search-registries = [\"a.io\"]\n[aliases]\nx = \"quay.io/o/x\"\n";
    let erased = [("1.conf".to_owned(), "[aliases]\nx = \"\"\n".to_owned())];
    let first = |c: &Config| c.resolve("x:1", Mode::Crio).unwrap()[0].reference.to_string();
    assert_eq!(first(&config(main)), "quay.io/o/x:1");
    assert_eq!(first(&Config::parse(Some(main), &erased).unwrap()), "a.io/x:1");
}

#[test]
fn ten_thousand_images_by_two_thousand_tables_take_no_time() {
    let mut text = String::new();
    for n in 0..2_000 {
        text.push_str(&format!("[[registry]]\nlocation = \"r{}.example.com/ns{n}\"\n[[registry.mirror]]\nlocation = \"mirror.lab/ns{n}\"\n", n % 50));
    }
    let config = config(&text);
    let images: Vec<Reference> = (0..10_000)
        .map(|n| format!("r{}.example.com/ns{}/team/app{n}:v1", n % 50, n % 2_000).parse().unwrap())
        .collect();
    let start = cpu_time();
    let total: usize = images.iter().map(|image| config.endpoints(image).unwrap().len()).sum();
    assert_eq!(total, 20_000);
    // Walking the tables would take longer than this, which is a hundred times what it takes.
    let took = cpu_time().saturating_sub(start);
    assert!(took < Duration::from_secs(15), "{took:?}");
}

/// The processor time that this thread has used: what others do on the machine does not count.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
