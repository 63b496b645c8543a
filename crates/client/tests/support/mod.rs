//! What the client's tests share: a real docker-registry, content in memory, short time-outs.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use airlock_client::{Options, RegistriesConf, Timeouts};
use airlock_oci::{BlobStream, Content, Error, Registry};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;

/// Content in memory, handed out in pieces.
pub struct Memory {
    bytes: Bytes,
    piece: usize,
}

impl Memory {
    pub fn new(bytes: Bytes, piece: usize) -> Self {
        Self { bytes, piece }
    }
}

#[async_trait]
impl Content for Memory {
    async fn open(&self, offset: u64) -> Result<BlobStream, Error> {
        let rest = self.bytes.slice(offset as usize..);
        let piece = self.piece;
        let pieces: Vec<Result<Bytes, Error>> =
            (0..rest.len()).step_by(piece).map(|at| Ok(rest.slice(at..rest.len().min(at + piece)))).collect();
        Ok(futures_util::stream::iter(pieces).boxed())
    }
}

/// Reads a stream to its end.
pub async fn read(mut stream: BlobStream) -> Result<Bytes, Error> {
    let mut all = Vec::new();
    while let Some(bytes) = stream.next().await {
        all.extend_from_slice(&bytes?);
    }
    Ok(all.into())
}

/// Options that touch nothing of this machine's configuration and do not wait long.
pub fn options() -> Options {
    Options {
        registries_conf: RegistriesConf::Ignore,
        certs_d: Some(Vec::new()),
        anonymous: true,
        retry_times: 3,
        retry_delay: Duration::from_millis(10),
        timeouts: Timeouts {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(5),
            stall: Duration::from_secs(2),
        },
        ..Options::default()
    }
}

/// A running docker-registry; ends with the value.
pub struct DockerRegistry {
    child: Child,
    port: u16,
    pub dir: tempfile::TempDir,
}

impl DockerRegistry {
    pub fn name(&self) -> Registry {
        Registry::new(&format!("localhost:{}", self.port)).unwrap()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts docker-registry with more lines of configuration, or says why not.
pub fn docker_registry(more: &str) -> Option<DockerRegistry> {
    docker_registry_in(tempfile::tempdir().unwrap(), "", more)
}

/// The same in a directory that was prepared; `http` are more lines of its `http` section.
pub fn docker_registry_in(dir: tempfile::TempDir, http: &str, more: &str) -> Option<DockerRegistry> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {root}}}\n  delete: {{enabled: true}}\n\
         http:\n  addr: 127.0.0.1:{port}\n{http}\n{more}\n",
        root = dir.path().join("data").display()
    );
    let path = dir.path().join("config.yml");
    std::fs::File::create(&path).unwrap().write_all(config.as_bytes()).unwrap();
    let started = Command::new("docker-registry")
        .arg("serve")
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let child = match started {
        Ok(child) => child,
        Err(e) => {
            assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "docker-registry is required: {e}");
            println!("skipped: docker-registry cannot be started: {e}");
            return None;
        }
    };
    let registry = DockerRegistry { child, port, dir };
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(registry);
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("docker-registry does not listen on port {port}");
}
