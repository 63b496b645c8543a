//! What earlier runs left in the directory, and how a run begins on it.
//!
//! ```text
//! journal of this layout           go on (after undoing what a crash left of a renaming)
//! journal of another, or parts     set aside into .airlock-previous; complete blobs are taken from there
//!   without one
//! sealed, partial, this layout     turned back into one that is being written; its voids are filled
//! journal that says `sealed`       only names are left to change
//! ```

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::path::Path;

use airlock_oci::{Digest, Error, ErrorKind};

use super::journal::{JOURNAL_NAME, Journal, Recorded};
use super::layout::{Kind, Layout, part_name, partial_name};
use super::reader::{Archive, complete_blobs, part_number, set_of_part};
use super::volume::Volume;
use crate::disk;
use crate::storage::Region;

/// Where an interrupted archive of another plan is kept until the new one is sealed.
pub(super) const PREVIOUS_DIRECTORY: &str = ".airlock-previous";
const LOCK_NAME: &str = ".airlock-lock";

/// What an interrupted run left.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Digest of the plan it was about.
    pub plan: Digest,
    /// Number it gave its archive.
    pub sequence: u32,
    /// Date it gave its archive.
    pub created: String,
}

/// Tells what an interrupted run in this directory was about, after finishing one that had only names left to change. Another
/// run in the directory is an error ([`ErrorKind::Locked`]).
pub fn pending(volume: &dyn Volume) -> Result<Option<Pending>, Error> {
    let _guard = lock_directory(volume)?;
    finish_interrupted_seal(volume)?;
    let recorded = Recorded::read(volume.path())
        .map_err(|e| Error::io(format!("read the journal in {}", volume.path().display()), &e))?;
    Ok(recorded.and_then(|recorded| {
        let (sequence, created) = recorded.created?;
        Some(Pending { plan: recorded.plan?, sequence, created })
    }))
}

/// Gives the parts of an archive that was sealed just before a crash their names.
pub(super) fn finish_interrupted_seal(volume: &dyn Volume) -> Result<(), Error> {
    let fail = |e: &io::Error| Error::io(format!("finish the archive in {}", volume.path().display()), e);
    let recorded = Recorded::read(volume.path()).map_err(|e| fail(&e))?;
    if recorded.is_some_and(|r| r.sealed) {
        finish_names(volume).map_err(|e| fail(&e))?;
    }
    Ok(())
}

/// Gives sealed parts their names and removes what the archive replaces. Safe to repeat.
pub(super) fn finish_names(volume: &dyn Volume) -> io::Result<()> {
    for name in volume.names()?.iter().filter(|n| is_partial(n)) {
        volume.rename(name, &name[1..name.len() - ".partial".len()])?;
    }
    // The new archive's first part tells how many it has; whatever has a higher number belongs to the one before.
    if let Some((_, parts)) = set_of_part(&volume.path().join(part_name(0))) {
        for name in volume.names()?.iter().filter(|n| part_number(n).is_some_and(|number| number > parts)) {
            volume.remove(name)?;
        }
    }
    let _ = std::fs::remove_dir_all(volume.path().join(PREVIOUS_DIRECTORY));
    volume.sync()?;
    volume.remove(JOURNAL_NAME)
}

fn is_partial(name: &str) -> bool {
    name.strip_prefix('.').and_then(|n| n.strip_suffix(".partial")).is_some_and(|n| part_number(n).is_some())
}

/// Takes the directory for one run.
pub(super) fn lock_directory(volume: &dyn Volume) -> Result<File, Error> {
    let path = volume.path().join(LOCK_NAME);
    let what = || format!("lock {}", volume.path().display());
    let file = File::create(&path).map_err(|e| Error::io(what(), &e))?;
    match disk::lock(&file) {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Error::new(ErrorKind::Locked, what(), "another run of airlock is writing into this directory")
                .hint("wait until it has ended, or write to another directory"))
        }
        // A file system without locks (some network mounts): go on without.
        Err(std::fs::TryLockError::Error(_)) => Ok(file),
    }
}

/// Brings the directory into a state that a run with this layout can begin on. Returns the journal it goes on with, if any, and blobs that
/// lie in what was set aside.
pub(super) fn prepare(
    volume: &dyn Volume,
    layout: &Layout,
    plan: &Digest,
) -> Result<(Option<Recorded>, HashMap<Digest, Region>), Error> {
    let fail = |doing: &str, e: &io::Error| Error::io(format!("{doing} in {}", volume.path().display()), e);
    finish_interrupted_seal(volume)?;
    let mut recorded = Recorded::read(volume.path()).map_err(|e| fail("read the journal", &e))?;
    if recorded.as_ref().is_some_and(|r| r.set.as_ref() == Some(&layout.set) && r.created.is_some()) {
        undo_renames(volume, layout).map_err(|e| fail("go on with the interrupted archive", &e))?;
    } else {
        let parts = volume.names().map_err(|e| fail("list", &e))?.iter().any(|n| is_partial(n));
        if recorded.take().is_some() || parts {
            set_aside(volume).map_err(|e| fail("set aside an older run", &e))?;
        }
        recorded = demote_partial(volume, layout, plan)?;
    }
    // Complete blobs of another plan are looked for whenever they are there: the run that set them aside may have been killed too.
    let aside = volume.path().join(PREVIOUS_DIRECTORY);
    let salvage =
        if aside.join(JOURNAL_NAME).exists() { complete_blobs(&aside).unwrap_or_default() } else { HashMap::new() };
    Ok((recorded, salvage))
}

