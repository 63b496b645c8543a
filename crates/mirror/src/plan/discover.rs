//! Builds the plan: every wanted image is looked up, filtered, named; what cannot be had is listed, what contradicts itself is an error.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use airlock_oci::{Digest, Error, ErrorKind, Platform, Reference, Repository, Source, Tag};
use futures_util::StreamExt;

use super::cache::Cache;
use super::catalogs::{self, Choice, Difference, Fault};
use super::graph::{Generator, graph_image};
use super::model::{AttachmentKind, Image, Kind, Missing, Plan};
use super::naming::{Target, digest_tag, tag_of};
use super::origins::{Documents, Origins};
use super::releases::{self, demands_sigstore};
use super::walk::{Attachments, Found, Walk, two_sizes};
pub(crate) use super::wanted::Wanted;
use super::wanted::wanted;
use crate::config::Loaded;
use crate::policy::Gate;
use crate::sources::{Cached, Router};

/// Most images that are looked up only to tell what the other rules would cost.
const MAX_COMPARED_IMAGES: usize = 400;
/// Images that are looked up side by side.
const PARALLEL_IMAGES: usize = 12;

/// What to plan, from where.
pub struct Request<'a> {
    /// The configuration.
    pub loaded: &'a Loaded,
    /// Where the images are: the internet, an archive, a stack of both.
    pub source: Arc<dyn Source>,
    /// Where what no registry has comes from.
    pub origins: &'a Origins,
    /// What is known from before.
    pub cache: Arc<Cache>,
    /// Which attachments are wanted.
    pub attachments: Attachments,
    /// Which images may be carried; `None`: all.
    pub gate: Option<Arc<Gate>>,
    /// The registry that the images go to, if they go to one: its prefix and nesting limit must keep names apart, and blocked
    /// images are matched against its names too.
    pub target: Option<&'a Target>,
    /// Builds the graph image; `None` where it cannot be built but must have been carried.
    pub(crate) generator: Option<Generator>,
    /// Where catalogs are built.
    pub(crate) workshop: Workshop,
    /// How bundles are chosen.
    pub choice: Choice,
    /// The plan is for an archive: catalogs are carried as published too.
    pub originals: bool,
    /// Images that were planned when the archive was written: what of them is not there was lost on the way.
    pub(crate) planned: &'a (dyn Fn(&Wanted) -> bool + Sync),
    /// Signatures of releases are not looked at.
    pub unsigned_releases: bool,
    /// Releases that cannot be found are among what is missing; otherwise they end the plan.
    pub tells_missing_releases: bool,
    /// Told after each image how many of how many have been looked up.
    pub progress: &'a (dyn Fn(usize, usize) + Sync),
}

/// Where content is built while planning.
pub(crate) struct Workshop {
    /// Serves what was built.
    pub router: Arc<Router>,
    /// Where it is kept.
    pub folder: PathBuf,
    /// Images can be looked up that are not part of the plan.
    pub network: bool,
}

/// A plan with what its reader should know.
#[derive(Debug)]
pub struct Discovered {
    /// The plan.
    pub plan: Plan,
    /// Update graphs and signatures that loading needs again.
    pub documents: Documents,
    /// In plain sentences.
    pub warnings: Vec<String>,
}

