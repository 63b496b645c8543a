//! Generations: what each import brought, so that what only old ones brought can go.
//!
//! ```text
//! .airlock/generations/000001.json    one import: when, from where, which manifests and tags
//! .airlock/generations/pushed         what somebody pushed although a generation has it: a line each
//! ```
//!
//! A generation is written before the first byte of its import, with everything that the import is going to bring, and again when it has
//! ended, with what is there. Files are written beside, synced and renamed; docker-registry does not look at them.
//!
//! What somebody pushed is theirs, and never goes with a generation. Content that lay in the storage before any generation had it, and
//! content that is pushed while a generation has it, is therefore noted in `pushed`, a file to which lines are only added: one that a
//! crash cut short is no line.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use airlock_oci::{Digest, Error, ErrorKind, Repository, Tag};
use serde::{Deserialize, Serialize};

use super::uploads::UploadId;
use crate::disk::{self, DirectorySyncs};

/// Version of the files' form.
const API_VERSION: &str = "airlock/v1";
/// Bytes of a generation's file at most: some hundred thousand manifests.
const MAX_FILE_BYTES: usize = 256 * 1024 * 1024;

/// What one import brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Generation {
    /// Version of this form.
    pub api_version: String,
    /// Always `Generation`.
    pub kind: String,
    /// Counted from 1; 0 asks for the next.
    pub number: u64,
    /// RFC 3339.
    pub created: String,
    /// Where everything came from: `docker://HOST/NAME`, a directory.
    pub source: String,
    /// How the import ended.
    pub state: State,
    /// Bytes of its content, each blob and manifest once.
    pub bytes: u64,
    /// What it brought.
    pub repositories: BTreeMap<Repository, Members>,
}

/// How far an import is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Under way, or interrupted: it says what was to be brought.
    Unfinished,
    /// Some of it could not be had: it says what is there.
    Partial,
    /// Everything is there.
    Complete,
}

/// What a generation has in one repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Tags, and what they pointed at.
    pub tags: BTreeMap<Tag, Digest>,
    /// All manifests, tagged or not, children and attachments too.
    pub manifests: BTreeSet<Digest>,
}

/// What would go with old generations, as far as their records say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outdated {
    /// The generations that go.
    pub numbers: Vec<u64>,
    /// What only they have.
    pub repositories: BTreeMap<Repository, Members>,
    /// The oldest one that stays: what of theirs has to stay is its own from then on.
    pub heir: Option<u64>,
}

impl Generation {
    /// A generation that is about to be brought.
    pub fn begun(source: String, created: String, bytes: u64, repositories: BTreeMap<Repository, Members>) -> Self {
        Self {
            api_version: API_VERSION.into(),
            kind: "Generation".into(),
            number: 0,
            created,
            source,
            state: State::Unfinished,
            bytes,
            repositories,
        }
    }

    /// How many tags and manifests it has.
    pub fn counts(&self) -> (usize, usize) {
        let members = self.repositories.values();
        members.fold((0, 0), |(tags, manifests), m| (tags + m.tags.len(), manifests + m.manifests.len()))
    }

    /// Whether everything that it has is in another one too.
    fn is_within(&self, other: &Self) -> bool {
        self.repositories.iter().all(|(name, members)| {
            other.repositories.get(name).is_some_and(|others| {
                members.manifests.is_subset(&others.manifests)
                    && members.tags.iter().all(|(tag, digest)| others.tags.get(tag) == Some(digest))
            })
        })
    }
}

