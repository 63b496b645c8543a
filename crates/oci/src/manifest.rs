//! Manifests: the bytes as received, and a view of what they name.
//!
//! The bytes are the content; nothing here ever serialises a manifest. The view is what the engine needs: which blobs and
//! which other manifests must be there first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use crate::{Algorithm, Descriptor, Digest, Error, ErrorKind, media_type};

/// The largest manifest that is read or written (what docker distribution and zot take; registry.md a.4).
pub const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;

/// The largest blob size that is believed (1 PiB). Larger numbers are a mistake or an attack on whoever reserves space.
pub const MAX_BLOB_BYTES: u64 = 1 << 50;

/// A manifest or index: bytes, address and view.
///
/// * `digest` is the digest of `bytes`.
/// * Every descriptor's size is at most [`MAX_BLOB_BYTES`], and no digest occurs with two sizes.
#[derive(Clone, Debug)]
pub struct Manifest {
    bytes: Bytes,
    digest: Digest,
    media_type: String,
    self_described: bool,
    /// Shared, so that a clone costs little.
    view: Arc<View>,
}

/// Which of the field's shapes a manifest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A config and layers (OCI image manifest, also of an artifact; Docker schema 2).
    Image,
    /// Names other manifests (OCI index, Docker manifest list).
    Index,
    /// The withdrawn OCI artifact manifest: blobs without a config.
    Artifact,
}

#[derive(Clone, Debug)]
struct View {
    shape: Shape,
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
    children: Vec<Descriptor>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    blobs: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
    subject: Option<Descriptor>,
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Reads a manifest, addressed by SHA-256. `declared` is the media type the place gave (`Content-Type`), used where the
    /// bytes do not say it themselves.
    pub fn parse(bytes: Bytes, declared: Option<&str>) -> Result<Self, Error> {
        let digest = Digest::of(&bytes);
        Self::build(bytes, declared, digest)
    }

    /// Reads a manifest that must have this digest.
    pub fn parse_expecting(bytes: Bytes, declared: Option<&str>, expected: &Digest) -> Result<Self, Error> {
        let digest = Digest::of_with(expected.algorithm(), &bytes);
        if digest != *expected {
            return Err(Error::new(
                ErrorKind::Content,
                format!("read manifest `{expected}`"),
                format!("the bytes have the digest `{digest}`"),
            ));
        }
        Self::build(bytes, declared, digest)
    }

