//! Which images are in use, and by whom: from dumps of a cluster, must-gather folders, rendered manifests and lists.
//!
//! Input is a stream of bytes, never a whole file: JSON and YAML are read object by object, each object is cut down to what may
//! name an image, read, and forgotten. What stays is one entry for each distinct text of a reference and a few numbers for each
//! user of it, so that ten thousand pods take a few megabytes. Whatever is a list of containers counts, in whichever kind of
//! object it stands: operators have pod templates in kinds that nobody here has heard of.

mod items;
mod json;
mod lines;
mod list;
mod object;
mod thin;
mod tree;
mod yaml;

use std::collections::HashMap;
use std::fmt;
use std::io::BufRead;

use airlock_oci::Digest;
use serde::Serialize;

/// Most uses that are kept, over all sources. A cluster of the largest supported size has about a million containers.
pub const MAX_USES: usize = 4_000_000;

/// Longest text of an image that is kept, in bytes; references end at about 500.
pub const MAX_IMAGE_BYTES: usize = 2048;

/// How a source is to be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// By its first bytes: JSON, YAML objects, or a list.
    #[default]
    Guess,
    /// Objects, as JSON or YAML.
    Objects,
    /// Objects, and of nodes the images that lie on them.
    Nodes,
    /// One reference a line.
    List,
}

/// Where in an object an image stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// An ordinary container.
    Container,
    /// An init container, sidecars of this form included.
    Init,
    /// A container that was added for debugging.
    Ephemeral,
    /// A volume made from an image.
    Volume,
    /// `relatedImages` of a ClusterServiceVersion.
    Related,
    /// The image of a catalog source.
    Catalog,
    /// The release that a cluster runs, and what it consists of.
    Release,
    /// It lies on a node.
    Node,
    /// A line of a list.
    Listed,
}

/// All images in use.
#[derive(Debug, Default)]
pub struct Images {
    symbols: Vec<Box<str>>,
    known: HashMap<Box<str>, u32>,
    images: Vec<Image>,
    by_text: HashMap<Box<str>, u32>,
    uses: usize,
    objects: u64,
    rules: Vec<String>,
}

/// One text that names an image.
#[derive(Debug)]
pub struct Image {
    text: Box<str>,
    uses: Vec<Use>,
    running: Vec<Running>,
}

/// A digest that containers with this reference run, as their status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// The repository that the node says it came from.
    pub repository: String,
    /// What runs.
    pub digest: Digest,
    /// In how many containers.
    pub containers: u64,
}

/// Numbers of texts, to be asked for through [`Images::user`].
#[derive(Clone, Copy, Debug)]
struct Use {
    source: u32,
    namespace: u32,
    kind: u32,
    name: u32,
    container: u32,
    owner: u32,
    secret: u32,
    hook: u32,
    role: Role,
}

/// Who uses an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct User<'a> {
    /// The namespace; empty where there is none.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub namespace: &'a str,
    /// The kind of the object; empty for a line of a list.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub kind: &'a str,
    /// The object's name.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: &'a str,
    /// The container's name, or the name of a related image.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub container: &'a str,
    /// Where in the object it stands.
    pub role: Role,
    /// `Kind/name` of what made the object.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub owner: &'a str,
    /// When Helm runs it, where it is a hook.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub hook: &'a str,
    /// A pull secret of the namespace that a user put there (not one that the platform made).
    #[serde(skip_serializing_if = "str::is_empty")]
    pub pull_secret: &'a str,
    /// The file, or the cluster, that said so.
    pub source: &'a str,
}

/// Why a source cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The source, as the caller named it.
    pub source: String,
    /// Counted from 1; 0 where the whole source is meant.
    pub line: u64,
    /// Counted from 1; 0 where the whole line is meant.
    pub column: u64,
    /// What is wrong.
    pub cause: String,
}

/// What a source held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Objects of any kind.
    pub objects: u64,
    /// Places in which an image stood.
    pub uses: u64,
    /// It holds mirror rules.
    pub rules: bool,
    /// `metadata.continue` of a list: there is more to be asked for.
    pub more: Option<String>,
}

/// The parts of a use as they are read.
#[derive(Clone, Copy, Debug, Default)]
struct Place<'a> {
    namespace: &'a str,
    name: &'a str,
    container: &'a str,
    owner: &'a str,
    secret: &'a str,
    hook: &'a str,
}

impl Images {
    /// Reads a source to its end. `name` is what users and errors call it. An error leaves what was read before it.
    pub fn read(&mut self, name: &str, form: Form, input: impl BufRead) -> Result<Summary, Error> {
        let (objects, uses, rules) = (self.objects, self.uses, self.rules.len());
        let mut input = lines::Lines::new(input);
        let fail = |e: std::io::Error| Error { source: name.to_owned(), line: 0, column: 0, cause: e.to_string() };
        let (head, whole) = input.head().map_err(fail)?;
        let first = head.iter().find(|b| !b.is_ascii_whitespace()).copied();
        let is_list = match form {
            Form::List => true,
            Form::Objects | Form::Nodes => false,
            Form::Guess => !matches!(first, Some(b'{' | b'[')) && list::looks_like_one(head, whole),
        };
        let source = self.symbol(name);
        let nodes = form == Form::Nodes;
        let mut reader = Reader { source, name, nodes, images: self, kind: None, more: None };
        match first {
            _ if is_list => list::read(&mut reader, input)?,
            None => {}
            Some(b'{' | b'[') => json::read(&mut reader, input)?,
            Some(_) => yaml::read(&mut reader, input)?,
        }
        let more = reader.more.take();
        Ok(Summary {
            objects: self.objects - objects,
            uses: (self.uses - uses) as u64,
            rules: self.rules.len() > rules,
            more,
        })
    }

