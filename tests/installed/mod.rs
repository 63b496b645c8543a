//! An installed registry for tests: a root, a port, and real clients that trust what the installation printed.
#![allow(dead_code, clippy::unwrap_used, reason = "each test program uses its own part; a test ends where it fails")]

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use airlock_testkit::process::Port;
use airlock_testkit::tools;
use tempfile::TempDir;

pub(crate) const AIRLOCK: &str = env!("CARGO_BIN_EXE_airlock");

/// A small machine: a home, a port, and the environment that programs run in.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    pub(crate) port: Port,
    /// Before the program, as `nsenter … --`.
    pub(crate) before: Vec<String>,
    env: Vec<(String, String)>,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("airlock-site-").tempdir().unwrap();
        // The user that a service runs as must get to its files.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["home", "run", "tmp", "bin"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let at = |name: &str| folder.path().join(name).display().to_string();
        let path = format!("{}:{}:/usr/sbin:/sbin", at("bin"), std::env::var("PATH").unwrap());
        let env = vec![
            ("PATH".to_owned(), path),
            ("HOME".to_owned(), at("home")),
            ("TMPDIR".to_owned(), at("tmp")),
            ("XDG_RUNTIME_DIR".to_owned(), at("run")),
        ];
        Self { folder, port: Port::claim(), before: Vec::new(), env }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.at("registry")
    }

    /// `localhost:PORT`.
    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port.number())
    }

    /// A program in `bin/`, which goes before those of the machine.
    pub(crate) fn program(&self, name: &str, script: &str) {
        let path = self.at("bin").join(name);
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut words: Vec<&str> = self.before.iter().map(String::as_str).collect();
        words.push(program);
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(arguments).env_clear().envs(self.env.iter().cloned());
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.command(program, arguments).output().unwrap())
    }

    pub(crate) fn airlock(&self, arguments: &[&str]) -> Ran {
        self.run(AIRLOCK, arguments)
    }

    pub(crate) fn airlock_with(&self, input: &str, arguments: &[&str]) -> Ran {
        let mut command = self.command(AIRLOCK, arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::of(child.wait_with_output().unwrap())
    }

    /// `registry install` of this site, with more flags.
    pub(crate) fn install(&self, more: &[&str]) -> Ran {
        let (root, host) = (self.root().display().to_string(), self.host());
        let listen = format!("127.0.0.1:{}", self.port.number());
        let usual = ["registry", "install", "--root", &root, "--hostname", &host, "--listen", &listen];
        self.airlock(&[&usual[..], more].concat())
    }

    /// The status of an answer to curl, which trusts only this CA; 0 where it does not come to an answer.
    pub(crate) fn curl(&self, ca: &Path, login: Option<&str>, path: &str) -> u16 {
        let url = format!("https://{}{path}", self.host());
        let ca = ca.display().to_string();
        let mut arguments = vec!["-s", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "--cacert", &ca];
        arguments.extend(login.iter().flat_map(|login| ["-u", login]));
        arguments.push(&url);
        let ran = self.run(&tools::find("curl").unwrap().display().to_string(), &arguments);
        ran.stdout.trim().parse().unwrap_or_default()
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.root().join("tls/ca.crt")
    }

    /// The fingerprint of the certificate that a new connection gets; openssl verifies it under this CA and name.
    pub(crate) fn fingerprint(&self, ca: &Path) -> String {
        let script = format!(
            "openssl s_client -connect 127.0.0.1:{} -servername localhost -CAfile '{}' -verify_return_error -verify_hostname localhost \
             </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256",
            self.port.number(),
            ca.display()
        );
        let ran = self.run("sh", &["-c", &script]);
        assert!(ran.stdout.contains("ingerprint="), "openssl does not accept the certificate: {ran:?}");
        ran.stdout
    }

    pub(crate) fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.root().join(name)).unwrap().permissions().mode() & 0o7777
    }

    /// Pushes an image with skopeo, and reads its digest back with the same credentials.
    pub(crate) fn push_and_pull(&self, upstream: &str) -> String {
        let certificates = self.at("certs");
        std::fs::create_dir_all(&certificates).unwrap();
        std::fs::copy(self.ca(), certificates.join("ca.crt")).unwrap();
        let (certificates, secret) = (certificates.display().to_string(), self.root().join("pull-secret.json"));
        let (secret, target) = (secret.display().to_string(), format!("docker://{}/demo/web:1.0", self.host()));
        let from = format!("docker://{upstream}/demo/web:1.0");
        self.run(
            "skopeo",
            &[
                "copy",
                "--insecure-policy",
                "--src-tls-verify=false",
                "--dest-cert-dir",
                &certificates,
                "--dest-authfile",
                &secret,
                &from,
                &target,
            ],
        )
        .expect(0);
        self.digest()
    }

    /// The digest of what was pushed.
    pub(crate) fn digest(&self) -> String {
        let (certificates, secret) = (self.at("certs"), self.root().join("pull-secret.json"));
        let target = format!("docker://{}/demo/web:1.0", self.host());
        let arguments =
            ["inspect", "--cert-dir", certificates.to_str().unwrap(), "--authfile", secret.to_str().unwrap()];
        let ran = self.run("skopeo", &[&arguments[..], &["--format", "{{.Digest}}", &target]].concat()).expect(0);
        ran.stdout.trim().to_owned()
    }
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert!(
            self.code == code,
            "exit code {}, not {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

/// Whether the programs are here that judge these tests.
pub(crate) fn tools(names: &[&str]) -> bool {
    names.iter().all(|name| tools::need(name).is_some())
}

/// Waits until it is so.
#[track_caller]
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !so() {
        assert!(std::time::Instant::now() < end, "in two minutes it did not happen: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