    fn build(bytes: Bytes, declared: Option<&str>, digest: Digest) -> Result<Self, Error> {
        let what = || format!("read manifest `{digest}`");
        let unsupported = |cause: String| Error::new(ErrorKind::Unsupported, what(), cause);
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(unsupported(format!(
                "it has {} bytes; registries take at most {MAX_MANIFEST_BYTES}",
                bytes.len()
            )));
        }
        let wire: Wire = serde_json::from_slice(&bytes)
            .map_err(|e| Error::new(ErrorKind::Content, what(), format!("not a manifest: {e}")))?;
        let declared = declared.map(|d| d.split(';').next().unwrap_or(d).trim()).filter(|d| !d.is_empty());
        let named = wire.media_type.as_deref().or(declared);
        if wire.schema_version == Some(1) || wire.fs_layers.is_some() || named.is_some_and(media_type::is_schema1) {
            return Err(unsupported(
                "it is a Docker schema 1 manifest, a format that current registries and clusters refuse".into(),
            )
            .hint(
                "push the image again with a current tool, for example `skopeo copy --format v2s2`, and mirror that",
            ));
        }
        let shape = match (&wire.manifests, &wire.layers, &wire.config, &wire.blobs) {
            (Some(_), None, None, _) => Shape::Index,
            (None, _, Some(_), _) | (None, Some(_), _, _) => Shape::Image,
            (None, None, None, Some(_)) => Shape::Artifact,
            // An old artifact manifest may have no blobs; only its type tells.
            (None, None, None, None) if named == Some(media_type::OCI_ARTIFACT) => Shape::Artifact,
            (Some(_), _, _, _) => {
                return Err(unsupported("it has both `manifests` and `layers` or `config`".into())
                    .hint("an index must not also be an image (CVE-2021-41190); ask whoever published it"));
            }
            (None, None, None, None) => {
                return Err(unsupported(format!(
                    "unknown kind of manifest{}",
                    named.map(|n| format!(" (`{n}`)")).unwrap_or_default()
                )));
            }
        };
        let implied = match shape {
            Shape::Index => media_type::OCI_INDEX,
            Shape::Image => media_type::OCI_MANIFEST,
            Shape::Artifact => media_type::OCI_ARTIFACT,
        };
        // Of bytes without any of the fields only the declared type tells what they are.
        let tells = wire.media_type.is_some() || shape != Shape::Artifact || wire.blobs.is_some();
        let media_type = match (wire.media_type.clone(), declared) {
            (Some(own), _) => own,
            (None, Some(declared)) if media_type::is_manifest(declared) => declared.to_owned(),
            (None, _) => implied.to_owned(),
        };
        let self_described = tells && (wire.media_type.is_some() || media_type == implied);
        let view = View {
            shape,
            config: wire.config,
            layers: wire.layers.or(wire.blobs).unwrap_or_default(),
            children: wire.manifests.unwrap_or_default(),
            subject: wire.subject,
            artifact_type: wire.artifact_type,
            annotations: wire.annotations.unwrap_or_default(),
        };
        let manifest = Self { bytes, digest, media_type, self_described, view: Arc::new(view) };
        manifest.check_sizes()?;
        Ok(manifest)
    }

    fn check_sizes(&self) -> Result<(), Error> {
        let mut sizes: HashMap<&Digest, u64> = HashMap::new();
        for descriptor in self.blobs().chain(self.children()) {
            let fail = |cause: String| {
                Error::new(ErrorKind::Content, format!("read manifest `{}`", self.digest), cause)
                    .hint("the image was published wrong; ask its publisher for a corrected one")
            };
            if descriptor.size > MAX_BLOB_BYTES {
                return Err(fail(format!(
                    "`{}` claims an absurd size of {} bytes",
                    descriptor.digest, descriptor.size
                )));
            }
            if let Some(other) = sizes.insert(&descriptor.digest, descriptor.size)
                && other != descriptor.size
            {
                return Err(fail(format!(
                    "`{}` occurs with two sizes, {other} and {} bytes",
                    descriptor.digest, descriptor.size
                )));
            }
        }
        Ok(())
    }

    /// Exactly what was received.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The address of [`Self::bytes`].
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// The manifest's own media type, or that under which it was served, or the one its shape implies.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Whether its bytes alone tell the media type: parsed again, without where it came from, it is the same.
    pub fn is_self_described(&self) -> bool {
        self.self_described
    }

    /// A descriptor of this manifest.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.digest.clone(), self.bytes.len() as u64)
    }

    /// Which of the shapes it has.
    pub fn shape(&self) -> Shape {
        self.view.shape
    }

    /// The config, if it is an image.
    pub fn config(&self) -> Option<&Descriptor> {
        self.view.config.as_ref()
    }

    /// The layers of an image or the blobs of an artifact, in order (one may occur twice).
    pub fn layers(&self) -> &[Descriptor] {
        &self.view.layers
    }

    /// Everything that is a blob: the config, then the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.view.config.iter().chain(&self.view.layers)
    }

    /// The manifests that an index names.
    pub fn children(&self) -> &[Descriptor] {
        &self.view.children
    }

    /// The manifest that this one refers to (signature, SBOM, …).
    pub fn subject(&self) -> Option<&Descriptor> {
        self.view.subject.as_ref()
    }

    /// What kind of artifact this is, as the referrers API reports it: its own `artifactType`, else the config's media type for an
    /// image manifest (distribution-spec, "Listing Referrers").
    pub fn artifact_type(&self) -> Option<&str> {
        self.view.artifact_type.as_deref().or_else(|| match self.view.shape {
            Shape::Image => self.view.config.as_ref().map(|c| c.media_type.as_str()),
            Shape::Index | Shape::Artifact => None,
        })
    }

    /// The manifest's annotations.
    pub fn annotations(&self) -> &BTreeMap<String, String> {
        &self.view.annotations
    }

    /// Whether the algorithm of the address is the common one.
    pub fn is_sha256(&self) -> bool {
        self.digest.algorithm() == Algorithm::Sha256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

    fn parse(text: &str) -> Result<Manifest, Error> {
        Manifest::parse(Bytes::copy_from_slice(text.as_bytes()), None)
    }

    fn image(layers: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"x":[1],"config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{EMPTY}","size":2}},"layers":[{layers}]}}"#
        )
    }

    #[test]
    fn the_bytes_stay_and_the_type_follows_from_the_shape() {
        let text = image("");
        let manifest = parse(&text).unwrap();
        assert_eq!(manifest.bytes(), text.as_bytes());
        assert_eq!(manifest.media_type(), media_type::OCI_MANIFEST);
        assert_eq!(manifest.artifact_type(), Some(media_type::OCI_EMPTY));
        let index = parse(r#"{"schemaVersion":2,"manifests":[]}"#).unwrap();
        assert_eq!((index.shape(), index.media_type()), (Shape::Index, media_type::OCI_INDEX));
    }

    #[test]
    fn what_is_self_described_is_the_same_wherever_it_came_from() {
        let typed = |own: &str| format!(r#"{{"schemaVersion":2,"mediaType":"{own}","manifests":[]}}"#);
        let texts = [
            image(""),
            r#"{"schemaVersion":2,"manifests":[]}"#.into(),
            r#"{"blobs":[]}"#.into(),
            "{}".into(),
            typed(media_type::OCI_INDEX),
            typed("application/vnd.docker.distribution.manifest.list.v2+json"),
            format!(r#"{{"mediaType":"{}"}}"#, media_type::OCI_ARTIFACT),
        ];
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        let mut told = 0;
        for text in &texts {
            for declared in [None, Some(docker), Some(media_type::OCI_MANIFEST), Some(media_type::OCI_ARTIFACT)] {
                let Ok(manifest) = Manifest::parse(Bytes::from(text.clone()), declared) else { continue };
                let again = Manifest::parse(manifest.bytes().clone(), None);
                let same = again.is_ok_and(|again| again.media_type() == manifest.media_type());
                assert_eq!(manifest.is_self_described(), same, "{text} as {declared:?}");
                told += usize::from(same);
            }
        }
        assert!(told > 8);
    }

    #[test]
    fn the_type_under_which_it_was_served_is_used_where_the_bytes_do_not_say_one() {
        let bytes = Bytes::from(image(""));
        let manifest =
            Manifest::parse(bytes, Some("application/vnd.docker.distribution.manifest.v2+json; charset=utf-8"));
        assert_eq!(manifest.unwrap().media_type(), media_type::DOCKER_MANIFEST);
    }

    #[test]
    fn wrong_sizes_are_errors_of_the_image() {
        let layer = |size: &str| format!(r#"{{"mediaType":"a/b","digest":"{EMPTY}","size":{size}}}"#);
        for (size, text) in [("3", "two sizes"), ("-1", "not a manifest"), ("99999999999999999", "absurd")] {
            let error = parse(&image(&layer(size))).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Content, "{size}");
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn schema_one_is_refused_by_name_with_the_way_out() {
        let error = parse(r#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#).unwrap_err();
        assert!(error.to_string().contains("schema 1"), "{error}");
        assert!(error.hint_text().unwrap().contains("skopeo"));
    }

    #[test]
    fn an_index_that_is_also_an_image_is_refused() {
        let text = image("").replace("\"layers\"", "\"manifests\":[],\"layers\"");
        assert_eq!(parse(&text).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn oversized_manifests_are_refused() {
        let bytes = Bytes::from(vec![b' '; MAX_MANIFEST_BYTES + 1]);
        assert_eq!(Manifest::parse(bytes, None).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
