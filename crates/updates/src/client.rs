//! Asks an update service over the network: graphs, and the data that graphs are made of.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use airlock_client::{Client, Get, Url};
use airlock_oci::{Error, ErrorKind};
use async_trait::async_trait;
use bytes::Bytes;

use crate::answers::{Answer, Graphs, Query, Service};
use crate::graph::MAX_GRAPH_BYTES;

/// The update service of OpenShift.
pub const PUBLIC_GRAPH_URL: &str = "https://api.openshift.com/api/upgrades_info/v1/graph";
/// The update service of OKD.
pub const PUBLIC_OKD_GRAPH_URL: &str = "https://origin-release.ci.openshift.org/graph";
/// Where the data of OpenShift's update service is.
pub const PUBLIC_GRAPH_DATA_URL: &str = "https://api.openshift.com/api/upgrades_info/graph-data";

/// Where an update service of one's own has its data, beside the graph (oc-mirror 5.7).
const GRAPH_DATA_PATH: &str = "/api/upgrades_info/graph-data";
/// The largest graph data that are taken (bytes). They have about 100 KB, compressed.
const MAX_GRAPH_DATA_BYTES: u64 = 16 * 1024 * 1024;
/// The one form of an answer that every update service knows; lists of forms are refused by some (updates-and-releases 1.2).
const ACCEPT_GRAPH: &str = "application/json";

/// Which service is asked. The environment is read by the caller.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `UPDATE_URL_OVERRIDE`: the whole address of the graph, for OpenShift.
    pub url: Option<String>,
    /// The address of the graph for OKD, in place of the public one.
    pub okd_url: Option<String>,
    /// `--graph-data`, `AIRLOCK_GRAPH_DATA`: an address, or a file.
    pub graph_data: Option<String>,
    /// The `id` that a service counts clients by; none: a random one.
    pub id: Option<String>,
}

/// Asks update services. Connections, certificates, proxies and retries are the client's.
#[derive(Clone, Debug)]
pub struct GraphClient {
    client: Client,
    ocp: Url,
    okd: Url,
    /// `ocp` is the user's.
    own: bool,
    graph_data: Option<String>,
    id: String,
}

/// The data that a graph is made of.
#[derive(Clone, Debug)]
pub enum GraphData {
    /// A gzip-compressed tar of `channels/`, `blocked-edges/` and more.
    Archive {
        /// As received.
        bytes: Bytes,
        /// Address or file.
        from: String,
    },
    /// The update service of one's own has none, or cannot be reached: the image of an archive, the workspace or the source registry is
    /// taken instead.
    Enclave {
        /// What the service said.
        cause: Error,
    },
}

