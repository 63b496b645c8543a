//! `airlock catalog diff`: what a newer catalog, or another configuration, adds and takes away, and how many bytes that is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use airlock_client::RegistrySource;
use airlock_content::catalog::{Diff, Filter, PackageDiff, Rule, Selection, Side, Text, diff, select};
use airlock_mirror::config::{self, ImageLocation, Loaded};
use airlock_mirror::event::{Event, Events, Phase};
use airlock_mirror::plan::catalogs::filter_of;
use airlock_mirror::plan::{Attachments, Cache};
use airlock_mirror::run::one_image;
use airlock_oci::{Digest, Error, ErrorKind, Reference, Source};
use futures_util::StreamExt;
use serde::Serialize;

use super::Opened;
use crate::args::catalog::DiffArgs;
use crate::args::mirror::SelectionArg;
use crate::commands::mirror::client;
use crate::environment;
use crate::exit::Failure;
use crate::output::{self, size};
use crate::progress::Progress;

/// Images that are looked up at once.
const PARALLEL_LOOKUPS: usize = 8;

/// One comparison: a catalog of each side, where it has one, and what is chosen of it.
struct Pair {
    first: Option<Wanted>,
    second: Option<Wanted>,
}

/// A catalog, and what of it.
struct Wanted {
    catalog: String,
    filter: Option<Filter>,
}

/// A side that was read.
struct Read {
    opened: Opened,
    selection: Option<Selection>,
}

/// `-o json`: of each pair of catalogs.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    second: Option<String>,
    packages_added: Vec<String>,
    packages_removed: Vec<String>,
    packages_changed: Vec<Changed>,
    added: Images,
    removed: Images,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_channel: Option<Was>,
    channels_added: Vec<String>,
    channels_removed: Vec<String>,
    heads: Vec<Head>,
    bundles_added: Vec<String>,
    bundles_removed: Vec<String>,
}

#[derive(Serialize)]
struct Was {
    was: Option<String>,
    now: Option<String>,
}

#[derive(Serialize)]
struct Head {
    channel: String,
    was: Option<String>,
    now: Option<String>,
}

/// Images that only one side needs.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Images {
    images: BTreeSet<String>,
    /// Of their distinct blobs and manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    /// Of these, what no image that only the other side needs has too.
    #[serde(skip_serializing_if = "Option::is_none")]
    own_bytes: Option<u64>,
    /// Those of which nothing is known, with the reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    unknown: BTreeMap<String, String>,
}

/// What images come to.
#[derive(Default)]
struct Weighed {
    blobs: BTreeMap<Digest, u64>,
    unknown: BTreeMap<String, String>,
}

/// Runs the verb.
pub(super) async fn run(args: &DiffArgs, progress: &Arc<Progress>) -> Result<u8, Failure> {
    let events = progress.events();
    let mut documents = Vec::new();
    for pair in pairs(args)? {
        events(Event::Phase(Phase::Plan));
        let first = side(args, pair.first, &events, progress).await?;
        let second = side(args, pair.second, &events, progress).await?;
        documents.push(compare(args, first, second, &events).await?);
    }
    progress.end();
    if !output::value(args.output, &documents)? {
        output::text(&documents.iter().map(Document::text).collect::<Vec<_>>().join("\n"))?;
    }
    for (image, cause) in documents.iter().flat_map(|d| d.added.unknown.iter().chain(&d.removed.unknown)) {
        eprintln!("warning: the bytes of `{image}` are not known: {cause}");
    }
    Ok(0)
}

/// What is compared with what.
fn pairs(args: &DiffArgs) -> Result<Vec<Pair>, Failure> {
    let configs = args.config.iter().map(|path| config::load(path)).collect::<Result<Vec<Loaded>, _>>()?;
    match (&args.catalogs[..], &configs[..]) {
        ([a, b], [] | [_] | [_, _]) => {
            let of = |catalog: &String, config: Option<&Loaded>| {
                let filter = config.map(|config| filter_for(config, [catalog, a, b])).transpose()?;
                Ok::<_, Failure>(Some(Wanted { catalog: catalog.clone(), filter }))
            };
            Ok(vec![Pair { first: of(a, configs.first())?, second: of(b, configs.last())? }])
        }
        ([], [a, b]) => {
            let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
            for (of_first, config) in [(true, a), (false, b)] {
                for entry in &config.config.mirror.operators {
                    let place = match &entry.catalog.location {
                        ImageLocation::Registry(reference) => reference.name(),
                        ImageLocation::Layout(path) => path.display().to_string(),
                    };
                    let pair = pairs.entry(place).or_insert(Pair { first: None, second: None });
                    let slot = if of_first { &mut pair.first } else { &mut pair.second };
                    if slot.is_some() {
                        return Err(Failure::usage(
                            format!("{} names the catalog `{}` twice", config.path.display(), entry.catalog.text),
                            "compare the two catalogs: airlock catalog diff CATALOG CATALOG",
                        ));
                    }
                    *slot = Some(Wanted { catalog: entry.catalog.text.clone(), filter: Some(filter_of(entry)) });
                }
            }
            if pairs.is_empty() {
                return Err(Failure::usage("neither configuration names a catalog", "add `operators` to one of them"));
            }
            Ok(pairs.into_values().collect())
        }
        _ => Err(Failure::usage(
            "two catalogs, or two configurations, are needed",
            "airlock catalog diff CATALOG CATALOG [--config FILE], or airlock catalog diff --config FILE --config FILE",
        )),
    }
}

