//! Small images made in code, and the real tools that judge what we write.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "each test program uses its own part; this is test code"
)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use airlock_oci::{BlobStream, Content, Descriptor, Digest, Error, Manifest, Repository, Sink, Tag, media_type};
use bytes::Bytes;

/// An image: its manifest and the bytes that it names.
pub(crate) struct Image {
    pub(crate) manifest: Manifest,
    pub(crate) blobs: Vec<(Descriptor, Bytes)>,
}

/// Bytes as a sink's content.
pub(crate) struct InMemory(pub(crate) Bytes);

#[async_trait::async_trait]
impl Content for InMemory {
    async fn open(&self, offset: u64) -> Result<BlobStream, Error> {
        let rest = self.0.slice(offset as usize..);
        let chunks: Vec<_> = rest.chunks(100_000).map(|c| Ok(rest.slice_ref(c))).collect();
        Ok(Box::pin(futures_util::stream::iter(chunks)))
    }
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64)
}

/// A gzipped tar with one file, made by hand (stored, not compressed), so that tools which unpack layers can.
fn layer(seed: u8, len: usize) -> Bytes {
    let mut header = [0_u8; 512];
    header[..4].copy_from_slice(b"file");
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{len:011o}").as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut tar = header.to_vec();
    tar.extend((0..len).map(|i| seed ^ (i * 7 % 251) as u8));
    tar.resize(tar.len().next_multiple_of(512) + 1024, 0);
    Bytes::from(tar)
}

/// A small image of one uncompressed layer.
pub(crate) fn image(seed: u8, len: usize) -> Image {
    image_with(seed, len, "")
}

/// A small image with more JSON fields in its manifest (`,"subject":…`).
pub(crate) fn image_with(seed: u8, len: usize, fields: &str) -> Image {
    let layer = layer(seed, len);
    let config = Bytes::from(format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(&layer)
    ));
    let blobs = vec![
        (descriptor(media_type::OCI_CONFIG, &config), config),
        (descriptor("application/vnd.oci.image.layer.v1.tar", &layer), layer),
    ];
    let json = |d: &Descriptor| serde_json::to_string(d).unwrap();
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]{fields}}}"#,
        media_type::OCI_MANIFEST,
        json(&blobs[0].0),
        json(&blobs[1].0)
    );
    Image { manifest: Manifest::parse(Bytes::from(text), None).unwrap(), blobs }
}

/// An index of images.
pub(crate) fn index(children: &[&Image]) -> Manifest {
    let entries: Vec<String> = children
        .iter()
        .enumerate()
        .map(|(i, child)| {
            let d = child.manifest.descriptor();
            format!(
                r#"{{"mediaType":"{}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{}"}}}}"#,
                d.media_type,
                d.digest,
                d.size,
                ["amd64", "arm64"][i % 2]
            )
        })
        .collect();
    let text =
        format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#, media_type::OCI_INDEX, entries.join(","));
    Manifest::parse(Bytes::from(text), None).unwrap()
}

/// Writes an image as the transfer engine would.
pub(crate) async fn put(sink: &dyn Sink, repository: &Repository, image: &Image, tag: Option<&Tag>) {
    for (blob, bytes) in &image.blobs {
        sink.write_blob(repository, blob, &InMemory(bytes.clone())).await.unwrap();
    }
    sink.put_manifest(repository, &image.manifest, tag).await.unwrap();
}

pub(crate) fn repository(name: &str) -> Repository {
    Repository::new(name).unwrap()
}

pub(crate) fn tag(name: &str) -> Tag {
    Tag::new(name).unwrap()
}

/// Whether a tool is there; prints that the test is skipped when it is not, and fails when the tools are required.
pub(crate) fn have(tool: &str) -> bool {
    let there = Command::new("sh").args(["-c", &format!("command -v {tool}")]).stdout(Stdio::null()).status();
    if there.is_ok_and(|s| s.success()) {
        return true;
    }
    assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "`{tool}` is required and not there");
    println!("skipped: `{tool}` is not installed");
    false
}

/// A command's output; panics with everything it said when it fails.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Debian's docker-registry on a directory; ended when dropped.
pub(crate) struct DockerRegistry {
    child: Child,
    pub(crate) address: String,
    _config: tempfile::TempDir,
}

impl DockerRegistry {
    pub(crate) fn start(root: &Path) -> Self {
        let config = tempfile::tempdir().unwrap();
        let path = config.path().join("config.yml");
        let end = Instant::now() + Duration::from_secs(120);
        // Until it gets the port that was free a moment before.
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let address = format!("127.0.0.1:{port}");
            let text = format!(
                "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: true}}\nhttp: {{addr: '{address}'}}\n",
                root.display()
            );
            std::fs::write(&path, text).unwrap();
            let mut child = Command::new("docker-registry")
                .args(["serve", path.to_str().unwrap()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while child.try_wait().unwrap().is_none() {
                if std::net::TcpStream::connect(&address).is_ok() {
                    return Self { child, address, _config: config };
                }
                if Instant::now() > end {
                    let _ = child.kill();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(Instant::now() < end, "docker-registry does not start");
        }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
