//! For tests: scripted registries, fixtures, real tools.

pub mod api_server;
pub mod binary;
pub mod browser;
pub mod contents;
pub mod fixture;
pub mod opm;
pub mod process;
pub mod scripted;
pub mod target;
pub mod tools;
pub mod wanted;
pub mod world;
mod zot;
