//! Entries that cover more or less than before: a namespace instead of its repositories, or the other way round.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use airlock_oci::Reference;

use super::Note;
use super::draft::{Draft, DraftEntry};
use super::images::{Listed, Scope};
use crate::objects::{Kind, MirrorSet, Objects, Policy};
use crate::scope::{host, matches, path};
use crate::undo::draft_of;

/// The mirror sets with entries of another scope. Narrowing needs to know the images in use: nothing else says which
/// repositories there are.
pub fn rescope(objects: &Objects, scope: Scope, images: &[Listed]) -> (Vec<Draft>, Vec<Note>) {
    let mut notes = Vec::new();
    let drafts = objects.sets.iter().map(|set| {
        let mut entries: Vec<DraftEntry> = Vec::new();
        for entry in &set.entries {
            let whole = DraftEntry {
                comment: None,
                source: entry.source.value.clone(),
                mirrors: entry.mirrors.iter().map(|m| m.value.clone()).collect(),
                never: entry.policy == Policy::NeverContactSource,
            };
            let found = depth(&whole.source);
            let wanted = match scope {
                Scope::Registry => 0,
                Scope::Namespace => 1,
                Scope::Repository => usize::MAX,
            };
            let (file, line) = (&objects.files[set.file].name, entry.mark.line);
            let mut note = |message: String| notes.push(Note { at: format!("{file}:{line}"), message });
            let changed = match found.cmp(&wanted) {
                Ordering::Equal => vec![whole],
                Ordering::Greater => match widened(&whole, wanted) {
                    Some(wide) => {
                        let (from, to) = (&whole.source, &wide.source);
                        note(format!("`{from}` becomes `{to}`: everything below it is sent to the mirror too"));
                        vec![wide]
                    }
                    None => {
                        note(format!("`{}` stays: a mirror does not keep the path", whole.source));
                        vec![whole]
                    }
                },
                Ordering::Less => {
                    let narrow = narrowed(&whole, set, scope, images);
                    let names: Vec<&str> = narrow.iter().map(|e| e.source.as_str()).collect();
                    if narrow.is_empty() {
                        note(format!("`{}` stays: no image in the list is covered by it", whole.source));
                        vec![whole]
                    } else {
                        if names != [whole.source.as_str()] {
                            let (from, to) = (&whole.source, names.join(", "));
                            note(format!("`{from}` becomes {to}: nothing else below it is mirrored any more"));
                        }
                        narrow
                    }
                }
            };
            for new in changed {
                if !entries.iter().any(|known| known.source == new.source && known.mirrors == new.mirrors) {
                    entries.push(new);
                }
            }
        }
        Draft { entries, ..draft_of(set) }
    });
    (drafts.collect(), notes)
}

/// How many components a path has. A wildcard is wider than anything.
fn depth(source: &str) -> usize {
    if path(source).is_empty() { 0 } else { path(source).split('/').count() }
}

/// The same rule with `wanted` components; nothing where a mirror's path does not end with what is cut off.
fn widened(entry: &DraftEntry, wanted: usize) -> Option<DraftEntry> {
    let mut components: Vec<&str> = path(&entry.source).split('/').collect();
    let cut = format!("/{}", components.split_off(wanted).join("/"));
    let source: String = std::iter::once(host(&entry.source)).chain(components).collect::<Vec<_>>().join("/");
    let mirrors: Option<Vec<String>> =
        entry.mirrors.iter().map(|mirror| mirror.strip_suffix(&cut).map(str::to_owned)).collect();
    Some(DraftEntry { source, mirrors: mirrors?, ..entry.clone() })
}

/// One entry for each repository (or namespace) that the images in use need of a rule.
fn narrowed(entry: &DraftEntry, set: &MirrorSet, scope: Scope, images: &[Listed]) -> Vec<DraftEntry> {
    let mut found: BTreeMap<String, DraftEntry> = BTreeMap::new();
    for image in images.iter().filter(|image| serves(set.kind, &image.reference)) {
        let name = image.reference.name();
        if !matches(&name, &entry.source) || entry.source.starts_with("*.") {
            continue;
        }
        let kept = match scope {
            Scope::Repository => name.clone(),
            Scope::Registry | Scope::Namespace => {
                let path = path(&name);
                format!("{}/{}", host(&name), path.split('/').next().unwrap_or(path))
            }
        };
        let Some(rest) = kept.strip_prefix(&entry.source) else { continue };
        let mirrors = entry.mirrors.iter().map(|mirror| format!("{mirror}{rest}")).collect();
        found.insert(kept.clone(), DraftEntry { source: kept.clone(), mirrors, ..entry.clone() });
    }
    found.into_values().collect()
}

fn serves(kind: Kind, reference: &Reference) -> bool {
    (kind == Kind::Itms) == reference.digest().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::images::list;

    fn objects() -> Objects {
        let text = "apiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata: {name: t}\nspec:\n  imageTagMirrors:\n  - source: quay.io/a/x\n    mirrors: [m.lab/p/a/x]\n  - source: quay.io/a/y\n    mirrors: [m.lab/p/a/y]\n  - source: quay.io/b/z\n    mirrors: [m.lab/flat]\n  - source: ghcr.io\n    mirrors: [m.lab/ghcr]\n";
        Objects::load(&[("a.yaml".to_owned(), text.to_owned())]).expect("loads")
    }

    fn shown(drafts: &[Draft]) -> Vec<String> {
        drafts.iter().flat_map(|d| &d.entries).map(|e| format!("{} -> {}", e.source, e.mirrors.join(","))).collect()
    }

    #[test]
    fn wider_where_the_mirror_keeps_the_path() {
        let (drafts, notes) = rescope(&objects(), Scope::Namespace, &[]);
        assert_eq!(shown(&drafts), ["quay.io/a -> m.lab/p/a", "quay.io/b/z -> m.lab/flat", "ghcr.io -> m.lab/ghcr"]);
        assert_eq!(notes.len(), 4);
    }

    #[test]
    fn narrower_by_the_images_in_use() {
        let (images, _) = list(
            "-",
            "ghcr.io/o/one:1\nghcr.io/o/two:1\nghcr.io/o/three@sha256:1111111111111111111111111111111111111111111111111111111111111111\n",
        );
        let (drafts, _) = rescope(&objects(), Scope::Repository, &images);
        assert_eq!(shown(&drafts)[3..], ["ghcr.io/o/one -> m.lab/ghcr/o/one", "ghcr.io/o/two -> m.lab/ghcr/o/two"]);
    }
}
