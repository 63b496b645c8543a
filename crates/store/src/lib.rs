//! Source and Sink for what lies on disk: registry storage, OCI layouts, archives.
//!
//! * [`Storage`]: the questions every place on disk answers; [`StorageSource`] makes a [`Source`](airlock_oci::Source) of any of them
//! * [`distribution`]: docker-distribution's storage layout on a local disk
//! * [`bucket`]: the same layout in an S3-compatible object store, for several processes at once
//! * [`archive`]: registry storage in tar form, written once, read in place
//! * [`oci_layout`]: an OCI image layout directory
//! * [`file_tree`]: the `file://` tree of `oc image mirror`

pub mod archive;
pub mod bucket;
mod disk;
pub mod distribution;
pub mod file_tree;
pub mod oci_layout;
pub mod source;
mod staged;
pub mod storage;
pub mod stream;

pub use source::StorageSource;
pub use storage::{Region, Storage, Verified};
