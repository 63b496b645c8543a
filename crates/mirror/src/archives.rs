//! The archives that are read from: ours and oc-mirror's, several at once, newest first; as a [`Storage`] to serve and as a
//! [`Source`] to load from.
//!
//! Images are known under the archive's own names (`world/app`), and under the names they were mirrored from
//! (`quay.io/world/app`), which the plans in the archives tell.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use airlock_oci::sink::ManifestName;
use airlock_oci::{
    BlobStream, Descriptor, Digest, Error, ErrorKind, Found, Manifest, Place, Reference, Repository, Source, Tag,
};
use airlock_store::archive::foreign::Foreign;
use airlock_store::archive::layout::{PLAN_PATH, RepositoryContents};
use airlock_store::archive::{Absent, Archive, Offers};
use airlock_store::{Region, Storage};
use async_trait::async_trait;
use serde::de::DeserializeOwned;

use crate::plan::origins::{GRAPHS, SIGNATURES};
use crate::plan::{Documents, Image, Origins, Outline, Plan, Planned, Release};

/// Where payloads are published: oc-mirror keeps only the tag of one.
const PUBLISHED: &str = "quay.io/openshift-release-dev/ocp-release:latest";

/// Codes of what another attempt might have brought.
const PASSING: [&str; 4] = ["network", "server", "too-many-requests", "withheld"];

/// Where the documents of a plan lie in an archive.
pub const DOCUMENTS: &str = "airlock/";

/// Bytes of a plan that are in memory at once while it is read.
const PLAN_PIECE_BYTES: usize = 64 * 1024;

/// One archive.
pub enum Opened {
    /// Written by Airlock.
    Ours {
        /// The archive.
        archive: Box<Archive>,
        /// What is kept of its plan.
        outline: Box<Outline>,
        /// This run has read every byte and found it as it was sealed.
        proved: AtomicBool,
    },
    /// Written by oc-mirror v2.
    Theirs(Foreign),
}

/// Archives, newest first.
pub struct Archives {
    list: Vec<Opened>,
    /// Repositories of the archives by the name that their images were mirrored from (`quay.io/world/app`).
    aliases: HashMap<String, BTreeSet<Repository>>,
    /// Images, as they were written, that were missing for reasons which say nothing about them.
    passed_over: HashSet<String>,
}

/// [`Archives`] as a source.
pub struct ArchiveSource(pub Arc<Archives>);

/// Opens the archive in a directory, checking what can be checked without reading blobs.
pub fn open(directory: &Path) -> Result<Opened, Error> {
    if !airlock_store::archive::reader::is_ours(directory)? {
        return Foreign::open(directory).map(Opened::Theirs);
    }
    let archive = Archive::open(directory)?;
    let outline = read_plan(&archive)?;
    Ok(Opened::Ours { archive: Box::new(archive), outline: Box::new(outline), proved: AtomicBool::new(false) })
}

/// The whole plan of an archive, read again from the disk: some hundred bytes for each of its blobs.
pub fn plan_of(archive: &Archive) -> Result<Plan, Error> {
    read_plan(archive)
}

/// Reads the plan, or what a type takes of it, without having its text in memory.
fn read_plan<T: DeserializeOwned>(archive: &Archive) -> Result<T, Error> {
    let what = || format!("read the plan in {}", archive.directory().display());
    let mut file =
        archive.read_file(PLAN_PATH)?.ok_or_else(|| Error::new(ErrorKind::Damaged, what(), "there is none"))?;
    let read = serde_json::from_reader(BufReader::with_capacity(PLAN_PIECE_BYTES, &mut file));
    // Only now is it known whether these were the bytes that were written.
    file.finish()?;
    read.map_err(|e| {
        Error::new(ErrorKind::Unsupported, what(), e)
            .hint("use the version of airlock that wrote the archive, or a later one")
    })
}

impl Opened {
    /// The directory.
    pub fn describe(&self) -> String {
        match self {
            Self::Ours { archive, .. } => archive.describe(),
            Self::Theirs(foreign) => foreign.describe(),
        }
    }

    fn storage(&self) -> &dyn Storage {
        match self {
            Self::Ours { archive, .. } => archive.as_ref(),
            Self::Theirs(foreign) => foreign,
        }
    }

    fn region(&self, digest: &Digest) -> Option<Region> {
        match self {
            Self::Ours { archive, .. } => archive.region(digest),
            Self::Theirs(foreign) => foreign.region(digest),
        }
    }

