//! `airlock release info|extract`: looks into release payloads.

mod extract;
mod info;
mod mirrors;
mod pack;
mod programs;

use std::path::Path;
use std::sync::Arc;

use airlock_content::release::{Component, Parts, Payload};
use airlock_mirror::archives::{ArchiveSource, Archives};
use airlock_mirror::event::Events;
use airlock_oci::{Error, Found, Manifest, Reference, Repository, Source};

use crate::args::registries::Side;
use crate::args::release::{ExtractArgs, InfoArgs, WhereArgs};
use crate::commands::{file_path, image};
use crate::exit::Failure;
use crate::progress::{Look, Progress};

/// The last part of the name under which releases are mirrored, and that of their components beside it (oc-mirror.md 4.3).
const MIRRORED: (&str, &str) = ("release-images", "release");

/// Runs `release info`.
pub(crate) async fn info(args: InfoArgs, look: Look) -> Result<u8, Failure> {
    let progress = Progress::start(look);
    let result = info::run(args, &progress.events()).await;
    progress.end();
    result
}

/// Runs `release extract`.
pub(crate) async fn extract(args: ExtractArgs, look: Look) -> Result<u8, Failure> {
    let progress = Progress::start(look);
    let result = extract::run(args, &progress.events()).await;
    progress.end();
    result
}

/// A release, and where it is read.
struct Opened {
    source: Arc<dyn Source>,
    payload: Payload,
    /// Whether its name means something to others: that of an image in a layout is made up.
    named: bool,
}

/// Finds a release and reads it.
async fn open(release: &str, place: &WhereArgs, events: &Events) -> Result<Opened, Failure> {
    let (source, name): (Arc<dyn Source>, Reference) = match &place.from {
        Some(from) => {
            let archives = Archives::open(&[file_path(from, "--from")?])?;
            let image::Place::Registry(name) = image::parse(release)? else {
                return Err(Failure::usage(
                    format!("`{release}` is no name within an archive"),
                    "name the release as it was mirrored: quay.io/openshift-release-dev/ocp-release:4.16.0-x86_64",
                ));
            };
            (Arc::new(ArchiveSource(Arc::new(archives))), name)
        }
        None => {
            let side = Side { rules: mirrors::rules(place)?, ..place.side.side() };
            image::open(&image::parse(release)?, &place.common, &side, events)?
        }
    };
    let parts = Parts { boot_images: false, platform: place.platform.clone() };
    let payload = Payload::read(source.as_ref(), &name, parts).await?;
    let named = place.from.is_some() || matches!(image::parse(release)?, image::Place::Registry(_));
    Ok(Opened { source, payload, named })
}

impl Opened {
    /// A component's manifest, and the name under which it was found: of a mirrored release beside it, so that nothing is asked of the
    /// place that it was mirrored from; else where the release says.
    async fn component(&self, component: &Component) -> Result<(Reference, Found<Manifest>), Error> {
        for name in beside(&self.payload.name, &component.image) {
            // What a mirror answers to a name that it does not have is not always "not found".
            if let Ok(found) = self.source.manifest(&name).await {
                return Ok((name, found));
            }
        }
        let found = self.source.manifest(&component.image).await.map_err(|error| {
            let what = format!("read the component `{}` of the release `{}`", component.name, self.payload.name);
            error.context(what)
        })?;
        Ok((component.image.clone(), found))
    }
}

/// Where the components of a mirrored release are: in its own repository (`oc adm release mirror`), or in the one beside it.
pub(super) fn beside(release: &Reference, component: &Reference) -> Vec<Reference> {
    let Some(digest) = component.digest().filter(|_| release.registry() != component.registry()) else {
        return Vec::new();
    };
    let own = release.repository().as_str();
    let sibling = own.strip_suffix(MIRRORED.0).filter(|rest| rest.is_empty() || rest.ends_with('/'));
    let sibling = sibling.and_then(|rest| Repository::new(&format!("{rest}{}", MIRRORED.1)).ok());
    let at =
        |repository: Repository| Reference::new(release.registry().clone(), repository, None, Some(digest.clone()));
    sibling.into_iter().chain([release.repository().clone()]).map(at).collect()
}

/// The directory of a path that a command writes to, for messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_of_a_mirrored_release_are_looked_for_beside_it() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let component: Reference = format!("quay.io/openshift-release-dev/ocp-v4.0-art-dev@{digest}").parse().unwrap();
        let of = |release: &str| -> Vec<String> {
            beside(&release.parse().unwrap(), &component).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            of("mirror.example:5000/ns/openshift/release-images:4.16.0-x86_64"),
            [
                format!("mirror.example:5000/ns/openshift/release@{digest}"),
                format!("mirror.example:5000/ns/openshift/release-images@{digest}")
            ]
        );
        assert_eq!(of("mirror.example/ocp4:4.16.0"), [format!("mirror.example/ocp4@{digest}")]);
        assert_eq!(of("mirror.example/my-release-images:1"), [format!("mirror.example/my-release-images@{digest}")]);
        assert!(of("quay.io/openshift-release-dev/ocp-release:4.16.0-x86_64").is_empty());
    }
}
