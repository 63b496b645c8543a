//! Objects that are to be applied to a cluster: what is in a folder of cluster resources, in the order in which it is applied.
//!
//! Only kinds that a mirroring run makes are taken. A folder that holds anything else is a mistake, and applying half of it
//! would be worse than applying nothing.

use serde::Serialize;
use serde_json::Value;

use crate::objects::{Objects, Others};
use crate::problem::{Problem, Problems, Severity, code};

/// A kind that can be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `kind`.
    pub kind: &'static str,
    /// `apiVersion`.
    pub api_version: &'static str,
    /// In addresses.
    pub plural: &'static str,
    /// It lives in a namespace.
    pub namespaced: bool,
}

/// In the order of applying: rules first and all together, since everything after them is pulled through them, and because one
/// change of the rules is one roll-out where two are two.
pub const KINDS: [Kind; 8] = [
    Kind::new("ImageDigestMirrorSet", "config.openshift.io/v1", "imagedigestmirrorsets", false),
    Kind::new("ImageTagMirrorSet", "config.openshift.io/v1", "imagetagmirrorsets", false),
    Kind::new("ImageContentSourcePolicy", "operator.openshift.io/v1alpha1", "imagecontentsourcepolicies", false),
    Kind::new("ConfigMap", "v1", "configmaps", true),
    Kind::new("Image", "config.openshift.io/v1", "images", false),
    Kind::new("CatalogSource", "operators.coreos.com/v1alpha1", "catalogsources", true),
    Kind::new("ClusterCatalog", "olm.operatorframework.io/v1", "clustercatalogs", false),
    Kind::new("UpdateService", "updateservice.operator.openshift.io/v1", "updateservices", true),
];

/// An object that is to be applied.
#[derive(Clone, Debug, Serialize)]
pub struct Resource {
    /// `imagedigestmirrorset.config.openshift.io/name`, as kubectl prints it.
    pub title: String,
    /// Empty for kinds without one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The file.
    pub file: String,
    /// Where the API has it, from the root of the server.
    pub path: String,
    /// The object itself.
    #[serde(skip)]
    pub object: Value,
}

impl Kind {
    const fn new(kind: &'static str, api_version: &'static str, plural: &'static str, namespaced: bool) -> Self {
        Self { kind, api_version, plural, namespaced }
    }

    /// Where the API has an object of this kind.
    pub fn path(&self, namespace: &str, name: &str) -> String {
        let root = if self.api_version.contains('/') { "/apis" } else { "/api" };
        let within = if self.namespaced { format!("namespaces/{namespace}/") } else { String::new() };
        format!("{root}/{}/{within}{}/{name}", self.api_version, self.plural)
    }

    fn title(&self, name: &str) -> String {
        let group = self.api_version.split_once('/').map_or("", |(group, _)| group);
        let dot = if group.is_empty() { "" } else { "." };
        format!("{}{dot}{group}/{name}", self.kind.to_lowercase())
    }
}

/// The objects of files (name and text), in the order of applying. Anything wrong in any of them refuses all.
pub fn read(files: &[(String, String)]) -> Result<Vec<Resource>, Problems> {
    // Rules are read strictly: a field that is misspelt would be dropped in silence by the API server.
    let (_, mut problems) = Objects::read(files, Others::Ignore);
    problems.retain(|problem| problem.severity == Severity::Error);
    let mut found: Vec<(usize, Resource)> = Vec::new();
    for (file, text) in files {
        let documents: Vec<Value> = match serde_saphyr::from_multiple(text) {
            Ok(documents) => documents,
            // What is no YAML was told above.
            Err(_) if !problems.is_empty() => continue,
            Err(error) => {
                problems.push(Problem::of_file(code::SYNTAX, file, error.to_string()));
                continue;
            }
        };
        for object in documents.into_iter().flat_map(items) {
            match resource(file, object) {
                Ok(one) => found.push(one),
                Err(problem) => problems.push(*problem),
            }
        }
    }
    if found.is_empty() && problems.is_empty() {
        problems.push(Problem::of_file(code::EMPTY, "", "there is no object to apply"));
    }
    if !problems.is_empty() {
        return Err(Problems(problems));
    }
    found.sort_by(|(a, one), (b, other)| (a, &one.namespace, &one.title).cmp(&(b, &other.namespace, &other.title)));
    for pair in found.windows(2) {
        if pair[0].1.path == pair[1].1.path {
            let message = format!("{} is also in `{}`", pair[1].1.title, pair[0].1.file);
            return Err(Problem::of_file(code::DUPLICATE_KEY, &pair[1].1.file, message).into());
        }
    }
    Ok(found.into_iter().map(|(_, resource)| resource).collect())
}

