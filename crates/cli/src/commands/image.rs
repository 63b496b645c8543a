//! `airlock image copy|inspect|tags|digest|delete`.

use std::path::PathBuf;
use std::sync::Arc;

use airlock_client::{RegistrySink, RegistrySource};
use airlock_mirror::event::{Event, Events, Phase};
use airlock_mirror::plan::{Attachments, Cache};
use airlock_mirror::run::one_image;
use airlock_oci::reference::foreign_transport;
use airlock_oci::sink::ManifestName;
use airlock_oci::{Descriptor, Error, ErrorKind, Manifest, Reference, Repository, Shape, Sink, Source, Tag};
use airlock_store::oci_layout::{Layout, Writer};
use airlock_transfer::{Outcome, Stop};
use futures_util::StreamExt;
use serde::Serialize;

use crate::args::image::{CopyArgs, ImageArgs, ImageCommand};
use crate::args::registries::{CommonArgs, Side};
use crate::commands::mirror::client;
use crate::exit::Failure;
use crate::output::{self, Format, size, table};
use crate::progress::{Look, Progress};
use crate::signals;

/// The largest image configuration that is read (bytes).
const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;

/// An image on the command line.
pub(super) enum Place {
    Registry(Reference),
    Layout { path: PathBuf, tag: Option<String> },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspection {
    name: String,
    digest: String,
    media_type: String,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    platforms: Vec<PlatformLine>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<LayerLine>,
    annotations: std::collections::BTreeMap<String, String>,
    referrers: Vec<Descriptor>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlatformLine {
    platform: String,
    digest: String,
    bytes: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LayerLine {
    media_type: String,
    digest: String,
    bytes: u64,
}

/// Runs the verb.
pub(crate) async fn run(args: ImageArgs, look: Look) -> Result<u8, Failure> {
    let progress = Progress::start(look);
    let events = progress.events();
    let result = match args.command {
        ImageCommand::Copy(args) => copy(args, &events).await,
        ImageCommand::Inspect { image, raw, config, output, platform, common, side } => {
            let place = parse(&image)?;
            let (source, name) = open(&place, &common, &side.side(), &events)?;
            inspect(source.as_ref(), &name, raw, config, platform, output).await
        }
        ImageCommand::Tags { repository, output, common, side } => {
            let place = parse(&repository)?;
            let tags = match &place {
                // All of them, not those of one image.
                Place::Layout { path, .. } => Layout::open(path)?.tag_list(),
                Place::Registry(_) => {
                    let (source, name) = open(&place, &common, &side.side(), &events)?;
                    source.tags(&name).await?
                }
            };
            if !output::value(output, &tags)? {
                let lines: Vec<&str> = tags.iter().map(Tag::as_str).collect();
                output::text(&format!("{}\n", lines.join("\n")))?;
            }
            Ok(0)
        }
        ImageCommand::Digest { image, common, side } => {
            let place = parse(&image)?;
            let (source, name) = open(&place, &common, &side.side(), &events)?;
            output::text(&format!("{}\n", source.resolve(&name).await?.value))?;
            Ok(0)
        }
        ImageCommand::Delete { image, yes, common, side } => delete(&image, yes, &common, &side.side(), &events).await,
    };
    progress.end();
    result
}

/// `docker://…`, a bare reference, or `oci:DIR[:TAG]`.
pub(super) fn parse(text: &str) -> Result<Place, Failure> {
    if let Some(rest) = text.strip_prefix("oci://").or_else(|| text.strip_prefix("oci:")) {
        // A colon after the last slash begins the tag.
        let after = rest.rfind('/').map_or(0, |at| at + 1);
        let (path, tag) = match rest[after..].rfind(':') {
            Some(at) => (&rest[..after + at], Some(rest[after + at + 1..].to_owned())),
            None => (rest, None),
        };
        return Ok(Place::Layout { path: path.into(), tag });
    }
    if let Some(transport) = foreign_transport(text) {
        return Err(Failure::usage(
            format!("`{text}`: the transport `{transport}:` is not supported"),
            format!(
                "docker:// and oci: are; `skopeo copy {text} oci:DIR:TAG` makes a layout of it. An image that is called so is \
                 docker://{text}"
            ),
        ));
    }
    let name = text.strip_prefix("docker://").unwrap_or(text);
    let reference: Reference = name.parse().map_err(|e| {
        Failure::usage(
            format!("`{text}`: {e}"),
            "write docker://HOST/NAME:TAG, docker://HOST/NAME@sha256:… or oci:DIR:TAG",
        )
    })?;
    Ok(Place::Registry(reference))
}

fn latest(reference: Reference) -> Result<Reference, Failure> {
    if reference.tag().is_some() || reference.digest().is_some() {
        return Ok(reference);
    }
    let tag = Tag::new("latest").map_err(|e| Failure::usage(e.to_string(), "name a tag"))?;
    Ok(reference.with_tag(tag))
}

/// The source of an image, and its name there.
pub(super) fn open(
    place: &Place,
    common: &CommonArgs,
    side: &Side,
    events: &Events,
) -> Result<(Arc<dyn Source>, Reference), Failure> {
    match place {
        Place::Registry(reference) => {
            let client = client(common, side, &[reference.registry().to_string()], events)?;
            Ok((Arc::new(RegistrySource::new(client)), latest(reference.clone())?))
        }
        Place::Layout { path, tag } => {
            let layout = Layout::open(path)?;
            // A layout has no registry; its images are told apart by tag, or are the only one.
            let name: Reference = "oci-layout.localhost/image"
                .parse()
                .map_err(|e| Failure::usage(format!("{}: {e}", path.display()), "name an OCI layout"))?;
            let found = layout.find(tag.as_deref())?;
            let name = name.with_digest(found.digest.clone());
            Ok((Arc::new(layout), name))
        }
    }
}

async fn copy(args: CopyArgs, events: &Events) -> Result<u8, Failure> {
    let (from, to) = (parse(&args.source)?, parse(&args.destination)?);
    let (source, name) = open(&from, &args.common, &args.from.side(), events)?;
    let attachments = if args.remove_signatures { Attachments::None } else { Attachments::Signatures };
    let plan =
        one_image(&args.source, &name, Arc::clone(&source), Arc::new(Cache::none()), attachments, &args.platform)
            .await?;
    let (sink, repository, tag): (Arc<dyn Sink>, Repository, Option<Tag>) = match to {
        Place::Registry(reference) => {
            if reference.digest().is_some() {
                return Err(Failure::usage(
                    "a destination has no digest",
                    "the digest stays what it is; name a tag or nothing",
                ));
            }
            let client = client(&args.common, &args.to.side(), &[reference.registry().to_string()], events)?;
            let sink = RegistrySink::new(client, reference.registry().clone(), None)?;
            // As everywhere else, a name without a tag means `latest`, whatever the image is called where it comes from.
            let tag = latest(reference.clone())?.tag().cloned();
            (Arc::new(sink), reference.repository().clone(), tag)
        }
        Place::Layout { path, tag } => {
            let tag = tag
                .map(|t| Tag::new(&t).map_err(|e| Failure::usage(format!("`{t}`: {e}"), "name a tag")))
                .transpose()?
                .or_else(|| name.tag().cloned());
            let writer = Writer::open(&path)?;
            (Arc::new(writer), name.repository().clone(), tag)
        }
    };
    let job = plan.job(repository, tag)?;
    events(Event::Forecast {
        images: 1,
        bytes: plan.bytes(),
        blobs: plan.blob_bytes(),
        carried_before: 0,
        resumed: 0,
        missing: 0,
    });
    events(Event::Phase(Phase::Copy));
    let stop = Stop::default();
    signals::listen(&stop);
    let forward = Arc::clone(events);
    let outcomes = airlock_transfer::run(
        vec![job],
        source,
        sink,
        airlock_transfer::Options::default(),
        &stop,
        Arc::new(move |event| forward(Event::Transfer(event))),
    )
    .await;
    match outcomes.into_iter().next() {
        Some(Outcome::Done) => {
            output::text(&format!("{}\n", plan.digest()))?;
            Ok(0)
        }
        Some(Outcome::Failed(errors)) => match errors.into_iter().next() {
            Some(error) => Err(error.into()),
            None => Ok(1),
        },
        Some(Outcome::Stopped | Outcome::Withheld) | None => Ok(130),
    }
}

async fn inspect(
    source: &dyn Source,
    name: &Reference,
    raw: bool,
    config: bool,
    platform: Option<airlock_oci::Platform>,
    format: Format,
) -> Result<u8, Failure> {
    let found = source.manifest(name).await?;
    let manifest = found.value;
    if raw {
        output::text(&String::from_utf8_lossy(manifest.bytes()))?;
        return Ok(0);
    }
    if config {
        let image = instance(source, name, manifest, platform).await?;
        let Some(descriptor) = image.config() else {
            return Err(Error::new(ErrorKind::NotFound, format!("inspect `{name}`"), "it has no configuration").into());
        };
        let bytes = small_blob(source, name, descriptor).await?;
        output::text(&format!("{}\n", String::from_utf8_lossy(&bytes).trim_end()))?;
        return Ok(0);
    }
    let referrers = source.referrers(name, manifest.digest(), Some(&found.place)).await?;
    let inspection = Inspection {
        name: name.to_string(),
        digest: manifest.digest().to_string(),
        media_type: manifest.media_type().to_owned(),
        bytes: manifest.blobs().map(|b| b.size).sum::<u64>() + manifest.bytes().len() as u64,
        artifact_type: manifest.artifact_type().filter(|_| manifest.shape() != Shape::Index).map(str::to_owned),
        subject: manifest.subject().map(|s| s.digest.to_string()),
        platforms: manifest
            .children()
            .iter()
            .map(|c| PlatformLine {
                platform: c.platform.as_ref().map_or_else(|| "-".into(), ToString::to_string),
                digest: c.digest.to_string(),
                bytes: c.size,
            })
            .collect(),
        layers: manifest
            .layers()
            .iter()
            .map(|l| LayerLine { media_type: l.media_type.clone(), digest: l.digest.to_string(), bytes: l.size })
            .collect(),
        annotations: manifest.annotations().clone(),
        referrers,
    };
    if !output::value(format, &inspection)? {
        let mut text = format!("{}\n{}\n{}\n", inspection.name, inspection.digest, inspection.media_type);
        let rows: Vec<Vec<String>> =
            inspection.platforms.iter().map(|p| vec![p.platform.clone(), p.digest.clone()]).collect();
        if !rows.is_empty() {
            text.push_str(&table(&["PLATFORM", "DIGEST"], &rows));
        }
        let rows: Vec<Vec<String>> =
            inspection.layers.iter().map(|l| vec![l.digest.clone(), size(l.bytes), l.media_type.clone()]).collect();
        if !rows.is_empty() {
            text.push_str(&table(&["LAYER", "SIZE", "TYPE"], &rows));
        }
        for referrer in &inspection.referrers {
            text.push_str(&format!(
                "referrer {} {}\n",
                referrer.digest,
                referrer.artifact_type.as_deref().unwrap_or(&referrer.media_type)
            ));
        }
        output::text(&text)?;
    }
    Ok(0)
}

/// The image itself, or the platform of an index: the one that was asked for, or the first.
async fn instance(
    source: &dyn Source,
    name: &Reference,
    manifest: Manifest,
    platform: Option<airlock_oci::Platform>,
) -> Result<Manifest, Failure> {
    if manifest.shape() != Shape::Index {
        return Ok(manifest);
    }
    let wanted = platform.unwrap_or_else(|| airlock_oci::Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        ..Default::default()
    });
    let child =
        manifest.children().iter().find(|c| c.platform.as_ref().is_some_and(|p| p.satisfies(&wanted))).ok_or_else(
            || {
                Error::new(
                    ErrorKind::NotFound,
                    format!("inspect `{name}`"),
                    format!("no instances found for platform {wanted}"),
                )
                .hint("name one that the image has with --platform")
            },
        )?;
    Ok(source.manifest(&name.with_digest(child.digest.clone())).await?.value)
}

async fn small_blob(source: &dyn Source, name: &Reference, blob: &Descriptor) -> Result<Vec<u8>, Failure> {
    let what = || format!("read `{}` of `{name}`", blob.digest);
    if blob.size > MAX_CONFIG_BYTES {
        return Err(Error::new(ErrorKind::Unsupported, what(), format!("it has {} bytes", blob.size)).into());
    }
    let mut stream = source.blob(name, blob, 0, None).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
        if bytes.len() as u64 > blob.size {
            break;
        }
    }
    if airlock_oci::Digest::of_with(blob.digest.algorithm(), &bytes) != blob.digest {
        return Err(Error::new(ErrorKind::Content, what(), "the bytes have another digest").into());
    }
    Ok(bytes)
}

async fn delete(text: &str, yes: bool, common: &CommonArgs, side: &Side, events: &Events) -> Result<u8, Failure> {
    let Place::Registry(reference) = parse(text)? else {
        return Err(Failure::usage("only images in a registry can be deleted", "remove a layout's directory instead"));
    };
    let at = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => ManifestName::Digest(digest.clone()),
        (None, Some(tag)) => ManifestName::Tag(tag.clone()),
        (None, None) => {
            return Err(Failure::usage(
                format!("`{text}` names neither a tag nor a digest"),
                "say which: nothing is deleted by default",
            ));
        }
    };
    let client = client(common, side, &[reference.registry().to_string()], events)?;
    let sink = RegistrySink::new(client, reference.registry().clone(), None)?;
    let found = sink.head_manifest(reference.repository(), &at).await?;
    let Some(digest) = found else {
        return Err(
            Error::new(ErrorKind::NotFound, format!("delete `{reference}`"), "there is no such manifest").into()
        );
    };
    if !yes {
        eprintln!("would delete `{at}` ({digest}) of `{}`", reference.name());
        eprintln!("next: add --yes to do it");
        return Ok(0);
    }
    sink.delete_manifest(reference.repository(), &at).await?;
    eprintln!("deleted `{at}` ({digest}) of `{}`", reference.name());
    Ok(0)
}
