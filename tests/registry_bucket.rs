//! Promise: `airlock registry` serves a bucket, from several servers, with the commands that the book gives; what is wrong with the bucket
//! is said at the start.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use airlock_testkit::binary::Binary;
use airlock_testkit::fixture;
use airlock_testkit::scripted::Registry;

/// Something is missing or altered.
const DAMAGED: i32 = 4;

/// A program that is ended when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// moto as an object store with a bucket `mirror`; `None`, and said so, where it is not installed.
fn object_store(folder: &Path) -> Option<(Process, u16)> {
    let port = free_port();
    let started = Command::new("moto_server")
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = started else {
        assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "`moto_server` is required and not there");
        println!("skipped: `moto_server` is not installed");
        return None;
    };
    let process = Process(child);
    let answer = ask(port, "PUT /mirror HTTP/1.1");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Some((process, port))
}

/// One request without a body, as soon as somebody listens.
fn ask(port: u16, line: &str) -> String {
    send(port, line, b"")
}

fn send(port: u16, line: &str, body: &[u8]) -> String {
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let end = Instant::now() + Duration::from_secs(60);
    let mut stream = loop {
        match TcpStream::connect(addr) {
            Ok(stream) => break stream,
            Err(e) => assert!(Instant::now() < end, "{addr}: {e}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    write!(stream, "{line}\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn the_commands_of_the_book_serve_a_bucket() {
    let folder = tempfile::tempdir().unwrap();
    let Some((_store, store)) = object_store(folder.path()) else { return };
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/registry.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("```sh s3\n").unwrap();
    let mut commands = rest.split_once("```").unwrap().0.to_owned();
    let (one, two) = (free_port(), free_port());
    for (from, to) in [(9000, store), (5000, one), (5001, two)] {
        assert!(commands.contains(&format!("127.0.0.1:{from}")));
        commands = commands.replace(&format!("127.0.0.1:{from}"), &format!("127.0.0.1:{to}"));
    }
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_airlock"), bin.join("airlock")).unwrap();
    // What is pushed to one server is pulled from the other.
    let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let script = format!(
        "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{commands}\n\
         for port in {one} {two}; do for i in $(seq 1200); do (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null && break; sleep 0.1; done; done\n\
         ask() {{ exec 3<>/dev/tcp/127.0.0.1/$1; printf '%s HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n' \"$2\" >&3; head -1 <&3; }}\n\
         ask {one} 'POST /v2/a/blobs/uploads/?digest={empty}' | grep ' 201 '\n\
         ask {two} 'HEAD /v2/a/blobs/{empty}' | grep ' 200 '\n"
    );
    let output = Command::new("bash")
        .args(["-c", &script])
        .env_clear()
        .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
        .env("HOME", folder.path())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("serving s3://mirror/registry at http://127.0.0.1:"), "{said}");
    assert!(said.contains("would be removed"), "{said}");
    assert!(said.contains("read 0 files"), "{said}");
}

#[test]
fn damage_in_a_bucket_is_named_and_brought_back_from_the_archive() {
    let upstream = Registry::start();
    upstream.put("demo/web", &fixture::image(1).layers(&[10_000, 2_000_000]).build(), Some("1.0"));
    let mut binary = Binary::new(env!("CARGO_BIN_EXE_airlock"))
        .env("AWS_ACCESS_KEY_ID", "key")
        .env("AWS_SECRET_ACCESS_KEY", "secret");
    let folder = binary.folder();
    let Some((_store, port)) = object_store(&folder) else { return };
    let (conf, prefix) = (folder.join("registries.conf"), "registry.example.com");
    let text = format!("[[registry]]\nprefix = \"{prefix}\"\nlocation = \"{}\"\ninsecure = true\n", upstream.address());
    std::fs::write(&conf, text).unwrap();
    binary = binary.env("CONTAINERS_REGISTRIES_CONF", conf.display().to_string());
    let set = format!(
        "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  additionalImages:\n  - name: {prefix}/demo/web:1.0\n"
    );
    std::fs::write(folder.join("isc.yaml"), set).unwrap();
    binary.run(["mirror", "-c", "isc.yaml", "file://usb"]).expect_code(0);
    let endpoint = format!("http://127.0.0.1:{port}");
    let place = ["--s3", "s3://mirror/registry", "--s3-endpoint", &endpoint];
    let serve = ["registry", "serve", "--plain-http", "--anonymous", "push", "--listen", "127.0.0.1:0"];
    let mut server = binary.start([&serve[..], &place].concat());
    let addr = server.until(|stderr| {
        let (_, rest) = stderr.split_once(" at http://")?;
        rest.split_once('\n').map(|(addr, _)| addr.to_owned())
    });
    let target = format!("docker://{addr}/mirror");
    binary.run(["mirror", "-c", "isc.yaml", "--from", "file://usb", &target, "--dest-tls-verify=false"]).expect_code(0);
    let json = |verb: &str, more: &[&str], code: i32| -> serde_json::Value {
        let outcome = binary.run([&["registry", verb, "-o", "json"][..], &place, more].concat()).expect_code(code);
        serde_json::from_str(&outcome.stdout).unwrap()
    };
    let clean = json("scrub", &[], 0);
    assert_eq!(clean["damage"], serde_json::json!([]));
    assert!(clean["files"].as_u64() >= Some(4) && clean["bytes"].as_u64() > Some(2_000_000), "{clean}");
    let image = format!("docker://{addr}/mirror/demo/web:1.0");
    let outcome = binary.run(["image", "inspect", &image, "--raw", "--tls-verify=false"]).expect_code(0);
    let manifest: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    let largest = layers.iter().max_by_key(|layer| layer["size"].as_u64()).unwrap();
    let digest = largest["digest"].as_str().unwrap();
    let hex = digest.trim_start_matches("sha256:");
    let key = format!("/mirror/registry/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
    // What is there is changed by nobody without a name; whose it is does not matter to this store.
    let name = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    let written = send(
        port,
        &format!("PUT {key} HTTP/1.1\r\nAuthorization: {name}"),
        &vec![7; largest["size"].as_u64().unwrap() as usize],
    );
    assert!(written.starts_with("HTTP/1.1 200"), "{written}");
    let scrubbed = json("scrub", &["--rate", "100"], DAMAGED);
    let damage = &scrubbed["damage"];
    assert_eq!(
        (&damage[0]["digest"], &damage[0]["fault"], &damage[1]),
        (&digest.into(), &"altered".into(), &().into())
    );
    assert!(damage[0]["images"][0].as_str().unwrap().contains("mirror/demo/web@sha256:"), "{scrubbed}");
    let blob = format!("HEAD /v2/mirror/demo/web/blobs/{digest} HTTP/1.1");
    let served = addr.rsplit_once(':').unwrap().1.parse().unwrap();
    assert!(ask(served, &blob).starts_with("HTTP/1.1 404"), "what is damaged is served no more");
    let outcome = binary.run([&["registry", "scrub"][..], &place].concat()).expect_code(DAMAGED);
    assert!(outcome.stdout.contains("missing") && outcome.stderr.contains("airlock registry repair"), "{outcome:?}");
    let repaired = json("repair", &["--from", "file://usb", "--quick"], 0);
    assert_eq!(repaired, serde_json::json!({ "restored": [digest], "left": [] }));
    assert!(ask(served, &blob).starts_with("HTTP/1.1 200"));
    let outcome = binary.run([&["registry", "repair", "--from", "usb"][..], &place].concat()).expect_code(0);
    assert!(outcome.stdout.contains("nothing is damaged or missing"), "{}", outcome.stdout);
    binary.run([&["registry", "scrub", "--root", "x"][..], &place].concat()).expect_code(2);
    binary.run(["registry", "repair", "--from", "usb"]).expect_code(2);
}

#[test]
fn what_is_wrong_with_the_bucket_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let run = |more: &[&str], env: &[(&str, &str)]| {
        let output = Command::new(env!("CARGO_BIN_EXE_airlock"))
            .args(["registry", "serve", "--plain-http", "--anonymous", "pull", "--listen", "127.0.0.1:0"])
            .args(more)
            .env_clear()
            .env("HOME", folder.path())
            .envs(env.iter().copied())
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = run(&["--s3", "mirror/place"], &[]);
    assert!(code == Some(2) && said.contains("s3://BUCKET/PREFIX"), "{said}");
    let endpoint = format!("http://127.0.0.1:{port}");
    let keys = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s3cr3t")];
    let (code, said) = run(&["--s3", "s3://mirror", "--s3-endpoint", &endpoint], &keys);
    assert!(code != Some(0) && said.contains("cannot be reached") && said.contains("--s3-endpoint"), "{said}");
    assert!(!said.contains("s3cr3t"), "{said}");
    // Nobody gives this machine credentials: the address at which clouds do is asked in vain.
    let metadata = [("AWS_METADATA_ENDPOINT", endpoint.as_str())];
    let (code, said) = run(&["--s3", "s3://mirror", "--s3-endpoint", &endpoint], &metadata);
    assert!(code != Some(0) && said.contains("AWS_ACCESS_KEY_ID"), "{said}");
    let (code, said) = run(&["--s3", "s3://mirror", "--root", "x"], &[]);
    assert!(code == Some(2) && said.contains("cannot be used with"), "{said}");
}
