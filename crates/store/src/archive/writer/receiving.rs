//! One blob's way into its slot, hashed and written by the task that receives it or, when it is large, by a thread behind a bounded queue.

use std::io;
use std::sync::Arc;

use airlock_oci::{BlobStream, Content, Descriptor, Digest, Error, ErrorKind, Hasher};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::Fuse;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::tar::{headers, padded, void_header};
use super::sink::Claim;
use super::{
    BATCH_BYTES, BATCHES_WAITING, CACHED_BYTES, COMPLETE, HERE_BYTES, JOURNAL_STEP_BYTES, READ_BYTES, SMALL_BYTES,
    WINDOW_BYTES, Writer, lock,
};
use crate::storage::Region;

impl Writer {
    /// Where holes are not free: waits until no entry far below in the same part is still being written.
    async fn wait_for_front(&self, number: usize) {
        let Some(front) = &self.front else { return };
        let slot = &self.layout.slots[number];
        lock(&front.busy)[slot.part].insert(number);
        loop {
            let released = self.released.notified();
            let lowest = lock(&front.busy)[slot.part].first().copied().unwrap_or(number);
            if slot.offset.saturating_sub(self.layout.slots[lowest].offset) <= WINDOW_BYTES {
                return;
            }
            released.await;
        }
    }

    /// Begins a blob, from the prefix that is on the disk already.
    fn intake(&self, number: usize, digest: &Digest, from: u64) -> Result<Intake<'_>, Error> {
        let slot = &self.layout.slots[number];
        let file = &self.files[slot.part];
        let head = headers(&slot.path, slot.size);
        let failed = |e: &io::Error| self.fail("write", number, e);
        if self.front.is_some() {
            let void = void_header(&slot.void_name(number), &slot.path, slot.size);
            file.write_at(&void, slot.offset).map_err(|e| failed(&e))?;
        }
        if head.len() > 512 {
            file.write_at(&head[512..], slot.offset + 512).map_err(|e| failed(&e))?;
        }
        self.feed(slot.part, slot.offset, Bytes::copy_from_slice(&head));

