//! What is wanted: each kind of content is found by reading any [`Source`](airlock_oci::Source).
//!
//! * [`catalog`]: what of an operator catalog is wanted, and the smaller catalog made of it
//! * [`derived`]: an image built upon another
//! * [`graph_image`]: the image with the update graph's data
//! * [`image`]: an image's platforms and its configuration
//! * [`layers`]: files of an image, read out of its layers as they stream by
//! * [`release`]: what an OpenShift release consists of
//! * [`signature`]: that a release is what its publisher built

pub mod catalog;
pub mod derived;
pub mod graph_image;
pub mod image;
pub mod layers;
pub mod release;
pub mod signature;
