//! `airlock catalog list`.

use std::sync::Arc;

use airlock_client::{Client, RegistrySource};
use airlock_content::catalog::{CONFIGS_LABEL, DATABASE_LABEL};
use airlock_content::image::{config, instance};
use airlock_mirror::archives::{ArchiveSource, Archives, Opened as OpenedArchive, plan_of};
use airlock_mirror::event::Events;
use airlock_mirror::plan::Kind;
use airlock_oci::{Digest, Error, ErrorKind, Reference, Source};
use airlock_updates::Minor;
use serde::Serialize;

use super::view::{self, PackageView};
use crate::args::catalog::ListArgs;
use crate::commands::file_path;
use crate::commands::mirror::client;
use crate::exit::Failure;
use crate::output::{self, table};

/// The catalogs that every cluster has by default.
const DEFAULTS: [&str; 3] = ["redhat-operator-index", "certified-operator-index", "community-operator-index"];
/// One more, up to [`LAST_WITH_MARKETPLACE`].
const MARKETPLACE: &str = "redhat-marketplace-index";
const LAST_WITH_MARKETPLACE: (u64, u64) = (4, 21);
/// Where they are published.
const PUBLISHED: &str = "registry.redhat.io/redhat";

/// `-o json` of a catalog.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'c> {
    catalog: &'c str,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<&'c Digest>,
    packages: Vec<PackageView<'c>>,
}

/// A catalog that there is, or is not.
#[derive(Serialize)]
pub(crate) struct Listed {
    pub catalog: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Runs the verb.
pub(super) async fn run(args: &ListArgs, events: &Events) -> Result<u8, Failure> {
    match (&args.catalog, args.version, &args.place.from) {
        (Some(catalog), ..) => one(args, catalog, events).await,
        (None, Some(version), _) => {
            let client = client(&args.place.common, &args.place.side.side(), &[], events)?;
            catalogs(args, published(client, version).await?)
        }
        (None, None, Some(from)) => {
            let archives = Archives::open(&[file_path(from, "--from")?])?;
            catalogs(args, held(archives).await?)
        }
        (None, None, None) => Err(Failure::usage(
            "a catalog or a version is needed",
            "name a catalog such as registry.redhat.io/redhat/redhat-operator-index:v4.18, or add --version 4.18",
        )),
    }
}

fn catalogs(args: &ListArgs, listed: Vec<Listed>) -> Result<u8, Failure> {
    if !output::value(args.output, &listed)? {
        let row = |one: &Listed| {
            let found = one.digest.as_ref().map(ToString::to_string).or_else(|| one.error.clone());
            vec![one.catalog.clone(), found.unwrap_or_default()]
        };
        output::text(&table(&["CATALOG", "DIGEST"], &listed.iter().map(row).collect::<Vec<_>>()))?;
    }
    Ok(0)
}

/// The public catalogs for a version, whether they are there or not.
pub(crate) async fn published(client: Client, version: Minor) -> Result<Vec<Listed>, Failure> {
    let marketplace = ((version.major, version.minor) <= LAST_WITH_MARKETPLACE).then_some(MARKETPLACE);
    let source = RegistrySource::new(client);
    let mut listed = Vec::new();
    for name in DEFAULTS.into_iter().chain(marketplace) {
        let catalog = format!("{PUBLISHED}/{name}:v{version}");
        let reference: Reference =
            catalog.parse().map_err(|e| Error::new(ErrorKind::Invalid, format!("name the catalog `{catalog}`"), e))?;
        let (digest, error) = match source.resolve(&reference).await {
            Ok(found) => (Some(found.value), None),
            Err(error) => (None, Some(error.cause().to_string())),
        };
        listed.push(Listed { catalog, digest, error });
    }
    Ok(listed)
}

/// The catalogs in an archive, as they were published: those that the configuration named as such, and other images that have the label of one.
async fn held(archives: Archives) -> Result<Vec<Listed>, Failure> {
    let mut listed = Vec::new();
    let archives = Arc::new(archives);
    let source = ArchiveSource(Arc::clone(&archives));
    for opened in archives.list() {
        let OpenedArchive::Ours { archive, .. } = opened else {
            return Err(Failure::usage(
                "an archive of oc-mirror does not say what its catalogs are called",
                "name one: airlock catalog list CATALOG --from file://DIR",
            ));
        };
        for image in &plan_of(archive)?.images {
            // What a bundle needs is never a catalog, and has not to be looked at; what was built anew has the name of what it was built from.
            let possible = match image.kind {
                Kind::Catalog => true,
                Kind::Additional => is_catalog(&source, &image.source.with_digest(image.digest.clone())).await,
                _ => false,
            };
            if possible {
                let catalog = image.name.clone();
                let one = Listed { catalog, digest: Some(image.digest.clone()), error: None };
                listed.push((!image.original, one));
            }
        }
    }
    listed.sort_by(|(a_built, a), (b_built, b)| (&a.catalog, a_built).cmp(&(&b.catalog, b_built)));
    listed.dedup_by(|(_, a), (_, b)| a.catalog == b.catalog);
    Ok(listed.into_iter().map(|(_, one)| one).collect())
}

/// Whatever is no image, or not whole, is no catalog.
async fn is_catalog(source: &dyn Source, name: &Reference) -> bool {
    let labels = async {
        let found = source.manifest(name).await?;
        let manifest = instance(source, name, &found, None).await?;
        Ok::<_, Error>(config(source, name, &manifest, Some(&found.place)).await?.labels)
    };
    labels.await.is_ok_and(|l| l.contains_key(CONFIGS_LABEL) || l.contains_key(DATABASE_LABEL))
}

async fn one(args: &ListArgs, text: &str, events: &Events) -> Result<u8, Failure> {
    let opened = super::open(text, &args.place, events).await?;
    let (catalog, shown) = (&opened.catalog, opened.shown.as_str());
    let package = args.package.as_deref().map(|name| view::named(catalog, shown, name)).transpose()?;
    if let (Some(package), Some(name)) = (package, &args.channel) {
        view::channel(package, name)?;
    }
    let packages: Vec<PackageView<'_>> = match package {
        Some(package) => vec![view::package(package, args.channel.as_deref())],
        None => catalog.packages().map(|package| view::package(package, None)).collect(),
    };
    let document = Document { catalog: shown, digest: catalog.origin.digest.as_ref(), packages };
    if output::value(args.output, &document)? {
        return Ok(0);
    }
    let text = match (&document.packages[..], &args.package, &args.channel) {
        ([package], Some(_), Some(_)) => versions(package),
        ([package], Some(_), None) => channels(package),
        (packages, ..) => operators(packages),
    };
    output::text(&text)?;
    for package in &document.packages {
        for fault in package.faults {
            eprintln!("warning: {fault}");
        }
    }
    Ok(0)
}

