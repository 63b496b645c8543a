//! What a cluster is told of the mirrored catalog, in the files of `oc adm catalog mirror` (updates-and-releases.md 9).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use airlock_mirror::workspace::write_file;
use airlock_oci::{Error, ErrorKind, Reference};
use airlock_rules::convert::draft::{Draft, DraftEntry, documents};
use airlock_rules::{Kind, Pull};

use super::mapping::Mapped;
use crate::args::catalog::Scope;
use crate::commands::places::{is_in_tree, shown};

/// By which `oc` marks rules for a catalog.
const LABEL: (&str, &str) = ("operators.openshift.io/catalog", "true");

/// The catalog's name in a cluster: what follows the first part of its repository, as a name of Kubernetes.
pub(super) fn index_name(index: &Reference) -> String {
    let path = index.repository().as_str();
    let name = path.split_once('/').map_or(path, |(_, rest)| rest);
    let legal = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(legal).collect();
    // A service is made of it, whose name begins with a letter.
    if name.starts_with(|c: char| c.is_ascii_lowercase()) { name } else { format!("cs-{name}") }
}

/// `mapping.txt`, for `oc image mirror -f`.
pub(super) fn mapping(all: &[&Mapped]) -> String {
    let lines: BTreeSet<String> = all.iter().map(|m| format!("{}={}\n", shown(&m.listed), m.destination)).collect();
    lines.into_iter().collect()
}

/// The CatalogSource of the mirrored catalog, by digest where the catalog was named so.
pub(super) fn catalog_source(index: &Mapped) -> String {
    let image = match index.name.digest() {
        Some(digest) => format!("{}@{digest}", index.destination.spot.name()),
        None => index.destination.to_string(),
    };
    format!(
        "apiVersion: operators.coreos.com/v1alpha1\nkind: CatalogSource\nmetadata:\n  name: {}\n  namespace: openshift-marketplace\n\
         spec:\n  image: {image}\n  sourceType: grpc\n",
        index_name(&index.name)
    )
}

/// The rules for what is asked for by digest, or by tag, as entries in order.
pub(super) fn entries(scope: Scope, pull: Pull, all: &[&Mapped]) -> Vec<DraftEntry> {
    let mut rules: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let wanted = |m: &&&Mapped| m.name.digest().is_some() == (pull == Pull::Digest) && !is_in_tree(&m.name);
    for image in all.iter().filter(wanted) {
        let (from, to) = (image.name.name(), image.destination.spot.name());
        let (from, to) = match (scope, whole_registry(&image.name, &to)) {
            // Where the mirror's names are other names, a rule for the whole registry leads nowhere.
            (Scope::Registry, Some(mirror)) => (image.name.registry().to_string(), mirror),
            _ => (from, to),
        };
        if from != to {
            rules.entry(from).or_default().insert(to);
        }
    }
    let entry = |(source, mirrors): (String, BTreeSet<String>)| DraftEntry {
        source,
        mirrors: mirrors.into_iter().collect(),
        ..DraftEntry::default()
    };
    rules.into_iter().map(entry).collect()
}

/// What takes the registry's place in the mirror's name of an image, where the rest of the name stays.
fn whole_registry(name: &Reference, to: &str) -> Option<String> {
    to.strip_suffix(name.repository().as_str())?.strip_suffix('/').map(str::to_owned)
}

/// Rules as documents of at most `most` bytes each.
pub(super) fn rules(kind: Kind, name: &str, entries: &[DraftEntry], most: u64) -> Result<String, Error> {
    let draft = |entries: Vec<DraftEntry>, number: usize| Draft {
        kind,
        name: format!("{name}-{number}"),
        labels: vec![(LABEL.0.to_owned(), LABEL.1.to_owned())],
        annotations: Vec::new(),
        entries,
    };
    let bytes = |draft: &Draft| draft.yaml().len() as u64;
    let mut drafts = vec![draft(Vec::new(), 0)];
    let mut used = bytes(&drafts[0]);
    for entry in entries {
        let number = drafts.len();
        let empty = bytes(&draft(Vec::new(), number));
        let own = bytes(&draft(vec![entry.clone()], number)) - empty;
        if empty + own > most {
            let cause = format!("the rule for `{}` alone has {} bytes", entry.source, empty + own);
            return Err(Error::new(ErrorKind::Invalid, format!("keep {} within {most} bytes", kind.as_str()), cause)
                .hint("allow more with --max-idms-size"));
        }
        if used + own > most {
            drafts.push(draft(Vec::new(), number));
            used = empty;
        }
        used += own;
        if let Some(last) = drafts.last_mut() {
            last.entries.push(entry.clone());
        }
    }
    Ok(documents(&drafts))
}

