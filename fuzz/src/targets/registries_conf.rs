//! registries.conf: a main file, drop-ins and references, separated by lines of `%%`. The table that applies is compared with a
//! plain walk over all tables.

use airlock_oci::Reference;
use airlock_oci::registries_conf::{Config, MAIN_FILE, Mode, Table};

use super::magnitude;
use crate::{Features, Target};

pub(super) const TARGET: Target = Target {
    name: "registries_conf",
    run,
    words: &[
        b"\n%%\n",
        b"[[registry]]\n",
        b"[[registry.mirror]]\n",
        b"prefix = \"*.example.com\"\n",
        b"prefix = \"a.example.com\"\n",
        b"location = \"quay.io\"\n",
        b"location = \"m.lab:5000/a\"\n",
        b"location = \"[::1]:5000\"\n",
        b"insecure = true\n",
        b"blocked = true\n",
        b"mirror-by-digest-only = true\n",
        b"pull-from-mirror = \"tag-only\"\n",
        b"pull-from-mirror = \"digest-only\"\n",
        b"unqualified-search-registries = [\"docker.io\"]\n",
        b"short-name-mode = \"enforcing\"\n",
        b"credential-helpers = []\n",
        b"[aliases]\n",
        b"\"x\" = \"quay.io/x\"\n",
        b"[registries.search]\nregistries = [\"a.io\"]\n",
        b"[registries.block]\nregistries = [\"a.io\"]\n",
        b"quay.io/a/b:1\n",
        b"a.example.com/x@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n",
        b"a.example.com.example.com:5000/x\n",
        b"[::1]:5000/x\n",
        b"x\n",
        b":5000",
        b"/",
    ],
};

/// The rule as it is written down (mirror-rules 2.6), without any index.
fn table_by_walk<'c>(config: &'c Config, name: &str) -> Option<&'c Table> {
    let bracket = if name.starts_with('[') { name.find(']').unwrap_or(0) } else { 0 };
    let bounded = |end: usize| end > bracket && (end == name.len() || name[end..].starts_with(['/', ':', '@']));
    let matches = |prefix: &str| match prefix.strip_prefix('*') {
        Some(domain) if domain.starts_with('.') => name
            .find(domain)
            .is_some_and(|at| !name.starts_with('[') && !name[..at].contains('/') && bounded(at + domain.len())),
        _ => !prefix.is_empty() && name.starts_with(prefix) && bounded(prefix.len()),
    };
    let mut best: Option<&Table> = None;
    for table in config.registries() {
        if matches(&table.prefix) && best.is_none_or(|best| table.prefix.len() > best.prefix.len()) {
            best = Some(table);
        }
    }
    best
}

fn run(input: &[u8], features: &mut Features) {
    let text = String::from_utf8_lossy(input);
    let mut parts: Vec<&str> = text.split("\n%%\n").collect();
    let references = if parts.len() > 1 { parts.pop().unwrap_or_default() } else { "" };
    let main = parts.first().copied();
    let dropins: Vec<(String, String)> =
        parts.iter().skip(1).enumerate().map(|(n, text)| (format!("{n:03}.conf"), (*text).to_owned())).collect();
    let config = match Config::parse(main, &dropins) {
        Ok(config) => config,
        Err(error) => {
            assert!(error.code.starts_with("E_") && !error.to_string().is_empty());
            features.note((error.code, error.file == MAIN_FILE, error.line == 0));
            return;
        }
    };
    assert!(config.registries().windows(2).all(|pair| pair[0].prefix < pair[1].prefix), "sorted, each prefix once");
    for line in references.lines().chain(["quay.io/a/b", "x", "a.example.com/x:1"]).take(16) {
        match config.resolve(line, Mode::Crio) {
            Err(error) => features.note(error.code),
            Ok(candidates) => {
                for candidate in &candidates {
                    check(&config, &candidate.reference, features);
                }
                features.note(("candidates", magnitude(candidates.len())));
            }
        }
    }
    features.note(("tables", magnitude(config.registries().len())));
    features.note(("aliases", magnitude(config.aliases().count()), config.short_name_mode().as_str()));
}

fn check(config: &Config, reference: &Reference, features: &mut Features) {
    let name = reference.name();
    let expected = table_by_walk(config, &name).map(|table| &table.prefix);
    assert_eq!(config.table(&name).map(|table| &table.prefix), expected, "the table for {name}");
    let table = config.table(&name);
    let wildcard = table.is_some_and(|table| table.prefix.starts_with("*."));
    // How many tables come into question decides whether the choice among them is put to the test.
    let rivals = config.registries().iter().filter(|t| name.contains(t.prefix.trim_start_matches('*'))).count();
    features.note((wildcard, magnitude(rivals)));
    let endpoints = match config.endpoints(reference) {
        Ok(endpoints) => endpoints,
        Err(error) => return features.note((error.code, wildcard)),
    };
    assert_eq!(endpoints.iter().filter(|endpoint| endpoint.is_source).count(), 1);
    assert!(endpoints.last().is_some_and(|last| last.is_source), "the source is the last");
    for endpoint in &endpoints {
        assert_eq!(endpoint.blocked, endpoint.blocked_by.is_some());
        assert_eq!(endpoint.matched_prefix.as_ref(), expected);
        assert_eq!(endpoint.reference.to_string().parse().as_ref(), Ok(&endpoint.reference));
        assert_eq!(endpoint.reference.digest(), reference.digest(), "no mirror changes what is asked for");
    }
    let blocked = endpoints.iter().filter(|endpoint| endpoint.blocked).count();
    let by_digest_only = table.is_some_and(|table| table.mirror_by_digest_only);
    features.note((magnitude(endpoints.len()), magnitude(blocked), reference.digest().is_some(), by_digest_only));
}