    fn offers(&self) -> &Offers {
        match self {
            Self::Ours { archive, .. } => archive.offers(),
            Self::Theirs(foreign) => foreign.offers(),
        }
    }

    /// What is kept of its plan, if it has one.
    pub fn outline(&self) -> Option<&Outline> {
        match self {
            Self::Ours { outline, .. } => Some(outline),
            Self::Theirs(_) => None,
        }
    }
}

impl Archives {
    /// Opens the archive of each directory. Two of the same history are read newest first.
    pub fn open(directories: &[PathBuf]) -> Result<Self, Error> {
        let mut list = directories.iter().map(|d| open(d)).collect::<Result<Vec<_>, _>>()?;
        list.sort_by_key(|opened| {
            std::cmp::Reverse(match opened {
                Opened::Ours { archive, .. } => (archive.sequence(), archive.created().to_owned()),
                Opened::Theirs(_) => (0, String::new()),
            })
        });
        let mut this = Self { list, aliases: HashMap::new(), passed_over: HashSet::new() };
        for outline in this.list.iter().filter_map(Opened::outline) {
            let passing = outline.missing.iter().filter(|m| PASSING.contains(&m.code.as_str()));
            this.passed_over.extend(passing.map(|m| m.name.clone()));
            for image in outline.images() {
                this.aliases.entry(image.source.name()).or_default().insert(image.repository.clone());
            }
        }
        Ok(this)
    }

    /// The archives, newest first.
    pub fn list(&self) -> &[Opened] {
        &self.list
    }

    /// What the archives offer, by their own names; a tag is the newest archive's. Catalogs as published, which archives carry for loading
    /// only, are left out.
    pub fn contents(&self) -> Result<BTreeMap<Repository, RepositoryContents>, Error> {
        let mut all: BTreeMap<Repository, RepositoryContents> = BTreeMap::new();
        for opened in &self.list {
            let plan = match opened {
                Opened::Ours { archive, .. } => Some(plan_of(archive)?),
                Opened::Theirs(_) => None,
            };
            let images = || plan.iter().flat_map(|plan| &plan.images);
            let carried: HashSet<&Digest> = images().filter(|i| !i.original).flat_map(Image::all_nodes).collect();
            let for_loading: HashSet<&Digest> = images().filter(|i| i.original).flat_map(Image::all_nodes).collect();
            let is_offered = |digest: &Digest| carried.contains(digest) || !for_loading.contains(digest);
            for offered in opened.offers().iter() {
                let entry = all.entry(offered.name().clone()).or_default();
                entry.layers.extend(offered.layers().cloned());
                entry.manifests.extend(offered.manifests().filter(|d| is_offered(d)).cloned());
                for (tag, digest) in offered.tags().filter(|(_, d)| is_offered(d)) {
                    entry.tags.entry(tag.clone()).or_insert_with(|| digest.clone());
                }
            }
        }
        Ok(all)
    }

    /// Where the content of a digest lies in any of them.
    pub fn region(&self, digest: &Digest) -> Option<Region> {
        self.list.iter().find_map(|o| o.region(digest))
    }

    /// Whether the bytes at [`region`](Self::region) were read in this run and are those that were sealed.
    pub fn is_proved(&self, digest: &Digest) -> bool {
        match self.list.iter().find(|o| o.region(digest).is_some()) {
            Some(Opened::Ours { proved, .. }) => proved.load(Ordering::Relaxed),
            _ => false,
        }
    }

    /// What the newest table says of a blob that lies in an archive which is not here.
    pub fn absent(&self, digest: &Digest) -> Option<Absent> {
        self.list.iter().find_map(|opened| match opened {
            Opened::Ours { archive, .. } => archive.absent(digest),
            Opened::Theirs(_) => None,
        })
    }

    /// What the archives need of themselves and do not have: how many blobs lie in which earlier archive (number, date), oldest first.
    pub fn needed_archives(&self) -> BTreeMap<(u32, String), usize> {
        let ours = self.list.iter().filter_map(|opened| match opened {
            Opened::Ours { archive, .. } => Some(archive),
            Opened::Theirs(_) => None,
        });
        let needed: HashSet<&Digest> = ours.flat_map(|a| a.absent_digests()).collect();
        let mut all = BTreeMap::new();
        for absent in needed.into_iter().filter(|d| self.region(d).is_none()).filter_map(|d| self.absent(d)) {
            *all.entry((absent.sequence, absent.created)).or_default() += 1;
        }
        all
    }

