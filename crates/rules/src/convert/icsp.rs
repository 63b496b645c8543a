//! ICSP to IDMS, as `oc adm migrate icsp` does it (mirror-rules 6.1), or in the user's own text with comments kept.

use serde_json::{Map, Value as Json};

use super::Note;
use crate::edit::{Edit, apply};
use crate::objects::{Kind, MirrorSet, Objects, Others};
use crate::problem::{Problem, Problems, Severity, code};
use crate::yaml::{Node, Value, read};
use airlock_document::scalar;

/// How the new text comes about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// The user's text with what must change, changed.
    #[default]
    Keep,
    /// Written anew as `oc` writes it: keys sorted, four spaces, comments and unknown fields lost.
    Oc,
}

/// One converted file.
#[derive(Clone, Debug)]
pub struct Migrated {
    /// `imagedigestmirrorset_<name of the first object>.<number>.yaml`. `oc` draws the number; here it follows from the text.
    pub file_name: String,
    /// YAML.
    pub text: String,
    /// What was lost or dropped.
    pub notes: Vec<Note>,
}

/// Converts one file. What is not an ICSP is refused in the style of `oc`, and kept as it is otherwise.
pub fn migrate(name: &str, text: &str, style: Style) -> Result<Migrated, Problems> {
    match style {
        Style::Oc => migrate_as_oc(name, text),
        Style::Keep => migrate_in_place(name, text),
    }
}

fn file_name(first: &str, text: &str) -> String {
    // FNV-1a: not a secret, only the same for the same text.
    let hash =
        text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    format!("imagedigestmirrorset_{first}.{:019}.yaml", hash % 10_000_000_000_000_000_000)
}

fn migrate_as_oc(name: &str, text: &str) -> Result<Migrated, Problems> {
    let (roots, faults) = read(text);
    if let Some(fault) = faults.first() {
        return Err(Problem::at(fault.code, name, text, fault.mark, fault.message.clone()).into());
    }
    // `oc` takes the empty document before a leading `---` for an object.
    let leading = text.trim_start().strip_prefix("---");
    if roots.is_empty() && leading.is_none() {
        return Err(Problem::of_file(code::EMPTY, name, "no data found").into());
    }
    if roots.is_empty() {
        return Err(Problem::of_file(code::KIND, name, "could not decode: the document is empty").into());
    }
    let mut documents = Vec::new();
    let mut first = String::new();
    for root in &roots {
        let word = |key: &str| root.get(key).and_then(Node::as_text).unwrap_or_default();
        if word("kind") != Kind::Icsp.as_str() || word("apiVersion") != Kind::Icsp.api_version() {
            let message = format!(
                "could not decode: expected {} of {}, found `{}` of `{}`",
                Kind::Icsp.as_str(),
                Kind::Icsp.api_version(),
                word("kind"),
                word("apiVersion")
            );
            return Err(Problem::at(code::KIND, name, text, root.mark, message).into());
        }
        let object = as_oc(root).map_err(|(node, message)| Problem::at(code::TYPE, name, text, node.mark, message))?;
        if documents.is_empty() {
            first = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        }
        let mut out = String::new();
        write(&mut out, &object, 0);
        documents.push(out);
    }
    let text = documents.join("---\n");
    Ok(Migrated { file_name: file_name(&first, &text), text, notes: Vec::new() })
}

/// The object that `oc` decodes and writes: known fields only, server-side metadata included.
fn as_oc(root: &Node) -> Result<Json, (&Node, String)> {
    let mut metadata = Map::new();
    for (key, node) in root.get("metadata").and_then(Node::as_map).unwrap_or_default() {
        // The creation time is not taken over, nor is what is empty.
        let kept = !node.is_null() && key.text != "creationTimestamp";
        if kept {
            metadata.insert(key.text.clone(), json_of(node));
        }
    }
    let mut entries = Vec::new();
    if let Some(list) = root.at(&["spec", Kind::Icsp.list()]).filter(|n| !n.is_null()) {
        for item in list.as_list().ok_or((list, format!("could not decode: `{}` is no list", Kind::Icsp.list())))? {
            let mut entry = Map::new();
            if let Some(mirrors) = item.get("mirrors").filter(|n| !n.is_null()) {
                let mirrors =
                    mirrors.as_list().ok_or((mirrors, "could not decode: `mirrors` is no list".to_owned()))?;
                if !mirrors.is_empty() {
                    entry.insert("mirrors".to_owned(), mirrors.iter().map(json_of).collect());
                }
            }
            let source = item.get("source").and_then(Node::as_scalar).unwrap_or_default();
            entry.insert("source".to_owned(), Json::from(source));
            entries.push(Json::Object(entry));
        }
    }
    let mut spec = Map::new();
    spec.insert(Kind::Idms.list().to_owned(), Json::Array(entries));
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), Json::from(Kind::Idms.api_version()));
    object.insert("kind".to_owned(), Json::from(Kind::Idms.as_str()));
    object.insert("metadata".to_owned(), Json::Object(metadata));
    object.insert("spec".to_owned(), Json::Object(spec));
    Ok(Json::Object(object))
}

