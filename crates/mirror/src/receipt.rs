//! Receipts: these very files have been read to the last byte and found whole, so that the next load or a `serve` need not read them again.
//!
//! Kept in the user's state folder, since the medium with the archive may be read-only. A receipt holds as long as
//! identity, sizes and times of modification are the same.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use airlock_store::archive::Archive;
use serde::{Deserialize, Serialize};

#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Receipt {
    identity: String,
    /// Path, size, nanoseconds of the last modification.
    parts: Vec<(String, u64, u128)>,
}

fn of(archive: &Archive) -> Option<Receipt> {
    let mut parts = Vec::new();
    for part in archive.parts() {
        let metadata = std::fs::metadata(&part.path).ok()?;
        let modified = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
        parts.push((std::path::absolute(&part.path).ok()?.display().to_string(), metadata.len(), modified));
    }
    Some(Receipt { identity: archive.identity().to_string(), parts })
}

fn path(state: &Path, archive: &Archive) -> std::path::PathBuf {
    state.join("receipts").join(format!("{}.json", archive.identity().hex()))
}

/// Whether the archive's files are the ones that were read before.
pub fn holds(state: &Path, archive: &Archive) -> bool {
    let kept: Option<Receipt> =
        std::fs::read(path(state, archive)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    kept.is_some() && kept == of(archive)
}

/// When the archive's files, as they are now, were read and found whole; `None`: not since they were put here.
pub fn when(state: &Path, archive: &Archive) -> Option<SystemTime> {
    let written = std::fs::metadata(path(state, archive)).and_then(|m| m.modified()).ok()?;
    holds(state, archive).then_some(written)
}

/// Notes that the archive was read and is whole. A receipt that cannot be written only costs reading again.
pub fn leave(state: &Path, archive: &Archive) {
    if let Some(receipt) = of(archive) {
        let bytes = serde_json::to_vec(&receipt).unwrap_or_default();
        if let Err(error) = crate::workspace::write_file(&path(state, archive), &bytes) {
            tracing::debug!("no receipt: {error}");
        }
    }
}
