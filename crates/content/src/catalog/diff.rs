//! What differs between two catalogs, or between what two filters choose of one.

use std::collections::{BTreeMap, BTreeSet};

use super::doctor::head;
use super::model::{Catalog, Entry, Text};
use super::select::Selection;

/// A catalog, or what was chosen of it.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The catalog.
    pub catalog: &'a Catalog,
    /// What of it; `None` is all.
    pub selection: Option<&'a Selection>,
}

/// What differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// Packages that only the second has.
    pub added: Vec<Text>,
    /// Packages that only the first has.
    pub removed: Vec<Text>,
    /// Packages that both have, and that are not the same.
    pub changed: Vec<PackageDiff>,
    /// Images that only the second needs, as the catalogs write them.
    pub images_added: BTreeSet<Text>,
    /// Images that only the first needs.
    pub images_removed: BTreeSet<Text>,
}

/// What differs in a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageDiff {
    /// Its name.
    pub name: Text,
    /// The default channels, where they are not the same.
    pub default_channel: Option<(Option<Text>, Option<Text>)>,
    /// Channels that only the second has.
    pub channels_added: Vec<Text>,
    /// Channels that only the first has.
    pub channels_removed: Vec<Text>,
    /// Channels that both have, with another head: the heads.
    pub heads: Vec<(Text, Option<Text>, Option<Text>)>,
    /// Bundles that only the second has.
    pub bundles_added: Vec<Text>,
    /// Bundles that only the first has.
    pub bundles_removed: Vec<Text>,
}

/// A package of one side.
#[derive(Default)]
struct View<'a> {
    default_channel: Option<&'a Text>,
    channels: BTreeMap<&'a Text, Vec<&'a Entry>>,
    bundles: BTreeSet<&'a Text>,
}

impl Diff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What differs from `first` to `second`.
pub fn diff(first: Side<'_>, second: Side<'_>) -> Diff {
    let (old, new) = (views(first), views(second));
    let (old_images, new_images) = (images(first, &old), images(second, &new));
    let only = |a: &BTreeMap<&Text, View<'_>>, b: &BTreeMap<&Text, View<'_>>| {
        a.keys().filter(|name| !b.contains_key(*name)).map(|name| Text::clone(name)).collect()
    };
    let changed = old.iter().filter_map(|(name, old)| {
        let change = package(name, old, new.get(name)?);
        let same = PackageDiff { name: Text::clone(name), ..PackageDiff::default() };
        (change != same).then_some(change)
    });
    let images = |a: &BTreeSet<&Text>, b: &BTreeSet<&Text>| a.difference(b).map(|i| Text::clone(i)).collect();
    Diff {
        added: only(&new, &old),
        removed: only(&old, &new),
        changed: changed.collect(),
        images_added: images(&new_images, &old_images),
        images_removed: images(&old_images, &new_images),
    }
}

fn views(side: Side<'_>) -> BTreeMap<&Text, View<'_>> {
    let mut views: BTreeMap<&Text, View<'_>> = BTreeMap::new();
    match side.selection {
        None => {
            for package in side.catalog.packages() {
                let view = views.entry(&package.name).or_default();
                view.default_channel = package.default_channel.as_ref();
                view.channels = package.channels.iter().map(|c| (&c.name, c.entries.iter().collect())).collect();
                view.bundles = package.bundles.iter().map(|b| &b.name).collect();
            }
        }
        Some(selection) => {
            for (name, kept) in &selection.packages {
                let view = views.entry(name).or_default();
                view.default_channel = kept.default_channel.as_ref();
                view.bundles = kept.bundles.keys().collect();
                for (channel, entries) in &kept.channels {
                    let known = side.catalog.package(name).and_then(|p| p.channel(channel));
                    let known = known.map(|c| &c.entries[..]).unwrap_or_default();
                    view.channels.insert(channel, known.iter().filter(|e| entries.contains(&e.name)).collect());
                }
            }
        }
    }
    views
}

fn images<'a>(side: Side<'a>, views: &BTreeMap<&'a Text, View<'a>>) -> BTreeSet<&'a Text> {
    let mut images = BTreeSet::new();
    for (name, view) in views {
        let Some(package) = side.catalog.package(name) else { continue };
        for bundle in view.bundles.iter().filter_map(|bundle| package.bundle(bundle)) {
            images.extend(bundle.related.iter().chain([&bundle.image]).filter(|image| !image.is_empty()));
        }
    }
    images
}

fn package(name: &Text, old: &View<'_>, new: &View<'_>) -> PackageDiff {
    let owned = |text: Option<&Text>| text.map(Text::clone);
    let mut change = PackageDiff { name: Text::clone(name), ..PackageDiff::default() };
    if old.default_channel != new.default_channel {
        change.default_channel = Some((owned(old.default_channel), owned(new.default_channel)));
    }
    for (channel, entries) in &old.channels {
        match new.channels.get(channel) {
            None => change.channels_removed.push(Text::clone(channel)),
            Some(other) => {
                let (was, now) = (head(entries), head(other));
                if was != now {
                    change.heads.push((Text::clone(channel), owned(was), owned(now)));
                }
            }
        }
    }
    let fresh = new.channels.keys().filter(|channel| !old.channels.contains_key(*channel));
    change.channels_added = fresh.map(|channel| Text::clone(channel)).collect();
    change.bundles_added = new.bundles.difference(&old.bundles).map(|b| Text::clone(b)).collect();
    change.bundles_removed = old.bundles.difference(&new.bundles).map(|b| Text::clone(b)).collect();
    change
}
