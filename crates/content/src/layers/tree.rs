//! Which files of which layer are the image's: whiteouts, replaced paths and links, without a tree in memory.
//!
//! Layers are read from the top down. What an upper layer says about a path hides what lower ones say about it:
//!
//! | an upper layer has | hidden below |
//! |---|---|
//! | a file, link or device `p` | `p` and everything below `p/` |
//! | a directory `p` | a file or link `p`; files below `p/` stay |
//! | `.wh.n` in `d` | `d/n` and everything below it |
//! | `.wh..wh..opq` in `d` | everything below `d` |
//!
//! Only paths that matter are remembered: those that are wanted, those below wanted directories, and the directories above them. Whiteouts
//! hide what lower layers have, never what their own layer has, wherever in it they stand (image-spec, layer.md).

use std::collections::{BTreeMap, HashMap, HashSet};

use airlock_oci::{Error, ErrorKind};

use super::tar::{Entry, Kind};

/// Most bytes of paths that are remembered while an image is read: room for a hundred thousand wanted files.
pub const MAX_REMEMBERED_BYTES: usize = 16 * 1024 * 1024;
/// Bytes counted for a remembered path beside its text.
const REMEMBERED_OVERHEAD: usize = 64;
/// How many links may follow one another until the file.
pub const MAX_LINK_HOPS: usize = 8;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that a file system of the past kept for itself among the whiteouts.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// A path from the image's root: no leading or trailing slash, no empty part, no `.` and no `..`. The root itself is empty.
pub(super) type Normal = Vec<u8>;

/// Something to look for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Root {
    /// Where it lies.
    pub(super) path: Normal,
    /// Everything below it, if it is a directory.
    pub(super) tree: bool,
    /// The path under which it is delivered: another one where a link led here.
    pub(super) name: Normal,
    /// Links that were followed.
    pub(super) hops: usize,
    /// Its absence makes the image broken: a hard link's target.
    pub(super) must: bool,
    /// The layers to look in: all below this number.
    pub(super) limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// The path itself is decided; what lies below it is not.
    Directory,
    /// The path and everything below it is decided.
    All,
}

/// What an entry of the current layer is to the search.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing to do.
    Pass,
    /// The file is the image's, and wanted: under this name.
    Deliver(Normal),
}

/// One walk over the layers, for things that do not lie in one another.
#[derive(Debug)]
pub(super) struct Search {
    roots: BTreeMap<Normal, Root>,
    /// Directories above roots.
    above: HashSet<Normal>,
    /// What the layers above the current one decided.
    marks: HashMap<Normal, Mark>,
    /// What the current layer decides for those below it.
    pending: HashMap<Normal, Mark>,
    remembered: usize,
    /// Links to follow in another walk.
    links: Vec<Root>,
    /// Wanted files and links that were met.
    found: HashSet<Normal>,
    /// Names of roots that another walk looks for, since a directory above them is a link.
    moved: HashSet<Normal>,
    /// When these are decided, the rest of what is wanted is not worth another layer. Empty: nothing ends the walk early.
    enough: Vec<Normal>,
    limit: usize,
}

/// Makes a path normal; `None` when it climbs with `..`.
pub(super) fn normal(path: &[u8]) -> Option<Normal> {
    let mut out = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return None,
            _ => push(&mut out, part),
        }
    }
    Some(out)
}

/// A path from an archive's root as text: no `.`, no empty part; `None` when it climbs with `..` or is not UTF-8.
pub fn normal_path(path: &[u8]) -> Option<String> {
    String::from_utf8(normal(path)?).ok()
}

fn push(path: &mut Normal, part: &[u8]) {
    if !path.is_empty() && !part.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(part);
}

fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|b| *b == b'/').map_or(&[], |at| &path[..at])
}

fn base(path: &[u8]) -> &[u8] {
    path.iter().rposition(|b| *b == b'/').map_or(path, |at| &path[at + 1..])
}

/// Every path above `path`, from the nearest to the root. The root has none above it.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut next = (!path.is_empty()).then(|| parent(path));
    std::iter::from_fn(move || {
        let this = next?;
        next = (!this.is_empty()).then(|| parent(this));
        Some(this)
    })
}

/// `path` without the root it lies below.
fn below<'a>(path: &'a [u8], root: &[u8]) -> &'a [u8] {
    let rest = path.strip_prefix(root).unwrap_or_default();
    rest.strip_prefix(b"/").unwrap_or(rest)
}

