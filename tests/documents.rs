//! Every command in README and docs runs: the `sh` blocks of a page, in order, in one shell, against an upstream made here.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::path::{Path, PathBuf};
use std::process::Command;

use airlock_testkit::fixture;
use airlock_testkit::process::Port;
use airlock_testkit::scripted::Registry;
use airlock_testkit::world::{Scale, Serving, World};

/// The `sh` blocks of a page, one script.
fn script(page: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in page.lines() {
        match line.trim_end() {
            "```sh" => inside = true,
            "```" => inside = false,
            line if inside => {
                out.push_str(line);
                out.push('\n');
            }
            _ => {}
        }
    }
    out
}

/// A server needs a moment; the reader of the page takes it while typing. Here it is waited for by the address that it is told to listen at.
fn waiting_for_servers(commands: &str) -> String {
    let mut waiting = String::new();
    // A command may go over several lines.
    let mut command = String::new();
    for line in commands.lines() {
        waiting += &format!("{line}\n");
        command += line;
        if line.ends_with('\\') {
            continue;
        }
        if line.ends_with(" &") {
            let port =
                command.split_once("--listen 127.0.0.1:").map(|(_, rest)| rest.split([' ', '\\']).next().unwrap());
            let port = port.unwrap_or_else(|| panic!("where does this listen: {command}"));
            waiting += &format!(
                "for i in $(seq 1200); do (exec 3<>/dev/tcp/127.0.0.1/{port}) 2>/dev/null && break; sleep 0.1; done\n"
            );
        }
        command.clear();
    }
    waiting
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What the pages call `registry.example.com`.
fn upstream() -> Registry {
    let upstream = Registry::start();
    let amd64 = fixture::image(1).layers(&[10_000, 20_000]).platform("linux/amd64").build();
    let arm64 = fixture::image(2).layers(&[10_000, 30_000]).platform("linux/arm64").build();
    let web = fixture::index(&[amd64, arm64]).build();
    upstream.put("demo/web", &web, Some("1.0"));
    let signature = fixture::cosign(&web);
    upstream.put("demo/web", &signature.image, Some(&signature.tag));
    upstream.put("demo/tool", &fixture::image(3).docker().layers(&[40_000]).build(), Some("2.1"));
    upstream
}

fn run_page(page: &str) {
    let upstream = upstream();
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("registries.conf");
    let location = upstream.address();
    std::fs::write(
        &conf,
        format!("[[registry]]\nprefix = \"registry.example.com\"\nlocation = \"{location}\"\ninsecure = true\n"),
    )
    .unwrap();
    run_page_with(page, &[("CONTAINERS_REGISTRIES_CONF".into(), conf.display().to_string())]);
}

fn run_page_with(page: &str, env: &[(String, String)]) {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let bin = here.join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_airlock"), bin.join("airlock")).unwrap();
    let mut commands = script(&text);
    assert!(commands.contains("airlock"), "{page} has no commands");
    // Claimed until the page has been run, so that nobody else is given them.
    let ports = [Port::claim(), Port::claim()];
    for (there, here) in ["5000", "5001"].into_iter().zip(&ports) {
        commands = commands.replace(&format!("127.0.0.1:{there}"), &here.address().to_string());
    }
    commands = waiting_for_servers(&commands);
    let script = format!("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\ncd work\n{commands}");
    std::fs::create_dir(here.join("work")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(here)
        .env_clear()
        .env("PATH", path)
        .env("HOME", here)
        .envs(env.iter().cloned())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{page}:\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_commands_of_the_readme_run() {
    run_page("README.md");
}

#[test]
fn the_commands_of_the_guide_run() {
    run_page("docs/guide.md");
}

#[test]
fn the_commands_for_those_who_know_oc_mirror_run() {
    run_page("docs/oc-mirror.md");
}

#[test]
fn the_commands_about_releases_run() {
    let Some(upstream) = World::get(Scale::Small).and_then(|w| w.start(Serving::DockerRegistry)) else { return };
    run_page_with("docs/releases.md", &upstream.env());
}

#[test]
fn the_commands_about_catalogs_run() {
    let Some(upstream) = World::get(Scale::Small).and_then(|w| w.start(Serving::DockerRegistry)) else { return };
    run_page_with("docs/catalogs.md", &upstream.env());
}

#[test]
fn the_commands_about_rules_run() {
    run_page("docs/rules.md");
}

#[test]
fn the_commands_about_auditing_run() {
    run_page("docs/audit.md");
}

#[test]
fn the_commands_about_the_registry_run() {
    run_page("docs/registry.md");
}

#[test]
fn the_commands_about_installing_run() {
    run_page("docs/install.md");
}

#[test]
fn the_commands_about_clusters_run() {
    run_page("docs/cluster.md");
}

#[test]
fn the_quick_start_of_the_readme_runs() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains("cargo run --release -- quickstart\n"));
    assert!(readme.contains("cargo test --workspace\n"));
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        Command::new(env!("CARGO_BIN_EXE_airlock"))
            .arg("quickstart")
            .current_dir(folder.path())
            .env("HOME", folder.path())
            .output()
            .unwrap()
    };
    // Twice: what the first left is made anew.
    for _ in 0..2 {
        let output = run();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("kind: ImageDigestMirrorSet"));
        assert!(said.contains("4 images"), "{said}");
    }
    let left = folder.path().join("airlock-quickstart");
    assert!(left.join("archive/mirror_000001.tar").is_file());
    assert!(!left.join("archive/.airlock-journal").exists());
}
