//! Which bundles of a catalog a configuration stands for: two rule sets, one shape.
//!
//! | | [`Rule::Table`] (OpenShift's book, 3.5.10) | [`Rule::Head`] (oc-mirror since 2025, oc-mirror.md 6.2) |
//! |---|---|---|
//! | no package named | head of the default channel of each | head of every channel of each |
//! | package | head of its default channel | head of each of its channels |
//! | `full` | every bundle | every bundle |
//! | range on a package | in the default channel, by version | in each channel, along `replaces` |
//! | channels | head, range or all of each | the same |
//! | `bundles` | exactly those | refused, as oc-mirror does |
//! | head | the highest version; of respins the one that replaces or skips it | what nothing replaces or skips |
//! | bad data | the package is left out and named | the catalog is refused |
//!
//! The rules themselves are in [`table`] and [`head`]; this file knows what both share: names that are not there, the default channel, and
//! what of a package is left when nothing of it was chosen.

mod head;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use airlock_updates::nearest;

use super::model::{Catalog, Package, Text};
use super::version::Version;

/// Which rules choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rule {
    /// The table of OpenShift's book.
    #[default]
    Table,
    /// What oc-mirror does.
    Head,
}

/// What is wanted of a catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// All bundles instead of heads.
    pub full: bool,
    /// Which packages; empty: all.
    pub packages: Vec<PackageFilter>,
}

/// What is wanted of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackageFilter {
    /// Its name.
    pub name: String,
    /// Takes the place of its default channel.
    pub default_channel: Option<String>,
    /// Lowest version.
    pub min: Option<String>,
    /// Highest version.
    pub max: Option<String>,
    /// Which channels; empty: by the rules.
    pub channels: Vec<ChannelFilter>,
    /// Exactly these bundles.
    pub bundles: Vec<String>,
}

/// What is wanted of a channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelFilter {
    /// Its name.
    pub name: String,
    /// Lowest version.
    pub min: Option<String>,
    /// Highest version.
    pub max: Option<String>,
}

/// Which part of a [`Filter`] asked: by position, so that the caller knows the line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// The catalog as such.
    Catalog,
    /// `packages[0]`.
    Package(usize),
    /// `packages[0].channels[1]`.
    Channel(usize, usize),
    /// `packages[0].bundles[1]`.
    Bundle(usize, usize),
    /// A bundle that needs it.
    Needed(Text),
}

/// Why a bundle is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Why {
    /// Who asked.
    pub asked: Asked,
    /// In which channel it was found; `None` where channels did not matter.
    pub channel: Option<Text>,
    /// By what it was chosen.
    pub wanted: Wanted,
}

/// By what a bundle was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wanted {
    /// The head of the channel.
    Head,
    /// Its version is within the range.
    Range,
    /// A respin of a version within the range.
    Respin,
    /// It lies on the way between versions within the range.
    Between,
    /// Everything is kept.
    All,
    /// It is named.
    Named,
    /// Another bundle needs it.
    Dependency,
}

/// What is kept of a catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The rules it was chosen by.
    pub rule: Rule,
    /// The catalog stays as it is, and is not built anew: `full`, and no packages named.
    pub whole: bool,
    /// Whether packages were named, so that documents of others do not stay.
    pub listed: bool,
    /// What is kept, by package.
    pub packages: BTreeMap<Text, Kept>,
    /// What was asked for and could not be kept.
    pub dropped: Vec<Dropped>,
    /// Names that the catalog does not have.
    pub unknown: Vec<Unknown>,
    /// What else is worth saying.
    pub notes: Vec<Note>,
}

/// What is kept of a package.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Its default channel in the smaller catalog.
    pub default_channel: Option<Text>,
    /// The entries of each channel; none is empty.
    pub channels: BTreeMap<Text, BTreeSet<Text>>,
    /// The bundles, each with every reason.
    pub bundles: BTreeMap<Text, BTreeSet<Why>>,
}

/// A package of which nothing is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dropped {
    /// Its name.
    pub package: Text,
    /// Who asked for it.
    pub asked: Asked,
    /// Why, in a sentence.
    pub cause: String,
}

