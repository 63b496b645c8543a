//! `operators` of a configuration: each catalog is read and chosen from, its bundles' images are wanted, and what is left of it after they were
//! looked up is built anew (oc-mirror 6).
//!
//! [`Reader::open`] comes before the images are looked up, [`Reader::close`] after: a bundle of which an image cannot be had is not to be in the catalog.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use airlock_content::catalog::{
    self as content, Asked, Base, DerivedSource, Filter, Related, Rule, Selection, Target, Text, doctor,
};
use airlock_oci::{Digest, Error, ErrorKind, Reference, Registry, Repository, Source, Tag};
use airlock_store::oci_layout::{Layout, Writer};
use serde::{Deserialize, Serialize};

use super::cache::used;
use super::model::{Catalog, Kind, Missing, Package, Reason};
use super::naming::{GENERATED_REGISTRY, digest_tag, repository_of};
use super::wanted::{Wanted, file_name, layout_reference};
use crate::config::{self, ImageLocation, ImageName, Loaded};
use crate::sources::Router;

/// The tag under which a built catalog is known while planning, and of one on disk at the destination (oc-mirror 4.3).
const LATEST: &str = "latest";
/// The code of a bundle that is not carried because an image that it needs is not.
const WITHHELD: &str = "withheld";
/// Most bundles that one message names.
const MAX_NAMED: usize = 10;

/// Which rules choose bundles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rules {
    /// The table of OpenShift's book.
    #[default]
    Table,
    /// What oc-mirror does.
    Head,
}

/// What becomes of a bundle of which an image cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnMissing {
    /// It is left out of the catalog, and not carried.
    #[default]
    Skip,
    /// The catalog keeps it; only its image is withheld.
    Keep,
    /// Nothing at all is mirrored.
    Fail,
}

/// How to choose.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    /// The rules.
    pub rules: Rules,
    /// What becomes of bundles that cannot be whole.
    pub on_missing: OnMissing,
    /// What the chosen bundles need is added.
    pub with_dependencies: bool,
}

/// Takes catalogs to pieces and builds smaller ones.
pub(super) struct Reader<'a> {
    pub loaded: &'a Loaded,
    pub choice: Choice,
    /// Reads catalogs: manifests at hand are not asked for again.
    pub source: Arc<dyn Source>,
    /// Serves what is built.
    pub router: Arc<Router>,
    /// Where what is read and built is kept.
    pub folder: &'a Path,
    /// The catalogs as published are wanted too: for an archive, from which somebody may choose less.
    pub originals: bool,
}

/// Why an image cannot be had.
pub(super) struct Fault {
    pub error: Error,
    /// Another attempt may bring it.
    pub passing: bool,
}

/// A catalog that was read and chosen from.
pub(super) struct Open<'a> {
    entry: &'a config::Catalog,
    source: Reference,
    repository: Repository,
    catalog: content::Catalog,
    filter: Filter,
    selection: Selection,
    related: Related,
}

/// What the section stands for.
#[derive(Default)]
pub(super) struct Found<'a> {
    pub open: Vec<Open<'a>>,
    pub wanted: Vec<Wanted>,
    pub missing: Vec<Missing>,
    pub warnings: Vec<String>,
}

/// What became of the wanted images of one catalog.
#[derive(Default)]
pub(super) struct Closed {
    /// What is carried of it.
    pub wanted: Vec<Wanted>,
    /// The catalog's own images.
    pub images: Vec<Wanted>,
    /// What is kept; its digest is that of the first of `images`, once that is known.
    pub catalog: Option<Catalog>,
    pub missing: Vec<Missing>,
    pub warnings: Vec<String>,
}

