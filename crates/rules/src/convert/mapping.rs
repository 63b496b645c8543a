//! mapping.txt (`source=destination` lines, as oc-mirror writes it) to objects.

use airlock_oci::Reference;

use super::Note;
use super::draft::{Draft, DraftEntry};
use crate::objects::Pull;

/// IDMS for what is named by digest, ITMS for what is named by tag; both where both are named.
pub fn from_mapping(name: &str, text: &str, prefix: &str) -> (Vec<Draft>, Vec<Note>) {
    let mut notes = Vec::new();
    let mut pairs: Vec<(Reference, Reference)> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let parsed = line.split_once('=').map(|(source, target)| {
            let bare = |text: &str| text.trim().trim_start_matches("docker://").parse::<Reference>();
            (bare(source), bare(target))
        });
        match parsed {
            Some((Ok(source), Ok(target))) => pairs.push((source, target)),
            Some((Err(error), _) | (_, Err(error))) => {
                notes.push(Note { at: format!("{name}:{}", at + 1), message: format!("left out: {error}") });
            }
            None => {
                let message = "left out: expected source=destination".to_owned();
                notes.push(Note { at: format!("{name}:{}", at + 1), message });
            }
        }
    }
    let drafts = [Pull::Digest, Pull::Tag].map(|pull| {
        let mut entries: Vec<DraftEntry> = Vec::new();
        for (source, target) in &pairs {
            let wanted = match pull {
                Pull::Digest => source.digest().is_some(),
                Pull::Tag => source.tag().is_some() || source.digest().is_none(),
            };
            let (from, to) = scope(source, target);
            if !wanted || from == to {
                continue;
            }
            match entries.iter_mut().find(|entry| entry.source == from) {
                Some(entry) if entry.mirrors.contains(&to) => {}
                Some(entry) => entry.mirrors.push(to),
                None => {
                    entries.push(DraftEntry { comment: None, source: from, mirrors: vec![to], never: false });
                }
            }
        }
        entries.sort_by(|a, b| a.source.cmp(&b.source));
        Draft::for_pull(prefix, pull, entries)
    });
    (drafts.to_vec(), notes)
}

/// The namespaces where the destination keeps the source's path, else the repositories.
fn scope(source: &Reference, target: &Reference) -> (String, String) {
    let (path, to) = (source.repository().as_str(), target.repository().as_str());
    let kept = to == path || to.ends_with(&format!("/{path}"));
    let parent = |name: String| name.rsplit_once('/').map_or_else(|| name.clone(), |(parent, _)| parent.to_owned());
    if kept && path.contains('/') {
        (parent(source.name()), parent(target.name()))
    } else {
        (source.name(), target.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_paths_become_namespaces() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let text = format!(
            "quay.io/a/b@{digest}=m.lab/x/a/b:1\ndocker://quay.io/a/c:1=docker://m.lab/x/a/c:1\nquay.io/d/e:1=m.lab/flat-e:1\n# note\nnonsense\n"
        );
        let (drafts, notes) = from_mapping("mapping.txt", &text, "m");
        let shown: Vec<(String, &str)> =
            drafts.iter().flat_map(|d| d.entries.iter().map(|e| (e.source.clone(), e.mirrors[0].as_str()))).collect();
        let wanted = [("quay.io/a", "m.lab/x/a"), ("quay.io/a", "m.lab/x/a"), ("quay.io/d/e", "m.lab/flat-e")];
        assert_eq!(shown, wanted.map(|(a, b)| (a.to_owned(), b)));
        assert_eq!(notes[0].at, "mapping.txt:5");
    }
}