fn json_of(node: &Node) -> Json {
    match &node.value {
        Value::Map(entries) => Json::Object(entries.iter().map(|(k, v)| (k.text.clone(), json_of(v))).collect()),
        Value::List(items) => items.iter().map(json_of).collect(),
        Value::Scalar { text, plain } if *plain && node.as_text().is_none() => {
            serde_json::from_str(text).unwrap_or_else(|_| Json::from(text.as_str()))
        }
        Value::Scalar { text, .. } => Json::from(text.as_str()),
    }
}

/// YAML with four spaces and sorted keys, lists indented below their key.
fn write(out: &mut String, value: &Json, depth: usize) {
    let indent = "    ".repeat(depth);
    match value {
        Json::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            for key in keys {
                write_field(out, &indent, key, &map[key], depth);
            }
        }
        other => out.push_str(&format!("{indent}{}\n", json_scalar(other))),
    }
}

fn write_field(out: &mut String, indent: &str, key: &str, value: &Json, depth: usize) {
    match value {
        Json::Object(map) if map.is_empty() => out.push_str(&format!("{indent}{key}: {{}}\n")),
        Json::Array(items) if items.is_empty() => out.push_str(&format!("{indent}{key}: []\n")),
        Json::Object(_) => {
            out.push_str(&format!("{indent}{key}:\n"));
            write(out, value, depth + 1);
        }
        Json::Array(items) => {
            out.push_str(&format!("{indent}{key}:\n"));
            for item in items {
                write_item(out, item, depth + 1);
            }
        }
        scalar => out.push_str(&format!("{indent}{key}: {}\n", json_scalar(scalar))),
    }
}

/// `- ` and the item, whose keys stand two columns right of the dash; what is below them again at a multiple of four.
fn write_item(out: &mut String, item: &Json, depth: usize) {
    let dash = "    ".repeat(depth);
    let Json::Object(map) = item else {
        out.push_str(&format!("{dash}- {}\n", json_scalar(item)));
        return;
    };
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    for (at, key) in keys.into_iter().enumerate() {
        write_field(out, &format!("{dash}{}", if at == 0 { "- " } else { "  " }), key, &map[key], depth);
    }
}

fn json_scalar(value: &Json) -> String {
    match value {
        Json::String(text) => {
            let node =
                Node { mark: crate::yaml::Mark::default(), value: Value::Scalar { text: text.clone(), plain: true } };
            // Quotes where the text would be read as something else.
            let special = text
                .starts_with(['*', '&', '!', '%', '@', '`', '"', '\'', '#', '{', '[', '|', '>', ',', '?', '-', ' '])
                || text.contains(": ")
                || text.contains(" #")
                || text.ends_with([':', ' '])
                || text.contains('\n');
            if node.as_text().is_none() || special { Json::from(text.as_str()).to_string() } else { text.clone() }
        }
        other => other.to_string(),
    }
}

fn migrate_in_place(name: &str, text: &str) -> Result<Migrated, Problems> {
    let (objects, problems) = Objects::read(&[(name.to_owned(), text.to_owned())], Others::Refuse);
    // Unknown fields stay where they are, as everything else: the API server will say what it thinks of them.
    let bad = |p: &Problem| p.severity == Severity::Error && p.code != code::UNKNOWN_FIELD;
    if problems.iter().any(bad) {
        return Err(Problems(problems.into_iter().filter(bad).collect()));
    }
    let mut notes: Vec<Note> = problems
        .iter()
        .map(|p| Note { at: format!("{name}:{}", p.line), message: format!("kept as it is: {}", p.message) })
        .collect();
    let (roots, _) = read(text);
    let mut edits = Vec::new();
    for root in &roots {
        let items = root.get("items").and_then(Node::as_list);
        for node in items.unwrap_or(std::slice::from_ref(root)) {
            edits.extend(edits_of(text, node));
        }
        if items.is_some() && root.get("kind").and_then(Node::as_text) == Some("ImageContentSourcePolicyList") {
            let mark = root.get("kind").map_or(root.mark, |n| n.mark);
            edits.push(Edit::replace(mark.range(), format!("{}List", Kind::Idms.as_str())));
            if let Some(version) = root.get("apiVersion") {
                edits.push(Edit::replace(version.mark.range(), Kind::Idms.api_version()));
            }
        }
    }
    for set in &objects.sets {
        clean(text, name, set, &mut edits, &mut notes);
    }
    let first = objects.sets.iter().find(|s| s.kind == Kind::Icsp).or(objects.sets.first());
    let first = first.map(|set| set.name.value.clone()).unwrap_or_default();
    let text = apply(text, &edits);
    Ok(Migrated { file_name: file_name(&first, &text), text, notes })
}