/// How two sets of rules differ for one catalog.
pub(super) struct Difference {
    pub other: Rules,
    pub name: String,
    /// How many bundles each would keep.
    pub bundles: (usize, usize),
    /// How many only the other would keep, and how many only the one in force.
    pub more: usize,
    pub fewer: usize,
    /// Images that only the other rules would want.
    pub images: Vec<Wanted>,
    /// Names of images that only the rules in force want.
    pub spared: BTreeSet<Reference>,
}

impl Rules {
    fn rule(self) -> Rule {
        match self {
            Self::Table => Rule::Table,
            Self::Head => Rule::Head,
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Table => Self::Head,
            Self::Head => Self::Table,
        }
    }

    /// `table`, `head`.
    pub fn name(self) -> &'static str {
        self.rule().name()
    }
}

impl<'a> Reader<'a> {
    /// Reads every catalog of the configuration. One that cannot be read, or chosen from, does not keep others from it.
    pub(super) async fn open(&self) -> Found<'a> {
        let mut found = Found::default();
        for entry in &self.loaded.config.mirror.operators {
            match self.one(entry, &mut found).await {
                Ok(open) => {
                    found.wanted.extend(self.images(&open));
                    // It is looked up in any case: whether it may be carried, and for which platforms it is.
                    found.wanted.push(self.original(&open));
                    found.open.push(open);
                }
                Err(errors) => {
                    let reasons = vec![self.reason(entry.line, "operators")];
                    found
                        .missing
                        .extend(errors.iter().map(|e| missing(&entry.catalog.text, Kind::Catalog, reasons.clone(), e)));
                }
            }
        }
        found
    }

    async fn one(&self, entry: &'a config::Catalog, found: &mut Found<'a>) -> Result<Open<'a>, Vec<Error>> {
        let source = source_of(&entry.catalog).map_err(|e| vec![e])?;
        let repository = repository(entry).map_err(|e| vec![e])?;
        let catalog = content::read(self.source.as_ref(), &source, self.folder).await.map_err(|e| vec![e])?;
        let filter = filter_of(entry);
        let of = &entry.catalog.text;
        let mut selection =
            content::select(&catalog, &filter, self.choice.rules.rule()).map_err(|errors| -> Vec<Error> {
                let told = |e: &content::SelectError| {
                    let what =
                        format!("choose from catalog {of} ({}:{})", file_name(self.loaded), line(entry, &e.asked));
                    let error = Error::new(ErrorKind::Invalid, what, &e.cause);
                    match &e.hint {
                        Some(hint) => error.hint(hint),
                        None => error,
                    }
                };
                errors.iter().map(told).collect()
            })?;
        if self.choice.with_dependencies {
            let (more, added) = doctor::with_dependencies(&catalog, &selection);
            found.warnings.extend(added.iter().map(|a| {
                format!(
                    "catalog {of}: bundle `{}` of package `{}` is added: `{}` needs {}",
                    a.bundle, a.package, a.needed_by, a.need
                )
            }));
            selection = more;
        }
        let mends: BTreeMap<Text, String> = doctor::examine(&catalog, &selection)
            .into_iter()
            .filter(|finding| finding.severity() == doctor::Severity::Refused)
            .filter_map(|finding| {
                let mend = doctor::mend(&catalog, &filter, &selection, &finding)?;
                Some((finding.package, mend.text))
            })
            .collect();
        // By oc-mirror's rules the catalog stays as it was published, with all its faults.
        if self.choice.rules == Rules::Table && !selection.whole {
            selection = doctor::leave_out_broken(&catalog, &selection).0;
        }
        found.warnings.extend(selection.notes.iter().map(|note| format!("catalog {of}: {note}")));
        Self::examine(of, &catalog, &filter, &selection, found);
        for dropped in &selection.dropped {
            let reason = self.reason(line(entry, &dropped.asked), format!("package {}", dropped.package));
            let what = format!("keep package `{}` of catalog {of}", dropped.package);
            let mend = mends.get(&dropped.package).map_or_else(
                || "choose other versions or channels of it, or leave it out of the configuration".to_owned(),
                String::clone,
            );
            let error = Error::new(ErrorKind::Content, what, &dropped.cause).hint(mend);
            found.missing.push(missing(&format!("{of} {}", dropped.package), Kind::Catalog, vec![reason], &error));
        }
        for unknown in &selection.unknown {
            if self.choice.rules == Rules::Head {
                // oc-mirror drops such names in silence, and scripts rely on the rest being mirrored.
                found.warnings.push(format!("catalog {of}: {unknown}"));
                continue;
            }
            let reason = self.reason(line(entry, &unknown.asked), format!("{} {}", unknown.kind, unknown.name));
            let what = format!("find {} `{}` in catalog {of}", unknown.kind, unknown.name);
            let error = Error::new(ErrorKind::NotFound, what, unknown)
                .hint(format!("`airlock catalog list {of}` shows what it has"));
            found.missing.push(missing(&format!("{of} {}", unknown.name), Kind::Catalog, vec![reason], &error));
        }
        let related =
            content::related(&catalog, &selection).map_err(|e| vec![e.context(format!("read catalog {of}"))])?;
        Ok(Open { entry, source, repository, catalog, filter, selection, related })
    }

    /// Tells what OLM would not take or not install, and the smallest change that helps.
    fn examine(of: &str, catalog: &content::Catalog, filter: &Filter, selection: &Selection, found: &mut Found<'_>) {
        // What is mirrored whole is its publisher's business.
        if selection.whole {
            return;
        }
        for finding in doctor::examine(catalog, selection) {
            let mend = doctor::mend(catalog, filter, selection, &finding);
            let help = mend.map_or_else(String::new, |mend| format!("; {}", mend.text));
            let weight = match finding.severity() {
                doctor::Severity::Refused => "OLM will refuse this catalog",
                doctor::Severity::NotInstallable => "not installable from this catalog alone",
                doctor::Severity::Unsure => "perhaps not installable from this catalog alone",
                doctor::Severity::Loose => "not pinned",
            };
            found.warnings.push(format!("catalog {of}: {weight}: {finding}{help}"));
        }
    }

    fn reason(&self, line: u32, what: impl Into<String>) -> Reason {
        Reason { file: file_name(self.loaded), line, what: what.into() }
    }

    /// The images of the bundles that are kept.
    fn images(&self, open: &Open<'_>) -> Vec<Wanted> {
        self.images_of(open.entry, &open.selection, &open.related)
    }

    fn images_of(&self, entry: &config::Catalog, selection: &Selection, related: &Related) -> Vec<Wanted> {
        // What each bundle needs besides its own image.
        let mut needs: HashMap<(&Text, &Text), Vec<&Reference>> = HashMap::new();
        for image in related.images.values().filter(|image| !image.bundle) {
            for by in &image.needed {
                needs.entry((&by.package, &by.bundle)).or_default().push(&image.reference);
            }
        }
        let mut all = Vec::with_capacity(related.images.len());
        for (text, image) in &related.images {
            let name = ImageName {
                text: written(text).to_owned(),
                location: ImageLocation::Registry(image.reference.clone()),
            };
            let Ok(repository) = repository_of(&name) else { continue };
            let kind = if image.bundle { Kind::Bundle } else { Kind::Related };
            let reasons = image.needed.iter().map(|by| {
                let whys = selection.packages.get(&by.package).and_then(|kept| kept.bundles.get(&by.bundle));
                let asked = whys.and_then(|whys| whys.first()).map_or(&Asked::Catalog, |why| &why.asked);
                let channels: Vec<&str> = by.channels.iter().map(|c| &**c).collect();
                let (one, channels) = (if channels.len() == 1 { "channel" } else { "channels" }, channels.join(", "));
                let what = format!("operator {}, bundle {}, {one} {channels}", by.package, by.bundle);
                self.reason(line(entry, asked), what)
            });
            let mut wanted = Wanted::new(name.text, image.reference.clone(), kind, reasons.collect(), repository);
            wanted.platforms.clone_from(&entry.platforms);
            if image.bundle {
                let needed = image.needed.iter().filter_map(|by| needs.get(&(&by.package, &by.bundle))).flatten();
                wanted.needs = needed.map(|r| (*r).clone()).collect();
                wanted.needs.sort();
                wanted.needs.dedup();
            }
            all.push(wanted);
        }
        all
    }

    /// The catalog as published, under its digest.
    fn original(&self, open: &Open<'_>) -> Wanted {
        let reasons = vec![self.reason(open.entry.line, "operators, as published")];
        let (name, source) = (open.entry.catalog.text.clone(), open.source.clone());
        let mut wanted = Wanted::new(name, source, Kind::Catalog, reasons, open.repository.clone());
        wanted.tag = open.catalog.origin.digest.as_ref().map(digest_tag).or(wanted.tag);
        wanted.platforms.clone_from(&open.entry.platforms);
        wanted.original = true;
        wanted.pinned.clone_from(&open.catalog.origin.digest);
        wanted
    }

    /// Decides about what cannot be had, and builds the smaller catalog. `fault` says why an image cannot be had, if it cannot.
    pub(super) async fn close(
        &self,
        open: &Open<'_>,
        fault: &(dyn Fn(&Wanted) -> Option<Fault> + Sync),
    ) -> Result<Closed, Error> {
        let of = &open.entry.catalog.text;
        if let Some(fault) = fault(&self.original(open)) {
            let reasons = vec![self.reason(open.entry.line, "operators")];
            return Ok(Closed {
                missing: vec![missing(of, Kind::Catalog, reasons, &fault.error)],
                ..Closed::default()
            });
        }
        let mut closed = Closed { wanted: self.images(open), ..Closed::default() };
        let mut lacking: BTreeMap<Text, Error> = BTreeMap::new();
        let mut later: BTreeSet<Reference> = BTreeSet::new();
        let by_name: HashMap<&str, &Wanted> = closed.wanted.iter().map(|w| (w.name.as_str(), w)).collect();
        for (text, image) in &open.related.images {
            let Some(wanted) = by_name.get(written(text)) else { continue };
            match fault(wanted) {
                None => {}
                // What another attempt may bring never changes the catalog.
                Some(fault) if fault.passing => drop(later.insert(image.reference.clone())),
                Some(fault) => drop(lacking.insert(Text::clone(text), fault.error)),
            }
        }
        for invalid in &open.related.invalid {
            let what = format!("read catalog {of}");
            lacking.insert(
                Text::clone(&invalid.text),
                Error::new(ErrorKind::Content, what, invalid).hint("its publisher must mend it"),
            );
        }
        if let (OnMissing::Fail, Some((text, error))) = (self.choice.on_missing, lacking.iter().next()) {
            return Err(error
                .clone()
                .context(format!("plan catalog {of}: image `{text}` cannot be had ({} in all)", lacking.len()))
                .hint("--on-missing skip leaves its bundles out, keep mirrors the rest"));
        }
        let mut selection = open.selection.clone();
        if self.choice.on_missing == OnMissing::Skip && !lacking.is_empty() {
            let texts = lacking.keys().map(Text::clone).collect();
            let (rest, left) = content::leave_out(&open.catalog, &open.selection, &texts);
            // Nothing may be left, which is told below.
            let related = content::related(&open.catalog, &rest).unwrap_or_default();
            closed.wanted = self.images_of(open.entry, &rest, &related);
            for (bundle, images) in &left.bundles {
                let images: Vec<&str> = images.iter().map(|i| &**i).collect();
                closed.warnings.push(format!(
                    "catalog {of}: bundle `{}` of package `{}` is left out: {} cannot be had",
                    bundle.bundle,
                    bundle.package,
                    images.join(", ")
                ));
            }
            for dropped in &left.packages {
                closed
                    .warnings
                    .push(format!("catalog {of}: package `{}` is left out: {}", dropped.package, dropped.cause));
            }
            selection = rest;
        }
        for (text, error) in &lacking {
            let needed = open
                .related
                .images
                .get(text)
                .map(|i| (&i.needed, i.bundle))
                .or_else(|| open.related.invalid.iter().find(|i| i.text == *text).map(|i| (&i.needed, false)));
            let Some((needed, bundle)) = needed else { continue };
            let reasons = needed
                .iter()
                .take(MAX_NAMED)
                .map(|by| self.reason(open.entry.line, format!("operator {}, bundle {}", by.package, by.bundle)));
            let kind = if bundle { Kind::Bundle } else { Kind::Related };
            closed.missing.push(missing(text, kind, reasons.collect(), error));
        }
        // What is not carried is told once, above; and without it a bundle's own image is of no use.
        let lost: BTreeSet<Reference> =
            lacking.keys().filter_map(|t| open.related.images.get(t)).map(|i| i.reference.clone()).collect();
        closed.wanted.retain(|wanted| !lost.contains(&wanted.source));
        let unnamed: BTreeSet<(&Text, &Text)> =
            open.related.invalid.iter().flat_map(|i| &i.needed).map(|by| (&by.package, &by.bundle)).collect();
        let incomplete: BTreeSet<&Reference> = open
            .related
            .images
            .values()
            .filter(|i| i.bundle && i.needed.iter().any(|by| unnamed.contains(&(&by.package, &by.bundle))))
            .map(|i| &i.reference)
            .collect();
        let (told, held) = (&mut closed.missing, |source: &Reference| lost.contains(source) || later.contains(source));
        closed.wanted.retain(|wanted| {
            let lacks = wanted.needs.iter().find(|need| held(need)).map(ToString::to_string);
            let lacks =
                lacks.or_else(|| incomplete.contains(&wanted.source).then(|| "one without a valid name".to_owned()));
            let Some(lacks) = lacks.filter(|_| wanted.kind == Kind::Bundle) else { return true };
            told.push(Missing {
                name: wanted.name.clone(),
                kind: Kind::Bundle,
                reasons: wanted.reasons.clone(),
                code: WITHHELD.into(),
                cause: format!(
                    "skipping operator bundle `{}` because one of its related images failed to mirror: {lacks}",
                    wanted.name
                ),
                hint: None,
            });
            false
        });
        if let Err(error) = self.build(open, &selection, &mut closed).await {
            let reasons = vec![self.reason(open.entry.line, "operators")];
            closed.missing.push(missing(of, Kind::Catalog, reasons, &error));
            // Without the catalog nothing leads to its bundles.
            closed.wanted.clear();
            closed.images.clear();
            closed.catalog = None;
        }
        Ok(closed)
    }

    /// The image that is mirrored: the catalog itself, or what is built of it.
    async fn build(&self, open: &Open<'_>, selection: &Selection, closed: &mut Closed) -> Result<(), Error> {
        let (entry, of) = (open.entry, &open.entry.catalog.text);
        let published = open.catalog.origin.digest.clone().unwrap_or_else(|| Digest::of(b""));
        let tag = entry.target_tag.clone().or_else(|| match &entry.catalog.location {
            ImageLocation::Layout(_) => Tag::new(LATEST).ok(),
            ImageLocation::Registry(reference) => reference.tag().cloned(),
        });
        let reasons = vec![self.reason(entry.line, "operators")];
        let (wanted, digest) = if selection.whole {
            let mut wanted =
                Wanted::new(of.clone(), open.source.clone(), Kind::Catalog, reasons, open.repository.clone());
            wanted.tag = Some(tag.unwrap_or_else(|| digest_tag(&published)));
            wanted.platforms.clone_from(&entry.platforms);
            wanted.pinned.clone_from(&open.catalog.origin.digest);
            (wanted, published.clone())
        } else if selection.packages.is_empty() {
            closed.missing.push(Missing {
                name: of.clone(),
                kind: Kind::Catalog,
                reasons,
                code: ErrorKind::NotFound.code().into(),
                cause: format!("nothing is left of catalog {of}"),
                hint: Some(format!("`airlock catalog list {of}` shows what it has")),
            });
            return Ok(());
        } else {
            let key = format!("{of} {:?} {:?}", entry.target_catalog, entry.target_tag);
            let generated = generated(&key)?;
            let folder = self.folder.join(generated.repository().as_str());
            let writer = Writer::open(&folder)?;
            let latest = generated.tag().cloned().ok_or_else(|| unnamed(of))?;
            // A tag may have moved since the catalog was read.
            let pinned = open.source.with_digest(published.clone());
            let base = Base { source: self.source.as_ref(), name: &pinned, platforms: &entry.platforms };
            let target = Target { sink: &writer, repository: generated.repository(), tag: &latest };
            let built = content::rebuild(&open.catalog, selection, base, target, self.folder).await?;
            used(&folder);
            let layout: Arc<dyn Source> = Arc::new(Layout::open(&folder)?);
            let source = DerivedSource::new(&built, layout, Arc::clone(&self.source));
            self.router.serve(generated.repository().clone(), Arc::new(source));
            let digest = built.manifest.digest().clone();
            let mut wanted = Wanted::new(of.clone(), generated, Kind::Catalog, reasons, open.repository.clone());
            wanted.tag = Some(tag.unwrap_or_else(|| digest_tag(&digest)));
            (wanted, digest)
        };
        closed.catalog = Some(Catalog {
            name: of.clone(),
            source: open.source.clone(),
            published,
            digest,
            repository: wanted.repository.clone(),
            tag: wanted.tag.clone().ok_or_else(|| unnamed(of))?,
            rules: self.choice.rules.name().into(),
            whole: selection.whole,
            packages: packages(selection),
        });
        closed.images.push(wanted);
        if self.originals && !selection.whole {
            closed.images.push(self.original(open));
        }
        Ok(())
    }

    /// What the other rules would have chosen; `None` where that is the same, or nothing.
    pub(super) fn difference(&self, open: &Open<'_>) -> Option<Difference> {
        let other = self.choice.rules.other();
        let selection = content::select(&open.catalog, &open.filter, other.rule()).ok()?;
        let bundles = |s: &Selection| -> BTreeSet<(Text, Text)> {
            let of = |(package, kept): (&Text, &content::Kept)| {
                let package = Text::clone(package);
                kept.bundles.keys().map(move |b| (Text::clone(&package), Text::clone(b))).collect::<Vec<_>>()
            };
            s.packages.iter().flat_map(of).collect()
        };
        let (ours, theirs) = (bundles(&open.selection), bundles(&selection));
        if ours == theirs {
            return None;
        }
        // Of names that are none, the run of the other rules would tell; here only sizes are asked for.
        let related = content::related(&open.catalog, &selection).unwrap_or_default();
        let own: BTreeSet<&Reference> = open.related.images.values().map(|i| &i.reference).collect();
        let images = self.images_of(open.entry, &selection, &related);
        let theirs_too: BTreeSet<&Reference> = images.iter().map(|w| &w.source).collect();
        let spared = own.difference(&theirs_too).map(|r| (*r).clone()).collect();
        Some(Difference {
            other,
            name: open.entry.catalog.text.clone(),
            bundles: (ours.len(), theirs.len()),
            more: theirs.difference(&ours).count(),
            fewer: ours.difference(&theirs).count(),
            images: images.into_iter().filter(|w| !own.contains(&w.source)).collect(),
            spared,
        })
    }
}

