//! The parsers under test, each with the properties that must hold whatever it is given.

mod challenge;
mod config;
mod graph;
mod layer;
mod manifest;
mod names;
mod registries_conf;
mod requests;
mod signature;
mod table;
mod tar;

use crate::Target;

/// Every target.
pub const ALL: [Target; 11] = [
    names::TARGET,
    manifest::TARGET,
    tar::TARGET,
    layer::TARGET,
    challenge::TARGET,
    registries_conf::TARGET,
    config::TARGET,
    graph::TARGET,
    requests::TARGET,
    signature::TARGET,
    table::TARGET,
];

/// Small counts apart, large ones together: otherwise every longer input would be new.
fn magnitude(count: usize) -> u32 {
    if count < 4 { count as u32 } else { 3 + count.ilog2() }
}
