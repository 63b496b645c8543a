//! Configuration and source in, [`Plan`] out. Reads only.

pub mod cache;
pub mod catalogs;
pub mod discover;
pub mod explain;
pub(crate) mod graph;
pub mod jobs;
pub mod model;
pub mod naming;
pub mod origins;
mod outline;
mod packs;
mod releases;
pub(crate) mod walk;
mod wanted;

pub use cache::Cache;
pub use discover::{Discovered, Request, discover};
pub use model::{
    Attachment, AttachmentKind, BlobNode, Bytes, Catalog, Image, Kind, ManifestNode, Missing, Package, Plan, Reason,
    Release,
};
pub use naming::Target;
pub use origins::{Documents, Origins};
pub use outline::{Outline, Planned};
pub use walk::Attachments;
pub(crate) use wanted::layout_reference;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
