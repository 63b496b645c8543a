//! An OCI image layout directory (image-spec, image-layout.md).
//!
//! ```text
//! oci-layout               {"imageLayoutVersion":"1.0.0"}
//! index.json               the top-level manifests; a tag is the annotation org.opencontainers.image.ref.name
//! blobs/ALG/HEX            every blob and every manifest
//! ```
//!
//! * [`Layout`] reads one. It holds one image, or a few, and no repositories: the registry and the path of a reference are not looked at.
//! * [`Writer`] makes one, or adds to one.

mod writer;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use airlock_oci::sink::ManifestName;
use airlock_oci::{
    BlobStream, Descriptor, Digest, Error, ErrorKind, Found, MAX_MANIFEST_BYTES, Manifest, Place, Reference,
    Repository, Source, Tag,
};
use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use writer::Writer;

use crate::disk;
use crate::source::blocking;
use crate::storage::{Region, Storage};

/// The annotation that holds a top-level manifest's tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// What `oci-layout` must say.
const VERSION: &str = "1.0.0";
/// Manifests that a search for referrers reads at most; an index that names more is not an image.
const MAX_WALKED_MANIFESTS: usize = 100_000;
/// How deep indexes may be nested.
const MAX_DEPTH: usize = 16;

/// An OCI layout directory, for reading.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    manifests: Arc<Vec<Descriptor>>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    image_layout_version: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
    manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

fn blob_path(root: &Path, digest: &Digest) -> PathBuf {
    root.join(format!("blobs/{}/{}", digest.algorithm(), digest.hex()))
}

/// The `index.json` below `root`; `None` when there is none.
fn read_index(root: &Path) -> Result<Option<Index>, Error> {
    let path = root.join("index.json");
    let Some(bytes) = disk::read_small_through_links(&path, MAX_MANIFEST_BYTES)? else { return Ok(None) };
    let index: Index = serde_json::from_slice(&bytes).map_err(|e| {
        Error::new(ErrorKind::Invalid, format!("read `{}`", path.display()), format!("not an image index: {e}"))
    })?;
    Ok(Some(index))
}

fn name_of(descriptor: &Descriptor) -> Option<&str> {
    descriptor.annotations.get(REF_NAME).map(String::as_str)
}

impl Layout {
    /// Opens the layout below `root`.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let what = || format!("open OCI layout `{}`", root.display());
        let path = root.join("oci-layout");
        let Some(bytes) = disk::read_small_through_links(&path, MAX_MANIFEST_BYTES)? else {
            return Err(Error::new(ErrorKind::NotFound, what(), "there is no `oci-layout` file in it"));
        };
        let version: Version = serde_json::from_slice(&bytes).map_err(|e| {
            Error::new(ErrorKind::Invalid, what(), format!("`oci-layout` is not what it should be: {e}"))
        })?;
        if version.image_layout_version.split('.').next() != VERSION.split('.').next() {
            return Err(Error::new(
                ErrorKind::Unsupported,
                what(),
                format!("it has version `{}`; {VERSION} is known", version.image_layout_version),
            ));
        }
        let Some(index) = read_index(root)? else {
            return Err(Error::new(ErrorKind::NotFound, what(), "there is no `index.json` in it"));
        };
        Ok(Self { root: root.to_owned(), manifests: Arc::new(index.manifests) })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The top-level manifests, as `index.json` lists them.
    pub fn manifests(&self) -> &[Descriptor] {
        &self.manifests
    }

