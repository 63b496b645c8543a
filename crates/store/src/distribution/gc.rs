//! Garbage collection while the registry serves: what no manifest names and no push relies on goes.
//!
//! Every manifest that a repository links to is a root, tagged or not: clusters pull by digest, so that nothing is garbage for want of a
//! tag. First all manifests are read and what they name is marked; then each unmarked file is removed, unless a push has a lease on it
//! ([`Leases`](super::leases::Leases)). A manifest that comes meanwhile keeps its leases until the end, since it may have come after its
//! repository was looked at. Nothing is written before something is removed, so that it works on a full disk.
//!
//! Old generations ([`retire`](super::retire)) lose their names first, where that is asked for.

use std::collections::HashSet;
use std::fs;

use airlock_oci::{Digest, Error, ErrorKind, Repository};
use serde::{Deserialize, Serialize};

use super::Writer;
use super::paths::Link;
use super::retire::Retired;
use super::walk::Revision;
use crate::disk;
use crate::storage::Storage;

/// What a collection found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Collected {
    /// Nothing was removed; the numbers say what would have been.
    pub dry_run: bool,
    /// Repositories that were looked at.
    pub repositories: u64,
    /// Manifests that were read.
    pub manifests: u64,
    /// Files in the storage.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were removed.
    pub removed_files: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Links to removed files that were removed.
    pub removed_links: u64,
    /// Unreferenced files that stay because a push may rely on them.
    pub leased: u64,
    /// Manifests that refer to one that is not there: signatures of deleted images, perhaps. They stay.
    pub orphans: u64,
    /// Generations that went.
    #[serde(default)]
    pub generations: Vec<u64>,
    /// Tags that went with them (`repository:tag`), sorted.
    #[serde(default)]
    pub retired_tags: Vec<String>,
    /// Manifests that went with them (`repository@digest`), sorted.
    #[serde(default)]
    pub retired_manifests: Vec<String>,
}

/// Everything that must stay.
#[derive(Default)]
struct Marked {
    digests: HashSet<Digest>,
    repositories: Vec<Repository>,
    manifests: u64,
    orphans: u64,
}

impl Writer {
    /// Removes what nothing refers to; with `dry_run` only says what that would be. [`ErrorKind::Locked`] when a collection is under way,
    /// [`ErrorKind::Damaged`] when a manifest cannot be read: nobody knows what it names. Blocks on the disk.
    pub fn collect_garbage(&self, dry_run: bool) -> Result<Collected, Error> {
        self.collect(None, dry_run)
    }

    /// The same after the names have gone that only generations older than the last `keep` have. [`ErrorKind::Damaged`] also when the
    /// record of a generation cannot be read.
    pub fn collect_generations(&self, keep: usize, dry_run: bool) -> Result<Collected, Error> {
        self.collect(Some(keep), dry_run)
    }

    fn collect(&self, keep: Option<usize>, dry_run: bool) -> Result<Collected, Error> {
        let what = || format!("collect garbage in `{}`", self.describe());
        if !self.leases().begin() {
            return Err(Error::new(ErrorKind::Locked, what(), "a collection is under way"));
        }
        let outcome = self.collect_alone(keep, dry_run);
        self.leases().end();
        self.close_files();
        outcome
    }

    fn collect_alone(&self, keep: Option<usize>, dry_run: bool) -> Result<Collected, Error> {
        let mut retired = match keep {
            Some(keep) => self.retiring(keep)?,
            None => Retired::default(),
        };
        if !dry_run {
            retired = self.removal(|| self.retire(retired))?;
        }
        let marked = self.mark(&retired)?;
        let mut collected = self.sweep(&marked, dry_run)?;
        if !dry_run {
            // Garbage is collected by now, and what they left is no garbage yet for whoever cannot look there.
            if let Err(error) = self.remove_abandoned_imports() {
                tracing::warn!("what imports left could not be looked through: {error}");
            }
            if let Err(error) = self.clear_removed() {
                tracing::warn!("what is left of removed tags cannot be taken away: {error}");
            }
        }
        retired.tell(&mut collected);
        Ok(collected)
    }

