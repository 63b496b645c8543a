//! What the registry's page shows of releases and catalogs: read out of the storage that is served, by those who understand them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use airlock_content::catalog;
use airlock_content::release::{Contents, Parts};
use airlock_mirror::archives::{Archives, Opened};
use airlock_mirror::receipt;
use airlock_oci::{Error, ErrorKind, Reference};
use airlock_registry::page::{Catalog, Channel, Component, Content, Describe, Needed, Package, Pin, Release, Version};
use airlock_store::Verified;
use airlock_store::source::StorageSource;
use async_trait::async_trait;

use crate::environment;

/// The registry of the names under which the storage is asked; nobody sees it.
const HERE: &str = "here.localhost";

/// Reads releases and catalogs with the crates that mirroring uses.
#[derive(Default)]
pub(super) struct Describer {
    /// The archives that are served, if any: when they were verified is in the user's receipts.
    pub archives: Option<Arc<Archives>>,
}

fn source(content: &Content) -> Result<(StorageSource<dyn airlock_store::Storage>, Reference), Error> {
    let name = format!("{HERE}/{}@{}", content.repository, content.digest);
    let name = name.parse().map_err(|e| Error::new(ErrorKind::Invalid, format!("name `{name}`"), e))?;
    Ok((StorageSource::new(Arc::clone(&content.storage)), name))
}

#[async_trait]
impl Describe for Describer {
    async fn catalog(&self, image: Content) -> Result<Catalog, Error> {
        let (source, name) = source(&image)?;
        let read = catalog::read(&source, &name, &std::env::temp_dir()).await?;
        // Thousands of bundles are gone through: not on a thread that serves others.
        tokio::task::spawn_blocking(move || packages(&read))
            .await
            .map_err(|e| Error::new(ErrorKind::Interrupted, "read a catalog", e))
    }

    async fn release(&self, image: Content) -> Result<Release, Error> {
        let (source, name) = source(&image)?;
        let contents = Contents::read(&source, &name, Parts::default()).await?;
        let components = contents.references.components.into_iter().filter_map(|component| {
            let digest = component.image.digest()?.clone();
            let needed = Needed { pin: Pin::of(&digest), source: component.image.name().into() };
            Some(Component { name: component.name, needed, digest })
        });
        Ok(Release {
            version: contents.metadata.version.to_string(),
            components: components.collect(),
            previous: contents.metadata.previous.iter().map(ToString::to_string).collect(),
        })
    }

    fn verified(&self) -> Option<Verified> {
        let archives = self.archives.as_ref()?;
        let state = environment::state();
        let mut at: Option<SystemTime> = None;
        for opened in archives.list() {
            // What oc-mirror wrote has no seal, and so no receipt.
            let Opened::Ours { archive, .. } = opened else { return None };
            let when = receipt::when(&state, archive)?;
            at = Some(at.map_or(when, |at| at.min(when)));
        }
        Some(Verified { at: at?, files: 0, bytes: 0, damage: Vec::new() })
    }
}

/// The packages of a catalog as the page shows them.
fn packages(read: &catalog::Catalog) -> Catalog {
    // Thousands of bundles name the same few hundred repositories.
    let mut sources: HashMap<String, Arc<str>> = HashMap::new();
    let mut packages = Vec::new();
    for package in read.packages() {
        let versions = package.bundles.iter().map(|bundle| {
            let (mut needs, mut unpinned) = (Vec::new(), 0);
            let own = Some(&bundle.image).filter(|image| !image.is_empty());
            for text in own.into_iter().chain(bundle.related.iter()) {
                let reference = text.parse::<Reference>().ok();
                let Some((reference, digest)) = reference.as_ref().and_then(|r| Some((r, r.digest()?))) else {
                    unpinned += 1;
                    continue;
                };
                let name = reference.name();
                let source = sources.entry(name).or_insert_with_key(|name| name.as_str().into());
                let needed = Needed { pin: Pin::of(digest), source: Arc::clone(source) };
                if !needs.contains(&needed) {
                    needs.push(needed);
                }
            }
            Version { bundle: Arc::clone(&bundle.name), version: bundle.version.clone(), needs, unpinned }
        });
        let channels = package.channels.iter().map(|channel| Channel {
            name: channel.name.to_string(),
            head: channel.head().cloned(),
            bundles: channel.entries.iter().map(|entry| Arc::clone(&entry.name)).collect(),
        });
        let display_name = package.bundles.iter().rev().find_map(|bundle| bundle.display_name.as_ref());
        packages.push(Package {
            name: package.name.to_string(),
            display_name: display_name.map(ToString::to_string),
            default_channel: package.default_channel.as_ref().map(ToString::to_string),
            channels: channels.collect(),
            versions: versions.collect(),
        });
    }
    Catalog { packages, cut: false }
}
