//! The smaller catalog as an image, upon the catalog's own (oc-mirror.md 6.4).
//!
//! ```text
//! the catalog's image of each platform     stays as it is, is fetched from where it lies
//!   + .wh.configs                          the old catalog is gone
//!   + configs/PACKAGE/catalog.json, …      what was chosen                                      render
//!   + Cmd serve /configs                   without the cache of the old catalog, which OLM would find wrong
//! ```
//!
//! Two layers, because not every tool that reads catalogs out of images understands an opaque whiteout beside new files. Everything is sorted and without
//! times: the same catalog and the same choice give the same digest. The new layer lies in a file until it is written to the sink.

mod render;

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use airlock_oci::{BlobStream, Content, Error, ErrorKind};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::model::{Catalog, Form};
use super::read::{CONFIGS_LABEL, DATABASE_LABEL};
use super::select::Selection;
use super::spool::{Range, Spool, unnamed};
use crate::derived::{Base, Derived, Given, NewLayer, Recipe, Target, derive};
use crate::layers::writer::{Layer, Writer};
use render::{Document, Documents};

/// Where the smaller catalog has its files.
pub const DIRECTORY: &str = "configs";
/// Where it says so.
const LABELLED: &str = "/configs";
/// Every file was changed at the beginning of 1970, so that the same choice gives the same image.
const MODIFIED: u64 = 0;
/// Bytes that are read from the file of the new layer at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// What the image's history says.
const CREATED_BY: [&str; 2] = ["airlock: without the whole catalog", "airlock: what was chosen of the catalog"];

/// A layer in a file that has no name.
struct Stored {
    file: Arc<File>,
    size: u64,
}

#[async_trait]
impl Content for Stored {
    async fn open(&self, offset: u64) -> Result<BlobStream, Error> {
        let range = Range::from(&self.file, offset, self.size);
        Ok(Box::pin(futures_util::stream::unfold(Some(range), |range| async move {
            let mut range = range?;
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; PIECE_BYTES];
                let read = range.read(&mut piece);
                (range, piece, read)
            });
            let stopped = || Error::new(ErrorKind::Interrupted, "read the new layer", "the program is stopping");
            let Ok((range, mut piece, read)) = read.await else { return Some((Err(stopped()), None)) };
            match read {
                Ok(0) => None,
                Ok(read) => {
                    piece.truncate(read);
                    Some((Ok(Bytes::from(piece)), Some(range)))
                }
                Err(error) => Some((Err(Error::io("read the new layer", &error)), None)),
            }
        })))
    }
}

/// Builds the image of what is kept of a catalog, for every platform that `base` wants, and writes what is new to `target`. The new layer is made in a
/// file in `folder`. What comes is always an index.
pub async fn rebuild(
    catalog: &Catalog,
    selection: &Selection,
    base: Base<'_>,
    target: Target<'_>,
    folder: &Path,
) -> Result<Derived, Error> {
    let what = || format!("build the catalog `{}` with what was chosen of it", base.name);
    let documents = render::documents(catalog, selection).map_err(|e| e.context(what()))?;
    let spool = catalog.spool.clone();
    let file = unnamed(folder)?;
    let written = tokio::task::spawn_blocking(move || layer(&documents, &spool, file));
    let (file, added) = match written.await {
        Ok(result) => result.map_err(|e| e.context(what()))?,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => return Err(Error::new(ErrorKind::Interrupted, what(), "the program is stopping")),
    };
    let (gone_bytes, gone) = without(catalog)?;
    let stored = Stored { file: Arc::new(file), size: added.descriptor.size };
    let layers = [
        NewLayer {
            descriptor: &gone.descriptor,
            diff_id: &gone.diff_id,
            content: &Given(gone_bytes),
            created_by: CREATED_BY[0],
        },
        NewLayer {
            descriptor: &added.descriptor,
            diff_id: &added.diff_id,
            content: &stored,
            created_by: CREATED_BY[1],
        },
    ];
    let recipe = Recipe {
        what: "the smaller catalog",
        hint: "the catalog's image is not what a catalog's image is; ask its publisher",
        layers: &layers,
        index: true,
        run: &serves,
    };
    derive(&recipe, base, target).await
}

