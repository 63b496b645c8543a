//! The images of the offline world, awkward ones included: read from docker-registry's storage, and pushed into our own.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use airlock_oci::sink::ManifestName;
use airlock_oci::{Digest, Repository, Tag};
use airlock_store::Storage;
use airlock_store::distribution::Directory;
use serde::Deserialize;
use support::*;

#[derive(Deserialize)]
struct World {
    repos: BTreeMap<Repository, Contents>,
}

#[derive(Deserialize)]
struct Contents {
    tags: BTreeMap<Tag, Digest>,
    manifests: BTreeMap<Digest, String>,
}

/// The script that makes the world; `None` where there is none.
fn script() -> Option<PathBuf> {
    let shared = std::env::var_os("AIRLOCK_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let script = shared.join("world/world.py");
    if script.exists() {
        return Some(script);
    }
    assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "`{}` is required", script.display());
    println!("skipped: there is no `{}`", script.display());
    None
}

/// Everything that the world lists is in the storage, under its type.
fn assert_holds(storage: &dyn Storage, world: &World, prefix: &str) -> usize {
    let mut manifests = 0;
    for (name, contents) in world.repos.iter().filter(|(name, _)| name.as_str().starts_with(prefix)) {
        for (digest, media_type) in &contents.manifests {
            let found = storage.manifest(name, &ManifestName::Digest(digest.clone())).unwrap();
            let found = found.unwrap_or_else(|| panic!("{name}@{digest} is not there"));
            assert_eq!(found.media_type(), media_type, "{name}@{digest}");
            manifests += 1;
        }
        let tags: Vec<Tag> = contents.tags.keys().cloned().collect();
        assert_eq!(storage.tags(name).unwrap().unwrap(), tags, "{name}");
        for (tag, digest) in &contents.tags {
            let found = storage.manifest(name, &ManifestName::Tag(tag.clone())).unwrap().unwrap();
            assert_eq!(found.digest(), digest, "{name}:{tag}");
        }
    }
    manifests
}

/// Whether a folder is there and has a gigabyte left.
fn has_room(folder: &str) -> bool {
    let asked = std::process::Command::new("df").args(["--output=avail", "-B1", folder]).output();
    let said = asked.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    said.lines().nth(1).and_then(|line| line.trim().parse::<u64>().ok()).is_some_and(|free| free > 1 << 30)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_world_is_read_and_taken() {
    let (Some(script), Some(python)) = (script(), tool("python3")) else { return };
    let script = script.to_str().unwrap().to_owned();
    // Tens of thousands of small files: in memory where there is a place for that, since no disk is judged here.
    let work = if has_room("/dev/shm") { tempfile::tempdir_in("/dev/shm") } else { tempfile::tempdir() }.unwrap();
    run(&python, &[&script, "build", "--out", "world", "--scale", "small"], work.path()).await.unwrap();
    let world: World = serde_json::from_slice(&std::fs::read(work.path().join("world/world.json")).unwrap()).unwrap();
    let directory = Directory::open(&work.path().join("world/storage")).unwrap();
    let names: Vec<Repository> = world.repos.keys().cloned().collect();
    assert_eq!(directory.repositories().unwrap(), names);
    assert!(assert_holds(&directory, &world, "") > 1000);

    let registry = Registry::start().await;
    let addr = registry.addr.to_string();
    let push = [&script, "push", "--dir", "world", "--registry", &addr, "--only", "quay.io/world"];
    let said = run(&python, &push, work.path()).await.unwrap();
    assert!(said.contains(" 0 errors"), "{said}");
    assert!(assert_holds(&registry.writer, &world, "quay.io/world") > 50);
    // Nothing was lost on the way into the files.
    let root = registry.stop().await;
    assert_holds(&Directory::open(root.path()).unwrap(), &world, "quay.io/world");
}
