//! The configuration with every catalog by its digest, so that the same run can be had again; for mirroring and for deleting (oc-mirror 3.9).

use serde_json::{Map, Value, json};

use super::yaml::yaml;
use crate::config::{ImageLocation, Loaded};
use crate::plan::Plan;

/// What a configuration for deleting may say.
const DELETED: [&str; 4] = ["platform", "operators", "additionalImages", "helm"];

/// The pinned `ImageSetConfiguration` and `DeleteImageSetConfiguration`; none where no catalog is named by a tag, unless they are
/// wanted `always`, as oc-mirror's scripts do.
pub fn pinned(loaded: &Loaded, plan: &Plan, always: bool) -> Option<(String, String)> {
    let entries = &loaded.config.mirror.operators;
    let mut written: Value = serde_saphyr::from_str(&loaded.text).ok()?;
    let operators = written.get_mut("mirror")?.get_mut("operators").and_then(Value::as_array_mut);
    let mut any = always;
    for (entry, value) in entries.iter().zip(operators.into_iter().flatten()) {
        let (ImageLocation::Registry(reference), Some(object)) = (&entry.catalog.location, value.as_object_mut())
        else {
            continue;
        };
        let catalog = plan.catalogs.iter().find(|catalog| catalog.name == entry.catalog.text);
        let (None, Some(tag), Some(catalog)) = (reference.digest(), reference.tag(), catalog) else { continue };
        let text = &entry.catalog.text;
        // The name as it was written, without its tag.
        let name = text.strip_suffix(&format!(":{tag}")).unwrap_or(text);
        object.insert("catalog".into(), json!(format!("{name}@{}", catalog.published)));
        if entry.target_tag.is_none() {
            object.insert("targetTag".into(), json!(tag.as_str()));
        }
        any = true;
    }
    if !any {
        return None;
    }
    let mirror = written.get("mirror").cloned().unwrap_or_default();
    let kept: Map<String, Value> =
        DELETED.iter().filter_map(|key| Some(((*key).to_owned(), mirror.get(*key)?.clone()))).collect();
    let delete = json!({
        "apiVersion": written.get("apiVersion").cloned().unwrap_or_default(),
        "kind": "DeleteImageSetConfiguration",
        "delete": kept,
    });
    Some((yaml(&written), yaml(&delete)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::plan::Catalog;
    use airlock_oci::{Digest, Repository, Tag};

    #[test]
    fn without_catalogs_there_is_something_only_when_it_is_always_wanted() {
        let text = "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\nmirror:\n  additionalImages:\n  - name: r.io/a:v1\n";
        let loaded = config::parse("isc.yaml", text).unwrap();
        assert!(pinned(&loaded, &Plan::new(), false).is_none());
        let (mirror, delete) = pinned(&loaded, &Plan::new(), true).unwrap();
        assert_eq!(config::parse("isc.yaml", &mirror).unwrap().config.mirror.additional_images.len(), 1);
        assert_eq!(config::parse_delete("disc.yaml", &delete).unwrap().config.delete.additional_images.len(), 1);
    }

    #[test]
    fn catalogs_by_tag_are_pinned_and_others_stay() {
        let text = "kind: ImageSetConfiguration\napiVersion: mirror.openshift.io/v2alpha1\narchiveSize: 4\nmirror:\n  operators:\n  - catalog: r.io/a/index:v1\n    packages:\n    - name: x\n  - catalog: oci:///srv/index\n  blockedImages:\n  - name: \"y\"\n";
        let loaded = config::parse("isc.yaml", text).unwrap();
        let digest = Digest::of(b"catalog");
        let mut plan = Plan::new();
        assert!(pinned(&loaded, &plan, false).is_none());
        let (unchanged, _) = pinned(&loaded, &plan, true).unwrap();
        assert!(unchanged.contains("r.io/a/index:v1"), "{unchanged}");
        plan.catalogs.push(Catalog {
            name: "r.io/a/index:v1".into(),
            source: "r.io/a/index:v1".parse().unwrap(),
            published: digest.clone(),
            digest: Digest::of(b"smaller"),
            repository: Repository::new("a/index").unwrap(),
            tag: Tag::new("v1").unwrap(),
            rules: "table".into(),
            whole: false,
            packages: std::collections::BTreeMap::new(),
        });
        let (mirror, delete) = pinned(&loaded, &plan, false).unwrap();
        let again = config::parse("isc.yaml", &mirror).unwrap().config;
        assert_eq!(again.mirror.operators[0].catalog.text, format!("r.io/a/index@{digest}"));
        assert_eq!(again.mirror.operators[0].target_tag.as_ref().map(Tag::as_str), Some("v1"));
        assert_eq!(again.mirror.operators[1].catalog.text, "oci:///srv/index");
        assert_eq!(again.mirror.blocked_images.len(), 1);
        let delete = config::parse_delete("disc.yaml", &delete).unwrap();
        assert_eq!(delete.config.delete.operators[0].catalog.text, format!("r.io/a/index@{digest}"));
        assert!(delete.config.delete.blocked_images.is_empty());
    }
}
