//! Manifests by digest, on disk, so that planning again asks only what may have changed.
//!
//! `<folder>/manifests/<algorithm>/<2 hex>/<hex>` holds the bytes, `<folder>/names` what references stood for last time. The bytes are
//! verified on every read: a damaged entry is as if it were absent. The cache is bounded; the longest unused go first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use airlock_oci::{Digest, Manifest, Reference};

use super::locked;

/// Bytes that the cache may take; beyond, the oldest entries go.
const MAX_CACHE_BYTES: u64 = 512 * 1024 * 1024;

/// The cache. Failures to write it are never errors of a run: it only saves requests.
pub struct ManifestCache {
    folder: PathBuf,
    names: Mutex<HashMap<String, Digest>>,
    /// Whether anything is kept at all.
    shared: bool,
}

impl ManifestCache {
    /// The user's cache in `folder` (`$XDG_CACHE_HOME/airlock`).
    pub fn open(folder: &Path) -> Self {
        let names = std::fs::read(folder.join("names"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self { folder: folder.to_owned(), names: Mutex::new(names), shared: true }
    }

    /// Keeps nothing: for sources that lie on this machine, and runs that must not write.
    pub fn none() -> Self {
        Self { folder: PathBuf::new(), names: Mutex::default(), shared: false }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("manifests").join(digest.algorithm().name()).join(&digest.hex()[..2]).join(digest.hex())
    }

    /// The manifest, if it is there and undamaged.
    pub fn get(&self, digest: &Digest) -> Option<Manifest> {
        if !self.shared {
            return None;
        }
        let path = self.path(digest);
        let bytes = std::fs::read(&path).ok()?;
        let manifest = Manifest::parse_expecting(bytes.into(), None, digest).ok()?;
        Some(manifest)
    }

    /// Keeps a manifest. The media type must be the one that its bytes imply; others are not kept.
    pub fn put(&self, manifest: &Manifest) {
        let path = self.path(manifest.digest());
        let plain = Manifest::parse_expecting(manifest.bytes().clone(), None, manifest.digest());
        if !self.shared || path.exists() || !plain.is_ok_and(|m| m.media_type() == manifest.media_type()) {
            return;
        }
        let Some(folder) = path.parent() else { return };
        let beside = folder.join(format!(".{}.{}", manifest.digest().short(), std::process::id()));
        let written = std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&beside, manifest.bytes()))
            .and_then(|()| std::fs::rename(&beside, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
    }

    /// What a reference stood for last time.
    pub fn name(&self, reference: &Reference) -> Option<Digest> {
        locked(&self.names).get(&reference.to_string()).cloned()
    }

    /// Remembers what a reference stands for.
    pub fn set_name(&self, reference: &Reference, digest: &Digest) {
        locked(&self.names).insert(reference.to_string(), digest.clone());
    }

    /// Writes the names and lets the longest unused manifests go.
    pub fn close(&self) {
        if !self.shared {
            return;
        }
        let names = serde_json::to_vec(&*locked(&self.names)).unwrap_or_default();
        let beside = self.folder.join(format!(".names.{}", std::process::id()));
        let _ = std::fs::create_dir_all(&self.folder)
            .and_then(|()| std::fs::write(&beside, names))
            .and_then(|()| std::fs::rename(&beside, self.folder.join("names")));
        self.trim(MAX_CACHE_BYTES);
    }

    fn trim(&self, limit: u64) {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        let mut folders = vec![self.folder.join("manifests")];
        while let Some(folder) = folders.pop() {
            let Ok(read) = std::fs::read_dir(&folder) else { continue };
            for entry in read.flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else {
                    let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    entries.push((used, metadata.len(), entry.path()));
                }
            }
        }
        let mut total: u64 = entries.iter().map(|e| e.1).sum();
        entries.sort();
        for (_, len, path) in entries {
            if total <= limit {
                break;
            }
            if std::fs::remove_file(path).is_ok() {
                total -= len;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_returns_verifies_and_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ManifestCache::open(folder.path());
        let manifest = Manifest::parse(r#"{"schemaVersion":2,"manifests":[]}"#.into(), None).unwrap();
        assert!(cache.get(manifest.digest()).is_none());
        cache.put(&manifest);
        assert_eq!(cache.get(manifest.digest()).unwrap().bytes(), manifest.bytes());
        let name: Reference = "quay.io/a/b:1".parse().unwrap();
        cache.set_name(&name, manifest.digest());
        cache.close();
        assert_eq!(ManifestCache::open(folder.path()).name(&name).as_ref(), Some(manifest.digest()));
        std::fs::write(cache.path(manifest.digest()), "damaged").unwrap();
        assert!(cache.get(manifest.digest()).is_none());
        cache.trim(0);
        assert!(!cache.path(manifest.digest()).exists());
    }
}
