//! The promise: a run that is killed at any moment is finished by the next one, to the same bytes, without fetching again what it had. The short
//! form of `bench/soak.py`.

use std::path::Path;
use std::process::Command;

use airlock_testkit::tools;

/// In each direction.
const KILLS: &str = "5";

#[test]
fn killed_runs_are_finished_by_the_next() {
    let (Some(python), Some(shared)) = (tools::need("python3"), tools::shared()) else { return };
    if tools::need("docker-registry").is_none() {
        return;
    }
    // A folder of its own: a soak by hand may be running in the usual one.
    let work = tempfile::Builder::new().prefix("soak-").tempdir_in(tools::target_dir()).expect("create a folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/soak.py");
    let soaked = Command::new(python)
        .arg("-B")
        .arg(script)
        .args(["--airlock", env!("CARGO_BIN_EXE_airlock"), "--kills", KILLS, "--work"])
        .arg(work.path())
        .env(tools::SHARED, shared)
        .output()
        .expect("run the soak");
    let said = String::from_utf8_lossy(&soaked.stdout).into_owned() + &String::from_utf8_lossy(&soaked.stderr);
    assert!(soaked.status.success(), "{said}");
    assert!(said.contains("| archive -> registry |"), "it did not come to its end:\n{said}");
}
