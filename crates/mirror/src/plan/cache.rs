//! What planning learned, on disk, so that planning again asks only what may have changed.
//!
//! `<folder>/manifests/<algorithm>/<2 hex>/<hex>` holds the bytes of manifests, `<folder>/names` what references stood for last time, and
//! `<folder>/<topic>/<2 hex>/<hex>` notes about what a digest pins: the components of a release, its signature, the attachments of an
//! image. Manifests are verified on every read, notes by whoever reads them: a damaged entry is as if it were absent. The cache is
//! bounded; the oldest go first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use airlock_oci::{Digest, Manifest, Reference};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::locked;

/// Bytes that the cache may take; beyond, the oldest entries go.
const MAX_CACHE_BYTES: u64 = 512 * 1024 * 1024;

/// The cache. Failures to write it are never errors of a run: it only saves requests.
pub struct Cache {
    folder: PathBuf,
    names: Mutex<HashMap<String, Digest>>,
    /// Whether anything is kept at all.
    shared: bool,
}

impl Cache {
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

    /// Where it is; empty for one that keeps nothing.
    pub fn folder(&self) -> &Path {
        &self.folder
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
        write_beside(&path, manifest.bytes());
    }

    fn note_path(&self, topic: &str, key: &str) -> PathBuf {
        let key = Digest::of(key.as_bytes());
        self.folder.join(topic).join(&key.hex()[..2]).join(key.hex())
    }

    /// A note, unless it is older than `most`.
    pub fn note<T: DeserializeOwned>(&self, topic: &str, key: &str, most: Option<Duration>) -> Option<T> {
        if !self.shared {
            return None;
        }
        let path = self.note_path(topic, key);
        if let Some(most) = most {
            let written = std::fs::metadata(&path).and_then(|m| m.modified()).ok()?;
            // A clock that went back makes a note old, not young.
            SystemTime::now().duration_since(written).ok().filter(|age| *age <= most)?;
        }
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// Keeps a note in place of the one before.
    pub fn set_note<T: Serialize>(&self, topic: &str, key: &str, value: &T) {
        if let Ok(bytes) = serde_json::to_vec(value)
            && self.shared
        {
            write_beside(&self.note_path(topic, key), &bytes);
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
        write_beside(&self.folder.join("names"), &names);
        self.trim(MAX_CACHE_BYTES);
    }

    fn trim(&self, limit: u64) {
        let mut entries: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        let mut folders = vec![self.folder.clone()];
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

fn write_beside(path: &Path, bytes: &[u8]) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return };
    let beside = folder.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&beside, bytes))
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_returns_verifies_and_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path());
        let manifest = Manifest::parse(r#"{"schemaVersion":2,"manifests":[]}"#.into(), None).unwrap();
        assert!(cache.get(manifest.digest()).is_none());
        cache.put(&manifest);
        assert_eq!(cache.get(manifest.digest()).unwrap().bytes(), manifest.bytes());
        let name: Reference = "quay.io/a/b:1".parse().unwrap();
        cache.set_name(&name, manifest.digest());
        cache.close();
        assert_eq!(Cache::open(folder.path()).name(&name).as_ref(), Some(manifest.digest()));
        cache.set_note("seen", "key", &vec![1, 2]);
        assert_eq!(cache.note::<Vec<u8>>("seen", "key", None), Some(vec![1, 2]));
        assert_eq!(cache.note::<Vec<u8>>("seen", "key", Some(Duration::ZERO)), None);
        std::fs::write(cache.path(manifest.digest()), "damaged").unwrap();
        assert!(cache.get(manifest.digest()).is_none());
        cache.trim(0);
        assert!(!cache.path(manifest.digest()).exists());
    }
}
