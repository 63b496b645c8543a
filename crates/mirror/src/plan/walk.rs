//! From one name to the exact graph of its manifests, blobs and attachments.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use airlock_oci::{
    Descriptor, Digest, Error, ErrorKind, Manifest, Place, Platform, Reference, Shape, Source, Tag, media_type,
};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::cache::Cache;
use super::model::{Attachment, AttachmentKind, BlobNode, ManifestNode};
use crate::policy::{Gate, Verdict};

/// How deep indexes may name indexes.
const MAX_INDEX_DEPTH: usize = 5;
/// Children or look-ups of one image at once.
const PARALLEL_LOOKUPS: usize = 8;

/// What was found attached to an image that is known by digest is asked for again after this time: the image cannot change, but
/// somebody may sign it.
const SEEN_FOR: Duration = Duration::from_secs(24 * 3600);
/// The topic of attachments in the cache.
const SEEN_NOTES: &str = "attachments";

/// Which attachments are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attachments {
    /// cosign signatures and referrers.
    #[default]
    Signatures,
    /// cosign attestations and SBOMs as well.
    All,
    /// Only what names the image as its subject: where all tags are carried anyway, cosign's need no looking for.
    Referrers,
    /// None (`--remove-signatures`).
    None,
}

pub(crate) struct Walk {
    pub source: Arc<dyn Source>,
    pub cache: Arc<Cache>,
    pub attachments: Attachments,
    /// Which images may be carried; `None`: all.
    pub gate: Option<Arc<Gate>>,
    /// Children that the source does not have are left out, as a mirror that was filtered by platform lacks them.
    pub sparse: bool,
}

/// What was found at an image last time, by its digest.
#[derive(Serialize, Deserialize)]
struct Seen {
    place: Place,
    attachments: Vec<Attachment>,
}

/// What a name turned out to be.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    pub place: Option<Place>,
    /// Children first; the last is the root.
    pub nodes: Vec<Digest>,
    pub attachments: Vec<Attachment>,
    pub manifests: BTreeMap<Digest, ManifestNode>,
    pub blobs: BTreeMap<Digest, BlobNode>,
    /// Platforms of the children that a filter kept.
    platforms: Vec<Platform>,
}

/// The same to keep until the plan is made: tight, since a catalog has tens of thousands of them.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub place: Option<Place>,
    pub nodes: Vec<Digest>,
    pub attachments: Vec<Attachment>,
    pub manifests: Box<[(Digest, ManifestNode)]>,
    pub blobs: Box<[(Digest, BlobNode)]>,
}

impl From<Graph> for Found {
    fn from(mut graph: Graph) -> Self {
        graph.nodes.shrink_to_fit();
        graph.attachments.shrink_to_fit();
        let manifests = graph.manifests.into_iter().map(|(digest, mut node)| {
            for list in [&mut node.children, &mut node.blobs, &mut node.left_out, &mut node.foreign] {
                list.shrink_to_fit();
            }
            (digest, node)
        });
        Self {
            place: graph.place,
            nodes: graph.nodes,
            attachments: graph.attachments,
            manifests: manifests.collect(),
            blobs: graph.blobs.into_iter().collect(),
        }
    }
}

impl Graph {
    fn add_blob(&mut self, blob: &Descriptor) -> Result<(), Error> {
        let node = BlobNode { size: blob.size, media_type: blob.media_type.as_str().into() };
        match self.blobs.get(&blob.digest) {
            Some(known) if known.size != blob.size => Err(two_sizes(&blob.digest, known.size, blob.size)),
            Some(_) => Ok(()),
            None => {
                self.blobs.insert(blob.digest.clone(), node);
                Ok(())
            }
        }
    }

    /// Adds what belongs to the image, and everything below it.
    fn attached(&mut self, attachment: Attachment, below: Self) -> Result<(), Error> {
        for (digest, blob) in below.blobs {
            self.add_blob(&Descriptor::new(blob.media_type, digest, blob.size))?;
        }
        self.manifests.extend(below.manifests);
        self.attachments.push(attachment);
        Ok(())
    }

    fn take(&mut self, other: Self) -> Result<(), Error> {
        for (digest, blob) in other.blobs {
            self.add_blob(&Descriptor::new(blob.media_type, digest, blob.size))?;
        }
        for digest in other.nodes {
            if !self.nodes.contains(&digest) {
                self.nodes.push(digest);
            }
        }
        self.manifests.extend(other.manifests);
        self.platforms.extend(other.platforms);
        Ok(())
    }
}

