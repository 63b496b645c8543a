//! Why a configuration cannot be loaded, and why a reference cannot be resolved; each with a stable class.

use std::fmt;

use crate::reference::ParseError;

/// A file is wrong. With any file wrong nothing can be pulled, related or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// The file, as the caller named it.
    pub file: String,
    /// A stable class such as `E_TOML_SYNTAX` (mirror-rules 2.5).
    pub code: &'static str,
    /// What is wrong, with the offending value.
    pub cause: String,
    /// Counted from 1; 0 where the whole file is meant.
    pub line: u32,
    /// In characters, counted from 1; 0 where the whole file is meant.
    pub column: u32,
}

/// A reference has no endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveError {
    /// A stable class such as `E_REWRITE_FORMAT` or `E_REF_UPPERCASE`.
    pub code: &'static str,
    /// The reference as asked for.
    pub reference: String,
    /// What is wrong with it, or with what a table makes of it.
    pub cause: String,
}

impl LoadError {
    /// A main file was asked for by name, and is not there. A default file may be missing, this may not.
    pub fn missing(file: impl Into<String>) -> Self {
        let cause = "the file does not exist".to_owned();
        Self { file: file.into(), code: "E_CONF_MISSING", cause, line: 0, column: 0 }
    }
}

impl ResolveError {
    pub(super) fn parse(reference: &str, error: ParseError) -> Self {
        Self { code: error.class(), reference: reference.to_owned(), cause: error.to_string() }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        write!(f, ": {} ({})", self.cause, self.code)
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot resolve `{}`: {} ({})", self.reference, self.cause, self.code)
    }
}

impl std::error::Error for LoadError {}
impl std::error::Error for ResolveError {}
