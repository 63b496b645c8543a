//! From the plan to what is moved: jobs for the transfer, contents for an archive.

use std::collections::{BTreeMap, HashMap};

use airlock_oci::{Descriptor, Digest, Error, Reference, Repository, Tag};
use airlock_store::archive::{Absent, Contents, Item, RepositoryContents};
use airlock_transfer::{Job, Node};

use super::model::{Image, Plan};
use super::naming::Target;

/// Where an image goes: `repository` of the plan as it is (an archive), or as the target names it.
pub fn destination(image: &Image, target: Option<&Target>) -> Result<Repository, Error> {
    target.map_or_else(|| Ok(image.repository.clone()), |t| t.repository(&image.repository))
}

/// One job an image, in the order of the plan.
pub fn jobs(plan: &Plan, target: Option<&Target>) -> Result<Vec<Job>, Error> {
    let mut jobs = Vec::with_capacity(plan.images.len());
    let mut numbers: HashMap<&Reference, Vec<usize>> = HashMap::new();
    for (number, image) in plan.images.iter().enumerate() {
        numbers.entry(&image.source).or_default().push(number);
    }
    for (number, image) in plan.images.iter().enumerate() {
        let mut nodes: Vec<Node> = Vec::new();
        let mut add = |digest: &Digest, tag: Option<&Tag>| {
            if let Some(node) = nodes.iter_mut().find(|n| n.manifest.digest == *digest) {
                node.tags.extend(tag.cloned());
                return;
            }
            let Some(manifest) = plan.manifests.get(digest) else { return };
            nodes.push(Node {
                manifest: Descriptor::new(manifest.media_type.clone(), digest.clone(), manifest.size),
                blobs: manifest.blobs.iter().filter_map(|d| plan.blob(d)).collect(),
                // Children of other images that filter this index otherwise are no condition for this one.
                children: manifest.children.iter().filter(|c| image.all_nodes().any(|n| n == *c)).cloned().collect(),
                tags: tag.into_iter().cloned().collect(),
            });
        };
        for digest in &image.nodes {
            add(digest, (*digest == image.digest).then_some(&image.tag));
        }
        for attachment in &image.attachments {
            for digest in &attachment.nodes {
                add(digest, attachment.tag.as_ref().filter(|_| *digest == attachment.digest));
            }
        }
        jobs.push(Job {
            name: image.name.clone(),
            source: image.source.clone(),
            near: image.place.clone(),
            repository: destination(image, target)?,
            nodes,
            critical: image.kind.is_release(),
            needs: image
                .needs
                .iter()
                .filter_map(|r| numbers.get(r))
                .flatten()
                .copied()
                .filter(|n| *n < number)
                .collect(),
        });
    }
    Ok(jobs)
}

/// What an archive of this plan holds; `earlier` names the archive that has a blob already.
pub fn contents(plan: &Plan, earlier: &HashMap<Digest, Absent>) -> Contents {
    let mut contents = Contents::default();
    let mut placed = std::collections::HashSet::new();
    for image in &plan.images {
        let offered = contents.repositories.entry(image.repository.clone()).or_default();
        for digest in image.all_nodes() {
            let Some(manifest) = plan.manifests.get(digest) else { continue };
            offered.manifests.insert(digest.clone());
            if placed.insert(digest.clone()) {
                contents.manifests.push(Item { digest: digest.clone(), size: manifest.size });
            }
            for blob in &manifest.blobs {
                offered.layers.insert(blob.clone());
                if !placed.insert(blob.clone()) {
                    continue;
                }
                // Loading reads a catalog's configuration, which no target has: there is only what was built of it.
                let read = image.original && manifest.blobs.first() == Some(blob);
                match (earlier.get(blob).filter(|_| !read), plan.blobs.get(blob)) {
                    (Some(absent), _) => contents.absent.push(absent.clone()),
                    (None, Some(node)) => contents.blobs.push(Item { digest: blob.clone(), size: node.size }),
                    (None, None) => {}
                }
            }
        }
        offered.tags.insert(image.tag.clone(), image.digest.clone());
        for attachment in &image.attachments {
            if let Some(tag) = &attachment.tag {
                offered.tags.insert(tag.clone(), attachment.digest.clone());
            }
        }
    }
    contents
}

/// Every repository of a plan with what it offers, as the target names them: for `verify`, and to find what is extra.
pub fn repositories(plan: &Plan, target: Option<&Target>) -> Result<BTreeMap<Repository, RepositoryContents>, Error> {
    let mut named = BTreeMap::new();
    for (repository, offered) in contents(plan, &HashMap::new()).repositories {
        let repository = target.map_or_else(|| Ok(repository.clone()), |t| t.repository(&repository))?;
        let entry: &mut RepositoryContents = named.entry(repository).or_default();
        entry.layers.extend(offered.layers);
        entry.manifests.extend(offered.manifests);
        entry.tags.extend(offered.tags);
    }
    Ok(named)
}
