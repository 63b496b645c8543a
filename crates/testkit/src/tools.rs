//! Finds the real tools that judge our work, and the shared data beside the workspace.
//!
//! A test that needs something absent prints one line and returns, so that a newcomer's machine is not full of red; with
//! `AIRLOCK_REQUIRE_TOOLS=1`, as in continuous integration, an absent tool is a failure.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Set to `1` where every tool must be there.
pub const REQUIRE: &str = "AIRLOCK_REQUIRE_TOOLS";
/// Names the folder of shared test data.
pub const SHARED: &str = "AIRLOCK_SHARED";

/// Whether an absent tool fails a test instead of skipping it.
pub fn required() -> bool {
    env::var(REQUIRE).is_ok_and(|value| value == "1")
}

/// Where the program `name` is: in `PATH`, in Go's folder of installed programs, or where Debian keeps administrators' tools.
pub fn find(name: &str) -> Option<PathBuf> {
    let listed = env::var_os("PATH").unwrap_or_default();
    let go = env::var_os("GOBIN").map(PathBuf::from).or_else(|| Some(Path::new(&env::var_os("HOME")?).join("go/bin")));
    env::split_paths(&listed)
        .chain(go)
        .chain(["/usr/local/bin", "/usr/bin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Like [`find`]; when the tool is absent a line says that the test is skipped, or, with [`REQUIRE`], the test fails.
pub fn need(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        absent(&format!("`{name}` is not installed"));
    }
    found
}

/// Says that the running test cannot be done here, and why; a failure with [`REQUIRE`].
pub fn absent(why: &str) {
    assert!(!required(), "{why}, and {REQUIRE}=1");
    skipped(why);
}

/// Says that the running test cannot be done here for a reason that no installation changes, such as a right or a kernel without a file
/// system.
#[expect(clippy::print_stderr, reason = "the line is for whoever reads the test's output")]
pub fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// The folder of shared test data ([`SHARED`], else `shared` beside the workspace), with the same rule when it is absent.
pub fn shared() -> Option<PathBuf> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let path = env::var_os(SHARED).map_or_else(|| workspace().join("../shared"), PathBuf::from);
        path.canonicalize().ok().filter(|path| path.is_dir())
    });
    if found.is_none() {
        absent(&format!("the shared test data is not beside the workspace (set {SHARED})"));
    }
    found.clone()
}

/// The root of this workspace.
pub fn workspace() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

/// Cargo's folder of build results, where generated test data is kept between runs.
pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_shell_and_not_a_made_up_name() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("no-such-program-here"), None);
    }

    #[test]
    fn the_workspace_holds_this_crate() {
        assert!(workspace().join("crates/testkit/Cargo.toml").is_file());
    }
}