    /// Blobs and manifests that were missing when the archives were written, and that none of them has, sorted.
    pub fn void_digests(&self) -> BTreeSet<&Digest> {
        let missing = self.list.iter().flat_map(|opened| match opened {
            Opened::Ours { archive, .. } => archive.missing(),
            Opened::Theirs(_) => &[],
        });
        missing.filter(|digest| self.region(digest).is_none()).collect()
    }

    /// What a reference stood for when it was mirrored, as the newest plan that knows it says.
    fn named(&self, name: &Reference) -> Option<&Planned> {
        self.list.iter().filter_map(Opened::outline).find_map(|outline| outline.named(name).first())
    }

    /// Whether an image was part of what an archive was to carry, or was missing for a moment only when it was written.
    pub fn planned(&self, name: &Reference, written: &str) -> bool {
        self.named(name).is_some() || self.passed_over.contains(written)
    }

    /// The update graphs and signatures of releases that the archives carry; the newest of each.
    pub fn origins(&self) -> Result<Origins, Error> {
        let (mut documents, mut releases) = (Documents::new(), Vec::new());
        for opened in &self.list {
            let (archive, outline) = match opened {
                Opened::Ours { archive, outline, .. } => (archive, outline),
                Opened::Theirs(foreign) => {
                    of_theirs(foreign, &mut documents, &mut releases)?;
                    continue;
                }
            };
            for path in archive.files() {
                let Some(name) = path.strip_prefix(DOCUMENTS) else { continue };
                let kept = [GRAPHS, SIGNATURES].iter().any(|folder| name.starts_with(folder));
                if !kept || documents.contains_key(name) {
                    continue;
                }
                if let Some(bytes) = archive.file(path)? {
                    documents.insert(name.to_owned(), bytes);
                }
            }
            releases.extend(outline.releases.iter().cloned());
        }
        let place = format!("the archive in {}", Storage::describe(self));
        Ok(Origins::kept(&place, &releases, &documents))
    }

    /// Repositories of the archives that a logical name may mean: those its images were put into, else its path.
    fn repositories_of(&self, name: &Reference) -> Vec<Repository> {
        let mut all: Vec<Repository> = self.aliases.get(&name.name()).into_iter().flatten().cloned().collect();
        if !all.contains(name.repository()) {
            all.push(name.repository().clone());
        }
        // Docker Hub's `library/` is not part of a name at the destination (oc-mirror 4.2).
        if let Some(short) = name.repository().as_str().strip_prefix("library/").and_then(|r| Repository::new(r).ok()) {
            all.push(short);
        }
        all
    }

    /// A repository as asked for by a client: an archive's own name, or an alias.
    fn own_names(&self, repository: &Repository) -> Vec<Repository> {
        let mut names = vec![repository.clone()];
        names.extend(self.aliases.get(repository.as_str()).into_iter().flatten().cloned());
        names
    }

    fn find_manifest(&self, name: &Reference) -> Result<Option<(Manifest, String)>, Error> {
        // Where a tag is looked up by its path alone, only archives without a plan may answer: in ours the same path may
        // come from another registry.
        let mut without_plan = false;
        let mut places: Vec<(Repository, ManifestName)> = Vec::new();
        let tagged = name.tag().map(|t| ManifestName::Tag(t.clone()));
        match (name.digest(), tagged) {
            (Some(digest), _) => {
                let at = ManifestName::Digest(digest.clone());
                places.extend(self.repositories_of(name).into_iter().map(|r| (r, at.clone())));
                let offering = self.list.iter().find_map(|opened| opened.offers().repository_of_manifest(digest));
                places.extend(offering.map(|r| (r.clone(), at)));
            }
            (None, Some(at)) => {
                if let Some(planned) = self.named(name) {
                    places.push((planned.repository.clone(), ManifestName::Digest(planned.digest.clone())));
                } else if let Some(own) = self.aliases.get(&name.name()) {
                    // A tag of the same repository that came along with an image: a signature's.
                    places.extend(own.iter().map(|r| (r.clone(), at.clone())));
                } else {
                    without_plan = true;
                    places.extend(self.repositories_of(name).into_iter().map(|r| (r, at.clone())));
                }
            }
            (None, None) => {}
        }
        for (repository, at) in places {
            for opened in &self.list {
                if without_plan && matches!(opened, Opened::Ours { .. }) {
                    continue;
                }
                if let Some(manifest) = opened.storage().manifest(&repository, &at)? {
                    return Ok(Some((manifest, opened.describe())));
                }
            }
        }
        Ok(None)
    }

