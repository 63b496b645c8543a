//! HTTP/1.1 by hand: a test must be able to break every part of it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Most bytes of a request's head.
const MAX_HEAD_BYTES: u64 = 64 * 1024;

/// How long the other side may take to take in what was sent before its connection is broken.
const DELIVERY: Duration = Duration::from_secs(60);

/// Plain or TLS.
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ServerConnection, TcpStream>>),
}

/// A request's head.
pub(crate) struct Head {
    pub(crate) method: String,
    /// Path and query, as sent.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// An answer, before faults are applied.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
    /// The body belongs to a GET of the same; HEAD sends only its length.
    pub(crate) length: Option<u64>,
}

impl Wire {
    pub(crate) fn accept(stream: TcpStream, tls: Option<&Arc<rustls::ServerConfig>>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let Some(config) = tls else { return Ok(Self::Plain(stream)) };
        let connection = rustls::ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        Ok(Self::Tls(Box::new(rustls::StreamOwned::new(connection, stream))))
    }

    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref(),
        }
    }

    /// Says that nothing more comes from here, while the other side may still send.
    pub(crate) fn finish(&self) {
        let _ = self.socket().shutdown(std::net::Shutdown::Write);
    }

    /// Waits until the other side's system has all that was sent: an RST throws away what is still on its way, and the other side would see
    /// fewer bytes than the test says.
    pub(crate) fn delivered(&self) {
        let socket = self.socket();
        let (Ok(local), Ok(peer)) = (socket.local_addr(), socket.peer_addr()) else { return };
        let end = Instant::now() + DELIVERY;
        while on_its_way(local, peer) > 0 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Makes the end of the connection an RST instead of a FIN, as from a crashed peer or a firewall.
    pub(crate) fn abort(&self) {
        let _ = socket2::SockRef::from(self.socket()).set_linger(Some(Duration::ZERO));
    }
}

/// Bytes of a connection between loopback addresses that were sent and not acknowledged, from the kernel's table of connections; none of one
/// that is not there any more.
fn on_its_way(local: SocketAddr, peer: SocketAddr) -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("the table of connections");
    let (local, peer) = (in_table(local), in_table(peer));
    let line = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    // Number, both addresses, state, queues.
    let queues = line
        .filter(|l| l.get(1) == Some(&local.as_str()) && l.get(2) == Some(&peer.as_str()))
        .find_map(|l| l.get(4).copied());
    let sending = queues.and_then(|queues| queues.split_once(':'));
    sending.map_or(0, |(sending, _)| u64::from_str_radix(sending, 16).expect("a number in hexadecimal"))
}

/// An address as that table has it: the bytes as this machine keeps numbers.
fn in_table(addr: SocketAddr) -> String {
    let SocketAddr::V4(addr) = addr else { panic!("{addr} is no address of this registry") };
    format!("{:08X}:{:04X}", u32::from_ne_bytes(addr.ip().octets()), addr.port())
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Head {
    /// Reads a head; `None` when the peer closed between requests.
    pub(crate) fn read(wire: &mut BufReader<Wire>) -> io::Result<Option<Self>> {
        let mut lines = Vec::new();
        let mut limited = wire.by_ref().take(MAX_HEAD_BYTES);
        loop {
            let mut line = Vec::new();
            if limited.read_until(b'\n', &mut line)? == 0 {
                return Ok(None);
            }
            let Ok(line) = String::from_utf8(line) else {
                // A TLS handshake, most likely; web servers answer it so.
                let wire = wire.get_mut();
                wire.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")?;
                return Ok(None);
            };
            let line = line.trim_end_matches(['\r', '\n']);
            if line.is_empty() {
                if lines.is_empty() {
                    continue;
                }
                break;
            }
            lines.push(line.to_owned());
        }
        let mut first = lines[0].split(' ');
        let (Some(method), Some(target)) = (first.next(), first.next()) else {
            return Err(io::Error::other("no request line"));
        };
        let (method, target) = (method.to_owned(), target.to_owned());
        let headers = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Some(Self { method, target, headers }))
    }

    /// A header's first value, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Hands the body of a request on, piece by piece, until `take` says stop. `Ok(false)`: stopped.
pub(crate) fn read_body(
    wire: &mut BufReader<Wire>,
    head: &Head,
    mut take: impl FnMut(&[u8]) -> bool,
) -> io::Result<bool> {
    if head.header("expect").is_some_and(|e| e.eq_ignore_ascii_case("100-continue")) {
        wire.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if head.header("transfer-encoding").is_some_and(|e| e.eq_ignore_ascii_case("chunked")) {
        loop {
            let mut line = String::new();
            wire.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16)
                .map_err(|_| io::Error::other("no chunk size"))?;
            if !exact(wire, size, &mut take)? {
                return Ok(false);
            }
            wire.read_line(&mut String::new())?;
            if size == 0 {
                return Ok(true);
            }
        }
    }
    let length = head.header("content-length").and_then(|l| l.parse().ok()).unwrap_or(0);
    exact(wire, length, &mut take)
}

fn exact(wire: &mut BufReader<Wire>, mut left: u64, take: &mut impl FnMut(&[u8]) -> bool) -> io::Result<bool> {
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let got = wire.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= got as u64;
        if !take(&buffer[..got]) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new(), length: None }
    }

    /// The distribution specification's error body.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Self {
        let body = serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string();
        Self::new(status).with("Content-Type", "application/json").body(body)
    }

    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The bytes before the body.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.status != 204 {
            text.push_str(&format!("Content-Length: {}\r\n", self.length.unwrap_or(self.body.len() as u64)));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 | 302 | 307 | 308 => "Redirect",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        _ => "Status",
    }
}

/// Whether `text` is of the form `pattern`, in which `*` stands for anything.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_taken_yet_is_on_its_way() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sending = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut taking, _) = listener.accept().unwrap();
        let (local, peer) = (sending.local_addr().unwrap(), sending.peer_addr().unwrap());
        assert_eq!(on_its_way(local, peer), 0);
        // More than both systems hold for somebody who does not read.
        sending.set_nonblocking(true).unwrap();
        let mut sent = 0;
        while let Ok(more) = sending.write(&vec![0; 64 * 1024]) {
            sent += more;
        }
        assert!(on_its_way(local, peer) > 0);
        let mut taken = vec![0; sent];
        taking.read_exact(&mut taken).unwrap();
        let wire = Wire::Plain(sending);
        wire.delivered();
        assert_eq!(on_its_way(local, peer), 0);
    }

    #[test]
    fn patterns_have_stars() {
        assert!(matches("/v2/*/blobs/*", "/v2/a/b/blobs/sha256:1"));
        assert!(matches("/v2/", "/v2/"));
        assert!(matches("*", "/x"));
        assert!(!matches("/v2/*/blobs/*", "/v2/a/manifests/v1"));
        assert!(!matches("/v2/", "/v2/a"));
        assert!(!matches("*/tags/list", "/v2/a/tags/list?n=1"));
    }
}
