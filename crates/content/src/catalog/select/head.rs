//! What oc-mirror does since 2025: heads of every channel, ranges along the chain of `replaces`, and a catalog with anything wrong in what is
//! looked at is refused (oc-mirror.md 6.2).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use airlock_updates::nearest;

use super::{Asked, Bounds, ChannelFilter, Filter, Note, PackageFilter, Pick, Picks, SelectError, Wanted};
use crate::catalog::model::{Channel, Entry, Package, Text};
use crate::catalog::version::Version;

/// What oc-mirror refuses before it looks at the catalog.
pub(super) fn refused(filter: &Filter, at: usize, wanted: &PackageFilter) -> Vec<SelectError> {
    let name = &wanted.name;
    let mut errors = Vec::new();
    if !wanted.bundles.is_empty() {
        let cause = format!("package `{name}`: field `bundles` is not supported by these rules");
        errors.push(SelectError::new(Asked::Package(at), cause).hint("choose the other rules with --selection table"));
    }
    let ranges = wanted.channels.iter().any(ChannelFilter::has_range);
    if ranges && wanted.has_range() {
        let cause = format!(
            "package `{name}`: mixing both filtering by minVersion/maxVersion and filtering by channel minVersion/maxVersion is not \
             allowed"
        );
        errors.push(
            SelectError::new(Asked::Package(at), cause).hint("write the range at the package or at the channels"),
        );
    }
    if filter.full && (ranges || wanted.has_range()) {
        let cause = format!("package `{name}`: `Full: true` cannot be mixed with versionRange");
        errors.push(
            SelectError::new(Asked::Package(at), cause).hint("take `full: true` out, or minVersion and maxVersion"),
        );
    }
    errors
}

/// What the rules choose of one package.
pub(super) fn package(
    package: &Package,
    wanted: &PackageFilter,
    full: bool,
    asked: &Asked,
    listed: bool,
) -> Result<Picks, SelectError> {
    let fail = |cause: String| SelectError::new(asked.clone(), cause);
    if let Some(fault) = package.faults.first() {
        return Err(fail(format!("package `{}`: {fault}", package.name)));
    }
    let mut versions = HashMap::new();
    for bundle in &package.bundles {
        let name = &bundle.name;
        let text = bundle.version.as_deref().ok_or_else(|| {
            fail(format!("bundle `{name}` of package `{}` has no property `olm.package`", package.name))
        })?;
        let version = Version::strict(text).ok_or_else(|| {
            fail(format!("bundle `{name}` of package `{}`: version `{text}` is not a semantic version", package.name))
        })?;
        versions.insert(Text::clone(name), version);
    }
    let named = |channel: &Channel| wanted.channels.iter().position(|c| *c.name == *channel.name);
    let channels: Vec<(&Channel, Option<usize>)> = package
        .channels
        .iter()
        .map(|channel| (channel, named(channel)))
        .filter(|(_, at)| wanted.channels.is_empty() || at.is_some())
        .collect();
    let default = default_channel(package, wanted, &channels, listed).map_err(fail)?;
    let mut picks = Picks::default();
    for (channel, at) in channels {
        let asked = match (asked, at) {
            (Asked::Package(package), Some(at)) => Asked::Channel(*package, at),
            _ => asked.clone(),
        };
        let own = at.map(|at| &wanted.channels[at]).filter(|c| c.has_range());
        let (min, max) = match own {
            Some(own) => (own.min.as_deref(), own.max.as_deref()),
            None => (wanted.min.as_deref(), wanted.max.as_deref()),
        };
        let of = format!("channel `{}` of package `{}`", channel.name, package.name);
        let broken = |cause: String| SelectError::new(asked.clone(), format!("{of}: {cause}"));
        let bounds = Bounds::read(min, max, &asked, &of)?;
        let chosen: Vec<(Text, Wanted)> = if full {
            channel.entries.iter().map(|e| (Text::clone(&e.name), Wanted::All)).collect()
        } else if min.is_some() && min == max {
            exact(package, channel, min.unwrap_or_default(), &versions).map_err(broken)?
        } else if min.is_some() || max.is_some() {
            range(channel, &bounds, &versions).map_err(broken)?
        } else {
            vec![(channel_head(&channel.entries).map_err(broken)?, Wanted::Head)]
        };
        if chosen.is_empty() {
            if default == Some(&*channel.name) {
                return Err(SelectError::new(
                    asked,
                    format!("{of}: the range results in an empty channel, and it is the default"),
                )
                .hint("widen the range, or set `defaultChannel` to a channel that has such versions"));
            }
            let (package, channel) = (Text::clone(&package.name), Text::clone(&channel.name));
            picks.notes.push(Note::NothingInRange { package, channel, asked });
            continue;
        }
        picks.picks.extend(chosen.into_iter().map(|(bundle, wanted)| Pick {
            bundle,
            channel: Some(Text::clone(&channel.name)),
            wanted,
            asked: asked.clone(),
        }));
    }
    Ok(picks)
}

/// The default channel, which must be among those that are kept; oc-mirror asks that only of packages that are listed.
fn default_channel<'a>(
    package: &'a Package,
    wanted: &'a PackageFilter,
    channels: &[(&Channel, Option<usize>)],
    listed: bool,
) -> Result<Option<&'a str>, String> {
    let kept = |name: &str| channels.iter().any(|(channel, _)| *channel.name == *name);
    let original = package.default_channel.as_deref();
    if !listed {
        return Ok(original);
    }
    match (wanted.default_channel.as_deref(), original) {
        (Some(name), _) if kept(name) => Ok(Some(name)),
        (Some(name), _) => {
            let near = nearest(name, channels.iter().map(|(c, _)| &*c.name));
            let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            Err(format!(
                "package `{}`: defaultChannel `{name}` is not among its channels that are kept{near}",
                package.name
            ))
        }
        (None, Some(name)) if !kept(name) => Err(format!(
            "the default channel `{name}` of package `{}` was filtered out; name it among the channels, or set `defaultChannel`",
            package.name
        )),
        (None, name) => Ok(name),
    }
}