/// A name that the catalog does not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unknown {
    /// Who asked.
    pub asked: Asked,
    /// `package`, `channel` or `bundle`.
    pub kind: &'static str,
    /// The name.
    pub name: String,
    /// The package, for a channel or a bundle.
    pub package: Option<Text>,
    /// The one that was probably meant.
    pub nearest: Option<Text>,
}

/// Something that the rules did on their own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// The default channel was not kept or does not exist, and another took its place.
    DefaultChannel {
        /// The package.
        package: Text,
        /// The default channel in the catalog.
        was: Option<Text>,
        /// The one in the smaller catalog.
        now: Text,
    },
    /// Nothing of a channel is within its range.
    NothingInRange {
        /// The package.
        package: Text,
        /// The channel.
        channel: Text,
        /// Who asked.
        asked: Asked,
    },
}

/// Why nothing can be chosen from a catalog.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct SelectError {
    /// Which part of the filter it is about.
    pub asked: Asked,
    /// What is wrong, in a sentence that names package, channel or bundle.
    pub cause: String,
    /// What helps.
    pub hint: Option<String>,
}

/// One choice of the rules.
struct Pick {
    bundle: Text,
    channel: Option<Text>,
    wanted: Wanted,
    asked: Asked,
}

/// What the rules chose of one package.
#[derive(Default)]
struct Picks {
    picks: Vec<Pick>,
    notes: Vec<Note>,
}

/// A pair of bounds, read.
#[derive(Clone, Debug, Default)]
struct Bounds {
    min: Option<Version>,
    max: Option<Version>,
}

impl Rule {
    /// `table`, `head`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Head => "head",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PackageFilter {
    /// The package and nothing more about it.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    fn has_range(&self) -> bool {
        self.min.is_some() || self.max.is_some()
    }
}

impl ChannelFilter {
    fn has_range(&self) -> bool {
        self.min.is_some() || self.max.is_some()
    }
}

impl Selection {
    /// How many bundles are kept.
    pub fn bundles(&self) -> usize {
        self.packages.values().map(|kept| kept.bundles.len()).sum()
    }
}