/// Looks up everything that the configuration asks for. An image that cannot be had goes to [`Plan::missing`]; an error is only what
/// makes the whole configuration impossible.
pub async fn discover(request: Request<'_>) -> Result<Discovered, Error> {
    let mut warnings = Vec::new();
    let mut all = wanted(request.loaded)?;
    let found = releases::Reader {
        loaded: request.loaded,
        origins: request.origins,
        source: Arc::new(Cached { cache: Arc::clone(&request.cache), source: Arc::clone(&request.source) }),
        cache: Arc::clone(&request.cache),
        unsigned: request.unsigned_releases,
        keep_going: request.tells_missing_releases,
    }
    .find()
    .await?;
    warnings.extend(found.warnings);
    all.extend(found.wanted);
    let mut unbuilt = Vec::new();
    let generator = request.generator.as_ref();
    if let Some((wanted, error)) = graph_image(request.loaded, request.origins, generator, &found.releases).await {
        match error {
            Some(error) => unbuilt.push(missing(&wanted, &error)),
            None => all.push(wanted),
        }
    }
    let mut blocked = Blocked::new(&request);
    let mut kept = blocked.filter(all);
    let reader = catalogs::Reader {
        loaded: request.loaded,
        choice: request.choice,
        source: Arc::new(Cached { cache: Arc::clone(&request.cache), source: Arc::clone(&request.source) }),
        router: Arc::clone(&request.workshop.router),
        folder: &request.workshop.folder,
        originals: request.originals,
    };
    let catalogs = reader.open().await;
    warnings.extend(catalogs.warnings);
    let walk = Walk {
        source: Arc::clone(&request.source),
        cache: Arc::clone(&request.cache),
        attachments: request.attachments,
        gate: request.gate.clone(),
        sparse: false,
    };
    let candidates = blocked.filter(catalogs.wanted);
    let mut graphs = look_up(&walk, kept.iter().chain(&candidates), request.progress).await;
    // What is kept of them is made again when the catalogs close.
    drop(candidates);

    let mut plan = Plan::new();
    plan.missing = found.missing;
    plan.missing.extend(unbuilt);
    plan.missing.extend(catalogs.missing);
    let fault = |wanted: &Wanted| match graphs.get(&key(wanted)) {
        Some(Err(error)) => {
            let passing = error.kind().is_transient() || (request.planned)(wanted);
            Some(Fault { error: error.clone(), passing })
        }
        _ => None,
    };
    let mut images = Vec::new();
    let mut differences = Vec::new();
    for open in catalogs.open {
        let open = &open;
        let closed = reader.close(open, &fault).await?;
        warnings.extend(closed.warnings);
        plan.missing.extend(closed.missing);
        plan.catalogs.extend(closed.catalog);
        kept.extend(blocked.filter(closed.wanted));
        images.extend(blocked.filter(closed.images));
        differences.extend(reader.difference(open));
    }
    let built = look_up(&walk, &images, request.progress).await;
    graphs.extend(built);
    kept.extend(images);
    blocked.tell(&mut warnings);

    plan.releases = found.releases;
    let mut known = HashMap::new();
    let mut uses: HashMap<Key, usize> = HashMap::with_capacity(graphs.len());
    kept.iter().for_each(|wanted| *uses.entry(key(wanted)).or_default() += 1);
    for wanted in kept {
        let key = key(&wanted);
        let left = uses.get_mut(&key).map_or(0, |left| {
            *left -= 1;
            *left
        });
        // What nobody asks for any more moves into the plan: two of each would be twice the memory.
        let graph = if left == 0 { graphs.remove(&key) } else { graphs.get(&key).cloned() };
        match graph.map(|graph| graph.and_then(|graph| check_sizes(&plan, graph))) {
            None => {}
            Some(Err(error)) => plan.missing.push(missing(&wanted, &error)),
            Some(Ok(graph)) => add(&mut plan, &mut known, wanted, graph),
        }
    }
    drop((graphs, uses, known));
    note_unsigned(&plan, request.attachments, &mut warnings);
    plan.images.sort_by(|a, b| {
        (stage(a.kind), &a.repository, &a.tag, &a.name).cmp(&(stage(b.kind), &b.repository, &b.tag, &b.name))
    });
    let carried: Vec<(Repository, Tag)> =
        plan.images.iter().filter(|i| i.kind == Kind::Catalog).map(|i| (i.repository.clone(), i.tag.clone())).collect();
    plan.catalogs.retain(|catalog| carried.contains(&(catalog.repository.clone(), catalog.tag.clone())));
    for difference in differences {
        let images = blocked.filter(difference.images.clone());
        warnings.push(compared(&plan, &request, &difference, images).await);
    }
    walk.cache.close();
    plan.missing.sort_by(|a, b| a.name.cmp(&b.name));
    check_names(&mut plan, request.target, &mut warnings)?;
    plan.releases.sort_by(|a, b| (&a.version, &a.tag).cmp(&(&b.version, &b.tag)));
    Ok(Discovered { plan, documents: found.documents, warnings })
}

/// What is looked up once, however many names at the destination it gets: components are shared by releases.
type Key = Arc<(Reference, Vec<Platform>)>;

fn key(wanted: &Wanted) -> Key {
    Arc::new((wanted.source.clone(), wanted.platforms.clone()))
}

/// Bundles come after the images that they need, catalogs after the bundles (oc-mirror 4.6).
fn stage(kind: Kind) -> u8 {
    match kind {
        Kind::Catalog => 2,
        Kind::Bundle => 1,
        _ => 0,
    }
}