    /// Why a name is not found: void, or never there.
    fn absence(&self, name: &Reference) -> Error {
        let held: Vec<String> = self.list.iter().map(Opened::describe).collect();
        let place = held.join(", ");
        if self.named(name).is_some() {
            return Error::new(
                ErrorKind::NotFound,
                format!("read `{name}` from {place}"),
                "the archive is partial: this image could not be had when it was written",
            )
            .hint(
                "complete the archive on the connected side with `airlock mirror --retry REPORT` and carry it again",
            );
        }
        Error::new(
            ErrorKind::NotFound,
            format!("read `{name}` from {place}"),
            "no image of that name is in the archive",
        )
        .hint("mirror it into an archive on the connected side; `airlock archive ls DIR` shows what this one holds")
    }
}

/// The graphs and signatures in oc-mirror's working directory, where oc-mirror 3.6 has them.
fn of_theirs(foreign: &Foreign, documents: &mut Documents, releases: &mut Vec<Release>) -> Result<(), Error> {
    for (name, bytes) in foreign.files("hold-release/cincinnati-graph-data/")? {
        documents.entry(format!("{GRAPHS}{name}")).or_insert_with(|| bytes.into());
    }
    for (name, bytes) in foreign.files(SIGNATURES)? {
        // `4.18.1-x86_64-sha256-<hex>`: whatever has another name is no signature of a release.
        let Some((tag, hex)) = name.split_once("-sha256-") else { continue };
        let (Ok(tag), Ok(digest)) = (Tag::new(tag), format!("sha256:{hex}").parse::<Digest>()) else { continue };
        let Ok(published) = PUBLISHED.parse::<Reference>() else { continue };
        let (registry, repository) = (published.registry().clone(), published.repository().clone());
        let document = format!("{SIGNATURES}{name}");
        documents.entry(document.clone()).or_insert_with(|| bytes.into());
        releases.push(Release {
            version: String::new(),
            architecture: String::new(),
            source: Reference::new(registry, repository, Some(tag.clone()), Some(digest.clone())),
            digest,
            tag,
            signature: Some(document),
            reasons: Vec::new(),
        });
    }
    Ok(())
}

impl Storage for Archives {
    fn describe(&self) -> String {
        self.list.iter().map(Opened::describe).collect::<Vec<_>>().join(", ")
    }

    fn repositories(&self) -> Result<Vec<Repository>, Error> {
        let mut all = BTreeSet::new();
        for opened in &self.list {
            all.extend(opened.storage().repositories()?);
        }
        Ok(all.into_iter().collect())
    }

    fn tags(&self, repository: &Repository) -> Result<Option<Vec<Tag>>, Error> {
        let mut all: Option<BTreeSet<Tag>> = None;
        for name in self.own_names(repository) {
            for opened in &self.list {
                if let Some(tags) = opened.storage().tags(&name)? {
                    all.get_or_insert_default().extend(tags);
                }
            }
        }
        Ok(all.map(|tags| tags.into_iter().collect()))
    }

    fn manifest(&self, repository: &Repository, at: &ManifestName) -> Result<Option<Manifest>, Error> {
        for name in self.own_names(repository) {
            for opened in &self.list {
                if let Some(manifest) = opened.storage().manifest(&name, at)? {
                    return Ok(Some(manifest));
                }
            }
        }
        Ok(None)
    }

    fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<Region>, Error> {
        for name in self.own_names(repository) {
            for opened in &self.list {
                if opened.offers().has(&name, digest) {
                    // The newest archive says whose blob it is; an older one may carry the bytes.
                    return Ok(self.region(digest));
                }
            }
        }
        Ok(None)
    }

    fn elsewhere(&self, _repository: &Repository, digest: &Digest) -> Option<String> {
        let absent = self.absent(digest).filter(|_| self.region(digest).is_none())?;
        Some(format!("archive {} of {}, which is not served here", absent.sequence, absent.created))
    }

    fn referrers(&self, repository: &Repository, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let mut all: Vec<Descriptor> = Vec::new();
        for name in self.own_names(repository) {
            for opened in &self.list {
                for descriptor in opened.storage().referrers(&name, subject)? {
                    if !all.iter().any(|d| d.digest == descriptor.digest) {
                        all.push(descriptor);
                    }
                }
            }
        }
        all.sort_by(|a, b| a.digest.cmp(&b.digest));
        Ok(all)
    }

