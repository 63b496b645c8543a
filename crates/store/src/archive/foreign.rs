//! Reads `mirror_*.tar` files that oc-mirror v2 wrote: names come from the links inside, content is verified by digest.
//!
//! Such an archive has no table: the headers of all parts are walked once (the data is skipped). Its archives are differential, so
//! that a blob a link speaks of may be missing; it then lies in an earlier archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use airlock_oci::sink::ManifestName;
use airlock_oci::{Descriptor, Digest, Error, ErrorKind, Manifest, Repository, Tag};

use super::index::{Placed, Places};
use super::offers::{Links, Offers};
use super::reader::parts_in;
use super::table::digest_of_path;
use super::tar::Walk;
use crate::storage::{Region, Storage};

/// A link is a digest as text; anything longer is not one.
const MAX_LINK_BYTES: u64 = 256;

/// oc-mirror's working directory in its archives (oc-mirror 3.7).
const WORKING_DIR: &str = "working-dir/";
/// The largest file of it that is read (bytes): graphs have a few MiB, signatures less than one KiB.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// One or more tar files of oc-mirror's, as one storage.
pub struct Foreign {
    directory: PathBuf,
    parts: Vec<Arc<File>>,
    blobs: Places,
    offers: Offers,
    /// Files of the working directory, by their path below it.
    files: BTreeMap<String, Region>,
}

/// What walking the headers has found so far.
#[derive(Default)]
struct Found {
    parts: Vec<Arc<File>>,
    blobs: Vec<Placed>,
    links: Links,
    files: BTreeMap<String, Region>,
}

impl Foreign {
    /// Walks the headers of every part in a directory. Blocks.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let mut found = Found::default();
        for (_, path) in parts_in(directory)? {
            found.read_part(&path)?;
        }
        if found.links.is_empty() {
            return Err(Error::new(
                ErrorKind::Damaged,
                format!("read the archive in {}", directory.display()),
                "it holds no images",
            )
            .hint("give the directory with the mirror_*.tar files that `airlock mirror` or `oc-mirror` wrote"));
        }
        let Found { parts, blobs, links, files } = found;
        let (blobs, offers) = (Places::new(blobs), links.finish());
        Ok(Self { directory: directory.to_owned(), parts, blobs, offers, files })
    }

    /// Files of oc-mirror's working directory below a folder (`signatures/`), by their names there; those of more than 64 MiB are left out.
    pub fn files(&self, folder: &str) -> Result<Vec<(String, Vec<u8>)>, Error> {
        let below = self.files.iter().filter_map(|(path, region)| Some((path.strip_prefix(folder)?, region)));
        below
            .filter(|(name, region)| !name.contains('/') && region.len <= MAX_FILE_BYTES)
            .map(|(name, region)| {
                let mut bytes = vec![0u8; region.len as usize];
                region.file.read_exact_at(&mut bytes, region.offset).map_err(|e| {
                    Error::io(format!("read `{folder}{name}` of the archive in {}", self.directory.display()), &e)
                })?;
                Ok((name.to_owned(), bytes))
            })
            .collect()
    }

    /// Where the content of a digest lies.
    pub fn region(&self, digest: &Digest) -> Option<Region> {
        let placed = self.blobs.get(digest)?;
        Some(Region { file: Arc::clone(&self.parts[placed.part as usize]), offset: placed.offset, len: placed.len })
    }

    /// What each repository offers, as far as links say.
    pub fn offers(&self) -> &Offers {
        &self.offers
    }
}

impl Found {
    fn read_part(&mut self, path: &Path) -> Result<(), Error> {
        let what = || format!("read {}", path.display());
        let file = Arc::new(File::open(path).map_err(|e| Error::io(what(), &e))?);
        let len = file.metadata().map_err(|e| Error::io(what(), &e))?.len();
        if len == 0 {
            return Err(Error::new(ErrorKind::Damaged, what(), "empty archive file")
                .hint("the file was not copied; copy it again from where it was written"));
        }
        let part = self.parts.len() as u32;
        self.parts.push(Arc::clone(&file));
        let walk = Walk::new(len, |offset, buffer: &mut [u8]| file.read_exact_at(buffer, offset));
        for entry in walk {
            let entry = entry.map_err(|e| {
                Error::new(ErrorKind::Damaged, what(), e)
                    .hint("the archive is cut or damaged; copy this file again from where it was written")
            })?;
            if !entry.is_file {
                continue;
            }
            let entry_path = entry.path.trim_start_matches("./");
            if let Some(digest) = digest_of_path(entry_path) {
                let (offset, len, number) = (entry.data, entry.size, self.blobs.len() as u32);
                self.blobs.push(Placed { digest, offset, len, part, number });
            } else if entry_path.ends_with("/link") && entry.size <= MAX_LINK_BYTES {
                let mut text = vec![0u8; entry.size as usize];
                file.read_exact_at(&mut text, entry.data).map_err(|e| Error::io(what(), &e))?;
                // A link that was being written while it was archived is empty: it is as if it were not there.
                if let Some(digest) = std::str::from_utf8(&text).ok().and_then(|t| t.trim().parse().ok()) {
                    self.links.add(entry_path, &digest);
                }
            } else if let Some(name) = entry_path.strip_prefix(WORKING_DIR) {
                let region = Region { file: Arc::clone(&file), offset: entry.data, len: entry.size };
                self.files.insert(name.to_owned(), region);
            }
        }
        Ok(())
    }
}

impl Storage for Foreign {
    fn describe(&self) -> String {
        self.directory.display().to_string()
    }

    fn repositories(&self) -> Result<Vec<Repository>, Error> {
        Ok(self.offers.repositories())
    }

    fn tags(&self, repository: &Repository) -> Result<Option<Vec<Tag>>, Error> {
        Ok(self.offers.tags(repository))
    }

    fn manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Manifest>, Error> {
        let Some((digest, region)) = self.offers.manifest(repository, at).and_then(|d| Some((d, self.region(d)?)))
        else {
            return Ok(None);
        };
        let what = || format!("read manifest `{digest}` in {}", self.directory.display());
        if region.len > airlock_oci::MAX_MANIFEST_BYTES as u64 {
            return Err(Error::new(ErrorKind::Unsupported, what(), "it is larger than 4 MiB"));
        }
        let mut bytes = vec![0u8; region.len as usize];
        region.file.read_exact_at(&mut bytes, region.offset).map_err(|e| Error::io(what(), &e))?;
        Manifest::parse_expecting(bytes.into(), None, digest).map(Some).map_err(|e| e.context(what()))
    }

    fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Region>, Error> {
        if !self.offers.has(repository, digest) {
            return Ok(None);
        }
        Ok(self.region(digest))
    }

    fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.offers.referrers(repository, subject, self)
    }

    fn manifests(&self, repository: &Repository) -> Result<Option<Vec<Digest>>, Error> {
        Ok(self.offers.manifests(repository))
    }
}
