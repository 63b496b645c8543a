//! What a caller may set, and what it is told while things run.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::Secret;

/// How a [`Client`](crate::Client) behaves. `Options::default()` is what a user without any flag gets.
#[derive(Clone)]
pub struct Options {
    /// The only credential file to read (`--authfile`); `None`: the lookup order of podman and docker.
    pub authfile: Option<PathBuf>,
    /// Credentials that were written on the command line, each for one host.
    pub credentials: Vec<HostCredentials>,
    /// Contact everybody anonymously (`--src-no-creds`).
    pub anonymous: bool,
    /// `false`: certificates are not checked and plain HTTP is tried where HTTPS fails, for every host.
    pub tls_verify: bool,
    /// Directories with `*.crt`, `*.cert` and `*.key` used for every host (`--src-cert-dir`), before the per-host ones.
    pub cert_dirs: Vec<PathBuf>,
    /// Folders that hold a directory per host; `None`: those of podman and docker.
    pub certs_d: Option<Vec<PathBuf>>,
    /// What decides the endpoints of a pull.
    pub registries_conf: RegistriesConf,
    /// How often a transient failure is tried again.
    pub retry_times: u32,
    /// Time between tries; zero: 1, 2, 4, 8, 16 s and a little at random.
    pub retry_delay: Duration,
    /// The longest that a registry's `Retry-After` is obeyed; a longer wish is cut to this.
    pub max_retry_after: Duration,
    /// Limits of time.
    pub timeouts: Timeouts,
    /// The most requests that are in flight at one host at once, reads and writes counted apart.
    pub requests_per_host: usize,
    /// Told of everything that would otherwise look like silence.
    pub notices: Option<Arc<dyn Fn(Notice) + Send + Sync>>,
}

/// Where `registries.conf` is looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RegistriesConf {
    /// `CONTAINERS_REGISTRIES_CONF`, `REGISTRIES_CONFIG_PATH`, then the user's and the system's file with their drop-ins
    /// (mirror-rules 2.1).
    #[default]
    Lookup,
    /// This file (its absence is an error) and these drop-in directory instead of the usual ones.
    File {
        /// The main file.
        path: PathBuf,
        /// The directory of drop-ins; `None`: the usual ones.
        dropins: Option<PathBuf>,
    },
    /// Every reference is its own only endpoint.
    Ignore,
    /// As another one says, and a text that counts like one more drop-in, read last: its tables take the place of those with the same prefix.
    Over {
        /// What lies below.
        below: Box<RegistriesConf>,
        /// What the text is called in messages.
        name: String,
        /// The text.
        text: String,
    },
}

/// A user name and password for exactly one host; never sent to a mirror of it or after a redirect.
#[derive(Clone, Debug)]
pub struct HostCredentials {
    /// `host[:port]`, as the user wrote it.
    pub host: String,
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// Limits of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Name lookup, TCP and TLS.
    pub connect: Duration,
    /// From the end of the request to the first byte of the answer.
    pub first_byte: Duration,
    /// Without any byte in a body that is being received or sent.
    pub stall: Duration,
}

/// Something the user may want to see while a request takes longer or goes another way than usual.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A request failed and is tried again after `delay`.
    Retrying {
        /// `GET quay.io/a/b blobs/sha256:…`.
        request: String,
        /// Why.
        cause: String,
        /// This was the try with this number, from 1.
        attempt: u32,
        /// How many there are at most.
        of: u32,
        /// Time until the next.
        delay: Duration,
    },
    /// A registry asked to be left alone for a while.
    Waiting {
        /// Who.
        host: String,
        /// How long.
        delay: Duration,
    },
    /// A body is fetched or sent on from where it broke off.
    Resuming {
        /// What.
        what: String,
        /// Byte at which it goes on.
        offset: u64,
        /// Why it broke off.
        cause: String,
    },
    /// An endpoint did not serve a pull; the next one is asked.
    EndpointSkipped {
        /// `host[:port]/path`.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// Which credential is used for a host, once for each.
    CredentialUsed {
        /// The host.
        host: String,
        /// File and key, never the secret.
        credential: String,
    },
    /// Anything else that should not be silent: a registry's `Warning`, plain HTTP, a deprecated variable.
    Warning {
        /// Whom it concerns.
        host: String,
        /// The text.
        text: String,
    },
}

impl Default for Options {
    fn default() -> Self {
        Self {
            authfile: None,
            credentials: Vec::new(),
            anonymous: false,
            tls_verify: true,
            cert_dirs: Vec::new(),
            certs_d: None,
            registries_conf: RegistriesConf::Lookup,
            retry_times: 5,
            retry_delay: Duration::ZERO,
            max_retry_after: Duration::from_secs(120),
            timeouts: Timeouts::default(),
            requests_per_host: 24,
            notices: None,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(20), first_byte: Duration::from_secs(60), stall: Duration::from_secs(60) }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("authfile", &self.authfile)
            .field("credentials", &self.credentials)
            .field("tls_verify", &self.tls_verify)
            .field("registries_conf", &self.registries_conf)
            .field("retry_times", &self.retry_times)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retrying { request, cause, attempt, of, delay } => {
                write!(f, "{request}: {cause}; try {attempt} of {of}, next in {:.1} s", delay.as_secs_f64())
            }
            Self::Waiting { host, delay } => {
                write!(f, "`{host}` asks to wait; going on in {:.1} s", delay.as_secs_f64())
            }
            Self::Resuming { what, offset, cause } => write!(f, "{what}: {cause}; resuming at byte {offset}"),
            Self::EndpointSkipped { endpoint, reason } => write!(f, "`{endpoint}` skipped: {reason}"),
            Self::CredentialUsed { host, credential } => write!(f, "`{host}`: using {credential}"),
            Self::Warning { host, text } => write!(f, "`{host}`: {text}"),
        }
    }
}
