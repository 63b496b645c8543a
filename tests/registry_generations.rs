//! The promise: what old imports brought can be let go at any time, also while other imports are under way and images are pushed: none of
//! them fails, and neither what a kept generation has nor what somebody pushed is ever missing. `AIRLOCK_REGISTRY_SOAK=600` goes on for
//! that many seconds.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on says so by failing")]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use airlock_testkit::binary::{Binary, Started};
use airlock_testkit::fixture::{self, Built};
use airlock_testkit::scripted::Registry;
use serde_json::Value;

const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");
/// How long it goes on at least, unless the environment says otherwise (seconds).
const SECONDS: u64 = 15;
/// How long it goes on at most when too little has come of it until then (seconds more).
const MORE_SECONDS: u64 = 300;
/// Products among which each import chooses some.
const PRODUCTS: usize = 8;
/// Where a registry has each product, and under which tags.
const TAGS: [&str; 2] = ["index", "image"];

/// The upstream: products that share layers and platforms with one another.
struct Upstream {
    registry: Registry,
    products: Vec<[Built; 2]>,
    /// What the tag of `demo/moving` points at in turn.
    moving: Vec<Built>,
}

impl Upstream {
    fn new() -> Self {
        let registry = Registry::start();
        let base = fixture::image(1).layers(&[300_000]).build().all_blobs()[1].clone();
        let shared: Vec<Built> = (0..3).map(|n| fixture::image(10 + n).layers(&[50_000]).build()).collect();
        let products: Vec<[Built; 2]> = (0..PRODUCTS)
            .map(|n| {
                let own = fixture::image(100 + n as u64).given(vec![base.clone()]).layers(&[20_000, 90_000]).build();
                [fixture::index(&[shared[n % 3].clone(), own.clone()]).build(), own]
            })
            .collect();
        for (n, images) in products.iter().enumerate() {
            for (image, tag) in images.iter().zip(TAGS) {
                registry.put(&format!("demo/p{n}"), image, Some(tag));
            }
        }
        let moving = (0..4).map(|n| fixture::image(200 + n).given(vec![base.clone()]).layers(&[30_000]).build());
        Self { registry, products, moving: moving.collect() }
    }
}

/// The registry under test, and what has to be in it.
struct Served {
    binary: Binary,
    addr: String,
    _server: Started,
}

impl Served {
    fn start() -> Self {
        let binary = Binary::new(AIRLOCK);
        let serve = ["registry", "serve", "--root", "store", "--plain-http", "--anonymous", "--listen", "127.0.0.1:0"];
        let mut server = binary.start(serve);
        let addr = server.until(|stderr| {
            let (_, rest) = stderr.split_once(" at http://")?;
            rest.split_once('\n').map(|(addr, _)| addr.to_owned())
        });
        Self { binary, addr, _server: server }
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.binary.run(arguments).expect_code(0).stdout).unwrap()
    }

    /// The status and the body of an answer.
    fn get(&self, path: &str) -> (u16, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), answer.split_off(end + 4))
    }

    /// That a name leads to an image all of which is there.
    #[track_caller]
    fn has(&self, repository: &str, tag: &str, image: &Built) {
        let what = format!("{repository}:{tag} {}", image.digest());
        let (status, body) = self.get(&format!("/v2/{repository}/manifests/{tag}"));
        assert_eq!((status, body == *image.manifest.bytes()), (200, true), "{what}");
        for manifest in image.all() {
            let (status, body) = self.get(&format!("/v2/{repository}/manifests/{}", manifest.digest()));
            assert_eq!((status, body == *manifest.manifest.bytes()), (200, true), "{what}: {}", manifest.digest());
        }
        for blob in image.all_blobs() {
            let (status, body) = self.get(&format!("/v2/{repository}/blobs/{}", blob.descriptor.digest));
            assert_eq!((status, body == blob.bytes), (200, true), "{what}: {}", blob.descriptor.digest);
        }
    }
}

