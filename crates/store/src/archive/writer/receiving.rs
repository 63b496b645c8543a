//! One blob's way into its slot: from the source through a bounded queue to the thread that writes and hashes it.

use std::io;
use std::sync::Arc;

use airlock_oci::{Content, Descriptor, Digest, Error, ErrorKind, Hasher};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::super::tar::{headers, padded, void_header};
use super::sink::Claim;
use super::{
    BATCH_BYTES, BATCHES_WAITING, CACHED_BYTES, COMPLETE, JOURNAL_STEP_BYTES, READ_BYTES, SMALL_BYTES, TINY_BYTES,
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

    /// Runs on a blocking thread: writes what arrives, hashing it for the blob and for the chunks. `true`: it is time to flush.
    fn receive(
        &self,
        number: usize,
        digest: &Digest,
        from: u64,
        batches: impl Iterator<Item = Vec<Bytes>>,
    ) -> Result<bool, Error> {
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

        let mut hasher = Hasher::new(digest.algorithm());
        let mut at = 0;
        let mut buffer = if from > 0 { vec![0u8; READ_BYTES] } else { Vec::new() };
        while at < from {
            let step = buffer.len().min((from - at) as usize);
            file.read_at(&mut buffer[..step], slot.data_offset() + at).map_err(|e| failed(&e))?;
            hasher.update(&buffer[..step]);
            self.feed(slot.part, slot.data_offset() + at, Bytes::copy_from_slice(&buffer[..step]));
            at += step as u64;
        }
        drop(buffer);
        let mut journaled = at;
        for batch in batches {
            let begins = slot.data_offset() + at;
            for piece in &batch {
                self.digest(&mut hasher, slot.part, slot.data_offset() + at, piece);
                at += piece.len() as u64;
            }
            let pieces: Vec<&[u8]> = batch.iter().map(|piece| &piece[..]).collect();
            file.write_pieces_at(&pieces, begins).map_err(|e| failed(&e))?;
            if at - journaled >= JOURNAL_STEP_BYTES {
                journaled = at;
                self.hint(number, at)?;
            }
        }
        if at != slot.size {
            lock(&self.resumable).insert(number, at);
            self.hint(number, at)?;
            return Err(Error::new(
                ErrorKind::Content,
                format!("receive blob `{digest}`"),
                format!("{at} bytes came instead of {}", slot.size),
            ));
        }
        let actual = hasher.finish();
        if actual != *digest {
            return Err(Error::new(
                ErrorKind::Content,
                format!("receive blob `{digest}`"),
                format!("the bytes have the digest `{actual}`"),
            ));
        }
        let padding = (padded(slot.size) - slot.size) as usize;
        if padding > 0 {
            file.write_at(&[0u8; 512][..padding], slot.data_offset() + at).map_err(|e| failed(&e))?;
            self.feed(slot.part, slot.data_offset() + at, Bytes::from_static(&[0u8; 512]).slice(..padding));
        }
        file.write_at(&head[..512], slot.offset).map_err(|e| failed(&e))?;
        Ok(self.complete(number))
    }

    /// Both sums of a piece, of the blob and of the chunks, while the processor's cache has it.
    fn digest(&self, hasher: &mut Hasher, part: usize, mut offset: u64, piece: &Bytes) {
        let mut rest = piece.clone();
        while !rest.is_empty() {
            let slice = rest.split_to(rest.len().min(CACHED_BYTES));
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

    /// Fetches a small blob into memory, then has it written: a thread that waited for each piece would cost more than the piece.
    async fn fetch_small(&self, claim: &Arc<Claim>, blob: &Descriptor, content: &dyn Content) -> Result<(), Error> {
        let (mut pieces, mut left, mut failure) = (Vec::new(), blob.size, None);
        let mut stream = content.open(0).await?;
        while let Some(item) = stream.next().await {
            match item {
                Ok(piece) if piece.len() as u64 <= left => {
                    left -= piece.len() as u64;
                    pieces.push(piece);
                }
                Ok(_) => {
                    failure = Some(too_much(blob));
                    break;
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        drop(stream);
        let written = if blob.size <= TINY_BYTES {
            match self.receive_whole(claim.number, &blob.digest, pieces) {
                Ok(due) => claim.writer.flush_aside(due).await,
                Err(error) => Err(error),
            }
        } else {
            let (number, digest) = (claim.number, blob.digest.clone());
            joined(claim.on_thread(move |writer| writer.receive_whole(number, &digest, pieces))).await
        };
        self.outcome(claim.number, failure, written)
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
        if from == 0 && blob.size <= SMALL_BYTES {
            return self.fetch_small(claim, blob, content).await;
        }
        let (sender, mut batches) = mpsc::channel::<Vec<Bytes>>(BATCHES_WAITING);
        let (number, digest) = (claim.number, blob.digest.clone());
        let writing = claim.on_thread(move |writer| {
            writer.receive(number, &digest, from, std::iter::from_fn(|| batches.blocking_recv()))
        });
        let mut failure = None;
        match content.open(from).await {
            Err(error) => failure = Some(error),
            Ok(mut stream) => {
                let mut left = blob.size - from;
                let mut batch = Vec::new();
                let mut batched = 0;
                while let Some(item) = stream.next().await {
                    match item {
                        Err(error) => {
                            failure = Some(error);
                            break;
                        }
                        Ok(piece) if piece.len() as u64 > left => {
                            failure = Some(too_much(blob));
                            break;
                        }
                        Ok(piece) => {
                            left -= piece.len() as u64;
                            batched += piece.len();
                            batch.push(piece);
                        }
                    }
                    if batched >= BATCH_BYTES {
                        batched = 0;
                        if sender.send(std::mem::take(&mut batch)).await.is_err() {
                            break;
                        }
                    }
                }
                if !batch.is_empty() {
                    let _ = sender.send(batch).await;
                }
            }
        }
        drop(sender);
        self.outcome(claim.number, failure, joined(writing).await)
    }

    /// Copies a blob that lies on this machine.
    async fn salvage(&self, claim: &Arc<Claim>, blob: &Descriptor, region: Region) -> Result<(), Error> {
        struct Local(Region);

        #[async_trait]
        impl Content for Local {
            async fn open(&self, offset: u64) -> Result<airlock_oci::BlobStream, Error> {
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
        let from = lock(&self.resumable).remove(&number).unwrap_or(0).min(slot.size);
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