fn text(value: Option<&str>) -> String {
    value.unwrap_or_default().to_owned()
}

fn operators(packages: &[PackageView<'_>]) -> String {
    let row = |package: &PackageView<'_>| {
        let head = package.channels.iter().find(|c| c.default).and_then(|c| c.head_version.or(c.head));
        vec![
            package.name.to_owned(),
            text(package.display_name),
            text(package.default_channel),
            text(head),
            package.channels.len().to_string(),
            package.bundles.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = packages.iter().map(row).collect();
    table(&["PACKAGE", "DISPLAY NAME", "DEFAULT CHANNEL", "VERSION", "CHANNELS", "BUNDLES"], &rows)
}

fn channels(package: &PackageView<'_>) -> String {
    let rows: Vec<Vec<String>> = package
        .channels
        .iter()
        .map(|channel| {
            vec![
                channel.name.to_owned(),
                if channel.default { "yes".to_owned() } else { String::new() },
                text(channel.head_version),
                channel.head.map_or_else(|| text(channel.fault.as_deref()), str::to_owned),
                channel.bundles.to_string(),
            ]
        })
        .collect();
    let name = package.display_name.map_or_else(String::new, |name| format!(" ({name})"));
    format!("{}{name}\n\n{}", package.name, table(&["CHANNEL", "DEFAULT", "VERSION", "HEAD", "BUNDLES"], &rows))
}

fn versions(package: &PackageView<'_>) -> String {
    let row = |entry: &view::EntryView<'_>| {
        vec![
            if entry.absent { "(no such bundle)".to_owned() } else { text(entry.version) },
            entry.bundle.to_owned(),
            text(entry.replaces),
            entry.skips.join(", "),
            text(entry.skip_range),
        ]
    };
    let rows: Vec<Vec<String>> = package.channels.iter().flat_map(|c| &c.entries).map(row).collect();
    table(&["VERSION", "BUNDLE", "REPLACES", "SKIPS", "SKIP RANGE"], &rows)
}
