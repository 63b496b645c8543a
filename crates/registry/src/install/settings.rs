//! What a registry was installed with, in `registry.json` below its root. No secrets.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use airlock_oci::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

use super::names::authority;

/// The port unless another is wanted: that of mirror-registry.
pub const DEFAULT_PORT: u16 = 8443;
/// The first user's name unless another is wanted: that of mirror-registry.
pub const DEFAULT_USER: &str = "init";
/// Who the service runs as, when root installs it.
pub const SERVICE_USER: &str = "airlock-registry";
/// The unit's name, unless it is taken.
pub const UNIT: &str = "airlock-registry";
/// The form of the file.
const VERSION: u32 = 1;

/// The folder that everything of an installed registry lies in.
///
/// * the path is absolute
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root(PathBuf);

/// What it was installed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The form of this file.
    version: u32,
    /// Whether it is installed; after `uninstall` only what it takes to install it again is remembered.
    pub installed: bool,
    /// The version of the program that it was installed or upgraded with.
    pub airlock: String,
    /// The host that clients write: a DNS name or an address without brackets.
    pub hostname: String,
    /// The port that clients write.
    pub port: u16,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where content lies.
    pub storage: PathBuf,
    /// What its certificate is for, the host first.
    pub names: Vec<String>,
    /// The user that was made first.
    pub init_user: String,
    /// Whether anybody may pull.
    pub anonymous_pull: bool,
    /// Whether clients get tokens.
    pub tokens: bool,
    /// Whether there is a file of rights.
    pub rights: bool,
    /// Where health and metrics are told without credentials.
    pub metrics: Option<SocketAddr>,
    /// What keeps it running.
    pub service: Service,
}

/// What keeps it running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Who does.
    pub scope: Scope,
    /// The name of the unit, with `.service`.
    pub unit: String,
    /// The folder of the unit's file.
    pub folder: PathBuf,
    /// The program that runs.
    pub program: PathBuf,
    /// The user that it runs as, when that is not who installs it.
    pub user: Option<String>,
    /// Whether that user was made for it.
    #[serde(default)]
    pub user_made: bool,
}

/// Who keeps it running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The machine's systemd.
    System,
    /// A user's systemd.
    User,
    /// Nobody: whoever installs it starts it.
    None,
}

impl Root {
    /// The root at a path, made absolute.
    pub fn at(path: &Path) -> Result<Self, Error> {
        std::path::absolute(path).map(Self).map_err(|e| Error::io(format!("find `{}`", path.display()), &e))
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The settings.
    pub fn settings(&self) -> PathBuf {
        self.0.join("registry.json")
    }

    /// The certificate's folder.
    pub fn tls(&self) -> PathBuf {
        self.0.join("tls")
    }

    /// The users.
    pub fn htpasswd(&self) -> PathBuf {
        self.0.join("htpasswd")
    }

    /// The rights, where there are any.
    pub fn rights(&self) -> PathBuf {
        self.0.join("rights")
    }

    /// The first user's credentials.
    pub fn pull_secret(&self) -> PathBuf {
        self.0.join("pull-secret.json")
    }

    /// What a cluster must be told.
    pub fn cluster(&self) -> PathBuf {
        self.0.join("cluster")
    }

    /// Content, unless it lies elsewhere.
    pub fn storage(&self) -> PathBuf {
        self.0.join("storage")
    }

    /// Where the program lies, unless it lies elsewhere.
    pub fn program(&self) -> PathBuf {
        self.0.join("bin/airlock")
    }

    /// What was installed here; `None` when nothing was.
    pub fn read(&self) -> Result<Option<Settings>, Error> {
        let path = self.settings();
        let text = match fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|e| Error::io(format!("read `{}`", path.display()), &e))?,
        };
        let wrong = |cause: String| Error::new(ErrorKind::Invalid, format!("read `{}`", path.display()), cause);
        let version = serde_json::from_str::<serde_json::Value>(&text).map_err(|e| wrong(e.to_string()))?;
        match version["version"].as_u64() {
            Some(version) if version > u64::from(VERSION) => Err(wrong(format!(
                "it was written by a newer airlock ({})",
                serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default()["airlock"].as_str().unwrap_or("?")
            ))
            .hint("use that version or a later one")),
            _ => serde_json::from_str(&text).map(Some).map_err(|e| wrong(e.to_string())),
        }
    }
}

