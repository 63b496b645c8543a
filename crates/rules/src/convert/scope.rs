//! Entries that cover more or less than before: a namespace instead of its repositories, or the other way round.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use airlock_oci::Reference;

use super::Note;
use super::draft::{Draft, DraftEntry, documents};
use super::images::{Listed, Scope};
use crate::edit::{Edit, apply, is_written_plainly, line_end, line_start};
use crate::objects::{Entry, Kind, MirrorSet, Objects, Policy};
use crate::scope::{host, matches, path};
use crate::undo::draft_of;
use airlock_document::scalar;

/// The text of one file of the objects with entries of another scope, comments and order kept. A text in a style that allows no such change
/// (brackets, aliases) is written anew, which is told. See [`rescope`].
pub fn rescope_text(objects: &Objects, file: usize, scope: Scope, images: &[Listed]) -> (String, Vec<Note>) {
    let (changes, mut notes) = changes(objects, scope, images);
    let source = &objects.files[file];
    let of_file = || objects.sets.iter().zip(&changes).filter(|(set, _)| set.file == file);
    let drafts: Vec<Draft> = of_file().map(|(set, changes)| drafted(set, changes)).collect();
    let entries =
        of_file().flat_map(|(set, changes)| set.entries.iter().zip(changes).map(|(e, new)| (set.kind, e, new)));
    let edits: Option<Vec<Vec<Edit>>> =
        entries.map(|(kind, entry, new)| edits(&source.text, kind, entry, new)).collect();
    let text = edits.map(|edits| apply(&source.text, &edits.concat()));
    // Whatever the style of the text, what is written must say what was meant.
    let means_it = |text: &String| {
        let again = Objects::load(&[(source.name.to_string(), text.clone())]);
        again.is_ok_and(|again| again.sets.iter().map(draft_of).eq(drafts.iter().cloned()))
    };
    if let Some(text) = text.filter(means_it) {
        return (text, notes);
    }
    let message = "written anew, comments are lost: its entries cannot be changed where they stand".to_owned();
    notes.push(Note { at: source.name.to_string(), message });
    (documents(&drafts), notes)
}

/// The mirror sets with entries of another scope. Narrowing needs to know the images in use: nothing else says which
/// repositories there are.
pub fn rescope(objects: &Objects, scope: Scope, images: &[Listed]) -> (Vec<Draft>, Vec<Note>) {
    let (changes, notes) = changes(objects, scope, images);
    (objects.sets.iter().zip(&changes).map(|(set, changes)| drafted(set, changes)).collect(), notes)
}

fn drafted(set: &MirrorSet, changes: &[Vec<DraftEntry>]) -> Draft {
    Draft { entries: changes.concat(), ..draft_of(set) }
}

