//! Opens a writer: lays the archive out, makes room, and begins or goes on.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU8;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use airlock_oci::{Digest, Error, ErrorKind};
use tokio::sync::Notify;

use super::super::chunks::{Budget, CHUNK_BYTES, Chunks};
use super::super::journal::{Journal, Recorded};
use super::super::layout::{Contents, Kind, PART_PATH, TABLE_PATH, lay_out, part_text, partial_name};
use super::super::reader;
use super::super::recovery::{self, lock_directory};
use super::super::tar::{END_BYTES, void_header};
use super::super::volume::Volume;
use super::{Front, Log, Options, PENDING, Writer, lock};

impl Writer {
    /// Lays the archive out and opens its parts: anew, or where an interrupted run of the same plan stopped, or on a partial archive
    /// of the same plan whose voids are to be filled. Blocks.
    pub fn open(volume: Arc<dyn Volume>, contents: &Contents, options: Options) -> Result<Self, Error> {
        let place = volume.path().display().to_string();
        let fail = |doing: &str, e: &io::Error| Error::io(format!("{doing} in {place}"), e);
        let guard = lock_directory(volume.as_ref())?;
        let mut properties = volume.properties().map_err(|e| fail("look at the file system", &e))?;
        let limit = properties.max_file_bytes.map_or(options.limit, |max| max.min(options.limit));
        let layout = lay_out(contents, limit, options.strict, CHUNK_BYTES)?;
        if let (Some(max), Some(blob)) = (properties.max_file_bytes, layout.oversized.first()) {
            return Err(Error::new(
                ErrorKind::Refused,
                format!("place blob `{}` in {place}", blob.digest),
                format!("it has {} bytes, and the file system takes files of at most {max}", blob.size),
            )
            .hint("use a disk with another file system (exFAT, ext4, xfs), or leave the image out"));
        }
        let plan = contents.files.first().map_or_else(|| Digest::of(b""), |(_, bytes)| Digest::of(bytes));
        let (recorded, aside) = recovery::prepare(volume.as_ref(), &layout, &plan)?;
        let mut salvage = options.salvage;
        salvage.extend(aside);
        if recorded.is_none() && options.replace {
            for name in volume.names().map_err(|e| fail("list", &e))? {
                if reader::part_number(&name).is_some() {
                    volume.remove(&name).map_err(|e| fail("remove the old archive", &e))?;
                }
            }
        }
        let keep = if recorded.is_some() { layout.lengths.len() } else { 0 };
        recovery::remove_partials_from(volume.as_ref(), keep).map_err(|e| fail("remove left-over parts", &e))?;

        // What there is of the parts counts as room; where it is short, what was set aside goes first.
        let have: u64 = volume
            .names()
            .map_err(|e| fail("list", &e))?
            .iter()
            .filter(|n| n.starts_with(".mirror_"))
            .filter_map(|n| std::fs::metadata(volume.path().join(n)).ok())
            .map(|m| std::os::unix::fs::MetadataExt::blocks(&m) * 512)
            .sum();
        let total: u64 = layout.lengths.iter().map(|l| l + END_BYTES).sum();
        let need = total.saturating_sub(have);
        let previous = volume.path().join(recovery::PREVIOUS_DIRECTORY);
        if need > properties.free_bytes && previous.exists() {
            tracing::warn!("{} is removed to make room: its blobs are fetched again", previous.display());
            salvage.clear();
            std::fs::remove_dir_all(&previous).map_err(|e| fail("make room", &e))?;
            properties = volume.properties().map_err(|e| fail("look at the file system", &e))?;
        }
        if need > properties.free_bytes {
            return Err(Error::new(
                ErrorKind::Full,
                format!("reserve space in {place}"),
                format!("the archive needs {need} more bytes, {} bytes are free", properties.free_bytes),
            )
            .hint("use a larger disk, split the image set into several configurations, or free space and run again"));
        }
        let mut files = Vec::new();
        for part in 0..layout.lengths.len() {
            files.push(volume.open(&partial_name(part)).map_err(|e| fail("open a part", &e))?);
        }
        let chunks = layout.lengths.iter().map(|l| Mutex::new(Chunks::new(*l))).collect();
        let carried = contents.blobs.len() + contents.manifests.len();
        let mut by_digest = HashMap::with_capacity(carried);
        let mut links = HashMap::with_capacity(layout.slots.len().saturating_sub(carried));
        for (number, slot) in layout.slots.iter().enumerate() {
            match &slot.kind {
                Kind::Blob(digest) => drop(by_digest.insert(digest.clone(), number)),
                Kind::Link(_) => drop(links.insert(slot.path.clone(), number)),
                Kind::Derived | Kind::File(_) => {}
            }
        }
        let states = layout.slots.iter().map(|_| AtomicU8::new(PENDING)).collect();
        let ordered = !properties.cheap_holes;
        let mut writer = Self {
            absent: contents.absent.iter().map(|a| a.item.digest.clone()).collect(),
            front: ordered.then(|| Front { busy: Mutex::new(vec![BTreeSet::new(); layout.lengths.len()]) }),
            waiting: ordered.then(Mutex::default),
            volume,
            layout,
            files,
            by_digest,
            links,
            states,
            chunks,
            budget: Budget::default(),
            journal: Mutex::new(Log {
                journal: None,
                lines: String::new(),
                bytes: 0,
                flushed: Instant::now(),
                lost: None,
            }),
            flushing: Mutex::default(),
            resumable: Mutex::default(),
            salvage,
            claims: (Mutex::new(0), Condvar::new()),
            released: Notify::new(),
            reused_bytes: 0,
            _lock: guard,
        };
        writer.begin(contents, &plan, recorded)?;
        Ok(writer)
    }

