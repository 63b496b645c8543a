//! The one engine: content from a [`Source`](airlock_oci::Source) to a [`Sink`](airlock_oci::Sink).
//!
//! Input: [`Job`]s, in the order of the plan. Output: an [`Outcome`] for each, and [`Event`]s on the way. The engine knows neither
//! configurations nor clusters, and decides nothing: what a job lists is moved, children before parents, each blob in flight
//! once however many images want it. A failed image never stops another.

mod blobs;
mod engine;
mod event;
mod job;

pub use engine::{Options, run};
pub use event::{Event, Events};
pub use job::{Job, Node, Outcome, Stop};
