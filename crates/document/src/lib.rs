//! A text that a user wrote, and what is wrong with it.
//!
//! * [`yaml`] makes of a text trees in which every value knows its place
//! * [`Problem`] is one thing that is wrong, with its place, its line and what helps
//! * [`scalar()`] is a text as it stands in YAML that is written, in quotes where it needs them
//! * [`nearest()`] is the known word that was probably meant
//!
//! Whoever reads a format (an image set, mirror rules) says what the format is; nothing here knows one.

mod nearest;
pub mod problem;
mod scalar;
pub mod yaml;

pub use nearest::nearest;
pub use problem::{Problem, Problems, Severity};
pub use scalar::scalar;
