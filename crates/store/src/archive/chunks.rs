//! Digests of a part's fixed chunks, computed while its pieces are written, in whichever order they come.
//!
//! BLAKE3 is a tree: the groups of a chunk are hashed each for itself, and the chunk's digest is put together from theirs. So a piece
//! is hashed when it comes, while the processor's cache has it, although the blobs before it in the chunk are still on their way. Only
//! within a group do pieces wait for those before them, in memory and within a budget; past the budget, and whenever something is
//! written a second time, the chunk is *left for later*: it is read back once, when it is complete.
//!
//! They are BLAKE3, not SHA-256: every byte has its SHA-256 already, as part of a blob, and a second one would double the cost of writing
//! and of verifying on machines without instructions for it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use blake3::Hash;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use bytes::Bytes;

/// Bytes of a chunk. Part of the format.
pub const CHUNK_BYTES: u64 = 4 * 1024 * 1024;
/// Bytes that are hashed in order: a subtree of a chunk. No part of the format.
pub const GROUP_BYTES: u64 = 64 * 1024;
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
    /// For the bytes from `offset` of a chunk on.
    fn at(offset: u64) -> Self {
        let mut stride = Self::default();
        stride.hasher.set_input_offset(offset);
        stride
    }

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

    /// The hasher, with everything in it. Nothing may follow.
    fn finish(&mut self) -> &blake3::Hasher {
        self.hasher.update(&self.seam);
        &self.hasher
    }
}

#[derive(Debug)]
enum Active {
    Growing(Tree),
    Later,
}

/// A chunk whose groups are not all complete.
#[derive(Debug)]
struct Tree {
    groups: Vec<Group>,
    /// Bytes that are not hashed yet.
    missing: u64,
}

#[derive(Debug)]
enum Group {
    Empty,
    Open {
        hasher: Stride,
        /// How many of its bytes are hashed.
        at: u64,
        early: BTreeMap<u64, Bytes>,
    },
    Hashed(ChainingValue),
}

/// A piece that cannot be taken in: it was written before, or there is no room for it to wait.
struct Unfit;

impl Tree {
    fn new(length: u64) -> Self {
        let groups = (0..length.div_ceil(GROUP_BYTES)).map(|_| Group::Empty).collect();
        Self { groups, missing: length }
    }

    /// Takes a piece of one group in. `whole`: bytes of the group.
    fn feed(&mut self, number: usize, whole: u64, offset: u64, piece: Bytes, budget: &Budget) -> Result<(), Unfit> {
        let begins = number as u64 * GROUP_BYTES;
        let is_only = self.groups.len() == 1;
        let group = &mut self.groups[number];
        if matches!(group, Group::Empty) {
            *group = Group::Open { hasher: Stride::at(begins), at: 0, early: BTreeMap::new() };
        }
        let Group::Open { hasher, at, early } = group else { return Err(Unfit) };
        if offset < *at {
            return Err(Unfit);
        }
        if offset > *at {
            if budget.0.load(Ordering::Relaxed) + piece.len() > EARLY_BUDGET_BYTES {
                return Err(Unfit);
            }
            budget.0.fetch_add(piece.len(), Ordering::Relaxed);
            let piece = if piece.len() < COPY_BELOW_BYTES { Bytes::copy_from_slice(&piece) } else { piece };
            let Some(twice) = early.insert(offset, piece) else { return Ok(()) };
            budget.0.fetch_sub(twice.len(), Ordering::Relaxed);
            return Err(Unfit);
        }
        let before = *at;
        hasher.update(&piece);
        *at += piece.len() as u64;
        while let Some(entry) = early.first_entry().filter(|e| e.key() == at) {
            let piece = entry.remove();
            budget.0.fetch_sub(piece.len(), Ordering::Relaxed);
            hasher.update(&piece);
            *at += piece.len() as u64;
        }
        if early.first_key_value().is_some_and(|(start, _)| start < at) {
            return Err(Unfit);
        }
        self.missing -= *at - before;
        if *at == whole && !is_only {
            let value = hasher.finish().finalize_non_root();
            *group = Group::Hashed(value);
        }
        Ok(())
    }

    /// The digest of the whole chunk, of which nothing is missing.
    fn digest(self, length: u64) -> Option<Hash> {
        let mut values = Vec::with_capacity(self.groups.len());
        for group in self.groups {
            match group {
                Group::Hashed(value) => values.push(value),
                // The only group is the tree's root.
                Group::Open { mut hasher, .. } => return Some(hasher.finish().finalize()),
                Group::Empty => return None,
            }
        }
        let (left, right) = halves(&values, length)?;
        Some(merge_subtrees_root(&left, &right, Mode::Hash))
    }

    /// Gives the budget back.
    fn drop_early(&self, budget: &Budget) {
        for group in &self.groups {
            if let Group::Open { early, .. } = group {
                budget.0.fetch_sub(early.values().map(Bytes::len).sum(), Ordering::Relaxed);
            }
        }
    }
}

/// The values of both subtrees of what has `length` bytes and these groups, more than one.
fn halves(groups: &[ChainingValue], length: u64) -> Option<(ChainingValue, ChainingValue)> {
    let left = left_subtree_len(length);
    let (before, after) = groups.split_at_checked((left / GROUP_BYTES) as usize)?;
    Some((subtree(before, left)?, subtree(after, length - left)?))
}