    /// Every distinct text, in the order in which they were met.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// Places in which an image stands.
    pub fn uses(&self) -> usize {
        self.uses
    }

    /// Objects that were read, of any kind.
    pub fn objects(&self) -> u64 {
        self.objects
    }

    /// The sources that hold mirror rules, in the order of reading.
    pub fn rule_sources(&self) -> &[String] {
        &self.rules
    }

    /// Who uses an image, in the order of reading.
    pub fn users<'a>(&'a self, image: &'a Image) -> impl ExactSizeIterator<Item = User<'a>> {
        image.uses.iter().map(|one| self.user(one))
    }

    fn user(&self, one: &Use) -> User<'_> {
        let text = |number: u32| &*self.symbols[number as usize];
        User {
            namespace: text(one.namespace),
            kind: text(one.kind),
            name: text(one.name),
            container: text(one.container),
            role: one.role,
            owner: text(one.owner),
            hook: text(one.hook),
            pull_secret: text(one.secret),
            source: text(one.source),
        }
    }

    /// The number of a text; equal texts have one number.
    fn symbol(&mut self, text: &str) -> u32 {
        if let Some(number) = self.known.get(text) {
            return *number;
        }
        let number = self.fresh(text);
        self.known.insert(text.into(), number);
        number
    }

    /// A number of its own, whose text may still change.
    fn fresh(&mut self, text: &str) -> u32 {
        self.symbols.push(text.into());
        (self.symbols.len() - 1) as u32
    }

    /// Room for one use more.
    fn add(&mut self, text: &str, role: Role, kind: u32, source: u32, place: Place<'_>) -> Result<u32, String> {
        if self.uses == MAX_USES {
            return Err(format!("more than {MAX_USES} places use images; split the dump"));
        }
        self.uses += 1;
        let text = clip(text.trim());
        let at = match self.by_text.get(text) {
            Some(at) => *at,
            None => {
                self.images.push(Image { text: text.into(), uses: Vec::new(), running: Vec::new() });
                let at = (self.images.len() - 1) as u32;
                self.by_text.insert(text.into(), at);
                at
            }
        };
        let one = Use {
            source,
            namespace: self.symbol(place.namespace),
            kind,
            name: self.symbol(place.name),
            container: self.symbol(place.container),
            owner: self.symbol(place.owner),
            secret: self.symbol(place.secret),
            hook: self.symbol(place.hook),
            role,
        };
        self.images[at as usize].uses.push(one);
        Ok(at)
    }

    /// Notes what a container with this image runs.
    fn runs(&mut self, image: u32, repository: &str, digest: Digest) {
        let running = &mut self.images[image as usize].running;
        match running.iter_mut().find(|r| r.digest == digest && r.repository == repository) {
            Some(known) => known.containers += 1,
            None => running.push(Running { repository: repository.to_owned(), digest, containers: 1 }),
        }
    }
}

impl Image {
    /// As written where it is used.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// In how many places.
    pub fn uses(&self) -> usize {
        self.uses.len()
    }

    /// The digests that run under this reference.
    pub fn running(&self) -> &[Running] {
        &self.running
    }
}

/// One source while it is read.
struct Reader<'i> {
    images: &'i mut Images,
    name: &'i str,
    source: u32,
    /// What lies on a node counts too.
    nodes: bool,
    /// Items of a typed list (`PodList`) do not say their kind; the list says it, perhaps after them.
    kind: Option<u32>,
    more: Option<String>,
}

impl Reader<'_> {
    fn error(&self, line: u64, column: u64, cause: impl Into<String>) -> Error {
        Error { source: self.name.to_owned(), line, column, cause: cause.into() }
    }

    /// The number that stands for the kind of items that do not say theirs.
    fn unknown_kind(&mut self) -> u32 {
        match self.kind {
            Some(kind) => kind,
            None => *self.kind.insert(self.images.fresh("")),
        }
    }

    /// The list is over: now its kind is known.
    fn name_items(&mut self, list_kind: &str, api_version: &str) {
        if let Some(number) = self.kind.take() {
            let item = list_kind.strip_suffix("List").unwrap_or_default();
            self.images.symbols[number as usize] = item.into();
            if object::is_rule(item, api_version) {
                self.note_rules();
            }
        }
    }

    fn note_rules(&mut self) {
        if self.images.rules.last().is_none_or(|last| last != self.name) {
            self.images.rules.push(self.name.to_owned());
        }
    }
}

/// A text that is too long is no reference; enough of it is kept to find it.
fn clip(text: &str) -> &str {
    let mut end = text.len().min(MAX_IMAGE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.column > 0 {
            write!(f, ":{}", self.column)?;
        }
        write!(f, ": {}", self.cause)
    }
}

impl std::error::Error for Error {}

impl fmt::Display for User<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind.is_empty() {
            return f.write_str(self.source);
        }
        for part in [self.namespace, self.kind].into_iter().filter(|p| !p.is_empty()) {
            write!(f, "{part}/")?;
        }
        f.write_str(self.name)?;
        if !self.container.is_empty() {
            write!(f, "/{}", self.container)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
