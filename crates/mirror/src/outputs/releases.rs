//! What clusters need besides the images of their releases: signatures to trust them by, an update service, and the words that update by hand.

use airlock_document::scalar;
use airlock_oci::Error;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;

use super::mirror_sets::{Resource, Stamp};
use crate::plan::naming::is_local;
use crate::plan::{Documents, Image, Kind, Plan, Release, Target, jobs};

/// The label by which a cluster finds signatures (updates-and-releases 6).
const LABEL: &str = "release.openshift.io/verification-signatures";
/// Replicas of the update service (oc-mirror 9.5).
const REPLICAS: u32 = 2;

/// Signatures (YAML and JSON), the update service, and mirrors for an `install-config.yaml`; of what is at the target.
pub fn releases(
    plan: &Plan,
    documents: &Documents,
    present: &dyn Fn(&Image) -> bool,
    target: &Target,
    stamp: &Stamp,
) -> Result<Vec<Resource>, Error> {
    let here: Vec<(&Release, &Image)> = arrived(plan, present).collect();
    let mut resources = Vec::new();
    let signatures: Vec<(String, String)> = here
        .iter()
        .filter_map(|(release, _)| {
            let bytes = documents.get(release.signature.as_ref()?)?;
            Some((format!("{}-{}-1", release.digest.algorithm(), release.digest.hex()), BASE64.encode(bytes)))
        })
        .collect();
    if !signatures.is_empty() {
        resources.push(Resource { name: "signature-configmap.json".into(), text: config_map_json(&signatures, stamp) });
        resources.push(Resource { name: "signature-configmap.yaml".into(), text: config_map_yaml(&signatures, stamp) });
    }
    let graph = plan.images.iter().find(|i| i.kind == Kind::Graph && present(i));
    if let (Some(graph), Some((_, payload))) = (graph, here.first()) {
        let at =
            |image: &Image| Ok::<_, Error>(format!("{}/{}", target.registry, jobs::destination(image, Some(target))?));
        resources.push(Resource {
            name: "updateService.yaml".into(),
            text: update_service(&at(payload)?, &format!("{}:{}", at(graph)?, graph.tag), stamp),
        });
    }
    Ok(resources)
}

/// The releases whose payload is at the target, with the payload's image.
fn arrived<'a>(
    plan: &'a Plan,
    present: &'a dyn Fn(&Image) -> bool,
) -> impl Iterator<Item = (&'a Release, &'a Image)> + 'a {
    plan.releases.iter().filter_map(|release| {
        let payload = plan
            .images
            .iter()
            .find(|i| i.kind == Kind::Release && i.digest == release.digest && i.tag == release.tag && present(i))?;
        Some((release, payload))
    })
}

/// For each release at the target, the line that updates a cluster to it.
pub fn updates_by_hand(
    plan: &Plan,
    present: &dyn Fn(&Image) -> bool,
    target: &Target,
) -> Result<Vec<(String, String)>, Error> {
    arrived(plan, present)
        .map(|(release, image)| {
            let repository = jobs::destination(image, Some(target))?;
            let reference = format!("{}/{repository}@{}", target.registry, release.digest);
            Ok((release.version.clone(), format!("oc adm upgrade --allow-explicit-upgrade --to-image {reference}")))
        })
        .collect()
}

/// `imageDigestSources` for the `install-config.yaml` of a new cluster; none when no release arrived.
pub fn install_config(plan: &Plan, present: &dyn Fn(&Image) -> bool, target: &Target) -> Result<Option<String>, Error> {
    let mut pairs = std::collections::BTreeSet::new();
    for image in plan.images.iter().filter(|i| i.kind.is_release() && present(i) && !is_local(&i.source)) {
        let repository = jobs::destination(image, Some(target))?;
        pairs.insert((image.source.name(), format!("{}/{repository}", target.registry)));
    }
    if pairs.is_empty() {
        return Ok(None);
    }
    let mut text = String::from("imageDigestSources:\n");
    for (source, mirror) in pairs {
        text.push_str(&format!("- mirrors:\n  - {}\n  source: {}\n", scalar(&mirror), scalar(&source)));
    }
    Ok(Some(text))
}

fn annotations(stamp: &Stamp) -> [(String, &str); 3] {
    let key = format!("{}_version", stamp.created_by.split(' ').next().unwrap_or_default());
    [("createdAt".into(), &stamp.created), ("createdBy".into(), &stamp.created_by), (key, &stamp.version)]
}

fn metadata_yaml(stamp: &Stamp) -> String {
    let mut text = String::from("metadata:\n  annotations:\n");
    for (key, value) in annotations(stamp) {
        // A time in YAML is a string only in quotes.
        let value = if key == "createdAt" { format!("\"{value}\"") } else { value.to_owned() };
        text.push_str(&format!("    {key}: {value}\n"));
    }
    text
}

fn config_map_yaml(signatures: &[(String, String)], stamp: &Stamp) -> String {
    let mut text = String::from("apiVersion: v1\nbinaryData:\n");
    for (key, value) in signatures {
        text.push_str(&format!("  {key}: {value}\n"));
    }
    text.push_str("kind: ConfigMap\n");
    text.push_str(&metadata_yaml(stamp));
    text.push_str(&format!(
        "  labels:\n    {LABEL}: \"\"\n  name: mirrored-release-signatures\n  namespace: openshift-config-managed\n"
    ));
    text
}

fn config_map_json(signatures: &[(String, String)], stamp: &Stamp) -> String {
    let annotations: serde_json::Map<_, _> =
        annotations(stamp).into_iter().map(|(k, v)| (k, serde_json::Value::from(v))).collect();
    let data: serde_json::Map<_, _> =
        signatures.iter().map(|(k, v)| (k.clone(), serde_json::Value::from(v.as_str()))).collect();
    let object = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "annotations": annotations,
            "labels": { LABEL: "" },
            "name": "mirrored-release-signatures",
            "namespace": "openshift-config-managed",
        },
        "binaryData": data,
    });
    format!("{}\n", serde_json::to_string_pretty(&object).unwrap_or_default())
}

fn update_service(releases: &str, graph: &str, stamp: &Stamp) -> String {
    format!(
        "apiVersion: updateservice.operator.openshift.io/v1\nkind: UpdateService\n{}  name: update-service-oc-mirror\n  \
         namespace: openshift-update-service\nspec:\n  graphDataImage: {}\n  releases: {}\n  replicas: {REPLICAS}\n",
        metadata_yaml(stamp),
        scalar(graph),
        scalar(releases)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_by_its_ipv6_address_is_no_list() {
        let stamp = Stamp { created: "2026-01-01T00:00:00Z".into(), created_by: "airlock".into(), version: "1".into() };
        let text = update_service("[::1]:6113/ns/release-images", "[::1]:6113/ns/graph:latest", &stamp);
        let object: serde_json::Value = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(object["spec"]["releases"], "[::1]:6113/ns/release-images");
    }
}
