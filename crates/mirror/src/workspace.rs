//! The state of a mirror on disk: `working-dir/` as oc-mirror lays it out (oc-mirror 3.6).
//!
//! ```text
//! working-dir/
//!   cluster-resources/   what the cluster is told: IDMS, ITMS, …
//!   dry-run/             mapping.txt, missing.txt
//!   logs/                logs and error lists, one file a run
//!   .history/            which archive carried what
//!   hold-release/        answers of update services
//!   signatures/          signatures of releases
//!   install-config.yaml  mirrors for the installation of a new cluster
//!   isc_pinned_*.yaml    the configuration with catalogs by digest, and the same for deleting: disc_pinned_*.yaml
//!   operatorhub-patch.json  switches the default catalog sources off
//!   report.json          the last run that wrote an archive or went from registry to registry
//!   load-report.json     the last run that loaded an archive
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};

use airlock_oci::Error;

use crate::plan::Documents;
use crate::plan::origins::GRAPHS;

/// The folder's name beside the archives.
pub const WORKING_DIR: &str = "working-dir";

/// A workspace.
#[derive(Clone, Debug)]
pub struct Workspace {
    path: PathBuf,
}

impl Workspace {
    /// The workspace of a directory: `DIR/working-dir`, or `DIR` itself where that is its name (oc-mirror 3.1).
    pub fn of(directory: &Path) -> Self {
        let own = directory.file_name().is_some_and(|n| n == WORKING_DIR);
        Self { path: if own { directory.to_owned() } else { directory.join(WORKING_DIR) } }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Finds out whether it can be written to, before anything is moved whose report would have no place.
    pub fn prepare(&self) -> Result<(), Error> {
        let probe = format!(".writable-{}", std::process::id());
        let written = self.write(&probe, b"").map_err(|e| {
            e.context(format!("use the workspace {}", self.path.display()))
                .hint("reports and cluster resources need a place: give a folder that can be written to with --workspace file://DIR")
        })?;
        std::fs::remove_file(&written).map_err(|e| Error::io(format!("remove {}", written.display()), &e))
    }

    /// Writes a file of it whole, or not at all.
    pub fn write(&self, relative: &str, bytes: &[u8]) -> Result<PathBuf, Error> {
        let path = self.path.join(relative);
        write_file(&path, bytes)?;
        Ok(path)
    }

    /// Keeps update graphs and signatures where oc-mirror does (oc-mirror 3.6).
    pub fn keep(&self, documents: &Documents) -> Result<(), Error> {
        for (name, bytes) in documents {
            let path = match name.strip_prefix(GRAPHS) {
                Some(graph) => format!("hold-release/cincinnati-graph-data/{graph}"),
                None => name.clone(),
            };
            self.write(&path, bytes)?;
        }
        Ok(())
    }

    /// Empties a folder of it.
    pub fn clear(&self, relative: &str) -> Result<(), Error> {
        let path = self.path.join(relative);
        match std::fs::remove_dir_all(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("empty {}", path.display()), &e));
            }
            _ => {}
        }
        std::fs::create_dir_all(&path).map_err(|e| Error::io(format!("make {}", path.display()), &e))
    }
}

/// Writes beside, syncs, renames.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |e: &std::io::Error| Error::io(format!("write {}", path.display()), e);
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = folder.join(format!(".{name}.{}", std::process::id()));
    let write = || {
        let mut file = std::fs::File::create(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(|e| {
        let _ = std::fs::remove_file(&beside);
        failed(&e)
    })
}
