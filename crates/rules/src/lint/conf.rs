//! A node's own registries.conf: MR050 to MR053.

use std::collections::HashMap;

use airlock_document::nearest;
use airlock_oci::registries_conf::Config;
use toml::de::{DeTable, DeValue};

use super::{Files, Lint};

const TOP: [&str; 7] = [
    "unqualified-search-registries",
    "credential-helpers",
    "short-name-mode",
    "additional-layer-store-auth-helper",
    "aliases",
    "registry",
    "registries",
];
const TABLE: [&str; 6] = ["prefix", "location", "insecure", "blocked", "mirror-by-digest-only", "mirror"];
const MIRROR: [&str; 3] = ["location", "insecure", "pull-from-mirror"];
/// Typical slips that are too far from what was meant to be guessed by their letters.
const SLIPS: [(&str, &str); 4] = [
    ("block", "blocked"),
    ("mirrors", "mirror"),
    ("mirror_by_digest_only", "mirror-by-digest-only"),
    ("prefx", "prefix"),
];

pub(super) fn check(lint: &mut Lint<'_>) {
    let Some(files) = &lint.input.registries_conf else { return };
    load(lint, files);
    let mut main = HashMap::new();
    for (at, (name, text)) in std::iter::once(&files.main).chain(&files.dropins).enumerate() {
        let Ok(root) = DeTable::parse(text) else { continue };
        unknown_keys(lint, name, text, root.get_ref());
        for (prefix, line) in tables(lint, name, text, root.get_ref()) {
            if at == 0 {
                main.insert(prefix, line);
            } else if let Some(first) = main.get(&prefix) {
                let message = format!("`{prefix}` replaces the whole table of {}:{first}", files.main.0);
                lint.at_file("MR053", name, line, message).about(&prefix);
            }
        }
    }
}

/// MR050.
fn load(lint: &mut Lint<'_>, files: &Files) {
    if let Err(error) = Config::parse(Some(&files.main.1), &files.dropins) {
        let file =
            if error.file == airlock_oci::registries_conf::MAIN_FILE { files.main.0.clone() } else { error.file };
        let message = format!("{} ({})", error.cause, error.code);
        lint.at_file("MR050", &file, error.line, message).column = error.column;
    }
}

fn line_of(text: &str, at: usize) -> u32 {
    text.get(..at).unwrap_or(text).bytes().filter(|b| *b == b'\n').count() as u32 + 1
}

/// MR051.
fn unknown_keys(lint: &mut Lint<'_>, name: &str, text: &str, root: &DeTable<'_>) {
    keys(lint, name, text, root, &TOP);
    for table in array(root, "registry") {
        keys(lint, name, text, table, &TABLE);
        for mirror in array(table, "mirror") {
            keys(lint, name, text, mirror, &MIRROR);
        }
    }
}

fn array<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Vec<&'t DeTable<'i>> {
    let items = match table.get(key).map(toml::Spanned::get_ref) {
        Some(DeValue::Array(items)) => items.iter().collect(),
        _ => Vec::new(),
    };
    let table = |item: &'t toml::Spanned<DeValue<'i>>| match item.get_ref() {
        DeValue::Table(table) => Some(table),
        _ => None,
    };
    items.into_iter().filter_map(table).collect()
}

fn keys(lint: &mut Lint<'_>, name: &str, text: &str, table: &DeTable<'_>, known: &[&str]) {
    for (key, _) in table {
        let word: &str = key.get_ref();
        if known.iter().any(|k| k.eq_ignore_ascii_case(word)) {
            continue;
        }
        // It has its own error, and it does something: it stops the load.
        if word == "pull-from-mirror" {
            continue;
        }
        let slip = SLIPS.iter().find(|(slip, meant)| *slip == word && known.contains(meant)).map(|(_, meant)| *meant);
        let line = line_of(text, key.span().start);
        let finding = lint.at_file("MR051", name, line, format!("unknown key `{word}`: it is ignored"));
        if let Some(meant) = slip.or_else(|| nearest(word, known.iter().copied())) {
            finding.help(format!("write `{meant}`"));
        }
    }
}

/// The prefixes of a file with their lines; MR052 for those that come twice.
fn tables(lint: &mut Lint<'_>, name: &str, text: &str, root: &DeTable<'_>) -> HashMap<String, u32> {
    let mut found: HashMap<String, u32> = HashMap::new();
    for table in array(root, "registry") {
        let word = |key: &str| match table.get(key).map(|value| (value.get_ref(), value.span())) {
            Some((DeValue::String(word), span)) if !word.is_empty() => {
                Some((word.trim_end_matches('/').to_owned(), span))
            }
            _ => None,
        };
        let Some((prefix, span)) = word("prefix").or_else(|| word("location")) else { continue };
        let line = line_of(text, span.start);
        if let Some(first) = found.get(&prefix) {
            let message = format!("a second table for `{prefix}`: the one in line {first} stays, this one is ignored");
            lint.at_file("MR052", name, line, message).about(&prefix);
        } else {
            found.insert(prefix, line);
        }
    }
    found
}
