//! What a run tells while it works. Bars, plain lines, JSON and logs are subscribers; nothing here prints.

use std::path::PathBuf;
use std::sync::Arc;

use airlock_client::Notice;

use crate::plan::Kind;

/// Something happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A phase begins.
    Phase(Phase),
    /// So many of so many images have been looked up.
    Planned {
        /// Looked up.
        done: usize,
        /// In all.
        total: usize,
    },
    /// What is going to happen: exact.
    Forecast {
        /// Images.
        images: usize,
        /// Unique bytes of blobs and manifests.
        bytes: u64,
        /// Of these, bytes of blobs: what the copy tells of, moved or reused.
        blobs: u64,
        /// Of these, bytes that an earlier archive carried.
        carried_before: u64,
        /// Of these, bytes that are on this disk already: of an interrupted run, or of the whole archive.
        resumed: u64,
        /// What was asked for and cannot be had.
        missing: usize,
    },
    /// So many of so many bytes of the archives have been read and compared.
    Verified {
        /// Read.
        done: u64,
        /// In all.
        total: u64,
    },
    /// So many of so many manifests and blobs have been asked for at the target.
    Sought {
        /// Asked for.
        done: u64,
        /// In all.
        total: u64,
    },
    /// The images that the jobs of the transfer are about, in their order.
    Images(Arc<[Job]>),
    /// From the transfer; jobs are in the order of the plan's images.
    Transfer(airlock_transfer::Event),
    /// From the client: a retry, a wait, another endpoint.
    Client(Notice),
    /// The user should know.
    Warning(String),
    /// A file was written.
    Wrote(PathBuf),
}

/// What one job of the transfer is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// As the user wrote it.
    pub name: String,
    /// What kind of content.
    pub kind: Kind,
}

/// The phases of a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reading the archives that are loaded.
    Verify,
    /// Finding out what the configuration means.
    Plan,
    /// Asking the target what it can do.
    Probe,
    /// Moving bytes.
    Copy,
    /// Giving the archive its seal.
    Seal,
    /// Writing cluster resources and reports.
    Outputs,
}

/// Where events go. Called from many tasks; must not block.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

impl Phase {
    /// One word for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Plan => "plan",
            Self::Probe => "probe",
            Self::Copy => "copy",
            Self::Seal => "seal",
            Self::Outputs => "write",
        }
    }
}