/// The error of an image whose manifests disagree about a blob.
pub(super) fn two_sizes(digest: &Digest, one: u64, other: u64) -> Error {
    Error::new(
        ErrorKind::Content,
        format!("plan blob `{digest}`"),
        format!("manifests give it two sizes, {one} and {other} bytes"),
    )
    .hint("one of the images was published wrong; ask its publisher for a corrected one")
}

impl Walk {
    /// Looks a name up and follows everything it names.
    pub(crate) async fn image(&self, name: &Reference, platforms: &[Platform]) -> Result<Graph, Error> {
        if let Some(graph) = self.remembered(name, platforms).await? {
            return Ok(graph);
        }
        let (root, place) = self.root(name).await?;
        let unsigned = self.judge(name, &root, &place).await?;
        let mut graph = self.follow(name, &root, platforms, 0).await?;
        if let Some(error) = unsigned {
            self.judge_instances(name, &graph, &place, error).await?;
        }
        graph.place = Some(place);
        if !platforms.is_empty() && root.shape() == Shape::Index {
            check_platforms(name, &graph, platforms)?;
        }
        if self.attachments != Attachments::None {
            self.attach(name, &mut graph).await?;
        }
        if let (Some(place), Some(key)) = (&graph.place, self.seen_key(name, platforms)) {
            let seen = Seen { place: place.clone(), attachments: graph.attachments.clone() };
            self.cache.set_note(SEEN_NOTES, &key, &seen);
        }
        Ok(graph)
    }

    /// What an image by digest is now, whatever was found at it before. `place` has it.
    pub(crate) async fn present(&self, name: &Reference, place: Place) -> Result<Graph, Error> {
        let manifest = match name.digest().and_then(|digest| self.cache.get(digest)) {
            Some(manifest) => manifest,
            None => {
                let manifest = self.source.manifest(name).await?.value;
                self.cache.put(&manifest);
                manifest
            }
        };
        let mut graph = self.follow(name, &manifest, &[], 0).await?;
        graph.place = Some(place);
        self.attach(name, &mut graph).await?;
        Ok(graph)
    }

    /// Under which an image is remembered; `None` for one that may be another tomorrow, or that a policy has to judge.
    fn seen_key(&self, name: &Reference, platforms: &[Platform]) -> Option<String> {
        if self.gate.is_some() {
            return None;
        }
        let digest = name.digest()?;
        let platforms: Vec<String> = platforms.iter().map(ToString::to_string).collect();
        Some(format!("{}@{digest} {:?} {}", name.name(), self.attachments, platforms.join(",")))
    }

    /// An image by digest of which everything is known from before, so that nobody need be asked.
    async fn remembered(&self, name: &Reference, platforms: &[Platform]) -> Result<Option<Graph>, Error> {
        let Some(seen) =
            self.seen_key(name, platforms).and_then(|key| self.cache.note::<Seen>(SEEN_NOTES, &key, Some(SEEN_FOR)))
        else {
            return Ok(None);
        };
        let Some(root) = name.digest().and_then(|d| self.cache.get(d)) else { return Ok(None) };
        let mut graph = self.follow(name, &root, platforms, 0).await?;
        graph.place = Some(seen.place);
        if !platforms.is_empty() && root.shape() == Shape::Index {
            check_platforms(name, &graph, platforms)?;
        }
        for attachment in seen.attachments {
            let Some(manifest) = self.cache.get(&attachment.digest) else { return Ok(None) };
            let below = self.follow(name, &manifest, &[], 0).await?;
            graph.attached(attachment, below)?;
        }
        Ok(Some(graph))
    }

    /// Asks the policy about the root, before anything below it is looked at. An index whose own digest nobody has signed is not refused
    /// yet: the error is what it will be refused with unless everything that is carried of it is signed.
    async fn judge(&self, name: &Reference, root: &Manifest, place: &Place) -> Result<Option<Error>, Error> {
        let Some(gate) = &self.gate else { return Ok(None) };
        // Signatures are found by, and made for, the SHA-256 digest, whatever the image was asked for by.
        let digest = if root.is_sha256() { root.digest().clone() } else { Digest::of(root.bytes()) };
        match gate.judge(self.source.as_ref(), name, place, &digest).await? {
            Verdict::Accepted => Ok(None),
            Verdict::Unsigned(error) if root.shape() == Shape::Index => Ok(Some(error)),
            Verdict::Unsigned(error) => Err(error),
        }
    }

    /// Asks the policy about every image that is carried of an index, as containers/image does when it copies one.
    async fn judge_instances(
        &self,
        name: &Reference,
        graph: &Graph,
        place: &Place,
        unsigned: Error,
    ) -> Result<(), Error> {
        let Some(gate) = &self.gate else { return Ok(()) };
        let instances: Vec<&Digest> = graph
            .nodes
            .iter()
            .filter(|d| graph.manifests.get(d).is_some_and(|m| !media_type::is_index(&m.media_type)))
            .collect();
        // Nothing that is signed is no signature.
        if instances.is_empty() {
            return Err(unsigned);
        }
        for digest in instances {
            if let Verdict::Unsigned(_) = gate.judge(self.source.as_ref(), name, place, digest).await? {
                return Err(unsigned);
            }
        }
        Ok(())
    }

