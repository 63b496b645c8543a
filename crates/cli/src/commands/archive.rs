//! `airlock archive ls|verify`.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use airlock_mirror::archives::{self, Opened};
use airlock_mirror::event::{Event, Phase};
use airlock_mirror::receipt;
use airlock_oci::{Error, ErrorKind};
use airlock_store::Storage;
use airlock_store::archive::{Archive, verify};
use serde::Serialize;

use crate::args::archive::{ArchiveArgs, ArchiveCommand};
use crate::commands::plain_path;
use crate::commands::plan::verification;
use crate::environment;
use crate::exit::Failure;
use crate::output::{self, Format, size, table};
use crate::progress::{Look, Progress};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    directory: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    written_by: &'static str,
    parts: Vec<PartListing>,
    images: Vec<ImageListing>,
    missing: Vec<String>,
    voids: Vec<String>,
    /// Blobs of its plan that earlier archives carry.
    carried_before: usize,
}

#[derive(Serialize)]
struct PartListing {
    name: String,
    bytes: u64,
}

#[derive(Serialize)]
struct ImageListing {
    name: String,
    tag: String,
    digest: String,
    bytes: u64,
    whole: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict {
    directory: String,
    identity: String,
    whole: bool,
    partial: bool,
    /// Images that it was to hold and does not, whole.
    missing: Vec<String>,
    /// Blobs and manifests whose place is empty.
    voids: Vec<String>,
    damages: Vec<verify::Damage>,
}

/// Runs the verb.
pub(crate) async fn run(args: ArchiveArgs, look: Look) -> Result<u8, Failure> {
    match args.command {
        ArchiveCommand::Ls { directory, output } => list(&plain_path(&directory), output),
        ArchiveCommand::Verify { directory, quick, output } => {
            check(&plain_path(&directory), quick, output, look).await
        }
    }
}

fn open(directory: &Path) -> Result<Opened, Failure> {
    Ok(archives::open(directory)?)
}

fn list(directory: &Path, format: Format) -> Result<u8, Failure> {
    let opened = open(directory)?;
    let listing = match &opened {
        Opened::Ours { archive, .. } => {
            let plan = archives::plan_of(archive)?;
            let voids = voids_of(archive);
            Listing {
                directory: directory.display().to_string(),
                identity: Some(archive.identity().to_string()),
                sequence: Some(archive.sequence()),
                created: Some(archive.created().to_owned()),
                written_by: "airlock",
                parts: archive
                    .parts()
                    .iter()
                    .map(|p| PartListing {
                        name: p.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
                        bytes: p.len,
                    })
                    .collect(),
                images: plan
                    .images
                    .iter()
                    .map(|image| ImageListing {
                        name: image.name.clone(),
                        tag: format!("{}:{}", image.repository, image.tag),
                        digest: image.digest.to_string(),
                        bytes: plan.bytes_of(image).total(),
                        whole: !image.all_nodes().any(|d| voids.contains(&d.to_string())),
                    })
                    .collect(),
                missing: plan.missing.iter().map(|m| m.name.clone()).collect(),
                voids: voids.into_iter().collect(),
                carried_before: archive.absent_count(),
            }
        }
        Opened::Theirs(foreign) => {
            let mut images = Vec::new();
            for offered in foreign.offers().iter() {
                let repository = offered.name();
                for (tag, digest) in offered.tags() {
                    images.push(ImageListing {
                        name: format!("{repository}:{tag}"),
                        tag: format!("{repository}:{tag}"),
                        digest: digest.to_string(),
                        bytes: foreign.region(digest).map_or(0, |r| r.len),
                        whole: foreign.region(digest).is_some(),
                    });
                }
            }
            Listing {
                directory: directory.display().to_string(),
                identity: None,
                sequence: None,
                created: None,
                written_by: "oc-mirror",
                parts: airlock_store::archive::reader::parts_in(directory)?
                    .into_iter()
                    .map(|(_, path)| PartListing {
                        bytes: std::fs::metadata(&path).map_or(0, |m| m.len()),
                        name: path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
                    })
                    .collect(),
                images,
                missing: Vec::new(),
                voids: Vec::new(),
                carried_before: 0,
            }
        }
    };
    if !output::value(format, &listing)? {
        let rows: Vec<Vec<String>> = listing
            .images
            .iter()
            .map(|i| {
                let state = if i.whole { "" } else { "void" };
                vec![i.name.clone(), i.tag.clone(), i.digest.clone(), size(i.bytes), state.to_owned()]
            })
            .collect();
        output::text(&table(&["IMAGE", "IN THE ARCHIVE", "DIGEST", "SIZE", ""], &rows))?;
        let bytes = listing.parts.iter().map(|p| p.bytes).sum();
        eprintln!("{} images in {} parts, {}", listing.images.len(), listing.parts.len(), size(bytes));
        if let (Some(identity), Some(sequence), Some(created)) = (&listing.identity, listing.sequence, &listing.created)
        {
            eprintln!("archive {sequence} of {created}, {identity}");
        }
        if listing.carried_before > 0 {
            eprintln!("{} of its blobs lie in earlier archives", listing.carried_before);
        }
        for name in &listing.missing {
            eprintln!("missing: `{name}` could not be had when the archive was written");
        }
        if !listing.voids.is_empty() {
            eprintln!("partial: {} blobs and manifests are void", listing.voids.len());
        }
    }
    Ok(0)
}

/// The blobs and manifests that an archive lacks, sorted.
fn voids_of(archive: &Archive) -> BTreeSet<String> {
    archive.missing().iter().map(ToString::to_string).collect()
}

async fn check(directory: &Path, quick: bool, format: Format, look: Look) -> Result<u8, Failure> {
    let Opened::Ours { archive, outline, .. } = open(directory)? else {
        return Err(Failure::Error(
            Error::new(
                ErrorKind::Unsupported,
                format!("verify {}", directory.display()),
                "oc-mirror's archives carry no checksums of their parts",
            )
            .hint("their blobs are verified by digest while they are loaded"),
        ));
    };
    let archive = Arc::new(archive);
    let progress = Progress::start(look);
    let events = progress.events();
    let damages = {
        let archive = Arc::clone(&archive);
        tokio::task::spawn_blocking(move || {
            events(Event::Phase(Phase::Verify));
            if quick {
                return verify::quick(&archive);
            }
            let total = archive.seal().parts.iter().map(|p| p.length).sum();
            let done = AtomicU64::new(0);
            verify::full(&archive, &|bytes| {
                let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                events(Event::Verified { done, total });
            })
        })
        .await
        .map_err(|e| Error::new(ErrorKind::Io, "verify the archive", e))?
    };
    progress.end();
    let damages = damages?;
    if damages.is_empty() && !quick {
        receipt::leave(&environment::state(), &archive);
    }
    let voids = voids_of(&archive);
    // Which images lack what, only the whole plan tells; of an archive without voids it need not be read.
    let images = if voids.is_empty() { Vec::new() } else { archives::plan_of(&archive)?.images };
    // An image that lacks anything lacks its manifest: nothing points at what is not there.
    let incomplete = images.iter().filter(|image| image.all_nodes().any(|d| voids.contains(&d.to_string())));
    let missing: Vec<String> =
        incomplete.map(|image| &image.name).chain(outline.missing.iter().map(|m| &m.name)).cloned().collect();
    let partial = !voids.is_empty() || !missing.is_empty();
    let verdict = Verdict {
        directory: archive.describe(),
        identity: archive.identity().to_string(),
        whole: damages.is_empty() && !partial,
        partial,
        missing,
        voids: voids.into_iter().collect(),
        damages,
    };
    if !output::value(format, &verdict)? {
        if !verdict.damages.is_empty() {
            let rows: Vec<Vec<String>> =
                verdict.damages.iter().map(|d| vec![d.part.clone(), d.offset.to_string(), d.what.clone()]).collect();
            output::text(&table(&["PART", "OFFSET", "DAMAGE"], &rows))?;
            eprintln!("hint: copy the named parts again from where the archive was written");
        }
        let partial =
            if verdict.partial { "; it is partial: some content could not be had when it was written" } else { "" };
        match (verdict.damages.is_empty(), quick) {
            (true, false) => eprintln!("every byte is as it was sealed{partial}"),
            (true, true) => eprintln!("its structure is as it was sealed; blobs were not read{partial}"),
            (false, _) => eprintln!("damaged: {} entries{partial}", verdict.damages.len()),
        }
        for name in &verdict.missing {
            eprintln!("missing: `{name}`");
        }
        for digest in &verdict.voids {
            eprintln!("void: {digest}");
        }
        if verdict.partial {
            eprintln!("hint: complete it where it was written with `airlock mirror --retry REPORT`");
        }
    }
    Ok(if !verdict.damages.is_empty() {
        verification(false)
    } else if verdict.partial {
        3
    } else {
        0
    })
}
