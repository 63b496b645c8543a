//! Digests of a part's fixed chunks, computed while its pieces are written, in whichever order they come.
//!
//! A chunk is hashed as a stream as long as its pieces arrive in order. A piece that arrives early waits in memory, within a budget;
//! past the budget, and whenever something is written a second time, the chunk is *left for later*: it is read back once, when it is
//! complete.
//!
//! They are BLAKE3, not SHA-256: every byte has its SHA-256 already, as part of a blob, and a second one would double the cost of writing
//! and of verifying on machines without instructions for it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use blake3::Hash;
use bytes::Bytes;

/// Bytes of a chunk. Part of the format.
pub const CHUNK_BYTES: u64 = 4 * 1024 * 1024;
/// What the widest registers take at once: sixteen leaves of 1 KiB.
const STRIDE_BYTES: usize = 16 * 1024;
/// Bytes of early pieces that may wait in memory, all parts together.
const EARLY_BUDGET_BYTES: usize = 8 * 1024 * 1024;
/// Early pieces smaller than this are copied, so that they do not keep a large buffer alive.
const COPY_BELOW_BYTES: usize = 16 * 1024;

/// Early pieces of all parts share one budget.
#[derive(Debug, Default)]
pub struct Budget(AtomicUsize);

/// The chunks of one part.
#[derive(Debug)]
pub struct Chunks {
    length: u64,
    done: Vec<Option<Hash>>,
    active: HashMap<usize, Active>,
}

/// BLAKE3 in whole strides. A tree that is fed in odd lengths is computed leaf by leaf at every seam, without the machine's wide
/// registers: half as fast with what a network delivers. The seams are put together first, which copies little.
#[derive(Debug, Default)]
struct Stride {
    hasher: Box<blake3::Hasher>,
    /// Less than a stride.
    seam: Vec<u8>,
}

impl Stride {
    fn update(&mut self, mut bytes: &[u8]) {
        if !self.seam.is_empty() {
            let (more, rest) = bytes.split_at(bytes.len().min(STRIDE_BYTES - self.seam.len()));
            self.seam.extend_from_slice(more);
            bytes = rest;
            if self.seam.len() == STRIDE_BYTES {
                self.hasher.update(&self.seam);
                self.seam.clear();
            }
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % STRIDE_BYTES);
        if !whole.is_empty() {
            self.hasher.update(whole);
        }
        self.seam.extend_from_slice(rest);
    }

    fn finalize(mut self) -> Hash {
        self.hasher.update(&self.seam);
        self.hasher.finalize()
    }
}

#[derive(Debug)]
enum Active {
    Streaming { hasher: Stride, at: u64, early: BTreeMap<u64, Bytes> },
    Later,
}

impl Chunks {
    /// A part of `length` bytes, nothing written yet.
    pub fn new(length: u64) -> Self {
        let count = length.div_ceil(CHUNK_BYTES) as usize;
        Self { length, done: vec![None; count], active: HashMap::new() }
    }

    /// The bytes of a chunk.
    pub fn range(&self, chunk: usize) -> Range<u64> {
        let start = chunk as u64 * CHUNK_BYTES;
        start..(start + CHUNK_BYTES).min(self.length)
    }

    /// How many chunks there are.
    pub fn count(&self) -> usize {
        self.done.len()
    }

    /// Notes bytes that have been (or are just about to be) written at `offset`. Returns the chunks that became complete.
    pub fn feed(&mut self, mut offset: u64, mut bytes: Bytes, budget: &Budget) -> Vec<(usize, Hash)> {
        let mut complete = Vec::new();
        while !bytes.is_empty() && offset < self.length {
            let chunk = (offset / CHUNK_BYTES) as usize;
            let range = self.range(chunk);
            let piece = bytes.split_to(bytes.len().min((range.end - offset) as usize));
            let next = offset + piece.len() as u64;
            if let Some(digest) = self.feed_chunk(chunk, &range, offset, piece, budget) {
                complete.push((chunk, digest));
            }
            offset = next;
        }
        complete
    }

