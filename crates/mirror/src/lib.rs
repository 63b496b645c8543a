//! Configuration to plan to transfer to outputs.
//!
//! ```text
//! ImageSetConfiguration -> config -> plan -> run (airlock-transfer) -> outputs, report
//!                                     ^
//!                                     sources: registries, layouts, archives
//! ```

pub mod archives;
pub mod clock;
pub mod config;
pub mod event;
pub mod history;
pub mod import;
pub mod outputs;
pub mod plan;
pub mod policy;
pub mod receipt;
pub mod report;
pub mod run;
mod sources;
pub mod workspace;
