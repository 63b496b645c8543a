//! The names of all repositories, in memory.
//!
//! A writer finds them once, in the background, and then knows of every change, since it makes them; until it has found them, and in
//! storage that is only read, the folders are walked for each answer. Another process that writes there too is noticed at the next
//! search, some minutes later.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use airlock_oci::Repository;

/// How often the folders are searched again.
pub(super) const SEARCH_AGAIN: Duration = Duration::from_secs(5 * 60);

/// The names, once they are known.
#[derive(Debug, Default)]
pub(super) struct Catalog(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    known: Option<BTreeSet<Repository>>,
    searched: Option<Instant>,
    /// What changed while a search is under way: whether the repository has manifests now.
    meanwhile: Option<BTreeMap<Repository, bool>>,
}

impl Catalog {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a search; `false` when one is under way or the last one is recent.
    pub(super) fn begin(&self) -> bool {
        let mut state = self.lock();
        let due = state.searched.is_none_or(|at| at.elapsed() >= SEARCH_AGAIN);
        if due && state.meanwhile.is_none() {
            state.meanwhile = Some(BTreeMap::new());
            return true;
        }
        false
    }

    /// Ends a search; `None`: it failed.
    pub(super) fn end(&self, found: Option<Vec<Repository>>) {
        let mut state = self.lock();
        let meanwhile = state.meanwhile.take().unwrap_or_default();
        let Some(found) = found else { return };
        let mut known: BTreeSet<Repository> = found.into_iter().collect();
        for (repository, there) in meanwhile {
            if there {
                known.insert(repository);
            } else {
                known.remove(&repository);
            }
        }
        state.known = Some(known);
        state.searched = Some(Instant::now());
    }

    /// Notes whether a repository has manifests now.
    pub(super) fn changed(&self, repository: &Repository, there: bool) {
        let mut state = self.lock();
        if let Some(meanwhile) = &mut state.meanwhile {
            meanwhile.insert(repository.clone(), there);
        }
        if let Some(known) = &mut state.known {
            if !there {
                known.remove(repository);
            } else if !known.contains(repository) {
                known.insert(repository.clone());
            }
        }
    }

    /// At most so many names after one, in order; `None` when they are not known yet.
    pub(super) fn page(&self, after: Option<&Repository>, most: usize) -> Option<Vec<Repository>> {
        let state = self.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        Some(state.known.as_ref()?.range((from, Bound::Unbounded)).take(most).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_during_a_search_are_not_lost() {
        let name = |n: &str| Repository::new(n).unwrap();
        let catalog = Catalog::default();
        assert_eq!(catalog.page(None, 9), None);
        assert!(catalog.begin());
        assert!(!catalog.begin(), "one at a time");
        catalog.changed(&name("new"), true);
        catalog.changed(&name("old"), false);
        catalog.end(Some(vec![name("a"), name("old")]));
        assert_eq!(catalog.page(None, 9), Some(vec![name("a"), name("new")]));
        assert_eq!(catalog.page(Some(&name("a")), 9), Some(vec![name("new")]));
        assert_eq!(catalog.page(None, 1), Some(vec![name("a")]));
        assert!(!catalog.begin(), "it was searched just now");
        catalog.changed(&name("a"), false);
        assert_eq!(catalog.page(None, 9), Some(vec![name("new")]));
    }
}
