//! zot: its configuration, and what lies in its storage, which is an OCI layout for each repository.
//!
//! Version 1.4.3, as installed by `.ci/run`, takes OCI's media types only, takes sparse indexes, and has the referrers API of a draft: it lists what refers
//! to a subject, with the media type of the configuration for a type, but does not say so when a referrer is pushed (no `OCI-Subject`), so that
//! clients write fallback tags.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::contents::{Contents, Held, digest_of_file};
use crate::process::Port;

/// A registry that zot copies from.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    /// `http://127.0.0.1:PORT`.
    pub(crate) url: String,
    /// User and password.
    pub(crate) user: Option<(String, String)>,
}

/// Writes zot's configuration into `folder`, where passwords, certificate and key lie too; its path.
pub(crate) fn configuration(
    folder: &Path,
    storage: &Path,
    port: &Port,
    closed: bool,
    tls: bool,
    upstream: Option<&Upstream>,
) -> PathBuf {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut http = json!({ "address": "127.0.0.1", "port": port.number().to_string() });
    if closed {
        http["auth"] = json!({ "htpasswd": { "path": file("htpasswd") } });
    }
    if tls {
        http["tls"] = json!({ "cert": file("cert.pem"), "key": file("key.pem") });
    }
    let mut value = json!({
        "distSpecVersion": "1.0.1-dev",
        "storage": { "rootDirectory": storage.display().to_string(), "gc": false },
        "http": http,
        "log": { "level": "info" },
    });
    if let Some(upstream) = upstream {
        let mut sync = json!({ "enable": true, "registries": [{
            "urls": [upstream.url], "onDemand": true, "pollInterval": "1h", "content": [{ "prefix": "**" }],
            "tlsVerify": upstream.url.starts_with("https:"),
        }] });
        if let Some((name, password)) = &upstream.user {
            let (_, host) = upstream.url.split_once("://").expect("a URL has a scheme");
            let mut known = json!({});
            known[host] = json!({ "username": name, "password": password });
            fs::write(folder.join("credentials.json"), known.to_string()).expect("write the credentials");
            sync["credentialsFile"] = file("credentials.json").into();
        }
        value["extensions"] = json!({ "sync": sync });
    }
    let path = folder.join("config.json");
    fs::write(&path, value.to_string()).expect("write the configuration");
    path
}

/// Everything in zot's storage folder.
pub(crate) fn contents(root: &Path) -> Contents {
    let mut contents = Contents::default();
    for (name, folder) in repositories(root) {
        let mut held = Held::default();
        // A repository that is being made has none yet.
        let Ok(text) = fs::read(folder.join("index.json")) else { continue };
        let Ok(index) = serde_json::from_slice::<Value>(&text) else { continue };
        for entry in index["manifests"].as_array().into_iter().flatten() {
            let digest = entry["digest"].as_str().expect("an entry has a digest").to_owned();
            if let Some(tag) = entry["annotations"]["org.opencontainers.image.ref.name"].as_str() {
                held.tags.insert(tag.to_owned(), digest.clone());
            }
            held.manifests.insert(digest);
        }
        for (digest, path) in blobs(&folder) {
            contents.blobs.insert(digest.clone(), fs::metadata(&path).expect("read a blob's size").len());
            if !held.manifests.contains(&digest) {
                // What a tag has moved on from is not in the index any more.
                let is_manifest = is_manifest(&path);
                let kind = if is_manifest { &mut held.manifests } else { &mut held.layers };
                kind.insert(digest);
            }
        }
        if let Ok(uploads) = fs::read_dir(folder.join(".uploads")) {
            contents.uploads.extend(uploads.map(|entry| entry.expect("read the uploads").path()));
        }
        if held != Held::default() {
            contents.repositories.insert(name, held);
        }
    }
    contents
}

/// Where the bytes of `digest` are, in whichever repository has them.
pub(crate) fn blob_path(root: &Path, digest: &str) -> Option<PathBuf> {
    repositories(root)
        .into_iter()
        .flat_map(|(_, folder)| blobs(&folder))
        .find(|(known, _)| known == digest)
        .map(|(_, path)| path)
}

/// Names the blobs whose bytes do not match their name.
pub(crate) fn altered(root: &Path) -> Vec<String> {
    let all: BTreeSet<_> = repositories(root).into_iter().flat_map(|(_, folder)| blobs(&folder)).collect();
    all.into_iter().filter(|(digest, path)| digest_of_file(path, digest) != *digest).map(|(digest, _)| digest).collect()
}

/// Repositories by name, with their folders.
fn repositories(root: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        if folder.join("oci-layout").is_file() {
            let name = folder.strip_prefix(root).expect("it lies below").display().to_string();
            found.push((name, folder.clone()));
        }
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("read the storage").path();
            // A repository may lie in another's folder.
            let own = path.file_name().is_some_and(|name| name == "blobs" || name.to_string_lossy().starts_with('.'));
            if path.is_dir() && !own {
                open.push(path);
            }
        }
    }
    found
}

fn blobs(folder: &Path) -> Vec<(String, PathBuf)> {
    let algorithms = fs::read_dir(folder.join("blobs")).into_iter().flatten();
    algorithms
        .flat_map(|entry| {
            let folder = entry.expect("read the blobs").path();
            let algorithm = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let files = fs::read_dir(folder).expect("read the blobs");
            files.map(move |entry| {
                let entry = entry.expect("read the blobs");
                (format!("{algorithm}:{}", entry.file_name().to_string_lossy()), entry.path())
            })
        })
        .collect()
}

fn is_manifest(path: &Path) -> bool {
    let read = fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    read.is_some_and(|value| value["schemaVersion"] == 2)
}
