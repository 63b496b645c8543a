//! From what an archive shall hold to the place of every byte of it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use airlock_oci::{Digest, Error, ErrorKind, Repository, Tag};
use bytes::Bytes;

use super::tar::{BLOCK, END_BYTES, header_len, slot_len};

/// Blob data and links lie under this.
pub const STORAGE_ROOT: &str = "docker/registry/v2";
/// The file that begins each part.
pub const PART_PATH: &str = "airlock/part";
/// The table of contents.
pub const TABLE_PATH: &str = "airlock/table";
/// The plan, as the mirror crate wrote it.
pub const PLAN_PATH: &str = "airlock/plan.json";
/// The last entry.
pub const SEAL_PATH: &str = "airlock/seal";
/// Room kept in the last part for the `void` line of a partial seal (bytes).
const VOID_LINE_RESERVE: u64 = 64 * 1024;

/// What an archive shall hold.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Files under `airlock/` with their bytes, the plan first.
    pub files: Vec<(String, Bytes)>,
    /// Blobs that are carried, in the order of the plan, each once.
    pub blobs: Vec<Item>,
    /// Manifests, all of them, each once.
    pub manifests: Vec<Item>,
    /// Who may serve what, under which names.
    pub repositories: BTreeMap<Repository, RepositoryContents>,
    /// Blobs of the plan that an earlier archive carries.
    pub absent: Vec<Absent>,
    /// Number in the history, from 1.
    pub sequence: u32,
    /// RFC 3339, UTC, seconds.
    pub created: String,
    /// Identity of the archive before this one.
    pub previous: Option<Digest>,
}

/// Content with a known size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Address.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// What a repository of the archive offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepositoryContents {
    /// Configs, layers, artifact blobs.
    pub layers: BTreeSet<Digest>,
    /// Manifests by digest.
    pub manifests: BTreeSet<Digest>,
    /// Names.
    pub tags: BTreeMap<Tag, Digest>,
}

/// A blob that lies in an earlier archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    /// The blob.
    pub item: Item,
    /// Which archive carries it.
    pub identity: Digest,
    /// Its number.
    pub sequence: u32,
    /// Its date.
    pub created: String,
    /// A repository of that archive that offers the blob.
    pub repository: Repository,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `airlock/part` or the table, whose bytes follow from the layout.
    Derived,
    /// A file under `airlock/`, by the digest of its bytes.
    File(Digest),
    /// A blob or a manifest.
    Blob(Digest),
    /// A link to this digest.
    Link(Digest),
}

/// An entry in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Part, from 0.
    pub part: usize,
    /// Offset of the first header.
    pub offset: u64,
    /// Bytes of data.
    pub size: u64,
    /// Path in the tar.
    pub path: String,
    /// What it is.
    pub kind: Kind,
}

/// The whole archive, before a byte of it exists.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Entries in layout order (part, offset).
    pub slots: Vec<Slot>,
    /// Bytes of each part before its end blocks; of the last part before its seal.
    pub lengths: Vec<u64>,
    /// The bytes of `airlock/table`.
    pub table: Bytes,
    /// Digest of the table, which names the set until it is sealed.
    pub set: Digest,
    /// Blobs larger than the limit that got a part of their own.
    pub oversized: Vec<Item>,
    /// The archive's number.
    pub sequence: u32,
    /// The archive's date.
    pub created: String,
}

impl Slot {
    /// Offset of the data.
    pub fn data_offset(&self) -> u64 {
        self.offset + header_len(&self.path)
    }

    /// Offset after the padding.
    pub fn end(&self) -> u64 {
        self.offset + slot_len(&self.path, self.size)
    }

    /// The name of the void that stands for this entry while it is not complete.
    pub fn void_name(&self, number: usize) -> String {
        match &self.kind {
            Kind::Blob(digest) => format!("airlock/void/{digest}"),
            Kind::Link(_) => format!("airlock/void/link/{number:012}"),
            Kind::Derived | Kind::File(_) => format!("airlock/void/file/{number:012}"),
        }
    }
}

/// The name of a part, from 0.
pub fn part_name(part: usize) -> String {
    format!("mirror_{:06}.tar", part + 1)
}

/// The name of a part while it is written.
pub fn partial_name(part: usize) -> String {
    format!(".{}.partial", part_name(part))
}

/// Where a blob or manifest lies.
pub fn blob_path(digest: &Digest) -> String {
    format!("{STORAGE_ROOT}/blobs/{}/{}/{}/data", digest.algorithm(), &digest.hex()[..2], digest.hex())
}