    fn feed_chunk(
        &mut self,
        chunk: usize,
        range: &Range<u64>,
        offset: u64,
        piece: Bytes,
        budget: &Budget,
    ) -> Option<Hash> {
        if self.done[chunk].take().is_some() {
            // Written a second time: what was hashed no longer holds.
            self.active.insert(chunk, Active::Later);
            return None;
        }
        let active = self.active.entry(chunk).or_insert_with(|| Active::Streaming {
            hasher: Stride::default(),
            at: range.start,
            early: BTreeMap::new(),
        });
        let Active::Streaming { hasher, at, early } = active else { return None };
        let mut give_up = offset < *at;
        if offset == *at {
            hasher.update(&piece);
            *at += piece.len() as u64;
            while let Some(entry) = early.first_entry().filter(|e| e.key() == at) {
                let piece = entry.remove();
                budget.0.fetch_sub(piece.len(), Ordering::Relaxed);
                hasher.update(&piece);
                *at += piece.len() as u64;
            }
            give_up |= early.first_key_value().is_some_and(|(start, _)| start < at);
        } else if !give_up {
            if budget.0.load(Ordering::Relaxed) + piece.len() > EARLY_BUDGET_BYTES {
                give_up = true;
            } else {
                budget.0.fetch_add(piece.len(), Ordering::Relaxed);
                let piece = if piece.len() < COPY_BELOW_BYTES { Bytes::copy_from_slice(&piece) } else { piece };
                if let Some(twice) = early.insert(offset, piece) {
                    budget.0.fetch_sub(twice.len(), Ordering::Relaxed);
                    give_up = true;
                }
            }
        }
        if give_up {
            self.postpone_one(chunk, budget);
            return None;
        }
        if *at < range.end {
            return None;
        }
        let Some(Active::Streaming { hasher, .. }) = self.active.remove(&chunk) else { return None };
        let digest = hasher.finalize();
        self.done[chunk] = Some(digest);
        Some(digest)
    }

    fn postpone_one(&mut self, chunk: usize, budget: &Budget) {
        self.done[chunk] = None;
        if let Some(Active::Streaming { early, .. }) = self.active.insert(chunk, Active::Later) {
            budget.0.fetch_sub(early.values().map(Bytes::len).sum(), Ordering::Relaxed);
        }
    }

    /// Bytes in `range` will not be as fed, or were not fed: the chunks there are read when the part is complete.
    pub fn postpone(&mut self, range: Range<u64>, budget: &Budget) {
        for chunk in (range.start / CHUNK_BYTES) as usize..(range.end.div_ceil(CHUNK_BYTES) as usize).min(self.count())
        {
            self.postpone_one(chunk, budget);
        }
    }

    /// Takes over a digest that is known already.
    pub fn set(&mut self, chunk: usize, digest: Hash) {
        if chunk < self.done.len() {
            self.active.remove(&chunk);
            self.done[chunk] = Some(digest);
        }
    }

    /// The digest of a chunk, if it is known.
    pub fn get(&self, chunk: usize) -> Option<Hash> {
        *self.done.get(chunk)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> Bytes {
        (0..len).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>().into()
    }

    #[test]
    fn pieces_in_any_order_give_the_same_digests() {
        let all = bytes(CHUNK_BYTES as usize * 2 + 777);
        let budget = Budget::default();
        for step in [100_000, 999_983] {
            let mut offsets: Vec<usize> = (0..all.len()).step_by(step).collect();
            // A fixed shuffle.
            offsets.sort_by_key(|o| o.wrapping_mul(2_654_435_761) % 1_000_003);
            let mut chunks = Chunks::new(all.len() as u64);
            for offset in offsets {
                chunks.feed(offset as u64, all.slice(offset..all.len().min(offset + step)), &budget);
            }
            for chunk in 0..chunks.count() {
                let range = chunks.range(chunk);
                let expected = blake3::hash(&all[range.start as usize..range.end as usize]);
                // Within the budget nothing is left for later.
                assert_eq!(chunks.get(chunk), Some(expected));
            }
            assert_eq!(budget.0.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn a_second_write_leaves_the_chunk_for_later() {
        let budget = Budget::default();
        let mut chunks = Chunks::new(1000);
        assert_eq!(chunks.feed(0, bytes(1000), &budget).len(), 1);
        chunks.feed(10, bytes(1), &budget);
        assert_eq!(chunks.get(0), None);
        chunks.feed(0, bytes(1000), &budget);
        assert_eq!(chunks.get(0), None, "what was overwritten must be read back");
    }
}