/// What becomes of each entry of each set: nothing where an earlier one became the same.
fn changes(objects: &Objects, scope: Scope, images: &[Listed]) -> (Vec<Vec<Vec<DraftEntry>>>, Vec<Note>) {
    let mut notes = Vec::new();
    let sets = objects.sets.iter().map(|set| {
        let mut known: Vec<DraftEntry> = Vec::new();
        let entries = set.entries.iter().map(|entry| {
            let whole = drafted_entry(entry);
            let (file, line) = (&objects.files[set.file].name, entry.mark.line);
            let mut note = |message: String| notes.push(Note { at: format!("{file}:{line}"), message });
            let mut changed = match depth(&whole.source).cmp(&components(scope)) {
                Ordering::Equal => vec![whole],
                Ordering::Greater => match widened(&whole, components(scope)) {
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
            changed.retain(|new| !known.iter().any(|known| known.source == new.source && known.mirrors == new.mirrors));
            known.extend(changed.iter().cloned());
            changed
        });
        entries.collect()
    });
    (sets.collect(), notes)
}

fn drafted_entry(entry: &Entry) -> DraftEntry {
    DraftEntry {
        comment: None,
        source: entry.source.value.clone(),
        mirrors: entry.mirrors.iter().map(|m| m.value.clone()).collect(),
        never: entry.policy == Policy::NeverContactSource,
    }
}

/// How many components of a path a scope has.
fn components(scope: Scope) -> usize {
    match scope {
        Scope::Registry => 0,
        Scope::Namespace => 1,
        Scope::Repository => usize::MAX,
    }
}

/// Makes one entry of the text into the new ones: the first takes its place, the others follow it. `None` where its style does not allow it.
fn edits(text: &str, kind: Kind, entry: &Entry, new: &[DraftEntry]) -> Option<Vec<Edit>> {
    let (start, end) = entry.bytes;
    let indent = text.get(line_start(text, start)..start)?.strip_suffix("- ")?;
    if !indent.trim().is_empty() {
        return None;
    }
    let after = line_end(text, end.saturating_sub(1).max(start));
    let [first, others @ ..] = new else { return Some(vec![Edit::delete_lines(text, &(start..after))]) };
    let mut edits = Vec::new();
    let written = std::iter::once(&entry.source).chain(&entry.mirrors);
    for (old, new) in written.zip(std::iter::once(&first.source).chain(&first.mirrors)) {
        if old.value == *new {
            continue;
        }
        if !is_written_plainly(text, &old.mark.range(), &old.value) {
            return None;
        }
        edits.push(Edit::replace(old.mark.range(), scalar(new)));
    }
    if !others.is_empty() {
        let newline = if text[..after].ends_with('\n') { "" } else { "\n" };
        let lines: String = others.iter().map(|other| other.yaml(kind, indent)).collect();
        edits.push(Edit::insert(after, format!("{newline}{lines}")));
    }
    Some(edits)
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

    const COMMENTED: &str = "# ours\napiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata:\n  name: t # the name\nspec:\n  imageTagMirrors:\n  # the first\n  - source: quay.io/a/x # x\n    mirrors:\n    # near\n    - m.lab/p/a/x # fast\n    mirrorSourcePolicy: NeverContactSource\n  # the second\n  - mirrors: [m.lab/p/a/y]\n    source: \"quay.io/a/y\"\n    mirrorSourcePolicy: NeverContactSource\n  # the last\n  - source: ghcr.io\n    mirrors:\n    - m.lab/ghcr";

    fn text_of(text: &str, scope: Scope, images: &str) -> (String, usize) {
        let objects = Objects::load(&[("a.yaml".to_owned(), text.to_owned())]).expect("loads");
        let (new, notes) = rescope_text(&objects, 0, scope, &list("-", images).0);
        let again = Objects::load(&[("a.yaml".to_owned(), new.clone())]).unwrap_or_else(|p| panic!("{p}\n{new}"));
        let (drafts, _) = rescope(&objects, scope, &list("-", images).0);
        assert_eq!(again.sets.iter().map(draft_of).collect::<Vec<_>>(), drafts, "{new}");
        (new, notes.iter().filter(|note| note.message.contains("comments are lost")).count())
    }

    #[test]
    fn comments_stay_where_they_are() {
        let (wide, _) = text_of(COMMENTED, Scope::Namespace, "");
        let expected = COMMENTED
            .replace("quay.io/a/x # x", "quay.io/a # x")
            .replace("m.lab/p/a/x # fast", "m.lab/p/a # fast")
            .replace(
                "  - mirrors: [m.lab/p/a/y]\n    source: \"quay.io/a/y\"\n    mirrorSourcePolicy: NeverContactSource\n",
                "",
            );
        assert_eq!(wide, expected);
        let (narrow, _) = text_of(COMMENTED, Scope::Repository, "ghcr.io/o/one:1\nghcr.io/o/two:1\n");
        let (head, _) = COMMENTED.split_once("  - source: ghcr.io").expect("it has one");
        let entry = |name: &str| format!("  - source: ghcr.io/{name}\n    mirrors:\n    - m.lab/ghcr/{name}\n");
        assert_eq!(narrow, format!("{head}{}{}", entry("o/one"), entry("o/two")));
        assert_eq!(text_of(COMMENTED, Scope::Repository, "").0, COMMENTED);
    }

    #[test]
    fn a_text_that_cannot_be_changed_in_place_is_written_anew_and_that_is_told() {
        let flow = "apiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata: {name: t}\nspec:\n  imageTagMirrors:\n  - {source: quay.io/a/x, mirrors: [m.lab/a/x]}\n  - {source: quay.io/a/y, mirrors: [m.lab/a/y]}\n";
        let (text, told) = text_of(flow, Scope::Namespace, "");
        assert_eq!((text.matches("source:").count(), told), (1, 1), "{text}");
        let alias = "apiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata: {name: t}\nspec:\n  imageTagMirrors:\n  - source: quay.io/a/x\n    mirrors: &m\n    - m.lab/x\n    - n.lab/a/x\n  - source: ghcr.io/b/x\n    mirrors: *m\n";
        text_of(alias, Scope::Namespace, "");
        text_of(&alias.replace("m.lab/x", "m.lab/c/x").replace("n.lab/a/x", "n.lab/c/x"), Scope::Registry, "");
    }
}
