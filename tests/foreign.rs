//! The promise: an archive in oc-mirror v2's form (storage of its cache first, then blobs, then its working directory, in numbered
//! tar files without a table) is listed, loaded and served. The tar files are made by GNU tar as oc-mirror 3.7 describes them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

use std::path::Path;
use std::process::{Command, Output};

use airlock_testkit::fixture::{self, Built};
use airlock_testkit::scripted::Registry;

fn airlock(home: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_airlock"))
        .args(arguments)
        .current_dir(home)
        .env("HOME", home)
        .env_remove("CONTAINERS_REGISTRIES_CONF")
        .output()
        .unwrap()
}

fn ok(output: Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned() + &said
}

fn tar(folder: &Path, format: &str, file: &Path, what: &[&str]) {
    let made = Command::new("tar")
        .arg("-C")
        .arg(folder)
        .arg(format!("--format={format}"))
        .arg("-cf")
        .arg(file)
        .args(what)
        .output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// The storage of two images, unpacked from an archive of ours, and packed again as oc-mirror does.
fn theirs(home: &Path, upstream: &Registry, format: &str) -> (Built, Built) {
    let web = fixture::index(&[
        fixture::image(1).layers(&[50_000, 700]).platform("linux/amd64").build(),
        fixture::image(2).layers(&[60_000]).platform("linux/arm64").build(),
    ])
    .build();
    let deep = fixture::image(3).docker().layers(&[1, 512]).build();
    let long = format!("deep/{}", "level/".repeat(20).trim_end_matches('/'));
    upstream.put("demo/web", &web, Some("1.0"));
    upstream.put(&long, &deep, Some("2.0"));
    let isc = format!(
        "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  additionalImages:\n  - name: {0}/demo/web:1.0\n  - name: {0}/{long}:2.0\n",
        upstream.address()
    );
    std::fs::write(home.join("isc.yaml"), isc).unwrap();
    ok(airlock(home, &["mirror", "-c", "isc.yaml", "file://ours", "--src-tls-verify=false"]));
    let storage = home.join("storage");
    std::fs::create_dir_all(storage.join("working-dir/logs")).unwrap();
    std::fs::write(storage.join("working-dir/logs/oc-mirror.log"), "a log").unwrap();
    std::fs::write(storage.join("isc_2026-11-21T06:00:00Z"), "kind: ImageSetConfiguration").unwrap();
    let unpacked =
        Command::new("tar").arg("-C").arg(&storage).arg("-xf").arg(home.join("ours/mirror_000001.tar")).status();
    assert!(unpacked.unwrap().success());
    let folder = home.join("theirs");
    std::fs::create_dir_all(&folder).unwrap();
    tar(&storage, format, &folder.join("mirror_000001.tar"), &["docker/registry/v2/repositories"]);
    tar(
        &storage,
        format,
        &folder.join("mirror_000002.tar"),
        &["docker/registry/v2/blobs", "working-dir", "isc_2026-11-21T06:00:00Z"],
    );
    (web, deep)
}

#[test]
fn an_archive_of_oc_mirror_is_listed_and_loaded() {
    for format in ["gnu", "pax", "posix"] {
        let home = tempfile::tempdir().unwrap();
        let upstream = Registry::start();
        let (web, deep) = theirs(home.path(), &upstream, format);
        let listed = ok(airlock(home.path(), &["archive", "ls", "theirs"]));
        assert!(listed.contains("demo/web:1.0") && listed.contains(&web.digest().to_string()), "{listed}");
        upstream.clear_log();
        let target = Registry::start();
        let place = format!("docker://{}/mirror", target.address());
        let arguments = [
            "mirror",
            "-c",
            "isc.yaml",
            "--from",
            "file://theirs",
            &place,
            "--dest-tls-verify=false",
            "--workspace",
            "file://ws",
        ];
        ok(airlock(home.path(), &arguments));
        assert!(target.has("mirror/demo/web", &web));
        let long = format!("mirror/deep/{}", "level/".repeat(20).trim_end_matches('/'));
        assert!(target.has(&long, &deep), "long names of {format} are read");
        assert!(upstream.log().is_empty(), "loading asks nobody but the target");
    }
}

#[test]
fn a_cut_archive_of_oc_mirror_and_one_that_lacks_blobs_are_named() {
    let home = tempfile::tempdir().unwrap();
    let upstream = Registry::start();
    theirs(home.path(), &upstream, "gnu");
    let target = Registry::start();
    let place = format!("docker://{}", target.address());
    let load = || {
        airlock(
            home.path(),
            &["mirror", "-c", "isc.yaml", "--from", "file://theirs", &place, "--dest-tls-verify=false"],
        )
    };
    let second = home.path().join("theirs/mirror_000002.tar");
    let bytes = std::fs::read(&second).unwrap();
    std::fs::write(&second, &bytes[..bytes.len() / 2]).unwrap();
    let said = load();
    assert_eq!(said.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&said.stderr).contains("mirror_000002.tar"), "{said:?}");
    std::fs::remove_file(&second).unwrap();
    let said = load();
    assert!(!said.status.success());
    assert_eq!(target.count("PUT", ""), 0, "nothing is pushed");
}
