//! Is the whole set at the target, to the last blob? Read-only.

use airlock_oci::sink::ManifestName;
use airlock_oci::{Digest, Error, Repository, Sink};
use futures_util::StreamExt;
use serde::Serialize;

use crate::event::{Event, Events, Phase};
use crate::plan::{Image, Missing, Plan, Target, jobs};

/// Look-ups at once.
const PARALLEL_LOOKUPS: usize = 16;

/// What a check found.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyReport {
    /// Images of the plan.
    pub images: usize,
    /// Manifests that were looked for (by tag and by digest).
    pub manifests: usize,
    /// Blobs that were looked for.
    pub blobs: usize,
    /// What is not there, or not the same.
    pub absent: Vec<Absence>,
    /// What the configuration asks for and its source does not have.
    pub missing: Vec<Missing>,
}

/// Something that should be at the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Absence {
    /// The image that needs it.
    pub image: String,
    /// Where it should be.
    pub repository: String,
    /// Tag, manifest or blob.
    pub what: String,
    /// The content.
    pub digest: Digest,
}

enum Item<'a> {
    Tag(&'a Image, Repository, ManifestName, Digest),
    Manifest(&'a Image, Repository, Digest),
    Blob(&'a Image, Repository, airlock_oci::Descriptor),
}

/// Looks for every tag, manifest and blob of a plan.
pub async fn verify_target(
    plan: &Plan,
    target: &Target,
    sink: &dyn Sink,
    events: &Events,
) -> Result<VerifyReport, Error> {
    events(Event::Phase(Phase::Verify));
    let mut items = Vec::new();
    let (mut manifests, mut blobs) = (0, 0);
    let mut seen = std::collections::HashSet::new();
    for image in &plan.images {
        let repository = jobs::destination(image, Some(target))?;
        let name = ManifestName::Tag(image.tag.clone());
        items.push(Item::Tag(image, repository.clone(), name, image.digest.clone()));
        for attachment in &image.attachments {
            if let Some(tag) = &attachment.tag {
                let name = ManifestName::Tag(tag.clone());
                items.push(Item::Tag(image, repository.clone(), name, attachment.digest.clone()));
            }
        }
        for digest in image.all_nodes() {
            if seen.insert((repository.clone(), digest.clone())) {
                manifests += 1;
                items.push(Item::Manifest(image, repository.clone(), digest.clone()));
            }
        }
        for digest in plan.blobs_of(image) {
            if let Some(blob) = plan.blob(&digest)
                && seen.insert((repository.clone(), digest))
            {
                blobs += 1;
                items.push(Item::Blob(image, repository.clone(), blob));
            }
        }
    }
    let total = items.len() as u64;
    let mut absent = Vec::new();
    let mut stream = futures_util::stream::iter(items).map(|item| look(sink, item)).buffered(PARALLEL_LOOKUPS);
    let mut done = 0;
    while let Some(result) = stream.next().await {
        done += 1;
        events(Event::Sought { done, total });
        absent.extend(result?);
    }
    Ok(VerifyReport { images: plan.images.len(), manifests, blobs, absent, missing: plan.missing.clone() })
}

async fn look(sink: &dyn Sink, item: Item<'_>) -> Result<Option<Absence>, Error> {
    let absence = |image: &Image, repository: &Repository, what: String, digest: Digest| Absence {
        image: image.name.clone(),
        repository: repository.to_string(),
        what,
        digest,
    };
    Ok(match item {
        Item::Tag(image, repository, at, digest) => match sink.head_manifest(&repository, &at).await? {
            Some(found) if found == digest => None,
            Some(found) => Some(absence(image, &repository, format!("tag `{at}` points at `{found}` instead"), digest)),
            None => Some(absence(image, &repository, format!("tag `{at}`"), digest)),
        },
        Item::Manifest(image, repository, digest) => {
            let at = ManifestName::Digest(digest.clone());
            let there = sink.head_manifest(&repository, &at).await?.is_some();
            (!there).then(|| absence(image, &repository, "manifest".into(), digest))
        }
        Item::Blob(image, repository, blob) => {
            let there = sink.has_blob(&repository, &blob).await?;
            (!there).then(|| absence(image, &repository, "blob".into(), blob.digest))
        }
    })
}
