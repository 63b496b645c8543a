//! `airlock release list|path`, also as `airlock updates show|path`.

use std::collections::BTreeSet;

use airlock_client::{Client, RegistrySource};
use airlock_mirror::event::Events;
use airlock_oci::{Error, ErrorKind, Reference, Source, Tag};
use airlock_store::Storage;
use airlock_store::archive::reader::Archive;
use airlock_updates::{
    Architecture, ChannelName, Edges, Graph, GraphClient, Graphs, Minor, Options, Query, Route, Service, Version, route,
};
use serde::Serialize;

use crate::args::registries::{CommonArgs, Side};
use crate::args::release::{ReleaseListArgs, ReleasePathArgs, ServiceArgs};
use crate::commands::file_path;
use crate::commands::mirror::client;
use crate::exit::Failure;
use crate::output::{self, Format, table};
use crate::progress::{Look, Progress};

/// Where the payloads of OpenShift are published.
pub(crate) const PAYLOADS: &str = "quay.io/openshift-release-dev/ocp-release";

/// The releases of a channel for one architecture.
#[derive(Serialize)]
struct Listing {
    channel: String,
    architecture: Architecture,
    releases: Vec<ListedRelease>,
}

#[derive(Serialize)]
struct ListedRelease {
    version: Version,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    channels: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

/// A release in a repository.
#[derive(Serialize)]
struct HeldRelease {
    version: Version,
    architecture: Architecture,
    reference: String,
}

/// `release list`.
pub(crate) async fn list(args: ReleaseListArgs, look: Look) -> Result<u8, Failure> {
    let progress = Progress::start(look);
    let events = progress.events();
    let listed = match (&args.place, &args.channel, args.version) {
        (Some(place), ..) => held(&args, place, &events).await,
        (None, Some(channel), _) => releases(&args, channel, &events).await,
        (None, None, Some(minor)) => {
            let channel = stable(minor, args.service.okd)?;
            releases(&args, &channel, &events).await
        }
        (None, None, None) if args.channels || args.service.okd => {
            Err(Failure::usage("a version or a channel is needed", "add --version X.Y or --channel NAME"))
        }
        (None, None, None) => minors(&args, &events).await,
    };
    progress.end();
    listed
}

/// `release path`.
pub(crate) async fn path(args: ReleasePathArgs, look: Look) -> Result<u8, Failure> {
    let progress = Progress::start(look);
    let events = progress.events();
    let result = async {
        let graphs = service(&args.service, &args.common, &events)?;
        let edges = if args.no_risks { Edges::Recommended } else { Edges::All };
        let kind = kind(&args.service);
        Ok(route(&graphs, kind, args.arch, args.channel.as_ref(), &args.from, &args.to, edges).await?)
    };
    let found: Result<Route, Failure> = result.await;
    progress.end();
    let found = found?;
    if !output::value(args.output, &found)? {
        output::text(&route_text(&found))?;
    }
    Ok(0)
}

fn kind(args: &ServiceArgs) -> Service {
    if args.okd { Service::Okd } else { Service::Ocp }
}

fn service(args: &ServiceArgs, common: &CommonArgs, events: &Events) -> Result<GraphClient, Failure> {
    let client = client(common, &Side::default(), &[], events)?;
    Ok(graph_client(client, args)?)
}

fn graph_client(client: Client, args: &ServiceArgs) -> Result<GraphClient, Error> {
    // The address is of whichever service was asked for.
    let (url, okd_url) = if args.okd { (None, args.graph_url.clone()) } else { (args.graph_url.clone(), None) };
    GraphClient::new(client, &Options { url, okd_url, ..Options::default() })
}

fn stable(minor: Minor, okd: bool) -> Result<ChannelName, Failure> {
    if okd {
        return Err(Failure::usage(
            "channels of OKD have no minor version",
            "name one with --channel, such as 4-scos-stable",
        ));
    }
    ChannelName::of("stable", minor).map_err(|error| Failure::usage(error.to_string(), "add --channel NAME"))
}

/// The releases of a channel, or the channels that they are in.
async fn releases(args: &ReleaseListArgs, channel: &ChannelName, events: &Events) -> Result<u8, Failure> {
    let graphs = service(&args.service, &args.common, events)?;
    let mut listings = Vec::new();
    let architectures = if args.arch.is_empty() { &[Architecture::Amd64][..] } else { &args.arch };
    for architecture in architectures {
        let query = Query { service: kind(&args.service), architecture: *architecture, channel: channel.clone() };
        let answer = graphs.answer(&query).await?;
        listings.push(listing(&query, &answer.graph, args.version));
    }
    if listings.iter().all(|listing| listing.releases.is_empty()) {
        let cause = format!("{} knows none", graphs.describe());
        return Err(Error::new(ErrorKind::NotFound, format!("list the releases of channel `{channel}`"), cause)
            .hint("look at the channels of a version with `airlock release list --version X.Y --channels`")
            .into());
    }
    if args.channels {
        let all = listings.iter().flat_map(|listing| &listing.releases).flat_map(|release| &release.channels);
        let channels = in_order(all.map(String::as_str), args.version);
        return lines(args.output, &channels);
    }
    if !output::value(args.output, &listings)? {
        let rows: Vec<Vec<String>> = listings.iter().flat_map(Listing::rows).collect();
        output::text(&table(&["VERSION", "ARCHITECTURE", "PAYLOAD", "ERRATA"], &rows))?;
    }
    Ok(0)
}

fn listing(query: &Query, graph: &Graph, minor: Option<Minor>) -> Listing {
    let wanted = graph.nodes().iter().filter(|node| minor.is_none_or(|minor| node.version.minor() == minor));
    Listing {
        channel: query.channel.to_string(),
        architecture: query.architecture,
        releases: wanted
            .map(|node| ListedRelease {
                version: node.version.clone(),
                payload: node.payload.clone(),
                channels: node.channels().map(str::to_owned).collect(),
                url: node.url().map(str::to_owned),
            })
            .collect(),
    }
}

impl HeldRelease {
    fn of(repository: &str, tag: &Tag) -> Option<Self> {
        let (version, architecture) = release_of(tag)?;
        Some(Self { version, architecture, reference: format!("{repository}:{tag}") })
    }
}

impl Listing {
    fn rows(&self) -> Vec<Vec<String>> {
        let row = |release: &ListedRelease| {
            vec![
                release.version.to_string(),
                self.architecture.to_string(),
                release.payload.clone().unwrap_or_default(),
                release.url.clone().unwrap_or_default(),
            ]
        };
        self.releases.iter().map(row).collect()
    }
}

/// Channels by minor version, then by name; those of one minor version only, if it is given.
pub(crate) fn in_order<'c>(channels: impl Iterator<Item = &'c str>, minor: Option<Minor>) -> Vec<String> {
    let mut sorted: BTreeSet<(Option<Minor>, &str)> = BTreeSet::new();
    for channel in channels {
        let named = ChannelName::new(channel).ok().and_then(|name| name.minor());
        if minor.is_none() || named == minor {
            sorted.insert((named, channel));
        }
    }
    sorted.into_iter().map(|(_, channel)| channel.to_owned()).collect()
}

