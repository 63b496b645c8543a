//! Reading a catalog: out of an image's layers as they stream by, or out of a directory.
//!
//! Which directory is said by the image's label; the files are those that `opm` reads: every one below it, whatever its name, but for what
//! `.indexignore` leaves out. A catalog in a SQLite database is made into the same documents that `opm migrate` would write.

mod build;
mod document;
mod ignore;
mod split;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::io::Read;
use std::path::Path;

use airlock_oci::{Error, ErrorKind, Found, Manifest, Reference, Source};

use super::model::{Catalog, Form, Origin};
use crate::image;
use crate::layers::{self, File, Image, Limits, Visitor, Wanted};
use build::Builder;
pub use split::MAX_DOCUMENT_BYTES;

/// The label that names the directory of a file-based catalog.
pub const CONFIGS_LABEL: &str = "operators.operatorframework.io.index.configs.v1";
/// The label that names the database of an older catalog.
pub const DATABASE_LABEL: &str = "operators.operatorframework.io.index.database.v1";
/// The largest database that is read (bytes): Red Hat's had some hundred megabytes.
#[cfg(feature = "sqlite")]
const MAX_DATABASE_BYTES: u64 = 4 << 30;
/// Bytes of it that are copied at a time.
#[cfg(feature = "sqlite")]
const COPY_BYTES: usize = 256 * 1024;
/// Most directories below one another in a catalog on disk.
const MAX_DEPTH: usize = 32;

/// Reads the catalog that `name` stands for. Of an index the image for linux/amd64 is read, or else the first: catalogs are the same for every
/// platform. What is not kept in memory goes into a file in `folder`, which is gone when the catalog is.
pub async fn read(source: &dyn Source, name: &Reference, folder: &Path) -> Result<Catalog, Error> {
    let what = || format!("read the catalog `{name}`");
    let found = source.manifest(name).await?;
    let manifest = readable(source, name, &found).await?;
    let config = image::config(source, name, &manifest, Some(&found.place)).await?;
    let digest = Some(found.value.digest().clone());
    let image = Image { source, name, manifest: &manifest, near: Some(&found.place) };
    if let Some(label) = config.labels.get(CONFIGS_LABEL) {
        let path = inside(label).ok_or_else(|| {
            let cause = format!("its label {CONFIGS_LABEL} is `{label}`, which is no directory inside it");
            Error::new(ErrorKind::Content, what(), cause)
        })?;
        let origin = Origin { digest, path: path.clone(), form: Form::Files };
        let wanted = Wanted::new().tree(&path)?;
        let visitor = Files { prefix: path, builder: Builder::new(folder)? };
        let visitor = layers::files(image, &wanted, Limits::default(), visitor).await.map_err(|e| e.context(what()))?;
        return visitor.builder.finish(origin).map_err(|e| e.context(what()));
    }
    if let Some(label) = config.labels.get(DATABASE_LABEL) {
        let path = inside(label).ok_or_else(|| {
            let cause = format!("its label {DATABASE_LABEL} is `{label}`, which is no file inside it");
            Error::new(ErrorKind::Content, what(), cause)
        })?;
        let origin = Origin { digest, path, form: Form::Sqlite };
        return database(image, origin, folder).await.map_err(|e| e.context(what()));
    }
    let cause = format!("it has no label {CONFIGS_LABEL}: it is no catalog of operators");
    Err(Error::new(ErrorKind::Content, what(), cause)
        .hint("`catalog` names an index image such as registry.redhat.io/redhat/redhat-operator-index:v4.18"))
}

#[cfg(not(feature = "sqlite"))]
async fn database(_image: Image<'_>, origin: Origin, _folder: &Path) -> Result<Catalog, Error> {
    let cause = format!("it is a SQLite database (`{}`), which this build cannot read", origin.path);
    Err(Error::new(ErrorKind::Unsupported, "read a catalog", cause).hint("take a build with the feature `sqlite`"))
}

/// Copies the database out of the image, and reads it.
#[cfg(feature = "sqlite")]
async fn database(image: Image<'_>, origin: Origin, folder: &Path) -> Result<Catalog, Error> {
    let copy = Copy { path: super::spool::new_path(folder)?, found: false };
    let wanted = Wanted::new().file(&origin.path)?;
    let limits = Limits { file: MAX_DATABASE_BYTES, ..Limits::default() };
    let copy = layers::files(image, &wanted, limits, copy).await?;
    if !copy.found {
        let cause = format!("its label {DATABASE_LABEL} names `{}`, which it does not have", origin.path);
        return Err(Error::new(ErrorKind::Content, "read a catalog", cause));
    }
    let folder = folder.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut builder = Builder::new(&folder)?;
        sqlite::read(&copy.path, &mut builder)?;
        builder.finish(origin)
    });
    match reading.await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(Error::new(ErrorKind::Interrupted, "read a catalog", "the program is stopping")),
    }
}