    /// The names that top-level manifests have, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.manifests.iter().filter_map(name_of).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The top-level manifest of this name (a tag, or a whole reference as some tools write it). Without a name, or when the only
    /// manifest has none, the only one.
    pub fn find(&self, name: Option<&str>) -> Result<&Descriptor, Error> {
        if let Some(name) = name {
            let mut named = self.manifests.iter().filter(|d| name_of(d) == Some(name));
            // The same name twice is legal; the one added last is meant (what skopeo reads, too, is the last written).
            if let Some(found) = named.next_back() {
                return Ok(found);
            }
        }
        let distinct: HashSet<&Digest> = self.manifests.iter().map(|d| &d.digest).collect();
        if let ([first, ..], 1) = (&self.manifests[..], distinct.len())
            && (name.is_none() || self.names().is_empty())
        {
            return Ok(first);
        }
        let what = match name {
            Some(name) => format!("find `{name}` in OCI layout `{}`", self.root.display()),
            None => format!("find the image in OCI layout `{}`", self.root.display()),
        };
        let names = self.names();
        if self.manifests.is_empty() {
            return Err(Error::new(ErrorKind::NotFound, what, "the layout is empty"));
        }
        let cause = format!("it holds {} manifests", self.manifests.len());
        if names.is_empty() {
            let digests: Vec<String> = self.manifests.iter().map(|d| format!("`{}`", d.digest)).collect();
            return Err(Error::new(ErrorKind::NotFound, what, format!("{cause}, none of them with a name"))
                .hint(format!("choose one by its digest: {}", digests.join(", "))));
        }
        let names: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
        Err(Error::new(ErrorKind::NotFound, what, format!("{cause}, named {}", names.join(", ")))
            .hint("choose one of these names"))
    }

    fn find_reference(&self, name: &Reference) -> Result<&Descriptor, Error> {
        let whole = name.to_string();
        if self.manifests.iter().any(|d| name_of(d) == Some(&whole)) {
            return self.find(Some(&whole));
        }
        self.find(name.tag().map(Tag::as_str))
    }

    fn read_manifest(&self, digest: &Digest, media_type: Option<&str>) -> Result<Option<Manifest>, Error> {
        let Some(bytes) = disk::read_small_through_links(&blob_path(&self.root, digest), MAX_MANIFEST_BYTES)? else {
            return Ok(None);
        };
        Manifest::parse_expecting(Bytes::from(bytes), media_type, digest)
            .map(Some)
            .map_err(|e| e.context(format!("read OCI layout `{}`", self.root.display())))
    }

    fn manifest_of(&self, name: &Reference) -> Result<Manifest, Error> {
        let (digest, media_type) = match name.digest() {
            // A child is named with its type in its index, not here; its own bytes tell as much.
            Some(digest) => {
                let listed = self.manifests.iter().find(|d| d.digest == *digest);
                (digest.clone(), listed.map(|d| d.media_type.as_str()))
            }
            None => {
                let descriptor = self.find_reference(name)?;
                (descriptor.digest.clone(), Some(descriptor.media_type.as_str()))
            }
        };
        self.read_manifest(&digest, media_type)?.ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("read manifest `{digest}` of OCI layout `{}`", self.root.display()),
                "there is no such file below `blobs`",
            )
        })
    }

    fn region(&self, digest: &Digest) -> Result<Option<Region>, Error> {
        let opened = disk::open_through_links(&blob_path(&self.root, digest))?;
        Ok(opened.map(|(file, len)| Region { file: Arc::new(file), offset: 0, len }))
    }

    /// Every manifest that can be reached from `index.json` and is there, with those that name `subject` reported.
    fn referrers_of(&self, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let (mut seen, mut found) = (HashSet::new(), BTreeMap::new());
        let mut open: Vec<(Descriptor, usize)> = self.manifests.iter().map(|d| (d.clone(), 0)).collect();
        while let Some((descriptor, depth)) = open.pop() {
            if depth > MAX_DEPTH || seen.len() > MAX_WALKED_MANIFESTS || !seen.insert(descriptor.digest.clone()) {
                continue;
            }
            let manifest = match self.read_manifest(&descriptor.digest, Some(&descriptor.media_type)) {
                Ok(Some(manifest)) => manifest,
                // What is missing or damaged refers to nothing; whoever needs it as an image hears of it there.
                Ok(None) => continue,
                Err(e) if matches!(e.kind(), ErrorKind::Content | ErrorKind::Unsupported | ErrorKind::Invalid) => {
                    continue;
                }
                Err(e) => return Err(e),
            };
            if manifest.subject().is_some_and(|s| s.digest == *subject) {
                let mut descriptor = manifest.descriptor();
                descriptor.artifact_type = manifest.artifact_type().map(str::to_owned);
                descriptor.annotations = manifest.annotations().clone();
                found.insert(descriptor.digest.clone(), descriptor);
            }
            open.extend(manifest.children().iter().map(|child| (child.clone(), depth + 1)));
        }
        Ok(found.into_values().collect())
    }

    /// The tags of its images.
    pub fn tag_list(&self) -> Vec<Tag> {
        // A name that is a whole reference is no tag.
        self.names().into_iter().filter_map(|name| Tag::new(name).ok()).collect()
    }

    fn found<T>(&self, value: T) -> Found<T> {
        Found { value, place: Place(self.root.display().to_string()) }
    }
}

