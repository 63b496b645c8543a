//! Every check: an input that triggers it, one that does not; the page of the docs.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on says so by failing")]

mod alone;
mod beside;
mod findings;
#[path = "../shared/mod.rs"]
mod shared;

use std::path::Path;

use airlock_rules::convert::images::list;
use airlock_rules::lint::{
    CATALOGUE, Files, Finding, Input, Observed, catalogue, fixed, lint, report, without_allowed,
};
use airlock_rules::render::Payload;
use airlock_rules::{Objects, Others, Severity};

/// `source=mirror,mirror!` entries, `!` for NeverContactSource, apart by blanks.
fn set(kind: &str, name: &str, entries: &str) -> String {
    let (version, kind, list) = match kind {
        "idms" => ("config.openshift.io/v1", "ImageDigestMirrorSet", "imageDigestMirrors"),
        "itms" => ("config.openshift.io/v1", "ImageTagMirrorSet", "imageTagMirrors"),
        _ => ("operator.openshift.io/v1alpha1", "ImageContentSourcePolicy", "repositoryDigestMirrors"),
    };
    let mut text = format!("apiVersion: {version}\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n  {list}:\n");
    for entry in entries.split_whitespace() {
        let (source, mirrors) = entry.split_once('=').unwrap();
        let (mirrors, never) = mirrors.strip_suffix('!').map_or((mirrors, false), |m| (m, true));
        text.push_str(&format!("  - source: \"{source}\"\n    mirrors:\n"));
        for mirror in mirrors.split(',').filter(|m| !m.is_empty()) {
            text.push_str(&format!("    - \"{mirror}\"\n"));
        }
        if never {
            text.push_str("    mirrorSourcePolicy: NeverContactSource\n");
        }
    }
    text.replace("    mirrors:\n  -", "    mirrors: []\n  -")
        .replace("    mirrors:\n    mirrorS", "    mirrors: []\n    mirrorS")
}

fn idms(entries: &str) -> String {
    set("idms", "d", entries)
}

fn itms(entries: &str) -> String {
    set("itms", "t", entries)
}

fn image(sources: &str) -> String {
    format!(
        "apiVersion: config.openshift.io/v1\nkind: Image\nmetadata: {{name: cluster}}\nspec:\n  registrySources: {{{sources}}}\n"
    )
}

/// Everything a case may give.
#[derive(Default)]
struct Given<'a> {
    rules: &'a [String],
    images: Option<&'a str>,
    conf: Option<&'a [&'a str]>,
    pull_secret: Option<&'a [&'a str]>,
    trusted_ca: Option<&'a [&'a str]>,
    current: Option<String>,
    values: Option<&'a str>,
    observed: Vec<Observed>,
    nested_paths: &'a [(&'a str, usize)],
    connected: bool,
}

fn input(given: Given<'_>) -> Input {
    let files: Vec<(String, String)> =
        given.rules.iter().enumerate().map(|(n, text)| (format!("{n}.yaml"), text.clone())).collect();
    let (objects, problems) = Objects::read(&files, Others::Keep);
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    Input {
        objects,
        problems,
        images: given.images.map(|text| ("images.txt".to_owned(), list("images.txt", text).0)),
        registries_conf: given.conf.map(|texts| Files {
            main: ("registries.conf".to_owned(), texts[0].to_owned()),
            dropins: texts[1..].iter().enumerate().map(|(n, t)| (format!("d/{n}.conf"), (*t).to_owned())).collect(),
        }),
        pull_secret: given.pull_secret.map(owned),
        trusted_ca: given.trusted_ca.map(owned),
        current: given.current.map(|text| shared::objects(&[&text])),
        values: given.values.map(|text| ("values.yaml".to_owned(), text.to_owned())),
        observed: given.observed,
        nested_paths: given.nested_paths.iter().map(|(host, n)| ((*host).to_owned(), *n)).collect(),
        connected: given.connected,
        ..Input::default()
    }
}

fn rules(texts: &[String]) -> Input {
    input(Given { rules: texts, ..Given::default() })
}

fn with_images(texts: &[String], images: &str) -> Input {
    input(Given { rules: texts, images: Some(images), ..Given::default() })
}

fn conf(texts: &[&str]) -> Input {
    input(Given { conf: Some(texts), ..Given::default() })
}

fn severities(input: &Input, code: &str) -> Vec<Severity> {
    lint(input).into_iter().filter(|f| f.id == code).map(|f| f.severity).collect()
}

/// (code, severities of the input that triggers it, that input, inputs that do not).
type Case = (&'static str, Vec<Severity>, Input, Vec<Input>);

const E: Severity = Severity::Error;
const W: Severity = Severity::Warning;
const I: Severity = Severity::Information;
const DIGEST: &str = "@sha256:1111111111111111111111111111111111111111111111111111111111111111";

fn observed(has_digest: Option<bool>, tag: Option<(&str, bool)>, source: Option<&str>) -> Input {
    let tag = tag.map(|(digest, index)| (digest.to_owned(), index));
    let seen = Observed {
        written: "quay.io/a/x:1".to_owned(),
        mirror: "m.lab/a/x:1".to_owned(),
        has_digest,
        tag,
        source_tag: source.map(str::to_owned),
    };
    input(Given { observed: vec![seen], images: Some("quay.io/a/x:1"), ..Given::default() })
}

fn machine_config(path: &str) -> String {
    format!(
        "apiVersion: machineconfiguration.openshift.io/v1\nkind: MachineConfig\nmetadata: {{name: x}}\nspec:\n  config:\n    storage:\n      files:\n      - path: {path}\n"
    )
}

fn values(text: &str) -> Input {
    input(Given { values: Some(text), ..Given::default() })
}

fn cases() -> Vec<Case> {
    alone::cases().into_iter().chain(beside::cases()).collect()
}

#[test]
fn each_check_is_triggered_and_is_silent() {
    for (code, expected, bad, good) in cases() {
        assert_eq!(severities(&bad, code), expected, "{code} is triggered: {:#?}", lint(&bad));
        for (at, input) in good.iter().enumerate() {
            assert!(severities(input, code).is_empty(), "{code} is silent ({at}): {:#?}", lint(input));
        }
    }
    for check in &CATALOGUE {
        assert!(cases().iter().any(|(code, ..)| *code == check.code), "{} has no case", check.code);
    }
}

#[test]
fn the_catalogue_is_complete_and_in_order() {
    for (at, check) in CATALOGUE.iter().enumerate() {
        assert_eq!(check.code, format!("MR{:03}", at + 1));
        assert!(!check.why.is_empty() && !check.fix.is_empty());
    }
}

#[test]
fn the_page_is_the_catalogue() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lint.md");
    if std::env::var_os("AIRLOCK_WRITE_DOCS").is_some() {
        std::fs::write(&path, catalogue::page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), catalogue::page(), "AIRLOCK_WRITE_DOCS=1 writes it anew");
}
