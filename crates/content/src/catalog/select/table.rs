//! The rules of OpenShift's book: the default channel where none is named, ranges by version.

use super::{Asked, Bounds, ChannelFilter, Filter, Note, PackageFilter, Pick, Picks, SelectError, Wanted, version_of};
use crate::catalog::model::{Channel, Entry, Package, Text};
use crate::catalog::version::Version;

/// What the book says not to use, per package.
pub(super) fn refused(filter: &Filter, at: usize, wanted: &PackageFilter) -> Vec<SelectError> {
    let name = &wanted.name;
    let error = |cause: String, hint: &str| SelectError::new(Asked::Package(at), cause).hint(hint);
    let mut errors = Vec::new();
    if !wanted.channels.is_empty() && wanted.has_range() {
        errors.push(error(
            format!("package `{name}`: minVersion and maxVersion cannot be used together with channels"),
            "write the range at the channels, or leave the channels out",
        ));
    }
    if filter.full && (wanted.has_range() || wanted.channels.iter().any(ChannelFilter::has_range)) {
        errors.push(error(
            format!("package `{name}`: `full: true` cannot be mixed with minVersion or maxVersion"),
            "take `full: true` out, or the versions",
        ));
    }
    if !wanted.bundles.is_empty() && (filter.full || wanted.has_range() || !wanted.channels.is_empty()) {
        errors.push(error(
            format!("package `{name}`: `bundles` cannot be used together with channels, versions or `full: true`"),
            "`bundles` alone says exactly what is kept",
        ));
    }
    errors
}

/// What the rules choose of one package.
pub(super) fn package(
    package: &Package,
    wanted: &PackageFilter,
    full: bool,
    asked: &Asked,
) -> Result<Picks, SelectError> {
    let mut picks = Picks::default();
    if !package.faults.is_empty() {
        return Ok(picks);
    }
    if !wanted.bundles.is_empty() {
        picks.picks.extend(wanted.bundles.iter().enumerate().map(|(number, name)| Pick {
            bundle: name.as_str().into(),
            channel: None,
            wanted: Wanted::Named,
            asked: below(asked, number, Asked::Bundle),
        }));
        return Ok(picks);
    }
    if !wanted.channels.is_empty() {
        for (number, filter) in wanted.channels.iter().enumerate() {
            let asked = below(asked, number, Asked::Channel);
            let of = format!("channel `{}` of package `{}`", filter.name, package.name);
            let bounds = Bounds::read(filter.min.as_deref(), filter.max.as_deref(), &asked, &of)?;
            if let Some(channel) = package.channel(&filter.name) {
                channel_picks(package, channel, &bounds, full, &asked, &mut picks);
            }
        }
        return Ok(picks);
    }
    let of = format!("package `{}`", package.name);
    let bounds = Bounds::read(wanted.min.as_deref(), wanted.max.as_deref(), asked, &of)?;
    if full {
        for channel in &package.channels {
            channel_picks(package, channel, &bounds, true, asked, &mut picks);
        }
        return Ok(picks);
    }
    let default = wanted.default_channel.as_deref().or(package.default_channel.as_deref());
    if let Some(channel) = default.and_then(|name| package.channel(name)) {
        channel_picks(package, channel, &bounds, false, asked, &mut picks);
    }
    Ok(picks)
}

fn below(asked: &Asked, number: usize, part: fn(usize, usize) -> Asked) -> Asked {
    match asked {
        Asked::Package(at) => part(*at, number),
        other => other.clone(),
    }
}

fn channel_picks(package: &Package, channel: &Channel, bounds: &Bounds, full: bool, asked: &Asked, picks: &mut Picks) {
    let before = picks.picks.len();
    let mut pick = |bundle: &Text, wanted| {
        let (bundle, channel) = (Text::clone(bundle), Some(Text::clone(&channel.name)));
        picks.picks.push(Pick { bundle, channel, wanted, asked: asked.clone() });
    };
    if full {
        channel.entries.iter().for_each(|entry| pick(&entry.name, Wanted::All));
        return;
    }
    let versions: Vec<(Version, &Entry)> =
        channel.entries.iter().filter_map(|e| Some((entry_version(package, e)?, e))).collect();
    if bounds.min.is_none() && bounds.max.is_none() {
        if let Some(head) = head(&versions) {
            pick(&head.name, Wanted::Head);
        }
        return;
    }
    let within = |version: &Version| {
        bounds.min.as_ref().is_none_or(|min| version >= min) && bounds.max.as_ref().is_none_or(|max| version <= max)
    };
    for (version, entry) in &versions {
        if within(version) {
            pick(&entry.name, Wanted::Range);
        } else if version.is_pre() && versions.iter().any(|(v, _)| within(v) && v.same_numbers(version)) {
            // A respin of a version that is wanted: by the letter it comes before it, and so before the lower bound.
            pick(&entry.name, Wanted::Respin);
        }
    }
    if picks.picks.len() == before {
        picks.notes.push(Note::NothingInRange {
            package: Text::clone(&package.name),
            channel: Text::clone(&channel.name),
            asked: asked.clone(),
        });
    }
}

/// The version that people see in a channel's entry, whether or not its bundle is there.
fn entry_version(package: &Package, entry: &Entry) -> Option<Version> {
    Version::of_name(&entry.name).or_else(|| version_of(package.bundle(&entry.name)?))
}

/// The highest version; but where a pre-release replaces or skips it, that is a respin which came later.
fn head<'a>(versions: &[(Version, &'a Entry)]) -> Option<&'a Entry> {
    // Of equal ones the first.
    let &(_, mut head) = versions.iter().rev().max_by(|(a, _), (b, _)| a.cmp(b))?;
    let mut respins: Vec<&(Version, &Entry)> = versions.iter().filter(|(v, _)| v.is_pre()).collect();
    respins.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (_, entry) in respins {
        if entry.replaces.as_ref() == Some(&head.name) || entry.skips.contains(&head.name) {
            head = entry;
        }
    }
    Some(head)
}
