//! Load for a registry on this machine: as many requests as go, over kept connections; one line of JSON about them.
//!
//! ```text
//! load get  HOST:PORT PATH --conns N --secs S [--head] [--auth USER:PASSWORD] [--tls]
//! load push HOST:PORT REPOSITORY --size BYTES --count N --conns N [--auth USER:PASSWORD]
//! ```
//!
//! `push` sends COUNT different blobs, each with POST and PUT; their digests are made before the clock starts.
#![allow(clippy::print_stdout, reason = "its output is the result")]

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use airlock_oci::Digest;
use base64::Engine;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

/// Bytes read at once.
const PIECE: usize = 256 * 1024;

#[derive(Clone)]
struct Options {
    host: String,
    auth: String,
    tls: bool,
    conns: usize,
}

/// A connection of either kind.
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
}

struct Answer {
    status: u16,
    location: String,
    bytes: u64,
}

/// What the connections did, together.
#[derive(Default)]
struct Outcome {
    times: Vec<u32>,
    bytes: u64,
    bad: usize,
}

/// The certificate is made on the spot by the server under test; who it is, is not the question here.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

impl Connection {
    fn open(options: &Options) -> Result<Self> {
        let stream = TcpStream::connect(&options.host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let stream = if options.tls {
            let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(Error::other)?
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody))
                .with_no_client_auth();
            let name = ServerName::try_from("localhost").map_err(Error::other)?;
            let connection = ClientConnection::new(Arc::new(config), name).map_err(Error::other)?;
            Stream::Tls(Box::new(StreamOwned::new(connection, stream)))
        } else {
            Stream::Plain(stream)
        };
        Ok(Self { stream, buffer: vec![0; PIECE] })
    }

    fn ask(&mut self, head: &str, body: &[u8], is_head: bool) -> Result<Answer> {
        self.write(head.as_bytes())?;
        self.write(body)?;
        let (mut have, mut end) = (0, None);
        while end.is_none() {
            let from = have;
            have += self.read(from)?;
            let start = from.saturating_sub(3);
            end = self.buffer[start..have].windows(4).position(|w| w == b"\r\n\r\n").map(|at| start + at + 4);
            if end.is_none() && (have == from || have == PIECE) {
                return Err(Error::new(ErrorKind::UnexpectedEof, "no answer"));
            }
        }
        let end = end.unwrap_or(have);
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let field = |name: &str| {
            let found = text.lines().find_map(|l| l.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)));
            found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let length: u64 = if is_head { 0 } else { field("content-length").parse().unwrap_or(0) };
        let mut left = length.saturating_sub((have - end) as u64);
        while left > 0 {
            let read = self.read(0)?;
            if read == 0 {
                return Err(Error::new(ErrorKind::UnexpectedEof, "the answer was cut off"));
            }
            left = left.saturating_sub(read as u64);
        }
        Ok(Answer { status, location: field("location"), bytes: length })
    }

    fn read(&mut self, from: usize) -> Result<usize> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.read(&mut self.buffer[from..]),
            Stream::Tls(stream) => stream.read(&mut self.buffer[from..]),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.stream {
            Stream::Plain(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes),
        }
    }
}

fn head(options: &Options, method: &str, path: &str, length: usize) -> String {
    let body = if length > 0 || method != "GET" { format!("Content-Length: {length}\r\n") } else { String::new() };
    // As podman and skopeo ask.
    let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
    format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n{}{body}\r\n", options.host, options.auth)
}

fn get(options: &Options, path: &str, is_head: bool, time: Duration) -> Result<Outcome> {
    let request = head(options, if is_head { "HEAD" } else { "GET" }, path, 0);
    let request = if is_head { request.replace("Content-Length: 0\r\n", "") } else { request };
    let mut connection = Connection::open(options)?;
    let (mut outcome, start) = (Outcome::default(), Instant::now());
    while start.elapsed() < time {
        let begun = Instant::now();
        let answer = connection.ask(&request, b"", is_head)?;
        outcome.times.push(begun.elapsed().as_micros() as u32);
        outcome.bytes += answer.bytes;
        outcome.bad += usize::from(answer.status != 200);
    }
    Ok(outcome)
}