    /// What every manifest names, as if the retired ones were not there.
    fn mark(&self, retired: &Retired) -> Result<Marked, Error> {
        let directory = self.directory();
        let mut marked = Marked { repositories: directory.all_repositories()?, ..Marked::default() };
        for repository in &marked.repositories {
            for digest in directory.linked_manifests(repository)? {
                if retired.has_manifest(repository, &digest) {
                    continue;
                }
                let revision = directory.revision(repository, &digest)?;
                marked.digests.insert(directory.place_of(repository, Link::Revision, &digest)?);
                marked.manifests += 1;
                match revision {
                    Revision::Whole(manifest) => {
                        for blob in manifest.blobs() {
                            marked.digests.insert(directory.place_of(repository, Link::Layer, &blob.digest)?);
                        }
                        if let Some(subject) = manifest.subject()
                            && directory.linked(repository, Link::Revision, &subject.digest)?.is_none()
                        {
                            marked.orphans += 1;
                        }
                    }
                    Revision::Foreign(digests) => marked.digests.extend(digests),
                    Revision::Missing => {}
                    Revision::Damaged => {
                        return Err(Error::new(
                            ErrorKind::Damaged,
                            format!("collect garbage in `{}`", self.describe()),
                            format!(
                                "the manifest `{repository}@{digest}` is damaged, so that nobody knows what it names"
                            ),
                        )
                        .hint("repair it (`airlock registry repair`), push the image again, or delete it"));
                    }
                }
            }
        }
        Ok(marked)
    }

    fn sweep(&self, marked: &Marked, dry_run: bool) -> Result<Collected, Error> {
        let directory = self.directory();
        let mut collected = Collected {
            dry_run,
            repositories: marked.repositories.len() as u64,
            manifests: marked.manifests,
            orphans: marked.orphans,
            ..Collected::default()
        };
        let mut removed = HashSet::new();
        directory.visit_blobs(&mut |blob| {
            collected.files += 1;
            collected.bytes += blob.len;
            if marked.digests.contains(&blob.digest) {
                return Ok(());
            }
            let path = directory.paths.data(&blob.digest);
            let outcome =
                self.leases().unless_leased(&blob.digest, || if dry_run { Ok(true) } else { disk::remove_file(&path) });
            match outcome.transpose()? {
                None => collected.leased += 1,
                Some(false) => {}
                Some(true) => {
                    collected.removed_files += 1;
                    collected.removed_bytes += blob.len;
                    // The folder goes if nothing else came into it.
                    if let Some(folder) = path.parent().filter(|_| !dry_run) {
                        let _ = fs::remove_dir(folder);
                    }
                    removed.insert(blob.digest);
                }
            }
            Ok(())
        })?;
        if !removed.is_empty() {
            for repository in &marked.repositories {
                collected.removed_links += self.remove_links(repository, &removed, dry_run)?;
            }
        }
        Ok(collected)
    }

    /// Removes a repository's links to blobs that were removed, except where a new push has brought one back.
    fn remove_links(&self, repository: &Repository, removed: &HashSet<Digest>, dry_run: bool) -> Result<u64, Error> {
        let paths = &self.directory().paths;
        let mut count = 0;
        for digest in self.directory().linked_blobs(repository)? {
            if !removed.contains(&digest) {
                continue;
            }
            let link = paths.link(repository, Link::Layer, &digest);
            let gone = self.leases().unless_leased(&digest, || {
                if dry_run {
                    return Ok(true);
                }
                Ok::<_, Error>(!disk::is_file(&paths.data(&digest))? && disk::remove_file(&link)?)
            });
            if gone.transpose()? == Some(true) {
                count += 1;
                if let Some(folder) = link.parent().filter(|_| !dry_run) {
                    let _ = fs::remove_dir(folder);
                }
            }
        }
        Ok(count)
    }
}
