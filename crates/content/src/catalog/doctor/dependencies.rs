//! Adds what the chosen bundles need, until nothing more can be added.

use std::collections::BTreeSet;

use super::channel::{fault, kept_fault};
use super::needs::{Met, Need, Offers, candidates, needs};
use super::refusals;
use crate::catalog::model::{Bundle, Catalog, Package, Text};
use crate::catalog::select::{Asked, Kept, Selection, Wanted, Why, version_of};

/// How often what was added may need something itself.
const MAX_ROUNDS: usize = 64;

/// A bundle that was added.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Added {
    /// The package.
    pub package: Text,
    /// The bundle.
    pub bundle: Text,
    /// The channels in which it stands now.
    pub channels: Vec<Text>,
    /// The bundle that needs it.
    pub needed_by: Text,
    /// What that needs.
    pub need: Need,
}

/// A selection with what its bundles need, and what was added. What cannot be met stays a finding of [`super::examine`].
///
/// Of a package that is not kept yet comes the head of its default channel if that is good, and else the highest version that is. In a channel
/// that is kept already, everything on the way from there to its entries comes too, so that it stays whole.
pub fn with_dependencies(catalog: &Catalog, selection: &Selection) -> (Selection, Vec<Added>) {
    let (mut selection, mut added) = (selection.clone(), Vec::new());
    for _ in 0..MAX_ROUNDS {
        let offers = Offers::of(catalog, &selection);
        let mut unmet: Vec<(Need, Text)> = Vec::new();
        for (name, kept) in &selection.packages {
            let Some(package) = catalog.package(name) else { continue };
            for bundle in kept.bundles.keys().filter_map(|bundle| package.bundle(bundle)) {
                let open = needs(bundle).filter(|need| offers.meet(need) == Met::No);
                for need in open {
                    if !unmet.iter().any(|(known, _)| *known == need) {
                        unmet.push((need, Text::clone(&bundle.name)));
                    }
                }
            }
        }
        let before = added.len();
        for (need, by) in unmet {
            // Something added a moment ago may have met it.
            if Offers::of(catalog, &selection).meet(&need) == Met::No {
                added.extend(add(catalog, &mut selection, &need, &by));
            }
        }
        if added.len() == before {
            break;
        }
    }
    (selection, added)
}

/// Adds the best bundle for one need; nothing where there is none.
fn add(catalog: &Catalog, selection: &mut Selection, need: &Need, by: &Text) -> Vec<Added> {
    for name in candidates(catalog, need) {
        let Some(package) = catalog.package(&name) else { continue };
        for bundle in ranked(package) {
            let mut offers = Offers::of(catalog, selection);
            offers.add(&name, bundle);
            if offers.meet(need) != Met::Yes {
                continue;
            }
            let old = selection.packages.get(&name).cloned().unwrap_or_default();
            let Some(kept) = enlarged(package, &old, bundle, by) else { continue };
            let new = kept.bundles.keys().filter(|b| !old.bundles.contains_key(*b));
            let added = new
                .map(|new| Added {
                    package: Text::clone(&name),
                    bundle: Text::clone(new),
                    channels: kept
                        .channels
                        .iter()
                        .filter(|(_, e)| e.contains(new))
                        .map(|(c, _)| Text::clone(c))
                        .collect(),
                    needed_by: Text::clone(by),
                    need: need.clone(),
                })
                .collect();
            selection.packages.insert(name, kept);
            return added;
        }
    }
    Vec::new()
}

/// Bundles from the best: the head of the default channel, and then by version from the highest.
fn ranked(package: &Package) -> Vec<&Bundle> {
    let mut bundles: Vec<&Bundle> = package.bundles.iter().collect();
    bundles.sort_by_key(|b| std::cmp::Reverse((version_of(b), Text::clone(&b.name))));
    let default = package.default_channel.as_deref().and_then(|name| package.channel(name));
    let entries: Vec<_> = default.map(|channel| channel.entries.iter().collect()).unwrap_or_default();
    if let Some(at) = super::channel::head(&entries).and_then(|head| bundles.iter().position(|b| b.name == *head)) {
        let head = bundles.remove(at);
        bundles.insert(0, head);
    }
    bundles
}

/// What is kept of a package, with one bundle more; `None` where no channel would stay whole.
fn enlarged(package: &Package, old: &Kept, bundle: &Bundle, by: &Text) -> Option<Kept> {
    let why = |channel: &Text| Why {
        asked: Asked::Needed(Text::clone(by)),
        channel: Some(Text::clone(channel)),
        wanted: Wanted::Dependency,
    };
    let default = package.default_channel.as_ref();
    let mut channels: Vec<_> = package.channels.iter().filter(|c| c.entry(&bundle.name).is_some()).collect();
    // The default channel first: it is what people install from.
    channels.sort_by_key(|c| Some(&c.name) != default);
    for channel in channels {
        let mut kept = old.clone();
        let entries = kept.channels.entry(Text::clone(&channel.name)).or_default();
        let mut new: BTreeSet<Text> = [Text::clone(&bundle.name)].into();
        let whole = |new: &BTreeSet<Text>| {
            let all: BTreeSet<Text> = entries.union(new).cloned().collect();
            kept_fault(package, &channel.name, &all).is_none()
        };
        if !whole(&new) {
            // From the head of what is kept and the new one, down the chain to the lower of them.
            let mut chain = Vec::new();
            let all: Vec<_> = channel.entries.iter().collect();
            let mut current = super::channel::head(&all);
            if fault(all.iter().copied()).is_some() {
                continue;
            }
            while let Some(name) = current {
                chain.push(name);
                current = channel.entry(name).and_then(|e| e.replaces.as_ref());
            }
            let wanted = |name: &Text| entries.contains(name) || *name == bundle.name;
            let Some(first) = chain.iter().position(|name| wanted(name)) else { continue };
            let Some(last) = chain.iter().rposition(|name| wanted(name)) else { continue };
            let between = chain[first..=last].iter().filter(|name| package.bundle(name).is_some());
            new.extend(between.map(|name| Text::clone(name)));
            if !whole(&new) {
                continue;
            }
        }
        entries.extend(new.iter().cloned());
        for name in &new {
            if !old.bundles.contains_key(name) {
                kept.bundles.entry(Text::clone(name)).or_default().insert(why(&channel.name));
            }
        }
        let has = |name: &Text| kept.channels.contains_key(name);
        kept.default_channel = kept
            .default_channel
            .filter(&has)
            .or_else(|| default.filter(|d| has(d)).cloned())
            .or_else(|| Some(Text::clone(&channel.name)));
        if refusals(package, &kept).is_empty() {
            return Some(kept);
        }
    }
    None
}