/// "This repository may serve this blob."
pub fn layer_link(repository: &Repository, digest: &Digest) -> String {
    format!("{STORAGE_ROOT}/repositories/{repository}/_layers/{}/{}/link", digest.algorithm(), digest.hex())
}

/// "This repository has this manifest."
pub fn revision_link(repository: &Repository, digest: &Digest) -> String {
    let (algorithm, hex) = (digest.algorithm(), digest.hex());
    format!("{STORAGE_ROOT}/repositories/{repository}/_manifests/revisions/{algorithm}/{hex}/link")
}

/// "The tag has pointed at this manifest."
pub fn tag_index_link(repository: &Repository, tag: &Tag, digest: &Digest) -> String {
    let (algorithm, hex) = (digest.algorithm(), digest.hex());
    format!("{STORAGE_ROOT}/repositories/{repository}/_manifests/tags/{tag}/index/{algorithm}/{hex}/link")
}

/// "The tag points at this manifest."
pub fn tag_link(repository: &Repository, tag: &Tag) -> String {
    format!("{STORAGE_ROOT}/repositories/{repository}/_manifests/tags/{tag}/current/link")
}

/// The bytes of `airlock/part`; the digest of the table is filled in once it is known.
pub fn part_text(set: &Digest, part: usize, parts: usize) -> String {
    format!("airlock-part 1\nset {set}\npart {:06} of {parts:06}\n", part + 1)
}

/// Bytes of the seal without a void line.
pub fn seal_len(lengths: &[u64], chunk: u64) -> u64 {
    let digest_line = "sha256:".len() as u64 + 64 + 1;
    let head = "airlock-seal 1\n".len() as u64
        + "set ".len() as u64
        + digest_line
        + "sequence 000000\n".len() as u64
        + "created 2026-01-01T00:00:00Z\n".len() as u64
        + "identity ".len() as u64
        + digest_line;
    let parts = lengths.len() as u64 * "part 000001 0000000000000000\n".len() as u64;
    let chunks: u64 = lengths.iter().map(|l| l.div_ceil(chunk)).sum();
    head + parts + chunks * 65
}

/// Computes the layout. `limit` is the largest part in bytes, headers, end blocks and seal included; with `strict`, a blob
/// that does not fit is an error, otherwise it gets a part of its own.
pub fn lay_out(contents: &Contents, limit: u64, strict: bool, chunk: u64) -> Result<Layout, Error> {
    // The table's size depends on the number of parts, which depends on the table's size: begin with one part and repeat
    // with what came out until it holds. The number only grows, so this ends.
    let mut parts = 1;
    loop {
        let layout = place(contents, limit, strict, chunk, parts)?;
        if layout.lengths.len() == parts {
            return Ok(layout);
        }
        parts = layout.lengths.len();
    }
}

fn links(contents: &Contents) -> Vec<(String, Digest)> {
    let mut layers = Vec::new();
    let mut names = Vec::new();
    for (repository, offered) in &contents.repositories {
        layers.extend(offered.layers.iter().map(|d| (layer_link(repository, d), d.clone())));
        layers.extend(offered.manifests.iter().map(|d| (revision_link(repository, d), d.clone())));
        for (tag, digest) in &offered.tags {
            names.push((tag_index_link(repository, tag, digest), digest.clone()));
            names.push((tag_link(repository, tag), digest.clone()));
        }
    }
    // A tag comes after everything that it may lead to.
    layers.extend(names);
    layers
}

