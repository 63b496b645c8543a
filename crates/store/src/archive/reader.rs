//! Opens a sealed archive in place: its parts, table and seal are checked against one another, its content is served by offset.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use airlock_oci::sink::ManifestName;
use airlock_oci::{Descriptor, Digest, Error, ErrorKind, MAX_MANIFEST_BYTES, Manifest, Repository, Tag};
use bytes::Bytes;

use super::index::{AbsenceList, Absences, Placed, Places};
use super::layout::{Absent, Kind, Slot, blob_path, part_name};
use super::offers::{Links, Offers};
use super::parts::{
    agreed_set, empty, expect_table, no_parts, open, part_header, read, read_seal, read_table, stream_table,
};
use super::seal::Seal;
use super::table::{Line, Summary};
use super::tar::{self, END_BYTES};
use crate::storage::{Region, Storage};

pub(super) use super::parts::set_of_part;
pub use super::parts::{FileReader, Part, is_ours, part_number, parts_in};

/// Parts that a message about mixed archives names as the other side.
const MAX_NAMED_PARTS: usize = 3;

/// A sealed archive.
pub struct Archive {
    directory: PathBuf,
    parts: Vec<Part>,
    summary: Summary,
    set: Digest,
    seal: Seal,
    identity: Digest,
    index: Index,
}

/// What answering takes of the table. Everything else is read again from the disk when it is asked for: serving must not hold an entry
/// for each of hundreds of thousands of links.
#[derive(Default)]
struct Index {
    /// Blobs and manifests that are not void.
    places: Places,
    /// What the links that are not void say.
    offers: Offers,
    absences: Absences,
    /// Files under `airlock/`, in layout order.
    files: Vec<Slot>,
    /// Blobs and manifests that are void.
    missing: Vec<Digest>,
}

/// Gathers an [`Index`].
struct Indexing<'a> {
    voids: &'a HashSet<usize>,
    places: Vec<Placed>,
    links: Links,
    absences: AbsenceList,
    files: Vec<Slot>,
    missing: Vec<Digest>,
}

