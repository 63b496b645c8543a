//! What is inside a release, for people: versions of Kubernetes, of the machines' system, … (updates-and-releases.md 5.2).

use std::collections::{BTreeMap, BTreeSet};

use semver::Version;
use serde::Serialize;

use super::ImageReferences;

/// `key=version` pairs, separated by commas.
const VERSIONS: &str = "io.openshift.build.versions";
/// `key=Display Name` pairs.
const DISPLAY_NAMES: &str = "io.openshift.build.version-display-names";
/// The machines' system, of which a release may have two streams.
const MACHINE_OS: &str = "machine-os";
/// The client, in whose images two builds may differ.
const KUBECTL: &str = "kubectl";

/// The versions that the components of a release report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComponentVersions {
    /// By key, such as `kubernetes`.
    pub versions: BTreeMap<String, ComponentVersion>,
    /// Keys that are reported with several versions.
    pub warnings: Vec<String>,
}

/// One version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ComponentVersion {
    /// The version; several, separated by commas, where components differ.
    pub version: String,
    /// What people call the key, such as "Red Hat Enterprise Linux CoreOS".
    pub display_name: String,
    /// Components that report it.
    pub tags: Vec<String>,
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',')
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, value)| !key.is_empty() && !value.is_empty())
}

impl ComponentVersions {
    /// Collects what the components report.
    pub fn of(references: &ImageReferences) -> Self {
        let mut found: BTreeMap<&str, (BTreeSet<&str>, Vec<String>)> = BTreeMap::new();
        let mut names: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for component in &references.components {
            for (key, version) in component.annotation(VERSIONS).map(pairs).into_iter().flatten() {
                // Other images carry a client of their own; what the release ships is in these.
                if key == KUBECTL && !matches!(component.name.as_str(), "cli" | "cli-artifacts") {
                    continue;
                }
                // What is no version, or tells a build, is not for people.
                if Version::parse(version).map_or(true, |v| !v.build.is_empty()) {
                    continue;
                }
                let (versions, tags) = found.entry(key).or_default();
                versions.insert(version);
                tags.push(component.name.clone());
            }
            for (key, name) in component.annotation(DISPLAY_NAMES).map(pairs).into_iter().flatten() {
                names.entry(key).or_default().insert(name);
            }
        }
        let mut this = Self::default();
        for (key, (versions, tags)) in found {
            let usual = match key {
                MACHINE_OS => usize::MAX,
                KUBECTL => 2,
                _ => 1,
            };
            let version = versions.iter().copied().collect::<Vec<_>>().join(", ");
            if versions.len() > usual {
                this.warnings.push(format!("components report several versions of {key}: {version}"));
            }
            let display_name = names.get(key).map(|n| n.iter().copied().collect::<Vec<_>>().join(", "));
            let display_name = display_name.unwrap_or_default();
            this.versions.insert(key.to_owned(), ComponentVersion { version, display_name, tags });
        }
        this
    }
}

#[cfg(test)]
mod tests {
    use super::super::Component;
    use super::*;

    fn release(components: &[(&str, &str, &str)]) -> ImageReferences {
        let components = components.iter().map(|(name, versions, names)| Component {
            name: (*name).into(),
            image: format!("q.io/a@sha256:{}", "0".repeat(64)).parse().unwrap(),
            annotations: [(VERSIONS, versions), (DISPLAY_NAMES, names)].map(|(k, v)| (k.into(), (*v).into())).into(),
        });
        ImageReferences {
            name: "1".into(),
            created: None,
            annotations: BTreeMap::new(),
            components: components.collect(),
        }
    }

    #[test]
    fn versions_are_collected_and_differences_named() {
        let found = ComponentVersions::of(&release(&[
            ("cli", "kubectl=1.30.1,kubernetes=1.30.4", ""),
            ("other", "kubectl=1.2.3, broken, x=, y=not-a-version,z=1.0.0+build", ""),
            ("hyperkube", "kubernetes=1.30.4", "kubernetes=Kube"),
            ("machine-os", "machine-os=418.94.1-0", "machine-os=Red Hat Enterprise Linux CoreOS"),
            ("machine-os-2", "machine-os=418.96.1-0,etcd=3.5.1", ""),
            ("etcd", "etcd=3.5.2", ""),
        ]));
        let text: Vec<String> =
            found.versions.iter().map(|(k, v)| format!("{k}={} {}", v.version, v.display_name)).collect();
        assert_eq!(
            text,
            [
                "etcd=3.5.1, 3.5.2 ",
                "kubectl=1.30.1 ",
                "kubernetes=1.30.4 Kube",
                "machine-os=418.94.1-0, 418.96.1-0 Red Hat Enterprise Linux CoreOS"
            ]
        );
        assert_eq!(found.warnings, ["components report several versions of etcd: 3.5.1, 3.5.2"]);
        assert_eq!(found.versions["kubernetes"].tags, ["cli", "hyperkube"]);
    }
}
