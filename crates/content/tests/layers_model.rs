//! Random images against a model that unpacks them, layer upon layer, as an engine does: the same files come out.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by failing")]

mod support;

use std::collections::BTreeMap;

use airlock_content::layers::tree::MAX_LINK_HOPS;
use airlock_content::layers::{self, Collect, Image, Limits, Wanted};
use airlock_oci::{Error, Source};
use airlock_testkit::fixture::Blob;
use proptest::prelude::*;
use support::{Item, Memory, directory, file, gzip, hard_link, image, layer, name, symlink, tar};

#[derive(Clone, Debug, PartialEq)]
enum Node {
    /// Content, and how many hard links lead to it.
    File(String, usize),
    Directory,
    Symlink(String),
}

/// What is in the image, by path.
#[derive(Clone, Debug, Default)]
struct Model(BTreeMap<String, Node>);

/// What an entry of a layer is.
#[derive(Clone, Debug)]
enum Entry {
    File(String),
    Directory,
    Symlink(String),
    HardLink(String),
}

#[derive(Clone, Debug)]
struct Operation {
    kind: u8,
    path: usize,
    other: usize,
}

const PARTS: [&str; 3] = ["a", "b", "c"];
const DEPTH: u32 = 3;

fn path(mut number: usize) -> String {
    let depth = 1 + number % DEPTH as usize;
    number /= DEPTH as usize;
    let mut parts = Vec::new();
    for _ in 0..depth {
        parts.push(PARTS[number % PARTS.len()]);
        number /= PARTS.len();
    }
    parts.join("/")
}

fn all_paths() -> Vec<String> {
    let mut paths: Vec<String> = (0..DEPTH as usize * PARTS.len().pow(DEPTH)).map(path).collect();
    paths.sort();
    paths.dedup();
    paths
}

fn below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

impl Model {
    fn remove(&mut self, path: &str) {
        self.0.retain(|p, _| p != path && !below(p, path));
    }

    /// Follows every link on the way. `Err`: too many. `None`: nothing there.
    fn resolve(&self, wanted: &str) -> Result<Option<&Node>, ()> {
        let mut path: Vec<String> = wanted.split('/').map(str::to_owned).collect();
        let mut hops = 0;
        'again: loop {
            for end in 1..=path.len() {
                let here = path[..end].join("/");
                match self.0.get(&here) {
                    None => return Ok(None),
                    Some(Node::Symlink(target)) => {
                        hops += 1;
                        if hops > MAX_LINK_HOPS {
                            return Err(());
                        }
                        let mut new: Vec<String> =
                            if target.starts_with('/') { Vec::new() } else { path[..end - 1].to_vec() };
                        for part in target.split('/').filter(|p| !p.is_empty()) {
                            if part == ".." { drop(new.pop()) } else { new.push(part.to_owned()) }
                        }
                        new.extend_from_slice(&path[end..]);
                        path = new;
                        if path.is_empty() {
                            return Ok(Some(&Node::Directory));
                        }
                        continue 'again;
                    }
                    Some(Node::File(_, hard)) if end == path.len() && hops + hard > MAX_LINK_HOPS => return Err(()),
                    Some(node) if end == path.len() => return Ok(Some(node)),
                    Some(Node::Directory) => {}
                    Some(Node::File(..)) => return Ok(None),
                }
            }
        }
    }

    fn content(&self, wanted: &str) -> Result<Option<String>, ()> {
        Ok(match self.resolve(wanted)? {
            Some(Node::File(content, _)) => Some(content.clone()),
            _ => None,
        })
    }

    /// Every file, and every link to one.
    fn files(&self) -> Result<BTreeMap<String, String>, ()> {
        let mut out = BTreeMap::new();
        for (path, node) in &self.0 {
            if *node != Node::Directory
                && let Some(content) = self.content(path)?
            {
                out.insert(path.clone(), content);
            }
        }
        Ok(out)
    }

    /// Makes a valid layer of what chance wants, and puts it upon this.
    fn add(&mut self, number: usize, operations: &[Operation]) -> Blob {
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        let (mut gone, mut opaque) = (Vec::new(), Vec::new());
        for (at, operation) in operations.iter().enumerate() {
            let (wanted, other) = (path(operation.path), path(operation.other));
            let taken = |p: &str| entries.get(p).is_some_and(|e| !matches!(e, Entry::Directory));
            let inside = entries.keys().any(|p| below(p, &wanted));
            if taken(&wanted) || parents(&wanted).any(taken) {
                continue;
            }
            let entry = match operation.kind {
                0..4 if !inside && !entries.contains_key(&wanted) => Entry::File(format!("{number}-{at}")),
                4 => Entry::Directory,
                5 if !inside && !entries.contains_key(&wanted) => {
                    let up = "../".repeat(operation.other % 3);
                    Entry::Symlink(if operation.other.is_multiple_of(2) {
                        format!("/{up}{other}")
                    } else {
                        format!("{up}{other}")
                    })
                }
                6 => {
                    if self.0.contains_key(&wanted) {
                        gone.push(wanted);
                    }
                    continue;
                }
                7 => {
                    opaque.push(wanted.clone());
                    Entry::Directory
                }
                8 if !inside && !entries.contains_key(&wanted) => Entry::HardLink(other),
                _ => continue,
            };
            for parent in parents(&wanted) {
                entries.insert(parent.to_owned(), Entry::Directory);
            }
            entries.insert(wanted, entry);
        }
        for path in &gone {
            self.remove(path);
        }
        for folder in &opaque {
            self.0.retain(|p, _| !below(p, folder));
        }
        // Hard links come last; what they lead to is a file of this layer, or what is left of one below.
        let mut links: Vec<(String, String)> = Vec::new();
        for (path, entry) in &entries {
            let node = match entry {
                Entry::File(content) => Node::File(content.clone(), 0),
                Entry::Symlink(target) => Node::Symlink(target.clone()),
                Entry::Directory => {
                    if !matches!(self.0.get(path), Some(Node::Directory)) {
                        self.remove(path);
                    }
                    self.0.insert(path.clone(), Node::Directory);
                    continue;
                }
                Entry::HardLink(target) => {
                    links.push((path.clone(), target.clone()));
                    continue;
                }
            };
            self.remove(path);
            self.0.insert(path.clone(), node);
        }
        links.retain(|(path, target)| {
            let clash = links_clash(path, target, &entries);
            let Some(Node::File(content, hops)) = self.0.get(target).cloned().filter(|_| !clash) else { return false };
            self.remove(path);
            self.0.insert(path.clone(), Node::File(content, hops + 1));
            true
        });
        let white: Vec<String> = gone
            .iter()
            .map(|path| match path.rsplit_once('/') {
                Some((folder, name)) => format!("{folder}/.wh.{name}"),
                None => format!(".wh.{path}"),
            })
            .chain(opaque.iter().map(|folder| format!("{folder}/.wh..wh..opq")))
            .collect();
        let mut items: Vec<Item<'_>> = Vec::new();
        let first = operations.len().is_multiple_of(2);
        if first {
            items.extend(white.iter().map(|path| file(path, b"")));
        }
        for (path, entry) in &entries {
            match entry {
                Entry::File(content) => items.push(file(path, content.as_bytes())),
                Entry::Directory => items.push(directory(path)),
                Entry::Symlink(target) => items.push(symlink(path, target)),
                Entry::HardLink(_) => {}
            }
        }
        items.extend(links.iter().map(|(path, target)| hard_link(path, target)));
        if !first {
            items.extend(white.iter().map(|path| file(path, b"")));
        }
        let bytes = tar(&items);
        layer(if number.is_multiple_of(2) { gzip(&bytes) } else { bytes })
    }
}