        let (mut hasher, mut at) = (Hasher::new(digest.algorithm()), 0);
        let mut buffer = if from > 0 { vec![0u8; READ_BYTES] } else { Vec::new() };
        while at < from {
            let step = buffer.len().min((from - at) as usize);
            file.read_at(&mut buffer[..step], slot.data_offset() + at).map_err(|e| match e.kind() {
                // The disk lost its end: that is no reason to give up, only to begin again.
                io::ErrorKind::UnexpectedEof => {
                    Error::new(ErrorKind::Content, format!("read what there is of blob `{digest}`"), e)
                }
                _ => failed(&e),
            })?;
            hasher.update(&buffer[..step]);
            self.feed(slot.part, slot.data_offset() + at, Bytes::copy_from_slice(&buffer[..step]));
            at += step as u64;
        }
        // Only now: a disk that cannot be read for a moment does not shorten what is known to be there.
        lock(&self.resumable).remove(&number);
        Ok(Intake { writer: self, number, digest: digest.clone(), head, hasher, at, journaled: at })
    }

    /// Writes what arrives, hashing it for the blob and for the chunks. `true`: it is time to flush.
    fn receive(
        &self,
        number: usize,
        digest: &Digest,
        from: u64,
        batches: impl Iterator<Item = Vec<Bytes>>,
    ) -> Result<bool, Error> {
        let mut intake = self.intake(number, digest, from)?;
        for batch in batches {
            intake.take(&batch)?;
        }
        intake.end()
    }

    /// The same, by the task that receives it.
    async fn receive_here(
        &self,
        number: usize,
        digest: &Digest,
        from: u64,
        batches: &mut Batches<'_>,
    ) -> Result<bool, Error> {
        let mut intake = self.intake(number, digest, from)?;
        while let Some(batch) = batches.next().await {
            intake.take(&batch)?;
        }
        intake.end()
    }

    /// Both sums of a piece, of the blob and of the chunks, while the processor's cache has it.
    fn digest(&self, hasher: &mut Hasher, part: usize, mut offset: u64, piece: &Bytes) {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            // Cut where the chunks' hash wants it, so that it puts few pieces together.
            let most = CACHED_BYTES - offset as usize % CACHED_BYTES;
            let slice = rest.split_to(rest.len().min(most));
            let len = slice.len() as u64;
            hasher.update(&slice);
            self.feed(part, offset, slice);
            offset += len;
        }
    }

    /// A blob whose bytes are all there is written with its header in one go, once they are known to be right. `true`: it is time to flush.
    fn receive_whole(&self, number: usize, digest: &Digest, pieces: Vec<Bytes>) -> Result<bool, Error> {
        let slot = &self.layout.slots[number];
        let size: usize = pieces.iter().map(Bytes::len).sum();
        if size as u64 != slot.size {
            return self.receive(number, digest, 0, std::iter::once(pieces));
        }
        let head = Bytes::from(headers(&slot.path, slot.size));
        self.feed(slot.part, slot.offset, head.clone());
        let (mut hasher, mut at) = (Hasher::new(digest.algorithm()), slot.data_offset());
        for piece in &pieces {
            self.digest(&mut hasher, slot.part, at, piece);
            at += piece.len() as u64;
        }
        if hasher.finish() != *digest {
            return self.receive(number, digest, 0, std::iter::once(pieces));
        }
        let padding = Bytes::from_static(&[0u8; 512]).slice(..(padded(slot.size) - slot.size) as usize);
        self.feed(slot.part, at, padding.clone());
        let all: Vec<Bytes> = std::iter::once(head).chain(pieces).chain([padding]).collect();
        let slices: Vec<&[u8]> = all.iter().map(|piece| &piece[..]).collect();
        self.files[slot.part].write_pieces_at(&slices, slot.offset).map_err(|e| self.fail("write", number, &e))?;
        Ok(self.complete(number))
    }

    /// What came of a blob, from what its source and what its writer say.
    fn outcome(&self, number: usize, failure: Option<Error>, written: Result<(), Error>) -> Result<(), Error> {
        match (failure, written) {
            // The source's failure explains why too little was written.
            (Some(error), Err(written)) if written.kind() == ErrorKind::Content => Err(error),
            (_, Err(written)) => Err(written),
            (Some(error), Ok(())) if self.state(number) != COMPLETE => Err(error),
            (_, Ok(())) => Ok(()),
        }
    }

    async fn fetch(
        &self,
        claim: &Arc<Claim>,
        blob: &Descriptor,
        content: &dyn Content,
        from: u64,
    ) -> Result<(), Error> {
        let stream = content.open(from).await?;
        let mut batches = Batches { stream: stream.fuse(), blob, left: blob.size - from, failure: None };
        let (number, digest) = (claim.number, &blob.digest);
        if blob.size > HERE_BYTES {
            let (sender, mut queue) = mpsc::channel::<Vec<Bytes>>(BATCHES_WAITING);
            let digest = digest.clone();
            let writing = claim.on_thread(move |writer| {
                writer.receive(number, &digest, from, std::iter::from_fn(|| queue.blocking_recv()))
            });
            while let Some(batch) = batches.next().await {
                if sender.send(batch).await.is_err() {
                    break;
                }
            }
            drop(sender);
            return self.outcome(number, batches.failure, joined(writing).await);
        }
        // A thread that waited for the pieces of a small blob would cost more than they do.
        let received = if from == 0 && blob.size <= SMALL_BYTES {
            let mut pieces = Vec::new();
            while let Some(batch) = batches.next().await {
                pieces.extend(batch);
            }
            self.receive_whole(number, digest, pieces)
        } else {
            self.receive_here(number, digest, from, &mut batches).await
        };
        let written = match received {
            Ok(true) => joined(claim.on_thread(|_| Ok(true))).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        self.outcome(number, batches.failure, written)
    }

    /// Copies a blob that lies on this machine.
    async fn salvage(&self, claim: &Arc<Claim>, blob: &Descriptor, region: Region) -> Result<(), Error> {
        struct Local(Region);

        #[async_trait]
        impl Content for Local {
            async fn open(&self, offset: u64) -> Result<BlobStream, Error> {
                Ok(self.0.stream(offset, u64::MAX, "read a blob of an older archive"))
            }
        }
        self.fetch(claim, blob, &Local(region), 0).await
    }

    pub(super) async fn write(
        &self,
        claim: &Arc<Claim>,
        blob: &Descriptor,
        content: &dyn Content,
    ) -> Result<(), Error> {
        let number = claim.number;
        let slot = &self.layout.slots[number];
        if blob.size != slot.size {
            return Err(Error::new(
                ErrorKind::Content,
                format!("write blob `{}`", blob.digest),
                format!("it is planned with {} bytes, now it has {}", slot.size, blob.size),
            ));
        }
        self.wait_for_front(number).await;
        if let Some(region) = self.salvage.get(&blob.digest)
            && self.salvage(claim, blob, region.clone()).await.is_ok()
        {
            return Ok(());
        }
        let from = lock(&self.resumable).get(&number).map_or(0, |at| *at.min(&slot.size));
        match self.fetch(claim, blob, content, from).await {
            // What lay on the disk from before may be what is wrong: once more from the beginning.
            Err(error) if error.kind() == ErrorKind::Content && from > 0 => {
                lock(&self.resumable).remove(&number);
                self.fetch(claim, blob, content, 0).await
            }
            other => other,
        }
    }
}