/// By how many bundles and bytes the other rules differ, in a sentence.
async fn compared(plan: &Plan, request: &Request<'_>, difference: &Difference, images: Vec<Wanted>) -> String {
    let (ours, theirs) = difference.bundles;
    let mut text = format!(
        "catalog {}: --selection {} would keep {theirs} bundles instead of {ours} ({} more, {} fewer)",
        difference.name,
        difference.other.name(),
        difference.more,
        difference.fewer
    );
    if !request.workshop.network {
        return text;
    }
    let walk = Walk {
        source: Arc::clone(&request.source),
        cache: Arc::clone(&request.cache),
        attachments: Attachments::None,
        gate: None,
        sparse: false,
    };
    let (all, looked) = (images.len(), images.len().min(MAX_COMPARED_IMAGES));
    let graphs = look_up(&walk, &images[..looked], &|_, _| {}).await;
    let mut more: BTreeMap<&Digest, u64> = BTreeMap::new();
    for graph in graphs.values().flatten() {
        let new = graph.blobs.iter().filter(|(digest, _)| !plan.blobs.contains_key(digest));
        more.extend(new.map(|(digest, blob)| (digest, blob.size)));
    }
    let spared = |image: &&Image| difference.spared.contains(&image.source);
    let others: std::collections::BTreeSet<Digest> =
        plan.images.iter().filter(|i| !spared(i)).flat_map(|i| plan.blobs_of(i)).collect();
    let own: std::collections::BTreeSet<Digest> =
        plan.images.iter().filter(spared).flat_map(|i| plan.blobs_of(i)).filter(|d| !others.contains(d)).collect();
    let fewer: u64 = own.iter().filter_map(|digest| plan.blobs.get(digest)).map(|blob| blob.size).sum();
    let at_least = if looked < all { "at least " } else { "" };
    let more: u64 = more.values().sum();
    text.push_str(&format!(": {at_least}{more} bytes more, {fewer} bytes fewer"));
    text
}

async fn look_up<'w>(
    walk: &Walk,
    kept: impl IntoIterator<Item = &'w Wanted>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> HashMap<Key, Result<Found, Error>> {
    let mut keys: Vec<(Key, Option<Digest>)> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for wanted in kept {
        let key = key(wanted);
        if seen.insert(Arc::clone(&key)) {
            keys.push((key, wanted.pinned.clone()));
        }
    }
    drop(seen);
    let total = keys.len();
    let mut graphs = HashMap::with_capacity(total);
    let mut stream = futures_util::stream::iter(keys)
        .map(|(key, pinned)| async move {
            let name = pinned.map_or_else(|| key.0.clone(), |digest| key.0.with_digest(digest));
            let graph = walk.image(&name, &key.1).await;
            (key, graph.map(Found::from))
        })
        .buffered(PARALLEL_IMAGES);
    while let Some((key, graph)) = stream.next().await {
        graphs.insert(key, graph);
        progress(graphs.len(), total);
    }
    graphs
}

/// Clusters of later versions refuse a payload without a sigstore signature: whoever mirrors one should know before.
fn note_unsigned(plan: &Plan, attachments: Attachments, warnings: &mut Vec<String>) {
    for release in &plan.releases {
        let payload = plan.images.iter().find(|i| i.kind == Kind::Release && i.digest == release.digest);
        let signed = payload.is_some_and(|i| i.attachments.iter().any(|a| a.kind == AttachmentKind::Signature));
        if payload.is_some() && !signed && demands_sigstore(&release.version) {
            let why = if attachments == Attachments::None { "was left out on request" } else { "is not published" };
            warnings.push(format!(
                "release {}: the sigstore signature of its payload {why}; clusters of 4.21 and later refuse such a payload",
                release.version
            ));
        }
    }
}

/// `blockedImages`, and how often each was the one.
struct Blocked<'a> {
    request: &'a Request<'a>,
    hits: Vec<usize>,
}

impl<'a> Blocked<'a> {
    fn new(request: &'a Request<'a>) -> Self {
        Self { request, hits: vec![0; request.loaded.config.mirror.blocked_images.len()] }
    }

    /// What is not blocked.
    fn filter(&mut self, mut all: Vec<Wanted>) -> Vec<Wanted> {
        let patterns = &self.request.loaded.config.mirror.blocked_images;
        all.retain(|wanted| {
            let tag = wanted.tag.as_ref().map_or_else(String::new, |t| format!(":{t}"));
            let stored = format!("{}{tag}", wanted.repository);
            let mut names = vec![wanted.name.clone(), wanted.source.to_string(), stored];
            if let Some(target) = self.request.target
                && let Ok(repository) = target.repository(&wanted.repository)
            {
                names.push(format!("{}/{repository}{tag}", target.registry));
            }
            let blocked = patterns.iter().position(|p| names.iter().any(|n| p.pattern.is_match(n)));
            if let Some(number) = blocked {
                self.hits[number] += 1;
            }
            blocked.is_none()
        });
        all
    }

