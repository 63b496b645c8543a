//! What the engine tells while it works. Bars, lines, JSON and reports are subscribers.

use std::sync::Arc;

use airlock_oci::{Digest, Error};

/// Something happened. Bytes are counted once: what is sent again after a cut is not told again.
#[derive(Clone, Debug)]
pub enum Event {
    /// A job (by its index) begins.
    Begun {
        /// Index of the job.
        job: usize,
    },
    /// So many bytes of a blob arrived.
    Moved {
        /// Bytes.
        bytes: u64,
    },
    /// A blob, or the beginning of one, was there already (in the sink, in the journal, or mounted from another repository).
    Reused {
        /// The blob.
        digest: Digest,
        /// So many bytes of it.
        bytes: u64,
    },
    /// A blob was written.
    Written {
        /// The blob.
        digest: Digest,
        /// Its size.
        bytes: u64,
    },
    /// A job is complete.
    Done {
        /// Index of the job.
        job: usize,
    },
    /// Something of a job failed; the rest of it goes on.
    Failed {
        /// Index of the job.
        job: usize,
        /// What, why.
        error: Error,
    },
}

/// Where events go. Called from many tasks; must not block.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;
