//! What is wanted: each kind of content is found by reading any [`Source`](airlock_oci::Source).
//!
//! * [`graph_image`]: the image with the update graph's data
//! * [`image`]: an image's platforms and its configuration
//! * [`layers`]: files of an image, read out of its layers as they stream by
//! * [`release`]: what an OpenShift release consists of
//! * [`signature`]: that a release is what its publisher built

pub mod graph_image;
pub mod image;
pub mod layers;
pub mod release;
pub mod signature;
