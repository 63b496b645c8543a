//! The smallest change of a filter after which OLM takes what it chooses: found by trying, and judged by the same rules.

use std::collections::BTreeSet;

use super::{Finding, Problem, needs, refusals};
use crate::catalog::model::{Catalog, Package, Text};
use crate::catalog::select::{Filter, PackageFilter, Rule, Selection, select};

/// Most changes that are tried for one finding.
const MAX_TRIES: usize = 4000;

/// A change of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mend {
    /// What to do, in a sentence.
    pub text: String,
    /// The filter after it; `None` where the change is another one.
    pub filter: Option<Filter>,
    /// The bundles that come with it.
    pub adds: BTreeSet<Text>,
    /// The bundles that go with it.
    pub removes: BTreeSet<Text>,
}

/// One pair of bounds: of the package, or of one of its channels.
#[derive(Clone, Copy)]
enum Place {
    Package,
    Channel(usize),
}

/// What mends a finding. `None` where no change of the filter does.
pub fn mend(catalog: &Catalog, filter: &Filter, selection: &Selection, finding: &Finding) -> Option<Mend> {
    let package = catalog.package(&finding.package)?;
    match &finding.problem {
        Problem::Unmet { need, .. } => dependency(catalog, filter, need),
        Problem::Channel { .. } | Problem::DefaultChannel(_) => {
            let at = filter.packages.iter().position(|p| *p.name == *finding.package);
            let changed = at.and_then(|at| bounds(catalog, filter, at, package, selection));
            changed.or_else(|| other_rules(catalog, filter, at, package, selection.rule))
        }
        _ => None,
    }
}

fn dependency(catalog: &Catalog, filter: &Filter, need: &needs::Need) -> Option<Mend> {
    let name = needs::candidates(catalog, need).into_iter().next()?;
    let text = format!("add package `{name}`, or run with --with-dependencies");
    let listed = filter.packages.iter().any(|p| *p.name == *name);
    let filter = (!listed && !filter.packages.is_empty()).then(|| {
        let mut filter = filter.clone();
        filter.packages.push(PackageFilter::named(&*name));
        filter
    });
    Some(Mend { text, filter, adds: BTreeSet::new(), removes: BTreeSet::new() })
}

/// What is chosen of one package by a changed filter, where OLM takes it.
fn chosen(catalog: &Catalog, package: &Package, filter: &Filter, rule: Rule) -> Option<BTreeSet<Text>> {
    let selection = select(catalog, filter, rule).ok()?;
    let kept = selection.packages.get(&package.name)?;
    refusals(package, kept).is_empty().then(|| kept.bundles.keys().cloned().collect())
}

