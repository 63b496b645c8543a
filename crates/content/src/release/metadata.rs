//! `release-manifests/release-metadata`: version, and what it updates from (updates-and-releases.md 2.2).

use std::collections::BTreeMap;

use airlock_oci::{Error, ErrorKind};
use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The only format there is.
const KIND: &str = "cincinnati-metadata-v0";
/// In the metadata of a release that is for several architectures at once.
const ARCHITECTURE: &str = "release.openshift.io/architecture";

/// What a release says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// `cincinnati-metadata-v0`.
    pub kind: String,
    /// The version, without an architecture.
    pub version: Version,
    /// Versions that may update to this one, as they are written.
    #[serde(default, deserialize_with = "list")]
    pub previous: Vec<Version>,
    /// Versions that this one may update to; hardly ever used.
    #[serde(default, deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<Version>,
    /// `url` (the erratum), `description`, keys of the update graph.
    #[serde(default, deserialize_with = "map", skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, Value>,
}

fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Version>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn map<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Value>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Metadata {
    /// Reads the file's bytes. `what` names the release in errors.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self, Error> {
        let fail = |cause: String| {
            Error::new(ErrorKind::Content, format!("read `release-metadata` of the release `{what}`"), cause)
        };
        let metadata: Self = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
        if metadata.kind != KIND {
            return Err(fail(format!("its kind is `{}`; `{KIND}` is known", metadata.kind)));
        }
        Ok(metadata)
    }

    /// Whether the release is for several architectures at once: its components are then indexes.
    pub fn is_multi(&self) -> bool {
        self.text(ARCHITECTURE) == Some("multi")
    }

    /// Where the erratum is described.
    pub fn url(&self) -> Option<&str> {
        self.text("url")
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).and_then(Value::as_str).filter(|v| !v.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_lists_and_unknown_fields_are_read() {
        let text = br#"{"kind":"cincinnati-metadata-v0","version":"4.20.0-ec.1","previous":null,"x":1,
            "metadata":{"url":"https://e","release.openshift.io/architecture":"multi","n":3}}"#;
        let metadata = Metadata::parse(text, "r").unwrap();
        assert_eq!((metadata.version.to_string().as_str(), metadata.previous.len()), ("4.20.0-ec.1", 0));
        assert!(metadata.is_multi());
        assert_eq!(metadata.url(), Some("https://e"));
    }

    #[test]
    fn another_kind_and_a_version_that_is_none_are_refused() {
        for (text, says) in [
            (r#"{"kind":"cincinnati-metadata-v1","version":"4.1.0"}"#, "cincinnati-metadata-v1"),
            (r#"{"kind":"cincinnati-metadata-v0","version":"latest"}"#, "unexpected"),
            ("{}", "kind"),
        ] {
            let error = Metadata::parse(text.as_bytes(), "r").unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
