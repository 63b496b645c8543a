//! What the tests of this crate share: graphs from files, and a small web server that answers as a test wants.
#![allow(dead_code, clippy::unwrap_used, reason = "each test uses a part of it; a test fails by unwrapping")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use airlock_client::{Client, RegistriesConf};
use airlock_updates::{Architecture, Channel, ChannelName, GraphClient, Kept, Options, Query, Service};

/// The answers in a folder of `<channel>.json`, for one architecture.
pub(crate) fn kept(folder: &Path) -> Kept {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let channel = path.file_stem().unwrap().to_str().unwrap();
        files.insert(query(channel).file_name(), std::fs::read(&path).unwrap().into());
    }
    Kept::new("the vectors", files)
}

/// Answers from texts by channel, for amd64.
pub(crate) fn texts(channels: &[(&str, &str)]) -> Kept {
    let files = channels.iter().map(|(channel, text)| (query(channel).file_name(), text.to_string().into())).collect();
    Kept::new("the test", files)
}

pub(crate) fn query(channel: &str) -> Query {
    Query { service: Service::Ocp, architecture: Architecture::Amd64, channel: ChannelName::new(channel).unwrap() }
}

/// A channel of a configuration; empty texts are left out.
pub(crate) fn channel(name: &str, min: &str, max: &str) -> Channel {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Channel { name: name.into(), line: 7, min: text(min), max: text(max), ..Channel::default() }
}

/// A graph as JSON: versions, edges as `from>to`, conditional ones as `from?to`.
pub(crate) fn graph(versions: &str, edges: &str) -> String {
    let versions: Vec<&str> = versions.split_whitespace().collect();
    let at = |version: &str| versions.iter().position(|v| *v == version).unwrap();
    let nodes: Vec<serde_json::Value> = versions
        .iter()
        .map(|v| serde_json::json!({"version": v, "payload": format!("quay.io/openshift-release-dev/ocp-release:{v}")}))
        .collect();
    let (mut plain, mut conditional) = (Vec::new(), Vec::new());
    for edge in edges.split_whitespace() {
        if let Some((from, to)) = edge.split_once('>') {
            plain.push(vec![at(from), at(to)]);
        } else {
            let (from, to) = edge.split_once('?').unwrap();
            conditional.push(serde_json::json!({
                "edges": [{"from": from, "to": to}],
                "risks": [{"url": "https://example.com", "name": format!("Risk{}", to.replace('.', "_")), "message": "m",
                           "matchingRules": [{"type": "Always"}]}]
            }));
        }
    }
    serde_json::json!({"nodes": nodes, "edges": plain, "conditionalEdges": conditional}).to_string()
}

/// What a request was answered with.
pub(crate) enum Reply {
    Status(u16, &'static str, Vec<u8>),
    /// Half of the body, then the connection breaks.
    Cut(Vec<u8>),
    /// Nothing, ever.
    Silence,
}

/// A web server on a port of its own. It ends with the test process.
pub(crate) struct Server {
    pub(crate) url: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `answer` gets the number of the request, counted from 1, and its path with the query.
    pub(crate) fn start(answer: impl Fn(usize, &str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, answer) = (Arc::clone(&log), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (Arc::clone(&kept), Arc::clone(&answer));
                std::thread::spawn(move || {
                    // A client that has gone is no failure of the server.
                    let _ = stream.and_then(|stream| serve(stream, &log, answer.as_ref()));
                });
            }
        });
        Self { url, log }
    }

    /// Head of every request so far.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<String>>,
    answer: &dyn Fn(usize, &str) -> Reply,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while reader.read_line(&mut head)? > 2 {}
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let number = {
        let mut log = log.lock().unwrap();
        log.push(head);
        log.len()
    };
    match answer(number, &path) {
        Reply::Status(status, kind, body) => {
            write!(
                stream,
                "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            )?;
            stream.write_all(&body)?;
        }
        Reply::Cut(body) => {
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
            stream.write_all(&body[..body.len() / 2])?;
        }
        Reply::Silence => std::thread::sleep(std::time::Duration::from_secs(3600)),
    }
    stream.flush()
}

/// A client that depends on nothing of this machine.
pub(crate) fn client(retry_times: u32) -> Client {
    Client::new(airlock_client::Options {
        registries_conf: RegistriesConf::Ignore,
        certs_d: Some(Vec::new()),
        retry_times,
        retry_delay: std::time::Duration::from_millis(10),
        ..airlock_client::Options::default()
    })
    .unwrap()
}

/// A client of an update service at this address.
pub(crate) fn graph_client(url: &str) -> GraphClient {
    GraphClient::new(client(2), &Options { url: Some(url.into()), ..Options::default() }).unwrap()
}
