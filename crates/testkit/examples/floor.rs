//! The floor under every measurement: one thread and one connection that receive, hash and write bytes, or read, hash and
//! send them, and do nothing else. What a mirroring program uses beyond this is its own doing.
//!
//! ```text
//! floor pull HOST:PORT FILE    < lines "PATH DIGEST"          bodies go to FILE one after the other; DIGEST `-`: a look-up whose answer is 404
//! floor push HOST:PORT FILE    < lines "REPOSITORY DIGEST OFFSET LENGTH TYPE", pushes pieces of FILE; TYPE `-`: a blob, else a manifest
//! ```

use std::env;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Error, Read, Result, Seek, SeekFrom, Write};
use std::net::TcpStream;

use airlock_oci::{Algorithm, Hasher};

/// What is received, hashed and written at once, in bytes.
const PIECE: usize = 256 * 1024;
/// Manifests of these kinds are answered as they are.
const ACCEPT: &str = "Accept: */*\r\n\
    Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json\r\n\
    Accept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json\r\n";

/// A kept-alive connection to a plain HTTP server.
struct Connection {
    host: String,
    stream: BufReader<TcpStream>,
}

/// What the server said before the body.
struct Head {
    status: u16,
    length: u64,
    location: String,
}

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [verb, host, file] = arguments.as_slice() else {
        return Err(Error::other("usage: floor pull|push HOST:PORT FILE < LIST"));
    };
    let stream = TcpStream::connect(host)?;
    stream.set_nodelay(true)?;
    let mut connection = Connection { host: host.clone(), stream: BufReader::with_capacity(PIECE, stream) };
    let lines = io::stdin().lock().lines();
    match verb.as_str() {
        "pull" => {
            let mut file = File::create(file)?;
            for line in lines {
                connection.pull(&line?, &mut file)?;
            }
            file.sync_all()
        }
        "push" => {
            let mut file = File::open(file)?;
            for line in lines {
                connection.push(&line?, &mut file)?;
            }
            Ok(())
        }
        other => Err(Error::other(format!("unknown verb {other}"))),
    }
}

impl Connection {
    fn pull(&mut self, line: &str, file: &mut File) -> Result<()> {
        let [path, digest] = words(line)?;
        self.send(&format!("GET {path} HTTP/1.1"), 0)?;
        let head = self.head()?;
        if digest == "-" {
            expect(head.status, 404, line)?;
            return self.skip(head.length);
        }
        expect(head.status, 200, line)?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut piece = vec![0; PIECE];
        let mut left = head.length;
        while left > 0 {
            let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = self.stream.read(&mut piece[..most])?;
            if count == 0 {
                return Err(Error::other("the body ended early"));
            }
            hasher.update(&piece[..count]);
            file.write_all(&piece[..count])?;
            left -= count as u64;
        }
        same(&hasher.finish().to_string(), digest)
    }

    fn push(&mut self, line: &str, file: &mut File) -> Result<()> {
        let [repository, digest, offset, length, kind] = words(line)?;
        let number = |text: &str| text.parse::<u64>().map_err(Error::other);
        let length = number(length)?;
        if kind == "-" {
            self.send(&format!("POST /v2/{repository}/blobs/uploads/ HTTP/1.1"), 0)?;
            let head = self.head()?;
            expect(head.status, 202, line)?;
            self.skip(head.length)?;
            let path = head.location.strip_prefix(&format!("http://{}", self.host)).unwrap_or(&head.location);
            let between = if path.contains('?') { '&' } else { '?' };
            self.send(&format!("PUT {path}{between}digest={digest} HTTP/1.1"), length)?;
        } else {
            self.send(&format!("PUT /v2/{repository}/manifests/{digest} HTTP/1.1\r\nContent-Type: {kind}"), length)?;
        }
        file.seek(SeekFrom::Start(number(offset)?))?;
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut piece = vec![0; PIECE];
        let mut body = file.take(length);
        loop {
            let count = body.read(&mut piece)?;
            if count == 0 {
                break;
            }
            hasher.update(&piece[..count]);
            self.stream.get_mut().write_all(&piece[..count])?;
        }
        same(&hasher.finish().to_string(), digest)?;
        let head = self.head()?;
        expect(head.status, 201, line)?;
        self.skip(head.length)
    }

    fn send(&mut self, line: &str, length: u64) -> Result<()> {
        let head = format!("{line}\r\nHost: {}\r\n{ACCEPT}Content-Length: {length}\r\n\r\n", self.host);
        self.stream.get_mut().write_all(head.as_bytes())
    }

    fn head(&mut self) -> Result<Head> {
        let mut head = Head { status: 0, length: 0, location: String::new() };
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(Error::other("the server closed the connection"));
            }
            let line = line.trim_end();
            if line.is_empty() {
                return Ok(head);
            }
            match line.split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    head.length = value.parse().map_err(Error::other)?;
                }
                Some((name, value)) if name.eq_ignore_ascii_case("location") => value.clone_into(&mut head.location),
                Some(_) => {}
                None => head.status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0),
            }
        }
    }

    fn skip(&mut self, length: u64) -> Result<()> {
        io::copy(&mut self.stream.by_ref().take(length), &mut io::sink()).map(drop)
    }
}

fn words<const N: usize>(line: &str) -> Result<[&str; N]> {
    let words: Vec<_> = line.split_whitespace().collect();
    words.try_into().map_err(|_| Error::other(format!("not {N} words: {line}")))
}

fn expect(status: u16, wanted: u16, line: &str) -> Result<()> {
    if status == wanted { Ok(()) } else { Err(Error::other(format!("{line}: the server answered {status}"))) }
}

fn same(actual: &str, wanted: &str) -> Result<()> {
    if actual == wanted { Ok(()) } else { Err(Error::other(format!("got {actual} instead of {wanted}"))) }
}
