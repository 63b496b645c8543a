//! What an import moves: every image of every repository with all that it names, as jobs of the transfer; and exactly how many bytes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use airlock_oci::{Descriptor, Digest, Error, Place, Reference, Repository, Tag};
use airlock_store::distribution::Members;
use airlock_transfer::{Job, Outcome};
use futures_util::StreamExt;

use super::origin::{Listed, Origin};
use crate::event::{Event, Events};
use crate::plan::walk::{Graph, Walk};
use crate::run::single::nodes;

/// Repositories that are looked through at once.
const PARALLEL_REPOSITORIES: usize = 4;
/// Names or images of one repository that are looked up at once.
const PARALLEL_IMAGES: usize = 4;

/// What is moved, image by image.
#[derive(Default)]
pub(super) struct Planned {
    pub images: Vec<PlannedImage>,
    /// What could not be looked up: the name, and why.
    pub failures: Vec<(String, Error)>,
    /// Children of indexes that the source does not have.
    pub left_out: usize,
}

/// One image, and the job that moves it.
pub(super) struct PlannedImage {
    pub digest: Digest,
    pub tags: Vec<Tag>,
    pub job: Job,
}

/// A manifest with its graph.
struct Found {
    tags: Vec<Tag>,
    graph: Graph,
}

/// Looks everything up. `rename` says what a repository is called at the destination.
pub(super) async fn plan(
    origin: &Origin,
    rename: &(dyn Fn(&Repository) -> Result<Repository, Error> + Sync),
    events: &Events,
) -> Planned {
    let walk = Walk {
        source: Arc::clone(&origin.place),
        cache: Arc::clone(&origin.cache),
        attachments: origin.attachments,
        gate: None,
        sparse: true,
    };
    let total = origin.repositories.iter().map(|l| l.tags.len().max(l.manifests.len())).sum();
    let done = AtomicUsize::new(0);
    let count = |images: usize| {
        let done = done.fetch_add(images, Ordering::Relaxed) + images;
        events(Event::Planned { done: done.min(total), total });
    };
    let (walk, count) = (&walk, &count);
    let looked: Vec<Planned> = futures_util::stream::iter(&origin.repositories)
        .map(|listed| look_through(walk, listed, rename, count))
        .buffered(PARALLEL_REPOSITORIES)
        .collect()
        .await;
    let mut planned = Planned { failures: origin.failures.clone(), ..Planned::default() };
    for one in looked {
        planned.images.extend(one.images);
        planned.failures.extend(one.failures);
        planned.left_out += one.left_out;
    }
    planned
}

async fn look_through(
    walk: &Walk,
    listed: &Listed,
    rename: &(dyn Fn(&Repository) -> Result<Repository, Error> + Sync),
    count: &(dyn Fn(usize) + Sync),
) -> Planned {
    let mut planned = Planned::default();
    let repository = match rename(&listed.repository) {
        Ok(repository) => repository,
        Err(error) => {
            planned.failures.push((listed.repository.to_string(), error));
            return planned;
        }
    };
    let mut roots: BTreeMap<Digest, (Vec<Tag>, Place)> = BTreeMap::new();
    let mut resolved = futures_util::stream::iter(&listed.tags)
        .map(|(tag, digest)| async move {
            let name = listed.name.with_tag(tag.clone());
            let found = match digest {
                Some(digest) => Ok((digest.clone(), Place(walk.source.describe()))),
                None => walk.source.resolve(&name).await.map(|found| (found.value, found.place)),
            };
            (tag, found)
        })
        .buffered(PARALLEL_IMAGES);
    while let Some((tag, found)) = resolved.next().await {
        match found {
            Ok((digest, place)) => roots.entry(digest).or_insert_with(|| (Vec::new(), place)).0.push(tag.clone()),
            Err(error) => planned.failures.push((format!("{}:{tag}", listed.repository), error)),
        }
    }
    drop(resolved);
    let mut found = BTreeMap::new();
    look_up(walk, listed, roots, &mut found, &mut planned, count).await;
    // What no tag leads to: images that are pulled by digest, and what is attached to them.
    let covered: HashSet<&Digest> = found.values().flat_map(|f: &Found| f.graph.manifests.keys()).collect();
    let place = || Place(walk.source.describe());
    let others = listed.manifests.iter().filter(|digest| !covered.contains(digest) && !found.contains_key(*digest));
    let others: BTreeMap<_, _> = others.map(|digest| (digest.clone(), (Vec::new(), place()))).collect();
    look_up(walk, listed, others, &mut found, &mut planned, count).await;
    // A child comes with its index.
    let below: HashSet<Digest> = found
        .iter()
        .flat_map(|(root, found)| found.graph.manifests.keys().filter(move |digest| *digest != root))
        .cloned()
        .collect();
    for (digest, Found { tags, graph }) in found {
        if tags.is_empty() && below.contains(&digest) {
            continue;
        }
        planned.left_out += graph.manifests.values().map(|m| m.left_out.len()).sum::<usize>();
        let name = match tags.first() {
            Some(tag) => format!("{}:{tag}", listed.repository),
            None => format!("{}@{digest}", listed.repository),
        };
        let job = Job {
            name,
            source: listed.name.clone(),
            near: graph.place.clone(),
            repository: repository.clone(),
            nodes: nodes(&graph, &digest, &tags),
            critical: false,
            needs: Vec::new(),
        };
        planned.images.push(PlannedImage { digest, tags, job });
    }
    // In the order of their names; those without one, and what is attached to others, at the end.
    planned.images.sort_by_key(|image| {
        let is_attached = image.tags.iter().all(|tag| tag.as_str().starts_with("sha256-"));
        (is_attached, image.tags.is_empty(), image.job.name.clone())
    });
    planned
}

