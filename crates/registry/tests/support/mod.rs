//! A registry in this process, a client for it, small images made in code.
#![allow(
    dead_code,
    unused_macros,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "each test program uses its own part; this is test code"
)]

pub(crate) mod archive;
pub(crate) mod layout;
pub(crate) mod s3;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use airlock_oci::{Algorithm, Digest};
use airlock_registry::{Anonymous, Builder, Running, Server, Tls, Users};
use airlock_store::distribution::{Durability, Writer};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};

/// Tests that are done once over each way in, and with the content in a bucket.
macro_rules! on_every_face_and_storage {
    ($($name:ident),* $(,)?) => {
        on_every_face!($($name),*);
        on_every_face!(@ in_a_bucket: Bucket, $($name),*);
    };
}

/// The same with the bucket at moto, for tests whose names are long: a digest by sha512 in the key of a link is enough.
macro_rules! on_every_face_and_long_storage {
    ($($name:ident),* $(,)?) => {
        on_every_face!($($name),*);
        on_every_face!(@ in_a_bucket: BucketAtMoto, $($name),*);
    };
}

/// Tests that are done once over each way in.
macro_rules! on_every_face {
    ($($name:ident),* $(,)?) => {
        on_every_face!(@ plain: Plain, $($name),*);
        on_every_face!(@ over_tls_with_a_password: TlsWithPassword, $($name),*);
    };
    (@ $module:ident: $face:ident, $($name:ident),*) => {
        mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if super::Face::$face.is_possible() {
                    super::$name(super::Face::$face).await;
                }
            })*
        }
    };
}

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// How a registry is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// Plain HTTP, without credentials.
    Plain,
    /// HTTPS (HTTP/2 where the client can), with a name and a password.
    TlsWithPassword,
    /// HTTPS, with a token that is given for the name and the password.
    TlsWithTokens,
    /// Plain HTTP, without credentials; what is pushed lies in a bucket of the store in this process. That makes one file name of a whole key,
    /// so that names of repositories and tags must be short, and digests are by sha256.
    Bucket,
    /// The same at moto, which takes every key.
    BucketAtMoto,
}

impl Face {
    /// Whether it is reached over TLS by a user; otherwise over plain HTTP by anybody.
    pub(crate) fn has_user(self) -> bool {
        matches!(self, Self::TlsWithPassword | Self::TlsWithTokens)
    }

    /// Whether what it needs is there; says so when it is not.
    pub(crate) fn is_possible(self) -> bool {
        self != Self::BucketAtMoto || tool(s3::MOTO).is_some()
    }
}

/// A running registry on a directory of its own.
pub(crate) struct Registry {
    pub(crate) root: tempfile::TempDir,
    /// Of a directory that stays empty where the content lies in a bucket.
    pub(crate) writer: Writer,
    pub(crate) store: Option<s3::Store>,
    moto: Option<s3::Moto>,
    running: Option<Running>,
    pub(crate) addr: SocketAddr,
    pub(crate) client: Client,
    face: Face,
}

/// The user of the faces that ask for one.
pub(crate) const USER: (&str, &str) = ("anna", "secret");

pub(crate) fn localhost() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

impl Registry {
    /// Anybody may do anything.
    pub(crate) async fn start() -> Self {
        Self::with(|builder| builder.anonymous(Anonymous::Push)).await
    }

    pub(crate) async fn with(configure: impl FnOnce(Builder) -> Builder) -> Self {
        let root = tempfile::tempdir().unwrap();
        let writer = Writer::open(root.path(), Durability::Image).unwrap();
        let running = configure(Server::writable(writer.clone())).bind(localhost()).await.unwrap();
        let addr = running.addr;
        Self {
            root,
            writer,
            store: None,
            moto: None,
            running: Some(running),
            addr,
            client: client(),
            face: Face::Plain,
        }
    }

    /// A server of a bucket, with the store that it lies in if nobody else keeps that.
    pub(crate) async fn of_bucket(
        bucket: airlock_store::bucket::Bucket,
        store: Option<s3::Store>,
        configure: impl FnOnce(Builder) -> Builder,
    ) -> Self {
        let root = tempfile::tempdir().unwrap();
        let writer = Writer::open(root.path(), Durability::Image).unwrap();
        let builder = configure(Server::bucket(bucket).anonymous(Anonymous::Push));
        let running = builder.bind(localhost()).await.unwrap();
        let addr = running.addr;
        Self { root, writer, store, moto: None, running: Some(running), addr, client: client(), face: Face::Bucket }
    }

