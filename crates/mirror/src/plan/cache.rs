//! What planning learned, on disk, so that planning again asks only what may have changed: the bytes of manifests, what references stood
//! for last time, and notes about what a digest pins (the components of a release, its signature, the attachments of an image).
//!
//! Manifests are verified on every read, notes by whoever reads them; a damaged entry is as if it were absent. Where the bytes lie is
//! the business of [`packs`](super::packs).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use airlock_oci::{Digest, Manifest, Reference};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::locked;
use super::packs::Packs;

/// Bytes that the packs may take; beyond, the oldest entries go. The same again for what was generated.
const MAX_CACHE_BYTES: u64 = 512 * 1024 * 1024;
/// What was generated and used since is not trimmed: a transfer may be reading it.
const UNUSED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Under this topic lie manifests, by digest.
const MANIFESTS: &str = "manifest";
/// Under this one, what references stood for.
const NAMES: &str = "name";

/// The cache. Failures to write it are never errors of a run: it only saves requests.
pub struct Cache {
    folder: PathBuf,
    /// `None`: nothing is kept at all.
    packs: Option<Packs>,
    /// What references were found to stand for in this run.
    names: Mutex<HashMap<String, Digest>>,
}

impl Cache {
    /// The user's cache in `folder` (`$XDG_CACHE_HOME/airlock`).
    pub fn open(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), packs: Some(Packs::open(&folder.join("packs"))), names: Mutex::default() }
    }

    /// Keeps nothing: for sources that lie on this machine, and runs that must not write.
    pub fn none() -> Self {
        Self { folder: PathBuf::new(), packs: None, names: Mutex::default() }
    }

    /// Where it is; empty for one that keeps nothing.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The manifest, if it is there and undamaged.
    pub fn get(&self, digest: &Digest) -> Option<Manifest> {
        let (bytes, _) = self.packs.as_ref()?.get(MANIFESTS, &digest.to_string())?;
        Manifest::parse_expecting(bytes.into(), None, digest).ok()
    }

    /// Keeps a manifest. The media type must be the one that its bytes imply; others are not kept.
    pub fn put(&self, manifest: &Manifest) {
        let Some(packs) = self.packs.as_ref().filter(|_| manifest.is_self_described()) else { return };
        let key = manifest.digest().to_string();
        if !packs.contains(MANIFESTS, &key) {
            packs.put(MANIFESTS, &key, manifest.bytes());
        }
    }

    /// A note, unless it is older than `most`.
    pub fn note<T: DeserializeOwned>(&self, topic: &str, key: &str, most: Option<Duration>) -> Option<T> {
        let (bytes, written) = self.packs.as_ref()?.get(topic, &Digest::of(key.as_bytes()).hex())?;
        if let Some(most) = most {
            // A clock that went back makes a note old, not young.
            SystemTime::now().duration_since(written).ok().filter(|age| *age <= most)?;
        }
        serde_json::from_slice(&bytes).ok()
    }

    /// Keeps a note in place of the one before.
    pub fn set_note<T: Serialize>(&self, topic: &str, key: &str, value: &T) {
        if let (Some(packs), Ok(bytes)) = (&self.packs, serde_json::to_vec(value)) {
            packs.put(topic, &Digest::of(key.as_bytes()).hex(), &bytes);
        }
    }

    /// What a reference stood for last time.
    pub fn name(&self, reference: &Reference) -> Option<Digest> {
        let name = reference.to_string();
        let known = locked(&self.names).get(&name).cloned();
        known.or_else(|| {
            let (bytes, _) = self.packs.as_ref()?.get(NAMES, &name)?;
            std::str::from_utf8(&bytes).ok()?.parse().ok()
        })
    }

    /// Remembers what a reference stands for.
    pub fn set_name(&self, reference: &Reference, digest: &Digest) {
        if self.name(reference).as_ref() == Some(digest) {
            return;
        }
        let name = reference.to_string();
        if let Some(packs) = &self.packs {
            packs.put(NAMES, &name, digest.to_string().as_bytes());
        }
        locked(&self.names).insert(name, digest.clone());
    }

    /// Lets the longest unused entries go.
    pub fn close(&self) {
        if let Some(packs) = &self.packs {
            packs.tidy(MAX_CACHE_BYTES);
            trim(&self.folder.join("generated"), MAX_CACHE_BYTES, UNUSED_FOR);
        }
    }
}

