//! Whether OLM would take and install what was chosen, found out before any bundle is fetched.
//!
//! * [`examine`] says what is wrong: what makes OLM refuse the whole catalog (a channel with two heads, a default channel that is not there), and
//!   what keeps a bundle from being installed (a package or a kind that it needs)
//! * [`mend`] proposes the smallest change of the filter after which it is right
//! * [`leave_out_broken`] keeps packages that OLM refuses from spoiling the others
//! * [`with_dependencies`] adds what is needed; nothing else ever does

mod channel;
mod dependencies;
mod mend;
mod needs;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use channel::ChannelFault;
pub use dependencies::{Added, with_dependencies};
pub use mend::{Mend, mend};
pub use needs::Need;

use super::model::{Catalog, Package, Text};
use super::select::{Asked, Dropped, Kept, Selection};
use super::version::Version;
pub(super) use channel::head;
use channel::kept_fault;
use needs::{Met, Offers, needs};

/// Bundles that a finding lists where all of them have the same small fault.
const MAX_LISTED: usize = 3;

/// Something that is wrong with a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The package.
    pub package: Text,
    /// What is wrong.
    pub problem: Problem,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// OLM takes no catalog that has such a package: none of its operators can be installed.
    Refused,
    /// The catalog is fine, but this cannot be installed from it alone.
    NotInstallable,
    /// It may be so; only OLM in the cluster can tell.
    Unsure,
    /// It can be installed, but not with the certainty that a digest gives.
    Loose,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Something in the catalog as published.
    Published(String),
    /// The default channel is not among those that are kept.
    DefaultChannel(Option<Text>),
    /// A channel is not whole.
    Channel {
        /// Which.
        channel: Text,
        /// Why.
        fault: ChannelFault,
    },
    /// A bundle has no semantic version in its property `olm.package`.
    Version {
        /// Which.
        bundle: Text,
        /// As written.
        version: Option<Text>,
    },
    /// Several bundles have the same version.
    SameVersion {
        /// The version.
        version: Text,
        /// The bundles.
        bundles: Vec<Text>,
    },
    /// One of a bundle's related images has no name.
    EmptyImage {
        /// Which bundle.
        bundle: Text,
    },
    /// Bundles name images by tag: what runs may be another image tomorrow, and only tag rules lead to the mirror.
    ByTag {
        /// Which bundles.
        bundles: Vec<Text>,
        /// One of the images.
        image: Text,
    },
    /// Nothing that is kept meets what bundles need.
    Unmet {
        /// What is needed.
        need: Need,
        /// By which bundles.
        bundles: Vec<Text>,
    },
    /// Whether what bundles need is met is not known here.
    Unsure {
        /// What is needed.
        need: Need,
        /// By which bundles.
        bundles: Vec<Text>,
    },
}

impl Finding {
    /// How bad it is.
    pub fn severity(&self) -> Severity {
        match self.problem {
            Problem::Unmet { .. } => Severity::NotInstallable,
            // Catalogs with such images were published, so some versions of OLM take them.
            Problem::Unsure { .. } | Problem::EmptyImage { .. } => Severity::Unsure,
            Problem::ByTag { .. } => Severity::Loose,
            _ => Severity::Refused,
        }
    }
}

/// Everything that is wrong, by package; what makes OLM refuse the catalog first.
pub fn examine(catalog: &Catalog, selection: &Selection) -> Vec<Finding> {
    let offers = Offers::of(catalog, selection);
    let mut findings = Vec::new();
    for (name, kept) in &selection.packages {
        let Some(package) = catalog.package(name) else { continue };
        let mut problems = refusals(package, kept);
        let bundles = kept.bundles.keys().filter_map(|name| package.bundle(name));
        let nameless = bundles.filter(|bundle| bundle.related.iter().any(|image| image.is_empty()));
        problems.extend(nameless.map(|bundle| Problem::EmptyImage { bundle: Text::clone(&bundle.name) }));
        problems.extend(by_tag(package, kept));
        problems.extend(unmet(package, kept, &offers));
        findings.extend(problems.into_iter().map(|problem| Finding { package: Text::clone(name), problem }));
    }
    findings.sort_by_key(Finding::severity);
    findings
}

/// Takes packages that OLM refuses out of a selection, since with them it would refuse all others.
pub fn leave_out_broken(catalog: &Catalog, selection: &Selection) -> (Selection, Vec<Dropped>) {
    let mut rest = selection.clone();
    let mut dropped = Vec::new();
    for (name, kept) in &selection.packages {
        let Some(package) = catalog.package(name) else { continue };
        let Some(problem) = refusals(package, kept).into_iter().next() else { continue };
        let finding = Finding { package: Text::clone(name), problem };
        dropped.push(Dropped { package: Text::clone(name), asked: asked(kept), cause: finding.to_string() });
        rest.packages.remove(name);
        rest.whole = false;
    }
    rest.dropped.extend(dropped.iter().cloned());
    (rest, dropped)
}

