//! Puts the documents of all files together to a catalog.
//!
//! Files come in the order of layers and tars, `.indexignore` perhaps last: so a file that cannot be read is an error only at the end, when it
//! is known whether it counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::path::Path;

use airlock_oci::{Error, ErrorKind};

use super::document::{Document, Former, Texts, parse};
use super::ignore::{self, Ignore};
use super::split::{Fault, documents};
use crate::catalog::model::{Catalog, Channel, Entry, Origin, Package, Text};
use crate::catalog::spool::{Blob, SpoolWriter};
use crate::derived::sorted;
use crate::layers::broken;

/// Most files of a catalog: Red Hat's have a few hundred.
const MAX_FILES: usize = 100_000;
/// Most documents.
const MAX_DOCUMENTS: usize = 2_000_000;

/// A catalog in the making.
pub(in crate::catalog) struct Builder {
    spool: SpoolWriter,
    texts: Texts,
    files: Vec<Source>,
    records: Vec<Record>,
    ignore: Ignore,
}

struct Source {
    path: String,
    failed: Option<Error>,
}

struct Record {
    file: u32,
    blob: Blob,
    document: Document,
}

impl Builder {
    /// Nothing yet; documents go into a file in `folder`.
    pub(in crate::catalog) fn new(folder: &Path) -> Result<Self, Error> {
        Ok(Self {
            spool: SpoolWriter::create(folder)?,
            texts: Texts::default(),
            files: Vec::new(),
            records: Vec::new(),
            ignore: Ignore::default(),
        })
    }

    /// Takes a file by its path within the catalog.
    pub(in crate::catalog) fn file(&mut self, path: &str, content: &mut dyn Read) -> Result<(), Error> {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name == ignore::NAME {
            let mut text = String::new();
            content
                .take(ignore::MAX_BYTES)
                .read_to_string(&mut text)
                .map_err(|e| broken(e, format!("read the file `{path}`")))?;
            self.ignore.add(folder, &text);
            return Ok(());
        }
        if self.files.len() >= MAX_FILES {
            let cause = format!("it has more than {MAX_FILES} files");
            return Err(Error::new(ErrorKind::Unsupported, "read a catalog", cause));
        }
        let number = self.files.len() as u32;
        let (spool, texts, records) = (&mut self.spool, &mut self.texts, &mut self.records);
        let result = documents(content, &mut |document| {
            let syntax =
                |within: u64, cause: String| Fault::Syntax { line: document.line + within.saturating_sub(1), cause };
            let converted;
            let json = if document.yaml {
                match from_yaml(document.bytes).map_err(|(line, cause)| syntax(line, cause))? {
                    None => return Ok(()),
                    Some(json) => {
                        converted = json;
                        &converted[..]
                    }
                }
            } else {
                document.bytes
            };
            if records.len() >= MAX_DOCUMENTS {
                return Err(syntax(1, format!("the catalog has more than {MAX_DOCUMENTS} documents")));
            }
            let blob = spool.put(json)?;
            let parsed = parse(json, blob, texts)
                .map_err(|(line, cause)| syntax(if document.yaml { 1 } else { line }, cause))?;
            records.push(Record { file: number, blob, document: parsed });
            Ok(())
        });
        let failed = match result {
            Ok(()) => None,
            Err(Fault::Syntax { line, cause }) => {
                Some(Error::new(ErrorKind::Content, format!("read `{path}`, line {line}"), cause))
            }
            Err(Fault::Other(error)) => return Err(error.context(format!("read `{path}`"))),
        };
        self.files.push(Source { path: path.to_owned(), failed });
        Ok(())
    }

    /// Takes one document that was made here, as of a file of this name.
    #[cfg(feature = "sqlite")]
    pub(in crate::catalog) fn document(&mut self, path: &str, json: &[u8]) -> Result<(), Error> {
        if self.files.last().is_none_or(|file| file.path != path) {
            self.files.push(Source { path: path.to_owned(), failed: None });
        }
        let blob = self.spool.put(json)?;
        let parsed = parse(json, blob, &mut self.texts)
            .map_err(|(_, cause)| Error::new(ErrorKind::Content, format!("read {path}"), cause))?;
        self.records.push(Record { file: self.files.len() as u32 - 1, blob, document: parsed });
        Ok(())
    }

    /// The catalog.
    pub(in crate::catalog) fn finish(self, origin: Origin) -> Result<Catalog, Error> {
        let ignored: Vec<bool> = self.files.iter().map(|file| self.ignore.ignores(&file.path)).collect();
        // The first in the order of names, whatever the order in which they came.
        let mut failed: Vec<&Source> =
            self.files.iter().zip(&ignored).filter(|(f, i)| f.failed.is_some() && !**i).map(|(f, _)| f).collect();
        failed.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some(error) = failed.first().and_then(|file| file.failed.clone()) {
            return Err(error.hint(
                "every file of a catalog that `.indexignore` does not name must be JSON or YAML of its documents",
            ));
        }
        // Files in the order of their names, so that the catalog does not depend on the order of a tar.
        let mut order: Vec<u32> = (0..self.files.len() as u32).collect();
        order.sort_by(|a, b| self.files[*a as usize].path.cmp(&self.files[*b as usize].path));
        let mut rank = vec![0_u32; order.len()];
        for (place, file) in order.iter().enumerate() {
            rank[*file as usize] = place as u32;
        }
        let mut records: Vec<Record> = self.records.into_iter().filter(|r| !ignored[r.file as usize]).collect();
        records.sort_by_key(|record| (rank[record.file as usize], record.blob));
        let mut assembly = Assembly::default();
        for record in records {
            assembly.take(record);
        }
        let Parts { packages, others, orphans } = assembly.finish();
        if packages.is_empty() && others.is_empty() && orphans.is_empty() {
            let cause = format!("there is no document in `{}`", origin.path);
            return Err(Error::new(ErrorKind::Content, "read a catalog", cause)
                .hint("the catalog is empty, or its label names another directory than the one that has it"));
        }
        Ok(Catalog { packages, others, orphans, spool: self.spool.finish()?, origin })
    }
}

