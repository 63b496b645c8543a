//! What a run leaves for the cluster and for people. Functions of the plan and of what was done.

pub mod catalogs;
pub mod mapping;
pub mod mirror_sets;
pub mod pins;
pub mod releases;
mod yaml;

pub(crate) use yaml::sorted;
