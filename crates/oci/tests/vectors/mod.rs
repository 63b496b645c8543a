//! Finds the test vectors of upstream's behaviour, which lie beside the repository.

#![expect(clippy::print_stdout, reason = "a skipped test says so")]

use std::path::PathBuf;

/// The folder `vectors/rules/<name>`, or `None` (with a line that says so) when it is absent and not demanded.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var_os("AIRLOCK_SHARED").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let folder = shared.join("vectors/rules").join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    let demanded = std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_some_and(|v| v == "1");
    assert!(!demanded, "no test vectors at {}", folder.display());
    println!("skipped: no test vectors at {}", folder.display());
    None
}

/// A parsed JSON file.
pub(crate) fn json(path: &std::path::Path) -> serde_json::Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