fn packages(selection: &Selection) -> BTreeMap<String, Package> {
    let names = |entries: &BTreeSet<Text>| entries.iter().map(ToString::to_string).collect();
    let package = |(name, kept): (&Text, &content::Kept)| {
        let channels = kept.channels.iter().map(|(channel, entries)| (channel.to_string(), names(entries)));
        let default_channel = kept.default_channel.as_ref().map(ToString::to_string);
        (name.to_string(), Package { default_channel, channels: channels.collect() })
    };
    selection.packages.iter().map(package).collect()
}

/// An image's name as the catalog writes it, without transport.
fn written(text: &str) -> &str {
    text.strip_prefix("docker://").unwrap_or(text)
}

fn source_of(name: &ImageName) -> Result<Reference, Error> {
    match &name.location {
        ImageLocation::Registry(reference) => Ok(reference.clone()),
        ImageLocation::Layout(_) => layout_reference(&name.text),
    }
}

/// The catalog's repository at the destination: `targetCatalog`, else its path without host, else the name of its directory (oc-mirror 4.3).
fn repository(entry: &config::Catalog) -> Result<Repository, Error> {
    if let Some(target) = &entry.target_catalog {
        return Ok(target.clone());
    }
    let ImageLocation::Layout(path) = &entry.catalog.location else { return repository_of(&entry.catalog) };
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    Repository::new(&name).map_err(|e| {
        Error::new(
            ErrorKind::Invalid,
            format!("name `{}` at the destination", entry.catalog.text),
            format!("`{name}`: {e}"),
        )
        .hint("set `targetCatalog` to a name in lower case")
    })
}

