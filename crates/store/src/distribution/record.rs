//! What the last scrub found, kept beside the storage for whoever asks later.
//!
//! The record is a courtesy: where it cannot be written or read, nothing is lost but the answer to "when was this last verified?".

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::damage::{Damage, Scrubbed};
use super::paths::Paths;
use crate::disk;
use crate::storage::Verified;

/// Damaged files that are recorded at most; who has more looks at what the scrub printed.
const MAX_DAMAGE: usize = 1000;
/// The largest record that is read (bytes): a thousand files with twenty images each, and some air.
pub(crate) const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Record {
    /// Seconds since 1970.
    at: u64,
    files: u64,
    bytes: u64,
    damage: Vec<Damage>,
}

impl Record {
    fn of(scrubbed: &Scrubbed) -> Self {
        let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let damage = scrubbed.damage.iter().take(MAX_DAMAGE).cloned().collect();
        Self { at, files: scrubbed.files, bytes: scrubbed.bytes, damage }
    }

    fn verified(self) -> Option<Verified> {
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(self.at))?;
        Some(Verified { at, files: self.files, bytes: self.bytes, damage: self.damage })
    }
}

/// The record of what a scrub found, now.
pub(crate) fn recorded(scrubbed: &Scrubbed) -> Option<Vec<u8>> {
    serde_json::to_vec(&Record::of(scrubbed)).ok()
}

/// The record after a repair has left only this; when everything was last read stays as it was.
pub(crate) fn recorded_repair(record: &[u8], left: &[Damage]) -> Option<Vec<u8>> {
    let mut record: Record = serde_json::from_slice(record).ok()?;
    record.damage = left.iter().take(MAX_DAMAGE).cloned().collect();
    serde_json::to_vec(&record).ok()
}

/// What a record says.
pub(crate) fn verified(record: &[u8]) -> Option<Verified> {
    serde_json::from_slice::<Record>(record).ok()?.verified()
}

/// Notes what a scrub found, now.
pub(super) fn write(paths: &Paths, scrubbed: &Scrubbed) {
    store(paths, recorded(scrubbed));
}

/// Notes what a repair left.
pub(super) fn repaired(paths: &Paths, left: &[Damage]) {
    if let Some(record) = load(paths) {
        store(paths, recorded_repair(&record, left));
    }
}

/// The record, if there is one.
pub(super) fn read(paths: &Paths) -> Option<Verified> {
    verified(&load(paths)?)
}

fn load(paths: &Paths) -> Option<Vec<u8>> {
    disk::read_small(&paths.scrubbed(), MAX_RECORD_BYTES).ok()?
}

fn store(paths: &Paths, record: Option<Vec<u8>>) {
    let Some(record) = record else { return };
    let path = paths.scrubbed();
    let beside = path.with_extension("json.new");
    if let Err(e) = fs::write(&beside, record).and_then(|()| fs::rename(&beside, &path)) {
        tracing::warn!(error = %e, "what the scrub found cannot be noted for the registry's page");
    }
}

#[cfg(test)]
mod tests {
    use airlock_oci::Digest;

    use super::super::damage::Fault;
    use super::*;

    #[test]
    fn a_record_comes_back_and_a_repair_takes_damage_away() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        fs::create_dir_all(paths.own()).unwrap();
        assert_eq!(read(&paths), None);
        let damage = |n: usize| Damage {
            digest: Digest::of(&n.to_le_bytes()),
            fault: Fault::Missing,
            images: Vec::new(),
            affected: 1,
        };
        let scrubbed = Scrubbed { files: 3, bytes: 7, manifests: 1, damage: (0..MAX_DAMAGE + 5).map(damage).collect() };
        write(&paths, &scrubbed);
        let found = read(&paths).unwrap();
        assert_eq!((found.files, found.bytes, found.damage.len()), (3, 7, MAX_DAMAGE));
        assert!(found.at.elapsed().unwrap() < Duration::from_secs(60));
        repaired(&paths, &[]);
        assert_eq!(read(&paths), Some(Verified { damage: Vec::new(), ..found }));
        fs::write(paths.scrubbed(), "{").unwrap();
        assert_eq!(read(&paths), None);
    }
}
