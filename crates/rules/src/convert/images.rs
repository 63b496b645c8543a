//! A list of images and a mirror to objects: grouped as the user grouped the list, digests and tags apart.

use std::collections::BTreeMap;

use airlock_oci::Reference;

use super::Note;
use super::draft::{Draft, DraftEntry};
use crate::objects::Pull;
use crate::scope::is_mirror;

/// How much one entry covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// A whole registry.
    Registry,
    /// The first part of the path.
    #[default]
    Namespace,
    /// One repository.
    Repository,
}

/// One line of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The image, normalised.
    pub reference: Reference,
    /// As written.
    pub written: String,
    /// Counted from 1.
    pub line: u32,
    /// The comment above its block, without `#` and dashes.
    pub group: Option<String>,
}

/// An image list: one reference a line, `#` comments, blank lines; `docker://` is dropped. What is no reference is a note.
pub fn list(name: &str, text: &str) -> (Vec<Listed>, Vec<Note>) {
    let (mut listed, mut notes): (Vec<Listed>, Vec<Note>) = Default::default();
    let mut comment: Vec<&str> = Vec::new();
    let mut group: Option<String> = None;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim().trim_matches(['-', '=', '#']).trim());
            continue;
        }
        if !comment.is_empty() {
            comment.retain(|line| !line.is_empty());
            group = (!comment.is_empty()).then(|| comment.join("\n"));
            comment.clear();
        }
        let written = line.split(" #").next().unwrap_or_default().trim().trim_start_matches("docker://");
        if written.is_empty() {
            continue;
        }
        match written.parse::<Reference>() {
            Ok(reference) => {
                let (written, line) = (written.to_owned(), at as u32 + 1);
                listed.push(Listed { reference, written, line, group: group.clone() });
            }
            Err(error) => {
                notes.push(Note { at: format!("{name}:{}", at + 1), message: format!("`{written}`: {error}") });
            }
        }
    }
    (listed, notes)
}

/// Rules that send the images to a mirror below which paths are kept.
pub fn from_images(images: &[Listed], mirror: &str, scope: Scope, prefix: &str, both: bool) -> (Vec<Draft>, Vec<Note>) {
    let mut notes = Vec::new();
    let mirror = mirror.trim_start_matches("docker://").trim_end_matches('/');
    if !is_mirror(mirror) {
        notes.push(Note {
            at: mirror.to_owned(),
            message: "cannot be a mirror: expected host[:port][/path]".to_owned(),
        });
        return (Vec::new(), notes);
    }
    let mut targets: BTreeMap<String, String> = BTreeMap::new();
    let drafts = [Pull::Digest, Pull::Tag].map(|pull| {
        let mut entries: Vec<DraftEntry> = Vec::new();
        let mut last_group: Option<&String> = None;
        for image in images {
            let kind = if image.reference.digest().is_some() { Pull::Digest } else { Pull::Tag };
            if kind != pull && !both {
                continue;
            }
            let (source, suffix) = source_of(&image.reference, scope);
            if entries.iter().any(|entry| entry.source == source) {
                continue;
            }
            let target = if suffix.is_empty() { mirror.to_owned() } else { format!("{mirror}/{suffix}") };
            if let Some(other) = targets.insert(target.clone(), source.clone()).filter(|other| *other != source) {
                let message =
                    format!("`{source}` and `{other}` share the mirror `{target}`: equal repositories would meet");
                notes.push(Note { at: target.clone(), message });
            }
            let comment = image.group.as_ref().filter(|group| last_group != Some(group)).cloned();
            last_group = image.group.as_ref();
            entries.push(DraftEntry { comment, source, mirrors: vec![target], never: false });
        }
        // Without groups nothing says in which order the author wants them.
        if images.iter().all(|image| image.group.is_none()) {
            entries.sort_by(|a, b| a.source.cmp(&b.source));
        }
        Draft::for_pull(prefix, pull, entries)
    });
    (drafts.to_vec(), notes)
}

/// The source of an entry that covers an image, and the path that the mirror keeps.
fn source_of(reference: &Reference, scope: Scope) -> (String, String) {
    let (host, path) = (reference.registry().as_str(), reference.repository().as_str());
    let kept = match scope {
        Scope::Registry => "",
        Scope::Namespace => path.split_once('/').map_or(path, |(namespace, _)| namespace),
        Scope::Repository => path,
    };
    let source = if kept.is_empty() { host.to_owned() } else { format!("{host}/{kept}") };
    (source, kept.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::draft::documents;

    #[test]
    fn groups_and_kinds_are_kept_apart() {
        let text = "# --- Storage ---\nquay.io/dell/csm:1\nquay.io/dell/other:2\n\n# Base\ndocker://alpine\nghcr.io/x/y@sha256:1111111111111111111111111111111111111111111111111111111111111111\nnot a ref\n";
        let (images, bad) = list("images.txt", text);
        assert_eq!((images.len(), bad[0].at.as_str()), (4, "images.txt:8"));
        let (drafts, notes) = from_images(&images, "m.lab/mirror", Scope::Namespace, "ai", false);
        assert!(notes.is_empty());
        let wanted = "---\napiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata:\n  name: ai-digest\nspec:\n  imageDigestMirrors:\n  # Base\n  - source: ghcr.io/x\n    mirrors:\n    - m.lab/mirror/x\n\
            ---\napiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata:\n  name: ai-tag\nspec:\n  imageTagMirrors:\n  # Storage\n  - source: quay.io/dell\n    mirrors:\n    - m.lab/mirror/dell\n  # Base\n  - source: docker.io/library\n    mirrors:\n    - m.lab/mirror/library\n";
        assert_eq!(documents(&drafts), wanted);
    }

    #[test]
    fn sources_that_meet_are_told() {
        let (images, _) = list("-", "ghcr.io/grafana/grafana:1\ndocker.io/grafana/grafana:1\n");
        let (_, notes) = from_images(&images, "m.lab", Scope::Namespace, "x", false);
        assert_eq!(notes.len(), 1);
    }
}
