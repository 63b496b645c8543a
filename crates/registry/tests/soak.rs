//! Pushes, pulls, deletions and garbage collections together: no request fails, nothing that is acknowledged is incomplete.
//! `AIRLOCK_REGISTRY_SOAK=600` goes on for that many seconds.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use airlock_oci::Digest;
use airlock_registry::admin::{Work, ask};
use support::*;

/// How long it goes on at least, unless the environment says otherwise (seconds).
const SECONDS: u64 = 5;
/// How long it goes on at most when too little has come of it until then (seconds more).
const MORE_SECONDS: u64 = 300;
/// Images among which the tasks choose; small enough that what is pushed was often deleted a moment ago.
const IMAGES: u64 = 12;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushing_pulling_deleting_and_collecting_at_once() {
    let seconds = std::env::var("AIRLOCK_REGISTRY_SOAK").map_or(SECONDS, |n| n.parse().unwrap());
    // Five seconds between collections in the long form, and as many collections in the short one.
    let pause = Duration::from_millis((seconds * 1000 / 120).clamp(100, 5000));
    let registry = Arc::new(Registry::start().await);
    let begun = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let counts: [Arc<AtomicU64>; 3] = Default::default();
    let [requests, collections, removed] = counts.clone();
    let is_enough = move || counts.iter().zip([100, 5, 0]).all(|(count, least)| count.load(Ordering::Relaxed) > least);
    let collector = {
        let (root, stop) = (registry.root.path().to_owned(), stop.clone());
        let (collections, removed) = (collections.clone(), removed.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let collected = ask(&root, &Work::CollectGarbage { dry_run: false, keep: None }).unwrap().unwrap();
                removed.fetch_add(collected["removedFiles"].as_u64().unwrap(), Ordering::Relaxed);
                collections.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(pause);
            }
        })
    };
    let tasks: Vec<_> = (0..6)
        .map(|task: u64| {
            let (registry, requests, is_enough) = (registry.clone(), requests.clone(), is_enough.clone());
            tokio::spawn(async move {
                let mut state = task.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                // Each has a repository of its own, so that it knows what must be there; the blobs are everybody's.
                let name = format!("team/r{task}");
                let goes_on = || {
                    let gone = begun.elapsed().as_secs();
                    gone < seconds || (gone < seconds + MORE_SECONDS && !is_enough())
                };
                while goes_on() {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    let seed = (state % IMAGES).to_string();
                    let (text, digest) = registry.push_image(&name, "latest", &seed).await;
                    for layer in [format!("layer {seed}"), format!(r#"{{"seed":"{seed}"}}"#)] {
                        let got = registry.get(&format!("/v2/{name}/blobs/{}", Digest::of(layer.as_bytes()))).await;
                        assert_eq!(got.status(), 200, "{name} {seed}");
                        assert_eq!(got.text().await.unwrap(), layer);
                    }
                    assert_eq!(registry.get(&format!("/v2/{name}/manifests/latest")).await.text().await.unwrap(), text);
                    if state >> 40 & 1 == 1 {
                        assert_eq!(registry.delete(&format!("/v2/{name}/manifests/{digest}")).await, 202);
                    }
                    requests.fetch_add(9, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    collector.join().unwrap();
    println!("{requests:?} requests, {collections:?} collections, {removed:?} files removed");
    assert!(is_enough());
    let scrubbed = registry.writer.scrub(None).unwrap();
    assert_eq!(scrubbed.damage, []);
}
