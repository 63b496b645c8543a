//! Which archive carried which blob, so that the next one carries only what is new.
//!
//! One file an archive in `working-dir/.history/`. A lost or damaged history means a full archive, never a wrong one.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use airlock_oci::{Digest, Error, Repository};
use airlock_store::archive::{Absent, Item};
use serde::{Deserialize, Serialize};

/// What one archive carried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Carried {
    /// Its number.
    pub sequence: u32,
    /// Its date (RFC 3339).
    pub created: String,
    /// Its identity.
    pub identity: Digest,
    /// Its blobs, each with its size and a repository that offers it.
    pub blobs: BTreeMap<Digest, (u64, Repository)>,
}

/// All archives that were written into one directory, oldest first.
#[derive(Clone, Debug, Default)]
pub struct History {
    folder: PathBuf,
    archives: Vec<Carried>,
}

impl History {
    /// Reads the history of a workspace. Files that do not parse are passed over: their blobs are carried again.
    pub fn read(workspace: &Path) -> Self {
        let folder = workspace.join(".history");
        let mut archives: Vec<Carried> = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|e| e.file_name().to_string_lossy().starts_with("airlock-"))
            .filter_map(|e| serde_json::from_slice(&std::fs::read(e.path()).ok()?).ok())
            .collect();
        archives.sort_by_key(|a| a.sequence);
        Self { folder, archives }
    }

    /// The number of the next archive.
    pub fn next_sequence(&self) -> u32 {
        self.archives.last().map_or(1, |a| a.sequence + 1)
    }

    /// The archive before number `sequence`.
    pub fn previous(&self, sequence: u32) -> Option<&Carried> {
        self.archives.iter().rev().find(|a| a.sequence < sequence)
    }

    /// Blobs that archives before number `sequence` carried, and, with a date, before the beginning of that day
    /// (`--since`: only what was sent before counts as sent). Each is named with the newest archive that has it.
    pub fn carried(&self, sequence: u32, since: Option<&str>) -> HashMap<Digest, Absent> {
        let mut all = HashMap::new();
        for archive in &self.archives {
            if archive.sequence >= sequence || since.is_some_and(|date| archive.created.as_str() >= date) {
                continue;
            }
            for (digest, (size, repository)) in &archive.blobs {
                all.insert(
                    digest.clone(),
                    Absent {
                        item: Item { digest: digest.clone(), size: *size },
                        identity: archive.identity.clone(),
                        sequence: archive.sequence,
                        created: archive.created.clone(),
                        repository: repository.clone(),
                    },
                );
            }
        }
        all
    }

    /// Adds an archive, in place of one with the same number.
    pub fn add(&mut self, carried: Carried) -> Result<(), Error> {
        let path = self.folder.join(format!("airlock-{:06}.json", carried.sequence));
        let bytes = serde_json::to_vec(&carried).unwrap_or_default();
        crate::workspace::write_file(&path, &bytes)?;
        self.archives.retain(|a| a.sequence != carried.sequence);
        self.archives.push(carried);
        self.archives.sort_by_key(|a| a.sequence);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_counts_only_what_was_sent_before_and_damage_means_full() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = History::read(folder.path());
        let blob = Digest::of(b"blob");
        let carried = Carried {
            sequence: history.next_sequence(),
            created: "2026-11-21T06:00:00Z".into(),
            identity: Digest::of(b"archive"),
            blobs: [(blob.clone(), (4, Repository::new("a/b").unwrap()))].into(),
        };
        history.add(carried).unwrap();
        let history = History::read(folder.path());
        assert_eq!(history.next_sequence(), 2);
        assert!(history.carried(2, None).contains_key(&blob));
        assert!(history.carried(2, Some("2027-01-01")).contains_key(&blob));
        assert!(history.carried(2, Some("2026-11-21")).is_empty(), "the same day does not count as before");
        assert!(history.carried(1, None).is_empty(), "an archive that is written again does not count itself");
        std::fs::write(folder.path().join(".history/airlock-000001.json"), "{").unwrap();
        assert!(History::read(folder.path()).carried(9, None).is_empty());
    }
}
