//! What is mirrored, as a whole: counted in the background, one repository after the other.
//!
//! A mirror may have thousands of repositories and tens of thousands of images; looking at each of them for every visitor would cost the
//! disk that clients pull from. So a picture is kept, with little of each repository. It is looked over again when somebody asks for a
//! page and it is some seconds old; a repository whose tags and manifests are the same is not read again. Nobody waits for it for
//! long: an older picture is shown, and the first one as far as it has come.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use airlock_oci::sink::ManifestName;
use airlock_oci::{Digest, Error, Manifest, Repository, Shape, Tag};
use airlock_store::Storage;
use tokio::sync::watch;

use super::kind::{Kind, MAX_CHILDREN, Reader, Role, key, role};

/// A picture that is younger is not looked over again.
const FRESH: Duration = Duration::from_secs(2);
/// Looking over takes at most this share of the time.
const REST: u32 = 20;
/// How long a visitor waits for a new picture.
const WAIT: Duration = Duration::from_secs(2);
/// How often the first picture is shown while it is made.
const SHOW: Duration = Duration::from_millis(500);
/// Repositories that are asked for at once.
const STEP: usize = 500;
/// Repositories that are looked at; further ones are served, but the overview does not know them.
const MAX_REPOSITORIES: usize = 50_000;
/// Tags of one repository that are looked at, and manifests without one.
const MAX_TAGS: usize = 20_000;
const MAX_UNTAGGED: usize = 20_000;
/// Releases, catalogs and charts that are listed.
const MAX_ENTRIES: usize = 5000;
/// Tags of one release, catalog or chart that are named.
const MAX_ENTRY_TAGS: usize = 8;
/// Blobs and manifests that are counted, each with 16 bytes in memory.
const MAX_CONTENT: usize = 500_000;
/// How deep indexes may be nested.
const MAX_DEPTH: usize = 8;
/// A tag that is younger may be set again without its time stamp telling.
const SETTLED: Duration = Duration::from_secs(2);

/// Makes pictures.
pub(super) struct Inventory(watch::Sender<State>);

#[derive(Clone, Default)]
struct State {
    snapshot: Arc<Snapshot>,
    running: bool,
    finished: Option<Instant>,
    took: Duration,
}

/// A picture.
#[derive(Default)]
pub(super) struct Snapshot {
    /// By name.
    pub(super) repositories: Vec<Arc<Facts>>,
    /// All of them are there. Otherwise it is still being made.
    pub(super) complete: bool,
    /// The storage could not be listed to its end.
    pub(super) failed: bool,
}

/// What is known of a repository.
pub(super) struct Facts {
    pub(super) name: Repository,
    /// The state that it was in; `None`: look again.
    state: Option<u64>,
    /// Tags that are names of images.
    pub(super) tags: usize,
    /// Images, however many tags they have, tagged or not.
    pub(super) images: usize,
    /// How many of each kind: releases, catalogs, charts, bundles, images, artifacts.
    pub(super) kinds: [usize; 6],
    /// Bytes of everything in it, each blob once.
    pub(super) bytes: u64,
    pub(super) newest: Option<SystemTime>,
    /// Releases, catalogs and charts.
    pub(super) entries: Vec<Entry>,
    /// Images that no tag, index or subject leads to.
    pub(super) untagged: Vec<Digest>,
    /// Everything in it, by [`key`], with sizes.
    content: Box<[(u64, u64)]>,
    /// Its manifests, by [`key`].
    manifests: Box<[u64]>,
    /// Not everything was counted.
    pub(super) partial: bool,
}

/// A release, catalog or chart.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) kind: Kind,
    pub(super) digest: Digest,
    pub(super) tags: Vec<Tag>,
    pub(super) platforms: Vec<String>,
    pub(super) bytes: u64,
    pub(super) at: Option<SystemTime>,
}

/// What may still be kept.
struct Room {
    entries: usize,
    content: usize,
}

impl Snapshot {
    /// The facts of a repository.
    pub(super) fn repository(&self, name: &Repository) -> Option<&Arc<Facts>> {
        self.repositories.binary_search_by(|facts| facts.name.cmp(name)).ok().map(|at| &self.repositories[at])
    }
}

impl Facts {
    /// Everything in it, by [`key`], with sizes.
    pub(super) fn content(&self) -> &[(u64, u64)] {
        &self.content
    }

    /// Its manifests, by [`key`].
    pub(super) fn manifests(&self) -> &[u64] {
        &self.manifests
    }
}

impl Default for Inventory {
    fn default() -> Self {
        Self(watch::Sender::new(State::default()))
    }
}