impl GraphClient {
    /// Checks the addresses; nothing is asked yet.
    pub fn new(client: Client, options: &Options) -> Result<Self, Error> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        let own = given(&options.url);
        Ok(Self {
            client,
            ocp: address(own.as_deref().unwrap_or(PUBLIC_GRAPH_URL), "UPDATE_URL_OVERRIDE")?,
            own: own.is_some(),
            okd: address(
                given(&options.okd_url).as_deref().unwrap_or(PUBLIC_OKD_GRAPH_URL),
                "the address of OKD's graph",
            )?,
            graph_data: given(&options.graph_data),
            id: given(&options.id).unwrap_or_else(random_id),
        })
    }

    /// Whether the user named an update service of their own.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// The address that a question goes to.
    fn url(&self, query: &Query) -> Url {
        let mut url = match query.service {
            Service::Ocp => self.ocp.clone(),
            Service::Okd => self.okd.clone(),
        };
        url.query_pairs_mut()
            .append_pair("arch", query.architecture.name())
            .append_pair("channel", query.channel.as_str())
            .append_pair("id", &self.id);
        url
    }

    /// Fetches the data that graphs are made of: from where the user says, else beside the user's own update service, else from the public
    /// one.
    pub async fn graph_data(&self) -> Result<GraphData, Error> {
        let beside = || {
            let mut url = self.ocp.clone();
            url.set_path(GRAPH_DATA_PATH);
            url.set_query(None);
            url
        };
        let url = match &self.graph_data {
            Some(place) if place.starts_with("http://") || place.starts_with("https://") => {
                address(place, "--graph-data")?
            }
            Some(place) => {
                let path = Path::new(place.strip_prefix("file://").unwrap_or(place));
                return Ok(GraphData::Archive { bytes: read_file(path)?, from: path.display().to_string() });
            }
            None if self.own => beside(),
            None => address(PUBLIC_GRAPH_DATA_URL, "the address of the graph data")?,
        };
        let from = shown(&url);
        let what = format!("fetch the graph data from {from}");
        let get = Get { url, accept: None, what: what.clone(), limit: MAX_GRAPH_DATA_BYTES };
        match self.client.get(&get).await {
            Ok(bytes) => {
                check_archive(&what, &bytes)?;
                Ok(GraphData::Archive { bytes, from })
            }
            Err(cause)
                if self.own
                    && self.graph_data.is_none()
                    && matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::Network) =>
            {
                Ok(GraphData::Enclave { cause })
            }
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl Graphs for GraphClient {
    fn describe(&self) -> String {
        shown(&self.ocp)
    }

    async fn answer(&self, query: &Query) -> Result<Arc<Answer>, Error> {
        let url = self.url(query);
        let limit = MAX_GRAPH_BYTES as u64;
        let get = Get { url, accept: Some(ACCEPT_GRAPH), what: query.what(), limit };
        let bytes = self.client.get(&get).await.map_err(|error| match error.kind() {
            // The service is there, but not at this path; a channel that it does not know would be an empty graph.
            ErrorKind::NotFound => error.with_kind(ErrorKind::Server).retryable(false).hint(
                "the address must be the whole address of the graph, such as https://HOST/api/upgrades_info/v1/graph; check \
                 UPDATE_URL_OVERRIDE",
            ),
            _ => error,
        })?;
        Ok(Arc::new(Answer::read(query, bytes)?))
    }
}

/// Scheme, host and path: an address may carry a password.
fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

fn address(text: &str, whose: &str) -> Result<Url, Error> {
    let bad =
        |cause: String| Error::new(ErrorKind::Invalid, format!("use {whose}"), cause).hint("write https://HOST/PATH");
    let url = Url::parse(text.trim()).map_err(|e| bad(format!("it is no address: {e}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(bad("it must begin with https:// or http://".to_owned()));
    }
    Ok(url)
}

fn read_file(path: &Path) -> Result<Bytes, Error> {
    let what = format!("read the graph data `{}`", path.display());
    let file = std::fs::File::open(path).map_err(|e| Error::io(what.as_str(), &e))?;
    let mut bytes = Vec::new();
    file.take(MAX_GRAPH_DATA_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io(what.as_str(), &e))?;
    if bytes.len() as u64 > MAX_GRAPH_DATA_BYTES {
        return Err(Error::new(ErrorKind::Unsupported, what, format!("it has more than {MAX_GRAPH_DATA_BYTES} bytes")));
    }
    check_archive(&what, &bytes)?;
    Ok(bytes.into())
}

/// A page for people, as a proxy gives it with status 200, is no archive.
fn check_archive(what: &str, bytes: &[u8]) -> Result<(), Error> {
    const GZIP: [u8; 2] = [0x1F, 0x8B];
    if bytes.starts_with(&GZIP) {
        return Ok(());
    }
    let page = bytes.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'<');
    let cause = if page { "a web page came instead" } else { "it is not compressed with gzip" };
    Err(Error::new(ErrorKind::Server, what, cause).retryable(false).hint(
        "it must be the gzip-compressed tar of channels/ and blocked-edges/ that an update service has at /graph-data",
    ))
}

/// A random identity (RFC 9562, version 4). No secret: it only keeps clients apart.
fn random_id() -> String {
    // Every RandomState has new keys, so the hash of nothing is a fresh random number.
    let random = || RandomState::new().build_hasher().finish();
    let (high, low) = (random(), random());
    let high = (high & !0xF000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xFFFF,
        high & 0xFFFF,
        low >> 48,
        low & 0xFFFF_FFFF_FFFF
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_random_and_of_version_4() {
        let (a, b) = (random_id(), random_id());
        assert_ne!(a, b);
        assert_eq!(a.len(), 36);
        assert_eq!(&a[14..15], "4");
        assert!("89ab".contains(&a[19..20]), "{a}");
    }
}