#[test]
fn old_generations_go_while_others_come_and_images_are_pushed() {
    let seconds = std::env::var("AIRLOCK_REGISTRY_SOAK").map_or(SECONDS, |n| n.parse().unwrap());
    let (upstream, served) = (Upstream::new(), Served::start());
    let url = format!("docker://{}", upstream.registry.address());
    let (begun, stop) = (Instant::now(), AtomicBool::new(false));
    let (collections, retired, removed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    // Repository, tag and image of what was pushed: all of it stays.
    let pushed: Mutex<Vec<(String, String, &Built)>> = Mutex::default();
    let imports = std::thread::scope(|scope| {
        let (served, upstream, stop, pushed, url) = (&served, &upstream, &stop, &pushed, &url);
        let (collections, retired, removed) = (&collections, &retired, &removed);
        // Whatever ends first ends the others.
        struct Ends<'a>(&'a AtomicBool);
        impl Drop for Ends<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        scope.spawn(move || {
            let _ends = Ends(stop);
            while !stop.load(Ordering::Relaxed) {
                let done = served.json(&["registry", "gc", "--root", "store", "--keep", "1", "-o", "json"]);
                collections.fetch_add(1, Ordering::Relaxed);
                retired.fetch_add(done["generations"].as_array().unwrap().len() as u64, Ordering::Relaxed);
                removed.fetch_add(done["removedFiles"].as_u64().unwrap(), Ordering::Relaxed);
            }
        });
        scope.spawn(move || {
            let _ends = Ends(stop);
            for n in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let (product, tag) = (n % PRODUCTS, n / PRODUCTS % 2);
                let from = format!("{url}/demo/p{product}:{}", TAGS[tag]);
                // Below a name of its own, and below the name that imports have: there it may find everything.
                let (name, mine) = match n % 3 {
                    0 => (format!("own/p{product}"), format!("own-{}", TAGS[tag])),
                    _ => (format!("demo/p{product}"), format!("mine-{}", TAGS[tag])),
                };
                let to = format!("docker://{}/{name}:{mine}", served.addr);
                served.binary.run(["image", "copy", &from, &to, "--tls-verify=false"]).expect_code(0);
                let image = &upstream.products[product][tag];
                served.has(&name, &mine, image);
                let mut pushed = pushed.lock().unwrap();
                pushed.retain(|(other, tag, _)| (other, tag) != (&name, &mine));
                pushed.push((name, mine, image));
            }
        });
        let _ends = Ends(stop);
        let mut imports = 0_usize;
        let is_enough = |imports| {
            let [collections, retired] = [collections, retired].map(|count| count.load(Ordering::Relaxed));
            imports > 2 && collections > 2 && retired > 1 && !pushed.lock().unwrap().is_empty()
        };
        let goes_on = |imports| {
            let gone = begun.elapsed().as_secs();
            gone < seconds || (gone < seconds + MORE_SECONDS && !is_enough(imports))
        };
        while goes_on(imports) && !stop.load(Ordering::Relaxed) {
            let chosen = [imports, imports + 1, imports + 3].map(|n| n * 5 % PRODUCTS);
            let moving = &upstream.moving[imports % upstream.moving.len()];
            upstream.registry.put("demo/moving", moving, Some("latest"));
            let names = chosen.map(|n| format!("demo/p{n}"));
            let mut arguments = vec!["registry", "import", url, "--root", "store", "-o", "json", "--tls-verify=false"];
            arguments.extend(names.iter().flat_map(|name| ["--include", name]));
            arguments.extend(["--include", "demo/moving"]);
            let report = served.json(&arguments);
            assert_eq!(report["status"], "complete", "{report}");
            imports += 1;
            // It is the last complete one, and kept until the next one is.
            for _ in 0..2 {
                for n in chosen {
                    for (image, tag) in upstream.products[n].iter().zip(TAGS) {
                        served.has(&format!("demo/p{n}"), tag, image);
                    }
                }
                served.has("demo/moving", "latest", moving);
            }
            let all = pushed.lock().unwrap().clone();
            for (name, tag, image) in all {
                served.has(&name, &tag, image);
            }
        }
        imports
    });
    let pushed = pushed.into_inner().unwrap();
    let [collections, retired, removed] = [collections, retired, removed].map(AtomicU64::into_inner);
    println!(
        "{imports} imports, {} names pushed, {collections} collections, {retired} generations and {removed} files removed",
        pushed.len()
    );
    assert!(imports > 2 && !pushed.is_empty() && collections > 2 && retired > 1, "hardly anything was tried");
    served.json(&["registry", "gc", "--root", "store", "--keep", "1", "-o", "json"]);
    for (name, tag, image) in &pushed {
        served.has(name, tag, image);
    }
    assert_eq!(served.json(&["registry", "scrub", "--root", "store", "-o", "json"])["damage"], serde_json::json!([]));
}
