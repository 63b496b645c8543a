//! Is an archive whole? Names every part and entry that is altered.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use airlock_oci::{Digest, Error, Hasher};

use super::chunks::CHUNK_BYTES;
use super::layout::{Kind, PART_PATH, Slot, TABLE_PATH, part_text};
use super::reader::{Archive, Part};
use super::tar::{END_BYTES, headers, padded, void_header};

/// Threads that read and hash. Two keep a disk and a core busy without crowding out the rest of a small machine.
const THREADS: usize = 2;
const READ_BYTES: usize = 1024 * 1024;
/// What is read and hashed at once: it stays in the processor's cache in between.
const PIECE_BYTES: usize = 256 * 1024;

/// Something that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// File name of the part.
    pub part: String,
    /// Where the damaged entry begins in it.
    pub offset: u64,
    /// What is damaged, and how.
    pub what: String,
    /// The blob or manifest that is hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// Reads every byte once and compares it with the seal. `progress` is told how many bytes were read. Blocks.
pub fn full(archive: &Archive, progress: &(dyn Fn(u64) + Sync)) -> Result<Vec<Damage>, Error> {
    let chunks: Vec<(usize, usize)> = archive
        .seal()
        .parts
        .iter()
        .enumerate()
        .flat_map(|(part, sealed)| (0..sealed.chunks.len()).map(move |chunk| (part, chunk)))
        .collect();
    let next = AtomicUsize::new(0);
    let suspects: Mutex<Vec<(usize, usize)>> = Mutex::default();
    let failure: Mutex<Option<Error>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut buffer = vec![0u8; PIECE_BYTES];
                while let Some((part, chunk)) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let sealed = &archive.seal().parts[*part];
                    let start = *chunk as u64 * CHUNK_BYTES;
                    let end = start + CHUNK_BYTES.min(sealed.length - start);
                    let file = &archive.parts()[*part];
                    let mut hasher = blake3::Hasher::new();
                    let mut at = start;
                    while at < end {
                        let step = PIECE_BYTES.min((end - at) as usize);
                        if let Err(e) = file.file.read_exact_at(&mut buffer[..step], at) {
                            let error = Error::io(format!("read {} at offset {at}", file.path.display()), &e);
                            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                            return;
                        }
                        hasher.update(&buffer[..step]);
                        at += step as u64;
                    }
                    if hasher.finalize() != sealed.chunks[*chunk] {
                        suspects.lock().unwrap_or_else(PoisonError::into_inner).push((*part, *chunk));
                    }
                    progress(end - start);
                }
            });
        }
    });
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let mut suspects = suspects.into_inner().unwrap_or_else(PoisonError::into_inner);
    suspects.sort_unstable();
    // Each entry that has bytes in a suspicious chunk is examined once, however many of its chunks are.
    let range_of = |(part, chunk): (usize, usize)| {
        let start = chunk as u64 * CHUNK_BYTES;
        start..(start + CHUNK_BYTES).min(archive.seal().parts[part].length)
    };
    let is_suspect = |slot: &Slot| {
        let first = suspects.partition_point(|s| (s.0, range_of(*s).end) <= (slot.part, slot.offset));
        suspects.get(first).is_some_and(|s| s.0 == slot.part && range_of(*s).start < slot.end())
    };
    let mut damages: Vec<Damage> = Vec::new();
    let mut explained: Vec<(usize, std::ops::Range<u64>)> = Vec::new();
    if !suspects.is_empty() {
        archive.each_entry(|number, slot| {
            if is_suspect(&slot) {
                let found = examine(archive, number, &slot, true)?;
                if !found.is_empty() {
                    explained.push((slot.part, slot.offset..slot.end()));
                }
                damages.extend(found);
            }
            Ok(())
        })?;
    }
    for suspect in suspects {
        let range = range_of(suspect);
        let part = suspect.0;
        if !explained.iter().any(|(p, r)| *p == part && r.start < range.end && r.end > range.start) {
            damages.push(Damage {
                part: name(&archive.parts()[part]),
                offset: range.start,
                what: format!("bytes {} to {} are not those that were sealed", range.start, range.end),
                digest: None,
            });
        }
    }
    damages.extend(ends(archive)?);
    Ok(damages)
}