/// Writes the files and gives their paths.
pub(super) fn write(folder: &Path, files: Vec<(&str, String)>) -> Result<Vec<PathBuf>, Error> {
    let one = |(name, text): (&str, String)| {
        let path = folder.join(name);
        write_file(&path, text.as_bytes())?;
        Ok(path)
    };
    files.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::mapping::{Mount, source};
    use super::*;

    fn mapped(name: &str, to: &str, most: usize) -> Mapped {
        let name = source(name).unwrap();
        Mount::read(to, &name, most).unwrap().index(&name).unwrap()
    }

    fn by_digest(name: &str) -> String {
        format!("{name}@sha256:{}", "0".repeat(64))
    }

    #[test]
    fn rules_lead_to_where_the_images_are() {
        let pairs = |scope, names: &[&str], to: &str, most| -> Vec<(String, String)> {
            let all: Vec<Mapped> = names.iter().map(|name| mapped(name, to, most)).collect();
            let entries = entries(scope, Pull::Digest, &all.iter().collect::<Vec<_>>());
            entries.into_iter().map(|e| (e.source, e.mirrors.join(" "))).collect()
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let (flat, deep) = (by_digest("quay.io/a/b"), by_digest("quay.io/a/b/c"));
        let names = [&*flat, &*deep, "quay.io/a/tagged:1"];
        assert_eq!(
            pairs(Scope::Repository, &names, "h.io:5000", 2),
            [pair("quay.io/a/b", "h.io:5000/a/b"), pair("quay.io/a/b/c", "h.io:5000/a/b-c")]
        );
        // Only what keeps its name is found through the whole registry.
        assert_eq!(
            pairs(Scope::Registry, &names, "h.io:5000", 2),
            [pair("quay.io", "h.io:5000"), pair("quay.io/a/b/c", "h.io:5000/a/b-c")]
        );
        assert_eq!(pairs(Scope::Registry, &names, "h.io/ns", 0), [pair("quay.io", "h.io/ns")]);
    }

    #[test]
    fn rules_are_cut_where_they_grow_too_large() {
        let names: Vec<String> = (0..20).map(|n| by_digest(&format!("quay.io/namespace/repository-{n:02}"))).collect();
        let all: Vec<Mapped> = names.iter().map(|name| mapped(name, "h.io", 2)).collect();
        let entries = entries(Scope::Repository, Pull::Digest, &all.iter().collect::<Vec<_>>());
        let text = rules(Kind::Idms, "index", &entries, 500).unwrap();
        let parts: Vec<&str> = text.split("---\n").filter(|part| !part.is_empty()).collect();
        assert!(parts.len() > 1 && parts.iter().all(|part| part.len() <= 500), "{text}");
        assert!(parts[1].contains("name: index-1\n") && text.matches("source:").count() == 20, "{text}");
        assert!(rules(Kind::Idms, "index", &entries, 100).is_err());
        assert_eq!(rules(Kind::Icsp, "index", &entries, 250_000).unwrap().matches("kind:").count(), 1);
    }

    #[test]
    fn a_catalog_has_a_name_that_kubernetes_takes() {
        let name = |text: &str| index_name(&source(text).unwrap());
        assert_eq!(name("registry.redhat.io/redhat/redhat-operator-index:v4.18"), "redhat-operator-index");
        assert_eq!(name("h.io/a/b/c_d:1"), "b-c-d");
        assert_eq!(name("h.io/4all:1"), "cs-4all");
        let by_digest = mapped(&by_digest("quay.io/a/b"), "h.io", 2);
        assert!(catalog_source(&by_digest).contains(&format!("image: h.io/a/b@sha256:{}\n", "0".repeat(64))));
        assert!(catalog_source(&mapped("quay.io/a/b:1", "h.io", 2)).contains("image: h.io/a/b:1\n"));
    }
}
