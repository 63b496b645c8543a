//! What releases and catalogs say of themselves: read by somebody who understands them, kept here.
//!
//! A registry knows blobs. Whoever starts it may hand in a [`Describe`] that reads a release's components and a catalog's packages out of
//! layers. That costs seconds and much memory for a large catalog, so one is read at a time, in a task of its own that goes on when
//! the visitor leaves, and what came of it is kept by digest, within bounds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use airlock_oci::{Digest, Error, ErrorKind, Repository};
use airlock_store::{Storage, Verified};
use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};

use super::kind::key;
use super::words::clip;

/// How long a visitor waits for a description.
const WAIT: Duration = Duration::from_secs(4);
/// Descriptions that are kept or waited for.
const MAX_KEPT: usize = 64;
/// Versions, channels' entries and needed images that are kept of all of them together, each with some tens of bytes.
const MAX_WEIGHT: usize = 1_000_000;
/// The same of one: more is cut off, and said.
const MAX_ONE_WEIGHT: usize = 600_000;
/// Characters of a name.
const MAX_CHARS: usize = 253;
/// When something that could not be read is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// An image in a registry's storage.
#[derive(Clone)]
pub struct Content {
    /// Where it is read from.
    pub storage: Arc<dyn Storage>,
    /// Its repository there.
    pub repository: Repository,
    /// The image, of one platform.
    pub digest: Digest,
}

/// Reads what a registry itself does not understand.
#[async_trait]
pub trait Describe: Send + Sync {
    /// The packages of a catalog.
    async fn catalog(&self, image: Content) -> Result<Catalog, Error>;

    /// The components of a release.
    async fn release(&self, image: Content) -> Result<Release, Error>;

    /// When all content was last read and compared with its digests, where the storage itself does not know. Asked for every page.
    fn verified(&self) -> Option<Verified> {
        None
    }
}

/// A digest, cut to what is enough to look for it among what is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pin(pub(super) u64);

/// An image that something needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Which.
    pub pin: Pin,
    /// The repository that it is published in (`quay.io/openshift/origin-cli`).
    pub source: Arc<str>,
}

/// What an operator catalog offers.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// By name.
    pub packages: Vec<Package>,
    /// Not all of it is here.
    pub cut: bool,
}

/// An operator.
#[derive(Clone, Debug, Default)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its name for people.
    pub display_name: Option<String>,
    /// The channel that is installed from where none is named.
    pub default_channel: Option<String>,
    /// Ways of updates.
    pub channels: Vec<Channel>,
    /// Its versions.
    pub versions: Vec<Version>,
}

/// A way of updates.
#[derive(Clone, Debug, Default)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// The bundle that is installed from it.
    pub head: Option<Arc<str>>,
    /// The names of its bundles.
    pub bundles: Vec<Arc<str>>,
}

/// A version of an operator.
#[derive(Clone, Debug)]
pub struct Version {
    /// The bundle's name.
    pub bundle: Arc<str>,
    /// The version, if it says one.
    pub version: Option<Arc<str>>,
    /// Images that it needs, its own among them.
    pub needs: Vec<Needed>,
    /// Images that it needs and names without a digest.
    pub unpinned: usize,
}

/// What a release consists of.
#[derive(Clone, Debug, Default)]
pub struct Release {
    /// Its version.
    pub version: String,
    /// By name.
    pub components: Vec<Component>,
    /// Versions that can be updated to it.
    pub previous: Vec<String>,
}

/// A component of a release.
#[derive(Clone, Debug)]
pub struct Component {
    /// Its name (`etcd`).
    pub name: String,
    /// Its image.
    pub needed: Needed,
    /// The image's digest.
    pub digest: Digest,
}

/// A description of either kind.
#[derive(Clone, Debug)]
pub(super) enum Description {
    Catalog(Arc<Catalog>),
    Release(Arc<Release>),
}

/// How it stands with a description.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// It is being read.
    Reading,
    /// It could not be read, for a reason that a visitor may hear.
    Failed(&'static str),
    /// Here it is.
    Ready(Description),
}

/// What of it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Catalog,
    Release,
}

/// The descriptions that were asked for.
pub(super) struct Descriptions {
    describe: Option<Arc<dyn Describe>>,
    kept: Mutex<HashMap<(Asked, Digest), Kept>>,
    /// Held by the one that is being read.
    turn: Arc<Semaphore>,
}

struct Kept {
    state: watch::Receiver<State>,
    used: Instant,
}

impl Kept {
    fn is_reading(&self) -> bool {
        matches!(&*self.state.borrow(), State::Reading)
    }

    /// Nobody reads it any more, and it did not come to an end.
    fn is_abandoned(&self) -> bool {
        self.is_reading() && self.state.has_changed().is_err()
    }
}

impl Pin {
    /// Of a digest.
    pub fn of(digest: &Digest) -> Self {
        Self(key(digest))
    }
}

impl Catalog {
    fn weight(&self) -> usize {
        self.packages.iter().map(Package::weight).sum()
    }

    /// Cuts off what is more than may be kept.
    fn bounded(mut self) -> Self {
        let mut weight = 0;
        let all = self.packages.len();
        let fits = |package: &Package| {
            weight += package.weight();
            weight <= MAX_ONE_WEIGHT
        };
        let keep = self.packages.iter().map(fits).take_while(|fits| *fits).count();
        self.packages.truncate(keep);
        self.cut |= keep < all;
        for package in &mut self.packages {
            package.name = clip(&package.name, MAX_CHARS);
            package.display_name = package.display_name.as_deref().map(|name| clip(name, MAX_CHARS));
        }
        self.packages.sort_by(|a, b| a.name.cmp(&b.name));
        self
    }
}

