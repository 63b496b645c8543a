//! What of a catalog is shown: the same values for the tables, JSON, `init`, and `oc-mirror list operators`.

use std::collections::HashSet;

use airlock_content::catalog::{Bundle, Catalog, Channel, Entry, Package, Text};
use airlock_updates::{Version, nearest};
use serde::Serialize;

use crate::exit::Failure;

/// A package.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PackageView<'c> {
    pub name: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_channel: Option<&'c str>,
    pub bundles: usize,
    pub channels: Vec<ChannelView<'c>>,
    /// What is wrong with it as published.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub faults: &'c [String],
}

/// A channel.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChannelView<'c> {
    pub name: &'c str,
    pub default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_version: Option<&'c str>,
    /// Why it has no head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    pub bundles: usize,
    /// Only where a channel was asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<EntryView<'c>>,
}

/// A bundle in a channel.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EntryView<'c> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<&'c str>,
    pub bundle: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaces: Option<&'c str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skips: Vec<&'c str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skip_range: Option<&'c str>,
    /// Listed, but the catalog has no such bundle.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
}

/// The one bundle of a channel that no other updates; or why there is none, in the words of operator-registry.
pub(crate) fn head(channel: &Channel) -> Result<&Text, String> {
    let older: HashSet<&Text> = channel.entries.iter().flat_map(|e| e.replaces.iter().chain(&e.skips)).collect();
    let mut heads: Vec<&Text> = channel.entries.iter().map(|e| &e.name).filter(|name| !older.contains(name)).collect();
    heads.sort();
    match heads[..] {
        [head] => Ok(head),
        [] => Err("no channel head found in graph".to_owned()),
        _ => {
            let names: Vec<&str> = heads.iter().map(|name| &***name).collect();
            Err(format!("multiple channel heads found in graph: {}", names.join(", ")))
        }
    }
}

/// By version; what has none comes first.
fn order(bundle: &Bundle) -> (Option<Version>, &str) {
    (bundle.version.as_deref().and_then(|v| v.parse().ok()), &bundle.name)
}

/// The name for people, of the highest version that has one.
pub(crate) fn display_name(package: &Package) -> Option<&str> {
    let named = package.bundles.iter().filter(|bundle| bundle.display_name.is_some());
    named.max_by(|a, b| order(a).cmp(&order(b)))?.display_name.as_deref()
}

/// The entries of a channel, lowest version first.
pub(crate) fn entries<'c>(package: &'c Package, channel: &'c Channel) -> Vec<EntryView<'c>> {
    let mut listed: Vec<(&Entry, Option<&Bundle>)> =
        channel.entries.iter().map(|entry| (entry, package.bundle(&entry.name))).collect();
    listed.sort_by(|a, b| (a.1.map(order), &a.0.name).cmp(&(b.1.map(order), &b.0.name)));
    let view = |(entry, bundle): (&'c Entry, Option<&'c Bundle>)| EntryView {
        version: bundle.and_then(|b| b.version.as_deref()),
        bundle: &entry.name,
        replaces: entry.replaces.as_deref(),
        skips: entry.skips.iter().map(|name| &**name).collect(),
        skip_range: entry.skip_range.as_deref(),
        absent: bundle.is_none(),
    };
    listed.into_iter().map(view).collect()
}

/// A package, with the entries of `listed`.
pub(crate) fn package<'c>(package: &'c Package, listed: Option<&str>) -> PackageView<'c> {
    let default = package.default_channel.as_deref();
    let channels = package.channels.iter().filter(|channel| listed.is_none_or(|name| *channel.name == *name));
    let channel = |channel: &'c Channel| {
        let (head, fault) = match head(channel) {
            Ok(head) => (Some(head), None),
            Err(fault) => (None, Some(fault)),
        };
        ChannelView {
            name: &channel.name,
            default: default == Some(&channel.name),
            head: head.map(|name| &**name),
            head_version: head.and_then(|name| package.bundle(name)?.version.as_deref()),
            fault,
            bundles: channel.entries.len(),
            entries: if listed.is_some() { entries(package, channel) } else { Vec::new() },
        }
    };
    PackageView {
        name: &package.name,
        display_name: display_name(package),
        default_channel: default,
        bundles: package.bundles.len(),
        channels: channels.map(channel).collect(),
        faults: &package.faults,
    }
}

/// The package of this name, or an error with the name that was probably meant.
pub(crate) fn named<'c>(catalog: &'c Catalog, shown: &str, name: &str) -> Result<&'c Package, Failure> {
    catalog.package(name).ok_or_else(|| {
        let near = nearest(name, catalog.packages().map(|p| &*p.name));
        let hint = format!("list them with `airlock catalog list {shown}`");
        Failure::usage(format!("`{shown}` has no package `{name}`{}", meant(near)), hint)
    })
}

/// The channel of this name, or an error with the name that was probably meant.
pub(crate) fn channel<'c>(package: &'c Package, name: &str) -> Result<&'c Channel, Failure> {
    package.channel(name).ok_or_else(|| {
        let known: Vec<&str> = package.channels.iter().map(|c| &*c.name).collect();
        let near = nearest(name, known.iter().copied());
        let message = format!("package `{}` has no channel `{name}`{}", package.name, meant(near));
        Failure::usage(message, format!("it has {}", known.join(", ")))
    })
}

fn meant(near: Option<&str>) -> String {
    near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}