/// What goes when the last `keep` complete generations are kept, and all that came since. One that is partial does not count: an import
/// that got next to nothing must not take the place of what is relied on. `generations` are in order.
pub fn outdated(generations: &[Generation], keep: usize) -> Outdated {
    let complete: Vec<u64> = generations.iter().filter(|g| g.state == State::Complete).map(|g| g.number).collect();
    if complete.len() < keep {
        return Outdated::default();
    }
    let first_kept = complete.get(complete.len() - keep).copied();
    // Nothing to keep: only what is under way stays.
    let is_kept = |g: &Generation| match first_kept {
        Some(first) => g.number >= first,
        None => g.state == State::Unfinished,
    };
    let (kept, old): (Vec<_>, Vec<_>) = generations.iter().partition(|g| is_kept(g));
    let numbers: Vec<u64> = old.iter().map(|g| g.number).collect();
    Outdated { heir: kept.first().map(|g| g.number), repositories: only_in(generations, &numbers), numbers }
}

/// What only the generations with these numbers have.
pub(super) fn only_in(generations: &[Generation], numbers: &[u64]) -> BTreeMap<Repository, Members> {
    let (old, kept): (Vec<_>, Vec<_>) = generations.iter().partition(|g| numbers.contains(&g.number));
    let mut repositories: BTreeMap<Repository, Members> = BTreeMap::new();
    for generation in old {
        for (name, members) in &generation.repositories {
            let others: Vec<&Members> = kept.iter().filter_map(|g| g.repositories.get(name)).collect();
            let entry = repositories.entry(name.clone()).or_default();
            let manifests = members.manifests.iter().filter(|d| !others.iter().any(|o| o.manifests.contains(*d)));
            entry.manifests.extend(manifests.cloned());
            // The newest of the old ones that has the tag says what it may point at.
            let tags = members.tags.iter().filter(|(t, d)| !others.iter().any(|o| o.tags.get(*t) == Some(d)));
            entry.tags.extend(tags.map(|(tag, digest)| (tag.clone(), digest.clone())));
        }
    }
    repositories.retain(|_, members| *members != Members::default());
    repositories
}

/// The generations of one storage.
#[derive(Debug)]
pub(super) struct Generations {
    folder: PathBuf,
    state: Mutex<Known>,
}

/// What was read of the files.
#[derive(Debug, Default)]
struct Known {
    /// Hashes of what generations have; `None`: not read yet. Two things with the same hash only cost a line in `pushed`.
    owned: Option<HashSet<u64>>,
    /// The lines of `pushed`; `None`: not read yet.
    pushed: Option<HashSet<String>>,
    /// How often a record was written or removed.
    changes: u64,
}

/// The generations while nobody changes them.
pub(super) struct Held<'a> {
    generations: &'a Generations,
    known: MutexGuard<'a, Known>,
}

/// How a manifest of a repository is written in `pushed`.
fn manifest_line(repository: &Repository, digest: &Digest) -> String {
    format!("{repository}@{digest}")
}

/// How a tag that points at something is written in `pushed`.
fn tag_line(repository: &Repository, tag: &Tag, digest: &Digest) -> String {
    format!("{repository}:{tag}@{digest}")
}

fn hash(line: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    line.hash(&mut hasher);
    hasher.finish()
}

/// The generations that lie in a storage's own folder, oldest first.
pub(super) fn read(folder: &Path) -> Result<Vec<Generation>, Error> {
    let mut all = Vec::new();
    for name in disk::names(folder)? {
        let Some(number) = name.strip_suffix(".json").and_then(|n| n.parse::<u64>().ok()) else { continue };
        let path = folder.join(&name);
        let damaged = |cause: String| {
            Error::new(ErrorKind::Damaged, format!("read `{}`", path.display()), cause)
                .hint("remove the file if the import that it records no longer matters; what it brought then stays")
        };
        let Some(bytes) = disk::read_small(&path, MAX_FILE_BYTES)? else { continue };
        let generation: Generation = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if generation.api_version != API_VERSION {
            return Err(damaged(format!("its form is `{}`; `{API_VERSION}` is known", generation.api_version))
                .with_kind(ErrorKind::Unsupported));
        }
        if generation.number != number {
            return Err(damaged(format!("it says that it is number {}", generation.number)));
        }
        all.push(generation);
    }
    all.sort_by_key(|g| g.number);
    Ok(all)
}

