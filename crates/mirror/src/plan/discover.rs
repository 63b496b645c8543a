//! Builds the plan: every wanted image is looked up, filtered, named; what cannot be had is listed, what contradicts itself is an error.

use std::collections::BTreeMap;
use std::sync::Arc;

use airlock_oci::{Digest, Error, ErrorKind, Repository, Source, Tag};
use futures_util::StreamExt;

use super::cache::ManifestCache;
use super::model::{Image, Missing, Plan};
use super::naming::{Target, tag_of};
use super::walk::{Attachments, Graph, Walk, two_sizes};
use super::wanted::{Wanted, wanted};
use crate::config::Loaded;
use crate::policy::Gate;

/// Images that are looked up side by side.
const PARALLEL_IMAGES: usize = 12;

/// What to plan, from where.
pub struct Request<'a> {
    /// The configuration.
    pub loaded: &'a Loaded,
    /// Where the images are: the internet, an archive, a stack of both.
    pub source: Arc<dyn Source>,
    /// Manifests at hand.
    pub cache: Arc<ManifestCache>,
    /// Which attachments are wanted.
    pub attachments: Attachments,
    /// Which images may be carried; `None`: all.
    pub gate: Option<Arc<Gate>>,
    /// The registry that the images go to, if they go to one: its prefix and nesting limit must keep names apart, and blocked
    /// images are matched against its names too.
    pub target: Option<&'a Target>,
    /// Told after each image how many of how many have been looked up.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

/// A plan with what its reader should know.
#[derive(Debug)]
pub struct Discovered {
    /// The plan.
    pub plan: Plan,
    /// In plain sentences.
    pub warnings: Vec<String>,
}

/// Looks up everything that the configuration asks for. An image that cannot be had goes to [`Plan::missing`]; an error is only what
/// makes the whole configuration impossible.
pub async fn discover(request: Request<'_>) -> Result<Discovered, Error> {
    let mut warnings = Vec::new();
    let all = wanted(request.loaded)?;
    let kept = unblocked(all, &request, &mut warnings);
    let walk =
        Walk { source: request.source, cache: request.cache, attachments: request.attachments, gate: request.gate };
    let (walk, total) = (&walk, kept.len());
    let mut looked_up: Vec<(Wanted, Result<Graph, Error>)> = Vec::with_capacity(total);
    let mut stream = futures_util::stream::iter(kept)
        .map(|wanted| async move {
            let graph = walk.image(&wanted.source, &wanted.platforms).await;
            (wanted, graph)
        })
        .buffered(PARALLEL_IMAGES);
    while let Some(item) = stream.next().await {
        looked_up.push(item);
        (request.progress)(looked_up.len(), total);
    }
    drop(stream);
    walk.cache.close();

    let mut plan = Plan::new();
    for (wanted, graph) in looked_up {
        match graph.and_then(|graph| check_sizes(&plan, graph)) {
            Err(error) => plan.missing.push(missing(&wanted, &error)),
            Ok(graph) => add(&mut plan, wanted, graph),
        }
    }
    plan.images.sort_by(|a, b| (&a.repository, &a.tag, &a.name).cmp(&(&b.repository, &b.tag, &b.name)));
    plan.missing.sort_by(|a, b| a.name.cmp(&b.name));
    check_names(&mut plan, request.target, &mut warnings)?;
    Ok(Discovered { plan, warnings })
}

fn unblocked(all: Vec<Wanted>, request: &Request<'_>, warnings: &mut Vec<String>) -> Vec<Wanted> {
    let patterns = &request.loaded.config.mirror.blocked_images;
    let mut hits = vec![0_usize; patterns.len()];
    let kept = all
        .into_iter()
        .filter(|wanted| {
            let tag = wanted.tag.as_ref().map_or_else(String::new, |t| format!(":{t}"));
            let stored = format!("{}{tag}", wanted.repository);
            let mut names = vec![wanted.name.clone(), wanted.source.to_string(), stored];
            if let Some(target) = request.target
                && let Ok(repository) = target.repository(&wanted.repository)
            {
                names.push(format!("{}/{repository}{tag}", target.registry));
            }
            let blocked = patterns.iter().position(|p| names.iter().any(|n| p.pattern.is_match(n)));
            if let Some(number) = blocked {
                hits[number] += 1;
            }
            blocked.is_none()
        })
        .collect();
    for (pattern, hits) in patterns.iter().zip(hits) {
        if hits == 0 {
            warnings.push(format!(
                "blockedImages `{}` (line {}) blocks nothing in this configuration",
                pattern.pattern, pattern.line
            ));
        }
    }
    kept
}

/// A blob has one size in the whole plan; the image that says otherwise is the one that fails.
fn check_sizes(plan: &Plan, graph: Graph) -> Result<Graph, Error> {
    for (digest, blob) in &graph.blobs {
        if let Some(known) = plan.blobs.get(digest)
            && known.size != blob.size
        {
            return Err(two_sizes(digest, known.size, blob.size));
        }
    }
    Ok(graph)
}

