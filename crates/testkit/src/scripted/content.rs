//! What a scripted registry holds, in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use airlock_oci::{Digest, Manifest};
use bytes::Bytes;

use crate::fixture::Built;

/// Repositories and their content.
#[derive(Debug, Default)]
pub struct Content {
    blobs: HashMap<Digest, Bytes>,
    repositories: BTreeMap<String, Repository>,
    pub(crate) uploads: HashMap<String, Upload>,
    pub(crate) uploads_begun: u64,
}

#[derive(Debug, Default)]
struct Repository {
    blobs: BTreeSet<Digest>,
    manifests: BTreeMap<Digest, Manifest>,
    tags: BTreeMap<String, Digest>,
}

/// An upload session.
#[derive(Debug)]
pub(crate) struct Upload {
    pub(crate) repository: String,
    pub(crate) data: Vec<u8>,
}

impl Content {
    /// Puts a fixture and everything below it into a repository, and under a tag.
    pub fn put(&mut self, repository: &str, built: &Built, tag: Option<&str>) {
        for part in built.all() {
            for blob in &part.blobs {
                self.put_blob(repository, blob.descriptor.digest.clone(), blob.bytes.clone());
            }
            self.put_manifest(repository, part.manifest.clone(), None);
        }
        self.put_manifest(repository, built.manifest.clone(), tag);
    }

    /// Puts a blob.
    pub fn put_blob(&mut self, repository: &str, digest: Digest, bytes: Bytes) {
        self.blobs.insert(digest.clone(), bytes);
        self.repositories.entry(repository.to_owned()).or_default().blobs.insert(digest);
    }

    /// Puts a manifest, and a tag to it.
    pub fn put_manifest(&mut self, repository: &str, manifest: Manifest, tag: Option<&str>) {
        let repository = self.repositories.entry(repository.to_owned()).or_default();
        if let Some(tag) = tag {
            repository.tags.insert(tag.to_owned(), manifest.digest().clone());
        }
        repository.manifests.insert(manifest.digest().clone(), manifest);
    }

    /// Takes a blob away, from everywhere.
    pub fn remove_blob(&mut self, digest: &Digest) {
        self.blobs.remove(digest);
    }

    /// Takes a manifest and its tags away.
    pub fn remove_manifest(&mut self, repository: &str, digest: &Digest) -> bool {
        let Some(repository) = self.repositories.get_mut(repository) else { return false };
        repository.tags.retain(|_, d| d != digest);
        repository.manifests.remove(digest).is_some()
    }

    /// Takes a tag away.
    pub fn remove_tag(&mut self, repository: &str, tag: &str) -> bool {
        self.repositories.get_mut(repository).is_some_and(|r| r.tags.remove(tag).is_some())
    }

    /// The manifest at a tag or digest.
    pub fn manifest(&self, repository: &str, at: &str) -> Option<&Manifest> {
        let repository = self.repositories.get(repository)?;
        let digest = match at.parse::<Digest>() {
            Ok(digest) => digest,
            Err(_) => repository.tags.get(at)?.clone(),
        };
        repository.manifests.get(&digest)
    }

    /// A blob that the repository has.
    pub fn blob(&self, repository: &str, digest: &Digest) -> Option<&Bytes> {
        self.repositories.get(repository)?.blobs.get(digest).and_then(|digest| self.blobs.get(digest))
    }

    /// All repositories.
    pub fn repositories(&self) -> Vec<&str> {
        self.repositories.keys().map(String::as_str).collect()
    }

    /// The tags of a repository, sorted.
    pub fn tags(&self, repository: &str) -> Option<Vec<&str>> {
        self.repositories.get(repository).map(|r| r.tags.keys().map(String::as_str).collect())
    }

    /// The manifests whose subject is this.
    pub fn referrers(&self, repository: &str, subject: &Digest) -> Vec<&Manifest> {
        let Some(repository) = self.repositories.get(repository) else { return Vec::new() };
        repository.manifests.values().filter(|m| m.subject().is_some_and(|s| s.digest == *subject)).collect()
    }

    /// Every digest that lies in a repository: manifests, then blobs.
    pub fn digests(&self, repository: &str) -> Vec<&Digest> {
        let Some(repository) = self.repositories.get(repository) else { return Vec::new() };
        repository.manifests.keys().chain(&repository.blobs).collect()
    }

    /// Upload sessions that were neither completed nor cancelled.
    pub fn open_uploads(&self) -> usize {
        self.uploads.len()
    }
}
