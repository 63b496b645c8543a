//! Goes on where an interrupted run stopped: what its journal claims is held against what lies on the disk.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use airlock_oci::{Digest, Error, Hasher};

use super::super::chunks::CHUNK_BYTES;
use super::super::journal::Recorded;
use super::super::layout::Kind;
use super::super::tar::{headers, void_header};
use super::{COMPLETE, READ_BYTES, Writer, lock};

impl Writer {
    /// Takes over what an interrupted run has: entries it journaled; others whose header is in place are hashed again. Returns what
    /// of the journal holds.
    pub(super) fn recover(&mut self, recorded: &Recorded) -> Result<Recorded, Error> {
        let journaled: HashSet<usize> = recorded.done.iter().copied().collect();
        let sealed_chunks: HashSet<(usize, usize)> = recorded.chunks.iter().map(|(p, c, _)| (*p, *c)).collect();
        // A complete entry is believed where the journal has the digests of its bytes: the seal will hold them against the disk. The bytes of
        // others are hashed, since sealing would read them back as they are now.
        let vouched_for = |number: usize| {
            let slot = &self.layout.slots[number];
            journaled.contains(&number)
                && ((slot.offset / CHUNK_BYTES) as usize..slot.end().div_ceil(CHUNK_BYTES) as usize)
                    .all(|chunk| sealed_chunks.contains(&(slot.part, chunk)))
        };
        let mut accepted = Recorded { done: Vec::new(), chunks: Vec::new(), ..recorded.clone() };
        for (number, slot) in self.layout.slots.iter().enumerate() {
            let digest = match &slot.kind {
                Kind::Blob(digest) => Some(digest),
                // Links are written again at the end, from what is complete then.
                Kind::Link(_) => None,
                Kind::Derived | Kind::File(_) => continue,
            };
            let file = &self.files[slot.part];
            if file.size().map_err(|e| self.fail("look at", number, &e))? < slot.end() {
                continue;
            }
            if let Some(digest) = digest {
                let mut header = [0u8; 512];
                file.read_at(&mut header, slot.offset).map_err(|e| self.fail("read", number, &e))?;
                let named = header[..] == headers(&slot.path, slot.size)[..512];
                if named && (vouched_for(number) || self.holds(number, digest)?) {
                    self.states[number].store(COMPLETE, Ordering::Relaxed);
                    self.reused_bytes += slot.size;
                    if journaled.contains(&number) {
                        accepted.done.push(number);
                    } else {
                        // Found whole, but perhaps only in the cache: it is journaled once it has been synced.
                        lock(&self.journal).lines.push_str(&format!("done {number}\n"));
                    }
                    continue;
                }
            }
            let void = void_header(&slot.void_name(number), &slot.path, slot.size);
            file.write_at(&void, slot.offset).map_err(|e| self.fail("begin", number, &e))?;
        }
        // A journaled chunk counts only if every entry in it is journaled as complete: others are written again.
        for (part, chunk, digest) in &recorded.chunks {
            let settled = |number: usize| journaled.contains(&number) && self.state(number) == COMPLETE;
            if *part < self.chunks.len() && self.entries_of_chunk(*part, *chunk).all(settled) {
                lock(&self.chunks[*part]).set(*chunk, *digest);
                accepted.chunks.push((*part, *chunk, *digest));
            }
        }
        // Any other chunk may hold old bytes, so it is not hashed as a stream: it is read when the archive is sealed.
        for chunks in &self.chunks {
            let mut chunks = lock(chunks);
            for chunk in 0..chunks.count() {
                if chunks.get(chunk).is_none() {
                    let range = chunks.range(chunk);
                    chunks.postpone(range, &self.budget);
                }
            }
        }
        accepted.at.retain(|number, _| self.states.get(*number).is_some_and(|s| s.load(Ordering::Relaxed) != COMPLETE));
        *lock(&self.resumable) = accepted.at.clone();
        Ok(accepted)
    }

    /// Numbers of the entries that have bytes in a chunk of a part.
    pub(super) fn entries_of_chunk(&self, part: usize, chunk: usize) -> impl Iterator<Item = usize> + '_ {
        let start = chunk as u64 * CHUNK_BYTES;
        let end = start + CHUNK_BYTES;
        let first = self.layout.slots.partition_point(|s| (s.part, s.end()) <= (part, start));
        (first..self.layout.slots.len()).take_while(move |n| {
            let slot = &self.layout.slots[*n];
            slot.part == part && slot.offset < end
        })
    }

    /// Whether the bytes on disk are those of the digest.
    fn holds(&self, number: usize, digest: &Digest) -> Result<bool, Error> {
        let slot = &self.layout.slots[number];
        let mut hasher = Hasher::new(digest.algorithm());
        self.hash_prefix(number, slot.size, &mut hasher)?;
        Ok(hasher.finish() == *digest)
    }

    fn hash_prefix(&self, number: usize, len: u64, hasher: &mut Hasher) -> Result<(), Error> {
        let slot = &self.layout.slots[number];
        let mut buffer = vec![0u8; READ_BYTES.min(len as usize)];
        let mut at = 0;
        while at < len {
            let step = buffer.len().min((len - at) as usize);
            self.files[slot.part]
                .read_at(&mut buffer[..step], slot.data_offset() + at)
                .map_err(|e| self.fail("read", number, &e))?;
            hasher.update(&buffer[..step]);
            at += step as u64;
        }
        Ok(())
    }
}
