//! The file tree of `oc image mirror` (`file://…`; updates-and-releases.md 8.2), which any web server can serve as a registry's content.
//!
//! ```text
//! v2/<repository>/blobs/sha256:<hex>         layers, configurations, and manifests too
//! v2/<repository>/manifests/sha256:<hex>     hard link to the manifest's blob
//! v2/<repository>/manifests/<tag>            relative symbolic link to sha256:<hex>
//! ```
//!
//! * [`Tree`] reads one, also those that Windows wrote (`sha256-<hex>`). No media type is kept; it follows from the manifest itself.
//! * [`Writer`] makes one, or adds to one. Nothing has its name before its digest was checked.

mod writer;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use airlock_oci::sink::ManifestName;
use airlock_oci::{Descriptor, Digest, Error, ErrorKind, MAX_MANIFEST_BYTES, Manifest, Repository, Tag};
use bytes::Bytes;

pub use writer::Writer;

use crate::disk;
use crate::storage::{ReferrerIndex, Region, Storage, referrer_index};

/// Below the root, as in the path of a registry's requests.
const VERSION: &str = "v2";
const BLOBS: &str = "blobs";
const MANIFESTS: &str = "manifests";
/// How deep repositories are looked for; a name has at most 255 bytes, hence at most half as many parts.
const MAX_DEPTH: usize = 128;

/// A file tree, for reading. What it says of referrers is as of the first question about a repository.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    referrers: Mutex<HashMap<Repository, Arc<ReferrerIndex>>>,
}

fn folder(root: &Path, repository: &Repository, kind: &str) -> PathBuf {
    root.join(VERSION).join(repository.as_str()).join(kind)
}

fn file(root: &Path, repository: &Repository, kind: &str, digest: &Digest) -> PathBuf {
    folder(root, repository, kind).join(digest.to_string())
}

/// The digest that a file name stands for.
fn digest_of(name: &str) -> Option<Digest> {
    name.parse().ok().or_else(|| name.replacen('-', ":", 1).parse().ok())
}

/// What a tag points at. The link is read, never followed: it could lead anywhere.
fn tagged(root: &Path, repository: &Repository, tag: &Tag) -> Result<Option<Digest>, Error> {
    let path = folder(root, repository, MANIFESTS).join(tag.as_str());
    let target = match fs::read_link(&path) {
        Ok(target) => target,
        Err(e) if disk::is_absent(&e) => return Ok(None),
        // Something that is no link is no tag.
        Err(e) if e.kind() == std::io::ErrorKind::InvalidInput => return Ok(None),
        Err(e) => return Err(disk::failed("read", &path, &e)),
    };
    target.to_str().and_then(digest_of).map(Some).ok_or_else(|| {
        Error::new(
            ErrorKind::Content,
            format!("read the tag `{}`", path.display()),
            format!("it is a link to `{}`, not to a manifest beside it", target.display()),
        )
    })
}

impl Tree {
    /// Opens the tree below `root`.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let version = root.join(VERSION);
        if !version.is_dir() {
            let what = format!("open the file tree `{}`", root.display());
            return Err(Error::new(ErrorKind::NotFound, what, format!("there is no folder `{VERSION}` in it"))
                .hint("name the folder that was given as --to-dir when the tree was written (it holds `v2`)"));
        }
        Ok(Self { root: root.to_owned(), referrers: Mutex::default() })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A repository that has the manifest: `first`, or else the first by name.
    pub fn find(&self, digest: &Digest, first: &Repository) -> Result<Option<Repository>, Error> {
        let has = |repository: &Repository| Ok::<_, Error>(self.open_file(repository, MANIFESTS, digest)?.is_some());
        if has(first)? {
            return Ok(Some(first.clone()));
        }
        for repository in self.repositories()? {
            if has(&repository)? {
                return Ok(Some(repository));
            }
        }
        Ok(None)
    }

