//! What clusters need of operator catalogs: CatalogSource and ClusterCatalog of each, and the patch that switches the default sources off.

use std::collections::HashSet;
use std::path::Path;

use airlock_oci::{Digest, Error};
use serde_json::{Map, Value, json};

use super::mirror_sets::{Resource, Stamp};
use super::yaml::{sorted, yaml};
use crate::config::Loaded;
use crate::plan::{Catalog, Image, Kind, Plan, Target, jobs};

/// Characters of a tag that are part of an object's name (oc-mirror 9.2).
const SUFFIX_CHARACTERS: usize = 12;
/// Most characters of an object's name (DNS-1035).
const MAX_NAME_CHARACTERS: usize = 63;
/// Characters of a digest that tell two catalogs of one name apart.
const MARK_CHARACTERS: usize = 8;
/// The largest template that is read (bytes).
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;
/// Where catalogs are looked for by every namespace.
const NAMESPACE: &str = "openshift-marketplace";

/// The objects of the catalogs that are at the target. Templates that cannot be used are told in `warnings`.
pub fn catalogs(
    plan: &Plan,
    loaded: &Loaded,
    present: &dyn Fn(&Image) -> bool,
    target: &Target,
    stamp: &Stamp,
    warnings: &mut Vec<String>,
) -> Result<Vec<Resource>, Error> {
    let mut resources = Vec::new();
    let mut taken: HashSet<String> = HashSet::new();
    for catalog in &plan.catalogs {
        let Some(image) = plan.images.iter().find(|image| is_of(image, catalog) && present(image)) else { continue };
        let repository = jobs::destination(image, Some(target))?;
        let reference = format!("{}/{repository}:{}", target.registry, image.tag);
        let mut name = name_of(repository.as_str(), image.tag.as_str());
        if !taken.insert(name.clone()) {
            // Another namespace has a catalog of this name and tag.
            let mark = Digest::of(repository.as_str().as_bytes());
            name.truncate(MAX_NAME_CHARACTERS - "cs-".len() - MARK_CHARACTERS - 1);
            name = format!("{name}-{}", &mark.hex()[..MARK_CHARACTERS]);
            taken.insert(name.clone());
        }
        let source = format!("cs-{name}");
        let template = loaded
            .config
            .mirror
            .operators
            .iter()
            .find(|entry| entry.catalog.text == catalog.name)
            .and_then(|entry| entry.target_catalog_source_template.as_deref());
        let object = match template.map(read_template) {
            Some(Err(cause)) => {
                warnings.push(format!(
                    "the template of {source} cannot be used, a plain CatalogSource is written instead: {cause}"
                ));
                None
            }
            Some(Ok(template)) => Some(template),
            None => None,
        };
        let object = filled(object.unwrap_or_default(), &source, &reference, stamp);
        resources.push(Resource { name: format!("{source}.yaml"), text: yaml(&object) });
        let cluster = json!({
            "apiVersion": "olm.operatorframework.io/v1",
            "kind": "ClusterCatalog",
            "metadata": { "annotations": annotations(stamp), "name": format!("cc-{name}") },
            "spec": { "priority": 0, "source": { "image": { "ref": reference }, "type": "Image" } },
        });
        resources.push(Resource { name: format!("cc-{name}.yaml"), text: yaml(&cluster) });
    }
    Ok(resources)
}

/// The JSON patch of the cluster's OperatorHub that switches the default catalog sources off: without a way to the internet they are
/// reported as broken for ever. It is no object, so it lies in no folder that is applied as a whole.
pub fn operator_hub(plan: &Plan, present: &dyn Fn(&Image) -> bool) -> Option<String> {
    let any = plan.catalogs.iter().any(|catalog| plan.images.iter().any(|i| is_of(i, catalog) && present(i)));
    any.then(|| {
        let patch = json!([{"op": "add", "path": "/spec/disableAllDefaultSources", "value": true}]);
        format!("{}\n", sorted(&patch))
    })
}

fn is_of(image: &Image, catalog: &Catalog) -> bool {
    image.kind == Kind::Catalog
        && !image.original
        && image.repository == catalog.repository
        && image.tag == catalog.tag
        && image.digest == catalog.digest
}

/// `<last component>-<tag>` as a name that Kubernetes takes.
fn name_of(repository: &str, tag: &str) -> String {
    let plain = |text: &str| -> String {
        let text = text.to_lowercase();
        text.chars().map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect()
    };
    let last = plain(repository.rsplit('/').next().unwrap_or(repository));
    let mut suffix: String = plain(tag).chars().take(SUFFIX_CHARACTERS).collect();
    if suffix.is_empty() {
        suffix.push('0');
    }
    let mut name = format!("{last}-{suffix}");
    name.truncate(MAX_NAME_CHARACTERS - "cs-".len());
    name.trim_end_matches('-').to_owned()
}

