//! Configuration to plan to transfer to outputs.

pub mod config;
pub mod plan;