/// Checks everything but the bytes of blobs: seal, sizes, headers, links, manifests, table. Opening the archive has
/// checked the first two.
pub fn quick(archive: &Archive) -> Result<Vec<Damage>, Error> {
    let mut damages = Vec::new();
    archive.each_entry(|number, slot| {
        let whole = match &slot.kind {
            Kind::Blob(digest) => archive.offers().repository_of_manifest(digest).is_some(),
            _ => true,
        };
        damages.extend(examine(archive, number, &slot, whole)?);
        Ok(())
    })?;
    damages.extend(ends(archive)?);
    Ok(damages)
}

fn name(part: &Part) -> String {
    part.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// What of an entry differs: its header, its data (with `data`), its padding.
fn examine(archive: &Archive, number: usize, slot: &Slot, data: bool) -> Result<Vec<Damage>, Error> {
    let part = &archive.parts()[slot.part];
    let failed = |e: &std::io::Error| Error::io(format!("read {} at offset {}", part.path.display(), slot.offset), e);
    let is_void = archive.voids().binary_search(&number).is_ok();
    let mut expected = headers(&slot.path, slot.size);
    if is_void {
        expected.truncate(512);
        expected.copy_from_slice(&void_header(&slot.void_name(number), &slot.path, slot.size));
    }
    let digest = match &slot.kind {
        Kind::Blob(digest) => Some(digest.clone()),
        _ => None,
    };
    let subject = match (&slot.kind, slot.path.as_str()) {
        (Kind::Blob(digest), _) => format!("blob `{digest}`"),
        (Kind::Link(_), path) => format!("link `{path}`"),
        (_, path) => format!("`{path}`"),
    };
    let damage = |what: String| Damage { part: name(part), offset: slot.offset, what, digest: digest.clone() };
    let mut damages = Vec::new();
    let mut header = vec![0u8; expected.len()];
    part.file.read_exact_at(&mut header, slot.offset).map_err(|e| failed(&e))?;
    if header != expected {
        damages.push(damage(format!("the header of {subject} is altered")));
    }
    if is_void || !data {
        return Ok(damages);
    }
    let algorithm = match &slot.kind {
        Kind::Blob(digest) | Kind::File(digest) => digest.algorithm(),
        Kind::Link(_) | Kind::Derived => airlock_oci::Algorithm::Sha256,
    };
    let wanted = match &slot.kind {
        Kind::Blob(digest) | Kind::File(digest) => digest.clone(),
        Kind::Link(digest) => Digest::of(digest.to_string().as_bytes()),
        Kind::Derived if slot.path == TABLE_PATH => archive.set().clone(),
        Kind::Derived if slot.path == PART_PATH => {
            Digest::of(part_text(archive.set(), slot.part, archive.parts().len()).as_bytes())
        }
        Kind::Derived => return Ok(damages),
    };
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0u8; READ_BYTES.min(slot.size as usize)];
    let mut at = 0;
    while at < slot.size {
        let step = buffer.len().min((slot.size - at) as usize);
        part.file.read_exact_at(&mut buffer[..step], slot.data_offset() + at).map_err(|e| failed(&e))?;
        hasher.update(&buffer[..step]);
        at += step as u64;
    }
    if hasher.finish() != wanted {
        damages.push(damage(format!("{subject} is altered")));
    }
    let mut padding = vec![0u8; (padded(slot.size) - slot.size) as usize];
    part.file.read_exact_at(&mut padding, slot.data_offset() + slot.size).map_err(|e| failed(&e))?;
    if padding.iter().any(|b| *b != 0) {
        damages.push(damage(format!("the padding after {subject} is altered")));
    }
    Ok(damages)
}

/// The zero blocks at the end of every part but the last (whose end was checked with the seal).
fn ends(archive: &Archive) -> Result<Vec<Damage>, Error> {
    let mut damages = Vec::new();
    let parts = archive.parts();
    for (number, part) in parts[..parts.len() - 1].iter().enumerate() {
        let offset = archive.seal().parts[number].length;
        let mut zeros = [0u8; END_BYTES as usize];
        part.file
            .read_exact_at(&mut zeros, offset)
            .map_err(|e| Error::io(format!("read {} at offset {offset}", part.path.display()), &e))?;
        if zeros.iter().any(|b| *b != 0) {
            damages.push(Damage { part: name(part), offset, what: "the end blocks are altered".into(), digest: None });
        }
    }
    Ok(damages)
}
