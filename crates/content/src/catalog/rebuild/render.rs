//! The documents of the smaller catalog.
//!
//! What is kept whole stays as it was written, byte for byte; only channels that lost entries, packages that got another default channel and
//! deprecations are written anew, and of these too each entry stays as it was.

use std::collections::BTreeMap;

use airlock_oci::{Error, ErrorKind};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::catalog::model::{Catalog, Channel, Package, Text};
use crate::catalog::select::{Kept, Selection};
use crate::catalog::spool::{Blob, Spool};
use crate::derived::sorted;

/// A file of the smaller catalog.
pub(super) struct Documents {
    /// Below the catalog's directory.
    pub(super) path: String,
    /// Its documents, in order.
    pub(super) documents: Vec<Document>,
}

/// A document.
pub(super) enum Document {
    /// As it was written.
    Kept(Blob),
    /// Written anew.
    New(Vec<u8>),
}

/// Fields as they were written.
type Fields = BTreeMap<String, Box<RawValue>>;

#[derive(Deserialize)]
struct Named {
    name: Option<String>,
}

#[derive(Deserialize)]
struct Deprecated {
    reference: Option<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    schema: Option<String>,
    name: Option<String>,
}

/// The files: one for each package, and one for what belongs to none.
pub(super) fn documents(catalog: &Catalog, selection: &Selection) -> Result<Vec<Documents>, Error> {
    let mut files = Vec::new();
    let mut others: Vec<Document> = catalog.others.iter().map(|blob| Document::Kept(*blob)).collect();
    if !selection.listed {
        others.extend(catalog.orphans.iter().map(|blob| Document::Kept(*blob)));
    }
    if !others.is_empty() {
        files.push(Documents { path: "others.json".into(), documents: others });
    }
    for (name, kept) in &selection.packages {
        let Some(package) = catalog.package(name) else { continue };
        let documents = of_package(package, kept, &catalog.spool)?;
        files.push(Documents { path: format!("{}/catalog.json", folder(name)), documents });
    }
    Ok(files)
}

/// A name as a directory: what is no plain name is written in hex.
fn folder(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let odd = name.starts_with('.');
    name.bytes()
        .enumerate()
        .map(|(at, b)| if plain(b) && !(odd && at == 0) { char::from(b).to_string() } else { format!("%{b:02x}") })
        .collect()
}

fn of_package(package: &Package, kept: &Kept, spool: &Spool) -> Result<Vec<Document>, Error> {
    let mut documents = vec![description(package, kept, spool)?];
    for (name, entries) in &kept.channels {
        let Some(channel) = package.channel(name) else { continue };
        let keeps = |name: &str| entries.contains(name);
        documents.push(match channel.blob {
            Some(blob) if channel.entries.iter().all(|e| keeps(&e.name)) => Document::Kept(blob),
            Some(blob) => Document::New(smaller_channel(&spool.get(blob)?, &keeps)?),
            None => Document::New(written_channel(package, channel, &keeps)),
        });
    }
    let bundles = kept.bundles.keys().filter_map(|name| package.bundle(name));
    documents.extend(bundles.map(|bundle| Document::Kept(bundle.blob)));
    for blob in &package.deprecations {
        if let Some(bytes) = smaller_deprecations(&spool.get(*blob)?, kept)? {
            documents.push(Document::New(bytes));
        }
    }
    documents.extend(package.others.iter().map(|blob| Document::Kept(*blob)));
    Ok(documents)
}

fn description(package: &Package, kept: &Kept, spool: &Spool) -> Result<Document, Error> {
    let default = kept.default_channel.as_ref();
    match package.blob {
        Some(blob) if default == package.default_channel.as_ref() => Ok(Document::Kept(blob)),
        Some(blob) => {
            let mut fields = fields(&spool.get(blob)?)?;
            fields.insert("defaultChannel".into(), raw(&default.map(|d| &**d))?);
            write(&fields).map(Document::New)
        }
        None => {
            let document =
                json!({"schema": "olm.package", "name": *package.name, "defaultChannel": default.map(|d| &**d)});
            Ok(Document::New(sorted(&document).into_bytes()))
        }
    }
}

fn smaller_channel(document: &[u8], keeps: &dyn Fn(&str) -> bool) -> Result<Vec<u8>, Error> {
    let mut fields = fields(document)?;
    let entries: Vec<Box<RawValue>> = match fields.get("entries") {
        Some(entries) => serde_json::from_str(entries.get()).map_err(|e| broken(&e))?,
        None => Vec::new(),
    };
    let mut left = Vec::new();
    for entry in entries {
        let named: Named = serde_json::from_str(entry.get()).map_err(|e| broken(&e))?;
        if named.name.as_deref().is_some_and(keeps) {
            left.push(entry);
        }
    }
    fields.insert("entries".into(), raw(&left)?);
    write(&fields)
}

fn written_channel(package: &Package, channel: &Channel, keeps: &dyn Fn(&str) -> bool) -> Vec<u8> {
    let text = |text: &Option<Text>| text.as_deref().map(str::to_owned);
    let entries: Vec<_> = channel
        .entries
        .iter()
        .filter(|entry| keeps(&entry.name))
        .map(|entry| {
            let mut value = json!({"name": *entry.name});
            if let Some(replaces) = text(&entry.replaces) {
                value["replaces"] = replaces.into();
            }
            if !entry.skips.is_empty() {
                value["skips"] = entry.skips.iter().map(|skip| skip.to_string()).collect();
            }
            if let Some(range) = text(&entry.skip_range) {
                value["skipRange"] = range.into();
            }
            value
        })
        .collect();
    let document =
        json!({"schema": "olm.channel", "package": *package.name, "name": *channel.name, "entries": entries});
    sorted(&document).into_bytes()
}

/// What is said of channels and bundles that stay; `None` when that is nothing.
fn smaller_deprecations(document: &[u8], kept: &Kept) -> Result<Option<Vec<u8>>, Error> {
    let mut fields = fields(document)?;
    let entries: Vec<Box<RawValue>> = match fields.get("entries") {
        Some(entries) => serde_json::from_str(entries.get()).map_err(|e| broken(&e))?,
        None => Vec::new(),
    };
    let mut left = Vec::new();
    for entry in entries {
        let of: Deprecated = serde_json::from_str(entry.get()).map_err(|e| broken(&e))?;
        let of = of.reference.as_ref().map(|r| (r.schema.as_deref().unwrap_or(""), r.name.as_deref().unwrap_or("")));
        let stays = match of {
            Some(("olm.channel", name)) => kept.channels.contains_key(name),
            Some(("olm.bundle", name)) => kept.bundles.contains_key(name),
            _ => true,
        };
        if stays {
            left.push(entry);
        }
    }
    if left.is_empty() {
        return Ok(None);
    }
    fields.insert("entries".into(), raw(&left)?);
    write(&fields).map(Some)
}

fn fields(document: &[u8]) -> Result<Fields, Error> {
    serde_json::from_slice(document).map_err(|e| broken(&e))
}

fn raw(value: &impl serde::Serialize) -> Result<Box<RawValue>, Error> {
    to_raw_value(value).map_err(|e| broken(&e))
}

fn write(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|e| broken(&e))
}

fn broken(error: &serde_json::Error) -> Error {
    Error::new(ErrorKind::Content, "write a document of the catalog", error)
}