    /// Whoever has a right to be there may do anything.
    pub(crate) async fn on(face: Face) -> Self {
        Self::on_with(face, |builder| builder).await
    }

    pub(crate) async fn on_with(face: Face, configure: impl FnOnce(Builder) -> Builder) -> Self {
        match face {
            Face::Plain => return Self::with(|builder| configure(builder.anonymous(Anonymous::Push))).await,
            Face::Bucket => {
                let store = s3::Store::start().await;
                return Self::of_bucket(store.bucket().await, Some(store), configure).await;
            }
            Face::BucketAtMoto => {
                let moto = s3::Moto::start().await.unwrap();
                let registry = Self::of_bucket(moto.bucket().await, None, configure).await;
                return Self { moto: Some(moto), ..registry };
            }
            Face::TlsWithPassword | Face::TlsWithTokens => {}
        }
        let users = Users::parse(&format!("{}:{}", USER.0, bcrypt::hash(USER.1, 4).unwrap())).unwrap();
        let certificates = tempfile::tempdir().unwrap();
        let tls = Tls::SelfMade { folder: certificates.path().to_owned(), names: Vec::new() };
        let tokens = |builder: Builder| if face == Face::TlsWithTokens { builder.tokens() } else { builder };
        let mut registry = Self::with(|builder| configure(tokens(builder.users(users).tls(tls)))).await;
        let ca = reqwest::Certificate::from_pem(registry.ca_pem().as_bytes()).unwrap();
        registry.client = client_builder().tls_certs_only([ca]).build().unwrap();
        registry.face = face;
        registry
    }

    pub(crate) fn health(&self) -> SocketAddr {
        self.running.as_ref().unwrap().health.unwrap()
    }

    pub(crate) fn ca_pem(&self) -> String {
        self.running.as_ref().unwrap().ca_pem.clone().unwrap()
    }

    /// Stops it; what it stored stays until the returned folder is dropped.
    pub(crate) async fn stop(mut self) -> tempfile::TempDir {
        self.running.take().unwrap().shutdown().await.unwrap();
        self.root
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.face.has_user() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.addr)
    }

    pub(crate) fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, self.url(path));
        if self.face.has_user() { request.basic_auth(USER.0, Some(USER.1)) } else { request }
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn head(&self, path: &str) -> Response {
        self.ask(Method::HEAD, path).send().await.unwrap()
    }

    pub(crate) async fn delete(&self, path: &str) -> StatusCode {
        self.ask(Method::DELETE, path).send().await.unwrap().status()
    }

    /// Begins an upload: its location.
    pub(crate) async fn begin(&self, name: &str) -> String {
        let response = self.ask(Method::POST, &format!("/v2/{name}/blobs/uploads/")).send().await.unwrap();
        assert_eq!(response.status(), 202);
        assert_eq!(header(&response, "range"), "0-0");
        let location = header(&response, "location");
        assert!(location.starts_with('/'), "relative: {location}");
        location
    }

    /// Pushes a blob; its digest.
    pub(crate) async fn push_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        self.push_blob_as(name, bytes, &Digest::of(bytes)).await
    }

    pub(crate) async fn push_blob_as(&self, name: &str, bytes: &[u8], digest: &Digest) -> Digest {
        let location = self.begin(name).await;
        let response =
            self.ask(Method::PUT, &format!("{location}?digest={digest}")).body(bytes.to_vec()).send().await.unwrap();
        assert_eq!(response.status(), 201, "{}", response.text().await.unwrap());
        assert_eq!(header(&response, "location"), format!("/v2/{name}/blobs/{digest}"));
        digest.clone()
    }

    pub(crate) async fn put_manifest(&self, name: &str, at: &str, media_type: &str, text: &str) -> Response {
        self.ask(Method::PUT, &format!("/v2/{name}/manifests/{at}"))
            .header("content-type", media_type)
            .body(text.to_owned())
            .send()
            .await
            .unwrap()
    }

    /// Pushes config, layer and manifest; the manifest's text and digest.
    pub(crate) async fn push_image(&self, name: &str, at: &str, seed: &str) -> (String, Digest) {
        let (config, layer) = (format!(r#"{{"seed":"{seed}"}}"#), format!("layer {seed}"));
        self.push_blob(name, config.as_bytes()).await;
        self.push_blob(name, layer.as_bytes()).await;
        let text = manifest(OCI_MANIFEST, config.as_bytes(), &[layer.as_bytes()], "");
        let digest = Digest::of(text.as_bytes());
        let at = if at.is_empty() { digest.to_string() } else { at.to_owned() };
        let response = self.put_manifest(name, &at, OCI_MANIFEST, &text).await;
        assert_eq!(response.status(), 201, "{}", response.text().await.unwrap());
        assert_eq!(header(&response, "docker-content-digest"), digest.to_string());
        (text, digest)
    }
}

pub(crate) fn client() -> Client {
    client_builder().build().unwrap()
}

pub(crate) fn client_builder() -> reqwest::ClientBuilder {
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none())
}