impl Package {
    fn weight(&self) -> usize {
        let channels: usize = self.channels.iter().map(|channel| 2 + channel.bundles.len()).sum();
        let versions: usize = self.versions.iter().map(|version| 2 + version.needs.len()).sum();
        4 + channels + versions
    }
}

impl Description {
    fn weight(&self) -> usize {
        match self {
            Self::Catalog(catalog) => catalog.weight(),
            Self::Release(release) => release.components.len() * 2,
        }
    }
}

impl Descriptions {
    pub(super) fn new(describe: Option<Arc<dyn Describe>>) -> Self {
        Self { describe, kept: Mutex::default(), turn: Arc::new(Semaphore::new(1)) }
    }

    /// Whether there is anybody to ask.
    pub(super) fn is_possible(&self) -> bool {
        self.describe.is_some()
    }

    pub(super) fn verified(&self) -> Option<Verified> {
        self.describe.as_ref()?.verified()
    }

    /// The description of `top`, which `image` stands for; waits a little for it.
    pub(super) async fn get(&self, asked: Asked, top: &Digest, image: Content) -> State {
        let Some(mut state) = self.begin(asked, top, image) else {
            return State::Failed("too much else is being read; try again in a moment");
        };
        let _ = tokio::time::timeout(WAIT, state.wait_for(|state| !matches!(state, State::Reading))).await;
        state.borrow().clone()
    }

    /// Has it read without waiting for it.
    pub(super) fn prepare(&self, asked: Asked, top: &Digest, image: Content) {
        let _ = self.begin(asked, top, image);
    }

    /// A description that is there already.
    pub(super) fn known(&self, asked: Asked, top: &Digest) -> Option<Description> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept.get(&(asked, top.clone()))?.state.borrow() {
            State::Ready(description) => Some(description.clone()),
            State::Reading | State::Failed(_) => None,
        }
    }

    fn begin(&self, asked: Asked, top: &Digest, image: Content) -> Option<watch::Receiver<State>> {
        let describe = self.describe.clone()?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let at = (asked, top.clone());
        if let Some(one) = kept.get_mut(&at) {
            let failed = matches!(&*one.state.borrow(), State::Failed(_));
            if !(one.is_abandoned() || failed && one.used.elapsed() >= TRY_AGAIN) {
                if !failed {
                    one.used = Instant::now();
                }
                return Some(one.state.clone());
            }
        }
        make_room(&mut kept)?;
        let (sender, state) = watch::channel(State::Reading);
        kept.insert(at, Kept { state: state.clone(), used: Instant::now() });
        drop(kept);
        let turn = self.turn.clone();
        tokio::spawn(async move {
            let _turn = turn.acquire_owned().await;
            let what = image.digest.clone();
            let read = match asked {
                Asked::Catalog => {
                    describe.catalog(image).await.map(|catalog| Description::Catalog(Arc::new(catalog.bounded())))
                }
                Asked::Release => describe.release(image).await.map(|release| Description::Release(Arc::new(release))),
            };
            sender.send_replace(match read {
                Ok(description) => State::Ready(description),
                Err(e) => {
                    tracing::warn!(error = %e, %what, "an image cannot be described");
                    State::Failed(reason(e.kind()))
                }
            });
        });
        Some(state)
    }
}

/// Forgets what was not used for the longest time; `None` when everything is still being read.
fn make_room(kept: &mut HashMap<(Asked, Digest), Kept>) -> Option<()> {
    let weight = |kept: &Kept| match &*kept.state.borrow() {
        State::Ready(description) => description.weight(),
        State::Reading | State::Failed(_) => 0,
    };
    while kept.len() >= MAX_KEPT || kept.values().map(weight).sum::<usize>() > MAX_WEIGHT - MAX_ONE_WEIGHT {
        let done = kept.iter().filter(|(_, one)| !one.is_reading() || one.is_abandoned());
        let oldest = done.min_by_key(|(_, one)| one.used).map(|(at, _)| at.clone())?;
        kept.remove(&oldest);
    }
    Some(())
}

/// What a visitor may hear of an error: nothing of this machine.
fn reason(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "a part of it is not in this registry",
        ErrorKind::Content | ErrorKind::Damaged => "its content is damaged, or not as its publisher's tools write it",
        ErrorKind::Unsupported | ErrorKind::Invalid => "it is of a form that is not understood here",
        ErrorKind::Full => "there is no space for what reading it needs",
        _ => "reading it failed; the registry's log says why",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_is_cut_where_it_is_too_large() {
        let name: Arc<str> = "n".into();
        let bundles = vec![name; 100_000];
        let package = |number: usize| Package {
            name: format!("p{number}"),
            channels: vec![Channel { name: "c".into(), head: None, bundles: bundles.clone() }],
            ..Package::default()
        };
        let catalog = Catalog { packages: (0..9).map(package).collect(), cut: false }.bounded();
        assert!(catalog.cut && catalog.weight() <= MAX_ONE_WEIGHT && catalog.packages.len() == 5);
        let small = Catalog { packages: vec![package(2), package(1)], cut: false }.bounded();
        assert!(!small.cut && small.packages[0].name == "p1");
    }
}
