//! Promise: `airlock registry` serves a bucket, from several servers, with the commands that the book gives; what is wrong with the bucket
//! is said at the start.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

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
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let end = Instant::now() + Duration::from_secs(60);
    let mut stream = loop {
        match TcpStream::connect(addr) {
            Ok(stream) => break stream,
            Err(e) => assert!(Instant::now() < end, "{addr}: {e}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    write!(stream, "{line}\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
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
         for port in {one} {two}; do for i in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null && break; sleep 0.1; done; done\n\
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
