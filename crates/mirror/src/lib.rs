//! Configuration to plan to transfer to outputs.

pub mod config;