impl Settings {
    /// Settings of this form.
    #[must_use]
    pub fn new(hostname: String, port: u16, listen: SocketAddr, storage: PathBuf, service: Service) -> Self {
        Self {
            version: VERSION,
            installed: true,
            airlock: env!("CARGO_PKG_VERSION").to_owned(),
            names: vec![hostname.clone()],
            hostname,
            port,
            listen,
            storage,
            init_user: DEFAULT_USER.to_owned(),
            anonymous_pull: false,
            tokens: false,
            rights: false,
            metrics: None,
            service,
        }
    }

    /// `HOST:PORT`, as clients write it.
    pub fn authority(&self) -> String {
        authority(&self.hostname, Some(self.port))
    }

    /// The registry's address for a browser.
    pub fn url(&self) -> String {
        format!("https://{}", self.authority())
    }

    /// The file's text.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).map(|text| text + "\n").unwrap_or_default()
    }

    /// The unit's file.
    pub fn unit(&self) -> PathBuf {
        self.service.folder.join(&self.service.unit)
    }

    /// What follows the program's name on the command line that serves this registry.
    pub fn arguments(&self, root: &Root) -> Vec<String> {
        let text = |path: &Path| path.display().to_string();
        let mut arguments: Vec<String> = ["registry", "serve", "--root"].map(str::to_owned).into();
        arguments.extend([text(&self.storage), "--listen".into(), self.listen.to_string()]);
        arguments.extend(["--tls-folder".into(), text(&root.tls())]);
        for name in &self.names {
            arguments.extend(["--hostname".to_owned(), name.clone()]);
        }
        arguments.extend(["--htpasswd".into(), text(&root.htpasswd())]);
        if self.rights {
            arguments.extend(["--rights".into(), text(&root.rights())]);
        }
        if self.anonymous_pull {
            arguments.extend(["--anonymous".to_owned(), "pull".into()]);
        }
        if self.tokens {
            arguments.push("--tokens".into());
        }
        if let Some(metrics) = self.metrics {
            arguments.extend(["--metrics".into(), metrics.to_string()]);
        }
        arguments
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn settings(scope: Scope, user: Option<&str>) -> Settings {
        let service = Service {
            scope,
            unit: format!("{UNIT}.service"),
            folder: "/etc/systemd/system".into(),
            program: "/usr/local/bin/airlock-registry".into(),
            user: user.map(str::to_owned),
            user_made: false,
        };
        let listen = ([0, 0, 0, 0], 8443).into();
        Settings::new("mirror.example.com".into(), 8443, listen, "/var/lib/a registry/storage".into(), service)
    }

    #[test]
    fn settings_come_back_and_newer_ones_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::at(folder.path()).unwrap();
        assert_eq!(root.read().unwrap(), None);
        let settings = settings(Scope::User, None);
        fs::write(root.settings(), settings.to_json()).unwrap();
        assert_eq!(root.read().unwrap(), Some(settings.clone()));
        let newer = settings.to_json().replace("\"version\": 1", "\"version\": 2").replace("0.1.0", "9.9.9");
        fs::write(root.settings(), newer).unwrap();
        assert!(root.read().unwrap_err().cause().contains("newer airlock (9.9.9)"));
        fs::write(root.settings(), "{").unwrap();
        assert_eq!(root.read().unwrap_err().kind(), ErrorKind::Invalid);
    }

    #[test]
    fn the_command_line_follows_from_the_settings() {
        let root = Root::at(Path::new("/r")).unwrap();
        let mut settings = settings(Scope::None, None);
        settings.names.push("10.1.2.3".into());
        let plain = settings.arguments(&root).join(" ");
        assert_eq!(
            plain,
            "registry serve --root /var/lib/a registry/storage --listen 0.0.0.0:8443 --tls-folder /r/tls --hostname mirror.example.com \
             --hostname 10.1.2.3 --htpasswd /r/htpasswd"
        );
        (settings.anonymous_pull, settings.tokens, settings.rights) = (true, true, true);
        settings.metrics = Some(([127, 0, 0, 1], 8444).into());
        let more = settings.arguments(&root).join(" ");
        assert_eq!(more, plain + " --rights /r/rights --anonymous pull --tokens --metrics 127.0.0.1:8444");
        assert_eq!(settings.url(), "https://mirror.example.com:8443");
    }
}