fn missing(wanted: &Wanted, error: &Error) -> Missing {
    Missing {
        name: wanted.name.clone(),
        kind: wanted.kind,
        reasons: wanted.reasons.clone(),
        code: error.kind().code().into(),
        cause: error.to_string(),
        hint: error.hint_text().map(str::to_owned),
    }
}

fn add(plan: &mut Plan, wanted: Wanted, graph: Graph) {
    let Some(digest) = graph.nodes.last().cloned() else { return };
    let tag = wanted.tag.unwrap_or_else(|| tag_of(&wanted.source, &digest));
    for (digest, node) in graph.manifests {
        match plan.manifests.get_mut(&digest) {
            // Another image filters the same index otherwise: what either wants is carried.
            Some(known) => merge_children(known, node),
            None => drop(plan.manifests.insert(digest, node)),
        }
    }
    plan.blobs.extend(graph.blobs);
    let same = plan
        .images
        .iter_mut()
        .find(|i| i.source == wanted.source && i.digest == digest && i.repository == wanted.repository && i.tag == tag);
    if let Some(known) = same {
        known.reasons.extend(wanted.reasons);
        known.reasons.sort();
        known.reasons.dedup();
        for platform in wanted.platforms {
            if !known.platforms.contains(&platform) {
                known.platforms.push(platform);
            }
        }
        for node in graph.nodes {
            if known.nodes.contains(&node) {
                continue;
            }
            // Before the first index that names it; every index is there already, since both start at the same one.
            let names = |d: &Digest| plan.manifests.get(d).is_some_and(|m| m.children.contains(&node));
            let at = known.nodes.iter().position(names).unwrap_or(known.nodes.len().saturating_sub(1));
            known.nodes.insert(at, node);
        }
        for attachment in graph.attachments {
            if !known.attachments.contains(&attachment) {
                known.attachments.push(attachment);
            }
        }
        return;
    }
    plan.images.push(Image {
        name: wanted.name,
        source: wanted.source,
        place: graph.place,
        kind: wanted.kind,
        reasons: wanted.reasons,
        digest,
        repository: wanted.repository,
        tag,
        platforms: wanted.platforms,
        nodes: graph.nodes,
        attachments: graph.attachments,
    });
}

fn merge_children(known: &mut super::ManifestNode, node: super::ManifestNode) {
    for child in node.children {
        if !known.children.contains(&child) {
            known.children.push(child);
        }
    }
    let children = known.children.clone();
    known.left_out.retain(|d| !children.contains(d));
    for blob in node.blobs {
        if !known.blobs.contains(&blob) {
            known.blobs.push(blob);
        }
    }
    let blobs = known.blobs.clone();
    known.foreign.retain(|d| !blobs.contains(d));
}

/// Two names at the destination must not mean two contents: before prefix and nesting limit, and after.
fn check_names(plan: &mut Plan, target: Option<&Target>, warnings: &mut Vec<String>) -> Result<(), Error> {
    let mut taken: BTreeMap<(Repository, Tag), (Digest, String)> = BTreeMap::new();
    let mut clashes = Vec::new();
    for image in &plan.images {
        let repository = match target {
            Some(target) => target.repository(&image.repository)?,
            None => image.repository.clone(),
        };
        let why = image.reasons.first().map_or_else(String::new, |r| format!(" ({}:{})", r.file, r.line));
        let described = format!("`{}`{why}", image.name);
        match taken.get(&(repository.clone(), image.tag.clone())) {
            Some((digest, other)) if *digest != image.digest => {
                clashes.push(format!("{other} and {described} would both become `{repository}:{}`", image.tag));
            }
            Some(_) => {}
            None => drop(taken.insert((repository, image.tag.clone()), (image.digest.clone(), described))),
        }
    }
    if !clashes.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "name the images at the destination", clashes.join("; "))
            .hint("give one of the two a `targetRepo` or a `targetTag` in the configuration"));
    }
    // A signature's tag is derived from what it signs: two sources with different signatures of one digest cannot both be
    // kept under one name. The first stays.
    let mut tags: BTreeMap<(Repository, Tag), Digest> = BTreeMap::new();
    for image in &mut plan.images {
        let repository = image.repository.clone();
        let name = image.name.clone();
        image.attachments.retain(|attachment| {
            let Some(tag) = &attachment.tag else { return true };
            let digest = tags.entry((repository.clone(), tag.clone())).or_insert_with(|| attachment.digest.clone());
            if *digest == attachment.digest {
                return true;
            }
            warnings.push(format!("`{name}`: another image has `{repository}:{tag}` already; this one's is left out"));
            false
        });
    }
    Ok(())
}