impl Inventory {
    /// The newest picture that can be had without a long wait.
    pub(super) async fn snapshot(self: &Arc<Self>, storage: &Arc<dyn Storage>) -> Arc<Snapshot> {
        let mut due = false;
        self.0.send_if_modified(|state| {
            let rest = FRESH.max(state.took * REST);
            due = !state.running && state.finished.is_none_or(|at| at.elapsed() >= rest);
            state.running |= due;
            due
        });
        if due {
            let (this, storage) = (Arc::downgrade(self), Arc::clone(storage));
            tokio::task::spawn_blocking(move || look_over(&this, &storage));
        }
        let mut states = self.0.subscribe();
        let _ = tokio::time::timeout(WAIT, states.wait_for(|state| !state.running)).await;
        states.borrow().snapshot.clone()
    }
}

/// Says that no picture is being made any more, also when that ended in a panic.
struct Making(Weak<Inventory>, Instant);

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(inventory) = self.0.upgrade() {
            inventory.0.send_modify(|state| {
                (state.running, state.finished, state.took) = (false, Some(Instant::now()), self.1.elapsed());
            });
        }
    }
}

/// Makes a new picture. Ends early when the registry does.
fn look_over(inventory: &Weak<Inventory>, storage: &Arc<dyn Storage>) {
    let _making = Making(inventory.clone(), Instant::now());
    let Some(old) = inventory.upgrade().map(|inventory| inventory.0.borrow().snapshot.clone()) else { return };
    let mut room = Room { entries: MAX_ENTRIES, content: MAX_CONTENT };
    let mut next = Snapshot::default();
    let mut shown = Instant::now();
    let mut after: Option<Repository> = None;
    'all: loop {
        let names = match storage.repositories_after(after.as_ref(), STEP) {
            Ok(names) => names,
            Err(e) => {
                tracing::error!(error = %e, "the repositories cannot be listed for the page");
                next.failed = true;
                break;
            }
        };
        after = names.last().cloned();
        let last = names.len() < STEP;
        for name in names {
            let Some(inventory) = inventory.upgrade() else { return };
            if next.repositories.len() >= MAX_REPOSITORIES {
                next.failed = true;
                break 'all;
            }
            let known = old.repository(&name);
            match facts(storage.as_ref(), &name, known, &mut room) {
                Ok(Some(facts)) => next.repositories.push(facts),
                Ok(None) => {}
                Err(e) => {
                    tracing::error!(error = %e, "a repository cannot be read for the page");
                    next.failed = true;
                }
            }
            if !old.complete && shown.elapsed() >= SHOW {
                let repositories = next.repositories.clone();
                let snapshot = Arc::new(Snapshot { repositories, complete: false, failed: next.failed });
                inventory.0.send_modify(|state| state.snapshot = snapshot);
                shown = Instant::now();
            }
        }
        if last {
            break;
        }
    }
    next.complete = true;
    if let Some(inventory) = inventory.upgrade() {
        inventory.0.send_modify(|state| state.snapshot = Arc::new(next));
    }
}

/// Looks at one repository; what was known is kept where nothing has changed.
fn facts(
    storage: &dyn Storage,
    name: &Repository,
    known: Option<&Arc<Facts>>,
    room: &mut Room,
) -> Result<Option<Arc<Facts>>, Error> {
    let Some(mut tags) = storage.tags_after(name, "", MAX_TAGS + 1)? else { return Ok(None) };
    let mut partial = tags.len() > MAX_TAGS;
    tags.truncate(MAX_TAGS);
    let tags: Vec<(Tag, Option<SystemTime>)> = tags
        .into_iter()
        .map(|tag| {
            let at = storage.tagged_at(name, &tag);
            (tag, at)
        })
        .collect();
    let manifests = storage.manifests(name)?.unwrap_or_default();
    let state = {
        let mut hasher = DefaultHasher::new();
        tags.hash(&mut hasher);
        manifests.hash(&mut hasher);
        hasher.finish()
    };
    if let Some(known) = known.filter(|known| known.state == Some(state)) {
        room.entries = room.entries.saturating_sub(known.entries.len());
        room.content = room.content.saturating_sub(known.content.len());
        return Ok(Some(Arc::clone(known)));
    }
    let newest = tags.iter().filter_map(|(_, at)| *at).max();
    let settled = newest.is_none_or(|newest| newest.elapsed().is_ok_and(|age| age >= SETTLED));
    let pins: Vec<u64> = manifests.iter().map(key).collect();
    let mut look = Look::new(storage, name);
    for (tag, at) in &tags {
        look.tag(tag, *at);
    }
    partial |= look.untagged(manifests);
    let Look { tags, images, kinds, mut entries, untagged, content, seen, .. } = look;
    partial |= entries.len() > room.entries || content.len() > room.content;
    // Storage that cannot list its manifests: those that something leads to.
    let mut manifests = if pins.is_empty() { seen.keys().map(key).collect() } else { pins };
    manifests.truncate(MAX_CONTENT);
    entries.truncate(room.entries);
    room.entries -= entries.len();
    let bytes = content.values().sum();
    let content: Box<[(u64, u64)]> = content.into_iter().take(room.content).collect();
    room.content -= content.len();
    Ok(Some(Arc::new(Facts {
        name: name.clone(),
        state: settled.then_some(state),
        tags,
        images,
        kinds,
        bytes,
        newest,
        entries,
        untagged,
        content,
        manifests: manifests.into_boxed_slice(),
        partial,
    })))
}

