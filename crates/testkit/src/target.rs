//! Empty registries to mirror into: real programs, each with a storage folder that can be read when a test wants to know what
//! exactly arrived.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::binary::{Binary, Started};
use crate::contents::{self, Contents};
use crate::process::{Port, Running};
use crate::tools;
use crate::zot;

/// An empty registry. Dropping it ends it.
#[derive(Debug)]
pub struct Target {
    server: Server,
    address: String,
    storage: PathBuf,
    access: Access,
    /// After the server, so that it ends before its files go.
    folder: TempDir,
}

/// The process behind a target.
#[derive(Debug)]
enum Server {
    Distribution(Running),
    Airlock(Started),
    Zot(Running),
}

/// Which program serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Debian's docker-distribution 2.8.2: no referrers API, refuses sparse indexes.
    DockerRegistry2,
    /// docker-distribution 3, as installed by `.ci/run`.
    Distribution3,
}

/// Who may talk to it, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// User and password; nobody else gets in.
    pub user: Option<(String, String)>,
    /// HTTPS with an authority and a certificate made for this start.
    pub tls: bool,
}

/// zot, as installed by `.ci/run`.
const ZOT: &str = "zot";
/// Makes the short-lived certificates of [`Access::tls`].
const OPENSSL: &str = "openssl";
/// Makes the password files of [`Access::user`]; docker-distribution reads bcrypt only.
const HTPASSWD: &str = "htpasswd";

impl Target {
    /// Debian's `docker-registry`, open to all, with deletion on. `None`, with a printed line, where it is absent.
    pub fn docker_registry() -> Option<Self> {
        Self::start(Program::DockerRegistry2, Access::default())
    }

    /// Starts `program`. `None`, with a printed line, where it or what its access needs is absent.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(program: Program, access: Access) -> Option<Self> {
        let folder = folder();
        let storage = folder.path().join("storage");
        Self::distribution(program, access, folder, storage)
    }

    /// As [`Target::start`], open to all, over a storage folder that is there already and stays.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_over(program: Program, storage: &Path) -> Option<Self> {
        Self::distribution(program, Access::default(), folder(), storage.to_path_buf())
    }

    fn distribution(program: Program, access: Access, folder: TempDir, storage: PathBuf) -> Option<Self> {
        let server = tools::need(program.name())?;
        let path = folder.path().to_path_buf();
        let mut more = String::new();
        if let Some(user) = &access.user {
            passwords(user, &path)?;
            more += &format!("auth:\n  htpasswd: {{realm: target, path: {}/htpasswd}}\n", path.display());
        }
        if access.tls {
            certificate(&tools::need(OPENSSL)?, &path);
        }
        let running = Running::start(&path.join("log"), |port| {
            fs::write(path.join("config.yml"), configuration(&path, &storage, port, &more, access.tls))
                .expect("write the configuration");
            let mut command = Command::new(&server);
            command.arg("serve").arg(path.join("config.yml"));
            // The third version would send traces to a collector that is not there.
            command.env("OTEL_TRACES_EXPORTER", "none");
            command
        });
        let address = running.address();
        Some(Self { server: Server::Distribution(running), address, storage, access, folder })
    }

    /// Our own registry, served by the program at `program`; without a user anybody may push. `None`, with a printed line, where what its
    /// access needs is absent.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn airlock(program: &Path, access: Access) -> Option<Self> {
        let folder = folder();
        let path = folder.path();
        let file = |name: &str| path.join(name).display().to_string();
        let mut more = Vec::new();
        if let Some(user) = &access.user {
            passwords(user, path)?;
            more.extend(["--htpasswd".to_owned(), file("htpasswd")]);
        } else {
            more.extend(["--anonymous", "push"].map(str::to_owned));
        }
        if access.tls {
            certificate(&tools::need(OPENSSL)?, path);
            more.extend(["--tls-cert".to_owned(), file("cert.pem"), "--tls-key".to_owned(), file("key.pem")]);
        } else {
            more.push("--plain-http".to_owned());
        }
        let storage = path.join("storage");
        let (server, address) = serve(program, "--root", &storage, &more);
        Some(Self { server: Server::Airlock(server), address, storage, access, folder })
    }

    /// zot, which takes OCI's media types only. `None`, with a printed line, where it or what its access needs is absent.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn zot(access: Access) -> Option<Self> {
        Self::start_zot(access, None)
    }

    /// zot, open to all, which copies everything that lies in `upstream`.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn zot_copying(upstream: &Self) -> Option<Self> {
        Self::start_zot(Access::default(), Some(upstream))
    }

    fn start_zot(access: Access, upstream: Option<&Self>) -> Option<Self> {
        let program = tools::need(ZOT)?;
        let folder = folder();
        let path = folder.path().to_path_buf();
        let storage = path.join("storage");
        if let Some(user) = &access.user {
            passwords(user, &path)?;
        }
        if access.tls {
            certificate(&tools::need(OPENSSL)?, &path);
        }
        let copied = upstream.map(|upstream| zot::Upstream {
            url: format!("http{}://{}", if upstream.access.tls { "s" } else { "" }, upstream.address),
            user: upstream.access.user.clone(),
        });
        let running = Running::start(&path.join("log"), |port| {
            let file = zot::configuration(&path, &storage, port, access.user.is_some(), access.tls, copied.as_ref());
            let mut command = Command::new(&program);
            command.arg("serve").arg(file);
            if let Some(authority) = upstream.and_then(Self::certificate) {
                command.env("SSL_CERT_FILE", authority);
            }
            command
        });
        let address = running.address();
        Some(Self { server: Server::Zot(running), address, storage, access, folder })
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it says that it keeps track of referrers by itself; the others need fallback tags.
    pub fn has_referrers_api(&self) -> bool {
        matches!(self.server, Server::Airlock(_))
    }

    /// The authority to trust, in PEM, of a target with TLS.
    pub fn certificate(&self) -> Option<PathBuf> {
        self.access.tls.then(|| self.folder.path().join("ca.pem"))
    }

    /// The folder that holds `docker/registry/v2`, or zot's repositories.
    pub fn storage(&self) -> &Path {
        &self.storage
    }

    /// Everything that lies in it now.
    pub fn contents(&self) -> Contents {
        match self.server {
            Server::Zot(_) => zot::contents(&self.storage),
            _ => Contents::read(&self.storage),
        }
    }

    /// The stored blobs whose bytes do not match their name.
    pub fn altered(&self) -> Vec<String> {
        match self.server {
            Server::Zot(_) => zot::altered(&self.storage),
            _ => contents::altered(&self.storage),
        }
    }

    /// The stored bytes of a manifest or blob; empty when there are none.
    pub fn bytes(&self, digest: &str) -> Vec<u8> {
        let path = match self.server {
            Server::Zot(_) => zot::blob_path(&self.storage, digest),
            _ => Some(contents::blob_path(&self.storage, digest)),
        };
        path.and_then(|path| fs::read(path).ok()).unwrap_or_default()
    }

    /// What the server has logged.
    pub fn output(&self) -> String {
        match &self.server {
            Server::Distribution(running) | Server::Zot(running) => running.output(),
            Server::Airlock(started) => started.stderr(),
        }
    }
}