impl Generations {
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:06}.json"))
    }

    /// All, oldest first.
    pub(super) fn read(&self) -> Result<Vec<Generation>, Error> {
        read(&self.folder)
    }

    /// Keeps everybody from changing them. Whoever also keeps the names of a repository as they are does that first.
    pub(super) fn hold(&self) -> Held<'_> {
        Held { generations: self, known: self.lock() }
    }

    /// Writes a generation, under the next number if it has none; answers its number. `is_there` says what lies in the storage, asked with
    /// `true` while nobody changes the names of that repository: what no generation has so far was pushed by somebody.
    pub(super) fn record(
        &self,
        generation: &Generation,
        is_there: &dyn Fn(&Repository, &Members, bool) -> Result<Members, Error>,
    ) -> Result<u64, Error> {
        if generation.number != 0 {
            return self.write(generation, &|_, _| Ok(Members::default()));
        }
        let owned = owned_by(&self.read()?);
        let number = self.write(generation, &|name, members| is_there(name, members, false))?;
        // A push that was under way did not know of this generation, and had not given the manifest its name yet.
        for (name, members) in &generation.repositories {
            let present = is_there(name, members, true)?;
            let lines = lines_of(name, &present).filter(|line| !owned.contains(&hash(line))).collect();
            self.push(&mut self.lock(), lines)?;
        }
        Ok(number)
    }

    /// The same, looking once.
    fn write(
        &self,
        generation: &Generation,
        is_there: &dyn Fn(&Repository, &Members) -> Result<Members, Error>,
    ) -> Result<u64, Error> {
        self.write_to(&mut self.lock(), generation, is_there)
    }

    fn write_to(
        &self,
        known: &mut Known,
        generation: &Generation,
        is_there: &dyn Fn(&Repository, &Members) -> Result<Members, Error>,
    ) -> Result<u64, Error> {
        let all = self.read()?;
        let mut generation = generation.clone();
        let mut syncs = DirectorySyncs::default();
        syncs.create(&self.folder)?;
        let mut superseded = Vec::new();
        if generation.number == 0 {
            generation.number = all.last().map_or(1, |g| g.number + 1);
            let owned = owned_by(&all);
            let mut lines = Vec::new();
            for (name, members) in &generation.repositories {
                lines.extend(lines_of(name, &is_there(name, members)?).filter(|line| !owned.contains(&hash(line))));
            }
            self.push(known, lines)?;
            // The same import, begun again: the record of the attempt before says nothing that this one does not.
            let before = all.iter().filter(|g| g.state == State::Unfinished && g.source == generation.source);
            superseded.extend(before.filter(|g| g.is_within(&generation)).map(|g| g.number));
        }
        let text =
            serde_json::to_vec(&generation).map_err(|e| Error::new(ErrorKind::Invalid, "record an import", e))?;
        let temporary = self.folder.join(format!("{}.tmp", UploadId::random()?));
        disk::write_beside(&temporary, &self.path(generation.number), &text, &mut syncs)?;
        syncs.sync()?;
        known.changes += 1;
        if let Some(owned) = &mut known.owned {
            owned.extend(hashes_of(&generation));
        }
        for number in superseded {
            disk::remove_file(&self.path(number))?;
        }
        Ok(generation.number)
    }

    /// Adds to what a generation has.
    pub(super) fn inherit(&self, heir: u64, left: BTreeMap<Repository, Members>) -> Result<(), Error> {
        let mut known = self.lock();
        let mut all = self.read()?;
        let Some(generation) = all.iter_mut().find(|g| g.number == heir).filter(|_| !left.is_empty()) else {
            return Ok(());
        };
        for (name, members) in left {
            let own = generation.repositories.entry(name).or_default();
            own.manifests.extend(members.manifests);
            for (tag, digest) in members.tags {
                own.tags.entry(tag).or_insert(digest);
            }
        }
        self.write_to(&mut known, generation, &|_, _| Ok(Members::default())).map(|_| ())
    }

    /// Removes the records of generations. What they had is no longer theirs.
    pub(super) fn forget(&self, numbers: &[u64]) -> Result<(), Error> {
        let mut known = self.lock();
        let mut syncs = DirectorySyncs::default();
        for number in numbers {
            let path = self.path(*number);
            if disk::remove_file(&path)? {
                syncs.changed(&path);
            }
        }
        known.owned = None;
        known.changes += 1;
        syncs.sync()
    }

    /// Somebody pushes a manifest, and points tags at it: what a generation has of it is theirs from now on. To be called while nobody
    /// else changes the names of the repository.
    pub(super) fn pushed(&self, repository: &Repository, digests: &[&Digest], tags: &[Tag]) -> Result<(), Error> {
        let mut known = self.lock();
        if known.owned.is_none() {
            match self.read() {
                Ok(all) => known.owned = Some(owned_by(&all)),
                // A push does not fail for it. Everything is noted until the record is gone, so that nothing of theirs goes.
                Err(error) => tracing::warn!("what imports brought is not known: {error}"),
            }
        }
        let owned = known.owned.as_ref();
        if owned.is_some_and(HashSet::is_empty) {
            return Ok(());
        }
        let own = digests.first().into_iter().flat_map(|d| tags.iter().map(|t| tag_line(repository, t, d)));
        let all = digests.iter().map(|d| manifest_line(repository, d)).chain(own);
        let lines = all.filter(|line| owned.is_none_or(|owned| owned.contains(&hash(line)))).collect();
        self.push(&mut known, lines)
    }

    /// Whether [`Generations::pushed`] would write nothing, as far as that can be told without waiting for anybody or the disk.
    pub(super) fn is_noted(&self, repository: &Repository, digest: &Digest, tag: Option<&Tag>) -> bool {
        let Ok(known) = self.state.try_lock() else { return false };
        let Some(owned) = &known.owned else { return false };
        let lines = [manifest_line(repository, digest)].into_iter().chain(tag.map(|t| tag_line(repository, t, digest)));
        let is_pushed = |line: &String| known.pushed.as_ref().is_some_and(|pushed| pushed.contains(line));
        owned.is_empty() || lines.into_iter().all(|line| !owned.contains(&hash(&line)) || is_pushed(&line))
    }

    fn pushed_path(&self) -> PathBuf {
        self.folder.join("pushed")
    }

    fn push(&self, known: &mut Known, lines: Vec<String>) -> Result<(), Error> {
        let path = self.pushed_path();
        let before = match &mut known.pushed {
            Some(lines) => lines,
            none => none.insert(read_lines(&path)?),
        };
        let new: Vec<String> = lines.into_iter().filter(|line| !before.contains(line)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let failed = |e: &std::io::Error| disk::failed("write", &path, e);
        let mut syncs = DirectorySyncs::default();
        syncs.create(&self.folder)?;
        let mut file = File::options().create(true).append(true).open(&path).map_err(|e| failed(&e))?;
        disk::give_to_owner_of(&self.folder, &file).map_err(|e| failed(&e))?;
        // A line before that a crash cut short ends here.
        let text = format!("\n{}\n", new.join("\n"));
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(|e| failed(&e))?;
        syncs.changed(&path);
        syncs.sync()?;
        before.extend(new);
        Ok(())
    }

    /// What of this is somebody's own.
    pub(super) fn pushed_of(&self, repository: &Repository, members: &Members) -> Result<Members, Error> {
        self.hold().pushed_of(repository, members)
    }
}

