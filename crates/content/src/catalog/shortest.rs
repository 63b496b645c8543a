//! Only what an update passes: of a range of versions, the fewest bundles that lead from its lowest to its head.
//!
//! The book's rules keep every version within a range, whether or not an update ever stops there. What is left here is a channel
//! that OLM takes: every step is one that the catalog itself allows by `replaces` or `skips`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::doctor::broken_channel;
use super::model::{Catalog, Entry, Package, Text};
use super::select::{Kept, Selection, Wanted, version_of};

/// A selection in which channels that were chosen by a range have only the shortest way through it, and the bundles that went, by package.
///
/// A channel stays as it is where its lowest version does not lead to its head, or where OLM would refuse what is left.
pub fn shortest(catalog: &Catalog, selection: &Selection) -> (Selection, BTreeMap<Text, BTreeSet<Text>>) {
    let (mut rest, mut gone) = (selection.clone(), BTreeMap::new());
    for (name, kept) in &mut rest.packages {
        let Some(package) = catalog.package(name) else { continue };
        let before: BTreeSet<Text> = kept.bundles.keys().cloned().collect();
        let ranged: Vec<Text> = kept.channels.keys().filter(|channel| by_range(kept, channel)).cloned().collect();
        for channel in ranged {
            let Some(entries) = kept.channels.get(&channel) else { continue };
            let way = way(package, &channel, entries);
            let whole = way.filter(|way| broken_channel(package, &channel, way).is_none());
            if let Some(way) = whole {
                kept.channels.insert(channel, way);
            }
        }
        let Kept { channels, bundles, .. } = kept;
        bundles.retain(|bundle, _| channels.values().any(|entries| entries.contains(bundle)));
        let left: BTreeSet<Text> = before.into_iter().filter(|bundle| !bundles.contains_key(bundle)).collect();
        if !left.is_empty() {
            gone.insert(Text::clone(name), left);
        }
    }
    rest.whole &= gone.is_empty();
    (rest, gone)
}

/// Whether a channel was chosen by versions, and nothing of it by name.
fn by_range(kept: &Kept, channel: &Text) -> bool {
    let of = kept.bundles.values().flatten().filter(|why| why.channel.as_ref().is_none_or(|of| of == channel));
    let mut ranges = of.map(|why| matches!(why.wanted, Wanted::Range | Wanted::Respin | Wanted::Between)).peekable();
    ranges.peek().is_some() && ranges.all(|range| range)
}

/// The entries from the lowest version to the head in the fewest steps.
fn way(package: &Package, channel: &str, kept: &BTreeSet<Text>) -> Option<BTreeSet<Text>> {
    let entries: Vec<&Entry> =
        package.channel(channel)?.entries.iter().filter(|entry| kept.contains(&entry.name)).collect();
    let versions = entries.iter().filter_map(|entry| Some((version_of(package.bundle(&entry.name)?)?, *entry)));
    let (_, lowest) = versions.min_by(|(a, _), (b, _)| a.cmp(b))?;
    let head = super::doctor::head(&entries)?;
    // From the head down. Below a step that the chain of `replaces` does not make, OLM takes only what is skipped (`ChannelFault::Stranded`).
    let mut newer: BTreeMap<Stop<'_>, Stop<'_>> = BTreeMap::new();
    let mut queue = VecDeque::from([(head, false)]);
    while let Some(stop @ (name, off_chain)) = queue.pop_front() {
        if *name == lowest.name {
            let way = std::iter::successors(Some(stop), |at| newer.get(at).copied());
            return Some(way.map(|(name, _)| Text::clone(name)).collect());
        }
        let Some(entry) = entries.iter().find(|entry| entry.name == *name) else { continue };
        let replaced = entry.replaces.iter().filter(|_| !off_chain).map(|older| (older, false));
        for next in replaced.chain(entry.skips.iter().map(|older| (older, true))) {
            if kept.contains(next.0) && next.0 != head && !newer.contains_key(&next) {
                newer.insert(next, stop);
                queue.push_back(next);
            }
        }
    }
    None
}

/// An entry on the way, and whether the way has left the chain of `replaces` before it.
type Stop<'a> = (&'a Text, bool);
