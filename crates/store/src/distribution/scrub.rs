//! Scrubbing and repair: every byte is read and compared with its name, every manifest's content is looked for, and what is damaged or
//! missing is taken from an archive.
//!
//! A file whose bytes do not have its digest is moved to `.airlock/quarantine`: it is then absent, clients hear so, and a push or a
//! repair brings it back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use airlock_oci::{Digest, Error, Hasher, Repository};
use bytes::Bytes;

use super::damage::{Fault, Needs, Repaired, Scrubbed};
use super::paths::Link;
use super::publish::write_link;
use super::uploads::UploadId;
use super::walk::Revision;
use super::{Directory, Writer, record};
use crate::disk::{self, DirectorySyncs};
use crate::staged::Staged;
use crate::storage::Region;

/// Bytes read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Keeps reading below a rate, so that scrubbing does not take the disk from those who pull.
struct Pace {
    bytes_per_second: Option<u64>,
    start: Instant,
    bytes: u64,
}

impl Pace {
    fn wait(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if let Some(rate) = self.bytes_per_second.filter(|rate| *rate > 0) {
            let due = Duration::from_secs_f64(self.bytes as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(self.start.elapsed()));
        }
    }
}

impl Writer {
    /// Reads everything. At most so many bytes a second; blocks on the disk.
    pub fn scrub(&self, bytes_per_second: Option<u64>) -> Result<Scrubbed, Error> {
        let mut pace = Pace { bytes_per_second, start: Instant::now(), bytes: 0 };
        let mut altered = BTreeMap::new();
        let mut scrubbed = Scrubbed::default();
        self.directory().visit_blobs(&mut |blob| {
            scrubbed.files += 1;
            scrubbed.bytes += blob.len;
            if self.quarantine_if_altered(&blob.digest, &mut pace)? {
                altered.insert(blob.digest, Fault::Altered);
            }
            Ok(())
        })?;
        let needs = self.directory().needs()?;
        scrubbed.manifests = needs.manifests;
        scrubbed.damage = needs.damage(&altered);
        record::write(&self.directory().paths, &scrubbed);
        Ok(scrubbed)
    }

    /// Looks at the bytes of one blob; whether they were others than its name says. The file is then out of the way, and a push brings it back.
    pub fn heal_blob(&self, digest: &Digest) -> Result<bool, Error> {
        self.quarantine_if_altered(digest, &mut Pace { bytes_per_second: None, start: Instant::now(), bytes: 0 })
    }

    /// Whether the bytes have another digest than the file's name, or it is no file at all; it is then out of the way.
    fn quarantine_if_altered(&self, digest: &Digest, pace: &mut Pace) -> Result<bool, Error> {
        let path = self.directory().paths.data(digest);
        let before = match disk::open(&path)? {
            Some((file, len)) if digest_of(&file, len, digest, &path, pace)? == *digest => return Ok(false),
            Some((file, _)) => file.metadata().map_err(|e| disk::failed("read", &path, &e))?,
            None => match disk::metadata(&path)? {
                Some(metadata) if !metadata.is_file() && !metadata.is_dir() => metadata,
                _ => return Ok(false),
            },
        };
        let is_same = |now: fs::Metadata| (now.ino(), now.dev()) == (before.ino(), before.dev());
        // A push may have put a whole one in its place meanwhile.
        if disk::metadata(&path)?.is_some_and(is_same) {
            let folder = self.directory().paths.quarantine();
            let mut syncs = DirectorySyncs::default();
            syncs.changed(&path);
            syncs.publish(&path, &folder.join(format!("{}-{}", digest.algorithm(), digest.hex())))?;
            syncs.sync()?;
            self.close_files();
            tracing::error!(%digest, "a file is damaged and was put into quarantine");
        }
        Ok(true)
    }

