//! The writer as a sink: who may write a slot, and which links an image that is complete has.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use airlock_oci::sink::ManifestName;
use airlock_oci::{Abilities, Content, Descriptor, Digest, Error, ErrorKind, Manifest, Repository, Sink, Tag};
use async_trait::async_trait;

use super::super::layout::{layer_link, revision_link, tag_index_link, tag_link};
use super::{BUSY, COMPLETE, FAILED, Writer, lock};

/// The writer as a [`Sink`].
#[derive(Clone)]
pub struct ArchiveSink(pub Arc<Writer>);

#[async_trait]
impl Sink for ArchiveSink {
    fn describe(&self) -> String {
        format!("file://{}", self.0.volume.path().display())
    }

    fn abilities(&self) -> Abilities {
        Abilities { mount: true, sparse_index: Some(true), referrers: false, delete: false }
    }

    async fn head_manifest(&self, _repository: &Repository, _at: &ManifestName) -> Result<Option<Digest>, Error> {
        // Links are written only at the end, so that every run puts every manifest: that costs no bytes.
        Ok(None)
    }

    async fn has_blob(&self, _repository: &Repository, blob: &Descriptor) -> Result<bool, Error> {
        let writer = &self.0;
        Ok(match writer.by_digest.get(&blob.digest) {
            Some(number) => writer.state(*number) == COMPLETE,
            None => writer.absent.contains(&blob.digest),
        })
    }

    async fn mount_blob(&self, repository: &Repository, blob: &Descriptor, _from: &Repository) -> Result<bool, Error> {
        self.has_blob(repository, blob).await
    }

    async fn write_blob(
        &self,
        _repository: &Repository,
        blob: &Descriptor,
        content: &dyn Content,
    ) -> Result<(), Error> {
        let writer = &self.0;
        let Some(number) = writer.by_digest.get(&blob.digest).copied() else {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("write blob `{}`", blob.digest),
                "it is not in the plan of this archive",
            ));
        };
        let state = &writer.states[number];
        loop {
            let released = writer.released.notified();
            match state.load(Ordering::Acquire) {
                COMPLETE => return Ok(()),
                // Whoever had it was dropped, and its thread is about to notice.
                BUSY => released.await,
                now => {
                    if state.compare_exchange(now, BUSY, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                        break;
                    }
                }
            }
        }
        *lock(&writer.claims.0) += 1;
        let claim = Arc::new(Claim { writer: Arc::clone(writer), number });
        writer.write(&claim, blob, content).await
    }

    async fn put_manifest(&self, repository: &Repository, manifest: &Manifest, tag: Option<&Tag>) -> Result<(), Error> {
        let writer = &self.0;
        let digest = manifest.digest();
        if let Some(number) = writer.by_digest.get(digest).copied()
            && writer.state(number) != COMPLETE
        {
            if let Some(waiting) = &writer.waiting {
                lock(waiting).insert(number, manifest.bytes().clone());
            } else {
                let due = writer.write_whole(number, manifest.bytes())?;
                writer.flush_aside(due).await?;
            }
        }
        writer.enable(&revision_link(repository, digest));
        for blob in manifest.blobs() {
            // A foreign layer that was not carried has no link in the layout.
            writer.enable(&layer_link(repository, &blob.digest));
        }
        if let Some(tag) = tag {
            writer.enable(&tag_index_link(repository, tag, digest));
            writer.enable(&tag_link(repository, tag));
        }
        Ok(())
    }

    async fn delete_manifest(&self, _repository: &Repository, at: &ManifestName) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Refused, format!("delete `{at}`"), "an archive is written once"))
    }
}

/// Holds a slot busy until the last of the task and the thread that write it is gone. Dropped in the middle (a time-out, an interrupt), the
/// slot counts as failed and may be tried again.
pub(super) struct Claim {
    pub(super) writer: Arc<Writer>,
    pub(super) number: usize,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let writer = &self.writer;
        let state = &writer.states[self.number];
        let slot = &writer.layout.slots[self.number];
        if state.load(Ordering::Acquire) == BUSY {
            lock(&writer.chunks[slot.part]).postpone(slot.offset..slot.end(), &writer.budget);
            state.store(FAILED, Ordering::Release);
        }
        if let Some(front) = &writer.front {
            lock(&front.busy)[slot.part].remove(&self.number);
        }
        let mut held = lock(&writer.claims.0);
        *held -= 1;
        // Whoever waits waits for the last one.
        if *held == 0 {
            writer.claims.1.notify_all();
        }
        drop(held);
        writer.released.notify_waiters();
    }
}