fn joined(path: &[u8], rest: &[u8]) -> Normal {
    let mut out = path.to_vec();
    push(&mut out, rest);
    out
}

/// Where a symbolic link at `at` leads: as in a file system whose root is the image's, so that `..` stops there.
fn target(at: &[u8], link: &[u8]) -> Normal {
    let mut out = if link.first() == Some(&b'/') { Vec::new() } else { parent(at).to_vec() };
    for part in link.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => out.truncate(parent(&out).len()),
            _ => push(&mut out, part),
        }
    }
    out
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn broken(cause: String) -> Error {
    Error::new(ErrorKind::Content, "read a layer", cause).hint("the image was built wrong; ask its publisher")
}

impl Search {
    /// Takes as many of `roots` as can be looked for in one walk: those with the same layers to look in, none inside another. The others
    /// stay. `None` when there are none.
    pub(super) fn begin(roots: &mut Vec<Root>) -> Option<Self> {
        let limit = roots.first()?.limit;
        let mut search = Self {
            roots: BTreeMap::new(),
            above: HashSet::new(),
            marks: HashMap::new(),
            pending: HashMap::new(),
            remembered: 0,
            links: Vec::new(),
            found: HashSet::new(),
            moved: HashSet::new(),
            enough: Vec::new(),
            limit,
        };
        let mut later = Vec::new();
        for root in roots.drain(..) {
            let inside = search.roots.contains_key(&root.path)
                || search.above.contains(&root.path)
                || ancestors(&root.path).any(|a| search.roots.contains_key(a));
            if inside || root.limit != limit {
                later.push(root);
                continue;
            }
            search.above.extend(ancestors(&root.path).map(<[u8]>::to_vec));
            search.roots.insert(root.path.clone(), root);
        }
        *roots = later;
        Some(search)
    }

    /// Ends the walk with the layer in which all of these files are decided.
    pub(super) fn until(&mut self, enough: &[Normal]) {
        self.enough = enough.to_vec();
    }

    /// The number of layers, from the bottom, that this walk is about.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Whether no lower layer can add anything.
    pub(super) fn is_decided(&self) -> bool {
        let enough = !self.enough.is_empty() && self.enough.iter().all(|path| self.is_hidden(path));
        enough || self.roots.values().all(|root| self.is_closed(root))
    }

    fn is_closed(&self, root: &Root) -> bool {
        match self.marks.get(&root.path) {
            Some(Mark::Directory) => !root.tree,
            _ => self.is_hidden(&root.path),
        }
    }

    fn is_hidden(&self, path: &[u8]) -> bool {
        self.marks.contains_key(path) || ancestors(path).any(|a| self.marks.get(a) == Some(&Mark::All))
    }

    /// The root that `path` is, or lies below.
    fn root_of(&self, path: &[u8]) -> Option<&Root> {
        if let Some(root) = self.roots.get(path) {
            return Some(root);
        }
        ancestors(path).find_map(|a| self.roots.get(a)).filter(|root| root.tree)
    }

    fn matters(&self, path: &[u8]) -> bool {
        self.above.contains(path) || self.root_of(path).is_some()
    }

    fn mark(&mut self, path: &[u8], mark: Mark) -> Result<(), Error> {
        if self.marks.get(path).is_some_and(|known| *known == Mark::All || mark == Mark::Directory) {
            return Ok(());
        }
        if let Some(known) = self.pending.get_mut(path) {
            if mark == Mark::All {
                *known = mark;
            }
            return Ok(());
        }
        self.remembered += path.len() + REMEMBERED_OVERHEAD;
        if self.remembered > MAX_REMEMBERED_BYTES {
            let cause = format!("the names of its files take more than {MAX_REMEMBERED_BYTES} bytes");
            return Err(Error::new(ErrorKind::Unsupported, "read an image's files", cause));
        }
        self.pending.insert(path.to_vec(), mark);
        Ok(())
    }