    fn begin(&mut self, contents: &Contents, plan: &Digest, recorded: Option<Recorded>) -> Result<(), Error> {
        let place = self.volume.path().display().to_string();
        let fail = |doing: &str, e: &io::Error| Error::io(format!("{doing} in {place}"), e);
        if self.front.is_none() {
            for (part, file) in self.files.iter().enumerate() {
                let length = self.layout.lengths[part] + END_BYTES;
                match file.reserve(length) {
                    Err(e) if e.kind() != io::ErrorKind::Unsupported => {
                        return Err(
                            fail("reserve space", &e).hint("free space on this disk and run the same command again")
                        );
                    }
                    _ => {}
                }
                file.set_len(length).map_err(|e| fail("set the length of a part", &e))?;
            }
        }
        let log = match recorded {
            None => {
                let (sequence, created) = (self.layout.sequence, &self.layout.created);
                let journal = Journal::begin(self.volume.path(), plan, &self.layout.set, sequence, created);
                if self.front.is_none() {
                    self.write_all_voids()?;
                }
                journal
            }
            // Only what holds is journaled again: whatever was claimed and is not so must not be believed by a later run.
            Some(recorded) => {
                let accepted = self.recover(&recorded)?;
                Journal::go_on(self.volume.path(), &accepted)
            }
        };
        lock(&self.journal).journal = Some(log.map_err(|e| fail("write the journal", &e))?);
        for number in 0..self.layout.slots.len() {
            let slot = &self.layout.slots[number];
            let bytes = match &slot.kind {
                Kind::Derived if slot.path == PART_PATH => {
                    part_text(&self.layout.set, slot.part, self.files.len()).into()
                }
                Kind::Derived if slot.path == TABLE_PATH => self.layout.table.clone(),
                Kind::File(_) => match contents.files.iter().find(|(path, _)| *path == slot.path) {
                    Some((_, bytes)) => bytes.clone(),
                    None => continue,
                },
                _ => continue,
            };
            self.write_whole(number, &bytes)?;
        }
        Ok(())
    }

    fn write_all_voids(&self) -> Result<(), Error> {
        for (number, slot) in self.layout.slots.iter().enumerate() {
            let void = void_header(&slot.void_name(number), &slot.path, slot.size);
            self.files[slot.part].write_at(&void, slot.offset).map_err(|e| self.fail("begin", number, &e))?;
        }
        Ok(())
    }
}

/// The parts of an archive that is being written in `directory`, for messages.
pub fn partial_parts(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut parts: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(".mirror_")))
        .collect();
    parts.sort();
    parts
}