fn edits_of(text: &str, node: &Node) -> Vec<Edit> {
    if node.get("kind").and_then(Node::as_text) != Some(Kind::Icsp.as_str()) {
        return Vec::new();
    }
    let mut edits = Vec::new();
    for (key, to) in [("apiVersion", Kind::Idms.api_version()), ("kind", Kind::Idms.as_str())] {
        if let Some(value) = node.get(key) {
            edits.push(Edit::replace(value.mark.range(), requote(&text[value.mark.range()], to)));
        }
    }
    for (key, _) in node.get("spec").and_then(Node::as_map).unwrap_or_default() {
        if key.text == Kind::Icsp.list() {
            edits.push(Edit::replace(key.mark.range(), requote(&text[key.mark.range()], Kind::Idms.list())));
        }
    }
    edits
}

/// The new text in the quotes of the old.
pub(crate) fn requote(old: &str, new: &str) -> String {
    match old.chars().next() {
        Some(quote @ ('"' | '\'')) => format!("{quote}{new}{quote}"),
        _ => scalar(new),
    }
}

/// What belongs to the cluster that the object was read from goes; mirrors that the API would refuse as duplicates too.
fn clean(text: &str, name: &str, set: &MirrorSet, edits: &mut Vec<Edit>, notes: &mut Vec<Note>) {
    if set.kind != Kind::Icsp {
        return;
    }
    for (field, mark, (start, end)) in &set.server_side {
        if owns_lines(text, *start) {
            edits.push(Edit::delete_lines(text, &(*start..*end)));
            let message = format!("`metadata.{field}` removed: it belongs to the cluster it was read from");
            notes.push(Note { at: format!("{name}:{}", mark.line), message });
        }
    }
    for entry in &set.entries {
        for (at, mirror) in entry.mirrors.iter().enumerate() {
            let repeated = entry.mirrors[..at].iter().any(|earlier| earlier.value == mirror.value);
            if repeated && crate::edit::is_own_item(text, &mirror.mark.range()) {
                edits.push(Edit::delete_lines(text, &mirror.mark.range()));
                let message = format!("`{}` removed: an IDMS lists each mirror once", mirror.value);
                notes.push(Note { at: format!("{name}:{}", mirror.mark.line), message });
            }
        }
    }
}

/// Whether a key begins its line: block style, so that deleting lines deletes the field.
pub(crate) fn owns_lines(text: &str, start: usize) -> bool {
    text[crate::edit::line_start(text, start)..start].trim().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ICSP: &str = "# our first\napiVersion: operator.openshift.io/v1alpha1 # old\nkind: ImageContentSourcePolicy\nmetadata:\n  name: ubi8repo\n  uid: \"1\"\nspec:\n  repositoryDigestMirrors:\n  # the fast one\n  - mirrors:\n    - example.io/a\n    - example.io/a\n    source: registry.access.redhat.com/ubi8/ubi-minimal\n    note: kept\n";

    #[test]
    fn comments_and_unknown_fields_stay() {
        let migrated = migrate("a.yaml", ICSP, Style::Keep).expect("migrates");
        let wanted = ICSP
            .replace("operator.openshift.io/v1alpha1", "config.openshift.io/v1")
            .replace("ImageContentSourcePolicy", "ImageDigestMirrorSet")
            .replace("repositoryDigestMirrors", "imageDigestMirrors")
            .replace("  uid: \"1\"\n", "")
            .replacen("    - example.io/a\n", "", 1);
        assert_eq!(migrated.text, wanted);
        assert_eq!(migrated.notes.len(), 3, "{:?}", migrated.notes);
        assert!(migrated.file_name.starts_with("imagedigestmirrorset_ubi8repo."), "{}", migrated.file_name);
        assert!(migrated.file_name.ends_with(".yaml"));
    }

    #[test]
    fn as_oc_what_is_unknown_is_lost_and_what_is_no_icsp_is_refused() {
        let text = migrate("a.yaml", ICSP, Style::Oc).expect("migrates").text;
        assert!(text.contains("    uid: \"1\"\n") && !text.contains("note") && !text.contains('#'), "{text}");
        for (text, said) in [
            ("", "no data found"),
            ("---\n", "could not decode"),
            ("apiVersion: v1\nkind: List\nitems: []\n", "could not decode"),
            ("kind: ImageContentSourcePolicy\nmetadata: {name: a}\n", "could not decode"),
        ] {
            let problems = migrate("a.yaml", text, Style::Oc).expect_err(text);
            assert!(problems.0[0].message.contains(said), "{text}: {problems}");
        }
    }

    #[test]
    fn lists_are_taken_in_place() {
        let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: operator.openshift.io/v1alpha1\n  kind: ImageContentSourcePolicy\n  metadata: {name: a}\n  spec:\n    \"repositoryDigestMirrors\": []\n";
        let text = migrate("a.yaml", list, Style::Keep).expect("migrates").text;
        assert!(text.contains("kind: ImageDigestMirrorSet") && text.contains("\"imageDigestMirrors\": []"), "{text}");
    }
}
