//! What was read lately, in memory: manifests that were verified, tags' targets, sorted lists of tags.
//!
//! The files stay the truth. Each answer from memory first compares the file's state with the one that was read ([`Stamp`]), so
//! that what another process writes, what is damaged and what is deleted shows at once. Every part is bounded.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use airlock_oci::{Digest, Manifest, Repository, Tag};

use super::stamp::Stamp;

/// Bytes of manifests kept at most. Their parsed form takes about as much again.
const MAX_MANIFEST_BYTES: usize = 4 * 1024 * 1024;
/// Manifests larger than this are not kept: one of them would push out hundreds.
const MAX_KEPT_MANIFEST: usize = 256 * 1024;
/// Targets of tags kept at most.
const MAX_TARGETS: usize = 8192;
/// Lists of tags kept at most, and tags in all of them together.
const MAX_LISTS: usize = 512;
const MAX_LISTED_TAGS: usize = 100_000;

/// What one directory's readers remember.
#[derive(Debug, Default)]
pub(super) struct Cache {
    manifests: Mutex<Kept<Digest, (Digest, Stamp, Manifest)>>,
    targets: Mutex<Kept<(Repository, Tag), (Stamp, Digest)>>,
    lists: Mutex<Kept<Repository, (Stamp, Arc<Vec<Tag>>)>>,
}

/// A map that forgets at random when it holds too much.
#[derive(Debug)]
pub(crate) struct Kept<K, V> {
    entries: HashMap<K, (usize, V)>,
    weight: usize,
}

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), weight: 0 }
    }
}

impl<K: Hash + Eq + Clone, V> Kept<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some((weight, _)) = self.entries.remove(key) {
            self.weight -= weight;
        }
    }

    pub(crate) fn insert(&mut self, key: K, value: V, weight: usize, most: usize) {
        self.remove(&key);
        while self.weight + weight > most {
            // The order of a hash map is as good as any: no bookkeeping at every reading.
            let Some(victim) = self.entries.keys().next().cloned() else { return };
            self.remove(&victim);
        }
        self.weight += weight;
        self.entries.insert(key, (weight, value));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cache {
    /// A manifest that was read under this digest: where its bytes lay, in which state, and what they were.
    pub(super) fn manifest(&self, digest: &Digest) -> Option<(Digest, Stamp, Manifest)> {
        lock(&self.manifests).get(digest).cloned()
    }

    /// Keeps a verified manifest whose bytes lie under `place`.
    pub(super) fn keep_manifest(&self, manifest: &Manifest, place: Digest, stamp: Option<Stamp>) {
        let Some(stamp) = stamp.filter(Stamp::is_settled) else { return };
        let len = manifest.bytes().len();
        if len <= MAX_KEPT_MANIFEST {
            let kept = (place, stamp, manifest.clone());
            lock(&self.manifests).insert(manifest.digest().clone(), kept, len, MAX_MANIFEST_BYTES);
        }
    }

    /// What a tag pointed at when its link was in this state.
    pub(super) fn target(&self, repository: &Repository, tag: &Tag) -> Option<(Stamp, Digest)> {
        lock(&self.targets).get(&(repository.clone(), tag.clone())).cloned()
    }

    /// Keeps a tag's target.
    pub(super) fn keep_target(&self, repository: &Repository, tag: &Tag, stamp: Option<Stamp>, digest: &Digest) {
        let Some(stamp) = stamp.filter(Stamp::is_settled) else { return };
        lock(&self.targets).insert((repository.clone(), tag.clone()), (stamp, digest.clone()), 1, MAX_TARGETS);
    }

    /// The tags of a repository, if its folder of tags is as it was when they were read.
    pub(super) fn tags(&self, repository: &Repository, now: Option<Stamp>) -> Option<Arc<Vec<Tag>>> {
        let lists = lock(&self.lists);
        lists.get(repository).filter(|(stamp, _)| Some(*stamp) == now).map(|(_, tags)| tags.clone())
    }

    /// Keeps the tags of a repository.
    pub(super) fn keep_tags(&self, repository: &Repository, stamp: Option<Stamp>, tags: &Arc<Vec<Tag>>) {
        let Some(stamp) = stamp.filter(Stamp::is_settled) else { return };
        let weight = tags.len() + MAX_LISTED_TAGS / MAX_LISTS;
        lock(&self.lists).insert(repository.clone(), (stamp, tags.clone()), weight, MAX_LISTED_TAGS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays_within_its_weight() {
        let mut kept = Kept::default();
        for key in 0..1000_u32 {
            kept.insert(key, key, 10, 100);
            assert!(kept.weight <= 100 && kept.weight == kept.entries.len() * 10);
            assert_eq!(kept.get(&key), Some(&key), "the newest is there");
        }
        kept.insert(1, 1, 10, 100);
        kept.insert(1, 2, 90, 100);
        assert_eq!(kept.get(&1), Some(&2));
        kept.insert(7, 7, 101, 100);
        assert_eq!(kept.get(&7), None, "what is heavier than all may be is not kept");
    }
}
