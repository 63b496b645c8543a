//! `mirrorSourcePolicy` on every entry, in the user's own text: a staging copy in which a missing mirror is loud.

use super::Note;
use crate::edit::{Edit, apply, line_end, line_start};
use crate::objects::{Entry, Kind, Objects, Policy};

/// The text of one file of the objects with the policy on every entry that has a mirror.
pub fn set_policy(objects: &Objects, file: usize, policy: Policy) -> (String, Vec<Note>) {
    let source = &objects.files[file];
    let text = &source.text;
    let (mut edits, mut notes) = (Vec::new(), Vec::new());
    for (_, set, entry) in objects.entries().filter(|(_, set, _)| set.file == file) {
        let mut note =
            |message: String| notes.push(Note { at: format!("{}:{}", source.name, entry.mark.line), message });
        if set.kind == Kind::Icsp {
            note(format!("`{}`: an ICSP has no policy; convert it to an IDMS first", entry.source.value));
            continue;
        }
        if policy == Policy::NeverContactSource && !entry.has_real_mirror() {
            note(format!("`{}` has no mirror: the policy would have no effect", entry.source.value));
            continue;
        }
        let repeated = entry.mirrors.iter().any(|mirror| mirror.value == entry.source.value);
        if policy == Policy::NeverContactSource && repeated {
            note(format!("`{}` is its own mirror: remove it there first, the policy forbids it", entry.source.value));
            continue;
        }
        match entry.policy_mark {
            Some(mark) => edits.push(Edit::replace(mark.range(), policy.as_str())),
            None if policy == Policy::AllowContactingSource => {}
            None => edits.push(insertion(text, entry, policy)),
        }
    }
    (apply(text, &edits), notes)
}

/// At the end of an entry in block style, at the beginning of one in flow style (or JSON), which needs no look at brackets.
fn insertion(text: &str, entry: &Entry, policy: Policy) -> Edit {
    let (start, end) = entry.bytes;
    let flow = text[..start].trim_end().ends_with('{');
    if flow {
        return Edit::insert(start, format!("\"mirrorSourcePolicy\": \"{}\", ", policy.as_str()));
    }
    let before = &text[line_start(text, start)..start];
    // An anchor or a tag on the line of the first key belongs to that key, and the mapping begins there.
    let own = before.find(['&', '!']).map_or(before, |at| &before[..at]);
    let indent = " ".repeat(own.chars().count());
    let line = format!("mirrorSourcePolicy: {}\n", policy.as_str());
    let after = line_end(text, end.saturating_sub(1).max(start));
    let body = &text[start..after];
    // A list in brackets over several lines: its end is somewhere below.
    if body.matches('[').count() != body.matches(']').count() {
        let at = line_start(text, start) + own.len();
        return Edit::insert(at, format!("{line}{indent}"));
    }
    let newline = if body.ends_with('\n') { "" } else { "\n" };
    Edit::insert(after, format!("{newline}{indent}{line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_gets_the_policy_and_keeps_its_comments() {
        let head = "apiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata: {name: t}\nspec:\n  imageTagMirrors:\n";
        let body = "  # one\n  - source: a.io\n    mirrors:\n    - m.lab/a # fast\n  - mirrors: [m.lab/b,\n      n.lab/b]\n    source: b.io\n  - {source: c.io, mirrors: [m.lab/c]}\n  - source: d.io\n    mirrorSourcePolicy: AllowContactingSource # for now\n    mirrors: [m.lab/d]\n  - source: e.io\n";
        let objects = Objects::load(&[("a.yaml".to_owned(), format!("{head}{body}"))]).expect("loads");
        let (text, notes) = set_policy(&objects, 0, Policy::NeverContactSource);
        let again = Objects::load(&[("a.yaml".to_owned(), text.clone())]).unwrap_or_else(|p| panic!("{p}\n{text}"));
        let policies: Vec<Policy> = again.entries().map(|(_, _, e)| e.policy).collect();
        assert_eq!(policies[..4], [Policy::NeverContactSource; 4], "{text}");
        assert_eq!((policies[4], notes.len()), (Policy::AllowContactingSource, 1));
        for kept in ["# one", "# fast", "# for now"] {
            assert!(text.contains(kept), "{text}");
        }
        assert!(text.contains("    - m.lab/a # fast\n    mirrorSourcePolicy: NeverContactSource\n"), "{text}");
    }

    #[test]
    fn an_anchor_before_the_first_key_is_where_the_entry_begins() {
        let text = "apiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata:\n  name: t\nspec:\n  imageTagMirrors:\n  - &one\n    &a source: quay.io/a\n    mirrors:\n    - m.lab/a\n  - &b source: quay.io/b\n    mirrors: [m.lab/b,\n      n.lab/b]\n";
        let (objects, _) = Objects::read(&[("a.yaml".to_owned(), text.to_owned())], crate::objects::Others::Keep);
        let (changed, _) = set_policy(&objects, 0, Policy::NeverContactSource);
        let (again, problems) = Objects::read(&[("a.yaml".to_owned(), changed.clone())], crate::objects::Others::Keep);
        assert!(problems.is_empty(), "{problems:?}\n{changed}");
        let policies: Vec<bool> = again.entries().map(|(_, _, e)| e.policy_mark.is_some()).collect();
        assert_eq!(policies, [true, true], "{changed}");
    }
}
