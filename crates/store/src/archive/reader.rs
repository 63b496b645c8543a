//! Opens a sealed archive in place: its parts, table and seal are checked against one another, its content is served by offset.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use airlock_oci::sink::ManifestName;
use airlock_oci::{Descriptor, Digest, Error, ErrorKind, Manifest, Repository, Tag};
use bytes::Bytes;

use super::layout::{Absent, Kind, PART_PATH, RepositoryContents, SEAL_PATH, Slot, TABLE_PATH, part_name};
use super::offers::Offers;
use super::seal::Seal;
use super::table::{self, Table};
use super::tar::{self, END_BYTES, Walk, padded};
use crate::storage::{Region, Storage};

/// Parts that a message about mixed archives names as the other side.
const MAX_NAMED_PARTS: usize = 3;
/// The largest table or seal that is read into memory (bytes).
const MAX_TABLE_BYTES: u64 = 512 * 1024 * 1024;

/// A sealed archive.
pub struct Archive {
    directory: PathBuf,
    parts: Vec<Part>,
    table: Table,
    set: Digest,
    seal: Seal,
    identity: Digest,
    by_digest: HashMap<Digest, usize>,
    offers: Offers,
}

/// One tar file of it.
#[derive(Debug)]
pub struct Part {
    /// Where.
    pub path: PathBuf,
    /// Open for reading.
    pub file: Arc<File>,
    /// Bytes.
    pub len: u64,
}

/// The number in a part's name, from 1.
pub fn part_number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("mirror_")?.strip_suffix(".tar")?;
    if digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Parts named `mirror_NNNNNN.tar` in a directory, by number.
pub fn parts_in(directory: &Path) -> Result<Vec<(u32, PathBuf)>, Error> {
    let what = || format!("look for an archive in {}", directory.display());
    let mut parts = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(no_parts(directory)),
        Err(e) => return Err(Error::io(what(), &e)),
    };
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(what(), &e))?;
        if let Some(number) = entry.file_name().to_str().and_then(part_number) {
            parts.push((number, entry.path()));
        }
    }
    parts.sort();
    if parts.is_empty() { Err(no_parts(directory)) } else { Ok(parts) }
}

fn no_parts(directory: &Path) -> Error {
    let error = Error::new(
        ErrorKind::NotFound,
        format!("look for an archive in {}", directory.display()),
        r#"no tar archives matching "mirror_[0-9]{6}\.tar""#,
    );
    if super::writer::partial_parts(directory).is_empty() {
        error.hint("give the directory that holds mirror_000001.tar, as file:///path")
    } else {
        error.hint(
            "the archive there is not finished: run `airlock mirror` again with the same configuration to complete it",
        )
    }
}

/// The set and numbers in the first kilobyte of a part; `None` when it is not one of ours.
fn part_header(head: &[u8; 1024]) -> Option<(Digest, u32, u32)> {
    let text = std::str::from_utf8(&head[512..]).ok()?.trim_end_matches('\0');
    if head[..512] != tar::headers(PART_PATH, text.len() as u64)[..] {
        return None;
    }
    let mut lines = text.lines();
    (lines.next()? == "airlock-part 1").then_some(())?;
    let set = lines.next()?.strip_prefix("set ")?.parse().ok()?;
    let (part, parts) = lines.next()?.strip_prefix("part ")?.split_once(" of ")?;
    Some((set, part.parse().ok()?, parts.parse().ok()?))
}

/// The set that a part belongs to, and how many parts that has; `None` when it is not one of ours.
pub(super) fn set_of_part(path: &Path) -> Option<(Digest, u32)> {
    let mut head = [0u8; 1024];
    File::open(path).ok()?.read_exact_at(&mut head, 0).ok()?;
    part_header(&head).map(|(set, _, parts)| (set, parts))
}