fn annotations(stamp: &Stamp) -> Value {
    let program = stamp.created_by.split(' ').next().unwrap_or_default();
    json!({
        "createdAt": stamp.created,
        "createdBy": stamp.created_by,
        (format!("{program}_version")): stamp.version,
    })
}

/// A template as far as it may be used (oc-mirror 9.4).
fn read_template(path: &Path) -> Result<Map<String, Value>, String> {
    let at = path.display();
    let size = std::fs::metadata(path).map_err(|e| format!("{at}: {e}"))?.len();
    if size > MAX_TEMPLATE_BYTES {
        return Err(format!("{at} has {size} bytes, more than {MAX_TEMPLATE_BYTES}"));
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("{at}: {e}"))?;
    let value: Value = serde_saphyr::from_str(&text).map_err(|e| format!("{at}: {e}"))?;
    let Value::Object(object) = value else { return Err(format!("{at} is no object")) };
    let is = |field: &str, wanted: &str| object.get(field).and_then(Value::as_str) == Some(wanted);
    if !is("apiVersion", "operators.coreos.com/v1alpha1") || !is("kind", "CatalogSource") {
        return Err(format!("{at} is no CatalogSource of operators.coreos.com/v1alpha1"));
    }
    let spec = object.get("spec").cloned().unwrap_or_default();
    let kind = spec.get("sourceType").and_then(Value::as_str).unwrap_or_default();
    if !["", "grpc"].contains(&kind) {
        return Err(format!("{at}: its sourceType is `{kind}`, a catalog in an image needs `grpc`"));
    }
    if spec.get("configMap").and_then(Value::as_str).is_some_and(|name| !name.is_empty()) {
        return Err(format!("{at}: it names a configMap, which a catalog in an image has none of"));
    }
    Ok(object)
}

/// A CatalogSource: what belongs to this catalog, and everything else as the template has it.
fn filled(mut object: Map<String, Value>, name: &str, image: &str, stamp: &Stamp) -> Value {
    object.insert("apiVersion".into(), json!("operators.coreos.com/v1alpha1"));
    object.insert("kind".into(), json!("CatalogSource"));
    object.remove("status");
    let metadata = member(&mut object, "metadata");
    metadata.remove("creationTimestamp");
    metadata.insert("name".into(), json!(name));
    metadata.insert("namespace".into(), json!(NAMESPACE));
    if let Value::Object(ours) = annotations(stamp) {
        member(metadata, "annotations").extend(ours);
    }
    let spec = member(&mut object, "spec");
    spec.insert("sourceType".into(), json!("grpc"));
    spec.insert("image".into(), json!(image));
    Value::Object(object)
}

/// The object under a key; one comes into being where there is none.
fn member<'a>(object: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = object.entry(key).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp { created: "2026-01-01T00:00:00Z".into(), created_by: "oc-mirror v2".into(), version: "v1".into() }
    }

    #[test]
    fn names_are_those_of_oc_mirror() {
        for (repository, tag, name) in [
            ("ns/redhat/redhat-operator-index", "v4.15", "redhat-operator-index-v4-15"),
            ("oc-mirror/oc-mirror-dev", "sha256-0f6ef0123456", "oc-mirror-dev-sha256-0f6ef"),
            ("a/My_Index", "Latest", "my-index-latest"),
        ] {
            assert_eq!(name_of(repository, tag), name);
        }
        assert!(name_of(&"x".repeat(200), "v1").len() <= 60);
    }

    #[test]
    fn a_template_keeps_what_is_not_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cs.yaml");
        let text = "apiVersion: operators.coreos.com/v1alpha1\nkind: CatalogSource\nmetadata:\n  name: mine\n  annotations: {a: b}\n\
                    spec:\n  sourceType: grpc\n  displayName: Ours\n  grpcPodConfig:\n    securityContextConfig: restricted\n";
        std::fs::write(&path, text).unwrap();
        let object = filled(read_template(&path).unwrap(), "cs-x-v1", "r:5000/x:v1", &stamp());
        let read: Value = serde_saphyr::from_str(&yaml(&object)).unwrap();
        assert_eq!(read["metadata"]["name"], "cs-x-v1");
        assert_eq!(read["metadata"]["annotations"]["a"], "b");
        assert_eq!(read["metadata"]["annotations"]["createdBy"], "oc-mirror v2");
        assert_eq!(read["spec"]["grpcPodConfig"]["securityContextConfig"], "restricted");
        assert_eq!((&read["spec"]["displayName"], &read["spec"]["image"]), (&json!("Ours"), &json!("r:5000/x:v1")));
        for (from, to, why) in [
            ("sourceType: grpc", "sourceType: internal", "internal"),
            ("kind: CatalogSource", "kind: Subscription", "no CatalogSource"),
            ("displayName: Ours", "configMap: there", "configMap"),
        ] {
            std::fs::write(&path, text.replace(from, to)).unwrap();
            assert!(read_template(&path).unwrap_err().contains(why), "{to}");
        }
    }
}
