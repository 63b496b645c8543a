//! Test vectors of the shared folder, and shorthands for files of objects.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "each test file uses its part of it, and fails by panicking"
)]

use std::path::{Path, PathBuf};

use airlock_rules::Objects;
use serde_json::Value;

/// The shared folder.
pub(crate) fn shared() -> PathBuf {
    std::env::var_os("AIRLOCK_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from)
}

/// A folder of vectors. Absent, the test is passed over with a word, unless tools are required.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let folder = shared().join("vectors").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "{} is missing", folder.display());
    println!("skipped: {} is missing", folder.display());
    None
}

/// The JSON files of a folder, by name.
pub(crate) fn vectors(name: &str) -> Vec<(String, Value)> {
    let Some(folder) = folder(name) else { return Vec::new() };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            (path.file_stem().unwrap().to_string_lossy().into_owned(), value)
        })
        .collect()
}

/// Objects of texts.
pub(crate) fn objects(texts: &[&str]) -> Objects {
    let files: Vec<(String, String)> =
        texts.iter().enumerate().map(|(n, text)| (format!("{n}.yaml"), (*text).to_owned())).collect();
    Objects::load(&files).unwrap_or_else(|problems| panic!("{problems}"))
}
