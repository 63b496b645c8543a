//! One image by itself: `airlock image copy`.

use std::sync::Arc;

use airlock_oci::{Descriptor, Digest, Error, ErrorKind, Place, Platform, Reference, Repository, Source, Tag};
use airlock_transfer::{Job, Node};

use crate::plan::walk::{Graph, Walk};
use crate::plan::{Attachments, Cache};

/// The exact graph of one image.
pub struct OneImage {
    name: String,
    source: Reference,
    place: Option<Place>,
    digest: Digest,
    graph: Graph,
}

/// Looks one image up with everything that belongs to it.
pub async fn one_image(
    name: &str,
    reference: &Reference,
    source: Arc<dyn Source>,
    cache: Arc<Cache>,
    attachments: Attachments,
    platforms: &[Platform],
) -> Result<OneImage, Error> {
    let walk = Walk { source, cache, attachments, gate: None, sparse: false };
    let graph = walk.image(reference, platforms).await?;
    let digest = graph
        .nodes
        .last()
        .cloned()
        .ok_or_else(|| Error::new(ErrorKind::NotFound, format!("look up `{name}`"), "it has no manifest"))?;
    Ok(OneImage { name: name.to_owned(), source: reference.clone(), place: graph.place.clone(), digest, graph })
}

impl OneImage {
    /// What the name stands for.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Unique bytes.
    pub fn bytes(&self) -> u64 {
        self.blob_bytes() + self.graph.manifests.values().map(|m| m.size).sum::<u64>()
    }

    /// Unique bytes of blobs.
    pub fn blob_bytes(&self) -> u64 {
        self.graph.blobs.values().map(|b| b.size).sum()
    }

    /// The job that moves it into a repository, under a tag if there is one.
    pub fn job(&self, repository: Repository, tag: Option<Tag>) -> Result<Job, Error> {
        let nodes = nodes(&self.graph, &self.digest, tag.as_slice());
        Ok(Job {
            name: self.name.clone(),
            source: self.source.clone(),
            near: self.place.clone(),
            repository,
            nodes,
            critical: false,
            needs: Vec::new(),
        })
    }
}

/// What of a graph is written, in order; the image itself gets the tags.
pub(crate) fn nodes(graph: &Graph, image: &Digest, tags: &[Tag]) -> Vec<Node> {
    let attached =
        graph.attachments.iter().flat_map(|a| a.nodes.iter().map(move |d| (d, a.tag.as_slice(), a.digest == *d)));
    let own = graph.nodes.iter().map(|d| (d, tags, d == image));
    let mut nodes = Vec::new();
    for (digest, tags, is_tagged) in own.chain(attached) {
        let Some(node) = graph.manifests.get(digest) else { continue };
        let blob = |d: &Digest| graph.blobs.get(d).map(|b| Descriptor::new(b.media_type.clone(), d.clone(), b.size));
        nodes.push(Node {
            manifest: Descriptor::new(node.media_type.clone(), digest.clone(), node.size),
            blobs: node.blobs.iter().filter_map(blob).collect(),
            children: node.children.clone(),
            tags: if is_tagged { tags.to_vec() } else { Vec::new() },
        });
    }
    nodes
}
