//! Which image goes where: the names of `oc adm catalog mirror` (updates-and-releases.md 9).

use std::collections::BTreeMap;

use airlock_content::catalog::{Catalog, Text};
use airlock_oci::{Error, ErrorKind, Reference, Registry, Repository, Tag};

use crate::commands::places::{Destination, Spot, TREE, is_in_tree};
use crate::exit::Failure;

/// Where the images of one catalog go.
#[derive(Debug)]
pub(super) struct Mount {
    registry: Option<Registry>,
    /// What every repository begins with.
    prefix: Vec<String>,
    /// The same for what belongs to the catalog.
    content_prefix: Vec<String>,
    /// Most components; 0: no limit.
    most: usize,
}

/// An image, and where it goes.
#[derive(Clone, Debug)]
pub(super) struct Mapped {
    /// As clusters ask for it.
    pub name: Reference,
    /// Where it is read.
    pub source: Reference,
    /// As `oc image mirror -f` names what is read: in a file tree by tag.
    pub listed: Reference,
    pub destination: Destination,
}

/// An image of a catalog that is not mirrored, and why.
#[derive(Debug)]
pub(super) struct Unmapped {
    pub text: Text,
    pub error: Error,
}

/// The catalog's name on the command line. In a file tree it has a host that no registry has.
pub(super) fn source(text: &str) -> Result<Reference, Failure> {
    let (name, expected) = match text.strip_prefix("file://") {
        Some(name) => (format!("{TREE}/{}", name.trim_start_matches('/')), "write file://NAME:TAG"),
        None => (
            text.strip_prefix("docker://").unwrap_or(text).to_owned(),
            "write HOST/NAME:TAG, HOST/NAME@sha256:… or file://NAME:TAG",
        ),
    };
    let name: Reference = name.parse().map_err(|e| Failure::usage(format!("`{text}`: {e}"), expected))?;
    Ok(name.pulled())
}

impl Mount {
    /// Reads the destination.
    pub(super) fn read(text: &str, source: &Reference, most: usize) -> Result<Self, Failure> {
        if most == 1 {
            return Err(Failure::usage(
                "--max-components must be 0 (no limit) or greater than 1",
                "a repository has a namespace and a name: write 2, or 0",
            ));
        }
        let bad = |why: String| {
            Failure::usage(format!("`{text}`: {why}"), "write HOST[:PORT], HOST[:PORT]/NAMESPACE or file://NAME")
        };
        if text.starts_with("s3://") {
            return Err(bad("object stores are not written to".to_owned()));
        }
        let own = |prefix: &[String]| prefix.iter().cloned().chain(parts(source.repository())).collect();
        if let Some(path) = text.strip_prefix("file://") {
            let prefix = components(path.trim_matches('/')).map_err(bad)?;
            return Ok(Self { registry: None, content_prefix: own(&prefix), prefix, most: 0 });
        }
        let text = text.strip_prefix("docker://").unwrap_or(text).trim_end_matches('/');
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let registry = Registry::new(host).map_err(|e| bad(e.to_string()))?;
        let prefix = components(path).map_err(bad)?;
        Ok(Self { registry: Some(registry), content_prefix: prefix.clone(), prefix, most })
    }

    /// Whether images go into a file tree.
    pub(super) fn is_tree(&self) -> bool {
        self.registry.is_none()
    }

    /// Where the catalog itself goes.
    pub(super) fn index(&self, name: &Reference) -> Result<Mapped, Error> {
        let destination = self.destination(&self.prefix, name)?;
        Ok(Mapped { name: name.clone(), source: name.clone(), listed: name.clone(), destination })
    }

    /// Where everything goes that the catalog names, each image once; and what cannot be mirrored. An image of a catalog in a file tree is read
    /// there.
    pub(super) fn content(&self, index: &Reference, catalog: &Catalog) -> (Vec<Mapped>, Vec<Unmapped>) {
        let (mut mapped, mut unmapped) = (BTreeMap::new(), Vec::new());
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        for text in images(catalog) {
            match self.one(index, &text) {
                Err(error) => unmapped.push(Unmapped { text, error }),
                Ok(image) => {
                    let (name, to) = (image.name.to_string(), image.destination.to_string());
                    match taken.get(&to) {
                        Some(other) if *other != name => {
                            let cause = format!("`{other}` goes to `{to}` as well");
                            let error = Error::new(ErrorKind::Refused, format!("mirror `{name}`"), cause)
                                .hint("names at the destination have no registry; copy it elsewhere with `airlock image copy`");
                            unmapped.push(Unmapped { text, error });
                        }
                        _ => {
                            taken.insert(to, name.clone());
                            mapped.insert(name, image);
                        }
                    }
                }
            }
        }
        (mapped.into_values().collect(), unmapped)
    }

    fn one(&self, index: &Reference, text: &str) -> Result<Mapped, Error> {
        let plain = text.strip_prefix("docker://").unwrap_or(text);
        let failed = |cause: String| Error::new(ErrorKind::Invalid, format!("mirror `{text}`"), cause);
        if plain.contains("://") || plain.starts_with("oci:") {
            return Err(failed("it is no image in a registry".to_owned()));
        }
        let name: Reference = plain.parse().map_err(|e: airlock_oci::reference::ParseError| failed(e.to_string()))?;
        let name = name.pulled();
        let destination = self.destination(&self.content_prefix, &name)?;
        if !is_in_tree(index) {
            return Ok(Mapped { source: name.clone(), listed: name.clone(), name, destination });
        }
        let below = format!("{}/{}", index.repository(), name.repository());
        let repository = Repository::new(&below).map_err(|e| failed(e.to_string()))?;
        let at = |tag, digest| Reference::new(index.registry().clone(), repository.clone(), tag, digest);
        let source = at(name.tag().cloned(), name.digest().cloned());
        Ok(Mapped { source, listed: at(Some(destination.tag.clone()), None), name, destination })
    }

