//! What is wrong with a configuration, as data: the stable codes, and all problems of one file.

use std::path::PathBuf;

pub use airlock_document::{Problem, Severity};

/// Everything that is wrong with one file, in the order of its lines.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problems}")]
pub struct Problems {
    /// The file.
    pub path: PathBuf,
    /// Errors and warnings; at least one error.
    pub problems: airlock_document::Problems,
}

/// The stable codes of problems.
pub mod code {
    /// The file cannot be read.
    pub const UNREADABLE: &str = "E0101";
    /// Not YAML.
    pub const SYNTAX: &str = "E0102";
    /// A key occurs twice.
    pub const DUPLICATE_KEY: &str = "E0103";
    /// More than one document, or none.
    pub const DOCUMENTS: &str = "E0104";
    /// Wrong or missing `kind`, or the wrong sections for it.
    pub const KIND: &str = "E0105";
    /// A field that does not exist.
    pub const UNKNOWN_FIELD: &str = "E0106";
    /// A value of the wrong type.
    pub const TYPE: &str = "E0107";
    /// A value that must be there is not.
    pub const MISSING: &str = "E0108";
    /// A value that is not among those allowed or not of the right form.
    pub const VALUE: &str = "E0109";
    /// Not an image reference, or one without tag and digest.
    pub const REFERENCE: &str = "E0110";
    /// Not a version.
    pub const VERSION: &str = "E0111";
    /// The same thing is listed twice.
    pub const DUPLICATE: &str = "E0112";
    /// Two settings exclude each other.
    pub const EXCLUSIVE: &str = "E0113";
    /// A field of an older version that has no counterpart.
    pub const UNSUPPORTED: &str = "E0114";
    /// The `apiVersion` is missing or unknown.
    pub const API_VERSION: &str = "W0101";
    /// A deprecated field.
    pub const DEPRECATED: &str = "W0102";
    /// A field that is accepted and ignored.
    pub const IGNORED: &str = "W0103";
    /// A value that is legal and probably not meant.
    pub const SUSPICIOUS: &str = "W0104";
    /// A default that newer versions do not fill in.
    pub const IMPLIED: &str = "W0105";
}
