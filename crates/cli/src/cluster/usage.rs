//! Images in use and rules of a live cluster. Read-only.

use airlock_oci::{Error, ErrorKind};
use airlock_rules::usage::{Form, Images};
use airlock_rules::{Objects, Others};
use serde_json::{Value, json};

use super::{Cluster, PAGE};
use crate::args::cluster::KubeArgs;
use crate::exit::Failure;

/// What has pod templates or names images, and whether every cluster has the kind. Copies of ClusterServiceVersions, one in each
/// namespace, are not asked for.
const USERS: [(&str, &str, bool); 12] = [
    ("/api/v1/pods", "", true),
    ("/apis/apps/v1/deployments", "", true),
    ("/apis/apps/v1/daemonsets", "", true),
    ("/apis/apps/v1/statefulsets", "", true),
    ("/apis/apps/v1/replicasets", "", true),
    ("/apis/batch/v1/jobs", "", true),
    ("/apis/batch/v1/cronjobs", "", true),
    ("/apis/apps.openshift.io/v1/deploymentconfigs", "", false),
    ("/apis/operators.coreos.com/v1alpha1/clusterserviceversions", "!olm.copiedFrom", false),
    ("/apis/operators.coreos.com/v1alpha1/catalogsources", "", false),
    ("/apis/config.openshift.io/v1/clusterversions", "", false),
    ("/apis/machineconfiguration.openshift.io/v1/controllerconfigs", "", false),
];

/// The rules, each kind with its `apiVersion`.
const RULES: [(&str, &str, &str); 3] = [
    ("/apis/config.openshift.io/v1/imagedigestmirrorsets", "config.openshift.io/v1", "ImageDigestMirrorSet"),
    ("/apis/config.openshift.io/v1/imagetagmirrorsets", "config.openshift.io/v1", "ImageTagMirrorSet"),
    (
        "/apis/operator.openshift.io/v1alpha1/imagecontentsourcepolicies",
        "operator.openshift.io/v1alpha1",
        "ImageContentSourcePolicy",
    ),
];

/// The cluster's image configuration.
pub(crate) const IMAGE_CONFIG: &str = "/apis/config.openshift.io/v1/images/cluster";
const CLUSTER_VERSION: &str = "/apis/config.openshift.io/v1/clusterversions/version";

/// The rules of a cluster, and the release that it runs.
pub(crate) struct Live {
    pub(crate) objects: Objects,
    pub(crate) release: Option<String>,
}

/// Adds what the cluster uses to `images`.
pub(crate) async fn read(args: &KubeArgs, images: &mut Images) -> Result<Live, Failure> {
    let cluster = Cluster::connect(args).await?;
    for (path, selector, required) in USERS {
        list(&cluster, path, selector, required, images).await?;
    }
    let mut files = Vec::new();
    for (path, api_version, kind) in RULES {
        if let Some(text) = cluster.get(path).await? {
            files.push(rules(&cluster, path, &text, api_version, kind)?);
        }
    }
    if let Some(text) = cluster.get(IMAGE_CONFIG).await? {
        let mut image = parse(&cluster, IMAGE_CONFIG, &text)?;
        let spec = image["spec"].take();
        files.push((
            format!("{}{IMAGE_CONFIG}", cluster.server()),
            object("config.openshift.io/v1", "Image", "cluster", &spec),
        ));
    }
    let objects = Objects::load_with(&files, Others::Ignore)?;
    let release = match cluster.get(CLUSTER_VERSION).await? {
        Some(text) => {
            let version = parse(&cluster, CLUSTER_VERSION, &text)?;
            version.pointer("/status/desired/image").and_then(Value::as_str).map(str::to_owned)
        }
        None => None,
    };
    Ok(Live { objects, release })
}

/// All pages of a list, each read and forgotten.
async fn list(
    cluster: &Cluster,
    path: &str,
    selector: &str,
    required: bool,
    images: &mut Images,
) -> Result<(), Failure> {
    let mut more: Option<String> = None;
    loop {
        let mut address = format!("{path}?limit={PAGE}");
        if !selector.is_empty() {
            address.push_str(&format!("&labelSelector={}", encoded(selector)));
        }
        if let Some(more) = &more {
            address.push_str(&format!("&continue={}", encoded(more)));
        }
        let what = || format!("read `{path}` of {}", cluster.server());
        let Some(text) = cluster.get(&address).await? else {
            if required {
                let error = Error::new(ErrorKind::NotFound, what(), "there is no such kind: this is no Kubernetes API");
                return Err(error.hint("look at the server's address in the kubeconfig").into());
            }
            return Ok(());
        };
        let page = images.read(cluster.server(), Form::Objects, text.as_bytes());
        let page = page.map_err(|e| Error::new(ErrorKind::Server, what(), e.cause))?;
        let next = page.more;
        if next.is_none() {
            return Ok(());
        }
        if next == more {
            return Err(Error::new(ErrorKind::Server, what(), "the list begins again and again").into());
        }
        more = next;
    }
}

fn parse(cluster: &Cluster, path: &str, text: &str) -> Result<Value, Failure> {
    let failed = |e| Error::new(ErrorKind::Server, format!("read `{path}` of {}", cluster.server()), e);
    Ok(serde_json::from_str(text).map_err(failed)?)
}

/// A list of the API as rules are written in files: its items go without a kind, and carry what only a cluster writes.
fn rules(
    cluster: &Cluster,
    path: &str,
    text: &str,
    api_version: &str,
    kind: &str,
) -> Result<(String, String), Failure> {
    let list = parse(cluster, path, text)?;
    let items = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let objects: Vec<String> = items
        .iter()
        .map(|item| object(api_version, kind, item["metadata"]["name"].as_str().unwrap_or_default(), &item["spec"]))
        .collect();
    Ok((format!("{}{path}", cluster.server()), objects.join("\n---\n")))
}

fn object(api_version: &str, kind: &str, name: &str, spec: &Value) -> String {
    let spec = if spec.is_null() { &json!({}) } else { spec };
    json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": name }, "spec": spec }).to_string()
}

/// For a query.
fn encoded(text: &str) -> String {
    let keep = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    text.bytes().map(|b| if keep(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
