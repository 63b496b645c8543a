//! Source and Sink for what lies on disk: registry storage, OCI layouts, archives.

pub mod storage;

pub use storage::{Region, Storage};