/// The minor versions that have releases, from the tags of their repository: no graph knows them all.
async fn minors(args: &ReleaseListArgs, events: &Events) -> Result<u8, Failure> {
    let client = client(&args.common, &Side::default(), &[], events)?;
    let minors: Vec<String> = published(client).await?.iter().map(ToString::to_string).collect();
    lines(args.output, &minors)
}

/// The minor versions of the published releases.
pub(crate) async fn published(client: Client) -> Result<BTreeSet<Minor>, Failure> {
    let repository: Reference = PAYLOADS.parse().map_err(|e| Error::new(ErrorKind::Invalid, "list the releases", e))?;
    let tags = RegistrySource::new(client).tags(&repository).await?;
    Ok(tags.iter().filter_map(release_of).map(|(version, _)| version.minor()).collect())
}

/// The release that a tag such as `4.18.3-x86_64` stands for. Signatures (`sha256-….sig`) and components stand for none.
fn release_of(tag: &Tag) -> Option<(Version, Architecture)> {
    let (version, suffix) = tag.as_str().rsplit_once('-')?;
    let architecture = Architecture::ALL.into_iter().find(|architecture| architecture.tag_suffix() == suffix)?;
    Some((version.parse().ok()?, architecture))
}

/// What a registry's repository or an archive holds.
async fn held(args: &ReleaseListArgs, text: &str, events: &Events) -> Result<u8, Failure> {
    if text.starts_with("file://") {
        return in_archive(args, &file_path(text, "release list")?).await;
    }
    let name = text.strip_prefix("docker://").unwrap_or(text);
    let repository: Reference = name.parse().map_err(|e| {
        Failure::usage(format!("`{text}`: {e}"), "write docker://HOST/openshift/release-images or file://DIR")
    })?;
    let client = client(&args.common, &Side::default(), &[repository.registry().to_string()], events)?;
    let tags = RegistrySource::new(client).tags(&repository).await?;
    show_held(args, tags.iter().filter_map(|tag| HeldRelease::of(&repository.name(), tag)).collect())
}

