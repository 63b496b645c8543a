//! What lies in docker-distribution storage, read from the disk: every repository, tag, manifest and blob, also those that
//! no tag leads to. Works for the storage of a real registry, for ours, and for an unpacked archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use airlock_oci::{Algorithm, Digest};

/// Everything in one storage folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// By repository name. Repositories that hold nothing are left out.
    pub repositories: BTreeMap<String, Held>,
    /// Every blob (manifests too), with its length in bytes.
    pub blobs: BTreeMap<String, u64>,
    /// Uploads that were begun and not ended.
    pub uploads: Vec<PathBuf>,
}

/// What one repository holds, all by digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Tag to digest.
    pub tags: BTreeMap<String, String>,
    /// Manifests, tagged or not.
    pub manifests: BTreeSet<String>,
    /// Configurations and layers.
    pub layers: BTreeSet<String>,
}

impl Contents {
    /// Reads the storage below `root`, the folder that holds `docker/registry/v2`. An empty or absent folder is an empty registry.
    ///
    /// # Panics
    /// When a file that a registry would need cannot be read.
    pub fn read(root: &Path) -> Self {
        let base = root.join("docker/registry/v2");
        let mut contents = Self::default();
        for algorithm in folders(&base.join("blobs")) {
            for shard in folders(&algorithm) {
                for blob in folders(&shard) {
                    // A folder without data is an unlinked leftover, not a blob: registries answer 404 for it.
                    if let Ok(data) = fs::metadata(blob.join("data")) {
                        contents.blobs.insert(format!("{}:{}", name(&algorithm), name(&blob)), data.len());
                    }
                }
            }
        }
        contents.repositories_below(&base.join("repositories"), "");
        contents.uploads.sort();
        contents
    }

    fn repositories_below(&mut self, folder: &Path, repository: &str) {
        let mut held = Held::default();
        for below in folders(folder) {
            match name(&below).as_str() {
                "_manifests" => {
                    held.manifests = links(&below.join("revisions"));
                    for tag in folders(&below.join("tags")) {
                        if let Some(digest) = link(&tag.join("current")) {
                            held.tags.insert(name(&tag), digest);
                        }
                    }
                }
                "_layers" => held.layers = links(&below),
                // docker-registry leaves the state of its hash behind when an upload is cancelled: no data, no upload.
                "_uploads" => self.uploads.extend(folders(&below).into_iter().filter(|it| it.join("data").exists())),
                own if own.starts_with('_') => {}
                part => {
                    let inner = if repository.is_empty() { part.to_owned() } else { format!("{repository}/{part}") };
                    self.repositories_below(&below, &inner);
                }
            }
        }
        if held != Held::default() {
            self.repositories.insert(repository.to_owned(), held);
        }
    }
}

/// Where docker-distribution keeps the bytes of `digest` below the storage folder `root`.
pub fn blob_path(root: &Path, digest: &str) -> PathBuf {
    let (algorithm, hex) = digest.split_once(':').expect("a digest has a colon");
    root.join("docker/registry/v2/blobs").join(algorithm).join(&hex[..2]).join(hex).join("data")
}

/// Reads every blob below the storage folder `root` and names those whose bytes do not match their name.
///
/// # Panics
/// When a blob cannot be read.
pub fn altered(root: &Path) -> Vec<String> {
    let contents = Contents::read(root);
    contents.blobs.into_keys().filter(|digest| digest_of_file(&blob_path(root, digest), digest) != *digest).collect()
}

/// The digest of a file's bytes, by the algorithm of `like`.
pub(crate) fn digest_of_file(path: &Path, like: &str) -> String {
    let algorithm = if like.starts_with("sha512:") { Algorithm::Sha512 } else { Algorithm::Sha256 };
    let mut hasher = airlock_oci::Hasher::new(algorithm);
    let mut file = fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut buffer).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if count == 0 {
            return Digest::to_string(&hasher.finish());
        }
        hasher.update(&buffer[..count]);
    }
}

/// The digests linked below `folder/<algorithm>/<hex>/link`. A revision without its link was deleted.
fn links(folder: &Path) -> BTreeSet<String> {
    folders(folder).iter().flat_map(|algorithm| folders(algorithm)).filter_map(|entry| link(&entry)).collect()
}

fn link(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join("link")).ok()
}

/// The folders in a folder, sorted; none when it is absent.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
