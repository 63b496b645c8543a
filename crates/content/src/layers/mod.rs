//! Files of an image, read out of its layers as they stream by: nothing is unpacked to disk, and no file is in memory unless the visitor puts
//! it there.
//!
//! ```text
//! source ──blob stream──► bounded channel ──► hash ──► gunzip/unzstd ──► tar ──► whiteouts, links ──► Visitor
//!          (async)                            └────────────── one blocking thread ─────────────────────────┘
//! ```
//!
//! * **From the top layer down**, and only as far as needed: when every wanted file is decided - found, or hidden by a whiteout - the layers
//!   below are not fetched. A wanted *directory* is decided only by an opaque whiteout, a whiteout or something that replaced it, since any
//!   lower layer may have more files in it.
//! * **Whatever was opened is read to its end and its digest checked.** The visitor sees a file before that; so what it was given may be
//!   believed only once [`files`] has returned `Ok`. A visitor that writes to disk writes beside and renames afterwards.
//! * **Links**: a wanted file that is a hard or a symbolic link is delivered with its target's content under its own name; so is what lies
//!   behind a link in place of a wanted directory, or of one above it. A link to a *directory* inside a wanted directory is not followed, as file
//!   walkers do not. The layers are walked again for the targets, so that links cost time and never memory.
//! * **Memory** does not depend on the image: 4 pieces of the source's stream, an unpacker's window (at most 32 MiB), one tar
//!   header with at most a MiB of extensions, and the paths that matter ([`tree::MAX_REMEMBERED_BYTES`]).

mod blob;
pub mod tar;
pub mod tree;
pub mod writer;

use std::collections::BTreeMap;
use std::io::Read;

use airlock_oci::{Descriptor, Error, ErrorKind, Manifest, Place, Reference, Shape, Source};

use blob::{Body, Budget, Feed};
use tar::{Reader, TarError};
use tree::{Root, Search, Verdict};

/// The largest single file that is handed to a visitor, in bytes: an installer has less than a tenth of it.
pub const MAX_FILE_BYTES: u64 = 16 << 30;
/// Most bytes to which the layers of one image may unpack while it is read, in all.
pub const MAX_UNPACKED_BYTES: u64 = 64 << 30;

/// How often the layers of one image are walked at most: once, and again for what links lead to. Links that lead to the same file take
/// one walk each.
pub const MAX_WALKS: usize = 100;

/// An image whose files are wanted.
#[derive(Clone, Copy)]
pub struct Image<'a> {
    /// Where its layers are read.
    pub source: &'a dyn Source,
    /// Its logical name.
    pub name: &'a Reference,
    /// The image manifest (of one platform, not an index).
    pub manifest: &'a Manifest,
    /// The place that served the manifest.
    pub near: Option<&'a Place>,
}

/// Which files are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    paths: BTreeMap<Vec<u8>, bool>,
    enough: Vec<Vec<u8>>,
}

/// How much is read at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one wanted file.
    pub file: u64,
    /// Bytes that all layers together unpack to, also those of unwanted files.
    pub unpacked: u64,
}

/// A file of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File<'a> {
    /// Its path from the image's root, without a leading slash: of the link where it was reached through one.
    pub path: &'a str,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: i64,
}

/// Takes the wanted files, one at a time, on a thread that may block.
///
/// The order is that of the layers, from the top, and within a layer that of its tar. Each path comes once.
pub trait Visitor: Send {
    /// Takes one file. What is not read of `content` is skipped. An error ends everything.
    fn file(&mut self, file: &File<'_>, content: &mut dyn Read) -> Result<(), Error>;
}

/// Keeps wanted files in memory.
#[derive(Debug)]
pub struct Collect {
    files: BTreeMap<String, Vec<u8>>,
    left: u64,
    most: u64,
}

impl Wanted {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also this file.
    pub fn file(self, path: &str) -> Result<Self, Error> {
        self.add(path, false)
    }

    /// Also every file below this directory; or this file, if it is one. The empty path and `/` are the whole image.
    pub fn tree(self, path: &str) -> Result<Self, Error> {
        self.add(path, true)
    }