/// Tries other bounds and, for bundles by name, those on the way between them.
fn bounds(catalog: &Catalog, filter: &Filter, at: usize, package: &Package, selection: &Selection) -> Option<Mend> {
    let now: BTreeSet<Text> = selection.packages.get(&package.name)?.bundles.keys().cloned().collect();
    // Only this package is chosen anew for each try.
    let alone = |wanted: PackageFilter| Filter { full: filter.full, packages: vec![wanted] };
    let wanted = &filter.packages[at];
    let mut best: Option<(usize, Mend)> = None;
    let mut tries = 0;
    let mut consider = |changed: PackageFilter, text: &dyn Fn() -> String| {
        tries += 1;
        if tries > MAX_TRIES {
            return;
        }
        let Some(then) = chosen(catalog, package, &alone(changed.clone()), selection.rule) else { return };
        let adds: BTreeSet<Text> = then.difference(&now).cloned().collect();
        let removes: BTreeSet<Text> = now.difference(&then).cloned().collect();
        // What was asked for is not given up as long as something can be added instead.
        let cost = adds.len() + removes.len() * 1000;
        if best.as_ref().is_none_or(|(least, _)| cost < *least) {
            let mut filter = filter.clone();
            filter.packages[at] = changed;
            best = Some((cost, Mend { text: text(), filter: Some(filter), adds, removes }));
        }
    };
    let places: Vec<Place> = if wanted.min.is_some() || wanted.max.is_some() {
        vec![Place::Package]
    } else {
        (0..wanted.channels.len())
            .filter(|number| wanted.channels[*number].min.is_some() || wanted.channels[*number].max.is_some())
            .map(Place::Channel)
            .collect()
    };
    let versions = versions(package);
    for place in places {
        let (of, min, max) = match place {
            Place::Package => (format!("package `{}`", package.name), &wanted.min, &wanted.max),
            Place::Channel(number) => {
                let channel = &wanted.channels[number];
                (format!("channel `{}` of package `{}`", channel.name, package.name), &channel.min, &channel.max)
            }
        };
        let with = |min: &Option<String>, max: &Option<String>| {
            let mut changed = wanted.clone();
            match place {
                Place::Package => (changed.min, changed.max) = (min.clone(), max.clone()),
                Place::Channel(number) => {
                    let channel = &mut changed.channels[number];
                    (channel.min, channel.max) = (min.clone(), max.clone());
                }
            }
            changed
        };
        if min.is_some() {
            for other in &versions {
                consider(with(other, max), &|| sentence("minVersion", other.as_deref(), &of));
            }
        }
        if max.is_some() {
            for other in &versions {
                consider(with(min, other), &|| sentence("maxVersion", other.as_deref(), &of));
            }
        }
    }
    if !wanted.bundles.is_empty() {
        let mut changed = wanted.clone();
        changed.bundles = between(package, &wanted.bundles);
        let more: Vec<String> =
            changed.bundles.iter().filter(|b| !wanted.bundles.contains(b)).map(|b| format!("`{b}`")).collect();
        consider(changed, &|| format!("add the bundles on the way between them: {}", more.join(", ")));
    }
    best.map(|(_, mend)| mend)
}

fn sentence(field: &str, version: Option<&str>, of: &str) -> String {
    match version {
        Some(version) => format!("set {field} of {of} to {version}"),
        None => format!("take {field} of {of} out"),
    }
}

/// Every version of a package as a bound, and none.
fn versions(package: &Package) -> Vec<Option<String>> {
    let written = |name: &Text| name.split_once('.').map(|(_, v)| v.trim_start_matches('v').to_owned());
    let bundles = package.bundles.iter();
    let mut found: BTreeSet<String> = bundles
        .filter_map(|b| {
            crate::catalog::version::Version::of_name(&b.name)
                .and_then(|_| written(&b.name))
                .or_else(|| b.version.as_deref().map(str::to_owned))
        })
        .collect();
    found.retain(|text| crate::catalog::version::Version::tolerant(text).is_some());
    found.into_iter().map(Some).chain([None]).collect()
}

/// These bundles, and in each channel those on the chain from the highest to the lowest of them.
fn between(package: &Package, bundles: &[String]) -> Vec<String> {
    let mut all: BTreeSet<String> = bundles.iter().cloned().collect();
    for channel in &package.channels {
        let entries: Vec<_> = channel.entries.iter().collect();
        if super::channel::fault(entries.iter().copied()).is_some() {
            continue;
        }
        let mut chain = Vec::new();
        let mut current = super::channel::head(&entries);
        while let Some(name) = current {
            chain.push(name);
            current = channel.entry(name).and_then(|e| e.replaces.as_ref());
        }
        let named = |name: &&Text| bundles.iter().any(|b| **b == ***name);
        let (first, last) = (chain.iter().position(&named), chain.iter().rposition(named));
        if let (Some(first), Some(last)) = (first, last) {
            let known = chain[first..=last].iter().filter(|name| package.bundle(name).is_some());
            all.extend(known.map(|name| name.to_string()));
        }
    }
    all.into_iter().collect()
}

/// Whether the other rules choose something that OLM takes.
fn other_rules(catalog: &Catalog, filter: &Filter, at: Option<usize>, package: &Package, rule: Rule) -> Option<Mend> {
    let other = match rule {
        Rule::Table => Rule::Head,
        Rule::Head => Rule::Table,
    };
    let wanted = at.map_or_else(|| PackageFilter::named(&*package.name), |at| filter.packages[at].clone());
    chosen(catalog, package, &Filter { full: filter.full, packages: vec![wanted] }, other)?;
    let text = format!("choose by the other rules, with --selection {other}");
    Some(Mend { text, filter: None, adds: BTreeSet::new(), removes: BTreeSet::new() })
}
