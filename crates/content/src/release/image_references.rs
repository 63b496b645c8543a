//! `release-manifests/image-references`: which image is which component (updates-and-releases.md 5.2).

use std::collections::{BTreeMap, BTreeSet};

use airlock_oci::{Error, ErrorKind, Reference};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The components of a release, sorted by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageReferences {
    /// The version, `4.12.0`; usually. What counts is the metadata's.
    pub name: String,
    /// When the release was put together, RFC 3339.
    pub created: Option<String>,
    /// Notes, such as `release.openshift.io/from-release`.
    pub annotations: BTreeMap<String, String>,
    /// Each image once, sorted by name.
    pub components: Vec<Component>,
}

/// One image of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// `etcd`, `cli`, `machine-os-content`, …
    pub name: String,
    /// Where it lies upstream, by digest.
    pub image: Reference,
    /// What its image says of itself, such as `io.openshift.build.commit.id`.
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageStream {
    kind: Option<String>,
    api_version: Option<String>,
    #[serde(default)]
    metadata: Meta,
    spec: Option<Spec>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    name: Option<String>,
    creation_timestamp: Option<String>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Spec {
    tags: Option<Vec<Tag>>,
}

#[derive(Deserialize)]
struct Tag {
    name: String,
    from: Option<From>,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct From {
    kind: Option<String>,
    name: Option<String>,
}

impl ImageReferences {
    /// Reads the file's bytes. `what` names the release in errors.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self, Error> {
        let fail = |cause: String| {
            Error::new(ErrorKind::Content, format!("read `image-references` of the release `{what}`"), cause)
        };
        let stream: ImageStream = serde_json::from_slice(bytes).map_err(|e| fail(e.to_string()))?;
        let (kind, version) =
            (stream.kind.as_deref().unwrap_or_default(), stream.api_version.as_deref().unwrap_or_default());
        if (kind, version) != ("ImageStream", "image.openshift.io/v1") {
            return Err(fail(format!("it is `{kind}` of `{version}`, not an ImageStream of `image.openshift.io/v1`")));
        }
        let mut components = Vec::new();
        for tag in stream.spec.and_then(|s| s.tags).unwrap_or_default() {
            // A tag that stands for no image, or for another tag, is skipped by every reader.
            let Some(From { kind, name: Some(image) }) = tag.from else { continue };
            if kind.as_deref() != Some("DockerImage") {
                continue;
            }
            let reference: Reference =
                image.parse().map_err(|e| fail(format!("the component `{}` is `{image}`: {e}", tag.name)))?;
            if reference.digest().is_none() {
                let cause = format!("the component `{}` is `{image}`, without a digest", tag.name);
                return Err(fail(cause)
                    .hint("a release whose components are not named by digest is not fixed by its own digest; ask its publisher"));
            }
            let annotations = tag.annotations.unwrap_or_default();
            components.push(Component { name: tag.name, image: reference, annotations });
        }
        components.sort_by(|a: &Component, b| a.name.cmp(&b.name));
        let mut names = BTreeSet::new();
        if let Some(twice) = components.iter().find(|c| !names.insert(&c.name)) {
            return Err(fail(format!("the component `{}` occurs twice", twice.name)));
        }
        Ok(Self {
            name: stream.metadata.name.unwrap_or_default(),
            created: stream.metadata.creation_timestamp,
            annotations: stream.metadata.annotations.unwrap_or_default(),
            components,
        })
    }

    /// The component of this name.
    pub fn component(&self, name: &str) -> Option<&Component> {
        let found = self.components.binary_search_by(|c| c.name.as_str().cmp(name)).ok()?;
        self.components.get(found)
    }
}

impl Component {
    /// An annotation that is not empty.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }
}

/// The file as it is, for whoever prints it.
pub(super) fn raw(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn stream(tags: &str) -> String {
        format!(
            r#"{{"kind":"ImageStream","apiVersion":"image.openshift.io/v1","metadata":{{"name":"4.1.0"}},"spec":{{"tags":[{tags}]}}}}"#
        )
    }

    fn tag(name: &str, image: &str) -> String {
        format!(r#"{{"name":"{name}","from":{{"kind":"DockerImage","name":"{image}"}},"annotations":null}}"#)
    }

    fn parse(text: &str) -> Result<ImageReferences, Error> {
        ImageReferences::parse(text.as_bytes(), "q/r:1")
    }

    #[test]
    fn components_are_sorted_and_tags_without_an_image_skipped() {
        let tags = [
            tag("b", &format!("q.io/r@{DIGEST}")),
            tag("a", &format!("q.io/r@{DIGEST}")),
            r#"{"name":"none","from":null}"#.to_owned(),
            r#"{"name":"other","from":{"kind":"ImageStreamTag","name":"x:y"}}"#.to_owned(),
        ];
        let read = parse(&stream(&tags.join(","))).unwrap();
        assert_eq!(read.components.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(read.component("b").unwrap().image.digest().unwrap().to_string(), DIGEST);
        assert!(read.component("none").is_none());
    }

    #[test]
    fn what_is_not_fixed_by_a_digest_is_refused() {
        for image in ["q.io/r:1", "q.io/r", "Q.io/R:"] {
            let error = parse(&stream(&tag("etcd", image))).unwrap_err();
            assert!(error.to_string().contains("etcd"), "{error}");
        }
        let twice = [tag("a", &format!("q.io/r@{DIGEST}")), tag("a", &format!("q.io/s@{DIGEST}"))];
        assert!(parse(&stream(&twice.join(","))).unwrap_err().to_string().contains("twice"));
    }

    #[test]
    fn another_kind_of_document_is_refused_by_name() {
        let error = parse(&stream("").replace("ImageStream", "ConfigMap")).unwrap_err();
        assert!(error.to_string().contains("ConfigMap"), "{error}");
        assert!(parse("{}").is_err() && parse("not json").is_err());
    }
}