/// The name under which a built catalog is known inside a plan.
fn generated(key: &str) -> Result<Reference, Error> {
    let invalid = |e: &dyn std::fmt::Display| Error::new(ErrorKind::Invalid, "name a catalog that is built", e);
    let registry = Registry::new(GENERATED_REGISTRY).map_err(|e| invalid(&e))?;
    let path = format!("catalog-{}", &Digest::of(key.as_bytes()).hex()[..32]);
    let repository = Repository::new(&path).map_err(|e| invalid(&e))?;
    Ok(Reference::new(registry, repository, Tag::new(LATEST).ok(), None))
}

fn unnamed(of: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("name catalog {of} at the destination"), "it has neither tag nor digest")
}

/// What an entry of `operators` asks of its catalog.
pub fn filter_of(entry: &config::Catalog) -> Filter {
    let packages = entry.packages.iter().map(|package| content::PackageFilter {
        name: package.name.clone(),
        default_channel: package.default_channel.clone(),
        min: package.min_version.clone(),
        max: package.max_version.clone(),
        channels: package
            .channels
            .iter()
            .map(|channel| content::ChannelFilter {
                name: channel.name.clone(),
                min: channel.min_version.clone(),
                max: channel.max_version.clone(),
            })
            .collect(),
        bundles: package.bundles.iter().map(|b| b.name.clone()).collect(),
    });
    Filter { full: entry.full, packages: packages.collect() }
}

/// The line of the configuration that asked.
fn line(entry: &config::Catalog, asked: &Asked) -> u32 {
    let package = |at: &usize| entry.packages.get(*at);
    match asked {
        Asked::Package(at) => package(at).map(|p| p.line),
        Asked::Channel(at, number) => package(at).and_then(|p| p.channels.get(*number)).map(|c| c.line),
        Asked::Bundle(at, number) => package(at).and_then(|p| p.bundles.get(*number)).map(|b| b.line),
        Asked::Catalog | Asked::Needed(_) => None,
    }
    .unwrap_or(entry.line)
}

fn missing(name: &str, kind: Kind, reasons: Vec<Reason>, error: &Error) -> Missing {
    Missing {
        name: name.to_owned(),
        kind,
        reasons,
        code: error.kind().code().into(),
        cause: error.to_string(),
        hint: error.hint_text().map(str::to_owned),
    }
}