/// Serves a storage folder (`--root`) or an archive (`--archive`) by our own registry; gives the process and its address.
///
/// # Panics
/// When it does not come up.
pub fn serve(program: &Path, what: &str, folder: &Path, more: &[String]) -> (Started, String) {
    let folder = folder.display().to_string();
    let arguments = ["registry", "serve", what, &folder, "--listen", "127.0.0.1:0"].map(str::to_owned);
    let mut server = Binary::new(program).start(arguments.iter().chain(more));
    let address = server.until(|printed| {
        let (_, after) = printed.split_once("127.0.0.1:")?;
        let port: String = after.chars().take_while(char::is_ascii_digit).collect();
        // The line may not be whole yet when nothing follows the number.
        (port.len() < after.len() && port != "0").then(|| format!("127.0.0.1:{port}"))
    });
    (server, address)
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::DockerRegistry2 => "docker-registry",
            Self::Distribution3 => "registry",
        }
    }
}

fn configuration(folder: &Path, storage: &Path, port: &Port, more: &str, tls: bool) -> String {
    let folder = folder.display();
    let tls =
        if tls { format!("\n  tls: {{certificate: {folder}/cert.pem, key: {folder}/key.pem}}") } else { String::new() };
    // Without the list of allowed addresses every manifest with a foreign layer is refused.
    format!(
        "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: \
         true}}\n  maintenance: {{uploadpurging: {{enabled: false}}}}\nhttp:\n  addr: \"{}\"{tls}\nvalidation:\n  manifests: \
         {{urls: {{allow: [\"^https?://\"]}}}}\n{more}",
        storage.display(),
        port.address()
    )
}

/// A folder for a registry's files.
fn folder() -> TempDir {
    tempfile::Builder::new().prefix("airlock-target-").tempdir().expect("create a folder for the registry")
}

/// Writes a password file with one user.
fn passwords((user, password): &(String, String), folder: &Path) -> Option<()> {
    let made =
        Command::new(tools::need(HTPASSWD)?).args(["-Bbn", user, password]).output().expect("make a password file");
    assert!(made.status.success(), "no password file: {}", String::from_utf8_lossy(&made.stderr));
    fs::write(folder.join("htpasswd"), made.stdout).expect("write the password file");
    Some(())
}

/// Writes an authority (`ca.pem`) and a certificate of its making for the loopback interface (`cert.pem`, `key.pem`).
fn certificate(openssl: &Path, folder: &Path) {
    let make = |key: &str, certificate: &str, more: &[&str]| {
        let made = Command::new(openssl)
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args(["-keyout", key, "-out", certificate])
            .args(more)
            .current_dir(folder)
            .output()
            .expect("make a certificate");
        assert!(made.status.success(), "no certificate: {}", String::from_utf8_lossy(&made.stderr));
    };
    make("ca-key.pem", "ca.pem", &["-subj", "/CN=authority of a test"]);
    let names = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    let own = ["-subj", "/CN=localhost", "-addext", names, "-addext", "basicConstraints=critical,CA:FALSE"];
    make("key.pem", "cert.pem", &[&own[..], &["-CA", "ca.pem", "-CAkey", "ca-key.pem"]].concat());
}