    /// Brings back what is damaged or missing: `find` gives the bytes, which are verified. With `quick` only what is missing is looked
    /// for; otherwise everything is read first.
    pub fn repair(&self, quick: bool, find: &dyn Fn(&Digest) -> Option<Region>) -> Result<Repaired, Error> {
        let mut altered = BTreeMap::new();
        if !quick {
            // What is missing shows again below.
            let damage = self.scrub(None)?.damage.into_iter().filter(|damage| damage.fault == Fault::Altered);
            altered.extend(damage.map(|damage| (damage.digest, damage.fault)));
        }
        let mut repaired = Repaired::default();
        // A manifest that is back may name more that is missing: again, until a round has brought nothing.
        loop {
            let needs = self.directory().needs()?;
            let wanted = needs.wanted(&altered, &repaired.restored);
            let before = repaired.restored.len();
            for digest in wanted {
                if let Some(region) = find(&digest)
                    && self.durably(|| self.restore(&digest, &region, &links(&needs, &digest)))?
                {
                    altered.remove(&digest);
                    repaired.restored.push(digest);
                }
            }
            if repaired.restored.len() == before {
                repaired.left = needs.damage(&altered);
                repaired.restored.sort();
                record::repaired(&self.directory().paths, &repaired.left);
                return Ok(repaired);
            }
        }
    }

    /// Copies a region into its place; `false` when it has another digest.
    fn restore(&self, digest: &Digest, region: &Region, links: &[(Repository, Link)]) -> Result<bool, Error> {
        let paths = &self.directory().paths;
        let mut staged =
            Staged::new(paths.uploads().join(format!("repair-{}", UploadId::random()?)), digest.algorithm());
        let mut buffer = vec![0; PIECE_BYTES];
        let mut at = 0;
        while at < region.len {
            let want = buffer.len().min((region.len - at) as usize);
            region
                .file
                .read_exact_at(&mut buffer[..want], region.offset + at)
                .map_err(|e| Error::io(format!("read `{digest}` to repair it"), &e))?;
            staged.write(&[Bytes::copy_from_slice(&buffer[..want])])?;
            at += want as u64;
        }
        if staged.digest(digest.algorithm(), digest.algorithm())? != *digest {
            return Ok(false);
        }
        let path = staged.keep()?;
        let mut syncs = DirectorySyncs::default();
        File::open(&path).and_then(|file| file.sync_data()).map_err(|e| disk::failed("sync", &path, &e))?;
        syncs.publish(&path, &paths.data(digest))?;
        for (repository, kind) in links {
            write_link(&paths.link(repository, *kind, digest), digest, paths, &mut syncs)?;
        }
        syncs.sync()?;
        Ok(true)
    }
}

/// The repositories that must link to the digest, and how.
fn links(needs: &Needs, digest: &Digest) -> Vec<(Repository, Link)> {
    let kind = |is_manifest| if is_manifest { Link::Revision } else { Link::Layer };
    needs.owners(digest).into_iter().map(|(repository, is_manifest)| (repository, kind(is_manifest))).collect()
}

fn digest_of(file: &File, len: u64, named: &Digest, path: &Path, pace: &mut Pace) -> Result<Digest, Error> {
    let mut hasher = Hasher::new(named.algorithm());
    let mut buffer = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < len {
        let want = buffer.len().min((len - at) as usize);
        let read = file.read_at(&mut buffer[..want], at).map_err(|e| disk::failed("read", path, &e))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        at += read as u64;
        pace.wait(read);
    }
    Ok(hasher.finish())
}

impl Directory {
    /// Looks for everything that manifests name.
    fn needs(&self) -> Result<Needs, Error> {
        let mut needs = Needs::default();
        for repository in self.all_repositories()? {
            for digest in self.linked_manifests(&repository)? {
                needs.manifests += 1;
                let image = (repository.clone(), digest.clone());
                let manifest = match self.revision(&repository, &digest)? {
                    Revision::Whole(manifest) => manifest,
                    Revision::Foreign(_) => continue,
                    Revision::Damaged => {
                        needs.add(digest, Fault::Altered, image);
                        continue;
                    }
                    Revision::Missing => {
                        needs.add(digest, Fault::Missing, image);
                        continue;
                    }
                };
                for blob in manifest.blobs().filter(|blob| !blob.is_foreign()) {
                    let place = self.place_of(&repository, Link::Layer, &blob.digest)?;
                    let linked = self.linked(&repository, Link::Layer, &blob.digest)?.is_some();
                    let fault = match disk::metadata(&self.paths.data(&place))?.filter(fs::Metadata::is_file) {
                        Some(metadata) if metadata.len() != blob.size => Fault::Length,
                        Some(_) if linked => continue,
                        Some(_) | None => Fault::Missing,
                    };
                    needs.add(blob.digest.clone(), fault, image.clone());
                }
            }
        }
        Ok(needs)
    }
}
