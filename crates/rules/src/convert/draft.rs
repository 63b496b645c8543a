//! New objects as YAML: sorted or grouped, the same input always the same bytes.

use airlock_document::scalar;
use serde::Serialize;

use crate::objects::{Kind, Policy, Pull};

/// A mirror set to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Draft {
    /// `kind`.
    #[serde(serialize_with = "kind_name")]
    pub kind: Kind,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.labels`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(String, String)>,
    /// `metadata.annotations`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<(String, String)>,
    /// In the order in which they are written.
    pub entries: Vec<DraftEntry>,
}

/// An entry to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DraftEntry {
    /// A comment above it, without `#`; several lines are several comments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What pulls must name.
    pub source: String,
    /// Where they go instead.
    pub mirrors: Vec<String>,
    /// NeverContactSource.
    pub never: bool,
}

fn kind_name<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

impl Draft {
    /// An IDMS `<prefix>-digest` or an ITMS `<prefix>-tag`.
    pub fn for_pull(prefix: &str, pull: Pull, entries: Vec<DraftEntry>) -> Self {
        let kind = match pull {
            Pull::Digest => Kind::Idms,
            Pull::Tag => Kind::Itms,
        };
        let name = format!("{prefix}-{}", pull.as_str());
        Self { kind, name, labels: Vec::new(), annotations: Vec::new(), entries }
    }

    /// The object as one YAML document, with its separator.
    pub fn yaml(&self) -> String {
        let mut out = format!(
            "---\napiVersion: {}\nkind: {}\nmetadata:\n  name: {}\n",
            self.kind.api_version(),
            self.kind.as_str(),
            self.name
        );
        for (field, words) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            if !words.is_empty() {
                out.push_str(&format!("  {field}:\n"));
            }
            for (key, value) in words {
                out.push_str(&format!("    {key}: {}\n", serde_json::Value::from(value.as_str())));
            }
        }
        out.push_str(&format!("spec:\n  {}:\n", self.kind.list()));
        out.extend(self.entries.iter().map(|entry| entry.yaml(self.kind, "  ")));
        out
    }
}

impl DraftEntry {
    /// The entry as an item of the list of an object of this kind, whose items stand behind `indent`.
    pub(super) fn yaml(&self, kind: Kind, indent: &str) -> String {
        let mut out = String::new();
        for line in self.comment.iter().flat_map(|c| c.lines()) {
            out.push_str(&format!("{indent}# {line}\n"));
        }
        out.push_str(&format!("{indent}- source: {}\n", scalar(&self.source)));
        if !self.mirrors.is_empty() {
            out.push_str(&format!("{indent}  mirrors:\n"));
        }
        for mirror in &self.mirrors {
            out.push_str(&format!("{indent}  - {}\n", scalar(mirror)));
        }
        if self.never && kind != Kind::Icsp {
            out.push_str(&format!("{indent}  mirrorSourcePolicy: {}\n", Policy::NeverContactSource.as_str()));
        }
        out
    }
}

/// One text of several documents; objects without entries are left out.
pub fn documents(drafts: &[Draft]) -> String {
    drafts.iter().filter(|d| !d.entries.is_empty()).map(Draft::yaml).collect()
}