    fn manifests(&self, repository: &Repository) -> Result<Option<Vec<Digest>>, Error> {
        let mut all: Option<BTreeSet<Digest>> = None;
        for name in self.own_names(repository) {
            for opened in &self.list {
                if let Some(manifests) = opened.storage().manifests(&name)? {
                    all.get_or_insert_default().extend(manifests);
                }
            }
        }
        Ok(all.map(|manifests| manifests.into_iter().collect()))
    }

    fn tagged_at(&self, repository: &Repository, tag: &Tag) -> Option<SystemTime> {
        let names = self.own_names(repository);
        names.iter().find_map(|name| self.list.iter().find_map(|opened| opened.storage().tagged_at(name, tag)))
    }
}

async fn blocking<T: Send + 'static>(
    archives: &Arc<Archives>,
    work: impl FnOnce(&Archives) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let archives = Arc::clone(archives);
    tokio::task::spawn_blocking(move || work(&archives))
        .await
        .map_err(|e| Error::new(ErrorKind::Io, "read an archive", e))?
}

#[async_trait]
impl Source for ArchiveSource {
    fn describe(&self) -> String {
        Storage::describe(self.0.as_ref())
    }

    async fn resolve(&self, name: &Reference) -> Result<Found<Digest>, Error> {
        let found = self.manifest(name).await?;
        Ok(Found { value: found.value.digest().clone(), place: found.place })
    }

    async fn manifest(&self, name: &Reference) -> Result<Found<Manifest>, Error> {
        let wanted = name.clone();
        blocking(&self.0, move |archives| match archives.find_manifest(&wanted)? {
            Some((value, place)) => Ok(Found { value, place: Place(place) }),
            None => Err(archives.absence(&wanted)),
        })
        .await
    }

    async fn blob(
        &self,
        name: &Reference,
        blob: &Descriptor,
        offset: u64,
        _near: Option<&Place>,
    ) -> Result<BlobStream, Error> {
        let region = self.0.region(&blob.digest).ok_or_else(|| {
            let what = format!("read blob `{}` of `{}`", blob.digest, name.name());
            match self.0.absent(&blob.digest) {
                Some(absent) => Error::new(
                    ErrorKind::NotFound,
                    what,
                    format!("it lies in archive {} of {} ({})", absent.sequence, absent.created, absent.identity),
                )
                .hint("give that archive's directory with another --from"),
                None => Error::new(ErrorKind::NotFound, what, format!("it is not in {}", self.describe())),
            }
        })?;
        if region.len != blob.size {
            return Err(Error::new(
                ErrorKind::Content,
                format!("read blob `{}` of `{}`", blob.digest, name.name()),
                format!("it has {} bytes in the archive, the manifest says {}", region.len, blob.size),
            ));
        }
        Ok(region.stream(offset, u64::MAX, format!("blob `{}` in {}", blob.digest, self.describe())))
    }

    fn is_proved(&self, _name: &Reference, blob: &Descriptor) -> bool {
        self.0.is_proved(&blob.digest)
    }

    async fn has_blob(&self, _name: &Reference, blob: &Descriptor, _near: Option<&Place>) -> Result<bool, Error> {
        Ok(self.0.region(&blob.digest).is_some() || self.0.absent(&blob.digest).is_some())
    }

    async fn referrers(
        &self,
        name: &Reference,
        subject: &Digest,
        _near: Option<&Place>,
    ) -> Result<Vec<Descriptor>, Error> {
        let (name, subject) = (name.clone(), subject.clone());
        blocking(&self.0, move |archives| {
            let mut all: Vec<Descriptor> = Vec::new();
            for repository in archives.repositories_of(&name) {
                for descriptor in archives.referrers(&repository, &subject)? {
                    if !all.iter().any(|d| d.digest == descriptor.digest) {
                        all.push(descriptor);
                    }
                }
            }
            Ok(all)
        })
        .await
    }

    async fn tags(&self, name: &Reference) -> Result<Vec<Tag>, Error> {
        let name = name.clone();
        blocking(&self.0, move |archives| {
            let mut all = BTreeSet::new();
            for repository in archives.repositories_of(&name) {
                all.extend(Storage::tags(archives, &repository)?.into_iter().flatten());
            }
            Ok(all.into_iter().collect())
        })
        .await
    }
}