impl Held<'_> {
    /// How often a record was written or removed so far.
    pub(super) fn changes(&self) -> u64 {
        self.known.changes
    }

    /// What of this is somebody's own.
    pub(super) fn pushed_of(&mut self, repository: &Repository, members: &Members) -> Result<Members, Error> {
        let lines = match &mut self.known.pushed {
            Some(lines) => lines,
            none => none.insert(read_lines(&self.generations.pushed_path())?),
        };
        let mut own = Members::default();
        own.manifests
            .extend(members.manifests.iter().filter(|d| lines.contains(&manifest_line(repository, d))).cloned());
        let tags = members.tags.iter().filter(|(tag, digest)| lines.contains(&tag_line(repository, tag, digest)));
        own.tags.extend(tags.map(|(tag, digest)| (tag.clone(), digest.clone())));
        Ok(own)
    }
}

fn read_lines(path: &Path) -> Result<HashSet<String>, Error> {
    let bytes = disk::read_small(path, MAX_FILE_BYTES)?.unwrap_or_default();
    // Only what is a whole line counts, so that no part of one is taken for another.
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
    let text = String::from_utf8_lossy(&bytes[..whole]);
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

fn lines_of<'a>(repository: &'a Repository, members: &'a Members) -> impl Iterator<Item = String> + use<'a> {
    let manifests = members.manifests.iter().map(move |digest| manifest_line(repository, digest));
    manifests.chain(members.tags.iter().map(move |(tag, digest)| tag_line(repository, tag, digest)))
}

fn hashes_of(generation: &Generation) -> impl Iterator<Item = u64> {
    generation.repositories.iter().flat_map(|(name, members)| lines_of(name, members)).map(|line| hash(&line))
}

fn owned_by(generations: &[Generation]) -> HashSet<u64> {
    generations.iter().flat_map(hashes_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(tags: &[(&str, &str)], manifests: &[&str]) -> Members {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let tags: BTreeMap<Tag, Digest> = tags.iter().map(|(t, d)| (Tag::new(t).unwrap(), digest(d))).collect();
        let manifests = manifests.iter().map(|d| digest(d)).chain(tags.values().cloned()).collect();
        Members { tags, manifests }
    }

    fn generation(number: u64, state: State, of: Members) -> Generation {
        let name = Repository::new("app").unwrap();
        Generation { number, state, ..Generation::begun("x".into(), "then".into(), 0, [(name, of)].into()) }
    }

    fn nothing(_: &Repository, _: &Members) -> Result<Members, Error> {
        Ok(Members::default())
    }

    #[test]
    fn what_a_kept_generation_has_stays() {
        let name = Repository::new("app").unwrap();
        let all = [
            generation(1, State::Complete, members(&[("v1", "a"), ("old", "b"), ("moved", "c")], &["child"])),
            generation(2, State::Complete, members(&[("v1", "a"), ("moved", "d")], &[])),
            generation(3, State::Unfinished, members(&[("soon", "b")], &[])),
        ];
        assert_eq!(
            outdated(&all, 2),
            Outdated { heir: Some(1), ..Outdated::default() },
            "two are complete, the third goes on"
        );
        let one = outdated(&all, 1);
        assert_eq!((&one.numbers[..], one.heir), (&[1][..], Some(2)));
        // The manifest `b` stays for the third, its old tag goes.
        let expected = Members {
            tags: members(&[("old", "b"), ("moved", "c")], &[]).tags,
            manifests: members(&[], &["c", "child"]).manifests,
        };
        assert_eq!(one.repositories, [(name.clone(), expected)].into());
        let none = outdated(&all, 0);
        assert_eq!(none.numbers, [1, 2]);
        assert!(!none.repositories[&name].manifests.contains(&Digest::of(b"b")));
        assert_eq!(outdated(&all[2..], 1), Outdated::default());
        // What failed for the most part is kept, and does not make the complete one before it old.
        let failed = generation(4, State::Partial, members(&[("v1", "a")], &[]));
        let after: Vec<Generation> = all[..2].iter().cloned().chain([failed]).collect();
        assert_eq!((&outdated(&after, 1).numbers[..], outdated(&after, 1).heir), (&[1][..], Some(2)));
        assert!(outdated(&after[1..], 1).numbers.is_empty());
    }

    #[test]
    fn records_are_numbered_and_superseded_by_the_same_import() {
        let root = tempfile::tempdir().unwrap();
        let generations = Generations::at(root.path().join("generations"));
        let first = generation(0, State::Unfinished, members(&[("v1", "a")], &[]));
        assert_eq!(generations.write(&first, &nothing).unwrap(), 1);
        let again = generation(0, State::Unfinished, members(&[("v1", "a"), ("v2", "b")], &[]));
        assert_eq!(generations.write(&again, &nothing).unwrap(), 2);
        assert_eq!(generations.read().unwrap().len(), 1, "the second attempt has all of the first");
        let other = generation(0, State::Unfinished, members(&[("v3", "c")], &[]));
        assert_eq!(generations.write(&other, &nothing).unwrap(), 3);
        assert_eq!(generations.read().unwrap().len(), 2, "what an attempt may have brought is not forgotten");
        let ended = Generation { state: State::Complete, number: 2, ..again };
        assert_eq!(generations.write(&ended, &nothing).unwrap(), 2);
        assert_eq!(generations.read().unwrap()[0], ended);
        generations.forget(&[2, 9]).unwrap();
        assert_eq!(generations.read().unwrap().len(), 1);
        std::fs::write(root.path().join("generations/000009.json"), "{").unwrap();
        assert_eq!(generations.read().unwrap_err().kind(), ErrorKind::Damaged);
    }

    #[test]
    fn a_push_that_was_under_way_when_a_generation_was_recorded_is_noted() {
        let root = tempfile::tempdir().unwrap();
        let (name, generations) = (Repository::new("app").unwrap(), Generations::at(root.path().join("generations")));
        let of = members(&[("v1", "a")], &["b"]);
        // At the first look its manifest has no name yet.
        let late = |_: &Repository, _: &Members, is_still: bool| {
            Ok(if is_still { members(&[], &["b"]) } else { Members::default() })
        };
        assert_eq!(generations.record(&generation(0, State::Unfinished, of.clone()), &late).unwrap(), 1);
        assert_eq!(generations.pushed_of(&name, &of).unwrap(), members(&[], &["b"]));
        // What this generation brings is not taken for a push when it has ended.
        let all = |_: &Repository, of: &Members, _: bool| Ok(of.clone());
        generations.record(&generation(1, State::Complete, of.clone()), &all).unwrap();
        assert_eq!(generations.pushed_of(&name, &of).unwrap(), members(&[], &["b"]));
    }

    #[test]
    fn what_was_pushed_is_noted_once_and_a_cut_line_is_none() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("generations");
        let (name, tag) = (Repository::new("app").unwrap(), Tag::new("v1").unwrap());
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let generations = Generations::at(folder.clone());
        generations.pushed(&name, &[&a], &[]).unwrap();
        assert!(!folder.exists(), "without generations nothing is noted");
        let of = members(&[("v1", "a")], &["b"]);
        // `b` was there before any generation had it.
        let there = |_: &Repository, _: &Members| Ok(members(&[], &["b"]));
        generations.write(&generation(0, State::Complete, of.clone()), &there).unwrap();
        assert_eq!(generations.pushed_of(&name, &of).unwrap(), members(&[], &["b"]));
        generations.write(&generation(0, State::Complete, of.clone()), &|_, of| Ok(of.clone())).unwrap();
        assert_eq!(generations.pushed_of(&name, &of).unwrap(), members(&[], &["b"]), "the rest is the first one's");
        for _ in 0..2 {
            generations.pushed(&name, &[&a, &Digest::of(b"other")], std::slice::from_ref(&tag)).unwrap();
        }
        let path = folder.join("pushed");
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().filter(|line| !line.is_empty()).count(), 3, "{text}");
        std::fs::write(&path, format!("{}\napp@{b}", tag_line(&name, &tag, &a))).unwrap();
        let again = Generations::at(folder);
        assert_eq!(again.pushed_of(&name, &of).unwrap().manifests, BTreeSet::new());
        assert_eq!(again.pushed_of(&name, &of).unwrap().tags.len(), 1);
        again.pushed(&name, &[&b], &[]).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().ends_with(&format!("app@{b}\napp@{b}\n")));
    }
}