/// What an archive holds, in whichever of its repositories.
async fn in_archive(args: &ReleaseListArgs, directory: &std::path::Path) -> Result<u8, Failure> {
    let directory = directory.to_owned();
    let found = tokio::task::spawn_blocking(move || -> Result<Vec<HeldRelease>, Error> {
        let archive = Archive::open(&directory)?;
        let mut found = Vec::new();
        for repository in archive.repositories()? {
            let tags = archive.tags(&repository)?.unwrap_or_default();
            found.extend(tags.iter().filter_map(|tag| HeldRelease::of(repository.as_str(), tag)));
        }
        Ok(found)
    });
    let found = found.await.map_err(|e| Error::new(ErrorKind::Io, "look into the archive", e))??;
    show_held(args, found)
}

fn show_held(args: &ReleaseListArgs, mut releases: Vec<HeldRelease>) -> Result<u8, Failure> {
    releases.retain(|release| {
        args.version.is_none_or(|minor| release.version.minor() == minor)
            && (args.arch.is_empty() || args.arch.contains(&release.architecture))
    });
    releases.sort_by(|a, b| (&a.version, a.architecture).cmp(&(&b.version, b.architecture)));
    if !output::value(args.output, &releases)? {
        let row = |r: &HeldRelease| vec![r.version.to_string(), r.architecture.to_string(), r.reference.clone()];
        let rows: Vec<Vec<String>> = releases.iter().map(row).collect();
        output::text(&table(&["VERSION", "ARCHITECTURE", "REFERENCE"], &rows))?;
    }
    Ok(0)
}

fn lines(format: Format, items: &[String]) -> Result<u8, Failure> {
    if !output::value(format, &items)? {
        let end = if items.is_empty() { "" } else { "\n" };
        output::text(&format!("{}{end}", items.join("\n")))?;
    }
    Ok(0)
}

fn route_text(route: &Route) -> String {
    if route.hops.is_empty() {
        return format!("{} is where the way begins and ends\n", route.from);
    }
    let rows: Vec<Vec<String>> = route
        .hops
        .iter()
        .map(|hop| {
            let risks: Vec<&str> = hop.risks.iter().map(|risk| risk.name.as_str()).collect();
            let risks = if risks.is_empty() { "none known".to_owned() } else { risks.join(", ") };
            vec![hop.from.to_string(), hop.to.to_string(), risks]
        })
        .collect();
    let mut text = table(&["FROM", "TO", "RISKS"], &rows);
    let mut told = BTreeSet::new();
    for risk in route.hops.iter().flat_map(|hop| &hop.risks) {
        if told.insert(&risk.name) {
            let message = risk.message.split_whitespace().collect::<Vec<_>>().join(" ");
            text.push_str(&format!("\n{}: {message}\n", risk.name));
            if !risk.url.is_empty() {
                text.push_str(&format!("  {}\n", risk.url));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_of_releases_are_told_from_others() {
        let found = |tag: &str| release_of(&Tag::new(tag).unwrap()).map(|(v, a)| (v.to_string(), a.name()));
        assert_eq!(found("4.18.3-x86_64"), Some(("4.18.3".into(), "amd64")));
        assert_eq!(found("4.18.0-rc.10-aarch64"), Some(("4.18.0-rc.10".into(), "arm64")));
        assert_eq!(found("4.18.3-multi"), Some(("4.18.3".into(), "multi")));
        for other in ["4.18.3", "sha256-0a.sig", "4.18-x86_64", "latest", "4.18.3-x86_64-cli"] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn channels_stand_by_minor_version_as_numbers() {
        let all = ["stable-4.10", "eus-4.10", "stable-4.9", "4-scos-stable", "fast-4.10"];
        let sorted = in_order(all.into_iter(), None);
        assert_eq!(sorted, ["4-scos-stable", "stable-4.9", "eus-4.10", "fast-4.10", "stable-4.10"]);
        assert_eq!(in_order(all.into_iter(), Some("4.9".parse().unwrap())), ["stable-4.9"]);
    }
}