/// A link to something that the same layer makes a link of, or that its making removes, is of no honest layer.
fn links_clash(path: &str, target: &str, entries: &BTreeMap<String, Entry>) -> bool {
    path == target
        || below(target, path)
        || matches!(entries.get(target), Some(Entry::HardLink(_)))
        || parents(target).any(|p| matches!(entries.get(p), Some(Entry::HardLink(_))))
}

async fn read(source: &Memory, wanted: &Wanted) -> Result<BTreeMap<String, String>, Error> {
    let name = name("x");
    let manifest = source.manifest(&name).await.unwrap().value;
    let image = Image { source, name: &name, manifest: &manifest, near: None };
    let files = layers::files(image, wanted, Limits::default(), Collect::new(1 << 20)).await?.into_files();
    Ok(files.into_iter().map(|(p, b)| (p, String::from_utf8(b).unwrap())).collect())
}

fn operation() -> impl Strategy<Value = Operation> {
    (0..9_u8, 0..81_usize, 0..81_usize).prop_map(|(kind, path, other)| Operation { kind, path, other })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_image_has_the_files_that_unpacking_it_gives(
        layers in prop::collection::vec(prop::collection::vec(operation(), 0..14), 1..5)
    ) {
        let mut model = Model::default();
        let blobs: Vec<Blob> = layers.iter().enumerate().map(|(number, ops)| model.add(number, ops)).collect();
        let mut source = Memory::new();
        source.add("x", &image(blobs));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let all = runtime.block_on(read(&source, &Wanted::new().tree("/").unwrap()));
        match model.files() {
            Ok(expected) => prop_assert_eq!(all.unwrap(), expected, "{:?}", model),
            Err(()) => prop_assert!(all.is_err(), "{:?}", model),
        }
        let mut together = Some((Wanted::new(), BTreeMap::new()));
        for path in all_paths() {
            let found = runtime.block_on(read(&source, &Wanted::new().file(&path).unwrap()));
            match model.content(&path) {
                Ok(expected) => {
                    prop_assert_eq!(found.unwrap().remove(&path), expected.clone(), "{} {:?}", path, model);
                    if let Some((wanted, files)) = &mut together {
                        *wanted = wanted.clone().file(&path).unwrap();
                        files.extend(expected.map(|content| (path, content)));
                    }
                }
                Err(()) => {
                    prop_assert!(found.is_err(), "{} {:?}", path, model);
                    together = None;
                }
            }
        }
        if let Some((wanted, files)) = together {
            prop_assert_eq!(runtime.block_on(read(&source, &wanted)).unwrap(), files, "{:?}", model);
        }
    }
}