    /// This file, and with it the end: no further layer is fetched once all files named so are decided, whatever else is wanted. For
    /// directories of which it is known that one layer holds all of them.
    pub fn until(mut self, path: &str) -> Result<Self, Error> {
        self.enough.push(within(path).filter(|n| !n.is_empty()).ok_or_else(|| no_file(path))?);
        self.add(path, false)
    }

    fn add(mut self, path: &str, tree: bool) -> Result<Self, Error> {
        let normal = within(path).filter(|n| tree || !n.is_empty()).ok_or_else(|| no_file(path))?;
        let wanted = self.paths.entry(normal).or_default();
        *wanted |= tree;
        Ok(self)
    }
}

fn within(path: &str) -> Option<Vec<u8>> {
    tree::normal(path.as_bytes())
}

fn no_file(path: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("look for `{path}` in an image"), "it does not name a file within an image")
}

impl Default for Limits {
    fn default() -> Self {
        Self { file: MAX_FILE_BYTES, unpacked: MAX_UNPACKED_BYTES }
    }
}

impl<F: FnMut(&File<'_>, &mut dyn Read) -> Result<(), Error> + Send> Visitor for F {
    fn file(&mut self, file: &File<'_>, content: &mut dyn Read) -> Result<(), Error> {
        self(file, content)
    }
}

impl Collect {
    /// Takes files of at most `most` bytes in all.
    pub fn new(most: u64) -> Self {
        Self { files: BTreeMap::new(), left: most, most }
    }

    /// The files by path.
    pub fn into_files(self) -> BTreeMap<String, Vec<u8>> {
        self.files
    }
}

impl Visitor for Collect {
    fn file(&mut self, file: &File<'_>, content: &mut dyn Read) -> Result<(), Error> {
        let what = || format!("read the file `{}` of an image", file.path);
        let Some(left) = self.left.checked_sub(file.size) else {
            let cause = format!("with its {} bytes there are more than the {} that are expected", file.size, self.most);
            return Err(Error::new(ErrorKind::Unsupported, what(), cause));
        };
        self.left = left;
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(|e| broken(e, what()))?;
        self.files.insert(file.path.to_owned(), bytes);
        Ok(())
    }
}

/// An error of reading content as one of ours. A visitor whose read fails passes its error through this.
pub fn broken(error: std::io::Error, what: impl Into<String>) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => Error::new(ErrorKind::Content, what, error),
    }
}

/// Hands every wanted file of an image to `visitor`, and gives it back when all of them have been, and every byte that was read turned out
/// to be what the manifest says. Wanted files that the image does not have are not an error here.
pub async fn files<V: Visitor + 'static>(
    image: Image<'_>,
    wanted: &Wanted,
    limits: Limits,
    visitor: V,
) -> Result<V, Error> {
    if image.manifest.shape() != Shape::Image {
        let cause = format!("it is no image but `{}`", image.manifest.media_type());
        return Err(Error::new(ErrorKind::Unsupported, format!("read the files of `{}`", image.name), cause));
    }
    let layers = image.manifest.layers();
    let mut roots: Vec<Root> = Vec::new();
    for (path, tree) in &wanted.paths {
        // What lies below a wanted directory is wanted already.
        if roots.iter().any(|r| r.tree && path.starts_with(&r.path) && is_below(path, &r.path)) {
            continue;
        }
        let (path, name) = (path.clone(), path.clone());
        roots.push(Root { path, tree: *tree, name, hops: 0, must: false, limit: layers.len() });
    }
    let mut enough = &wanted.enough[..];
    let mut state = State { visitor, limits, budget: Budget { left: limits.unpacked, most: limits.unpacked } };
    let mut walks = 0;
    while let Some(mut search) = Search::begin(&mut roots) {
        walks += 1;
        if walks > MAX_WALKS {
            let cause = format!("its links would have its layers read more than {MAX_WALKS} times");
            return Err(Error::new(ErrorKind::Unsupported, format!("read the files of `{}`", image.name), cause));
        }
        search.until(std::mem::take(&mut enough));
        for (number, layer) in layers.iter().enumerate().take(search.limit()).rev() {
            if search.is_decided() {
                break;
            }
            (state, search) = walk(image, layer, number, state, search)
                .await
                .map_err(|e| e.context(format!("read layer {} of {} of `{}`", number + 1, layers.len(), image.name)))?;
        }
        roots.extend(search.end()?);
    }
    Ok(state.visitor)
}

