//! Whether the storage takes what is pushed. After an error of the disk it is not written to until a trial shows that it works again;
//! pulls go on.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::backend::{self, Writer};

/// The state of one server's storage.
#[derive(Debug, Default)]
pub(crate) struct Health(AtomicBool);

impl Health {
    /// Notes that a write failed. A bucket says for each request what fails, and never counts as failed: nobody would try it again.
    pub(crate) fn failed(&self, writer: &Writer) {
        if writer.disk().is_some() && !self.0.swap(true, Ordering::AcqRel) {
            tracing::error!("the storage failed; pushes are refused until it takes a file again");
        }
    }

    /// Whether writes are refused.
    pub(crate) fn is_failed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Tries to write where that failed.
    pub(crate) async fn try_again(&self, writer: &Writer) {
        if self.is_failed()
            && let Some(disk) = writer.disk().cloned()
            && backend::blocking(move || disk.probe()).await.is_ok()
        {
            self.0.store(false, Ordering::Release);
            tracing::info!("the storage takes files again; so are pushes");
        }
    }
}
