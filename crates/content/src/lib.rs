//! What is wanted: each kind of content is found by reading any [`Source`](airlock_oci::Source).

pub mod signature;