impl Claim {
    /// Has a thread write that may wait for the disk, and flush when it is time.
    fn on_thread(
        self: &Arc<Self>,
        write: impl FnOnce(&Writer) -> Result<bool, Error> + Send + 'static,
    ) -> JoinHandle<Result<(), Error>> {
        let held = Arc::clone(self);
        tokio::task::spawn_blocking(move || if write(&held.writer)? { held.writer.flush() } else { Ok(()) })
    }
}

/// A blob on its way into its slot. Dropped before the end, it leaves what is written of it for the next try.
struct Intake<'a> {
    writer: &'a Writer,
    number: usize,
    digest: Digest,
    head: Vec<u8>,
    hasher: Hasher,
    /// Bytes that are written and hashed.
    at: u64,
    /// Bytes that the journal knows of.
    journaled: u64,
}

impl Intake<'_> {
    fn take(&mut self, batch: &[Bytes]) -> Result<(), Error> {
        let Self { writer, number, .. } = *self;
        let slot = &writer.layout.slots[number];
        let (begins, mut at) = (slot.data_offset() + self.at, self.at);
        for piece in batch {
            writer.digest(&mut self.hasher, slot.part, slot.data_offset() + at, piece);
            at += piece.len() as u64;
        }
        let pieces: Vec<&[u8]> = batch.iter().map(|piece| &piece[..]).collect();
        writer.files[slot.part].write_pieces_at(&pieces, begins).map_err(|e| writer.fail("write", number, &e))?;
        self.at = at;
        if at - self.journaled >= JOURNAL_STEP_BYTES {
            self.journaled = at;
            writer.hint(number, at)?;
        }
        Ok(())
    }

    /// Proves the blob and makes its slot valid. `true`: it is time to flush.
    fn end(mut self) -> Result<bool, Error> {
        let Self { writer, number, at, .. } = self;
        let slot = &writer.layout.slots[number];
        let wrong = |cause: String| Error::new(ErrorKind::Content, format!("receive blob `{}`", self.digest), cause);
        if at != slot.size {
            return Err(wrong(format!("{at} bytes came instead of {}", slot.size)));
        }
        let actual = std::mem::replace(&mut self.hasher, Hasher::new(self.digest.algorithm())).finish();
        if actual != self.digest {
            return Err(wrong(format!("the bytes have the digest `{actual}`")));
        }
        let file = &writer.files[slot.part];
        let failed = |e: &io::Error| writer.fail("write", number, e);
        let padding = (padded(slot.size) - slot.size) as usize;
        if padding > 0 {
            file.write_at(&[0u8; 512][..padding], slot.data_offset() + at).map_err(|e| failed(&e))?;
            writer.feed(slot.part, slot.data_offset() + at, Bytes::from_static(&[0u8; 512]).slice(..padding));
        }
        file.write_at(&self.head[..512], slot.offset).map_err(|e| failed(&e))?;
        Ok(writer.complete(number))
    }
}

impl Drop for Intake<'_> {
    fn drop(&mut self) {
        // All bytes of a wrong blob are wrong.
        if self.at < self.writer.layout.slots[self.number].size {
            lock(&self.writer.resumable).insert(self.number, self.at);
            // A journal that cannot be written costs what it would have told.
            let _ = self.writer.hint(self.number, self.at);
        }
    }
}

/// What a source gives of a blob, in batches.
struct Batches<'a> {
    stream: Fuse<BlobStream>,
    blob: &'a Descriptor,
    /// Bytes that are still to come.
    left: u64,
    /// Why there is no more.
    failure: Option<Error>,
}

impl Batches<'_> {
    /// The next batch; `None` when nothing more comes, in time or not.
    async fn next(&mut self) -> Option<Vec<Bytes>> {
        let (mut batch, mut batched) = (Vec::new(), 0);
        while batched < BATCH_BYTES && self.failure.is_none() {
            match self.stream.next().await {
                None => break,
                Some(Err(error)) => self.failure = Some(error),
                Some(Ok(piece)) if piece.len() as u64 > self.left => self.failure = Some(too_much(self.blob)),
                Some(Ok(piece)) => {
                    self.left -= piece.len() as u64;
                    batched += piece.len();
                    batch.push(piece);
                }
            }
        }
        (!batch.is_empty()).then_some(batch)
    }
}

async fn joined(writing: JoinHandle<Result<(), Error>>) -> Result<(), Error> {
    writing.await.map_err(|e| Error::new(ErrorKind::Io, "write the archive", e))?
}

fn too_much(blob: &Descriptor) -> Error {
    Error::new(
        ErrorKind::Content,
        format!("receive blob `{}`", blob.digest),
        format!("more than the promised {} bytes came", blob.size),
    )
}
