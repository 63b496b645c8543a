//! What is to be moved, and what came of it.

use airlock_oci::{Descriptor, Digest, Error, Place, Reference, Repository, Tag};
use tokio::sync::watch;

/// One image with everything that belongs to it: platforms, attachments.
#[derive(Clone, Debug)]
pub struct Job {
    /// For people: the name as the user, a catalog or a release wrote it.
    pub name: String,
    /// The logical reference that the source is asked by (its tag and digest do not matter here).
    pub source: Reference,
    /// The place that served the manifests.
    pub near: Option<Place>,
    /// Where in the sink.
    pub repository: Repository,
    /// Manifests in the order in which they are written: children before parents, attachments last.
    pub nodes: Vec<Node>,
    /// Without it the others that are critical are of no use: when it fails, no more of them are begun.
    pub critical: bool,
    /// Numbers of jobs before this one without which it is of no use: it begins when they are done, and not at all when one is not.
    pub needs: Vec<usize>,
}

/// A manifest to be written, with what must be there before it.
#[derive(Clone, Debug)]
pub struct Node {
    /// The manifest.
    pub manifest: Descriptor,
    /// Blobs that are carried with it. Foreign layers that no place serves are left out.
    pub blobs: Vec<Descriptor>,
    /// Children that are carried (a sparse index has others too).
    pub children: Vec<Digest>,
    /// Tags to set.
    pub tags: Vec<Tag>,
}

/// What came of a job.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Everything is in the sink.
    Done,
    /// Something of it is not; the other parts may be. Each failure names its thing.
    Failed(Vec<Error>),
    /// Not begun, because something critical failed.
    Withheld,
    /// Not finished because the run was asked to stop.
    Stopped,
}

/// Asks a run to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop {
    sender: std::sync::Arc<watch::Sender<bool>>,
}

impl Default for Stop {
    fn default() -> Self {
        Self { sender: std::sync::Arc::new(watch::channel(false).0) }
    }
}

impl Stop {
    /// Nothing new is begun, what is under way is dropped at its last checkpoint.
    pub fn stop(&self) {
        self.sender.send_replace(true);
    }

    /// Whether the run was asked to stop.
    pub fn is_stopped(&self) -> bool {
        *self.sender.borrow()
    }

    /// Returns when the run is asked to stop.
    pub async fn stopped(&self) {
        let mut receiver = self.sender.subscribe();
        // An error means that the sender is gone, which cannot be while `self` holds it.
        let _ = receiver.wait_for(|stopped| *stopped).await;
    }
}

impl Outcome {
    /// Whether everything is in the sink.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}