/// Reads a catalog from a SQLite database on disk. Blocks.
#[cfg(feature = "sqlite")]
pub fn read_database(database: &Path, folder: &Path) -> Result<Catalog, Error> {
    let mut builder = Builder::new(folder)?;
    sqlite::read(database, &mut builder)?;
    builder.finish(Origin { digest: None, path: database.display().to_string(), form: Form::Sqlite })
}

/// The database on disk, as long as it is read: SQLite opens it by its name.
#[cfg(feature = "sqlite")]
struct Copy {
    path: std::path::PathBuf,
    found: bool,
}

#[cfg(feature = "sqlite")]
impl Drop for Copy {
    fn drop(&mut self) {
        // It may never have been made; and a file that stays is only a file too many.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(feature = "sqlite")]
impl Visitor for Copy {
    fn file(&mut self, _file: &File<'_>, content: &mut dyn Read) -> Result<(), Error> {
        let what = || format!("write `{}`", self.path.display());
        let mut copy = std::fs::File::create_new(&self.path).map_err(|e| Error::io(what(), &e))?;
        let mut piece = vec![0; COPY_BYTES];
        loop {
            let read = content.read(&mut piece).map_err(|e| layers::broken(e, "read the catalog's database"))?;
            if read == 0 {
                break;
            }
            std::io::Write::write_all(&mut copy, &piece[..read]).map_err(|e| Error::io(what(), &e))?;
        }
        self.found = true;
        Ok(())
    }
}

/// The image for linux/amd64, or the first that is there: an index may be sparse, and catalogs are the same for every platform.
async fn readable(source: &dyn Source, name: &Reference, found: &Found<Manifest>) -> Result<Manifest, Error> {
    let refused = match image::instance(source, name, found, None).await {
        Err(error) if error.kind() == ErrorKind::NotFound => error,
        usual => return usual,
    };
    for (_, child) in image::platforms(&found.value) {
        match source.manifest(&name.with_digest(child.digest.clone())).await {
            Ok(manifest) => return Ok(manifest.value),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Err(refused)
}

/// Reads a catalog from a directory on disk. Blocks.
pub fn read_directory(directory: &Path, folder: &Path) -> Result<Catalog, Error> {
    let mut builder = Builder::new(folder)?;
    walk(directory, "", 0, &mut builder)?;
    let path = directory.display().to_string();
    builder
        .finish(Origin { digest: None, path: path.clone(), form: Form::Files })
        .map_err(|e| e.context(format!("read the catalog `{path}`")))
}

fn walk(directory: &Path, prefix: &str, depth: usize, builder: &mut Builder) -> Result<(), Error> {
    let what = || format!("read `{}`", directory.display());
    if depth > MAX_DEPTH {
        let cause = format!("there are more than {MAX_DEPTH} directories below one another");
        return Err(Error::new(ErrorKind::Unsupported, what(), cause));
    }
    let listed = std::fs::read_dir(directory).map_err(|e| Error::io(what(), &e))?;
    let mut entries = listed.collect::<Result<Vec<_>, _>>().map_err(|e| Error::io(what(), &e))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let what = || format!("read `{}`", path.display());
        let name = entry
            .file_name()
            .into_string()
            .map_err(|_| Error::new(ErrorKind::Unsupported, what(), "its name is not UTF-8"))?;
        let inner = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let kind = entry.file_type().map_err(|e| Error::io(what(), &e))?;
        if kind.is_dir() {
            walk(&path, &inner, depth + 1, builder)?;
        } else if path.is_file() {
            let mut file = std::fs::File::open(&path).map_err(|e| Error::io(what(), &e))?;
            builder.file(&inner, &mut file)?;
        }
    }
    Ok(())
}

/// A path inside an image, as a label names it.
fn inside(label: &str) -> Option<String> {
    layers::tree::normal_path(label.as_bytes()).filter(|path| !path.is_empty())
}

struct Files {
    prefix: String,
    builder: Builder,
}

impl Visitor for Files {
    fn file(&mut self, file: &File<'_>, content: &mut dyn Read) -> Result<(), Error> {
        let path = file.path.strip_prefix(&self.prefix).unwrap_or(file.path).trim_start_matches('/');
        self.builder.file(path, content)
    }
}