    async fn root(&self, name: &Reference) -> Result<(Manifest, Place), Error> {
        // Where the manifest of last time is at hand, one HEAD tells whether it still holds.
        let last = name.digest().cloned().or_else(|| self.cache.name(name));
        if let Some(manifest) = last.and_then(|d| self.cache.get(&d)) {
            let now = self.source.resolve(name).await?;
            if now.value == *manifest.digest() {
                return Ok((manifest, now.place));
            }
        }
        let found = self.source.manifest(name).await?;
        self.cache.put(&found.value);
        if name.digest().is_none() {
            self.cache.set_name(name, found.value.digest());
        }
        Ok((found.value, found.place))
    }

    async fn by_digest(&self, name: &Reference, descriptor: &Descriptor) -> Result<Manifest, Error> {
        let at = name.with_digest(descriptor.digest.clone());
        let manifest = match self.cache.get(&descriptor.digest) {
            Some(manifest) => {
                if self.sparse {
                    // It may be at hand from another repository; this one need not have it.
                    self.source.resolve(&at).await?;
                }
                manifest
            }
            None => {
                let found = self.source.manifest(&at).await?.value;
                self.cache.put(&found);
                found
            }
        };
        let len = manifest.bytes().len() as u64;
        if len != descriptor.size {
            return Err(Error::new(
                ErrorKind::Content,
                format!("read manifest `{}` of `{name}`", descriptor.digest),
                format!("its index says {} bytes, it has {len}", descriptor.size),
            )
            .hint("the image was published wrong; ask its publisher for a corrected one"));
        }
        Ok(manifest)
    }