    fn open_file(
        &self,
        repository: &Repository,
        kind: &str,
        digest: &Digest,
    ) -> Result<Option<(fs::File, u64, PathBuf)>, Error> {
        let usual = file(&self.root, repository, kind, digest);
        let windows = folder(&self.root, repository, kind).join(format!("{}-{}", digest.algorithm(), digest.hex()));
        for path in [usual, windows] {
            if let Some((file, len)) = disk::open(&path)? {
                return Ok(Some((file, len, path)));
            }
        }
        Ok(None)
    }

    fn read_manifest(&self, repository: &Repository, digest: &Digest) -> Result<Option<Manifest>, Error> {
        let Some((_, _, path)) = self.open_file(repository, MANIFESTS, digest)? else { return Ok(None) };
        let Some(bytes) = disk::read_small(&path, MAX_MANIFEST_BYTES)? else { return Ok(None) };
        Manifest::parse_expecting(Bytes::from(bytes), None, digest)
            .map(Some)
            .map_err(|e| e.context(format!("read `{}`", path.display())))
    }

    fn collect(path: &Path, name: &str, depth: usize, found: &mut BTreeSet<Repository>) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Ok(());
        }
        for entry in disk::names(path)? {
            let below = path.join(&entry);
            // A link to a folder could make a circle; `oc` writes none.
            if !fs::symlink_metadata(&below).is_ok_and(|m| m.is_dir()) {
                continue;
            }
            if entry == MANIFESTS || entry == BLOBS {
                let held = entry == MANIFESTS && disk::names(&below)?.iter().any(|n| digest_of(n).is_some());
                found.extend(held.then(|| Repository::new(name).ok()).flatten());
                continue;
            }
            let name = if name.is_empty() { entry } else { format!("{name}/{entry}") };
            Self::collect(&below, &name, depth + 1, found)?;
        }
        Ok(())
    }
}

impl Storage for Tree {
    fn describe(&self) -> String {
        format!("file tree {}", self.root.display())
    }

    fn repositories(&self) -> Result<Vec<Repository>, Error> {
        let mut found = BTreeSet::new();
        Self::collect(&self.root.join(VERSION), "", 0, &mut found)?;
        Ok(found.into_iter().collect())
    }

    fn tags(&self, repository: &Repository) -> Result<Option<Vec<Tag>>, Error> {
        let folder = folder(&self.root, repository, MANIFESTS);
        if !folder.is_dir() {
            return Ok(None);
        }
        let is_tag = |name: &String| fs::symlink_metadata(folder.join(name)).is_ok_and(|m| m.is_symlink());
        Ok(Some(disk::names(&folder)?.into_iter().filter(is_tag).filter_map(|n| Tag::new(&n).ok()).collect()))
    }

    fn manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Manifest>, Error> {
        let digest = match at {
            ManifestName::Digest(digest) => Some(digest.clone()),
            ManifestName::Tag(tag) => tagged(&self.root, repository, tag)?,
        };
        digest.map_or(Ok(None), |digest| self.read_manifest(repository, &digest))
    }

    fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Region>, Error> {
        let opened = self.open_file(repository, BLOBS, digest)?;
        Ok(opened.map(|(file, len, _)| Region { file: Arc::new(file), offset: 0, len }))
    }

    fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let known = self.referrers.lock().unwrap_or_else(PoisonError::into_inner).get(repository).cloned();
        let index = match known {
            Some(index) => index,
            None => {
                let names = disk::names(&folder(&self.root, repository, MANIFESTS))?;
                let manifests: BTreeSet<Digest> = names.iter().filter_map(|n| digest_of(n)).collect();
                let index = Arc::new(referrer_index([(repository, &manifests)].into_iter(), self)?);
                let mut held = self.referrers.lock().unwrap_or_else(PoisonError::into_inner);
                held.insert(repository.clone(), Arc::clone(&index));
                index
            }
        };
        Ok(index.get(&(repository.clone(), subject.clone())).cloned().unwrap_or_default())
    }
}