/// Looks through one repository.
struct Look<'a> {
    reader: Reader<'a>,
    name: &'a Repository,
    tags: usize,
    images: usize,
    kinds: [usize; 6],
    entries: Vec<Entry>,
    untagged: Vec<Digest>,
    content: HashMap<u64, u64>,
    /// Images and what belongs to them, with the entry where there is one.
    seen: HashMap<Digest, Option<usize>>,
}

impl<'a> Look<'a> {
    fn new(storage: &'a dyn Storage, name: &'a Repository) -> Self {
        Self {
            reader: Reader::patient(storage),
            name,
            tags: 0,
            images: 0,
            kinds: [0; 6],
            entries: Vec::new(),
            untagged: Vec::new(),
            content: HashMap::new(),
            seen: HashMap::new(),
        }
    }

    fn tag(&mut self, tag: &Tag, at: Option<SystemTime>) {
        // What is damaged or went away in this moment is not counted; the repository's own page tells of it.
        let Ok(Some(manifest)) = self.reader.storage.manifest(self.name, &ManifestName::Tag(tag.clone())) else {
            return;
        };
        if matches!(role(tag, &manifest), Role::Attachment { .. }) {
            self.belongs(&manifest);
            return;
        }
        self.tags += 1;
        if let Some(entry) = self.seen.get(manifest.digest()) {
            if let Some(entry) = entry.and_then(|at| self.entries.get_mut(at)) {
                if entry.tags.len() < MAX_ENTRY_TAGS {
                    entry.tags.push(tag.clone());
                }
                entry.at = entry.at.max(at);
            }
            return;
        }
        self.image(&manifest, Some(tag), at);
    }

    /// Counts an image.
    fn image(&mut self, manifest: &Manifest, tag: Option<&Tag>, at: Option<SystemTime>) {
        let recognised = self.reader.recognise(self.name, manifest);
        self.images += 1;
        self.kinds[recognised.kind.place()] += 1;
        self.content.extend(recognised.content);
        let listed = matches!(recognised.kind, Kind::Release { .. } | Kind::Catalog | Kind::Chart { .. });
        let entry = (listed && self.entries.len() < MAX_ENTRIES).then(|| {
            self.entries.push(Entry {
                kind: recognised.kind,
                digest: manifest.digest().clone(),
                tags: tag.cloned().into_iter().collect(),
                platforms: recognised.platforms,
                bytes: recognised.bytes,
                at,
            });
            self.entries.len() - 1
        });
        self.seen.insert(manifest.digest().clone(), entry);
        self.children(manifest, 0);
    }

    /// Notes what is part of something else.
    fn belongs(&mut self, manifest: &Manifest) {
        self.content.insert(key(manifest.digest()), manifest.bytes().len() as u64);
        self.content.extend(manifest.blobs().map(|blob| (key(&blob.digest), blob.size)));
        self.seen.entry(manifest.digest().clone()).or_insert(None);
        self.children(manifest, 0);
    }

    fn children(&mut self, manifest: &Manifest, depth: usize) {
        if depth >= MAX_DEPTH {
            return;
        }
        for child in manifest.children().iter().take(MAX_CHILDREN) {
            if self.seen.contains_key(&child.digest) {
                continue;
            }
            self.seen.insert(child.digest.clone(), None);
            if airlock_oci::media_type::is_index(&child.media_type)
                && let Some(index) = self.reader.manifest(self.name, &child.digest)
            {
                self.children(&index, depth + 1);
            }
        }
    }

    /// Counts what no tag leads to; whether there is more of it than is looked at.
    fn untagged(&mut self, manifests: Vec<Digest>) -> bool {
        let mut rest: Vec<Digest> = manifests.into_iter().filter(|digest| !self.seen.contains_key(digest)).collect();
        let partial = rest.len() > MAX_UNTAGGED;
        rest.truncate(MAX_UNTAGGED);
        rest.sort_unstable();
        // First what belongs to others of them, so that of an index only the index itself is left.
        let mut parts: HashSet<Digest> = HashSet::new();
        for digest in &rest {
            let Some(manifest) = self.reader.manifest(self.name, digest) else { continue };
            if manifest.subject().is_some() {
                parts.insert(digest.clone());
                self.belongs(&manifest);
            } else if manifest.shape() == Shape::Index {
                parts.extend(manifest.children().iter().take(MAX_CHILDREN).map(|child| child.digest.clone()));
            }
        }
        for digest in rest.into_iter().filter(|digest| !parts.contains(digest)) {
            let Some(manifest) = self.reader.manifest(self.name, &digest) else { continue };
            self.image(&manifest, None, None);
            self.untagged.push(digest);
        }
        partial
    }
}