/// What a configuration chooses of a catalog: by its entry for a catalog of one of these names, whatever the tag, or by its only one.
fn filter_for(config: &Loaded, names: [&String; 3]) -> Result<Filter, Failure> {
    let entries = &config.config.mirror.operators;
    let same = |entry: &&config::Catalog, name: &str| match &entry.catalog.location {
        ImageLocation::Registry(known) => {
            let name: Result<Reference, _> = name.strip_prefix("docker://").unwrap_or(name).parse();
            entry.catalog.text == name.as_ref().map(ToString::to_string).unwrap_or_default()
                || name.is_ok_and(|name| name.name() == known.name())
        }
        ImageLocation::Layout(_) => entry.catalog.text == *name,
    };
    let found = names.into_iter().find_map(|name| entries.iter().find(|entry| same(entry, name)));
    match (found, &entries[..]) {
        (Some(entry), _) | (None, [entry]) => Ok(filter_of(entry)),
        (None, _) => Err(Failure::usage(
            format!("{} says nothing of `{}`", config.path.display(), names[0]),
            "name a configuration that has the catalog among its `operators`",
        )),
    }
}

async fn side(
    args: &DiffArgs,
    wanted: Option<Wanted>,
    events: &Events,
    progress: &Progress,
) -> Result<Option<Read>, Failure> {
    let Some(wanted) = wanted else { return Ok(None) };
    let opened = super::read(&wanted.catalog, &args.common, &args.side.side(), events).await?;
    let rule = match args.selection {
        SelectionArg::Table => Rule::Table,
        SelectionArg::Head => Rule::Head,
    };
    let selection = match &wanted.filter {
        None => None,
        Some(filter) => Some(select(&opened.catalog, filter, rule).map_err(|errors| {
            let causes: Vec<String> = errors.iter().map(ToString::to_string).collect();
            let error = Error::new(ErrorKind::Invalid, format!("choose from `{}`", opened.shown), causes.join("; "));
            match errors.into_iter().find_map(|e| e.hint) {
                Some(hint) => error.hint(hint),
                None => error,
            }
        })?),
    };
    if let Some(selection) = &selection {
        let unknown = selection.unknown.iter().map(ToString::to_string);
        for text in unknown.chain(selection.dropped.iter().map(|dropped| dropped.cause.clone())) {
            progress.line(&format!("warning: {}: {text}", opened.shown));
        }
    }
    Ok(Some(Read { opened, selection }))
}

async fn compare(
    args: &DiffArgs,
    first: Option<Read>,
    second: Option<Read>,
    events: &Events,
) -> Result<Document, Failure> {
    let nothing = Selection {
        rule: Rule::Table,
        whole: false,
        listed: true,
        packages: BTreeMap::new(),
        dropped: Vec::new(),
        unknown: Vec::new(),
        notes: Vec::new(),
    };
    // A catalog that only one side has is compared with nothing of itself.
    let found = match (&first, &second) {
        (Some(a), Some(b)) => diff(a.side(), b.side()),
        (Some(a), None) => diff(a.side(), Side { selection: Some(&nothing), ..a.side() }),
        (None, Some(b)) => diff(Side { selection: Some(&nothing), ..b.side() }, b.side()),
        (None, None) => Diff::default(),
    };
    let mut document = Document::of(found);
    document.first = first.as_ref().map(|read| read.opened.shown.clone());
    document.second = second.as_ref().map(|read| read.opened.shown.clone());
    if !args.no_bytes {
        let client = client(&args.common, &args.side.side(), &[], events)?;
        let registries: Arc<dyn Source> = Arc::new(RegistrySource::new(client));
        let total = document.added.images.len() + document.removed.images.len();
        let added = weigh(&document.added.images, &registries, events, 0, total).await;
        let before = document.added.images.len();
        let removed = weigh(&document.removed.images, &registries, events, before, total).await;
        document.added.set(&added, &removed);
        document.removed.set(&removed, &added);
    }
    Ok(document)
}

