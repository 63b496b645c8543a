//! What is kept of an archive's plan while the archive is served or loaded: names, not the graph.
//!
//! A plan tells every blob of every image; of an archive of 100 GB that is 20 MB of text. All of it is read and must make sense, but of
//! its parts only a few outlive the reading.

use std::fmt;
use std::marker::PhantomData;

use airlock_oci::{Digest, Reference, Repository};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::model::{Attachment, BlobNode, Catalog, Image, Kind, ManifestNode, Missing, Release};

/// What is kept of a plan.
#[derive(Debug)]
pub struct Outline {
    /// By source; those of one source in the order of the plan.
    images: Box<[Planned]>,
    /// Releases.
    pub releases: Vec<Release>,
    /// What was asked for and could not be had.
    pub missing: Vec<Missing>,
}

/// What is kept of an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "Image")]
pub struct Planned {
    /// What the source is asked by.
    pub source: Reference,
    /// What that stood for when the plan was made.
    pub digest: Digest,
    /// Repository at the destination.
    pub repository: Repository,
    /// Signatures and other referrers.
    pub attachments: Vec<Attachment>,
    /// It is a catalog, chosen or as published: what it will be is decided anew by who loads it.
    pub is_catalog: bool,
}

/// A list or map whose items must make sense, and of which nothing is kept.
struct Passed<K, V = ()>(PhantomData<(K, V)>);

/// The form of a plan, by its name since refusals name it. It refuses what [`Plan`](super::Plan) refuses.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    images: Vec<Planned>,
    #[serde(rename = "manifests", deserialize_with = "map")]
    _manifests: Passed<Digest, ManifestNode>,
    #[serde(rename = "blobs", deserialize_with = "map")]
    _blobs: Passed<Digest, BlobNode>,
    #[serde(default)]
    releases: Vec<Release>,
    #[serde(default, rename = "catalogs", deserialize_with = "list")]
    _catalogs: Passed<Catalog>,
    missing: Vec<Missing>,
}

impl From<Image> for Planned {
    fn from(image: Image) -> Self {
        let Image { source, digest, repository, attachments, kind, original, .. } = image;
        Self { source, digest, repository, attachments, is_catalog: original || kind == Kind::Catalog }
    }
}

impl Outline {
    /// All images, by source.
    pub fn images(&self) -> &[Planned] {
        &self.images
    }

    /// The images that a source stands for, in the order of the plan; the first is what its name meant.
    pub fn named(&self, source: &Reference) -> &[Planned] {
        let from = self.images.partition_point(|image| image.source < *source);
        let count = self.images[from..].partition_point(|image| image.source == *source);
        &self.images[from..from + count]
    }
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Plan { mut images, releases, missing, .. } = Plan::deserialize(deserializer)?;
        images.sort_by(|a, b| a.source.cmp(&b.source));
        Ok(Self { images: images.into_boxed_slice(), releases, missing })
    }
}

impl<K, V> Default for Passed<K, V> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

fn map<'de, D, K, V>(deserializer: D) -> Result<Passed<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de>,
    V: Deserialize<'de>,
{
    deserializer.deserialize_map(Passed::default())
}

fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Passed<T>, D::Error> {
    deserializer.deserialize_seq(Each(PhantomData))
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Visitor<'de> for Passed<K, V> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<K, V>()?.is_some() {}
        Ok(self)
    }
}

