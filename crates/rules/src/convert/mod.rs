//! Rules from other rules: ICSP to IDMS, registries.conf, mapping files and image lists to objects, policies and scopes.
//!
//! Where the user wrote a file of objects, the text is changed in place and comments stay; where there was none,
//! [`draft`] writes one.

pub mod conf;
pub mod draft;
pub mod icsp;
pub mod images;
pub mod mapping;
pub mod policy;
pub mod scope;

/// Something that could not be carried over, or that the user should know.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Note {
    /// Where: file and line, or the name it is about.
    pub at: String,
    /// What.
    pub message: String,
}
