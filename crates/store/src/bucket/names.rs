//! The names of all repositories.
//!
//! A bucket cannot be asked for them but by walking through everything. So each repository that has a manifest has a marker: their list
//! is one request for a thousand names, in order, and the same for every process. Whoever writes the first manifest writes the marker;
//! what others wrote (docker-registry knows no markers), and what a crash left wrong, is put right by a walk now and then. Until this
//! process has walked once, lists are found by walking.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use airlock_oci::{Error, Repository};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt};

use super::keys::{Keys, Link};
use super::{Bucket, PARALLEL, lock};

/// How often the bucket is walked through.
const SEARCH_AGAIN: Duration = Duration::from_secs(30 * 60);

/// When the bucket was walked through.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    searched: Option<Instant>,
    is_searching: bool,
}

impl Names {
    fn begin(&self) -> bool {
        let mut state = lock(&self.0);
        let due = !state.is_searching && state.searched.is_none_or(|at| at.elapsed() >= SEARCH_AGAIN);
        state.is_searching |= due;
        due
    }

    fn end(&self, worked: bool) {
        let mut state = lock(&self.0);
        state.is_searching = false;
        if worked {
            state.searched = Some(Instant::now());
        }
    }
}

impl Bucket {
    /// Whether lists of repositories can be had without a walk.
    pub fn is_searched(&self) -> bool {
        lock(&self.0.names.0).searched.is_some()
    }

    /// All repositories that hold a manifest, sorted.
    pub async fn repositories(&self) -> Result<Vec<Repository>, Error> {
        self.repositories_after(None, usize::MAX).await
    }

    /// At most so many of them whose names come after `after`.
    pub async fn repositories_after(&self, after: Option<&Repository>, most: usize) -> Result<Vec<Repository>, Error> {
        if !self.is_searched() {
            let all = self.walk().await?;
            return Ok(all.into_iter().filter(|name| after.is_none_or(|after| name > after)).take(most).collect());
        }
        let markers = self.keys().markers();
        let listed = match after {
            Some(after) => self.objects().list_after(&markers, &self.keys().marker(after)),
            None => self.objects().list(&markers),
        };
        let named = |(key, _): (object_store::path::Path, _)| async move { Ok(key.filename().and_then(Keys::marked)) };
        listed.try_filter_map(named).take(most).try_collect().await
    }

    /// Puts the markers right, if that was not done lately.
    pub async fn search_repositories(&self) -> Result<(), Error> {
        if !self.0.names.begin() {
            return Ok(());
        }
        let outcome = self.put_markers_right().await;
        self.0.names.end(outcome.is_ok());
        outcome
    }

    async fn put_markers_right(&self) -> Result<(), Error> {
        let marked: BTreeSet<Repository> = self
            .objects()
            .list(&self.keys().markers())
            .try_filter_map(|(key, _)| async move { Ok(key.filename().and_then(Keys::marked)) })
            .try_collect()
            .await?;
        let found = self.walk().await?;
        for repository in found.difference(&marked) {
            self.mark(repository).await?;
        }
        for repository in marked.difference(&found) {
            self.unmark_if_empty(repository).await?;
        }
        Ok(())
    }

    pub(super) async fn mark(&self, repository: &Repository) -> Result<(), Error> {
        self.objects().put(&self.keys().marker(repository), Bytes::new()).await.map(|_| ())
    }

    /// Takes the marker of a repository without manifests away. Whoever pushes one meanwhile writes its link first and the marker then, so
    /// that either the link is seen here or the marker is written after this.
    pub(super) async fn unmark_if_empty(&self, repository: &Repository) -> Result<(), Error> {
        let revisions = self.keys().links(repository, Link::Revision);
        if self.objects().has_any(&revisions).await? {
            return Ok(());
        }
        self.objects().put(&self.keys().emptied(repository), Bytes::new()).await?;
        self.objects().delete(&self.keys().marker(repository)).await?;
        if self.objects().has_any(&revisions).await? {
            self.mark(repository).await?;
        }
        Ok(())
    }

    /// The repositories that hold a manifest, found by walking through the folders.
    async fn walk(&self) -> Result<BTreeSet<Repository>, Error> {
        let all = self.all_repositories().await?;
        let holds = |repository: Repository| {
            let holds = async move {
                let some = self.objects().has_any(&self.keys().links(&repository, Link::Revision)).await?;
                Ok::<_, Error>(some.then_some(repository))
            };
            holds.boxed()
        };
        futures_util::stream::iter(all)
            .map(holds)
            .buffer_unordered(PARALLEL)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await
    }

    /// Every repository of which there is anything, manifests or only blobs.
    pub(super) async fn all_repositories(&self) -> Result<BTreeSet<Repository>, Error> {
        let mut found = BTreeSet::new();
        let mut level = vec![String::new()];
        while !level.is_empty() {
            let look = |name: String| {
                let look = async move {
                    let below = match Repository::new(&name) {
                        Ok(repository) => self.keys().repository(&repository),
                        Err(_) => self.keys().repositories(),
                    };
                    Ok::<_, Error>((name, self.objects().folders(&below).await?))
                };
                look.boxed()
            };
            let mut looked =
                futures_util::stream::iter(std::mem::take(&mut level)).map(look).buffer_unordered(PARALLEL);
            while let Some((name, folders)) = looked.try_next().await? {
                for folder in folders {
                    // No component of a name begins with an underscore, so that the walk ends at the storage's own folders.
                    if folder == "_manifests" || folder == "_layers" {
                        found.extend(Repository::new(&name));
                    } else if Repository::new(&folder).is_ok() {
                        let below = if name.is_empty() { folder } else { format!("{name}/{folder}") };
                        if below.len() <= airlock_oci::reference::MAX_NAME_BYTES {
                            level.push(below);
                        }
                    }
                }
            }
        }
        Ok(found)
    }
}