/// Goes through a list.
struct Each<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Each<T> {
    type Value = Passed<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Passed<T>, A::Error> {
        while list.next_element::<T>()?.is_some() {}
        Ok(Passed::default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use airlock_oci::{MediaType, Tag};
    use serde_json::{Value, json};

    use super::super::model::{AttachmentKind, Kind, Package, Reason};
    use super::super::{Missing, Plan};
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn image(source: &str, repository: &str, content: &str) -> Image {
        let source: Reference = source.parse().unwrap();
        Image {
            name: source.to_string(),
            source,
            place: None,
            kind: Kind::Additional,
            reasons: vec![Reason { file: "isc.yaml".into(), line: 7, what: "additionalImages".into() }],
            digest: digest(content),
            repository: Repository::new(repository).unwrap(),
            tag: Tag::new("v1").unwrap(),
            platforms: Vec::new(),
            nodes: vec![digest(content)],
            attachments: vec![Attachment {
                kind: AttachmentKind::Signature,
                subject: digest(content),
                digest: digest("signature"),
                tag: None,
                nodes: vec![digest("signature")],
            }],
            needs: Vec::new(),
            original: false,
        }
    }

    /// A plan that has something of everything.
    fn plan() -> Plan {
        let node = ManifestNode {
            media_type: MediaType::from("application/vnd.oci.image.manifest.v1+json"),
            size: 400,
            children: vec![digest("child")],
            blobs: vec![digest("layer")],
            left_out: Vec::new(),
            foreign: Vec::new(),
        };
        let source: Reference = "quay.io/world/catalog:v1".parse().unwrap();
        let (repository, tag) = (Repository::new("world/catalog").unwrap(), Tag::new("v1").unwrap());
        Plan {
            images: vec![
                image("quay.io/world/z:v1", "world/z", "z"),
                image("quay.io/world/app:v1", "second/place", "app, first"),
                image("quay.io/world/app:v1", "first/place", "app, second"),
                image(
                    "quay.io/world/app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                    "a",
                    "",
                ),
            ],
            manifests: BTreeMap::from([(digest("z"), node.clone()), (digest("child"), node)]),
            blobs: BTreeMap::from([(digest("layer"), BlobNode { size: 9, media_type: MediaType::from("x/y") })]),
            releases: vec![Release {
                version: "4.18.3".into(),
                architecture: "amd64".into(),
                digest: digest("z"),
                source: source.clone(),
                tag: tag.clone(),
                signature: None,
                reasons: Vec::new(),
            }],
            catalogs: vec![Catalog {
                name: "c".into(),
                source,
                published: digest("c"),
                digest: digest("c"),
                repository,
                tag,
                rules: "table".into(),
                whole: false,
                packages: BTreeMap::from([("p".into(), Package::default())]),
            }],
            missing: vec![Missing {
                name: "quay.io/world/gone:v1".into(),
                kind: Kind::Additional,
                reasons: Vec::new(),
                code: "network".into(),
                cause: String::new(),
                hint: None,
            }],
            ..Plan::new()
        }
    }

    fn outline(bytes: &[u8]) -> Result<Outline, String> {
        serde_json::from_reader(std::io::BufReader::with_capacity(16, bytes)).map_err(|e| e.to_string())
    }

    #[test]
    fn an_outline_is_what_the_plan_says_of_images_releases_and_what_is_missing() {
        let plan = plan();
        let outline = outline(&plan.to_json()).unwrap();
        assert_eq!((&outline.releases, &outline.missing), (&plan.releases, &plan.missing));
        assert_eq!(outline.images().len(), plan.images.len());
        for image in &plan.images {
            let expected: Vec<Planned> =
                plan.images.iter().filter(|other| other.source == image.source).cloned().map(Planned::from).collect();
            assert_eq!(outline.named(&image.source), expected, "in the order of the plan");
        }
        assert_eq!(outline.named(&plan.images[1].source)[0].repository.as_str(), "second/place");
        for unknown in ["quay.io/world/app:v2", "quay.io/world/app", "a.example/a:v1", "z.example/z:v1"] {
            assert!(outline.named(&unknown.parse().unwrap()).is_empty(), "{unknown}");
        }
    }

    /// Every place of a document where a value stands.
    fn places(value: &Value, at: &str, all: &mut Vec<String>) {
        all.push(at.to_owned());
        match value {
            Value::Object(map) => map.iter().for_each(|(key, v)| places(v, &format!("{at}/{key}"), all)),
            Value::Array(list) => list.iter().enumerate().for_each(|(n, v)| places(v, &format!("{at}/{n}"), all)),
            _ => {}
        }
    }

    #[test]
    fn an_outline_refuses_what_the_plan_refuses_in_the_same_words() {
        let good: Value = serde_json::from_slice(&plan().to_json()).unwrap();
        let mut all = Vec::new();
        places(&good, "", &mut all);
        let same = |text: &[u8], what: &str| {
            // Read in the same way: of a text at hand serde counts some columns differently.
            let whole = serde_json::from_reader::<_, Plan>(text).map(|_| ()).map_err(|e| e.to_string());
            assert_eq!(outline(text).map(|_| ()), whole, "{what}");
            whole.is_err()
        };
        let mut refused = 0;
        for place in &all {
            for other in
                [json!(null), json!(7), json!(-1), json!("x"), json!([]), json!({}), json!([7]), json!({"x": 7})]
            {
                let mut changed = good.clone();
                *changed.pointer_mut(place).unwrap() = other;
                refused += usize::from(same(&serde_json::to_vec(&changed).unwrap(), place));
            }
            let Some((above, key)) = place.rsplit_once('/') else { continue };
            let mut without = good.clone();
            if let Some(map) = without.pointer_mut(above).and_then(Value::as_object_mut) {
                map.remove(key);
                refused += usize::from(same(&serde_json::to_vec(&without).unwrap(), place));
            }
        }
        assert!(refused > all.len(), "{refused} of {}", all.len());
        let text = plan().to_json();
        for cut in 0..text.len() - 2 {
            assert!(same(&text[..cut], "cut"), "{cut}");
        }
        for tail in ["x", "{}", "]"] {
            assert!(same(&[&text[..], tail.as_bytes()].concat(), tail));
        }
        let deep = format!("{{\"more\": {}", "[".repeat(100_000));
        assert!(same(deep.as_bytes(), "deep"));
        let text = String::from_utf8(text).unwrap();
        for (key, again) in
            [("images", "[]"), ("manifests", "{}"), ("blobs", "{}"), ("catalogs", "[]"), ("kind", "\"\"")]
        {
            assert!(same(text.replacen('{', &format!("{{\"{key}\": {again},"), 1).as_bytes(), key), "{key} twice");
        }
    }
}
