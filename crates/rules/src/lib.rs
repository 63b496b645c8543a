//! Mirror rules of a cluster: what they do to every pull, what is wrong with them, and what applying them costs.
//!
//! * [`Objects::load`] reads IDMS, ITMS and ICSP objects and the cluster's image configuration; each value knows its place.
//! * [`render`] makes of them the registries.conf that the Machine Config Operator writes, to the byte.
//! * [`resolve::Node`] says what a node tries for a reference, and why.
//!
//! Everything here is a function of texts: no file, no network, no clock.

pub mod audit;
pub mod ca;
pub mod convert;
pub mod edit;
pub mod impact;
pub mod lint;
pub mod node;
pub mod objects;
pub mod problem;
pub mod pull_secret;
pub mod render;
pub mod resolve;
pub mod resources;
pub mod scope;
pub mod undo;
pub mod usage;
pub mod yaml;

pub use objects::{Entry, ImageConfig, Kind, MirrorSet, Objects, Others, Policy, Pull};
pub use problem::{Problem, Problems, Severity};