fn place(contents: &Contents, limit: u64, strict: bool, chunk: u64, parts: usize) -> Result<Layout, Error> {
    let links = links(contents);
    let part_size = part_text(&Digest::of(b""), 0, 0).len() as u64;
    let part_slot = slot_len(PART_PATH, part_size);
    let mut slots: Vec<Slot> = Vec::new();
    let mut lengths: Vec<u64> = vec![part_slot];
    let push = |slots: &mut Vec<Slot>, lengths: &mut Vec<u64>, part: usize, size: u64, path: String, kind: Kind| {
        let offset = lengths[part];
        lengths[part] += slot_len(&path, size);
        slots.push(Slot { part, offset, size, path, kind });
    };

    let table_at = slots.len();
    push(&mut slots, &mut lengths, 0, 0, TABLE_PATH.into(), Kind::Derived);
    // The table's own length is put in below; everything after it in part 1 moves by that much.
    for (path, bytes) in &contents.files {
        push(&mut slots, &mut lengths, 0, bytes.len() as u64, path.clone(), Kind::File(Digest::of(bytes)));
    }
    let paths: Vec<String> =
        contents.blobs.iter().chain(&contents.manifests).map(|item| blob_path(&item.digest)).collect();
    let table_size = table_len(contents, &paths, &links, parts);
    slots[table_at].size = table_size;
    let shift = slot_len(TABLE_PATH, table_size) - slot_len(TABLE_PATH, 0);
    for slot in &mut slots[table_at + 1..] {
        slot.offset += shift;
    }
    lengths[0] += shift;

    let mut oversized = Vec::new();
    let fits = |length: u64, need: u64| length + need + END_BYTES <= limit;
    // First fit over many nearly full parts is quadratic; parts before `first` have no room for even a small blob.
    let mut first = 0;
    let mut paths = paths.into_iter();
    for (item, path) in contents.blobs.iter().zip(paths.by_ref()) {
        let need = slot_len(&path, item.size);
        while first < lengths.len() && !fits(lengths[first], 2 * BLOCK) {
            first += 1;
        }
        let part = match (first..lengths.len()).find(|p| fits(lengths[*p], need)) {
            Some(part) => part,
            None => {
                if !fits(part_slot, need) {
                    if strict {
                        return Err(Error::new(
                            ErrorKind::Invalid,
                            format!("place blob `{}` in the archive", item.digest),
                            format!("it has {} bytes, more than a part of {limit} bytes can hold", item.size),
                        )
                        .hint("raise `archiveSize`, or leave out --strict-archive to give it a part of its own"));
                    }
                    oversized.push(item.clone());
                }
                lengths.push(part_slot);
                lengths.len() - 1
            }
        };
        push(&mut slots, &mut lengths, part, item.size, path, Kind::Blob(item.digest.clone()));
    }

    // Behind every blob: manifests, then links, in the last part or in further ones.
    let tail = |slots: &mut Vec<Slot>, lengths: &mut Vec<u64>, size: u64, path: String, kind: Kind| {
        let last = lengths.len() - 1;
        if !fits(lengths[last], slot_len(&path, size)) && lengths[last] > part_slot {
            lengths.push(part_slot);
        }
        let last = lengths.len() - 1;
        push(slots, lengths, last, size, path, kind);
    };
    for (item, path) in contents.manifests.iter().zip(paths) {
        tail(&mut slots, &mut lengths, item.size, path, Kind::Blob(item.digest.clone()));
    }
    for (path, digest) in links {
        tail(&mut slots, &mut lengths, digest.text_len() as u64, path, Kind::Link(digest));
    }
    let seal = slot_len(SEAL_PATH, seal_len(&lengths, chunk) + VOID_LINE_RESERVE);
    if !fits(*lengths.last().unwrap_or(&0), seal) && *lengths.last().unwrap_or(&0) > part_slot && limit > seal * 2 {
        lengths.push(part_slot);
    }

    // First fit is not monotone: with a larger table fewer parts may do. Then the rest are empty, so that the guess holds.
    while lengths.len() < parts {
        lengths.push(part_slot);
    }
    for part in 0..lengths.len() {
        slots.push(Slot { part, offset: 0, size: part_size, path: PART_PATH.into(), kind: Kind::Derived });
    }
    slots.sort_by_key(|s| (s.part, s.offset));
    let table = Bytes::from(super::table::write(contents, &slots, &lengths));
    debug_assert!(lengths.len() != parts || table.len() as u64 == table_size);
    let set = Digest::of(&table);
    Ok(Layout { slots, lengths, table, set, oversized, sequence: contents.sequence, created: contents.created.clone() })
}

/// Bytes of the table for so many parts. `paths`: those of blobs and manifests.
fn table_len(contents: &Contents, paths: &[String], links: &[(String, Digest)], parts: usize) -> u64 {
    use super::table::{absent_line, entry_len, head, part_line};
    let empty = Digest::of(b"");
    let (file, blob) = (Kind::File(empty.clone()), Kind::Blob(empty));
    let mut total = head(contents).len();
    total += parts * (part_line(0, 0).len() + entry_len(&Kind::Derived, PART_PATH.len()));
    total += entry_len(&Kind::Derived, TABLE_PATH.len());
    total += contents.files.iter().map(|(path, _)| entry_len(&file, path.len())).sum::<usize>();
    total += paths.iter().map(|path| entry_len(&blob, path.len())).sum::<usize>();
    total += links.iter().map(|(path, digest)| entry_len(&Kind::Link(digest.clone()), path.len())).sum::<usize>();
    total += contents.absent.iter().map(|a| absent_line(a).len()).sum::<usize>();
    total as u64
}
