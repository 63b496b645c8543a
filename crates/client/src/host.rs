//! What is known and kept for one physical host: connections, scheme, authentication, limits, findings.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper_util::client::proxy::matcher::Matcher;
use tokio::sync::Semaphore;
use url::Url;

use crate::auth::Scheme;
use crate::exchange::Connections;
use crate::limits::Limiter;
use crate::options::Timeouts;

const UNKNOWN: u8 = 0;
const YES: u8 = 1;
const NO: u8 = 2;

/// A host that could not be reached is not tried again for this long, if others can be asked.
const DOWN_TIME: Duration = Duration::from_secs(30);

/// One `host[:port]`, contacted with or without certificate checks.
pub(crate) struct Host {
    /// `host[:port]` as it stands in references; credentials and certificates are looked up by it.
    pub(crate) name: String,
    /// Certificates are not checked; plain HTTP is a way out.
    pub(crate) insecure: bool,
    /// Small requests share one HTTP/2 connection where the host offers that.
    light: Connections,
    /// Blobs get HTTP/1.1 connections of their own: no frames of 16 KiB to put together, and flow control for each.
    bulk: Connections,
    /// Its address by HTTPS and by plain HTTP.
    secure: Result<Url, String>,
    plain: Result<Url, String>,
    scheme: AtomicU8,
    /// One place for who finds out the scheme; closed once somebody has tried. A dozen requests that begin together would begin a dozen
    /// TLS connections with a host that may have none.
    pub(crate) finding: Semaphore,
    pub(crate) reads: Arc<Limiter>,
    pub(crate) writes: Arc<Limiter>,
    auth: Mutex<Option<Arc<Scheme>>>,
    referrers: AtomicU8,
    monolithic: AtomicU8,
    own_mount: AtomicU8,
    /// When it could not be reached, and why.
    down: Mutex<Option<(Instant, String)>>,
    /// A note about this host that was given once is not repeated.
    told: Mutex<std::collections::HashSet<String>>,
}

/// A finding about a host that is made once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// It answers the referrers API.
    Referrers,
    /// It takes a blob in one PUT.
    Monolithic,
    /// Asked to mount a blob from the very repository, it says truly whether the blob is there, and opens a session where it is not.
    OwnMount,
}

impl Host {
    pub(crate) fn new(
        name: &str,
        insecure: bool,
        tls: rustls::ClientConfig,
        timeouts: &Timeouts,
        requests: usize,
    ) -> Self {
        let proxies = (!is_loopback(name)).then(|| Arc::new(Matcher::from_system()));
        let build = |alpn: &[&[u8]]| {
            let mut tls = tls.clone();
            tls.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
            Connections::new(tls, proxies.clone(), timeouts.connect)
        };
        let root = |scheme: &str| Url::parse(&format!("{scheme}://{}", contact_name(name))).map_err(|e| e.to_string());
        Self {
            name: name.to_owned(),
            insecure,
            secure: root("https"),
            plain: root("http"),
            light: build(&[b"h2", b"http/1.1"]),
            bulk: build(&[b"http/1.1"]),
            scheme: AtomicU8::new(UNKNOWN),
            finding: Semaphore::new(1),
            reads: Limiter::new(requests),
            writes: Limiter::new(requests),
            auth: Mutex::default(),
            referrers: AtomicU8::new(UNKNOWN),
            monolithic: AtomicU8::new(UNKNOWN),
            own_mount: AtomicU8::new(UNKNOWN),
            down: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// The connections for small requests or for blobs.
    pub(crate) fn connections(&self, bulk: bool) -> &Connections {
        // Plain HTTP has no HTTP/2 here; one pool is enough then.
        if bulk && self.scheme.load(Ordering::Relaxed) != NO { &self.bulk } else { &self.light }
    }

    /// The schemes to try, in order.
    pub(crate) fn schemes(&self) -> &'static [&'static str] {
        match (self.scheme.load(Ordering::Relaxed), self.insecure) {
            (NO, _) => &["http"],
            (YES, _) | (_, false) => &["https"],
            (_, true) => &["https", "http"],
        }
    }

    /// Remembers the scheme that gave an answer; `true` when plain HTTP was found just now.
    pub(crate) fn answered(&self, scheme: &str) -> bool {
        let value = if scheme == "https" { YES } else { NO };
        self.scheme.swap(value, Ordering::Relaxed) != value && value == NO
    }

    /// The URL of a path on this host.
    pub(crate) fn url(&self, scheme: &str, path: &str) -> Result<Url, String> {
        let root = if scheme == "https" { &self.secure } else { &self.plain };
        Url::options().base_url(Some(root.as_ref().map_err(Clone::clone)?)).parse(path).map_err(|e| e.to_string())
    }

    /// How this host wants to be shown who asks, once known.
    pub(crate) fn auth(&self) -> Option<Arc<Scheme>> {
        self.auth.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_auth(&self, scheme: Arc<Scheme>) {
        *self.auth.lock().unwrap_or_else(PoisonError::into_inner) = Some(scheme);
    }

    fn finding(&self, which: Finding) -> &AtomicU8 {
        match which {
            Finding::Referrers => &self.referrers,
            Finding::Monolithic => &self.monolithic,
            Finding::OwnMount => &self.own_mount,
        }
    }

    /// What was found earlier.
    pub(crate) fn found(&self, which: Finding) -> Option<bool> {
        match self.finding(which).load(Ordering::Relaxed) {
            YES => Some(true),
            NO => Some(false),
            _ => None,
        }
    }

    /// Remembers a finding.
    pub(crate) fn note(&self, which: Finding, value: bool) {
        self.finding(which).store(if value { YES } else { NO }, Ordering::Relaxed);
    }

    /// Why this host is not worth another attempt now, where others can be asked instead.
    pub(crate) fn down(&self) -> Option<String> {
        let down = self.down.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, cause) = down.as_ref()?;
        let ago = since.elapsed();
        (ago < DOWN_TIME).then(|| format!("not asked again so soon: {cause} ({} s ago)", ago.as_secs()))
    }

    /// It could not be reached.
    pub(crate) fn went_down(&self, cause: &str) {
        *self.down.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), cause.to_owned()));
    }

    /// Whether this text has not been told about this host before.
    pub(crate) fn first_time(&self, text: &str) -> bool {
        /// Warnings of a registry that differ each time are not kept for ever.
        const MAX_TOLD: usize = 1000;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.len() < MAX_TOLD && told.insert(text.to_owned())
    }
}