fn subtree(groups: &[ChainingValue], length: u64) -> Option<ChainingValue> {
    if let [group] = groups {
        return Some(*group);
    }
    let (left, right) = halves(groups, length)?;
    Some(merge_subtrees_non_root(&left, &right, Mode::Hash))
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
        let length = range.end - range.start;
        let active = self.active.entry(chunk).or_insert_with(|| Active::Growing(Tree::new(length)));
        let Active::Growing(tree) = active else { return None };
        let (mut at, mut rest) = (offset - range.start, piece);
        while !rest.is_empty() {
            let number = (at / GROUP_BYTES) as usize;
            let begins = number as u64 * GROUP_BYTES;
            let whole = (length - begins).min(GROUP_BYTES);
            let piece = rest.split_to(rest.len().min((begins + whole - at) as usize));
            let next = at + piece.len() as u64;
            if tree.feed(number, whole, at - begins, piece, budget).is_err() {
                self.postpone_one(chunk, budget);
                return None;
            }
            at = next;
        }
        if tree.missing > 0 {
            return None;
        }
        let Some(Active::Growing(tree)) = self.active.remove(&chunk) else { return None };
        let digest = tree.digest(length)?;
        self.done[chunk] = Some(digest);
        Some(digest)
    }

    fn postpone_one(&mut self, chunk: usize, budget: &Budget) {
        self.done[chunk] = None;
        if let Some(Active::Growing(tree)) = self.active.insert(chunk, Active::Later) {
            tree.drop_early(budget);
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

    /// The digests of a part that comes in pieces of at most so many bytes, in an order of its own for each seed.
    fn fed(all: &Bytes, step: usize, seed: usize, budget: &Budget) -> Chunks {
        let mut offsets: Vec<usize> = (0..all.len()).step_by(step).collect();
        // A fixed shuffle.
        offsets.sort_by_key(|o| (o + seed).wrapping_mul(2_654_435_761) % 1_000_003);
        let mut chunks = Chunks::new(all.len() as u64);
        for offset in offsets {
            chunks.feed(offset as u64, all.slice(offset..all.len().min(offset + step)), budget);
        }
        chunks
    }

    #[test]
    fn pieces_in_any_order_give_the_same_digests() {
        let (chunk, group) = (CHUNK_BYTES as usize, GROUP_BYTES as usize);
        let lengths = [
            1,
            777,
            1024,
            1025,
            group - 1,
            group,
            group + 1,
            2 * group,
            3 * group + 5,
            5 * group,
            37 * group + 1,
            chunk,
            2 * chunk + 777,
        ];
        let budget = Budget::default();
        for length in lengths {
            let all = bytes(length);
            for (seed, step) in [512, 5000, group, 100_000, 999_983].into_iter().enumerate() {
                // A million pieces say no more than some thousands.
                if length / step > 20_000 {
                    continue;
                }
                let chunks = fed(&all, step, seed, &budget);
                for chunk in 0..chunks.count() {
                    let range = chunks.range(chunk);
                    let expected = blake3::hash(&all[range.start as usize..range.end as usize]);
                    // Within the budget nothing is left for later.
                    assert_eq!(chunks.get(chunk), Some(expected), "{length} bytes by {step}");
                }
                assert_eq!(budget.0.load(Ordering::Relaxed), 0);
            }
        }
    }

    #[test]
    fn whole_groups_wait_for_nobody() {
        let budget = Budget::default();
        let all = bytes(CHUNK_BYTES as usize);
        let mut chunks = Chunks::new(CHUNK_BYTES);
        let group = GROUP_BYTES as usize;
        for number in (1..CHUNK_BYTES as usize / group).rev() {
            assert!(
                chunks
                    .feed((number * group) as u64, all.slice(number * group..(number + 1) * group), &budget)
                    .is_empty()
            );
            assert_eq!(budget.0.load(Ordering::Relaxed), 0);
        }
        chunks.feed(9, all.slice(9..group), &budget);
        assert_eq!(budget.0.load(Ordering::Relaxed), group - 9, "it begins in the middle");
        assert_eq!(chunks.feed(0, all.slice(..9), &budget), [(0, blake3::hash(&all))]);
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_has_no_room_to_wait_is_left_for_later() {
        let budget = Budget(AtomicUsize::new(EARLY_BUDGET_BYTES - 10));
        let mut chunks = Chunks::new(1000);
        chunks.feed(500, bytes(10), &budget);
        chunks.feed(700, bytes(1), &budget);
        assert_eq!(budget.0.load(Ordering::Relaxed), EARLY_BUDGET_BYTES - 10, "given back");
        chunks.feed(0, bytes(1000), &budget);
        assert_eq!(chunks.get(0), None);
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
        // The same where the group is complete and the chunk is not, and where early pieces overlap.
        let whole = GROUP_BYTES as usize;
        for (first, second) in [(0..whole, 5..6), (100..200, 100..200), (100..200, 0..150)] {
            let mut chunks = Chunks::new(CHUNK_BYTES);
            let all = bytes(CHUNK_BYTES as usize);
            for range in [first.clone(), second.clone(), 0..all.len()] {
                chunks.feed(range.start as u64, all.slice(range), &budget);
            }
            assert_eq!(chunks.get(0), None, "{first:?}, then {second:?}");
            assert_eq!(budget.0.load(Ordering::Relaxed), 0);
        }
    }
}
