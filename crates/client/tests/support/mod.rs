//! What the client's tests share: options that wait for nothing, content in memory, and a listener for notices.
#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use airlock_client::{Client, Notice, Options, RegistriesConf, RegistrySink, RegistrySource, Timeouts};
use airlock_oci::{BlobStream, Content, Descriptor, Error, Repository};
use airlock_testkit::fixture::{Blob, Built};
use airlock_testkit::scripted::Registry;
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;

/// Content in memory, handed out in pieces.
pub struct Memory {
    bytes: Bytes,
    piece: usize,
    proved: bool,
    /// Offsets at which it was opened.
    pub opened: Mutex<Vec<u64>>,
}

impl Memory {
    pub fn new(bytes: Bytes, piece: usize) -> Self {
        Self { bytes, piece, proved: false, opened: Mutex::default() }
    }

    /// The same, said to have been read and found right already.
    pub fn proved(self) -> Self {
        Self { proved: true, ..self }
    }

    pub fn of(blob: &Blob) -> Self {
        Self::new(blob.bytes.clone(), 64 * 1024)
    }
}

#[async_trait]
impl Content for Memory {
    fn is_proved(&self) -> bool {
        self.proved
    }

    async fn open(&self, offset: u64) -> Result<BlobStream, Error> {
        self.opened.lock().unwrap().push(offset);
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

/// Stands before a server and cuts connections: number `n` after `cuts[n]` bytes from the client, later ones never.
pub struct Cutter {
    pub address: String,
}

impl Cutter {
    pub fn before(server: &str, cuts: Vec<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = server.to_owned();
        // Ends with the test's process.
        std::thread::spawn(move || {
            let mut cuts = cuts.into_iter();
            for client in listener.incoming() {
                let Ok(client) = client else { return };
                join(client, &server, cuts.next().unwrap_or(usize::MAX));
            }
        });
        Self { address }
    }
}

/// Joins a client with a server, for `cut` bytes from the client.
pub fn join(client: TcpStream, server: &str, cut: usize) {
    let Ok(up) = TcpStream::connect(server) else { return };
    let (back, down) = (up.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || pump(client, up, cut));
    std::thread::spawn(move || pump(back, down, usize::MAX));
}

fn pump(mut from: TcpStream, mut to: TcpStream, mut left: usize) {
    let mut buffer = [0; 16 * 1024];
    while left > 0 {
        let Ok(got @ 1..) = from.read(&mut buffer) else { break };
        let got = got.min(left);
        left -= got;
        if to.write_all(&buffer[..got]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// Options that touch nothing of this machine's configuration and do not wait long.
pub fn options() -> Options {
    Options {
        registries_conf: RegistriesConf::Ignore,
        certs_d: Some(Vec::new()),
        anonymous: true,
        tls_verify: false,
        retry_times: 3,
        retry_delay: Duration::from_millis(10),
        timeouts: Timeouts {
            connect: Duration::from_secs(60),
            first_byte: Duration::from_secs(60),
            stall: Duration::from_secs(30),
        },
        ..Options::default()
    }
}

/// What a client told, in its own words.
#[derive(Clone, Default)]
pub struct Told(Arc<Mutex<Vec<Notice>>>);

impl Told {
    pub fn listen(&self, mut options: Options) -> Options {
        let told = self.clone();
        options.notices = Some(Arc::new(move |notice| told.0.lock().unwrap().push(notice)));
        options
    }

    pub fn all(&self) -> Vec<Notice> {
        self.0.lock().unwrap().clone()
    }

    /// Whether any notice contains this text.
    pub fn says(&self, text: &str) -> bool {
        self.all().iter().any(|n| n.to_string().contains(text))
    }
}

pub fn client() -> Client {
    Client::new(options()).unwrap()
}

pub fn source() -> RegistrySource {
    RegistrySource::new(client())
}

pub fn sink(registry: &Registry) -> RegistrySink {
    RegistrySink::new(client(), registry.registry(), None).unwrap()
}

pub fn repo(name: &str) -> Repository {
    Repository::new(name).unwrap()
}

/// The layers of an image.
pub fn layers(built: &Built) -> &[Blob] {
    &built.blobs[1..]
}

/// A descriptor of bytes that are not what it says.
pub fn lying(blob: &Blob, size: u64) -> Descriptor {
    Descriptor { size, ..blob.descriptor.clone() }
}