    /// Takes in an entry of layer `number`.
    pub(super) fn entry(&mut self, entry: &Entry, number: usize) -> Result<Verdict, Error> {
        let Some(path) = normal(&entry.path) else {
            return Err(broken(format!("it has an entry with `..` in its name: `{}`", show(&entry.path))));
        };
        let name = base(&path);
        if let Some(hidden) = name.strip_prefix(WHITEOUT).filter(|_| entry.kind != Kind::Directory) {
            if name == OPAQUE {
                let directory = parent(&path).to_vec();
                if self.matters(&directory) {
                    self.mark(&directory, Mark::All)?;
                }
            } else if !name.starts_with(WHITEOUT_META) {
                if matches!(hidden, b"" | b"." | b"..") {
                    return Err(broken(format!("it has a whiteout that names nothing: `{}`", show(&path))));
                }
                let gone = joined(parent(&path), hidden);
                if self.matters(&gone) {
                    self.mark(&gone, Mark::All)?;
                }
            }
            return Ok(Verdict::Pass);
        }
        if !self.matters(&path) {
            return Ok(Verdict::Pass);
        }
        let hidden = self.is_hidden(&path);
        if entry.kind == Kind::Directory {
            self.mark(&path, Mark::Directory)?;
            return Ok(Verdict::Pass);
        }
        let verdict = if hidden { Verdict::Pass } else { self.visible(entry, &path, number)? };
        self.mark(&path, Mark::All)?;
        Ok(verdict)
    }

    /// A file or link that no upper layer hides.
    fn visible(&mut self, entry: &Entry, path: &Normal, number: usize) -> Result<Verdict, Error> {
        let Some(root) = self.root_of(path) else {
            if entry.kind == Kind::Symlink {
                self.follow_directory(entry, path)?;
            }
            return Ok(Verdict::Pass);
        };
        let (name, hops) = (joined(&root.name, below(path, &root.path)), root.hops);
        let tree = root.tree && *path == root.path;
        if !self.found.insert(path.clone()) {
            // The specification forbids it, and tools differ about which one counts.
            return Err(broken(format!("one layer has the file `{}` twice", show(path))));
        }
        match entry.kind {
            Kind::File => Ok(Verdict::Deliver(name)),
            Kind::Sparse => Err(Error::new(
                ErrorKind::Unsupported,
                "read a layer",
                format!("the file `{}` is stored with holes (a sparse tar entry)", show(path)),
            )),
            Kind::HardLink => {
                let Some(to) = normal(&entry.link) else {
                    return Err(broken(format!("the hard link `{}` climbs out with `..`", show(path))));
                };
                // A hard link is to what was there when its layer was made, whatever upper layers did to that name since.
                self.link(Root { path: to, tree: false, name, hops: hops + 1, must: true, limit: number + 1 }, path)
            }
            Kind::Symlink => {
                let to = target(path, &entry.link);
                self.link(Root { path: to, tree, name, hops: hops + 1, must: false, limit: self.limit }, path)
            }
            Kind::Directory | Kind::Other => Ok(Verdict::Pass),
        }
    }

    fn link(&mut self, root: Root, at: &[u8]) -> Result<Verdict, Error> {
        if root.hops > MAX_LINK_HOPS {
            return Err(broken(format!("more than {MAX_LINK_HOPS} links follow one another at `{}`", show(at))));
        }
        self.remembered += root.path.len() + root.name.len() + REMEMBERED_OVERHEAD;
        self.links.push(root);
        Ok(Verdict::Pass)
    }

    /// A directory above what is wanted is a symbolic link: it is wanted there, then.
    fn follow_directory(&mut self, entry: &Entry, path: &Normal) -> Result<(), Error> {
        let to = target(path, &entry.link);
        let inside: Vec<Root> = self
            .roots
            .values()
            .filter(|root| ancestors(&root.path).any(|a| a == path) && !self.is_closed(root))
            .map(|root| Root {
                path: joined(&to, below(&root.path, path)),
                hops: root.hops + 1,
                must: root.must,
                limit: self.limit,
                ..root.clone()
            })
            .collect();
        for root in inside {
            // Whether it is there is now the other walk's question.
            self.moved.insert(root.name.clone());
            self.link(root, path)?;
        }
        Ok(())
    }

    /// The current layer is over: what it decided holds for those below.
    pub(super) fn layer_done(&mut self) {
        for (path, mark) in self.pending.drain() {
            let known = self.marks.entry(path).or_insert(mark);
            if mark == Mark::All {
                *known = mark;
            }
        }
    }

    /// What is to be looked for next: where links lead to.
    pub(super) fn end(self) -> Result<Vec<Root>, Error> {
        for root in self.roots.values().filter(|root| root.must) {
            if !self.found.contains(&root.path) && !self.moved.contains(&root.name) {
                let (name, path) = (show(&root.name), show(&root.path));
                return Err(broken(format!("the hard link `{name}` leads to `{path}`, which is not there")));
            }
        }
        Ok(self.links)
    }
}
