//! What a push under way relies on, so that garbage collection leaves it alone.
//!
//! Whoever uploads or mounts a blob, or was told that it is there, will name it in a manifest soon. Until then nothing refers to it. A
//! lease on its digest, for the repository, stands for that reference. The acknowledgement of a manifest of that repository ends it; so
//! does time.
//!
//! A sweep holds the leases' lock while it looks at one digest and removes it ([`Leases::unless_leased`]), and whoever takes a lease
//! looks at the blob again afterwards: either the sweep sees the lease, or the client hears that the blob is gone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use airlock_oci::{Digest, Repository};

/// How long a lease holds that no manifest ends.
pub(super) const LEASE: Duration = Duration::from_secs(24 * 60 * 60);

/// The leases of one writer.
#[derive(Debug, Default)]
pub(super) struct Leases(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    until: HashMap<Digest, HashMap<Repository, Instant>>,
    /// What would have been released while a collection is under way: it may have looked at the repository before the manifest came.
    released: Option<Vec<(Repository, Digest)>>,
}

impl State {
    fn forget(&mut self, repository: &Repository, digest: &Digest) {
        if let Some(holders) = self.until.get_mut(digest) {
            holders.remove(repository);
            if holders.is_empty() {
                self.until.remove(digest);
            }
        }
    }
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes or renews a lease.
    pub(super) fn renew(&self, repository: &Repository, digest: &Digest) {
        let mut state = self.lock();
        let holders = state.until.entry(digest.clone()).or_default();
        holders.insert(repository.clone(), Instant::now() + LEASE);
    }

    /// Ends leases: a manifest of the repository refers to the content now.
    pub(super) fn release<'a>(&self, repository: &Repository, digests: impl Iterator<Item = &'a Digest>) {
        let mut state = self.lock();
        for digest in digests {
            match &mut state.released {
                Some(released) => released.push((repository.clone(), digest.clone())),
                None => state.forget(repository, digest),
            }
        }
    }

    /// Begins a collection; `false` when one is under way.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.lock();
        let now = Instant::now();
        state.until.retain(|_, holders| {
            holders.retain(|_, until| *until > now);
            !holders.is_empty()
        });
        if state.released.is_some() {
            return false;
        }
        state.released = Some(Vec::new());
        true
    }

    /// Ends a collection.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        for (repository, digest) in state.released.take().unwrap_or_default() {
            state.forget(&repository, &digest);
        }
    }

    /// Does something while nobody can take a lease on the digest; `None` when somebody has one.
    pub(super) fn unless_leased<T>(&self, digest: &Digest, action: impl FnOnce() -> T) -> Option<T> {
        let state = self.lock();
        if state.until.get(digest).is_some_and(|holders| holders.values().any(|until| *until > Instant::now())) {
            return None;
        }
        Some(action())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_released_during_a_collection_holds_until_its_end() {
        let (leases, digest) = (Leases::default(), Digest::of(b"x"));
        let (name, other) = (Repository::new("a").unwrap(), Repository::new("b").unwrap());
        let is_free = || leases.unless_leased(&digest, || ()).is_some();
        assert!(is_free());
        leases.renew(&name, &digest);
        assert!(!is_free());
        leases.release(&name, [&digest].into_iter());
        assert!(is_free());
        assert!(leases.begin());
        assert!(!leases.begin(), "one at a time");
        leases.renew(&name, &digest);
        leases.release(&name, [&digest].into_iter());
        assert!(!is_free());
        leases.end();
        assert!(is_free());
        leases.renew(&name, &digest);
        leases.release(&other, [&digest].into_iter());
        assert!(!is_free(), "another repository's push goes on");
    }
}
