//! docker-distribution's storage layout on a local disk (drawn in `paths.rs`).
//!
//! * [`Directory`] reads it, whoever wrote it: docker-registry 2.x or 3.x, oc-mirror's cache, an unpacked archive, us.
//! * [`Writer`] also writes it, so that docker-registry can serve what we wrote; collects garbage, scrubs and repairs it.
//!
//! What is read is judged with mistrust, since docker-registry writes in place and leaves empty or short files behind when
//! it is interrupted: a manifest is hashed at every reading; a link that says nothing sensible stands for the digest that its
//! directory names; a tag that points nowhere is no tag; names that could not have been written by a registry are passed over.

mod cache;
mod catalog;
mod damage;
mod doubt;
mod gc;
pub mod generations;
mod intake;
mod keeper;
mod lane;
mod leases;
mod paths;
mod publish;
mod record;
mod referrers;
mod removed;
mod retire;
mod scrub;
mod sink;
mod stamp;
mod uploads;
mod walk;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use airlock_oci::sink::ManifestName;
use airlock_oci::{Algorithm, Descriptor, Digest, Error, ErrorKind, MAX_MANIFEST_BYTES, Manifest, Repository, Tag};
use bytes::Bytes;

pub(crate) use cache::Kept;
pub(crate) use damage::Needs;
pub use damage::{Damage, Fault, Repaired, Scrubbed};
pub use gc::Collected;
pub use generations::{Generation, Members};
pub use intake::Intake;
pub use keeper::{Change, Changed, Keeper};
pub use publish::Durability;
pub(crate) use record::{MAX_RECORD_BYTES, recorded, recorded_repair, verified};
pub use uploads::{Upload, UploadId, UploadStatus};
pub(crate) use walk::digests_in;
pub use writer::{Expected, Writer};

use crate::disk;
use crate::storage::{Region, Storage, Verified};
use cache::Cache;
use paths::{Link, Paths};
use stamp::Stamp;

/// Most bytes that a link file may have: a sha512 digest, and the newline that an editor may have added.
const MAX_LINK_BYTES: usize = 256;
/// Fewest bytes that name a digest: `sha256:` and 64 hex digits.
const MIN_LINK_BYTES: u64 = 71;
/// Tags that are counted as all: more than any repository has.
const ALL: usize = usize::MAX;

/// Registry storage on a local disk, for reading. Another process may write to it meanwhile.
#[derive(Debug)]
pub struct Directory {
    paths: Paths,
    referrers: referrers::Index,
    cache: Cache,
}

