//! One document of a catalog: what it is, and what of it is kept in memory.

use std::collections::HashSet;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::catalog::model::{Bundle, Entry, Gvk, Needs, Required, Text};
use crate::catalog::spool::Blob;
use crate::derived::sorted;

/// Texts that exist once.
#[derive(Debug, Default)]
pub(in crate::catalog) struct Texts(HashSet<Text>);

/// What a document is.
#[derive(Debug)]
pub(in crate::catalog) enum Document {
    Package { name: Text, default_channel: Option<Text> },
    Channel { package: Text, name: Text, entries: Vec<Entry> },
    Bundle { package: Text, bundle: Bundle, former: Former },
    Deprecations { package: Text },
    Other { package: Option<Text> },
}

/// How a bundle said, before there were documents for channels, where it stands in them.
#[derive(Debug, Default)]
pub(in crate::catalog) struct Former {
    /// Channels, and what the bundle replaces there.
    pub(in crate::catalog) channels: Vec<(Text, Option<Text>)>,
    pub(in crate::catalog) skips: Vec<Text>,
    pub(in crate::catalog) skip_range: Option<Text>,
}

#[derive(Deserialize)]
struct Wire<'a> {
    schema: Option<String>,
    package: Option<String>,
    name: Option<String>,
    image: Option<String>,
    #[serde(rename = "defaultChannel")]
    default_channel: Option<String>,
    #[serde(borrow)]
    entries: Option<&'a RawValue>,
    #[serde(borrow)]
    properties: Option<&'a RawValue>,
    #[serde(borrow, rename = "relatedImages")]
    related: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct EntryWire {
    name: Option<String>,
    replaces: Option<String>,
    skips: Option<Vec<String>>,
    #[serde(rename = "skipRange")]
    skip_range: Option<String>,
}

#[derive(Deserialize)]
struct PropertyWire<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RelatedWire {
    image: Option<String>,
}

#[derive(Deserialize)]
struct GvkWire {
    group: Option<String>,
    version: Option<String>,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct PackageWire {
    #[serde(rename = "packageName")]
    package: Option<String>,
    version: Option<String>,
    #[serde(rename = "versionRange")]
    range: Option<String>,
}

#[derive(Deserialize)]
struct ChannelWire {
    name: Option<String>,
    replaces: Option<String>,
}

#[derive(Deserialize)]
struct CsvWire {
    #[serde(rename = "displayName")]
    display_name: Option<String>,
    annotations: Option<AnnotationsWire>,
}

/// Where a bundle says whether it works without a network, today and formerly.
#[derive(Deserialize)]
struct AnnotationsWire {
    #[serde(rename = "features.operators.openshift.io/disconnected")]
    disconnected: Option<String>,
    #[serde(rename = "operators.openshift.io/infrastructure-features")]
    infrastructure: Option<String>,
}

impl Texts {
    /// The one copy of this text.
    pub(in crate::catalog) fn one(&mut self, text: &str) -> Text {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let text: Text = text.into();
        self.0.insert(Arc::clone(&text));
        text
    }