pub(crate) fn header(response: &Response, name: &str) -> String {
    let values: Vec<&str> = response.headers().get_all(name).iter().map(|v| v.to_str().unwrap()).collect();
    assert!(values.len() <= 1, "{name} occurs more than once: {values:?}");
    values.first().unwrap_or(&"").to_string()
}

/// The codes of an answer that says no.
pub(crate) async fn codes(response: Response) -> Vec<String> {
    assert_eq!(header(&response, "content-type"), "application/json");
    let document: serde_json::Value = response.json().await.unwrap();
    let errors = document["errors"].as_array().unwrap();
    for error in errors {
        assert!(!error["message"].as_str().unwrap().is_empty());
    }
    errors.iter().map(|e| e["code"].as_str().unwrap().to_owned()).collect()
}

pub(crate) async fn json(response: Response) -> serde_json::Value {
    assert_eq!(response.status(), 200);
    response.json().await.unwrap()
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, Digest::of(bytes), bytes.len())
}

/// An image's manifest; `fields` are more JSON fields, with a leading comma.
pub(crate) fn manifest(media_type: &str, config: &[u8], layers: &[&[u8]], fields: &str) -> String {
    let (config_type, layer_type) = if media_type == DOCKER_MANIFEST {
        ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip")
    } else {
        ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar")
    };
    let layers: Vec<String> = layers.iter().map(|layer| descriptor(layer_type, layer)).collect();
    format!(
        r#"{{ "schemaVersion": 2, "mediaType": "{media_type}", "config": {}, "layers": [{}]{fields} }}"#,
        descriptor(config_type, config),
        layers.join(",")
    )
}

pub(crate) fn index(media_type: &str, children: &[(&str, &str)], fields: &str) -> String {
    let children: Vec<String> = children.iter().map(|(kind, text)| descriptor(kind, text.as_bytes())).collect();
    format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[{}]{fields}}}"#, children.join(","))
}

pub(crate) fn sha512(bytes: &[u8]) -> Digest {
    Digest::of_with(Algorithm::Sha512, bytes)
}

/// Whether a tool is there, also among the Go tools; prints that the test is skipped when it is not, and fails when the tools are
/// required.
pub(crate) fn tool(name: &str) -> Option<String> {
    let go = std::env::var("GOPATH").unwrap_or_else(|_| format!("{}/go", std::env::var("HOME").unwrap_or_default()));
    for candidate in [name.to_owned(), format!("{go}/bin/{name}")] {
        let found = Command::new("sh").args(["-c", &format!("command -v {candidate}")]).stdout(Stdio::null()).status();
        if found.is_ok_and(|s| s.success()) {
            return Some(candidate);
        }
    }
    assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "`{name}` is required and not there");
    println!("skipped: `{name}` is not installed");
    None
}

/// Runs a command beside the server, with the credentials of `auth.json` and `config.json` in the folder and trust in its `ca.pem`, where those are
/// there; its output, or everything it said when it failed.
pub(crate) async fn run(program: &str, args: &[&str], folder: &Path) -> Result<String, String> {
    let (program, folder) = (program.to_owned(), folder.to_owned());
    let args: Vec<String> = args.iter().map(|a| (*a).to_owned()).collect();
    tokio::task::spawn_blocking(move || {
        let (auth, authority) = (folder.join("auth.json"), folder.join("ca.pem"));
        if !auth.exists() {
            std::fs::write(&auth, "{}").unwrap();
        }
        let mut command = Command::new(&program);
        if authority.exists() {
            // All of these programs are written in Go, which looks here for whom to trust.
            command.env("SSL_CERT_FILE", authority);
        }
        let output = command
            .args(&args)
            .current_dir(&folder)
            // Neither the user's credentials nor a proxy take part.
            .env("HOME", &folder)
            .env("XDG_RUNTIME_DIR", &folder)
            .env("REGISTRY_AUTH_FILE", auth)
            .env("DOCKER_CONFIG", &folder)
            .env("NO_PROXY", "*")
            .output()
            .unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(text) } else { Err(format!("{program} {args:?}: {text}")) }
    })
    .await
    .unwrap()
}