/// A blob that differs from every other one in its first bytes.
fn blob(pattern: &[u8], number: usize, run: u128) -> Vec<u8> {
    let mut bytes = pattern.to_vec();
    let mark = format!("{run:032x}{number:08x}");
    let len = mark.len().min(bytes.len());
    bytes[..len].copy_from_slice(&mark.as_bytes()[..len]);
    bytes
}

fn push(
    options: &Options,
    name: &str,
    pattern: &[u8],
    run: u128,
    digests: &[Digest],
    next: &AtomicUsize,
) -> Result<Outcome> {
    let mut connection = Connection::open(options)?;
    let mut outcome = Outcome::default();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some(digest) = digests.get(number) else { return Ok(outcome) };
        let bytes = blob(pattern, number, run);
        let begun = Instant::now();
        let path = format!("/v2/{name}/blobs/uploads/");
        let session = connection.ask(&head(options, "POST", &path, 0), b"", false)?;
        let location = session
            .location
            .split_once("://")
            .map_or(session.location.as_str(), |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
        let separator = if location.contains('?') { '&' } else { '?' };
        let path = format!("{location}{separator}digest={digest}");
        let answer = connection.ask(&head(options, "PUT", &path, bytes.len()), &bytes, false)?;
        outcome.times.push(begun.elapsed().as_micros() as u32);
        outcome.bytes += bytes.len() as u64;
        outcome.bad += usize::from(answer.status != 201);
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = || Error::other("usage: load get|push HOST:PORT PATH|REPOSITORY [options]; see the head of the source");
    let [verb, host, what, flags @ ..] = &arguments[..] else { return Err(usage()) };
    let value = |name: &str| flags.iter().position(|f| f == name).and_then(|at| flags.get(at + 1));
    let number = |name: &str, usual: usize| value(name).map_or(Ok(usual), |v| v.parse().map_err(|_| usage()));
    let auth = value("--auth").map_or(String::new(), |pair| {
        format!("Authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode(pair))
    });
    let tls = flags.iter().any(|f| f == "--tls");
    let options = Options { host: host.clone(), auth, tls, conns: number("--conns", 1)? };
    let time = Duration::from_secs(number("--secs", 5)? as u64);
    let is_head = flags.iter().any(|f| f == "--head");
    let (size, count) = (number("--size", 1 << 20)?, number("--count", 100)?);
    let run = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_err(Error::other)?.as_nanos();
    let pattern: Vec<u8> = if verb == "push" { (0..size).map(|i| (i * 31 % 251) as u8).collect() } else { Vec::new() };
    let digests: Vec<Digest> =
        if verb == "push" { (0..count).map(|i| Digest::of(&blob(&pattern, i, run))).collect() } else { Vec::new() };
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    let outcomes = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.conns)
            .map(|_| {
                scope.spawn(|| match verb.as_str() {
                    "get" => get(&options, what, is_head, time),
                    "push" => push(&options, what, &pattern, run, &digests, &next),
                    _ => Err(usage()),
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().map_err(|_| Error::other("a thread failed"))?).collect::<Result<Vec<_>>>()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let mut times: Vec<u32> = outcomes.iter().flat_map(|o| o.times.iter().copied()).collect();
    times.sort_unstable();
    let part = |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)));
    let line = serde_json::json!({
        "requests": times.len(),
        "bytes": outcomes.iter().map(|o| o.bytes).sum::<u64>(),
        "seconds": seconds,
        "bad": outcomes.iter().map(|o| o.bad).sum::<usize>(),
        "p50_us": part(0.5),
        "p99_us": part(0.99),
    });
    println!("{line}");
    Ok(())
}
