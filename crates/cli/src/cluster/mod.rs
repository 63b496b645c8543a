//! A live cluster, through `kube`: credentials, TLS and proxies are its business, everything else is ours.
//!
//! Objects are asked for and sent as text. What is in them is read by the same code that reads dumps, so that a cluster and its
//! dump say the same; typed clients would read ten thousand pods into memory to look at their images.

pub(crate) mod usage;

use airlock_oci::{Error, ErrorKind};
use http::{Method, Request};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::args::cluster::KubeArgs;
use crate::exit::{Exit, Failure};

/// Under this name the cluster knows which fields are ours.
const FIELD_MANAGER: &str = "airlock";

/// Objects in one page of a list.
const PAGE: u32 = 500;

/// A cluster, and who we are to it.
pub(crate) struct Cluster {
    client: Client,
    server: String,
}

/// How far a change goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The cluster checks it and keeps nothing.
    pub dry_run: bool,
    /// Fields that others manage are taken over.
    pub force: bool,
}

fn request(method: Method, address: &str, media_type: &str, body: Vec<u8>) -> Result<Request<Vec<u8>>, Failure> {
    let mut request = Request::builder().method(method).uri(address).header("Accept", "application/json");
    if !media_type.is_empty() {
        request = request.header("Content-Type", media_type);
    }
    request.body(body).map_err(|e| Error::new(ErrorKind::Invalid, format!("ask for `{address}`"), e).into())
}

impl Cluster {
    /// The cluster of the kubeconfig, or the one that this pod runs in.
    pub(crate) async fn connect(args: &KubeArgs) -> Result<Self, Failure> {
        let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
        let wrong = |cause: String| {
            let error = Error::new(ErrorKind::Invalid, "find the cluster", cause)
                .hint("name the kubeconfig with --kubeconfig or KUBECONFIG, and its context with --context");
            Failure::Coded(error, Exit::Usage.code())
        };
        let config = match (&args.kubeconfig, &args.context) {
            (Some(path), _) => {
                let file = Kubeconfig::read_from(path).map_err(|e| wrong(chain(&e)))?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(|e| wrong(chain(&e)))?
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(|e| wrong(chain(&e)))?,
            (None, None) => Config::infer().await.map_err(|e| wrong(chain(&e)))?,
        };
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(config).map_err(|e| wrong(chain(&e)))?;
        Ok(Self { client, server })
    }

    /// Its address.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// The text of an object or list; `None` where there is no such thing.
    pub(crate) async fn get(&self, path: &str) -> Result<Option<String>, Failure> {
        let request = request(Method::GET, path, "", Vec::new())?;
        match self.client.request_text(request).await {
            Ok(text) => Ok(Some(text)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(self.failed(&format!("read `{path}`"), &error)),
        }
    }

    /// Server-side apply of one object.
    pub(crate) async fn apply(&self, path: &str, object: &Value, change: Change) -> Result<(), Failure> {
        let mut address = format!("{path}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict");
        address.push_str(if change.force { "&force=true" } else { "" });
        address.push_str(if change.dry_run { "&dryRun=All" } else { "" });
        self.send(&address, "application/apply-patch+yaml", object, &format!("apply `{path}`")).await
    }

    /// Merge patch of one object.
    pub(crate) async fn patch(&self, path: &str, patch: &Value) -> Result<(), Failure> {
        let address = format!("{path}?fieldManager={FIELD_MANAGER}");
        self.send(&address, "application/merge-patch+json", patch, &format!("change `{path}`")).await
    }

    async fn send(&self, address: &str, media_type: &str, body: &Value, what: &str) -> Result<(), Failure> {
        let body = serde_json::to_vec(body).map_err(|e| Error::new(ErrorKind::Invalid, what, e))?;
        let request = request(Method::PATCH, address, media_type, body)?;
        self.client.request_text(request).await.map(drop).map_err(|error| self.failed(what, &error))
    }

    /// What went wrong, with what helps. The message of the API server is for its users; a body never gets into it.
    fn failed(&self, what: &str, error: &kube::Error) -> Failure {
        let what = format!("{what} of {}", self.server);
        let (kind, cause, hint) = match error {
            kube::Error::Api(status) => {
                let (kind, hint) = match status.code {
                    401 => (ErrorKind::Unauthorized, "log in again: `oc login`"),
                    403 => (
                        ErrorKind::Denied,
                        "ask for a role that may do it: `cluster-reader` reads everything, `cluster-admin` may change it",
                    ),
                    404 => (
                        ErrorKind::NotFound,
                        "the cluster does not know this kind: an operator or a newer version is missing",
                    ),
                    409 => (
                        ErrorKind::Refused,
                        "somebody else changed it, or manages these fields: look at it, then try again (--force-conflicts takes fields over)",
                    ),
                    429 => (ErrorKind::TooManyRequests, "try again later"),
                    500.. => (ErrorKind::Server, "try again later"),
                    _ => (ErrorKind::Refused, "the cluster says why"),
                };
                (kind, format!("{} ({})", status.message, status.code), hint)
            }
            kube::Error::Service(_) | kube::Error::HyperError(_) => {
                (ErrorKind::Network, chain(error), "is the address right, and reachable from here?")
            }
            kube::Error::Auth(_) => (ErrorKind::Unauthorized, chain(error), "log in again: `oc login`"),
            other => (ErrorKind::Server, chain(other), "look at the address in the kubeconfig"),
        };
        Error::new(kind, what, cause).hint(hint).into()
    }
}

/// An error with everything beneath it, each once.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = error.source();
    }
    text
}