/// Looks images up: the blobs of each, once.
async fn weigh(
    images: &BTreeSet<String>,
    source: &Arc<dyn Source>,
    events: &Events,
    before: usize,
    total: usize,
) -> Weighed {
    let cache = Arc::new(Cache::open(&environment::cache()));
    let mut weighed = Weighed::default();
    let lookups = images.iter().map(|image| {
        let (source, cache) = (Arc::clone(source), Arc::clone(&cache));
        async move { (image, blobs(image, source, cache).await) }
    });
    let mut found = futures_util::stream::iter(lookups).buffer_unordered(PARALLEL_LOOKUPS);
    let mut done = before;
    while let Some((image, result)) = found.next().await {
        match result {
            Ok(blobs) => weighed.blobs.extend(blobs),
            Err(cause) => {
                weighed.unknown.insert(image.clone(), cause);
            }
        }
        done += 1;
        events(Event::Planned { done, total });
    }
    weighed
}

async fn blobs(image: &str, source: Arc<dyn Source>, cache: Arc<Cache>) -> Result<Vec<(Digest, u64)>, String> {
    let name: Reference = image.strip_prefix("docker://").unwrap_or(image).parse().map_err(|e| format!("{e}"))?;
    let one = one_image(image, &name, source, cache, Attachments::None, &[]).await;
    let job = one.and_then(|one| one.job(name.repository().clone(), None)).map_err(|e| e.cause().to_string())?;
    let descriptors = job.nodes.into_iter().flat_map(|node| node.blobs.into_iter().chain([node.manifest]));
    Ok(descriptors.map(|d| (d.digest, d.size)).collect())
}

impl Read {
    fn side(&self) -> Side<'_> {
        Side { catalog: &self.opened.catalog, selection: self.selection.as_ref() }
    }
}

impl Images {
    fn set(&mut self, own: &Weighed, other: &Weighed) {
        self.bytes = Some(own.blobs.values().sum());
        let alone = own.blobs.iter().filter(|(digest, _)| !other.blobs.contains_key(*digest));
        self.own_bytes = Some(alone.map(|(_, size)| size).sum());
        self.unknown = own.unknown.clone();
    }
}

fn texts<C: FromIterator<String>>(names: impl IntoIterator<Item = Text>) -> C {
    names.into_iter().map(|name| name.to_string()).collect()
}

impl Changed {
    fn of(package: PackageDiff) -> Self {
        let text = |name: Option<Text>| name.map(|name| name.to_string());
        let head =
            |(channel, was, now): (Text, _, _)| Head { channel: channel.to_string(), was: text(was), now: text(now) };
        Self {
            name: package.name.to_string(),
            default_channel: package.default_channel.map(|(was, now)| Was { was: text(was), now: text(now) }),
            channels_added: texts(package.channels_added),
            channels_removed: texts(package.channels_removed),
            heads: package.heads.into_iter().map(head).collect(),
            bundles_added: texts(package.bundles_added),
            bundles_removed: texts(package.bundles_removed),
        }
    }
}

impl Document {
    fn of(found: Diff) -> Self {
        let images = |images: BTreeSet<Text>| Images { images: texts(images), ..Images::default() };
        Self {
            first: None,
            second: None,
            packages_added: texts(found.added),
            packages_removed: texts(found.removed),
            packages_changed: found.changed.into_iter().map(Changed::of).collect(),
            added: images(found.images_added),
            removed: images(found.images_removed),
        }
    }

    fn text(&self) -> String {
        let name = |side: &Option<String>| side.clone().unwrap_or_else(|| "nothing".to_owned());
        let mut text = format!("{} -> {}\n", name(&self.first), name(&self.second));
        let list = |text: &mut String, sign: char, what: &str, names: &[String]| {
            for one in names {
                text.push_str(&format!("{sign} {what} {one}\n"));
            }
        };
        list(&mut text, '+', "package", &self.packages_added);
        list(&mut text, '-', "package", &self.packages_removed);
        let or_none = |name: &Option<String>| name.as_deref().unwrap_or("none").to_owned();
        for package in &self.packages_changed {
            text.push_str(&format!("  package {}\n", package.name));
            if let Some(Was { was, now }) = &package.default_channel {
                text.push_str(&format!("    default channel {} -> {}\n", or_none(was), or_none(now)));
            }
            list(&mut text, '+', "  channel", &package.channels_added);
            list(&mut text, '-', "  channel", &package.channels_removed);
            for head in &package.heads {
                text.push_str(&format!(
                    "    head of {} {} -> {}\n",
                    head.channel,
                    or_none(&head.was),
                    or_none(&head.now)
                ));
            }
            list(&mut text, '+', "  bundle", &package.bundles_added);
            list(&mut text, '-', "  bundle", &package.bundles_removed);
        }
        for (sign, images) in [('+', &self.added), ('-', &self.removed)] {
            text.push_str(&format!("{sign} {} images", images.images.len()));
            if let (Some(bytes), Some(own)) = (images.bytes, images.own_bytes) {
                text.push_str(&format!(", {}", size(bytes)));
                if own != bytes {
                    text.push_str(&format!(" ({} in none of the other's)", size(own)));
                }
            }
            text.push('\n');
        }
        text
    }
}