async fn look_up(
    walk: &Walk,
    listed: &Listed,
    roots: BTreeMap<Digest, (Vec<Tag>, Place)>,
    found: &mut BTreeMap<Digest, Found>,
    planned: &mut Planned,
    count: &(dyn Fn(usize) + Sync),
) {
    let mut graphs = futures_util::stream::iter(roots)
        .map(|(digest, (tags, place))| async move {
            let name: Reference = listed.name.with_digest(digest.clone());
            let graph = walk.present(&name, place).await;
            (digest, tags, graph)
        })
        .buffered(PARALLEL_IMAGES);
    while let Some((digest, tags, graph)) = graphs.next().await {
        count(tags.len().max(1));
        match graph {
            Ok(graph) => {
                found.insert(digest, Found { tags, graph });
            }
            Err(error) => {
                let name = match tags.first() {
                    Some(tag) => format!("{}:{tag}", listed.repository),
                    None => format!("{}@{digest}", listed.repository),
                };
                planned.failures.push((name, error));
            }
        }
    }
}

impl Planned {
    /// Every blob once, with the repository of the destination that gets it first.
    pub(super) fn blobs(&self) -> Vec<(&Repository, &Descriptor)> {
        let mut seen = HashSet::new();
        let all = self.images.iter().flat_map(|image| image.job.nodes.iter().map(move |node| (&image.job, node)));
        all.flat_map(|(job, node)| node.blobs.iter().map(move |blob| (&job.repository, blob)))
            .filter(|(_, blob)| seen.insert(&blob.digest))
            .collect()
    }

    /// Bytes of blobs and manifests, each once.
    pub(super) fn bytes(&self) -> u64 {
        let images = self.images.iter();
        let manifests: HashMap<&Digest, u64> =
            images.flat_map(|i| &i.job.nodes).map(|n| (&n.manifest.digest, n.manifest.size)).collect();
        manifests.values().sum::<u64>() + self.blobs().iter().map(|(_, blob)| blob.size).sum::<u64>()
    }

    /// The same of the images that came through.
    pub(super) fn bytes_of(&self, outcomes: &[Outcome]) -> u64 {
        let done = self.images.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_done());
        let mut sizes: HashMap<&Digest, u64> = HashMap::new();
        for node in done.flat_map(|(image, _)| &image.job.nodes) {
            sizes.insert(&node.manifest.digest, node.manifest.size);
            sizes.extend(node.blobs.iter().map(|blob| (&blob.digest, blob.size)));
        }
        sizes.values().sum()
    }

    /// What the destination will have, by its own names.
    pub(super) fn members(&self) -> BTreeMap<Repository, Members> {
        let mut all: BTreeMap<Repository, Members> = BTreeMap::new();
        for image in &self.images {
            let members = all.entry(image.job.repository.clone()).or_default();
            for node in &image.job.nodes {
                members.manifests.insert(node.manifest.digest.clone());
                members.tags.extend(node.tags.iter().map(|tag| (tag.clone(), node.manifest.digest.clone())));
            }
        }
        all
    }

    /// The repositories of the destination.
    pub(super) fn repositories(&self) -> BTreeSet<&Repository> {
        self.images.iter().map(|image| &image.job.repository).collect()
    }
}