/// Whether the parts in a directory are of our format (and not oc-mirror's).
pub fn is_ours(directory: &Path) -> Result<bool, Error> {
    for (_, path) in parts_in(directory)? {
        let file = open(&path)?;
        let len = file.metadata().map_err(|e| Error::io(format!("read {}", path.display()), &e))?.len();
        if len == 0 {
            return Err(empty(&path));
        }
        let mut head = [0u8; 1024];
        if len >= 1024 && file.read_exact_at(&mut head, 0).is_ok() && head.starts_with(b"airlock/") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn empty(path: &Path) -> Error {
    Error::new(ErrorKind::Damaged, format!("read {}", path.display()), "empty archive file")
        .hint("the file was not copied; copy it again from where it was written")
}

/// Which set the parts of a directory belong to: the one whose table lies in the first part, else the one most parts name.
fn agreed_set(claims: &[(Digest, u32, u32, u32)], first: &Part) -> Option<Digest> {
    let by_table = table_bytes(first).ok().map(|bytes| Digest::of(&bytes));
    if let Some(set) = by_table.filter(|set| claims.iter().any(|c| c.0 == *set)) {
        return Some(set);
    }
    let votes = |set: &Digest| claims.iter().filter(|c| c.0 == *set).count();
    // Of equally many, the first part's: `max_by_key` takes the last, so the order is turned round.
    claims.iter().rev().max_by_key(|c| votes(&c.0)).map(|c| c.0.clone())
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|e| Error::io(format!("open {}", path.display()), &e))
}

impl Archive {
    /// Opens the archive in a directory. Everything that can be told without reading the blobs is checked: parts that are
    /// missing, foreign, cut or of another archive; the table; the seal.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let found = parts_in(directory)?;
        let invalid =
            |path: &Path, cause: String| Error::new(ErrorKind::Damaged, format!("read {}", path.display()), cause);
        let again = "copy this file again from where the archive was written";
        let mut parts = Vec::new();
        let mut claims = Vec::new();
        for (number, path) in found {
            let file = open(&path)?;
            let len = file.metadata().map_err(|e| Error::io(format!("read {}", path.display()), &e))?.len();
            if len == 0 {
                return Err(empty(&path));
            }
            let mut head = [0u8; 1024];
            if len < 1024 {
                return Err(invalid(&path, format!("it has only {len} bytes")).hint(again));
            }
            file.read_exact_at(&mut head, 0).map_err(|e| Error::io(format!("read {}", path.display()), &e))?;
            let Some((set, own, count)) = part_header(&head) else {
                return Err(invalid(&path, "it does not begin as a part of an Airlock archive does".into())
                    .hint("if oc-mirror wrote it, keep it in a directory without parts of ours; if not, its first bytes are damaged: copy it again"));
            };
            claims.push((set, own, count, number));
            parts.push(Part { path, file: Arc::new(file), len });
        }
        let Some(set) = agreed_set(&claims, &parts[0]) else { return Err(no_parts(directory)) };
        let count = claims.iter().find(|c| c.0 == set).map_or(0, |c| c.2);
        for (claim, part) in claims.iter().zip(&parts) {
            let (own_set, own, own_count, number) = claim;
            if *own_set != set || *own_count != count {
                let agreeing = claims.iter().zip(&parts).filter(|(c, _)| c.0 == set && c.2 == count);
                let names = agreeing.filter_map(|(_, part)| part.path.file_name()?.to_str());
                let others: Vec<&str> = names.take(MAX_NAMED_PARTS).collect();
                return Err(invalid(
                    &part.path,
                    format!("its first entry says that it belongs to another archive than {}", others.join(", ")),
                )
                .hint("either two archives are mixed here: keep each in a directory of its own; or this file is damaged: copy it again"));
            }
            if own != number {
                return Err(invalid(&part.path, format!("it is part {own} of its archive, renamed"))
                    .hint(format!("rename it to mirror_{own:06}.tar")));
            }
        }
        let have: HashSet<u32> = parts.iter().filter_map(|p| part_number(p.path.file_name()?.to_str()?)).collect();
        let missing: Vec<String> =
            (1..=count).filter(|n| !have.contains(n)).map(|n| part_name(n as usize - 1)).collect();
        if !missing.is_empty() {
            return Err(Error::new(
                ErrorKind::Damaged,
                format!("read the archive in {}", directory.display()),
                format!("of its {count} parts, {} missing: {}", missing.len(), missing.join(", ")),
            )
            .hint("copy the missing files into the same directory"));
        }
        let table = read_table(&parts[0], &set)?;
        if table.lengths.len() != parts.len() {
            return Err(invalid(&parts[0].path, "its table speaks of another number of parts".into()).hint(again));
        }
        for (number, part) in parts.iter().enumerate() {
            let length = table.lengths[number];
            let least = if number + 1 == parts.len() { length + 512 + END_BYTES } else { length + END_BYTES };
            if part.len < least {
                let cut = table.slots.iter().find(|s| s.part == number && s.end() > part.len);
                let from = cut.map_or_else(|| "the seal".to_owned(), |s| format!("`{}`", s.path));
                return Err(invalid(
                    &part.path,
                    format!(
                        "it is cut: {} bytes instead of at least {least}; {from} and what follows are missing",
                        part.len
                    ),
                )
                .hint(again));
            }
            if number + 1 < parts.len() && part.len > least {
                return Err(invalid(&part.path, format!("it has {} bytes after its end", part.len - least)).hint(again));
            }
        }
        let (seal, identity) = read_seal(&parts[parts.len() - 1], *table.lengths.last().unwrap_or(&0))?;
        let lengths: Vec<u64> = seal.parts.iter().map(|p| p.length).collect();
        if seal.set != set || lengths != table.lengths || seal.voids.iter().any(|v| *v >= table.slots.len()) {
            return Err(invalid(&parts[parts.len() - 1].path, "its seal belongs to another archive".into()).hint(again));
        }
        let voids: HashSet<usize> = seal.voids.iter().copied().collect();
        let (by_digest, offers) = index(&table.slots, &voids);
        Ok(Self { directory: directory.to_owned(), parts, table, set, seal, identity, by_digest, offers })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its parts.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Digest of the table.
    pub fn set(&self) -> &Digest {
        &self.set
    }

    /// Names the archive.
    pub fn identity(&self) -> &Digest {
        &self.identity
    }

    /// Number in its history.
    pub fn sequence(&self) -> u32 {
        self.table.sequence
    }

    /// When it was begun (RFC 3339).
    pub fn created(&self) -> &str {
        &self.table.created
    }

    /// Identity of the archive before it.
    pub fn previous(&self) -> Option<&Digest> {
        self.table.previous.as_ref()
    }

    /// The seal.
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Entries in layout order.
    pub fn slots(&self) -> &[Slot] {
        &self.table.slots
    }

    /// Numbers of void entries.
    pub fn voids(&self) -> &[usize] {
        &self.seal.voids
    }

    /// Blobs of its plan that earlier archives carry.
    pub fn absent(&self) -> &[Absent] {
        &self.table.absent
    }

    /// What each repository offers (without voids).
    pub fn contents(&self) -> &BTreeMap<Repository, RepositoryContents> {
        self.offers.contents()
    }

    /// The bytes of a file under `airlock/`, verified; `None` when there is none.
    pub fn file(&self, path: &str) -> Result<Option<Bytes>, Error> {
        let Some(slot) = self.table.slots.iter().find(|s| s.path == path) else { return Ok(None) };
        let part = &self.parts[slot.part];
        let bytes = read(part, slot.data_offset(), slot.size)?;
        if let Kind::File(digest) = &slot.kind
            && Digest::of(&bytes) != *digest
        {
            return Err(Error::new(
                ErrorKind::Content,
                format!("read `{path}` in {}", part.path.display()),
                "its bytes are not those that were written",
            )
            .hint("copy this part again from where the archive was written"));
        }
        Ok(Some(bytes.into()))
    }

    /// Where the content of a digest lies, whichever repository it belongs to; `None` when it is not carried or void.
    pub fn region(&self, digest: &Digest) -> Option<Region> {
        let slot = &self.table.slots[*self.by_digest.get(digest)?];
        Some(Region { file: Arc::clone(&self.parts[slot.part].file), offset: slot.data_offset(), len: slot.size })
    }

    /// Number of the entry that holds a digest, void or not.
    pub fn entry_of(&self, digest: &Digest) -> Option<usize> {
        self.table.slots.iter().position(|s| matches!(&s.kind, Kind::Blob(d) if d == digest))
    }
}

fn read(part: &Part, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
    if len > MAX_TABLE_BYTES || offset.saturating_add(len) > part.len {
        return Err(Error::new(
            ErrorKind::Damaged,
            format!("read {}", part.path.display()),
            format!("{len} bytes at offset {offset} do not lie in it"),
        ));
    }
    let mut bytes = vec![0u8; len as usize];
    part.file.read_exact_at(&mut bytes, offset).map_err(|e| Error::io(format!("read {}", part.path.display()), &e))?;
    Ok(bytes)
}

fn table_bytes(part: &Part) -> Result<Vec<u8>, String> {
    let mut walk = Walk::new(part.len, |offset, buffer: &mut [u8]| part.file.read_exact_at(buffer, offset));
    walk.next().transpose().map_err(|e| e.to_string())?;
    let entry = walk.next().transpose().map_err(|e| e.to_string())?;
    let entry = entry.filter(|e| e.path == TABLE_PATH).ok_or("it is not where it should be")?;
    read(part, entry.data, entry.size).map_err(|e| e.to_string())
}

fn read_table(part: &Part, set: &Digest) -> Result<Table, Error> {
    let damaged = |cause: String| {
        Error::new(ErrorKind::Damaged, format!("read the table in {}", part.path.display()), cause)
            .hint("copy this part again from where the archive was written")
    };
    let bytes = table_bytes(part).map_err(damaged)?;
    if Digest::of(&bytes) != *set {
        return Err(damaged("its bytes are not those that were written".into()));
    }
    let text = String::from_utf8(bytes).map_err(|e| damaged(e.to_string()))?;
    table::parse(&text)
}

fn read_seal(part: &Part, at: u64) -> Result<(Seal, Digest), Error> {
    let damaged = |cause: &str| {
        Error::new(ErrorKind::Damaged, format!("read the seal in {}", part.path.display()), cause)
            .hint("copy this part again from where the archive was written")
    };
    let mut header = [0u8; 512];
    part.file.read_exact_at(&mut header, at).map_err(|e| Error::io(format!("read {}", part.path.display()), &e))?;
    let mut walk = Walk::new(part.len - at, |offset, buffer: &mut [u8]| part.file.read_exact_at(buffer, at + offset));
    let entry = match walk.next() {
        Some(Ok(entry)) if entry.path == SEAL_PATH => entry,
        Some(Err(e)) => return Err(damaged(&e.to_string())),
        _ => return Err(damaged("it is not where it should be")),
    };
    if header[..] != tar::headers(SEAL_PATH, entry.size)[..] {
        return Err(damaged("its header is altered"));
    }
    let end = at + 512 + padded(entry.size) + END_BYTES;
    if part.len != end {
        return Err(damaged(&format!("the file has {} bytes, it should have {end}", part.len)));
    }
    let bytes = read(part, at + entry.data, part.len - at - entry.data)?;
    let (text, zeros) = bytes.split_at(entry.size as usize);
    if zeros.iter().any(|b| *b != 0) {
        return Err(damaged("what follows it is not zero"));
    }
    Seal::parse(std::str::from_utf8(text).map_err(|_| damaged("it is not text"))?)
        .map_err(|e| e.context(format!("read the seal in {}", part.path.display())))
}

/// What the entries that are not void offer: blobs, and what links say.
fn index(slots: &[Slot], voids: &HashSet<usize>) -> (HashMap<Digest, usize>, Offers) {
    let mut by_digest = HashMap::new();
    let mut offers = Offers::default();
    for (number, slot) in slots.iter().enumerate() {
        if voids.contains(&number) {
            continue;
        }
        match &slot.kind {
            Kind::Blob(digest) => drop(by_digest.insert(digest.clone(), number)),
            Kind::Link(digest) => offers.add_link(&slot.path, digest),
            Kind::Derived | Kind::File(_) => {}
        }
    }
    (by_digest, offers)
}

/// The complete blobs of an interrupted archive in `directory` (partial names), for reuse: those whose header is in place. They are
/// verified when they are read.
pub(super) fn complete_blobs(directory: &Path) -> Result<HashMap<Digest, Region>, Error> {
    let mut parts = Vec::new();
    for number in 0.. {
        let path = directory.join(super::layout::partial_name(number));
        let Ok(file) = File::open(&path) else { break };
        let len = file.metadata().map_err(|e| Error::io(format!("read {}", path.display()), &e))?.len();
        parts.push(Part { path, file: Arc::new(file), len });
    }
    let nothing = |cause: &str| Error::new(ErrorKind::NotFound, "look at an interrupted archive", cause);
    let first = parts.first().ok_or_else(|| nothing("it has no parts"))?;
    let (set, _) = set_of_part(&first.path).ok_or_else(|| nothing("its first bytes are not written"))?;
    let table = read_table(first, &set)?;
    let mut blobs = HashMap::new();
    for slot in &table.slots {
        let (Kind::Blob(digest), Some(part)) = (&slot.kind, parts.get(slot.part)) else { continue };
        let mut header = [0u8; 512];
        if slot.end() <= part.len
            && part.file.read_exact_at(&mut header, slot.offset).is_ok()
            && header[..] == tar::headers(&slot.path, slot.size)[..512]
        {
            let region = Region { file: Arc::clone(&part.file), offset: slot.data_offset(), len: slot.size };
            blobs.insert(digest.clone(), region);
        }
    }
    Ok(blobs)
}

impl Storage for Archive {
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
        let Some((digest, number)) =
            self.offers.manifest(repository, at).and_then(|d| Some((d, *self.by_digest.get(d)?)))
        else {
            return Ok(None);
        };
        let slot = &self.table.slots[number];
        let part = &self.parts[slot.part];
        let bytes = read(part, slot.data_offset(), slot.size)?;
        Manifest::parse_expecting(bytes.into(), None, digest)
            .map(Some)
            .map_err(|e| e.context(format!("read `{}` in {}", slot.path, part.path.display())))
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
        Ok(self.contents().get(repository).map(|contents| contents.manifests.iter().cloned().collect()))
    }

    fn tagged_at(&self, repository: &Repository, tag: &Tag) -> Option<SystemTime> {
        // A tag is as old as the archive that carries it.
        self.contents().get(repository)?.tags.contains_key(tag).then(|| instant(self.created()))?
    }
}

/// The moment that `2026-11-21T06:00:00Z` names; `None` for anything else.
fn instant(text: &str) -> Option<SystemTime> {
    let shape = "0000-00-00T00:00:00Z";
    let fits = |(a, b): (u8, u8)| if b == b'0' { a.is_ascii_digit() } else { a == b };
    if text.len() != shape.len() || !text.bytes().zip(shape.bytes()).all(fits) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text[range].parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60
    {
        return None;
    }
    // Years that begin in March (Howard Hinnant's algorithm), so that the leap day is the last one.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(UNIX_EPOCH + Duration::from_secs(days * 86_400 + hour * 3600 + minute * 60 + second))
}

#[cfg(test)]
mod instants {
    use super::*;

    #[test]
    fn instants_are_those_of_date() {
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", at(0)),
            ("2000-02-29T00:00:00Z", at(951_782_400)),
            ("2026-11-21T06:00:00Z", at(1_795_240_800)),
            ("2026-11-21T06:00:00+01:00", None),
            ("2026-13-21T06:00:00Z", None),
            ("now", None),
        ] {
            assert_eq!(instant(text), expected, "{text}");
        }
    }
}