    /// A pattern that blocks nothing is probably a mistake.
    fn tell(&self, warnings: &mut Vec<String>) {
        for (pattern, hits) in self.request.loaded.config.mirror.blocked_images.iter().zip(&self.hits) {
            if *hits == 0 {
                warnings.push(format!(
                    "blockedImages `{}` (line {}) blocks nothing in this configuration",
                    pattern.pattern, pattern.line
                ));
            }
        }
    }
}

/// A blob has one size in the whole plan; the image that says otherwise is the one that fails.
fn check_sizes(plan: &Plan, graph: Found) -> Result<Found, Error> {
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

/// The place in a plan of an image with this source, digest and name at the destination.
type Known = HashMap<(Reference, Digest, Repository, Tag), usize>;

fn add(plan: &mut Plan, known: &mut Known, wanted: Wanted, graph: Found) {
    let Some(digest) = graph.nodes.last().cloned() else { return };
    let tag = wanted.tag.unwrap_or_else(|| tag_of(&wanted.source, &digest));
    for (digest, node) in graph.manifests {
        match plan.manifests.get_mut(&digest) {
            // Another image filters the same index otherwise: what either wants is carried.
            Some(known) => merge_children(known, &node),
            None => drop(plan.manifests.insert(digest, node)),
        }
    }
    for (digest, blob) in graph.blobs {
        plan.blobs.entry(digest).or_insert(blob);
    }
    let at = (wanted.source.clone(), digest.clone(), wanted.repository.clone(), tag.clone());
    if let Some(known) = known.get(&at).and_then(|number| plan.images.get_mut(*number)) {
        known.reasons.extend(wanted.reasons);
        known.reasons.sort();
        known.reasons.dedup();
        // A bundle's image that another bundle needs too stays a bundle's image.
        if wanted.kind == Kind::Bundle {
            known.kind = Kind::Bundle;
        }
        for need in wanted.needs {
            if !known.needs.contains(&need) {
                known.needs.push(need);
            }
        }
        for platform in wanted.platforms {
            if !known.platforms.contains(&platform) {
                known.platforms.push(platform);
            }
        }
        for node in &graph.nodes {
            if known.nodes.contains(node) {
                continue;
            }
            // Before the first index that names it; every index is there already, since both start at the same one.
            let names = |d: &Digest| plan.manifests.get(d).is_some_and(|m| m.children.contains(node));
            let at = known.nodes.iter().position(names).unwrap_or(known.nodes.len().saturating_sub(1));
            known.nodes.insert(at, node.clone());
        }
        for attachment in &graph.attachments {
            if !known.attachments.contains(attachment) {
                known.attachments.push(attachment.clone());
            }
        }
        return;
    }
    known.insert(at, plan.images.len());
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
        needs: wanted.needs,
        original: wanted.original,
    });
}

fn merge_children(known: &mut super::ManifestNode, node: &super::ManifestNode) {
    for child in &node.children {
        if !known.children.contains(child) {
            known.children.push(child.clone());
        }
    }
    let children = known.children.clone();
    known.left_out.retain(|d| !children.contains(d));
    for blob in &node.blobs {
        if !known.blobs.contains(blob) {
            known.blobs.push(blob.clone());
        }
    }
    let blobs = known.blobs.clone();
    known.foreign.retain(|d| !blobs.contains(d));
}

/// Two names at the destination must not mean two contents: before prefix and nesting limit, and after.
fn check_names(plan: &mut Plan, target: Option<&Target>, warnings: &mut Vec<String>) -> Result<(), Error> {
    let mut taken: BTreeMap<(Repository, Tag), (Digest, String)> = BTreeMap::new();
    let mut clashes = Vec::new();
    for image in &mut plan.images {
        let repository = match target {
            Some(target) => target.repository(&image.repository)?,
            None => image.repository.clone(),
        };
        // Nobody chooses the names of images that bundles need, and clusters pull those with a digest by it.
        let other = taken.get(&(repository.clone(), image.tag.clone())).filter(|(digest, _)| *digest != image.digest);
        if let (Some((_, other)), Kind::Bundle | Kind::Related, Some(digest)) =
            (other, image.kind, image.source.digest())
        {
            let tag = digest_tag(digest);
            warnings.push(format!(
                "{other} has `{repository}:{}` already; `{}` becomes `{repository}:{tag}`",
                image.tag, image.name
            ));
            image.tag = tag;
        }
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
            .hint(
            "give one of the two a `targetRepo` or a `targetTag` in the configuration; an image that only a bundle names is left \
             out with `blockedImages`, or goes to a target of its own",
        ));
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