/// Removes folders of `folder` that were not used for long, the oldest first, until all take at most `limit` bytes.
fn trim(folder: &Path, limit: u64, unused_for: Duration) {
    let Ok(read) = std::fs::read_dir(folder) else { return };
    let mut entries: Vec<(SystemTime, u64, PathBuf)> = read
        .flatten()
        .map(|entry| {
            let (mut newest, mut bytes) = (SystemTime::UNIX_EPOCH, 0);
            measure(&entry.path(), &mut newest, &mut bytes);
            (newest, bytes, entry.path())
        })
        .collect();
    let mut total: u64 = entries.iter().map(|e| e.1).sum();
    entries.sort();
    for (newest, bytes, path) in entries {
        // A clock that went back makes a folder young: this run, or another, may be reading it.
        if total <= limit || SystemTime::now().duration_since(newest).is_ok_and(|age| age < unused_for) {
            break;
        }
        if std::fs::remove_dir_all(path).is_ok() {
            total -= bytes;
        }
    }
}

fn measure(path: &Path, newest: &mut SystemTime, bytes: &mut u64) {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return };
    *newest = (*newest).max(metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH));
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            measure(&entry.path(), newest, bytes);
        }
    } else {
        *bytes += metadata.len();
    }
}

/// Tells that what lies in a folder is in use, also where nothing of it had to be written.
pub(super) fn used(folder: &Path) {
    let touched = std::fs::File::open(folder).and_then(|folder| folder.set_modified(SystemTime::now()));
    if let Err(e) = touched {
        tracing::debug!("{} keeps its old time: {e}", folder.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_returns_and_verifies() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path());
        let manifest = Manifest::parse(r#"{"schemaVersion":2,"manifests":[]}"#.into(), None).unwrap();
        assert!(cache.get(manifest.digest()).is_none());
        cache.put(&manifest);
        assert_eq!(cache.get(manifest.digest()).unwrap().bytes(), manifest.bytes());
        let name: Reference = "quay.io/a/b:1".parse().unwrap();
        cache.set_name(&name, manifest.digest());
        cache.set_note("seen", "key", &vec![1, 2]);
        cache.close();
        let again = Cache::open(folder.path());
        assert_eq!(again.name(&name).as_ref(), Some(manifest.digest()));
        assert_eq!(again.get(manifest.digest()).unwrap().bytes(), manifest.bytes());
        assert_eq!(again.note::<Vec<u8>>("seen", "key", None), Some(vec![1, 2]));
        assert_eq!(again.note::<Vec<u8>>("seen", "key", Some(Duration::from_secs(3600))), Some(vec![1, 2]));
        assert_eq!(again.note::<Vec<u8>>("seen", "key", Some(Duration::ZERO)), None);
        again.set_note("seen", "key", &vec![3]);
        assert_eq!(again.note::<Vec<u8>>("seen", "key", None), Some(vec![3]));
    }

    #[test]
    fn what_was_generated_is_bounded_by_folders() {
        let root = tempfile::tempdir().unwrap();
        let folders = ["a", "b"].map(|name| root.path().join(name).join("deep"));
        for folder in &folders {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join("file"), "1234").unwrap();
        }
        let there = || folders.iter().filter(|f| f.exists()).count();
        trim(root.path(), 8, Duration::ZERO);
        assert_eq!(there(), 2);
        trim(root.path(), 7, Duration::from_secs(3600));
        assert_eq!(there(), 2, "what was used a moment ago stays");
        std::thread::sleep(Duration::from_millis(20));
        used(&root.path().join("a"));
        trim(root.path(), 7, Duration::ZERO);
        assert!(folders[0].exists() && !folders[1].exists(), "the one that was used last stays, whole");
    }
}
