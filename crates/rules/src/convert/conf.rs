//! registries.conf to objects: what IDMS and ITMS can say, and what they cannot (mirror-rules 8.6).

use airlock_oci::registries_conf::{Config, LoadError, PullFromMirror, Table};

use super::Note;
use super::draft::{Draft, DraftEntry};
use crate::objects::Pull;
use crate::scope::{is_mirror, is_source};

/// IDMS and ITMS that say what a main file and its drop-ins say.
pub fn from_conf(
    name: &str,
    text: &str,
    dropins: &[(String, String)],
    prefix: &str,
) -> Result<(Vec<Draft>, Vec<Note>), LoadError> {
    let config = Config::parse(Some(text), dropins)?;
    let mut notes = Vec::new();
    let drafts = [Pull::Digest, Pull::Tag].map(|pull| {
        let entries = config.registries().iter().filter_map(|table| {
            let mirrors: Vec<String> =
                table.mirrors.iter().filter(|m| serves(table, m, pull)).map(|m| m.location.clone()).collect();
            let usable = !mirrors.is_empty() && is_source(&table.prefix) && mirrors.iter().all(|m| is_mirror(m));
            usable.then(|| DraftEntry {
                comment: comment(text, &table.prefix),
                source: table.prefix.clone(),
                mirrors: deduplicated(mirrors),
                never: table.blocked,
            })
        });
        Draft::for_pull(prefix, pull, entries.collect())
    });
    for table in config.registries() {
        for message in not_representable(table) {
            notes.push(Note { at: name.to_owned(), message });
        }
    }
    Ok((drafts.to_vec(), notes))
}

fn serves(table: &Table, mirror: &airlock_oci::registries_conf::Mirror, pull: Pull) -> bool {
    match (table.mirror_by_digest_only, mirror.pull_from_mirror) {
        (true, _) | (_, PullFromMirror::DigestOnly) => pull == Pull::Digest,
        (_, PullFromMirror::TagOnly) => pull == Pull::Tag,
        (_, PullFromMirror::All | PullFromMirror::Unset) => true,
    }
}

fn deduplicated(mirrors: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    mirrors.into_iter().filter(|mirror| seen.insert(mirror.clone())).collect()
}

/// What a table says that no mirror set can.
fn not_representable(table: &Table) -> Vec<String> {
    let prefix = &table.prefix;
    let mut said = Vec::new();
    if !table.location.is_empty() && table.location != *prefix {
        said.push(format!(
            "`{prefix}` is moved to `{}`: list that as a mirror; the source stays `{prefix}`",
            table.location
        ));
    }
    if table.insecure {
        said.push(format!("`{prefix}` is insecure: write it into insecureRegistries of image.config/cluster"));
    }
    for mirror in table.mirrors.iter().filter(|m| m.insecure) {
        said.push(format!("mirror `{}` is insecure: write its host into insecureRegistries", mirror.location));
    }
    if table.blocked && table.mirrors.is_empty() {
        said.push(format!("`{prefix}` is blocked without mirrors: write it into blockedRegistries"));
    }
    if !table.mirrors.is_empty() && !is_source(prefix) {
        said.push(format!("`{prefix}` cannot be a source; the entry is left out"));
    }
    for mirror in table.mirrors.iter().filter(|m| !is_mirror(&m.location)) {
        said.push(format!("`{}` cannot be a mirror; the entry of `{prefix}` is left out", mirror.location));
    }
    said
}

/// The comment lines right above the table that first names the prefix.
fn comment(text: &str, prefix: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let quoted = [format!("\"{prefix}\""), format!("'{prefix}'")];
    let names = |line: &str| -> bool {
        let line = line.trim_start();
        (line.starts_with("prefix") || line.starts_with("location")) && quoted.iter().any(|q| line.contains(q.as_str()))
    };
    let at = lines.iter().position(|line| names(line))?;
    let header = lines[..at].iter().rposition(|line| line.trim_start().starts_with("[["))?;
    let above = lines[..header].iter().rev().take_while(|line| line.trim_start().starts_with('#'));
    let mut found: Vec<&str> = above.map(|line| line.trim_start().trim_start_matches('#').trim()).collect();
    found.reverse();
    (!found.is_empty()).then(|| found.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::draft::documents;
    use crate::objects::Objects;
    use crate::render::{Base, render};

    #[test]
    fn what_was_rendered_comes_back() {
        let conf = "# the vendor\n[[registry]]\nlocation = \"quay.io/a\"\nblocked = true\n[[registry.mirror]]\nlocation = \"m.lab/a\"\npull-from-mirror = \"digest-only\"\n\
            [[registry.mirror]]\nlocation = \"n.lab/a\"\n[[registry]]\nprefix = \"*.b.io\"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = \"m.lab/b\"\n";
        let (drafts, notes) = from_conf("r.conf", conf, &[], "lab").expect("loads");
        let text = documents(&drafts);
        assert!(notes.is_empty() && text.contains("  # the vendor\n  - source: quay.io/a\n"), "{text}");
        let objects = Objects::load(&[("a.yaml".to_owned(), text)]).unwrap_or_else(|p| panic!("{p}"));
        let config = render(&objects, &Base::of_pools()).expect("renders").config().expect("loads");
        let before = Config::parse(Some(conf), &[]).expect("loads");
        for name in ["quay.io/a/x:1", "x.b.io/y:1"] {
            for name in [name.to_owned(), format!("{name}@sha256:{}", "1".repeat(64))] {
                let reference = name.parse().expect("reference");
                let tried = |c: &Config| {
                    let endpoints = c.endpoints(&reference).expect("endpoints");
                    endpoints.into_iter().map(|e| (e.reference, e.blocked)).collect::<Vec<_>>()
                };
                assert_eq!(tried(&config), tried(&before), "{name}");
            }
        }
    }

    #[test]
    fn what_cannot_be_said_is_said() {
        let conf = "[[registry]]\nprefix = \"a.io\"\nlocation = \"b.io\"\ninsecure = true\n[[registry]]\nlocation = \"c.io\"\nblocked = true\n";
        let (drafts, notes) = from_conf("r.conf", conf, &[], "lab").expect("loads");
        assert_eq!((documents(&drafts), notes.len()), (String::new(), 3));
    }
}