    /// The manifest and everything below it, children first.
    fn follow<'a>(
        &'a self,
        name: &'a Reference,
        manifest: &'a Manifest,
        platforms: &'a [Platform],
        depth: usize,
    ) -> BoxFuture<'a, Result<Graph, Error>> {
        async move {
            let mut graph = Graph::default();
            let mut node = ManifestNode {
                media_type: manifest.media_type().into(),
                size: manifest.bytes().len() as u64,
                children: Vec::new(),
                blobs: Vec::new(),
                left_out: Vec::new(),
                foreign: Vec::new(),
            };
            if depth > MAX_INDEX_DEPTH {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("follow the indexes of `{name}`"),
                    format!("they are nested deeper than {MAX_INDEX_DEPTH}"),
                ));
            }
            let mut children: Vec<Descriptor> = Vec::new();
            for child in manifest.children() {
                let wanted = platforms.is_empty()
                    || child.platform.as_ref().is_some_and(|p| platforms.iter().any(|w| p.satisfies(w)))
                    || (child.platform.is_none() && media_type::is_index(&child.media_type));
                if !wanted {
                    node.left_out.push(child.digest.clone());
                } else if !children.iter().any(|c| c.digest == child.digest) {
                    graph.platforms.extend(child.platform.clone());
                    children.push(child.clone());
                }
            }
            let below: Vec<(Digest, Option<Graph>)> = futures_util::stream::iter(children)
                .map(|child| async move {
                    let manifest = match self.by_digest(name, &child).await {
                        Ok(manifest) => manifest,
                        Err(e) if self.sparse && e.kind() == ErrorKind::NotFound => return Ok((child.digest, None)),
                        Err(e) => return Err(e.context(format!("read a child of the index `{name}`"))),
                    };
                    Ok::<_, Error>((child.digest, Some(self.follow(name, &manifest, platforms, depth + 1).await?)))
                })
                .buffered(PARALLEL_LOOKUPS)
                .try_collect()
                .await?;
            for (digest, child) in below {
                let Some(child) = child else {
                    node.left_out.push(digest);
                    continue;
                };
                let empty_index = !platforms.is_empty()
                    && child.manifests.get(&digest).is_some_and(|m| {
                        media_type::is_index(&m.media_type) && m.children.is_empty() && !m.left_out.is_empty()
                    });
                if empty_index {
                    node.left_out.push(digest);
                } else {
                    node.children.push(digest);
                    graph.take(child)?;
                }
            }
            for blob in manifest.blobs() {
                if node.blobs.contains(&blob.digest) || node.foreign.contains(&blob.digest) {
                    continue;
                }
                if blob.is_foreign() && !self.source.has_blob(name, blob, None).await? {
                    node.foreign.push(blob.digest.clone());
                    continue;
                }
                graph.add_blob(blob)?;
                node.blobs.push(blob.digest.clone());
            }
            graph.nodes.push(manifest.digest().clone());
            graph.manifests.insert(manifest.digest().clone(), node);
            Ok(graph)
        }
        .boxed()
    }

    /// Signatures and referrers of the image and of each of its platforms, at the place that served the image.
    async fn attach(&self, name: &Reference, graph: &mut Graph) -> Result<(), Error> {
        let Some(place) = graph.place.clone() else { return Ok(()) };
        let suffixes: &[(&str, AttachmentKind)] = match self.attachments {
            Attachments::None => return Ok(()),
            Attachments::Referrers => &[],
            Attachments::Signatures => &[("sig", AttachmentKind::Signature)],
            Attachments::All => &[
                ("sig", AttachmentKind::Signature),
                ("att", AttachmentKind::Attestation),
                ("sbom", AttachmentKind::Sbom),
            ],
        };
        let mut lookups = Vec::new();
        for subject in &graph.nodes {
            for (suffix, kind) in suffixes {
                lookups.push((subject.clone(), Some((*suffix, *kind))));
            }
            lookups.push((subject.clone(), None));
        }
        let place = &place;
        let found: Vec<Vec<(Attachment, Graph)>> = futures_util::stream::iter(lookups)
            .map(|(subject, cosign)| async move {
                match cosign {
                    Some((suffix, kind)) => self.by_cosign_tag(name, place, subject, suffix, kind).await,
                    None => self.by_subject(name, place, subject).await,
                }
            })
            .buffered(PARALLEL_LOOKUPS)
            .try_collect()
            .await
            .map_err(|e: Error| e.context(format!("look for signatures of `{name}`")))?;
        for (attachment, below) in found.into_iter().flatten() {
            // What is part of the image itself (an attestation in its index may name a subject) is no attachment.
            if graph.nodes.contains(&attachment.digest)
                || graph.attachments.iter().any(|a| a.digest == attachment.digest && a.tag == attachment.tag)
            {
                continue;
            }
            graph.attached(attachment, below)?;
        }
        Ok(())
    }

    async fn by_cosign_tag(
        &self,
        name: &Reference,
        place: &Place,
        subject: Digest,
        suffix: &str,
        kind: AttachmentKind,
    ) -> Result<Vec<(Attachment, Graph)>, Error> {
        let Ok(tag) = Tag::new(&format!("{}.{suffix}", subject.fallback_tag())) else { return Ok(Vec::new()) };
        let Some(manifest) = self.source.manifest_at(&name.with_tag(tag.clone()), place).await? else {
            return Ok(Vec::new());
        };
        self.cache.put(&manifest);
        let below = self.follow(name, &manifest, &[], 0).await?;
        let digest = manifest.digest().clone();
        Ok(vec![(Attachment { kind, subject, digest, tag: Some(tag), nodes: below.nodes.clone() }, below)])
    }

    async fn by_subject(
        &self,
        name: &Reference,
        place: &Place,
        subject: Digest,
    ) -> Result<Vec<(Attachment, Graph)>, Error> {
        let mut found = Vec::new();
        for descriptor in self.source.referrers(name, &subject, Some(place)).await? {
            let manifest = match self.cache.get(&descriptor.digest) {
                Some(manifest) => manifest,
                None => {
                    let at = name.with_digest(descriptor.digest.clone());
                    // A list that names what has been deleted is common where clients keep it; what is gone is no attachment.
                    let Some(manifest) = self.source.manifest_at(&at, place).await? else { continue };
                    self.cache.put(&manifest);
                    manifest
                }
            };
            let below = self.follow(name, &manifest, &[], 0).await?;
            found.push((
                Attachment {
                    kind: AttachmentKind::Referrer,
                    subject: subject.clone(),
                    digest: descriptor.digest,
                    tag: None,
                    nodes: below.nodes.clone(),
                },
                below,
            ));
        }
        found.sort_by(|a, b| a.0.digest.cmp(&b.0.digest));
        Ok(found)
    }
}

/// Every platform that was asked for must be there: none is replaced by another.
fn check_platforms(name: &Reference, graph: &Graph, platforms: &[Platform]) -> Result<(), Error> {
    let absent: Vec<String> = platforms
        .iter()
        .filter(|wanted| !graph.platforms.iter().any(|p| p.satisfies(wanted)))
        .map(Platform::to_string)
        .collect();
    if absent.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::NotFound,
        format!("plan `{name}`"),
        format!("no instances found for platform {}", absent.join(", ")),
    )
    .hint(
        "take the platform out of `platforms`, or ask for one that the image has: `airlock image inspect` lists them",
    ))
}