/// A crash while a partial archive was being reopened leaves some parts under their final names.
fn undo_renames(volume: &dyn Volume, layout: &Layout) -> io::Result<()> {
    let names: HashSet<String> = volume.names()?.into_iter().collect();
    for part in 0..layout.lengths.len() {
        let (sealed, partial) = (part_name(part), partial_name(part));
        let ours = || set_of_part(&volume.path().join(&sealed)).is_some_and(|(set, _)| set == layout.set);
        if !names.contains(&partial) && names.contains(&sealed) && ours() {
            volume.rename(&sealed, &partial)?;
        }
    }
    Ok(())
}

/// Moves an interrupted archive of another plan out of the way. The journal moves last: it tells that the rest has moved. Where
/// something was set aside before, the one with more complete bytes is kept.
fn set_aside(volume: &dyn Volume) -> io::Result<()> {
    let aside = volume.path().join(PREVIOUS_DIRECTORY);
    let bytes = |directory: &Path| -> u64 {
        complete_blobs(directory).map_or(0, |blobs| blobs.values().map(|region| region.len).sum())
    };
    let partials: Vec<String> = volume.names()?.into_iter().filter(|n| is_partial(n)).collect();
    if aside.join(JOURNAL_NAME).exists() {
        if bytes(&aside) >= bytes(volume.path()) {
            for name in &partials {
                volume.remove(name)?;
            }
            return volume.remove(JOURNAL_NAME);
        }
        std::fs::remove_dir_all(&aside)?;
    }
    std::fs::create_dir_all(&aside)?;
    for name in &partials {
        std::fs::rename(volume.path().join(name), aside.join(name))?;
    }
    match std::fs::rename(volume.path().join(JOURNAL_NAME), aside.join(JOURNAL_NAME)) {
        // Parts without a journal: an empty one says that they have moved.
        Err(e) if e.kind() == io::ErrorKind::NotFound => File::create(aside.join(JOURNAL_NAME)).map(drop),
        other => other,
    }
}

/// If the directory holds a sealed but partial archive of exactly this layout, turns it back into one that is being written.
fn demote_partial(volume: &dyn Volume, layout: &Layout, plan: &Digest) -> Result<Option<Recorded>, Error> {
    let Ok(archive) = Archive::open(volume.path()) else { return Ok(None) };
    if archive.set() != &layout.set || archive.voids().is_empty() {
        return Ok(None);
    }
    let voids: HashSet<usize> = archive.voids().iter().copied().collect();
    let chunks =
        archive.seal().parts.iter().enumerate().flat_map(|(part, sealed)| {
            sealed.chunks.iter().enumerate().map(move |(chunk, digest)| (part, chunk, *digest))
        });
    let recorded = Recorded {
        plan: Some(plan.clone()),
        set: Some(layout.set.clone()),
        created: Some((layout.sequence, layout.created.clone())),
        done: (0..layout.slots.len())
            .filter(|n| !voids.contains(n) && matches!(layout.slots[*n].kind, Kind::Blob(_)))
            .collect(),
        // Those over voids are dropped with all others whose entries are not all done.
        chunks: chunks.collect(),
        ..Recorded::default()
    };
    drop(archive);
    let failed = |e: io::Error| Error::io(format!("open the partial archive in {}", volume.path().display()), &e);
    // The journal comes first: a crash between the renames is undone by the next run.
    drop(Journal::go_on(volume.path(), &recorded).map_err(failed)?);
    for part in 0..layout.lengths.len() {
        volume.rename(&part_name(part), &partial_name(part)).map_err(failed)?;
    }
    volume.sync().map_err(failed)?;
    Ok(Some(recorded))
}

/// Removes parts that no layout of this run has, before it creates its own.
pub(super) fn remove_partials_from(volume: &dyn Volume, first: usize) -> io::Result<()> {
    for name in volume.names()?.iter().filter(|n| is_partial(n)) {
        let number = part_number(&name[1..name.len() - ".partial".len()]);
        if number.is_some_and(|n| n as usize > first) {
            volume.remove(name)?;
        }
    }
    Ok(())
}