/// Packages in the making.
#[derive(Default)]
struct Assembly {
    packages: BTreeMap<Text, Package>,
    /// By package: what its bundles say of channels themselves.
    former: HashMap<Text, Vec<(Text, Former)>>,
    others: Vec<Blob>,
}

/// Packages, documents of none, and documents of packages that are not there.
struct Parts {
    packages: BTreeMap<Text, Package>,
    others: Vec<Blob>,
    orphans: Vec<Blob>,
}

impl Assembly {
    fn package(&mut self, name: &Text) -> &mut Package {
        self.packages.entry(Text::clone(name)).or_insert_with(|| Package {
            name: Text::clone(name),
            default_channel: None,
            channels: Vec::new(),
            bundles: Vec::new(),
            faults: Vec::new(),
            blob: None,
            deprecations: Vec::new(),
            others: Vec::new(),
        })
    }

    fn take(&mut self, record: Record) {
        let blob = record.blob;
        match record.document {
            Document::Package { name, default_channel } => {
                let package = self.package(&name);
                if package.blob.is_some() {
                    package.faults.push(format!("package `{name}` is described twice"));
                    return;
                }
                (package.blob, package.default_channel) = (Some(blob), default_channel);
            }
            Document::Channel { package, name, entries } => {
                self.package(&package).channels.push(Channel { name, entries, blob: Some(blob) });
            }
            Document::Bundle { package, bundle, former } => {
                if !former.channels.is_empty() {
                    self.former.entry(Text::clone(&package)).or_default().push((Text::clone(&bundle.name), former));
                }
                self.package(&package).bundles.push(bundle);
            }
            Document::Deprecations { package } => self.package(&package).deprecations.push(blob),
            Document::Other { package: Some(package) } => self.package(&package).others.push(blob),
            Document::Other { package: None } => self.others.push(blob),
        }
    }

    /// Sorts, and says what is wrong with which package.
    fn finish(mut self) -> Parts {
        for package in self.packages.values_mut() {
            if package.channels.is_empty()
                && let Some(former) = self.former.remove(&package.name)
            {
                package.channels = former_channels(former);
            }
            let mut faults = Vec::new();
            let mut once = |what: &str, names: &mut dyn Iterator<Item = &Text>| {
                let mut seen = HashSet::new();
                faults.extend(
                    names.filter(|n| !seen.insert(Text::clone(n))).map(|n| format!("{what} `{n}` occurs twice")),
                );
            };
            once("channel", &mut package.channels.iter().map(|c| &c.name));
            once("bundle", &mut package.bundles.iter().map(|b| &b.name));
            package.faults.append(&mut faults);
            if package.blob.is_none() {
                package.faults.push(format!("package `{}` has no `olm.package`", package.name));
            }
            // Stable: of two with one name the first counts.
            package.channels.sort_by(|a, b| a.name.cmp(&b.name));
            package.channels.dedup_by(|a, b| a.name == b.name);
            package.bundles.sort_by(|a, b| a.name.cmp(&b.name));
            package.bundles.dedup_by(|a, b| a.name == b.name);
            package.bundles.shrink_to_fit();
        }
        // A package of which only documents of other kinds speak is none.
        let (packages, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = self
            .packages
            .into_iter()
            .partition(|(_, p)| p.blob.is_some() || !p.channels.is_empty() || !p.bundles.is_empty());
        let orphans = rest.into_values().flat_map(|package| package.others).collect();
        Parts { packages, others: self.others, orphans }
    }
}

/// Channels as they were written before there were documents for them: by each bundle for itself.
fn former_channels(bundles: Vec<(Text, Former)>) -> Vec<Channel> {
    let mut channels: BTreeMap<Text, Vec<Entry>> = BTreeMap::new();
    for (name, former) in bundles {
        for (channel, replaces) in former.channels {
            channels.entry(channel).or_default().push(Entry {
                name: Text::clone(&name),
                replaces,
                skips: former.skips.clone().into(),
                skip_range: former.skip_range.clone(),
            });
        }
    }
    channels.into_iter().map(|(name, entries)| Channel { name, entries, blob: None }).collect()
}

/// A YAML document as JSON; `None` where there is nothing in it. The error has the line within it.
fn from_yaml(bytes: &[u8]) -> Result<Option<Vec<u8>>, (u64, String)> {
    let text = std::str::from_utf8(bytes).map_err(|_| (1, "it is not UTF-8".to_owned()))?;
    let value: serde_json::Value = serde_saphyr::from_str(text).map_err(|e| {
        let line = e.location().map_or(1, |at| at.line());
        (line, format!("not valid YAML: {}", e.without_snippet()))
    })?;
    if value.is_null() {
        return Ok(None);
    }
    Ok(Some(sorted(&value).into_bytes()))
}