    fn some(&mut self, text: Option<String>) -> Option<Text> {
        text.filter(|text| !text.is_empty()).map(|text| self.one(&text))
    }
}

/// Reads a document, which is kept at `blob`. The error is a line within the document and a sentence.
pub(in crate::catalog) fn parse(bytes: &[u8], blob: Blob, texts: &mut Texts) -> Result<Document, (u64, String)> {
    let wire: Wire<'_> = serde_json::from_slice(bytes).map_err(|e| (e.line() as u64, e.to_string()))?;
    understand(wire, blob, texts).map_err(|cause| (1, cause))
}

fn understand(wire: Wire<'_>, blob: Blob, texts: &mut Texts) -> Result<Document, String> {
    let schema = wire.schema.filter(|s| !s.is_empty()).ok_or("the document has no `schema`")?;
    let required = |field: Option<String>, what: &str| {
        field.filter(|f| !f.is_empty()).ok_or_else(|| format!("the `{schema}` has no `{what}`"))
    };
    match schema.as_str() {
        "olm.package" => {
            let name = texts.one(&required(wire.name, "name")?);
            Ok(Document::Package { name, default_channel: texts.some(wire.default_channel) })
        }
        "olm.channel" => {
            let name = texts.one(&required(wire.name, "name")?);
            let package = texts.one(&required(wire.package, "package")?);
            let entries: Option<Vec<EntryWire>> = part(wire.entries, "entries", &name)?;
            let entries = entries.unwrap_or_default().into_iter().map(|entry| {
                let skips = entry.skips.unwrap_or_default();
                let name = entry.name.filter(|n| !n.is_empty());
                let nameless =
                    || format!("an entry of channel `{name}` has no name", name = name.as_deref().unwrap_or(""));
                Ok(Entry {
                    name: texts.one(name.as_deref().ok_or_else(nameless)?),
                    replaces: texts.some(entry.replaces),
                    skips: skips.iter().filter(|s| !s.is_empty()).map(|s| texts.one(s)).collect(),
                    skip_range: texts.some(entry.skip_range),
                })
            });
            let entries = entries.collect::<Result<_, String>>()?;
            Ok(Document::Channel { package, name, entries })
        }
        "olm.bundle" => {
            let name = texts.one(&required(wire.name, "name")?);
            let package = texts.one(&required(wire.package, "package")?);
            let related: Option<Vec<RelatedWire>> = part(wire.related, "relatedImages", &name)?;
            let related = related.unwrap_or_default();
            let mut bundle = Bundle {
                image: texts.one(wire.image.as_deref().unwrap_or("")),
                version: None,
                related: related.iter().map(|r| texts.one(r.image.as_deref().unwrap_or(""))).collect(),
                needs: None,
                display_name: None,
                disconnected: None,
                blob,
                name,
            };
            let properties: Option<Vec<PropertyWire<'_>>> = part(wire.properties, "properties", &bundle.name)?;
            let (mut needs, mut former) = (Needs::default(), Former::default());
            for property in properties.unwrap_or_default() {
                let (Some(kind), Some(value)) = (property.kind, property.value) else { continue };
                take(&kind, value, &mut bundle, &mut needs, &mut former, texts)
                    .map_err(|e| format!("property `{kind}` of bundle `{}`: {e}", bundle.name))?;
            }
            bundle.needs = (needs != Needs::default()).then(|| Box::new(needs));
            Ok(Document::Bundle { package, bundle, former })
        }
        "olm.deprecations" => Ok(Document::Deprecations { package: texts.one(&required(wire.package, "package")?) }),
        _ => Ok(Document::Other { package: texts.some(wire.package) }),
    }
}

fn part<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>, field: &str, of: &str) -> Result<Option<T>, String> {
    let Some(raw) = raw else { return Ok(None) };
    serde_json::from_str(raw.get()).map_err(|e| format!("`{field}` of `{of}`: {e}"))
}

fn take(
    kind: &str,
    value: &RawValue,
    bundle: &mut Bundle,
    needs: &mut Needs,
    former: &mut Former,
    texts: &mut Texts,
) -> Result<(), serde_json::Error> {
    let json = value.get();
    match kind {
        "olm.package" => {
            let package: PackageWire = serde_json::from_str(json)?;
            bundle.version = texts.some(package.version);
        }
        "olm.gvk" => needs.provides.push(gvk(json, texts)?),
        "olm.gvk.required" => needs.kinds.push(gvk(json, texts)?),
        "olm.package.required" => {
            let package: PackageWire = serde_json::from_str(json)?;
            let (name, range) = (package.package.unwrap_or_default(), package.range.unwrap_or_default());
            needs.packages.push(Required { package: texts.one(&name), range: texts.one(&range) });
        }
        "olm.constraint" => {
            let value: serde_json::Value = serde_json::from_str(json)?;
            needs.constraints.push(sorted(&value).into());
        }
        "olm.channel" => {
            let channel: ChannelWire = serde_json::from_str(json)?;
            if let Some(name) = texts.some(channel.name) {
                former.channels.push((name, texts.some(channel.replaces)));
            }
        }
        "olm.skips" => {
            let skips: String = serde_json::from_str(json)?;
            former.skips.push(texts.one(&skips));
        }
        "olm.skipRange" => former.skip_range = texts.some(serde_json::from_str(json)?),
        "olm.csv.metadata" => {
            let csv: CsvWire = serde_json::from_str(json)?;
            bundle.display_name = texts.some(csv.display_name);
            bundle.disconnected = csv.annotations.and_then(|a| disconnected(&a));
        }
        _ => {}
    }
    Ok(())
}

fn gvk(json: &str, texts: &mut Texts) -> Result<Gvk, serde_json::Error> {
    let wire: GvkWire = serde_json::from_str(json)?;
    let mut one = |text: Option<String>| texts.one(text.as_deref().unwrap_or(""));
    Ok(Gvk { group: one(wire.group), version: one(wire.version), kind: one(wire.kind) })
}

fn disconnected(annotations: &AnnotationsWire) -> Option<bool> {
    match (&annotations.disconnected, &annotations.infrastructure) {
        (Some(says), _) => Some(says == "true"),
        (None, Some(features)) => Some(features.to_lowercase().contains("disconnected")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotations_are_read_by_their_names() {
        let cases = [
            (r#"{"features.operators.openshift.io/disconnected": "true"}"#, Some(true)),
            (r#"{"features.operators.openshift.io/disconnected": "false", "x": "y"}"#, Some(false)),
            (r#"{"operators.openshift.io/infrastructure-features": "[\"Disconnected\"]"}"#, Some(true)),
            (r#"{"operators.openshift.io/infrastructure-features": "[\"proxy\"]"}"#, Some(false)),
            ("{}", None),
        ];
        for (json, says) in cases {
            assert_eq!(disconnected(&serde_json::from_str(json).unwrap()), says, "{json}");
        }
    }
}
