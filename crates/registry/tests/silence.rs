//! Connections that ask for nothing: they end, and they keep nobody else out.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test ends where it fails")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use support::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Set for the process that serves with few open files.
const SERVE: &str = "AIRLOCK_TEST_SERVE_UNTIL_STDIN_CLOSES";
/// An HTTP/2 client's first words: preface and empty settings.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// How long the server keeps a connection on which this is all that is said.
async fn kept(mut stream: impl AsyncRead + AsyncWrite + Unpin, said: &[u8]) -> Duration {
    let begun = Instant::now();
    stream.write_all(said).await.unwrap();
    let mut heard = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut heard)).await;
    assert!(ended.is_ok(), "{:?} is never closed", said.escape_ascii().to_string());
    begun.elapsed()
}

async fn secure(registry: &Registry, protocols: &[&[u8]]) -> impl AsyncRead + AsyncWrite + Unpin + use<> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(registry.ca_pem().as_bytes()).unwrap()).unwrap();
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let stream = TcpStream::connect(registry.addr).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_connects_and_asks_for_nothing_is_shown_out() {
    let plain = Registry::start().await;
    let tls = Registry::on(Face::TlsWithPassword).await;
    let connect = async || TcpStream::connect(plain.addr).await.unwrap();
    let times = tokio::join!(
        kept(connect().await, b""),
        kept(connect().await, b"PRI * HT"),
        kept(connect().await, HTTP2),
        kept(connect().await, b"GET /v2/ HTTP/1.1\r\nHost: x\r\n"),
        kept(TcpStream::connect(tls.addr).await.unwrap(), b""),
        kept(secure(&tls, &[]).await, b""),
        kept(secure(&tls, &[b"h2"]).await, b""),
        kept(secure(&tls, &[b"h2"]).await, HTTP2),
    );
    let times = [times.0, times.1, times.2, times.3, times.4, times.5, times.6, times.7];
    assert!(times.iter().all(|time| (8..20).contains(&time.as_secs())), "{times:?}");
    assert_eq!(plain.get("/v2/").await.status(), 200);
}

/// Not a test of its own: the registry of the next one, in a process with few open files.
#[tokio::test(flavor = "multi_thread")]
async fn serve_until_stdin_closes() {
    if std::env::var_os(SERVE).is_none() {
        return;
    }
    let registry = Registry::start().await;
    println!("\nserving {}", registry.addr);
    let wait = || std::io::stdin().read_line(&mut String::new());
    tokio::task::spawn_blocking(wait).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_house_full_of_silent_clients_has_room_for_others() {
    let mut server = Command::new("sh")
        .args(["-c", "ulimit -n 60; exec \"$0\" --exact serve_until_stdin_closes --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .env(SERVE, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let mut lines = lines.map(|line| line.unwrap());
    let addr = lines.find_map(|line| line.strip_prefix("serving ").map(str::to_owned)).unwrap();
    let mut silent = Vec::new();
    for _ in 0..25 {
        silent.push(TcpStream::connect(&addr).await.unwrap());
    }
    let client = client();
    for _ in 0..3 {
        let begun = Instant::now();
        let answer = client.get(format!("http://{addr}/v2/")).timeout(Duration::from_secs(8)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(begun.elapsed() < Duration::from_secs(8), "before the silent would have gone by themselves");
    }
    server.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(server.wait().unwrap().success());
}