impl Directory {
    /// Opens the storage below `root` (the directory that holds `docker/registry/v2`).
    pub fn open(root: &Path) -> Result<Self, Error> {
        let directory = Self::at(root);
        if !directory.paths.registry().is_dir() {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("open registry storage `{}`", root.display()),
                "there is no `docker/registry/v2` below it",
            )
            .hint("give the directory that a registry is configured with as `rootdirectory`"));
        }
        Ok(directory)
    }

    fn at(root: &Path) -> Self {
        Self { paths: Paths::new(root), referrers: referrers::Index::default(), cache: Cache::default() }
    }

    /// The root.
    pub fn root(&self) -> &Path {
        self.paths.root()
    }

    /// The digest under whose name the content lies, if the repository has a link to `digest`.
    ///
    /// docker-registry keeps content that was pushed by sha512 under its sha256 name and says so in the link; any other
    /// disagreement between a link and its directory's name is damage, and the name, which was written first, is right.
    fn linked(&self, repository: &Repository, kind: Link, digest: &Digest) -> Result<Option<Digest>, Error> {
        let path = self.paths.link(repository, kind, digest);
        // A link as long as its directory's digest names one of the same algorithm, and then the directory is right anyhow.
        let own_length = (digest.algorithm().name().len() + 1 + digest.algorithm().hex_len()) as u64;
        match std::fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() && metadata.len() == own_length => return Ok(Some(digest.clone())),
            Err(e) if disk::is_absent(&e) => return Ok(None),
            // Read, a link of another length says what it means, and a disk that failed says so.
            _ => {}
        }
        let Some(text) = read_link(&path)? else { return Ok(None) };
        Ok(Some(match text {
            Some(target) if target.algorithm() != digest.algorithm() => target,
            _ => digest.clone(),
        }))
    }

    /// What a tag points at.
    fn current(&self, repository: &Repository, tag: &Tag) -> Result<Option<Digest>, Error> {
        // The state before the reading: a change in between makes it differ from the one that is found next time.
        let stamp = Stamp::at(&self.paths.current(repository, tag));
        let digest = self.target(repository, tag)?;
        if let Some(digest) = &digest {
            self.cache.keep_target(repository, tag, stamp, digest);
        }
        Ok(digest)
    }

    /// The same without remembering it. A damaged link is made good from the tag's history where that leaves no doubt.
    fn target(&self, repository: &Repository, tag: &Tag) -> Result<Option<Digest>, Error> {
        match read_link(&self.paths.current(repository, tag))? {
            Some(Some(digest)) => Ok(Some(digest)),
            None => Ok(None),
            Some(None) => {
                let mut past = digests_below(&self.paths.history(repository, tag))?;
                Ok(if past.len() == 1 { past.pop() } else { None })
            }
        }
    }

    /// The tags that point at a digest. Every link is read, several at a time: they may all have to come from the disk.
    fn tags_at(&self, repository: &Repository, digest: &Digest) -> Result<Vec<Tag>, Error> {
        let names = disk::names(&self.paths.tags(repository))?;
        let tags: Vec<Tag> = names.iter().filter_map(|name| Tag::new(name).ok()).collect();
        let targets = disk::side_by_side(&tags, |tag| self.target(repository, tag))?;
        Ok(tags.into_iter().zip(targets).filter_map(|(tag, at)| (at.as_ref() == Some(digest)).then_some(tag)).collect())
    }

    fn manifest_by_digest(&self, repository: &Repository, digest: &Digest) -> Result<Option<Manifest>, Error> {
        let Some(place) = self.linked(repository, Link::Revision, digest)? else { return Ok(None) };
        let damaged = |e: Error| {
            Error::new(ErrorKind::Content, format!("read manifest `{repository}@{digest}`"), e)
                .hint("its copy in the storage is damaged; push or mirror the image again")
        };
        let path = self.paths.data(&place);
        let stamp = Stamp::at(&path);
        if let Some(manifest) = self.unchanged(digest, &place, stamp) {
            return Ok(Some(manifest));
        }
        let bytes = match disk::read_small(&path, MAX_MANIFEST_BYTES) {
            Ok(Some(bytes)) => Bytes::from(bytes),
            Ok(None) => return Ok(None),
            Err(e) if e.kind() == ErrorKind::Invalid => return Err(damaged(e)),
            Err(e) => return Err(e),
        };
        match Manifest::parse_expecting(bytes, None, digest) {
            Ok(manifest) => {
                self.cache.keep_manifest(&manifest, place, stamp);
                Ok(Some(manifest))
            }
            Err(e) if e.kind() == ErrorKind::Content => Err(damaged(e)),
            Err(e) => Err(e),
        }
    }

    /// The manifest in memory, if its bytes are in the state in which they were verified.
    fn unchanged(&self, digest: &Digest, place: &Digest, now: Option<Stamp>) -> Option<Manifest> {
        let (kept_place, stamp, manifest) = self.cache.manifest(digest)?;
        (kept_place == *place && Some(stamp) == now).then_some(manifest)
    }

    /// All tags, sorted, from memory where the folder has not changed.
    fn tag_list(&self, repository: &Repository) -> Result<Option<Arc<Vec<Tag>>>, Error> {
        if !disk::is_directory(&self.paths.repository(repository).join("_manifests"))? {
            return Ok(None);
        }
        let folder = self.paths.tags(repository);
        let stamp = Stamp::at(&folder);
        if let Some(tags) = self.cache.tags(repository, stamp) {
            return Ok(Some(tags));
        }
        let mut tags = Vec::new();
        for name in disk::names(&folder)? {
            let Ok(tag) = Tag::new(&name) else { continue };
            // The length alone tells a whole link from an empty or short one, so that thousands of tags need no reading.
            let whole = disk::metadata(&self.paths.current(repository, &tag))?
                .is_some_and(|m| m.is_file() && m.len() >= MIN_LINK_BYTES);
            if whole || self.current(repository, &tag)?.is_some() {
                tags.push(tag);
            }
        }
        let tags = Arc::new(tags);
        self.cache.keep_tags(repository, stamp, &tags);
        Ok(Some(tags))
    }

    fn blob_at(&self, digest: &Digest) -> Result<Option<Region>, Error> {
        open_region(&self.paths.data(digest))
    }

    fn collect_repositories(&self, path: &Path, name: &str, found: &mut Vec<Repository>) -> Result<(), Error> {
        for entry in disk::names(path)? {
            // No component of a name begins with an underscore, so that the walk ends at the storage's own folders.
            if entry == "_manifests" {
                if let Ok(repository) = Repository::new(name)
                    && has_digest_below(&self.paths.links(&repository, Link::Revision))?
                {
                    found.push(repository);
                }
            } else if Repository::new(&entry).is_ok() {
                let below = if name.is_empty() { entry.clone() } else { format!("{name}/{entry}") };
                if below.len() <= airlock_oci::reference::MAX_NAME_BYTES {
                    self.collect_repositories(&path.join(&entry), &below, found)?;
                }
            }
        }
        Ok(())
    }
}

