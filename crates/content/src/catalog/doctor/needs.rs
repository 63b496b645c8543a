//! What bundles need of others, and whether what was chosen has it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;

use serde_json::Value;

use crate::catalog::model::{Bundle, Catalog, Gvk, Required, Text};
use crate::catalog::range::VersionRange;
use crate::catalog::select::Selection;
use crate::catalog::version::Version;

/// Something that a bundle needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// A package in some versions (`olm.package.required`).
    Package(Required),
    /// A kind that another bundle provides (`olm.gvk.required`).
    Kind(Gvk),
    /// A condition (`olm.constraint`), as JSON.
    Condition(Box<str>),
}

/// Whether a need is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    Yes,
    No,
    /// It depends on the cluster, or on an expression that only OLM can work out.
    Unknown,
}

/// What a set of bundles offers.
#[derive(Debug, Default)]
pub(super) struct Offers {
    packages: HashMap<Text, Vec<Version>>,
    kinds: HashSet<Gvk>,
}

/// What a bundle needs.
pub(super) fn needs(bundle: &Bundle) -> impl Iterator<Item = Need> {
    let needs = bundle.needs();
    let packages = needs.packages.iter().cloned().map(Need::Package);
    let kinds = needs.kinds.iter().cloned().map(Need::Kind);
    packages.chain(kinds).chain(needs.constraints.iter().cloned().map(Need::Condition))
}

impl Offers {
    /// Of everything that is kept.
    pub(super) fn of(catalog: &Catalog, selection: &Selection) -> Self {
        let mut offers = Self::default();
        for (name, kept) in &selection.packages {
            let Some(package) = catalog.package(name) else { continue };
            for bundle in kept.bundles.keys().filter_map(|bundle| package.bundle(bundle)) {
                offers.add(name, bundle);
            }
        }
        offers
    }

    /// Also of this bundle.
    pub(super) fn add(&mut self, package: &Text, bundle: &Bundle) {
        if let Some(version) = bundle.version.as_deref().and_then(Version::strict) {
            self.packages.entry(Text::clone(package)).or_default().push(version);
        }
        self.kinds.extend(bundle.needs().provides.iter().cloned());
    }

    /// Whether they meet a need.
    pub(super) fn meet(&self, need: &Need) -> Met {
        match need {
            Need::Package(required) => self.package(&required.package, &required.range),
            Need::Kind(kind) => yes(self.kinds.contains(kind)),
            Need::Condition(json) => match serde_json::from_str(json) {
                Ok(value) => self.condition(&value),
                Err(_) => Met::Unknown,
            },
        }
    }

    fn package(&self, name: &str, range: &str) -> Met {
        let Some(versions) = self.packages.get(name) else { return Met::No };
        match VersionRange::parse(range) {
            Some(range) => yes(versions.iter().any(|version| range.has(version))),
            None => Met::Unknown,
        }
    }

    /// As OLM's constraints are nested: all, any, not.
    fn condition(&self, value: &Value) -> Met {
        let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let inner = |value: &Value| -> Vec<Met> {
            value["constraints"].as_array().into_iter().flatten().map(|one| self.condition(one)).collect()
        };
        let Some(fields) = value.as_object() else { return Met::Unknown };
        for (kind, of) in fields {
            return match kind.as_str() {
                "failureMessage" => continue,
                "package" => self.package(&text(of, "packageName"), &text(of, "versionRange")),
                "gvk" => {
                    let part = |field: &str| Text::from(text(of, field));
                    yes(self.kinds.contains(&Gvk {
                        group: part("group"),
                        version: part("version"),
                        kind: part("kind"),
                    }))
                }
                "all" => all(&inner(of)),
                "any" => any(&inner(of)),
                "not" => match any(&inner(of)) {
                    Met::Yes => Met::No,
                    Met::No => Met::Yes,
                    Met::Unknown => Met::Unknown,
                },
                _ => Met::Unknown,
            };
        }
        Met::Unknown
    }
}

fn yes(met: bool) -> Met {
    if met { Met::Yes } else { Met::No }
}

fn all(met: &[Met]) -> Met {
    if met.contains(&Met::No) {
        Met::No
    } else if met.contains(&Met::Unknown) {
        Met::Unknown
    } else {
        Met::Yes
    }
}

fn any(met: &[Met]) -> Met {
    if met.contains(&Met::Yes) {
        Met::Yes
    } else if met.contains(&Met::Unknown) {
        Met::Unknown
    } else {
        Met::No
    }
}

/// The packages that a need speaks of, or that provide the kinds that it speaks of: where to look for what meets it.
pub(super) fn candidates(catalog: &Catalog, need: &Need) -> BTreeSet<Text> {
    let mut found = BTreeSet::new();
    match need {
        Need::Package(required) => {
            found.insert(Text::clone(&required.package));
        }
        Need::Kind(kind) => found.extend(providers(catalog, kind)),
        Need::Condition(json) => {
            if let Ok(value) = serde_json::from_str(json) {
                spoken_of(catalog, &value, &mut found);
            }
        }
    }
    found.retain(|name| catalog.package(name).is_some());
    found
}

fn spoken_of(catalog: &Catalog, value: &Value, found: &mut BTreeSet<Text>) {
    let text = |value: &Value, field: &str| Text::from(value[field].as_str().unwrap_or_default());
    for (kind, of) in value.as_object().into_iter().flatten() {
        match kind.as_str() {
            "package" => {
                found.insert(text(of, "packageName"));
            }
            "gvk" => {
                let kind = Gvk { group: text(of, "group"), version: text(of, "version"), kind: text(of, "kind") };
                found.extend(providers(catalog, &kind));
            }
            "all" | "any" => {
                for one in of["constraints"].as_array().into_iter().flatten() {
                    spoken_of(catalog, one, found);
                }
            }
            _ => {}
        }
    }
}

fn providers<'a>(catalog: &'a Catalog, kind: &Gvk) -> impl Iterator<Item = Text> + 'a {
    let kind = kind.clone();
    catalog
        .packages()
        .filter(move |package| package.bundles.iter().any(|b| b.needs().provides.contains(&kind)))
        .map(|package| Text::clone(&package.name))
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package(required) => write!(f, "package `{}` in version `{}`", required.package, required.range),
            Self::Kind(kind) => write!(f, "a bundle that provides `{kind}`"),
            Self::Condition(json) => {
                let value: Value = serde_json::from_str(json).unwrap_or_default();
                match value["failureMessage"].as_str() {
                    Some(message) => write!(f, "the condition \"{message}\" (`{json}`)"),
                    None => write!(f, "the condition `{json}`"),
                }
            }
        }
    }
}