/// The files of the smaller catalog, each as a whole, for tests and for a look into it: path and content.
pub fn files(catalog: &Catalog, selection: &Selection) -> Result<Vec<(String, Vec<u8>)>, Error> {
    let documents = render::documents(catalog, selection)?;
    let whole = |file: &Documents| {
        let mut bytes = Vec::new();
        let mut reader = file.open(&catalog.spool);
        reader.read_to_end(&mut bytes).map_err(|e| Error::io(format!("read `{}`", file.path), &e))?;
        Ok((file.path.clone(), bytes))
    };
    documents.iter().map(whole).collect()
}

/// The old catalog's files disappear: whether they lie in `/configs` or elsewhere, and so does what else lies in `/configs`.
fn without(catalog: &Catalog) -> Result<(Bytes, Layer), Error> {
    let mut gone = vec![DIRECTORY.to_owned()];
    if catalog.origin.form == Form::Files {
        gone.push(catalog.origin.path.clone());
    }
    gone.sort();
    gone.dedup();
    let mut writer = Writer::new(Vec::new(), MODIFIED);
    for path in &gone {
        // What lies below something that is gone is gone with it.
        if gone.iter().any(|above| path.strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('/'))) {
            continue;
        }
        let whiteout = match path.rsplit_once('/') {
            Some((folder, name)) => format!("{folder}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        writer.file(&whiteout, 0, &mut std::io::empty())?;
    }
    let (bytes, layer) = writer.finish()?;
    Ok((bytes.into(), layer))
}

fn layer(documents: &[Documents], spool: &Spool, file: File) -> Result<(File, Layer), Error> {
    let mut writer = Writer::new(BufWriter::new(file), MODIFIED);
    writer.directory(DIRECTORY)?;
    let mut folder = "";
    for file in documents {
        if let Some((above, _)) = file.path.rsplit_once('/')
            && above != folder
        {
            writer.directory(&format!("{DIRECTORY}/{above}"))?;
            folder = above;
        }
        writer.file(&format!("{DIRECTORY}/{}", file.path), file.size(), &mut file.open(spool))?;
    }
    let (mut file, layer) = writer.finish()?;
    let failed = |e: &std::io::Error| Error::io("write the new layer", e);
    file.flush().map_err(|e| failed(&e))?;
    let file = file.into_inner().map_err(|e| failed(e.error()))?;
    Ok((file, layer))
}

/// What runs serves the new files; the label says where they are.
fn serves(run: &mut Map<String, Value>) {
    run.insert("Cmd".into(), json!(["serve", LABELLED]));
    let labels = run.entry("Labels").or_insert(Value::Null);
    if !labels.is_object() {
        *labels = json!({});
    }
    if let Some(labels) = labels.as_object_mut() {
        labels.remove(DATABASE_LABEL);
        labels.insert(CONFIGS_LABEL.into(), json!(LABELLED));
    }
}

impl Document {
    fn size(&self) -> u64 {
        match self {
            Self::Kept(blob) => u64::from(blob.len),
            Self::New(bytes) => bytes.len() as u64,
        }
    }
}

impl Documents {
    /// Each document and the line break after it.
    fn size(&self) -> u64 {
        self.documents.iter().map(|document| document.size() + 1).sum()
    }

    fn open<'a>(&'a self, spool: &'a Spool) -> Box<dyn Read + 'a> {
        let mut pieces = self.documents.iter();
        Box::new(Joined {
            next: Box::new(move || {
                let document = pieces.next()?;
                let whole: Box<dyn Read + 'a> = match document {
                    Document::Kept(blob) => Box::new(spool.open(*blob)),
                    Document::New(bytes) => Box::new(&bytes[..]),
                };
                Some(Box::new(whole.chain(&b"\n"[..])) as Box<dyn Read + 'a>)
            }),
            current: Box::new(std::io::empty()),
        })
    }
}

/// Readers one after another.
struct Joined<'a> {
    next: Box<dyn FnMut() -> Option<Box<dyn Read + 'a>> + 'a>,
    current: Box<dyn Read + 'a>,
}

impl Read for Joined<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let read = self.current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match (self.next)() {
                Some(next) => self.current = next,
                None => return Ok(0),
            }
        }
    }
}