impl Storage for Directory {
    fn describe(&self) -> String {
        self.root().display().to_string()
    }

    fn repositories(&self) -> Result<Vec<Repository>, Error> {
        let mut found = Vec::new();
        self.collect_repositories(&self.paths.repositories(), "", &mut found)?;
        found.sort_unstable();
        Ok(found)
    }

    fn tags(&self, repository: &Repository) -> Result<Option<Vec<Tag>>, Error> {
        self.tags_after(repository, "", ALL)
    }

    fn tags_after(&self, repository: &Repository, after: &str, most: usize) -> Result<Option<Vec<Tag>>, Error> {
        let Some(tags) = self.tag_list(repository)? else { return Ok(None) };
        let from = tags.partition_point(|tag| tag.as_str() <= after);
        Ok(Some(tags[from..].iter().take(most).cloned().collect()))
    }

    fn manifest_at_once(&self, repository: &Repository, at: &ManifestName) -> Option<Manifest> {
        let digest = match at {
            ManifestName::Digest(digest) => digest.clone(),
            ManifestName::Tag(tag) => {
                let (stamp, digest) = self.cache.target(repository, tag)?;
                (Stamp::at(&self.paths.current(repository, tag)) == Some(stamp)).then_some(digest)?
            }
        };
        let (place, _, _) = self.cache.manifest(&digest)?;
        let revision = self.paths.link(repository, Link::Revision, &digest);
        // Whatever the link says, the bytes have the digest.
        if !std::fs::metadata(revision).is_ok_and(|m| m.is_file()) {
            return None;
        }
        self.unchanged(&digest, &place, Stamp::at(&self.paths.data(&place)))
    }

    fn manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Manifest>, Error> {
        match at {
            ManifestName::Digest(digest) => self.manifest_by_digest(repository, digest),
            ManifestName::Tag(tag) => match self.current(repository, tag)? {
                Some(digest) => self.manifest_by_digest(repository, &digest),
                None => Ok(None),
            },
        }
    }

    fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Region>, Error> {
        match self.linked(repository, Link::Layer, digest)? {
            Some(place) => self.blob_at(&place),
            None => Ok(None),
        }
    }

    fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.referrers.of(self, repository, subject)
    }

    fn manifests(&self, repository: &Repository) -> Result<Option<Vec<Digest>>, Error> {
        self.linked_manifests(repository).map(Some)
    }

    fn tagged_at(&self, repository: &Repository, tag: &Tag) -> Option<SystemTime> {
        std::fs::metadata(self.paths.current(repository, tag)).and_then(|m| m.modified()).ok()
    }

    fn verified(&self) -> Option<Verified> {
        record::read(&self.paths)
    }
}

/// Opens a file as a region; `None` when there is none.
fn open_region(path: &Path) -> Result<Option<Region>, Error> {
    Ok(disk::open(path)?.map(|(file, len)| Region { file: Arc::new(file), offset: 0, len }))
}

/// A link's digest: outer `None` when there is no link, inner `None` when it is damaged.
fn read_link(path: &Path) -> Result<Option<Option<Digest>>, Error> {
    let bytes = match disk::read_small(path, MAX_LINK_BYTES) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(e) if e.kind() == ErrorKind::Invalid => return Ok(Some(None)),
        Err(e) => return Err(e),
    };
    Ok(Some(std::str::from_utf8(&bytes).ok().and_then(|text| text.trim().parse().ok())))
}

/// The digests that the directories `ALG/HEX` below `path` name, where they hold a link.
fn digests_below(path: &Path) -> Result<Vec<Digest>, Error> {
    let mut digests = Vec::new();
    visit_digests_below(path, &mut |digest| {
        digests.push(digest);
        true
    })?;
    Ok(digests)
}

/// Whether there is one at all, without looking at the others.
fn has_digest_below(path: &Path) -> Result<bool, Error> {
    let mut found = false;
    visit_digests_below(path, &mut |_| {
        found = true;
        false
    })?;
    Ok(found)
}

/// Goes on for as long as `visit` says so.
fn visit_digests_below(path: &Path, visit: &mut dyn FnMut(Digest) -> bool) -> Result<(), Error> {
    for algorithm in disk::names(path)? {
        if algorithm.parse::<Algorithm>().is_err() {
            continue;
        }
        let folder = path.join(&algorithm);
        for hex in disk::names(&folder)? {
            if let Ok(digest) = format!("{algorithm}:{hex}").parse()
                && disk::is_file(&folder.join(&hex).join("link"))?
                && !visit(digest)
            {
                return Ok(());
            }
        }
    }
    Ok(())
}