impl SelectError {
    fn new(asked: Asked, cause: impl Into<String>) -> Self {
        Self { asked, cause: cause.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl Bounds {
    fn read(min: Option<&str>, max: Option<&str>, asked: &Asked, of: &str) -> Result<Self, SelectError> {
        let one = |text: Option<&str>, field: &str| match text {
            None => Ok(None),
            Some(text) => Version::tolerant(text).map(Some).ok_or_else(|| {
                SelectError::new(asked.clone(), format!("{of}: {field} `{text}` is not a semantic version"))
                    .hint("write a version such as 1.2.3")
            }),
        };
        Ok(Self { min: one(min, "minVersion")?, max: one(max, "maxVersion")? })
    }
}

/// Chooses. Every mistake of the filter, and under [`Rule::Head`] of the catalog, is told.
pub fn select(catalog: &Catalog, filter: &Filter, rule: Rule) -> Result<Selection, Vec<SelectError>> {
    let mut selection = Selection {
        rule,
        whole: filter.full && filter.packages.is_empty(),
        listed: !filter.packages.is_empty(),
        packages: BTreeMap::new(),
        dropped: Vec::new(),
        unknown: Vec::new(),
        notes: Vec::new(),
    };
    let mut errors: Vec<SelectError> = filter
        .packages
        .iter()
        .enumerate()
        .flat_map(|(at, package)| match rule {
            Rule::Table => table::refused(filter, at, package),
            Rule::Head => head::refused(filter, at, package),
        })
        .collect();
    if selection.whole {
        for package in catalog.packages() {
            selection.packages.insert(Text::clone(&package.name), all_of(package));
        }
        return Ok(selection);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let nothing = PackageFilter::default();
    let wanted: Vec<(Asked, &PackageFilter, Option<&Package>)> = if selection.listed {
        let listed = filter.packages.iter().enumerate();
        listed.map(|(at, wanted)| (Asked::Package(at), wanted, catalog.package(&wanted.name))).collect()
    } else {
        catalog.packages().map(|package| (Asked::Catalog, &nothing, Some(package))).collect()
    };
    for (asked, wanted, package) in wanted {
        let Some(package) = package else {
            let known = catalog.packages().map(|p| &*p.name);
            selection.unknown.push(Unknown {
                asked,
                kind: "package",
                name: wanted.name.clone(),
                package: None,
                nearest: nearest(&wanted.name, known).map(Text::from),
            });
            continue;
        };
        selection.unknown.extend(unknown_names(package, &asked, wanted));
        let result = match rule {
            Rule::Table => table::package(package, wanted, filter.full, &asked),
            Rule::Head => head::package(package, wanted, filter.full, &asked, selection.listed),
        };
        match result.and_then(|picks| {
            let notes = picks.notes.clone();
            Ok((keep(package, wanted, picks, &asked)?, notes))
        }) {
            Err(error) => errors.push(error),
            Ok((Outcome::Kept(kept, note), notes)) => {
                selection.packages.insert(Text::clone(&package.name), kept);
                selection.notes.extend(notes.into_iter().chain(note));
            }
            Ok((Outcome::Dropped(cause), notes)) => {
                selection.dropped.push(Dropped { package: Text::clone(&package.name), asked, cause });
                selection.notes.extend(notes);
            }
        }
    }
    if errors.is_empty() && rule == Rule::Head && selection.packages.is_empty() {
        let cause = "no bundle of the catalog was chosen".to_owned();
        let error = SelectError::new(Asked::Catalog, cause);
        let near = selection.unknown.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        errors.push(if near.is_empty() { error } else { error.hint(near) });
    }
    if errors.is_empty() { Ok(selection) } else { Err(errors) }
}

enum Outcome {
    Kept(Kept, Option<Note>),
    Dropped(String),
}

/// All of a package, as it is.
fn all_of(package: &Package) -> Kept {
    let mut kept = Kept { default_channel: package.default_channel.clone(), ..Kept::default() };
    for channel in &package.channels {
        let entries = channel.entries.iter().filter(|e| package.bundle(&e.name).is_some());
        kept.channels.insert(Text::clone(&channel.name), entries.map(|e| Text::clone(&e.name)).collect());
    }
    kept.channels.retain(|_, entries| !entries.is_empty());
    let why = Why { asked: Asked::Catalog, channel: None, wanted: Wanted::All };
    kept.bundles = package.bundles.iter().map(|b| (Text::clone(&b.name), [why.clone()].into())).collect();
    kept
}

fn unknown_names(package: &Package, asked: &Asked, wanted: &PackageFilter) -> Vec<Unknown> {
    let Asked::Package(at) = *asked else { return Vec::new() };
    let unknown = |asked, kind, name: &str, nearest: Option<&str>| Unknown {
        asked,
        kind,
        name: name.to_owned(),
        package: Some(Text::clone(&package.name)),
        nearest: nearest.map(Text::from),
    };
    let channels = wanted.channels.iter().enumerate().filter(|(_, c)| package.channel(&c.name).is_none());
    let channels = channels.map(|(number, channel)| {
        let near = nearest(&channel.name, package.channels.iter().map(|c| &*c.name));
        unknown(Asked::Channel(at, number), "channel", &channel.name, near)
    });
    let bundles = wanted.bundles.iter().enumerate().filter(|(_, b)| package.bundle(b).is_none());
    let bundles = bundles.map(|(number, bundle)| {
        let near = nearest(bundle, package.bundles.iter().map(|b| &*b.name));
        unknown(Asked::Bundle(at, number), "bundle", bundle, near)
    });
    channels.chain(bundles).collect()
}

/// Makes of the picks what is kept: bundles that exist, channels that have some, and a default channel among them.
fn keep(package: &Package, wanted: &PackageFilter, picks: Picks, asked: &Asked) -> Result<Outcome, SelectError> {
    let mut kept = Kept::default();
    for Pick { bundle, channel, wanted, asked } in picks.picks {
        if package.bundle(&bundle).is_none() {
            continue;
        }
        if let Some(channel) = &channel {
            kept.channels.entry(Text::clone(channel)).or_default().insert(Text::clone(&bundle));
        }
        kept.bundles.entry(bundle).or_default().insert(Why { asked, channel, wanted });
    }
    // A bundle that was chosen without a channel stands in each that has it.
    for channel in &package.channels {
        let named = kept.bundles.iter().filter(|(_, why)| why.iter().all(|w| w.channel.is_none()));
        let here: Vec<Text> =
            named.map(|(name, _)| name).filter(|name| channel.entry(name).is_some()).map(Text::clone).collect();
        if !here.is_empty() {
            kept.channels.entry(Text::clone(&channel.name)).or_default().extend(here);
        }
    }
    let homeless = |name: &Text| !kept.channels.values().any(|entries| entries.contains(name));
    let without: Vec<Text> = kept.bundles.keys().filter(|name| homeless(name)).map(Text::clone).collect();
    for name in without {
        kept.bundles.remove(&name);
    }
    if kept.bundles.is_empty() {
        return Ok(Outcome::Dropped(nothing_left(package, wanted)));
    }
    if let Some(name) = &wanted.default_channel {
        if !kept.channels.contains_key(name.as_str()) {
            let known = package.channels.iter().map(|c| &*c.name);
            let (cause, hint) = if package.channel(name).is_none() {
                let near = nearest(name, known).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                (format!("defaultChannel `{name}` is no channel of package `{}`{near}", package.name), None)
            } else {
                let hint = format!("add `{name}` to the channels of `{}`", package.name);
                (
                    format!("defaultChannel `{name}` of package `{}` is not among what is kept of it", package.name),
                    Some(hint),
                )
            };
            let error = SelectError::new(asked.clone(), cause);
            return Err(match hint {
                Some(hint) => error.hint(hint),
                None => error,
            });
        }
        kept.default_channel = Some(name.as_str().into());
        return Ok(Outcome::Kept(kept, None));
    }
    let original = package.default_channel.clone();
    if original.as_ref().is_some_and(|name| kept.channels.contains_key(name)) {
        kept.default_channel = original;
        return Ok(Outcome::Kept(kept, None));
    }
    let now = best_channel(package, &kept);
    kept.default_channel = Some(Text::clone(&now));
    let note = Note::DefaultChannel { package: Text::clone(&package.name), was: original, now };
    Ok(Outcome::Kept(kept, Some(note)))
}

/// The channel that has the highest version; of several the last by name.
fn best_channel(package: &Package, kept: &Kept) -> Text {
    let version = |name: &Text| package.bundle(name).and_then(version_of);
    let best = kept.channels.iter().max_by_key(|(name, entries)| (entries.iter().filter_map(version).max(), *name));
    best.map_or_else(|| "".into(), |(name, _)| Text::clone(name))
}

/// A bundle's version as people see it: the one in its name, and only where there is none the one of its property. Red Hat's respins have in the
/// name as pre-release (`1.2.3-0.1718.p`) what the property has as build metadata (`1.2.3+0.1718.p`).
pub(super) fn version_of(bundle: &super::model::Bundle) -> Option<Version> {
    Version::of_name(&bundle.name).or_else(|| Version::tolerant(bundle.version.as_deref()?))
}

fn nothing_left(package: &Package, wanted: &PackageFilter) -> String {
    let name = &package.name;
    if let Some(fault) = package.faults.first() {
        return fault.clone();
    }
    let default = package.default_channel.as_deref();
    match default {
        _ if !wanted.channels.is_empty() || wanted.has_range() || !wanted.bundles.is_empty() => {
            format!("nothing of package `{name}` is what is asked for")
        }
        None => format!("package `{name}` has no default channel"),
        Some(channel) if package.channel(channel).is_none() => {
            format!("the default channel `{channel}` of package `{name}` does not exist")
        }
        Some(channel) => format!("no bundle in channel `{channel}` of package `{name}` has a semantic version"),
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.package {
            Some(package) => write!(f, "package `{package}` has no {} `{}`", self.kind, self.name)?,
            None => write!(f, "the catalog has no {} `{}`", self.kind, self.name)?,
        }
        match &self.nearest {
            Some(near) => write!(f, "; did you mean `{near}`?"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DefaultChannel { package, was: Some(was), now } => write!(
                f,
                "package `{package}`: its default channel `{was}` is not kept; `{now}` takes its place (set `defaultChannel` for another)"
            ),
            Self::DefaultChannel { package, was: None, now } => {
                write!(
                    f,
                    "package `{package}` names no default channel; `{now}` becomes it (set `defaultChannel` for another)"
                )
            }
            Self::NothingInRange { package, channel, .. } => {
                write!(
                    f,
                    "package `{package}`: nothing in channel `{channel}` is within the range; the channel is left out"
                )
            }
        }
    }
}
