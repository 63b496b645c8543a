//! The images of the chosen bundles: their own and those that they need, each once, with every reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use airlock_oci::{Error, ErrorKind, Reference};

use super::doctor;
use super::model::{Catalog, Text};
use super::select::{Dropped, Rule, Selection};

/// The images of a selection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Related {
    /// By what the catalog writes.
    pub images: BTreeMap<Text, RelatedImage>,
    /// What cannot be an image's name.
    pub invalid: Vec<InvalidImage>,
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelatedImage {
    /// Its name.
    pub reference: Reference,
    /// Whether it is a bundle's own image.
    pub bundle: bool,
    /// Which bundles need it.
    pub needed: BTreeSet<Arc<NeededBy>>,
}

/// A bundle that needs an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeededBy {
    /// The package.
    pub package: Text,
    /// The bundle.
    pub bundle: Text,
    /// The channels that keep it.
    pub channels: Vec<Text>,
}

/// Something in the place of an image's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InvalidImage {
    /// As written.
    pub text: Text,
    /// Why it is none.
    pub cause: String,
    /// Which bundles need it.
    pub needed: BTreeSet<Arc<NeededBy>>,
}

/// What [`leave_out`] took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Bundles that need one of the images, with those images.
    pub bundles: BTreeMap<BundleName, BTreeSet<Text>>,
    /// Packages of which a channel would no longer be whole, with all of their bundles.
    pub packages: Vec<Dropped>,
}

/// A bundle by its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BundleName {
    /// The package.
    pub package: Text,
    /// The bundle.
    pub bundle: Text,
}

/// The images of everything that is kept. By [`Rule::Head`] a name that is none is an error, and so is a selection without any image.
pub fn related(catalog: &Catalog, selection: &Selection) -> Result<Related, Error> {
    let mut found = Related::default();
    let mut invalid: BTreeMap<Text, InvalidImage> = BTreeMap::new();
    for (package, kept) in &selection.packages {
        let Some(known) = catalog.package(package) else { continue };
        for name in kept.bundles.keys() {
            let Some(bundle) = known.bundle(name) else { continue };
            let channels = kept.channels.iter().filter(|(_, entries)| entries.contains(name));
            let needed = Arc::new(NeededBy {
                package: Text::clone(package),
                bundle: Text::clone(name),
                channels: channels.map(|(channel, _)| Text::clone(channel)).collect(),
            });
            // Its own image is usually among those that it needs; it is carried in any case.
            let own = Some(&bundle.image).filter(|image| !image.is_empty());
            for image in own.into_iter().chain(&bundle.related) {
                let is_own = own.is_some_and(|own| own == image);
                if let Some(known) = found.images.get_mut(image) {
                    known.bundle |= is_own;
                    known.needed.insert(Arc::clone(&needed));
                    continue;
                }
                match parse(image) {
                    Ok(reference) => {
                        let one = RelatedImage { reference, bundle: is_own, needed: [Arc::clone(&needed)].into() };
                        found.images.insert(Text::clone(image), one);
                    }
                    Err(cause) => {
                        let text = Text::clone(image);
                        let one = InvalidImage { text: Text::clone(&text), cause, needed: BTreeSet::new() };
                        invalid.entry(text).or_insert(one).needed.insert(Arc::clone(&needed));
                    }
                }
            }
        }
    }
    found.invalid = invalid.into_values().collect();
    if selection.rule == Rule::Head {
        if let Some(first) = found.invalid.first() {
            return Err(Error::new(ErrorKind::Content, "collect the images of the bundles", first)
                .hint("oc-mirror's rules refuse the whole catalog; --selection table leaves the bundle out"));
        }
        if found.images.is_empty() {
            return Err(Error::new(ErrorKind::Content, "collect the images of the bundles", "no related images found"));
        }
    }
    Ok(found)
}

/// A name that can be pulled: with a tag or a digest.
fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    let text = text.strip_prefix("docker://").unwrap_or(text);
    if text.contains("://") || text.starts_with("oci:") {
        return Err("it is no image in a registry".to_owned());
    }
    let reference: Reference = text.parse().map_err(|e: airlock_oci::reference::ParseError| e.to_string())?;
    if reference.tag().is_none() && reference.digest().is_none() {
        return Err("tag and digest are empty".to_owned());
    }
    Ok(reference)
}

/// Takes the bundles that need one of `missing` (as the catalog writes them) out of a selection, and with them the packages of which a channel is no
/// longer whole: OLM would refuse the catalog with such a channel, and a channel that was mended by hand would update past a bundle that its
/// publisher put on the way.
pub fn leave_out(catalog: &Catalog, selection: &Selection, missing: &BTreeSet<Text>) -> (Selection, LeftOut) {
    let (mut rest, mut left) = (selection.clone(), LeftOut::default());
    for (name, kept) in &selection.packages {
        let Some(package) = catalog.package(name) else { continue };
        let mut gone: BTreeSet<Text> = BTreeSet::new();
        for bundle in kept.bundles.keys().filter_map(|bundle| package.bundle(bundle)) {
            let lacks: BTreeSet<Text> = bundle
                .related
                .iter()
                .chain([&bundle.image])
                .filter(|i| missing.contains(*i))
                .map(Text::clone)
                .collect();
            if !lacks.is_empty() {
                gone.insert(Text::clone(&bundle.name));
                let of = BundleName { package: Text::clone(name), bundle: Text::clone(&bundle.name) };
                left.bundles.insert(of, lacks);
            }
        }
        if gone.is_empty() {
            continue;
        }
        // A catalog that was to stay as it is must be built anew now.
        rest.whole = false;
        let Some(kept) = rest.packages.get_mut(name) else { continue };
        kept.bundles.retain(|bundle, _| !gone.contains(bundle));
        for entries in kept.channels.values_mut() {
            entries.retain(|entry| !gone.contains(entry));
        }
        let listed: Vec<String> = gone.iter().map(|bundle| format!("`{bundle}`")).collect();
        let broken = kept.channels.iter().find_map(|(channel, entries)| {
            let cause = doctor::broken_channel(package, channel, entries)?;
            Some(format!("without {} channel `{channel}` of package `{name}` would break: {cause}", listed.join(", ")))
        });
        if let Some(cause) = broken {
            let asked = selection.packages[name].bundles.values().flatten().next().map(|why| why.asked.clone());
            let asked = asked.unwrap_or(super::select::Asked::Catalog);
            left.packages.push(Dropped { package: Text::clone(name), asked, cause });
            rest.packages.remove(name);
        }
    }
    rest.dropped.extend(left.packages.iter().cloned());
    (rest, left)
}

impl fmt::Display for InvalidImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bundles: Vec<String> =
            self.needed.iter().map(|n| format!("bundle `{}` of operator `{}`", n.bundle, n.package)).collect();
        write!(f, "invalid related image `{}` ({}): {}", self.text, bundles.join(", "), self.cause)
    }
}