/// Every repository holds the same: the layout.
impl Storage for Layout {
    fn describe(&self) -> String {
        format!("oci:{}", self.root.display())
    }

    fn repositories(&self) -> Result<Vec<Repository>, Error> {
        let name = self.root.file_name().and_then(|n| n.to_str()).map(str::to_ascii_lowercase);
        let own = name.and_then(|n| Repository::new(&n).ok());
        Ok(own.or_else(|| Repository::new("layout").ok()).into_iter().collect())
    }

    fn tags(&self, _repository: &Repository) -> Result<Option<Vec<Tag>>, Error> {
        Ok(Some(self.tag_list()))
    }

    fn manifest(&self, _repository: &Repository, at: &ManifestName) -> Result<Option<Manifest>, Error> {
        match at {
            ManifestName::Digest(digest) => self.read_manifest(digest, None),
            ManifestName::Tag(tag) => match self.find(Some(tag.as_str())) {
                Ok(descriptor) => self.read_manifest(&descriptor.digest, Some(&descriptor.media_type)),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e),
            },
        }
    }

    fn blob(&self, _repository: &Repository, digest: &Digest) -> Result<Option<Region>, Error> {
        self.region(digest)
    }

    fn referrers(&self, _repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.referrers_of(subject)
    }
}

#[async_trait]
impl Source for Layout {
    fn describe(&self) -> String {
        Storage::describe(self)
    }

    async fn resolve(&self, name: &Reference) -> Result<Found<Digest>, Error> {
        let digest = match name.digest() {
            Some(digest) => digest.clone(),
            None => self.find_reference(name)?.digest.clone(),
        };
        let region = {
            let (layout, digest) = (self.clone(), digest.clone());
            blocking(move || layout.region(&digest)).await?
        };
        match region {
            Some(_) => Ok(self.found(digest)),
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!("find manifest `{digest}` in OCI layout `{}`", self.root.display()),
                "there is no such file below `blobs`",
            )),
        }
    }

    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error> {
        let (layout, name) = (self.clone(), name.clone());
        Ok(self.found(blocking(move || layout.manifest_of(&name)).await?))
    }

    async fn blob(
        &self,
        _name: &Reference,
        blob: &Descriptor,
        offset: u64,
        _near: Option<&Place>,
    ) -> Result<BlobStream, Error> {
        let (layout, digest) = (self.clone(), blob.digest.clone());
        let what = format!("read blob `{digest}` of OCI layout `{}`", self.root.display());
        let Some(region) = blocking(move || layout.region(&digest)).await? else {
            return Err(Error::new(ErrorKind::NotFound, what, "there is no such file below `blobs`"));
        };
        if region.len != blob.size {
            let cause = format!("it has {} bytes, the manifest says {}", region.len, blob.size);
            return Err(Error::new(ErrorKind::Content, what, cause));
        }
        Ok(region.stream(offset, blob.size, what))
    }

    async fn has_blob(&self, _name: &Reference, blob: &Descriptor, _near: Option<&Place>) -> Result<bool, Error> {
        let (layout, blob) = (self.clone(), blob.clone());
        blocking(move || Ok(layout.region(&blob.digest)?.is_some_and(|r| r.len == blob.size))).await
    }

    async fn referrers(
        &self,
        _name: &Reference,
        subject: &Digest,
        _near: Option<&Place>,
    ) -> Result<Vec<Descriptor>, Error> {
        let (layout, subject) = (self.clone(), subject.clone());
        blocking(move || layout.referrers_of(&subject)).await
    }

    async fn tags(&self, _name: &Reference) -> Result<Vec<Tag>, Error> {
        Ok(self.tag_list())
    }
}