fn is_below(path: &[u8], root: &[u8]) -> bool {
    root.is_empty() || path.len() == root.len() || path.get(root.len()) == Some(&b'/')
}

/// Remembers the first error of a reader.
struct Watched<R> {
    inner: R,
    failed: Option<std::io::Error>,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let result = self.inner.read(buffer);
        if let Err(error) = &result
            && error.kind() != std::io::ErrorKind::Interrupted
            && self.failed.is_none()
        {
            let own = error.get_ref().and_then(|e| e.downcast_ref::<Error>()).cloned();
            self.failed = Some(match own {
                Some(own) => std::io::Error::other(own),
                None => std::io::Error::new(error.kind(), error.to_string()),
            });
        }
        result
    }
}

struct State<V> {
    visitor: V,
    limits: Limits,
    budget: Budget,
}

async fn walk<V: Visitor + 'static>(
    image: Image<'_>,
    layer: &Descriptor,
    number: usize,
    mut state: State<V>,
    mut search: Search,
) -> Result<(State<V>, Search), Error> {
    let stream = image.source.blob(image.name, layer, 0, image.near).await?;
    let (feed, body): (Feed, Body) = blob::channel(layer);
    let media_type = layer.media_type.clone();
    let reading = tokio::task::spawn_blocking(move || {
        state.layer(body, &media_type, number, &mut search)?;
        search.layer_done();
        Ok((state, search))
    });
    feed.pass(stream).await;
    match reading.await {
        Ok(result) => result,
        Err(e) if e.is_panic() => std::panic::resume_unwind(e.into_panic()),
        Err(_) => Err(Error::new(ErrorKind::Interrupted, "read a layer", "the program is stopping")),
    }
}

/// Why the reading of a layer ended.
enum Fault {
    /// The bytes are no tar, or not one that can be unpacked: perhaps they are just not the right bytes.
    Bytes(std::io::Error),
    /// They are, and something else is wrong.
    Other(Error),
}

impl<V: Visitor> State<V> {
    fn layer(&mut self, mut body: Body, media_type: &str, number: usize, search: &mut Search) -> Result<(), Error> {
        match self.entries(&mut body, media_type, number, search) {
            Ok(()) => body.verify(),
            Err(Fault::Other(error)) => Err(error),
            Err(Fault::Bytes(error)) => {
                // Damage on the way shows first as a tar that makes no sense; what the digest says is the better message.
                let error = match error.downcast::<Error>() {
                    Ok(own) => return Err(own),
                    Err(error) => error,
                };
                body.verify()?;
                Err(Error::new(ErrorKind::Content, "unpack the layer", error)
                    .hint("its bytes are what the manifest says, so it was published like this; ask its publisher"))
            }
        }
    }

    fn entries(&mut self, body: &mut Body, media_type: &str, number: usize, search: &mut Search) -> Result<(), Fault> {
        let plain = |e: TarError| match e {
            TarError::Io(e) => Fault::Bytes(e),
            other => Fault::Bytes(std::io::Error::other(other)),
        };
        let mut tar = Reader::new(blob::unpacked(body, media_type, &mut self.budget).map_err(Fault::Bytes)?);
        while let Some(entry) = tar.next_entry().map_err(plain)? {
            let Verdict::Deliver(name) = search.entry(&entry, number).map_err(Fault::Other)? else { continue };
            let unsupported = |cause: String| {
                let what = format!("read the file `{}`", String::from_utf8_lossy(&name));
                Fault::Other(Error::new(ErrorKind::Unsupported, what, cause))
            };
            let path = std::str::from_utf8(&name).map_err(|_| unsupported("its name is not UTF-8".into()))?;
            if entry.size > self.limits.file {
                let most = self.limits.file;
                return Err(unsupported(format!("it has {} bytes; at most {most} are read", entry.size)));
            }
            let file = File { path, size: entry.size, mode: entry.mode, modified: entry.modified };
            let mut content = Watched { inner: tar.content(), failed: None };
            let taken = self.visitor.file(&file, &mut content);
            // What is wrong with the bytes is the layer's fault, whatever the visitor made of it.
            if let Some(failed) = content.failed {
                return Err(Fault::Bytes(failed));
            }
            taken.map_err(Fault::Other)?;
        }
        Ok(())
    }
}
