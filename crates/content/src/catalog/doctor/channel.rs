//! Whether OLM takes a channel: what `opm validate` and the registry in the cluster check of its entries.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::catalog::model::{Entry, Package, Text};

/// What is wrong with a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelFault {
    /// It has no entries.
    Empty,
    /// Each of its entries is replaced or skipped by another.
    NoHead,
    /// More than one entry is neither replaced nor skipped.
    Heads(Vec<Text>),
    /// The chain of `replaces` comes back to this entry.
    Circle(Text),
    /// Entries that the chain from the head neither passes nor skips.
    Stranded(Vec<Text>),
}

/// What is wrong with these entries as a channel. Of several with one name the last counts.
pub(in crate::catalog) fn fault<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Option<ChannelFault> {
    let entries: BTreeMap<&Text, &Entry> = entries.into_iter().map(|e| (&e.name, e)).collect();
    if entries.is_empty() {
        return Some(ChannelFault::Empty);
    }
    let skipped: HashSet<&Text> = entries.values().flat_map(|e| &e.skips).collect();
    let replaced: HashSet<&Text> = entries.values().filter_map(|e| e.replaces.as_ref()).collect();
    let heads: Vec<&Text> =
        entries.keys().copied().filter(|name| !skipped.contains(name) && !replaced.contains(name)).collect();
    let head = match heads[..] {
        [head] => head,
        [] => return Some(ChannelFault::NoHead),
        _ => return Some(ChannelFault::Heads(heads.into_iter().map(Text::clone).collect())),
    };
    let mut chain: BTreeSet<&Text> = [head].into();
    let mut current = entries.get(head);
    while let Some(older) = current.and_then(|entry| entry.replaces.as_ref()) {
        if !chain.insert(older) {
            return Some(ChannelFault::Circle(Text::clone(older)));
        }
        current = entries.get(older);
    }
    let stranded: Vec<Text> = entries
        .keys()
        .filter(|name| !chain.contains(*name) && !skipped.contains(*name))
        .map(|name| Text::clone(name))
        .collect();
    if stranded.is_empty() { None } else { Some(ChannelFault::Stranded(stranded)) }
}

/// The one head of these entries.
pub(in crate::catalog) fn head<'a>(entries: &[&'a Entry]) -> Option<&'a Text> {
    let older: HashSet<&Text> = entries.iter().flat_map(|e| e.replaces.iter().chain(&e.skips)).collect();
    let mut heads = entries.iter().map(|e| &e.name).filter(|name| !older.contains(name));
    let head = heads.next();
    heads.next().is_none().then_some(head).flatten()
}

/// What is wrong with a channel of which only `kept` stays.
pub(in crate::catalog) fn kept_fault(package: &Package, channel: &str, kept: &BTreeSet<Text>) -> Option<ChannelFault> {
    fault(kept_entries(package, channel, kept))
}

/// The entries of a channel that stay.
pub(in crate::catalog) fn kept_entries<'a>(
    package: &'a Package,
    channel: &str,
    kept: &'a BTreeSet<Text>,
) -> impl Iterator<Item = &'a Entry> {
    let entries = package.channel(channel).map(|channel| &channel.entries[..]).unwrap_or_default();
    entries.iter().filter(|entry| kept.contains(&entry.name))
}

impl std::fmt::Display for ChannelFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |names: &[Text]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        match self {
            Self::Empty => f.write_str("it has no entries"),
            Self::NoHead => f.write_str("it has no head: each of its entries is replaced or skipped by another"),
            Self::Heads(heads) => write!(f, "it has {} heads: {}", heads.len(), list(heads)),
            Self::Circle(name) => write!(f, "its chain of replaces comes back to `{name}`"),
            Self::Stranded(names) => {
                write!(
                    f,
                    "no update leads from {} to its head: nothing on the chain replaces or skips them",
                    list(names)
                )
            }
        }
    }
}