    fn destination(&self, prefix: &[String], name: &Reference) -> Result<Destination, Error> {
        let failed = |e: airlock_oci::reference::ParseError| {
            Error::new(ErrorKind::Invalid, format!("name the mirror of `{name}`"), e)
        };
        let mut all: Vec<String> = prefix.iter().cloned().chain(parts(name.repository())).collect();
        if self.most > 1 && all.len() > self.most {
            let rest = all.split_off(self.most - 1).join("-");
            all.push(rest);
        }
        let repository = Repository::new(&all.join("/")).map_err(failed)?;
        let tag = match (name.digest(), name.tag()) {
            (Some(_), _) => Tag::new(&digest_tag(name)).map_err(failed)?,
            (None, Some(tag)) => tag.clone(),
            (None, None) => Tag::new("latest").map_err(failed)?,
        };
        Ok(Destination { spot: Spot { registry: self.registry.clone(), repository }, tag })
    }
}

/// The tag of an image that has none: 32-bit FNV-1a over its whole name, without leading zeros.
fn digest_tag(name: &Reference) -> String {
    const OFFSET: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let hash = name.to_string().bytes().fold(OFFSET, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(PRIME));
    format!("{hash:x}")
}

fn parts(repository: &Repository) -> impl Iterator<Item = String> {
    repository.components().map(str::to_owned)
}

fn components(path: &str) -> Result<Vec<String>, String> {
    if path.is_empty() {
        return Ok(Vec::new());
    }
    if path.contains([':', '@']) {
        return Err("a destination has neither tag nor digest".to_owned());
    }
    Repository::new(path).map(|repository| parts(&repository).collect()).map_err(|e| e.to_string())
}

/// Everything that a catalog names as an image, once, sorted.
fn images(catalog: &Catalog) -> Vec<Text> {
    let bundles = catalog.packages().flat_map(|package| &package.bundles);
    let mut found: Vec<Text> =
        bundles.flat_map(|b| b.related.iter().chain([&b.image])).filter(|i| !i.is_empty()).map(Text::clone).collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use airlock_content::catalog;

    use super::*;
    use crate::commands::places::shown;

    fn vectors() -> Option<PathBuf> {
        let shared = std::env::var_os("AIRLOCK_SHARED").map(PathBuf::from);
        let shared = shared.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"));
        let folder = shared.join("vectors/updates/catalog");
        if folder.is_dir() {
            return Some(folder);
        }
        assert!(std::env::var_os("AIRLOCK_REQUIRE_TOOLS").is_none(), "{} is absent", folder.display());
        println!("skipped: {} is absent", folder.display());
        None
    }

    #[test]
    fn images_are_named_as_oc_names_them() {
        let Some(folder) = vectors() else { return };
        let temporary = tempfile::tempdir().unwrap();
        let catalogs = [
            catalog::read_directory(&folder.join("test-declcfg"), temporary.path()).unwrap(),
            catalog::read_database(&folder.join("sqlite-index.db"), temporary.path()).unwrap(),
        ];
        let read = std::fs::read(folder.join("mapping-cases.json")).unwrap();
        let vectors: serde_json::Value = serde_json::from_slice(&read).unwrap();
        for (name, tag) in vectors["fnvExamples"].as_object().unwrap() {
            assert_eq!(digest_tag(&name.parse().unwrap()), tag.as_str().unwrap());
        }
        let cases = vectors["cases"].as_array().unwrap();
        for (case, catalog) in cases.iter().flat_map(|case| catalogs.iter().map(move |catalog| (case, catalog))) {
            let text = |field: &str| case[field].as_str().unwrap();
            let most = usize::try_from(case["maxComponents"].as_u64().unwrap()).unwrap();
            let index = source(text("source")).unwrap();
            let mount = Mount::read(text("dest"), &index, most).unwrap();
            let (content, unmapped) = mount.content(&index, catalog);
            assert!(unmapped.is_empty(), "{unmapped:?}");
            let all = content.into_iter().chain([mount.index(&index).unwrap()]);
            let found: BTreeMap<String, String> = all.map(|m| (shown(&m.listed), m.destination.to_string())).collect();
            let expected = case["mapping"].as_object().unwrap();
            for (from, to) in expected {
                assert_eq!(found.get(from).map(String::as_str), to.as_str(), "{from} of {}", text("dest"));
            }
            assert!(case["partial"] == true || expected.len() == found.len(), "{found:?}");
        }
        assert!(cases.len() >= 5);
    }

    #[test]
    fn destinations_that_nothing_can_go_to_are_refused() {
        let index = source("quay.io/a/b:1").unwrap();
        for (text, most) in
            [("h.io", 1), ("h.io/a:tag", 2), ("h.io/A", 2), ("s3://a/b/c", 2), ("", 2), ("file://a:b", 2)]
        {
            assert!(Mount::read(text, &index, most).is_err(), "{text} {most}");
        }
        assert!(source("https://x").is_err() && source("").is_err());
    }
}
