//! What can be wrong with mirror rules: the stable codes. `E_…` are those of what the Machine Config Operator refuses.

pub use airlock_document::{Problem, Problems, Severity};

/// The stable codes of problems.
pub mod code {
    /// The file cannot be read.
    pub const UNREADABLE: &str = "E0501";
    /// Not YAML and not JSON.
    pub const SYNTAX: &str = "E0502";
    /// A key occurs twice.
    pub const DUPLICATE_KEY: &str = "E0503";
    /// No object at all.
    pub const EMPTY: &str = "E0504";
    /// Wrong or missing `kind` or `apiVersion`.
    pub const KIND: &str = "E0505";
    /// A field that does not exist.
    pub const UNKNOWN_FIELD: &str = "E0506";
    /// A value of the wrong type.
    pub const TYPE: &str = "E0507";
    /// A value that must be there is not.
    pub const MISSING: &str = "E0508";
    /// A value that is not among those allowed or not of the right form.
    pub const VALUE: &str = "E0509";
    /// `metadata.namespace` on an object that belongs to no namespace.
    pub const NAMESPACE: &str = "W0501";
}