/// The name that is contacted for a host in a reference: Docker Hub's registry has another than its images.
pub(crate) fn contact_name(host: &str) -> &str {
    if host == "docker.io" { "registry-1.docker.io" } else { host }
}

/// `host[:port]` of a URL, without the scheme's default port.
pub(crate) fn name_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let name = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    if name == "registry-1.docker.io" { "docker.io".into() } else { name }
}

/// A host's name without the scheme's default port, as [`name_of`] gives it.
pub(crate) fn normal_name(name: &str, scheme: &str) -> String {
    let default = if scheme == "http" { ":80" } else { ":443" };
    let name = name.strip_suffix(default).unwrap_or(name).to_ascii_lowercase();
    if name == "registry-1.docker.io" { "docker.io".into() } else { name }
}

/// An address that a host gave (`Location`, `Link`), absolute or relative, with its query as it is.
///
/// A host behind a proxy that ends TLS often thinks that it is spoken to in plain HTTP; an address of the same host is put back to the
/// scheme and port that are really in use.
pub(crate) fn resolve_location(host: &Host, from: &Url, location: &str) -> Option<Url> {
    let mut to = from.join(location).ok().filter(|to| matches!(to.scheme(), "http" | "https"))?;
    let same_port = to.port().is_none() || to.port() == from.port_or_known_default();
    if to.scheme() != from.scheme() && to.host_str() == from.host_str() && same_port {
        to.set_scheme(from.scheme()).ok()?;
        to.set_port(from.port()).ok()?;
    }
    if to.scheme() == "http" && from.scheme() == "https" && !host.insecure {
        return None;
    }
    Some(to)
}

/// Whether two URLs are of one scheme, host and port.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme() && a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

/// Whether a host is this machine.
pub(crate) fn is_loopback(name: &str) -> bool {
    let host = match name.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => name.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_recognised_in_all_its_forms() {
        for name in ["localhost", "localhost:5000", "127.0.0.1:1", "[::1]:5000", "[::1]", "127.8.8.8"] {
            assert!(is_loopback(name), "{name}");
        }
        for name in ["quay.io", "10.0.0.1:5000", "localhost.example", "[::2]"] {
            assert!(!is_loopback(name), "{name}");
        }
    }

    #[test]
    fn names_come_without_the_default_port() {
        let name = |text: &str| name_of(&Url::parse(text).unwrap());
        assert_eq!(name("https://quay.io:443/v2/"), "quay.io");
        assert_eq!(name("https://quay.io:5000/v2/"), "quay.io:5000");
        assert_eq!(name("https://registry-1.docker.io/v2/"), "docker.io");
    }
}