/// The objects of a `List`, or the object itself; nothing of an empty document.
fn items(mut document: Value) -> Vec<Value> {
    if document.is_null() {
        return Vec::new();
    }
    if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"))
        && let Value::Array(items) = document["items"].take()
    {
        return items;
    }
    vec![document]
}

fn resource(file: &str, object: Value) -> Result<(usize, Resource), Box<Problem>> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (kind, api_version, name) = (text("/kind"), text("/apiVersion"), text("/metadata/name"));
    let wrong = |code, message: String, hint: &str| Box::new(Problem::of_file(code, file, message).hint(hint));
    let Some(at) = KINDS.iter().position(|k| k.kind == kind && k.api_version == api_version) else {
        let known: Vec<&str> = KINDS.iter().map(|k| k.kind).collect();
        let message = if kind.is_empty() {
            "an object has no `kind`".to_owned()
        } else {
            format!("`{kind}` ({api_version}) is nothing that a mirroring run makes")
        };
        return Err(wrong(code::KIND, message, &format!("the folder may hold {}", known.join(", "))));
    };
    let kind = &KINDS[at];
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    if name.is_empty() || !name.chars().all(valid) {
        return Err(wrong(
            code::MISSING,
            format!("`metadata.name` of a {} is missing or no name", kind.kind),
            "names have lower-case letters, digits, `-` and `.`",
        ));
    }
    let namespace = if kind.namespaced { text("/metadata/namespace") } else { String::new() };
    if kind.namespaced && (namespace.is_empty() || !namespace.chars().all(valid)) {
        return Err(wrong(
            code::MISSING,
            format!("`metadata.namespace` of {} is missing", kind.title(&name)),
            "say where it belongs",
        ));
    }
    let resource = Resource {
        title: kind.title(&name),
        path: kind.path(&namespace, &name),
        namespace,
        file: file.to_owned(),
        object,
    };
    Ok((at, resource))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, text: &str) -> (String, String) {
        (name.to_owned(), text.to_owned())
    }

    const CATALOG: &str = "apiVersion: operators.coreos.com/v1alpha1\nkind: CatalogSource\nmetadata: {name: cs, namespace: openshift-marketplace}\nspec: {image: m.lab/c:1}\n";
    const RULES: &str = "apiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata: {name: t}\nspec: {imageTagMirrors: [{source: quay.io, mirrors: [m.lab/q]}]}\n---\napiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata: {name: d}\nspec: {imageDigestMirrors: [{source: quay.io, mirrors: [m.lab/q]}]}\n";

    #[test]
    fn rules_come_first_and_paths_are_those_of_the_api() {
        let found = read(&[file("a.yaml", CATALOG), file("b.yaml", RULES)]).unwrap();
        let shown: Vec<_> = found.iter().map(|r| (r.title.as_str(), r.path.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("imagedigestmirrorset.config.openshift.io/d", "/apis/config.openshift.io/v1/imagedigestmirrorsets/d"),
                ("imagetagmirrorset.config.openshift.io/t", "/apis/config.openshift.io/v1/imagetagmirrorsets/t"),
                (
                    "catalogsource.operators.coreos.com/cs",
                    "/apis/operators.coreos.com/v1alpha1/namespaces/openshift-marketplace/catalogsources/cs"
                ),
            ]
        );
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: ns}\n";
        assert_eq!(read(&[file("m.yaml", map)]).unwrap()[0].path, "/api/v1/namespaces/ns/configmaps/m");
    }

    #[test]
    fn anything_else_refuses_all() {
        for (text, word) in [
            ("kind: Pod\napiVersion: v1\nmetadata: {name: p}\n", "nothing that a mirroring run makes"),
            ("a: [\n", "not valid YAML"),
            ("", "no object"),
            ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n", "namespace"),
            ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ../../x, namespace: n}\n", "no name"),
            (
                "apiVersion: config.openshift.io/v1\nkind: ImageTagMirrorSet\nmetadata: {name: t}\nspec: {imageDigestMirrors: []}\n",
                "imageDigestMirrors",
            ),
        ] {
            let problems = read(&[file("x.yaml", text)]).unwrap_err();
            assert!(problems.to_string().contains(word), "{text}: {problems}");
        }
        let twice = read(&[file("a.yaml", CATALOG), file("b.yaml", CATALOG)]).unwrap_err();
        assert!(twice.to_string().contains("also in `a.yaml`"), "{twice}");
    }
}
