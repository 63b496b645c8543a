//! A Kubernetes API that answers from files: what a cluster said once, said again.
//!
//! `GET /api/v1/pods` is answered with `api/v1/pods.json` of the folder; a list is cut into the pages that are asked for. What is
//! sent is written down, and a merge patch changes the file's object, so that it is there when it is asked for again. TLS
//! with an authority of its own and a token, as a real one.

use std::fs;
use std::io::{self, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::scripted::http::{Answer, Head, Wire, read_body};
use crate::scripted::tls;

/// The token that is let in.
const TOKEN: &str = "sha256~recorded";

/// A running API; ends when dropped.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    port: u16,
    authority: String,
    acceptor: Option<JoinHandle<()>>,
}

/// One request as it was received.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET`, `PATCH`, …
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Without `?`; empty when there is none.
    pub query: String,
    /// Of a change: which kind of patch.
    pub content_type: String,
    /// What was sent; `null` where that is nothing, or no JSON.
    pub body: Value,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    log: Mutex<Vec<Asked>>,
    refusals: Mutex<Vec<(String, u16, String)>>,
    stop: AtomicBool,
}

impl ApiServer {
    /// Answers from the files below a folder.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn start(folder: impl Into<PathBuf>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (certificates, config) = tls::make(tls::Shown::Valid, false);
        let shared = Arc::new(Shared {
            folder: folder.into(),
            log: Mutex::default(),
            refusals: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming() {
                    if shared.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let (shared, config) = (Arc::clone(&shared), Arc::clone(&config));
                    // A broken connection is the other side's to report.
                    std::thread::spawn(move || drop(shared.connection(stream, &config)));
                }
            }
        });
        Self { shared, port, authority: certificates.ca, acceptor: Some(acceptor) }
    }

    /// Writes what the API answers to a GET of a path.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn record(&self, path: &str, answer: &Value) {
        let file = self.shared.file(path);
        fs::create_dir_all(file.parent().expect("a folder")).expect("make a folder");
        fs::write(file, answer.to_string()).expect("record an answer");
    }

    /// What is answered to a GET of a path now.
    pub fn recorded(&self, path: &str) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.shared.file(path)).ok()?).ok()
    }

    /// Every request for the path is refused with this status and message.
    pub fn refuse(&self, path: &str, status: u16, message: &str) {
        lock(&self.shared.refusals).push((path.to_owned(), status, message.to_owned()));
    }

    /// A kubeconfig for it, with the current context `recorded`.
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig_with(TOKEN)
    }

    /// The same with another token, which is not let in.
    pub fn kubeconfig_with(&self, token: &str) -> String {
        let authority = base64::engine::general_purpose::STANDARD.encode(&self.authority);
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: recorded\n\
             clusters:\n- name: recorded\n  cluster:\n    server: {}\n    certificate-authority-data: {authority}\n\
             users:\n- name: admin\n  user:\n    token: {token}\n\
             contexts:\n- name: recorded\n  context: {{cluster: recorded, user: admin}}\n",
            self.url()
        )
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Every request so far, in order.
    pub fn log(&self) -> Vec<Asked> {
        lock(&self.shared.log).clone()
    }

    /// The requests that would change something.
    pub fn changes(&self) -> Vec<Asked> {
        self.log().into_iter().filter(|asked| asked.method != "GET").collect()
    }
}

impl Shared {
    fn file(&self, path: &str) -> PathBuf {
        self.folder.join(format!("{}.json", path.trim_start_matches('/')))
    }

    fn connection(&self, stream: TcpStream, config: &Arc<rustls::ServerConfig>) -> io::Result<()> {
        let mut wire = BufReader::new(Wire::accept(stream, Some(config))?);
        while let Some(head) = Head::read(&mut wire)? {
            let mut body = Vec::new();
            read_body(&mut wire, &head, |bytes| {
                body.extend_from_slice(bytes);
                true
            })?;
            let answer = self.answer(&head, &body);
            let wire = wire.get_mut();
            wire.write_all(&answer.head())?;
            wire.write_all(&answer.body)?;
            wire.flush()?;
        }
        Ok(())
    }

    fn answer(&self, head: &Head, body: &[u8]) -> Answer {
        let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        lock(&self.log).push(Asked {
            method: head.method.clone(),
            path: path.to_owned(),
            query: query.to_owned(),
            content_type: head.header("content-type").unwrap_or_default().to_owned(),
            body: sent.clone(),
        });
        if head.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
            return status(401, "Unauthorized");
        }
        if let Some((_, code, message)) = lock(&self.refusals).iter().find(|(p, ..)| p == path) {
            return status(*code, message);
        }
        // Nothing above the folder is answered, whatever the path says.
        let inside =
            Path::new(path.trim_start_matches('/')).components().all(|c| matches!(c, std::path::Component::Normal(_)));
        let known = fs::read(self.file(path)).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let patch = head.header("content-type").unwrap_or_default();
        match (head.method.as_str(), known) {
            ("GET", Some(found)) if inside => json_answer(200, &page(found, query)),
            ("PATCH", Some(found)) if inside && patch == "application/merge-patch+json" => {
                let given = sent.pointer("/metadata/resourceVersion");
                if given.is_some() && given != found.pointer("/metadata/resourceVersion") {
                    return status(409, "the object has been modified");
                }
                let mut changed = found;
                merge(&mut changed, &sent);
                if !query.contains("dryRun") {
                    let _ = fs::write(self.file(path), changed.to_string());
                }
                json_answer(200, &changed)
            }
            ("PATCH", _) if inside && patch == "application/apply-patch+yaml" => json_answer(200, &sent),
            _ => status(404, "the server could not find the requested resource"),
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the acceptor, which then sees that it is over.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn json_answer(code: u16, value: &Value) -> Answer {
    Answer::new(code).with("Content-Type", "application/json").body(value.to_string())
}

fn status(code: u16, message: &str) -> Answer {
    let value = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code, "reason": ""});
    json_answer(code, &value)
}

/// The page of a list that `limit` and `continue` ask for; the mark is the position to go on from.
fn page(mut list: Value, query: &str) -> Value {
    let asked = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).and_then(|(_, value)| value.parse::<usize>().ok())
    };
    let (Some(limit), Some(items)) = (asked("limit"), list["items"].as_array()) else { return list };
    let from = asked("continue").unwrap_or(0).min(items.len());
    let to = (from + limit).min(items.len());
    let more = to < items.len();
    let shown = items[from..to].to_vec();
    list["items"] = shown.into();
    if more {
        list["metadata"]["continue"] = to.to_string().into();
    }
    list
}

/// A JSON merge patch (RFC 7386).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in fields {
        if value.is_null() {
            if let Some(object) = target.as_object_mut() {
                object.remove(key);
            }
        } else {
            merge(&mut target[key], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_into_pages() {
        let list = json!({"items": [1, 2, 3], "metadata": {}});
        let first = page(list.clone(), "limit=2");
        assert_eq!((&first["items"], &first["metadata"]["continue"]), (&json!([1, 2]), &json!("2")));
        let second = page(list, "limit=2&continue=2");
        assert_eq!(second, json!({"items": [3], "metadata": {}}));
    }

    #[test]
    fn patches_are_merged() {
        let mut target = json!({"a": {"b": 1, "c": 2}, "d": 3});
        merge(&mut target, &json!({"a": {"b": null, "e": 4}, "d": [5]}));
        assert_eq!(target, json!({"a": {"c": 2, "e": 4}, "d": [5]}));
    }
}