impl Indexing<'_> {
    fn take(&mut self, line: Line) {
        let (number, slot) = match line {
            Line::Entry(number, slot) => (number, slot),
            Line::Absent(absent) => return self.absences.add(absent),
        };
        let is_void = self.voids.contains(&number);
        match &slot.kind {
            Kind::Blob(digest) if is_void => self.missing.push(digest.clone()),
            Kind::Blob(digest) => self.places.push(Placed {
                digest: digest.clone(),
                offset: slot.data_offset(),
                len: slot.size,
                part: slot.part as u32,
                number: number as u32,
            }),
            Kind::Link(_) if is_void => {}
            Kind::Link(digest) => self.links.add(&slot.path, digest),
            Kind::Derived | Kind::File(_) => self.files.push(slot),
        }
    }

    fn finish(self) -> Index {
        Index {
            places: Places::new(self.places),
            offers: self.links.finish(),
            absences: self.absences.finish(),
            files: self.files,
            missing: self.missing,
        }
    }
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
        // Once to know what it is, and, when everything around it is known to fit, a second time to take it in.
        let surveyed = stream_table(&parts[0], &mut |_| Ok(()));
        let Some(set) = agreed_set(&claims, surveyed.as_ref().ok().map(|(digest, _)| digest)) else {
            return Err(no_parts(directory));
        };
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
        let summary = expect_table(&parts[0], &set, surveyed)?;
        if summary.lengths.len() != parts.len() {
            return Err(invalid(&parts[0].path, "its table speaks of another number of parts".into()).hint(again));
        }
        for (number, part) in parts.iter().enumerate() {
            let length = summary.lengths[number];
            let least = if number + 1 == parts.len() { length + 512 + END_BYTES } else { length + END_BYTES };
            if part.len < least {
                let mut cut = None;
                read_table(&parts[0], &set, &mut |line| {
                    if let Line::Entry(_, slot) = line
                        && slot.part == number
                        && slot.end() > part.len
                    {
                        cut.get_or_insert(slot.path);
                    }
                    Ok(())
                })?;
                let from = cut.map_or_else(|| "the seal".to_owned(), |path| format!("`{path}`"));
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
        let (seal, identity) = read_seal(&parts[parts.len() - 1], *summary.lengths.last().unwrap_or(&0))?;
        let lengths: Vec<u64> = seal.parts.iter().map(|p| p.length).collect();
        if seal.set != set || lengths != summary.lengths || seal.voids.iter().any(|v| *v >= summary.entries) {
            return Err(invalid(&parts[parts.len() - 1].path, "its seal belongs to another archive".into()).hint(again));
        }
        let voids: HashSet<usize> = seal.voids.iter().copied().collect();
        let mut indexing = Indexing {
            voids: &voids,
            places: Vec::new(),
            links: Links::default(),
            absences: AbsenceList::default(),
            files: Vec::new(),
            missing: Vec::new(),
        };
        let summary = read_table(&parts[0], &set, &mut |line| {
            indexing.take(line);
            Ok(())
        })?;
        let index = indexing.finish();
        Ok(Self { directory: directory.to_owned(), parts, summary, set, seal, identity, index })
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
        self.summary.sequence
    }

    /// When it was begun (RFC 3339).
    pub fn created(&self) -> &str {
        &self.summary.created
    }

    /// Identity of the archive before it.
    pub fn previous(&self) -> Option<&Digest> {
        self.summary.previous.as_ref()
    }

    /// The seal.
    pub fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Tells of every entry with its number, in layout order, reading the table again from the disk. What was told counts only when this
    /// succeeds; an error of `told` ends it.
    pub fn each_entry(&self, mut told: impl FnMut(usize, Slot) -> Result<(), Error>) -> Result<(), Error> {
        read_table(&self.parts[0], &self.set, &mut |line| match line {
            Line::Entry(number, slot) => told(number, slot),
            Line::Absent(_) => Ok(()),
        })
        .map(drop)
    }

    /// Numbers of void entries.
    pub fn voids(&self) -> &[usize] {
        &self.seal.voids
    }

    /// Blobs and manifests that are void.
    pub fn missing(&self) -> &[Digest] {
        &self.index.missing
    }

    /// How many blobs of its plan earlier archives carry.
    pub fn absent_count(&self) -> usize {
        self.index.absences.len()
    }

    /// The blobs of its plan that earlier archives carry, sorted.
    pub fn absent_digests(&self) -> impl Iterator<Item = &Digest> {
        self.index.absences.digests()
    }

    /// What the table says of a blob of its plan that an earlier archive carries.
    pub fn absent(&self, digest: &Digest) -> Option<Absent> {
        self.index.absences.get(digest)
    }

    /// What each repository offers (without voids).
    pub fn offers(&self) -> &Offers {
        &self.index.offers
    }

    /// Paths of the files under `airlock/`, in layout order.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.index.files.iter().map(|slot| slot.path.as_str())
    }

    /// The bytes of a file under `airlock/`, verified; `None` when there is none.
    pub fn file(&self, path: &str) -> Result<Option<Bytes>, Error> {
        let Some(mut reader) = self.read_file(path)? else { return Ok(None) };
        let mut bytes = Vec::with_capacity(reader.left() as usize);
        // What fails is told by `finish`.
        let _ = reader.read_to_end(&mut bytes);
        reader.finish()?;
        Ok(Some(bytes.into()))
    }

    /// Reads a file under `airlock/` piece by piece; `None` when there is none.
    pub fn read_file(&self, path: &str) -> Result<Option<FileReader>, Error> {
        let Some(slot) = self.index.files.iter().find(|s| s.path == path) else { return Ok(None) };
        let expected = match &slot.kind {
            Kind::File(digest) => Some(digest.clone()),
            _ => None,
        };
        FileReader::new(&self.parts[slot.part], path, slot.data_offset(), slot.size, expected).map(Some)
    }

    /// Where the content of a digest lies, whichever repository it belongs to; `None` when it is not carried or void.
    pub fn region(&self, digest: &Digest) -> Option<Region> {
        self.index.places.get(digest).map(|placed| self.region_of(placed))
    }

    /// All content that is carried and not void, by digest.
    pub fn regions(&self) -> impl Iterator<Item = (&Digest, Region)> {
        self.index.places.iter().map(|placed| (&placed.digest, self.region_of(placed)))
    }

    fn region_of(&self, placed: &Placed) -> Region {
        Region { file: Arc::clone(&self.parts[placed.part as usize].file), offset: placed.offset, len: placed.len }
    }
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
    let mut blobs = HashMap::new();
    read_table(first, &set, &mut |line| {
        let Line::Entry(_, slot) = line else { return Ok(()) };
        let (Kind::Blob(digest), Some(part)) = (&slot.kind, parts.get(slot.part)) else { return Ok(()) };
        let mut header = [0u8; 512];
        if slot.end() <= part.len
            && part.file.read_exact_at(&mut header, slot.offset).is_ok()
            && header[..] == tar::headers(&slot.path, slot.size)[..512]
        {
            let region = Region { file: Arc::clone(&part.file), offset: slot.data_offset(), len: slot.size };
            blobs.insert(digest.clone(), region);
        }
        Ok(())
    })?;
    Ok(blobs)
}

impl Storage for Archive {
    fn describe(&self) -> String {
        self.directory.display().to_string()
    }

    fn repositories(&self) -> Result<Vec<Repository>, Error> {
        Ok(self.index.offers.repositories())
    }

    fn tags(&self, repository: &Repository) -> Result<Option<Vec<Tag>>, Error> {
        Ok(self.index.offers.tags(repository))
    }

    fn manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Manifest>, Error> {
        let Some((digest, placed)) =
            self.index.offers.manifest(repository, at).and_then(|d| Some((d, self.index.places.get(d)?)))
        else {
            return Ok(None);
        };
        let part = &self.parts[placed.part as usize];
        let what = || format!("read `{}` in {}", blob_path(digest), part.path.display());
        if placed.len > MAX_MANIFEST_BYTES as u64 {
            // Said before it is read: the table may call anything a manifest.
            let cause = format!("it has {} bytes; registries take at most {MAX_MANIFEST_BYTES}", placed.len);
            return Err(Error::new(ErrorKind::Unsupported, what(), cause));
        }
        let bytes = read(part, placed.offset, placed.len)?;
        Manifest::parse_expecting(bytes.into(), None, digest).map(Some).map_err(|e| e.context(what()))
    }

    fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Region>, Error> {
        if !self.index.offers.has(repository, digest) {
            return Ok(None);
        }
        Ok(self.region(digest))
    }

    fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        self.index.offers.referrers(repository, subject, self)
    }

    fn manifests(&self, repository: &Repository) -> Result<Option<Vec<Digest>>, Error> {
        Ok(self.index.offers.manifests(repository))
    }

    fn tagged_at(&self, repository: &Repository, tag: &Tag) -> Option<SystemTime> {
        // A tag is as old as the archive that carries it.
        self.index.offers.get(repository).is_some_and(|o| o.has_tag(tag)).then(|| instant(self.created()))?
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
