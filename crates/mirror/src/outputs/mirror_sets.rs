//! ImageDigestMirrorSet, ImageTagMirrorSet and, for clusters before 4.13, ImageContentSourcePolicy (oc-mirror 9.1).
//!
//! Sorted and stable: the same images give the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use airlock_document::scalar;
use airlock_oci::Error;

use crate::plan::naming::is_local;
use crate::plan::{Image, Kind, Plan, Target, jobs};

/// A file of the cluster's resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// File name.
    pub name: String,
    /// YAML.
    pub text: String,
}

/// What goes into the annotations of every object.
#[derive(Clone, Debug)]
pub struct Stamp {
    /// RFC 3339.
    pub created: String,
    /// `airlock`, or `oc-mirror v2` where the program goes by that name.
    pub created_by: String,
    /// Version of the program.
    pub version: String,
}

type Mirrors = BTreeMap<String, BTreeSet<String>>;

/// The mirror sets of the images that are at the target. `legacy`: the cluster is older than 4.13.
pub fn mirror_sets(
    plan: &Plan,
    present: &dyn Fn(&Image) -> bool,
    target: &Target,
    legacy: bool,
    stamp: &Stamp,
    warnings: &mut Vec<String>,
) -> Result<Vec<Resource>, Error> {
    let (mut by_digest, mut by_tag): (BTreeMap<&str, Mirrors>, BTreeMap<&str, Mirrors>) = Default::default();
    for image in &plan.images {
        // A layout on disk and what was built here have no name that a cluster could ask for.
        let Some(category) = category(image.kind).filter(|_| present(image) && !is_local(&image.source)) else {
            continue;
        };
        let (source, mirror) = scope(image, target)?;
        if source == mirror {
            continue;
        }
        if image.source.digest().is_some() {
            by_digest.entry(category).or_default().entry(source.clone()).or_default().insert(mirror.clone());
        }
        if image.source.tag().is_some() || image.source.digest().is_none() {
            by_tag.entry(category).or_default().entry(source).or_default().insert(mirror);
        }
    }
    let mut resources = Vec::new();
    if legacy {
        // An ICSP knows digests only; older clusters have nothing for tags.
        push(&mut resources, "icsp-oc-mirror.yaml", documents(&by_digest, &Shape::ICSP, stamp));
        let tags: BTreeSet<&String> = by_tag.values().flat_map(Mirrors::keys).collect();
        if let Some(first) = tags.first() {
            warnings.push(format!(
                "an ImageContentSourcePolicy serves digests only: what is pulled by tag below {} of the sources, such as `{first}`, \
                 a cluster before 4.13 does not take from the mirror; name it by digest, or by the mirror's own name",
                tags.len()
            ));
        }
    } else {
        push(&mut resources, "idms-oc-mirror.yaml", documents(&by_digest, &Shape::IDMS, stamp));
        push(&mut resources, "itms-oc-mirror.yaml", documents(&by_tag, &Shape::ITMS, stamp));
    }
    Ok(resources)
}

fn push(resources: &mut Vec<Resource>, name: &str, text: String) {
    if !text.is_empty() {
        resources.push(Resource { name: name.into(), text });
    }
}

/// The object that an image's rule is in; none for what no cluster pulls by its upstream name.
fn category(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Release | Kind::ReleaseContent => Some("release"),
        Kind::Graph | Kind::Catalog => None,
        Kind::Bundle | Kind::Related => Some("operator"),
        Kind::Additional => Some("generic"),
    }
}

/// Source and mirror of the rule that covers an image: its namespace where the destination's path ends with the source's path,
/// else the repository itself. With a nesting limit always the repository.
fn scope(image: &Image, target: &Target) -> Result<(String, String), Error> {
    let source = image.source.name();
    let repository = jobs::destination(image, Some(target))?;
    let mirror = format!("{}/{repository}", target.registry);
    let path = image.source.repository().as_str();
    let kept = repository.as_str() == path || repository.as_str().ends_with(&format!("/{path}"));
    if target.max_nested_paths > 0 || !kept {
        return Ok((source, mirror));
    }
    let parent = |name: &str| name.rsplit_once('/').map_or_else(|| name.to_owned(), |(parent, _)| parent.to_owned());
    Ok((parent(&source), parent(&mirror)))
}

struct Shape {
    api_version: &'static str,
    kind: &'static str,
    prefix: &'static str,
    list: &'static str,
}

impl Shape {
    const IDMS: Self = Self {
        api_version: "config.openshift.io/v1",
        kind: "ImageDigestMirrorSet",
        prefix: "idms",
        list: "imageDigestMirrors",
    };
    const ITMS: Self = Self {
        api_version: "config.openshift.io/v1",
        kind: "ImageTagMirrorSet",
        prefix: "itms",
        list: "imageTagMirrors",
    };
    const ICSP: Self = Self {
        api_version: "operator.openshift.io/v1alpha1",
        kind: "ImageContentSourcePolicy",
        prefix: "icsp",
        list: "repositoryDigestMirrors",
    };
}

fn documents(categories: &BTreeMap<&str, Mirrors>, shape: &Shape, stamp: &Stamp) -> String {
    let mut out = String::new();
    for (category, mirrors) in categories {
        out.push_str(&format!(
            "---\napiVersion: {}\nkind: {}\nmetadata:\n  annotations:\n    createdAt: \"{}\"\n    createdBy: {}\n    {}_version: {}\n  name: {}-{category}-0\nspec:\n  {}:\n",
            shape.api_version,
            shape.kind,
            stamp.created,
            stamp.created_by,
            stamp.created_by.split(' ').next().unwrap_or_default(),
            stamp.version,
            shape.prefix,
            shape.list
        ));
        for (source, places) in mirrors {
            out.push_str("  - mirrors:\n");
            for place in places {
                out.push_str(&format!("    - {}\n", scalar(place)));
            }
            out.push_str(&format!("    source: {}\n", scalar(source)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_by_its_ipv6_address_is_no_list() {
        let stamp = Stamp { created: "2026-01-01T00:00:00Z".into(), created_by: "airlock".into(), version: "1".into() };
        let place = "[::1]:6113/x".to_owned();
        let mirrors = Mirrors::from([("[fd00::1]:5000/y".to_owned(), BTreeSet::from([place.clone()]))]);
        for shape in [Shape::IDMS, Shape::ITMS, Shape::ICSP] {
            let text = documents(&BTreeMap::from([("generic", mirrors.clone())]), &shape, &stamp);
            let object: serde_json::Value = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
            let entry = &object["spec"][shape.list][0];
            assert_eq!(entry["mirrors"][0].as_str(), Some(place.as_str()), "{text}");
            assert_eq!(entry["source"], "[fd00::1]:5000/y");
        }
    }
}
