//! Killed at any moment of pushes, deletions and garbage collections, the registry has lost nothing that it acknowledged, and shows nothing
//! that is incomplete. `AIRLOCK_REGISTRY_KILLS=500` kills it that often.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod support;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use airlock_oci::Digest;
use airlock_oci::sink::ManifestName;
use airlock_registry::{Anonymous, Server};
use airlock_store::Storage;
use airlock_store::distribution::{Directory, Durability, Writer};
use support::*;

/// Set for the process that is to be killed: the directory it serves.
const ROOT: &str = "AIRLOCK_CRASH_TEST_ROOT";
/// How often it is killed, unless the environment says otherwise.
const KILLS: u64 = 12;

/// Not a test, but the server of the one below, in a process of its own.
#[test]
fn server_of_the_crash_test() {
    let Some(root) = std::env::var_os(ROOT) else { return };
    let root = Path::new(&root);
    let durability = if root.join("each").exists() { Durability::Each } else { Durability::Image };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let writer = Writer::open(root, durability).unwrap();
        let collector = writer.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(Duration::from_millis(20));
                collector.collect_garbage(false).unwrap();
            }
        });
        let running = Server::writable(writer).anonymous(Anonymous::Push).bind(localhost()).await.unwrap();
        std::fs::write(root.join("addr.new"), running.addr.to_string()).unwrap();
        std::fs::rename(root.join("addr.new"), root.join("addr")).unwrap();
        std::future::pending::<()>().await;
    });
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // SIGKILL: it has no chance to tidy up.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(root: &Path) -> (Killed, String) {
    let _ = std::fs::remove_file(root.join("addr"));
    // Whatever happens, it is waited for when this is dropped.
    let child = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "server_of_the_crash_test"])
            .env(ROOT, root)
            .stdout(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        if let Ok(addr) = std::fs::read_to_string(root.join("addr")) {
            return (child, addr);
        }
        assert!(Instant::now() < end, "the server does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One push; `None` when the server was gone before it was done.
async fn push(client: &reqwest::Client, addr: &str, name: &str, tag: &str, seed: &str) -> Option<String> {
    let blobs = [format!("{{\"seed\":\"{seed}\"}}"), seed.repeat(5000), "shared by all".repeat(3000)];
    for blob in &blobs {
        let begun = client.post(format!("http://{addr}/v2/{name}/blobs/uploads/")).send().await.ok()?;
        let location = begun.headers().get("location")?.to_str().ok()?.to_owned();
        let url = format!("http://{addr}{location}?digest={}", Digest::of(blob.as_bytes()));
        let done = client.put(url).body(blob.clone()).send().await.ok()?;
        assert_eq!(done.status(), 201);
    }
    let text = manifest(OCI_MANIFEST, blobs[0].as_bytes(), &[blobs[1].as_bytes(), blobs[2].as_bytes()], "");
    let url = format!("http://{addr}/v2/{name}/manifests/{tag}");
    let done = client.put(url).header("content-type", OCI_MANIFEST).body(text.clone()).send().await.ok()?;
    assert_eq!(done.status(), 201);
    Some(text)
}

fn assert_whole(root: &Path, acknowledged: &[(String, String, String)]) {
    let directory = Directory::open(root).unwrap();
    for (name, tag, text) in acknowledged {
        let (name, digest) = (airlock_oci::Repository::new(name).unwrap(), Digest::of(text.as_bytes()));
        let found = directory.manifest(&name, &ManifestName::Digest(digest)).unwrap();
        assert_eq!(found.expect("it was acknowledged").bytes(), text.as_bytes());
        let tags = directory.tags(&name).unwrap().unwrap();
        assert!(tags.iter().any(|t| t.as_str() == tag), "{name}:{tag} was acknowledged");
    }
    for name in directory.repositories().unwrap() {
        for tag in directory.tags(&name).unwrap().unwrap() {
            let manifest = directory.manifest(&name, &ManifestName::Tag(tag.clone())).unwrap();
            let manifest = manifest.unwrap_or_else(|| panic!("{name}:{tag} leads nowhere"));
            for blob in manifest.blobs() {
                let region = directory.blob(&name, &blob.digest).unwrap().expect("a blob of a manifest that shows");
                let mut bytes = vec![0; region.len as usize];
                std::os::unix::fs::FileExt::read_exact_at(&*region.file, &mut bytes, 0).unwrap();
                assert_eq!(Digest::of(&bytes), blob.digest);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let kills = std::env::var("AIRLOCK_REGISTRY_KILLS").map_or(KILLS, |n| n.parse().unwrap());
    let root = tempfile::tempdir().unwrap();
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    for kill in 0..kills {
        if kill == kills / 2 {
            std::fs::write(root.path().join("each"), "").unwrap();
        }
        let (server, addr) = start(root.path());
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let (acknowledged, addr, client) = (acknowledged.clone(), addr.clone(), client());
                tokio::spawn(async move {
                    for i in 0.. {
                        let (name, tag) = (format!("r{}", task % 2), format!("k{kill}-{task}-{i}"));
                        let Some(text) = push(&client, &addr, &name, &tag, &tag).await else { return };
                        acknowledged.lock().unwrap().push((name.clone(), tag, text));
                        if i % 3 == 2 {
                            // From here on nobody may rely on it, whether the deletion is carried out or not.
                            let (_, _, text) = {
                                let mut list = acknowledged.lock().unwrap();
                                let Some(at) =
                                    list.iter().position(|(_, t, _)| *t == format!("k{kill}-{task}-{}", i - 1))
                                else {
                                    continue;
                                };
                                list.remove(at)
                            };
                            let digest = Digest::of(text.as_bytes());
                            let url = format!("http://{addr}/v2/{name}/manifests/{digest}");
                            let Ok(deleted) = client.delete(url).send().await else { return };
                            assert_eq!(deleted.status(), 202);
                        }
                    }
                })
            })
            .collect();
        // On a busy machine the first push takes its time.
        let (before, end) = (acknowledged.lock().unwrap().len(), Instant::now() + Duration::from_secs(60));
        while acknowledged.lock().unwrap().len() <= before && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let moment = (seed >> (kill * 5 % 60)) % 130;
        tokio::time::sleep(Duration::from_millis(moment)).await;
        drop(server);
        for task in tasks {
            task.await.unwrap();
        }
        assert_whole(root.path(), &acknowledged.lock().unwrap());
    }
    assert!(acknowledged.lock().unwrap().len() >= kills as usize, "hardly anything was pushed (seed {seed})");
    drop(Writer::open(root.path(), Durability::Image).unwrap());
    let leftovers = std::fs::read_dir(root.path().join(".airlock/uploads")).unwrap().count();
    assert_eq!(leftovers, 0, "what has no name is removed at the next start");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_server_left_of_deletions_is_collected_by_the_next() {
    let root = tempfile::tempdir().unwrap();
    let writer = Writer::open(root.path(), Durability::Image).unwrap();
    let server = Server::writable(writer).anonymous(Anonymous::Push).bind(localhost()).await.unwrap();
    let (client, addr) = (client(), server.addr.to_string());
    let text = push(&client, &addr, "r", "kept", "kept").await.unwrap();
    server.shutdown().await.unwrap();
    let removed = root.path().join(".airlock/removed");
    for (change, tag) in [("0", "t1"), ("0", "t2"), ("1", "t1")] {
        let folder = removed.join(change.repeat(32)).join(tag).join("current");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("link"), Digest::of(b"whatever").to_string()).unwrap();
    }
    let writer = Writer::open(root.path(), Durability::Image).unwrap();
    let server = Server::writable(writer).anonymous(Anonymous::Push).bind(localhost()).await.unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while std::fs::read_dir(&removed).unwrap().next().is_some() {
        assert!(Instant::now() < end, "nobody removes it");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_whole(root.path(), &[("r".into(), "kept".into(), text)]);
    server.shutdown().await.unwrap();
}
