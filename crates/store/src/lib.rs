//! Source and Sink for what lies on disk: registry storage, OCI layouts, archives.

pub mod archive;
pub mod storage;
pub mod stream;

pub use storage::{Region, Storage};