/// Who asked for a package, for messages about the whole of it.
pub(super) fn asked(kept: &Kept) -> Asked {
    let first = kept.bundles.values().flatten().map(|why| &why.asked).min();
    match first {
        Some(Asked::Channel(package, _) | Asked::Bundle(package, _)) => Asked::Package(*package),
        Some(other) => other.clone(),
        None => Asked::Catalog,
    }
}

/// What is wrong with a channel of which only `kept` stays, in a sentence.
pub(super) fn broken_channel(package: &Package, channel: &str, kept: &BTreeSet<Text>) -> Option<String> {
    kept_fault(package, channel, kept).map(|fault| fault.to_string())
}

/// What makes OLM refuse the package.
fn refusals(package: &Package, kept: &Kept) -> Vec<Problem> {
    let mut problems: Vec<Problem> = package.faults.iter().cloned().map(Problem::Published).collect();
    let default = kept.default_channel.as_ref();
    if !default.is_some_and(|name| kept.channels.contains_key(name)) {
        problems.push(Problem::DefaultChannel(default.cloned()));
    }
    for (channel, entries) in &kept.channels {
        if let Some(fault) = kept_fault(package, channel, entries) {
            problems.push(Problem::Channel { channel: Text::clone(channel), fault });
        }
    }
    let mut versions: BTreeMap<&Text, Vec<Text>> = BTreeMap::new();
    for bundle in kept.bundles.keys().filter_map(|name| package.bundle(name)) {
        match &bundle.version {
            Some(version) if Version::strict(version).is_some() => {
                versions.entry(version).or_default().push(Text::clone(&bundle.name));
            }
            version => {
                problems.push(Problem::Version { bundle: Text::clone(&bundle.name), version: version.clone() });
            }
        }
    }
    let several = versions.into_iter().filter(|(_, bundles)| bundles.len() > 1);
    problems.extend(several.map(|(version, bundles)| Problem::SameVersion { version: Text::clone(version), bundles }));
    problems
}

/// The bundles of which an image has no digest.
fn by_tag(package: &Package, kept: &Kept) -> Option<Problem> {
    let mut example = None;
    let bundles: Vec<Text> = kept
        .bundles
        .keys()
        .filter_map(|name| package.bundle(name))
        .filter(|bundle| {
            let mut images = std::iter::once(&bundle.image).chain(&bundle.related);
            let tagged = images.find(|image| !image.is_empty() && !image.contains('@'));
            example = example.take().or_else(|| tagged.cloned());
            tagged.is_some()
        })
        .map(|bundle| Text::clone(&bundle.name))
        .collect();
    Some(Problem::ByTag { bundles, image: example? })
}

fn unmet(package: &Package, kept: &Kept, offers: &Offers) -> Vec<Problem> {
    let mut found: BTreeMap<Need, (Met, Vec<Text>)> = BTreeMap::new();
    for bundle in kept.bundles.keys().filter_map(|name| package.bundle(name)) {
        for need in needs(bundle) {
            let met = offers.meet(&need);
            if met != Met::Yes {
                found.entry(need).or_insert((met, Vec::new())).1.push(Text::clone(&bundle.name));
            }
        }
    }
    let problem = |(need, (met, bundles))| match met {
        Met::Unknown => Problem::Unsure { need, bundles },
        _ => Problem::Unmet { need, bundles },
    };
    found.into_iter().map(problem).collect()
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[Text]| match names {
            [one] => format!("bundle `{one}`"),
            _ => format!("bundles {}", names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")),
        };
        write!(f, "package `{}`: ", self.package)?;
        match &self.problem {
            Problem::Published(fault) => write!(f, "{fault}, as published"),
            Problem::DefaultChannel(None) => f.write_str("it has no default channel"),
            Problem::DefaultChannel(Some(name)) => write!(f, "its default channel `{name}` is not kept"),
            Problem::Channel { channel, fault } => write!(f, "channel `{channel}`: {fault}"),
            Problem::Version { bundle, version: Some(version) } => {
                write!(f, "bundle `{bundle}` has the version `{version}`, which is not a semantic version")
            }
            Problem::Version { bundle, version: None } => write!(f, "bundle `{bundle}` has no property `olm.package`"),
            Problem::SameVersion { version, bundles } => {
                write!(f, "{} have the same version `{version}`", list(bundles))
            }
            Problem::EmptyImage { bundle } => write!(f, "bundle `{bundle}` has a related image without a name"),
            Problem::ByTag { bundles, image } => {
                let first = &bundles[..bundles.len().min(MAX_LISTED)];
                let more = bundles.len() - first.len();
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                write!(f, "{}{more}: images are named by tag and not by digest, such as `{image}`", list(first))
            }
            Problem::Unmet { need, bundles } => write!(f, "{} needs {need}, which is not kept", list(bundles)),
            Problem::Unsure { need, bundles } => {
                write!(f, "{} needs {need}; whether that is met is known only in the cluster", list(bundles))
            }
        }
    }
}