/// The one entry that no other replaces or skips.
pub(in crate::catalog) fn channel_head(entries: &[Entry]) -> Result<Text, String> {
    let mut names = HashSet::new();
    let mut incoming: BTreeMap<&Text, BTreeSet<&Text>> = BTreeMap::new();
    for entry in entries {
        if !names.insert(&entry.name) {
            return Err(format!("entry `{}` occurs twice", entry.name));
        }
        for older in entry.replaces.iter().chain(&entry.skips) {
            if *older == entry.name {
                return Err(format!("entry `{older}` replaces or skips itself"));
            }
            incoming.entry(older).or_default().insert(&entry.name);
        }
    }
    let heads: Vec<&Text> = entries.iter().map(|e| &e.name).filter(|name| !incoming.contains_key(name)).collect();
    let head = match heads[..] {
        [head] => head,
        [] if entries.is_empty() => return Err("it has no entries".to_owned()),
        [] => return Err("it has no head: each of its entries is replaced or skipped by another".to_owned()),
        _ => {
            let heads: Vec<String> = heads.iter().map(|h| format!("`{h}`")).collect();
            return Err(format!("it has {} heads: {}", heads.len(), heads.join(", ")));
        }
    };
    // Taking away head after head must take away everything; what stays goes round in a circle.
    let by_name: HashMap<&Text, &Entry> = entries.iter().map(|e| (&e.name, e)).collect();
    let mut queue = vec![head];
    while let Some(name) = queue.pop() {
        let Some(entry) = by_name.get(name) else { continue };
        for older in entry.replaces.iter().chain(&entry.skips) {
            if let Some(newer) = incoming.get_mut(older) {
                newer.remove(&entry.name);
                if newer.is_empty() {
                    incoming.remove(older);
                    queue.push(older);
                }
            }
        }
    }
    match incoming.keys().next() {
        None => Ok(Text::clone(head)),
        Some(name) => Err(format!("`{name}` is part of a circle of replaces and skips")),
    }
}

/// The bundle of one version, build metadata aside.
fn exact(
    package: &Package,
    channel: &Channel,
    version: &str,
    versions: &HashMap<Text, Version>,
) -> Result<Vec<(Text, Wanted)>, String> {
    let wanted = Version::tolerant(version);
    let all: Vec<&Text> =
        package.bundles.iter().map(|b| &b.name).filter(|name| versions.get(*name) == wanted.as_ref()).collect();
    if all.is_empty() {
        return Err(format!("specific version {version} not found"));
    }
    // Of several builds of the version the last by name.
    let here = all.into_iter().filter(|name| channel.entry(name).is_some()).max();
    Ok(here.map(|name| (Text::clone(name), Wanted::Range)).into_iter().collect())
}

/// The part of the chain that has everything within the bounds, and what it skips of it.
fn range(channel: &Channel, bounds: &Bounds, versions: &HashMap<Text, Version>) -> Result<Vec<(Text, Wanted)>, String> {
    let head = channel_head(&channel.entries)?;
    let by_name: HashMap<&Text, &Entry> = channel.entries.iter().map(|e| (&e.name, e)).collect();
    let within = |name: &Text| versions.get(name).is_some_and(|version| is_within(version, bounds));
    let skips = |name: &Text| by_name.get(name).map_or(&[][..], |entry| &entry.skips[..]);
    // There is no circle, and so an end: the head was found.
    let mut chain = vec![head];
    while let Some(older) = chain.last().and_then(|name| by_name.get(name)).and_then(|e| e.replaces.clone()) {
        chain.push(older);
    }
    // How many bundles within the bounds are at or below each place of the chain.
    let (mut seen, mut counts) = (HashSet::new(), vec![0_usize; chain.len()]);
    for (at, name) in chain.iter().enumerate().rev() {
        seen.extend([name].into_iter().chain(skips(name)).filter(|n| within(n)));
        counts[at] = seen.len();
    }
    let most = counts.first().copied().unwrap_or_default();
    if most == 0 {
        return Ok(Vec::new());
    }
    let first = counts.iter().rposition(|count| *count == most).unwrap_or_default();
    let end = counts.iter().position(|count| *count == 0).unwrap_or(chain.len());
    let mut kept = Vec::new();
    for name in &chain[first..end] {
        let wanted = if within(name) { Wanted::Range } else { Wanted::Between };
        kept.push((Text::clone(name), wanted));
        kept.extend(skips(name).iter().filter(|n| within(n)).map(|n| (Text::clone(n), Wanted::Range)));
    }
    // What is skipped is kept as an entry only where it is one.
    kept.retain(|(name, _)| by_name.contains_key(name));
    Ok(kept)
}

/// A pre-release is only within bounds that are pre-releases themselves.
fn is_within(version: &Version, bounds: &Bounds) -> bool {
    let fits = |bound: &Option<Version>, ok: fn(&Version, &Version) -> bool| match bound {
        None => true,
        Some(bound) => (!version.is_pre() || bound.is_pre()) && ok(version, bound),
    };
    fits(&bounds.min, |v, b| v >= b) && fits(&bounds.max, |v, b| v <= b)
}
