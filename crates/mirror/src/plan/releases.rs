//! `platform` of a configuration: versions from the update graph, components from each payload (oc-mirror 5).

use std::sync::Arc;

use airlock_content::release::{self, Parts, Payload, machine};
use airlock_oci::{Digest, Error, ErrorKind, Reference, Repository, Source, Tag};
use airlock_updates as updates;
use airlock_updates::Service;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::Cache;
use super::model::{Kind, Missing, Reason, Release};
use super::origins::{Documents, GRAPHS, Origins, SIGNATURES, Signature};
use super::wanted::{Wanted, file_name};
use crate::config::{ImageLocation, Loaded, ReleaseKind, Releases};

/// Where payloads go (oc-mirror 4.3).
pub(crate) const PAYLOADS: &str = "openshift/release-images";
/// Where components go.
pub(crate) const COMPONENTS: &str = "openshift/release";
/// Payloads that are read side by side.
const PARALLEL_PAYLOADS: usize = 4;
/// The topic of payloads in the cache.
const PAYLOAD_NOTES: &str = "releases";
/// The first minor version whose clusters demand a sigstore signature of their payload.
const SIGSTORE_FROM: (u64, u64) = (4, 21);

/// What the section stands for.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub wanted: Vec<Wanted>,
    pub releases: Vec<Release>,
    pub documents: Documents,
    pub missing: Vec<Missing>,
    pub warnings: Vec<String>,
}

/// What is taken from whom.
pub(super) struct Reader<'a> {
    pub loaded: &'a Loaded,
    pub origins: &'a Origins,
    /// Payloads are read from it; manifests at hand are not asked for again.
    pub source: Arc<dyn Source>,
    pub cache: Arc<Cache>,
    /// Signatures are neither fetched nor judged.
    pub unsigned: bool,
    /// A failure of the section is told with what is missing, not as the failure of the whole plan.
    pub keep_going: bool,
}

/// A payload that was chosen, not read yet.
struct Chosen {
    name: String,
    payload: Reference,
    version: Option<String>,
    architecture: Option<String>,
    /// The tag that such a release has upstream.
    tag: Option<String>,
    reasons: Vec<Reason>,
}

/// What a payload says, as the cache keeps it. A digest pins it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Contents {
    version: String,
    architecture: String,
    components: Vec<(String, Reference)>,
    /// KubeVirt's disk by machine architecture; `None` when the boot images were not read.
    kubevirt: Option<Vec<(String, Reference)>>,
}

impl Reader<'_> {
    /// Finds everything that the section asks for.
    pub(super) async fn find(&self) -> Result<Found, Error> {
        let mut found = Found::default();
        let Some(platform) = &self.loaded.config.mirror.platform else { return Ok(found) };
        let chosen = match self.choose(platform, &mut found).await {
            Ok(chosen) => chosen,
            Err(error) if self.keep_going => {
                let reasons = vec![self.reason(platform.line, "platform")];
                found.missing.push(missing("mirror.platform", reasons, &error));
                return Ok(found);
            }
            Err(error) => return Err(error.context(format!("plan {}:{}", self.loaded.path.display(), platform.line))),
        };
        let mut read = futures_util::stream::iter(chosen)
            .map(|chosen| async move {
                let result = self.one(platform, &chosen).await;
                (chosen, result)
            })
            .buffered(PARALLEL_PAYLOADS);
        while let Some((chosen, result)) = read.next().await {
            match result {
                Ok(release) => add(platform, chosen, release, &mut found)?,
                Err(error) => found.missing.push(missing(&chosen.name, chosen.reasons, &error)),
            }
        }
        Ok(found)
    }

    fn reason(&self, line: u32, what: impl Into<String>) -> Reason {
        Reason { file: file_name(self.loaded), line, what: what.into() }
    }

    async fn choose(&self, platform: &Releases, found: &mut Found) -> Result<Vec<Chosen>, Error> {
        if let Some(name) = &platform.release {
            let ImageLocation::Registry(payload) = &name.location else {
                let cause = format!("`{}` is a layout on disk; a release is named by its registry", name.text);
                return Err(Error::new(ErrorKind::Unsupported, "find the release", cause));
            };
            if !platform.channels.is_empty() {
                found.warnings.push(format!(
                    "platform.release is set: the {} channels beside it are not looked at",
                    platform.channels.len()
                ));
            }
            return Ok(vec![Chosen {
                name: name.text.clone(),
                payload: payload.clone(),
                version: None,
                architecture: None,
                tag: None,
                reasons: vec![self.reason(platform.line, "platform.release")],
            }]);
        }
        let wanted = updates::Wanted {
            channels: platform
                .channels
                .iter()
                .map(|channel| updates::Channel {
                    name: channel.name.clone(),
                    line: channel.line,
                    service: match channel.kind {
                        ReleaseKind::Ocp => Service::Ocp,
                        ReleaseKind::Okd => Service::Okd,
                    },
                    min: channel.min_version.clone(),
                    max: channel.max_version.clone(),
                    full: channel.full,
                    shortest_path: channel.shortest_path,
                })
                .collect(),
            architectures: platform.architectures.clone(),
            platforms: !platform.platforms.is_empty(),
            avoid_risks: false,
        };
        let selection = updates::select(&wanted, self.origins.graphs.as_ref()).await?;
        found.warnings.extend(selection.notes.iter().map(ToString::to_string));
        for (query, bytes) in selection.answers {
            found.documents.insert(format!("{GRAPHS}{}", query.file_name()), bytes);
        }
        Ok(selection
            .releases
            .into_iter()
            .map(|release| Chosen {
                name: release.payload.to_string(),
                version: Some(release.version.to_string()),
                architecture: Some(release.architecture.to_string()),
                tag: Some(release.tag()),
                reasons: release
                    .why
                    .iter()
                    .map(|why| self.reason(if why.line == 0 { platform.line } else { why.line }, why.to_string()))
                    .collect(),
                payload: release.payload,
            })
            .collect())
    }

    /// Checks the signature of a payload and reads what it consists of.
    async fn one(&self, platform: &Releases, chosen: &Chosen) -> Result<(Release, Contents, Option<Signature>), Error> {
        let digest = match chosen.payload.digest() {
            Some(digest) => digest.clone(),
            None => self.source.resolve(&chosen.payload).await?.value,
        };
        let signature = if self.unsigned { None } else { Some(self.origins.signatures.find(&digest).await?) };
        let pinned = chosen.payload.with_digest(digest.clone());
        let contents = self.contents(platform, &pinned, chosen.architecture.as_deref()).await?;
        if let Some(version) = &chosen.version
            && *version != contents.version
        {
            return Err(Error::new(
                ErrorKind::Content,
                format!("read the release `{}`", chosen.payload),
                format!("the update graph calls it {version}, the payload calls itself {}", contents.version),
            )
            .hint("the update service names a wrong payload; nothing of this release is mirrored"));
        }
        let signed_tag = signature.as_ref().and_then(|s| s.reference.tag()).cloned();
        let tag = match (&signed_tag, &chosen.tag) {
            (Some(tag), _) => tag.clone(),
            (None, Some(tag)) => tag_of(tag)?,
            // As oc-mirror names a release whose signature was not looked at (oc-mirror 4.3).
            (None, None) => tag_of(&digest.hex())?,
        };
        // The published name by tag is what clusters that update by tag ask for; the digest is what is pulled.
        let source = match &signature {
            Some(signature) if signature.reference.name() == chosen.payload.name() => {
                let (registry, repository) = (signature.reference.registry(), signature.reference.repository());
                let tag = signature.reference.tag().cloned();
                Reference::new(registry.clone(), repository.clone(), tag, Some(digest.clone()))
            }
            _ => chosen.payload.with_digest(digest.clone()),
        };
        let release = Release {
            version: contents.version.clone(),
            architecture: chosen.architecture.clone().unwrap_or_else(|| contents.architecture.clone()),
            signature: signature.as_ref().map(|_| format!("{SIGNATURES}{tag}-sha256-{}", digest.hex())),
            digest,
            source,
            tag,
            reasons: chosen.reasons.clone(),
        };
        Ok((release, contents, signature))
    }

    /// What a payload says, from the cache where it is known.
    async fn contents(
        &self,
        platform: &Releases,
        name: &Reference,
        architecture: Option<&str>,
    ) -> Result<Contents, Error> {
        let key = name.digest().map(Digest::to_string).unwrap_or_default();
        let disks = platform.kube_virt_container;
        if let Some(known) = self.cache.note::<Contents>(PAYLOAD_NOTES, &key, None)
            && (known.kubevirt.is_some() || !disks)
        {
            return Ok(known);
        }
        let parts = Parts { boot_images: disks, platform: platform.platforms.first().cloned() };
        // What an update graph says of a payload need not be read out of its configuration.
        let (read, architecture) = match architecture {
            Some(architecture) => {
                (release::Contents::read(self.source.as_ref(), name, parts).await?, architecture.to_owned())
            }
            None => {
                let payload = Payload::read(self.source.as_ref(), name, parts).await?;
                let architecture = payload.architecture().to_owned();
                (payload.into_contents(), architecture)
            }
        };
        let kubevirt = if disks { Some(kubevirt(&read, &architecture)?) } else { None };
        let contents = Contents {
            version: read.metadata.version.to_string(),
            architecture,
            components: read.references.components.iter().map(|c| (c.name.clone(), c.image.clone())).collect(),
            kubevirt,
        };
        self.cache.set_note(PAYLOAD_NOTES, &key, &contents);
        Ok(contents)
    }
}

/// Takes a release into what was found: its payload, its components, its disks.
fn add(
    platform: &Releases,
    chosen: Chosen,
    (release, contents, signature): (Release, Contents, Option<Signature>),
    found: &mut Found,
) -> Result<(), Error> {
    let repository =
        |path: &str| Repository::new(path).map_err(|e| Error::new(ErrorKind::Invalid, "name a release", e));
    let tag = &release.tag;
    let because = |what: String| -> Vec<Reason> {
        let told = |r: &Reason| Reason { what: format!("{what}: {}", r.what), ..r.clone() };
        chosen.reasons.iter().map(told).collect()
    };
    let mut want = |name: String, source: &Reference, kind, reasons, path: &str, tag: Tag| -> Result<(), Error> {
        let mut wanted = Wanted::new(name, source.clone(), kind, reasons, repository(path)?);
        wanted.tag = Some(tag);
        wanted.platforms.clone_from(&platform.platforms);
        found.wanted.push(wanted);
        Ok(())
    };
    let payload = because(format!("release {}", release.version));
    want(release.source.to_string(), &release.source, Kind::Release, payload, PAYLOADS, tag.clone())?;
    for (name, image) in &contents.components {
        let reasons = because(format!("component `{name}` of release {}", release.version));
        let tag = tag_of(&format!("{tag}-{name}"))?;
        want(image.to_string(), image, Kind::ReleaseContent, reasons, COMPONENTS, tag)?;
    }
    let disks = if platform.kube_virt_container { contents.kubevirt.unwrap_or_default() } else { Vec::new() };
    if platform.kube_virt_container && disks.is_empty() {
        found.warnings.push(format!("release {} names no KubeVirt disk for its architecture", release.version));
    }
    let several = disks.len() > 1;
    for (machine, disk) in &disks {
        let suffix = if several { format!("-{machine}") } else { String::new() };
        let reasons = because(format!("KubeVirt disk of release {}", release.version));
        let tag = tag_of(&format!("{tag}-kube-virt-container{suffix}"))?;
        want(disk.to_string(), disk, Kind::ReleaseContent, reasons, COMPONENTS, tag)?;
    }
    if let (Some(name), Some(signature)) = (&release.signature, signature) {
        found.documents.insert(name.clone(), signature.bytes);
    }
    found.releases.push(release);
    Ok(())
}

/// KubeVirt's disks of a release, by machine architecture. Of a payload for all architectures, there are disks for two (oc-mirror 5.6).
fn kubevirt(contents: &release::Contents, architecture: &str) -> Result<Vec<(String, Reference)>, Error> {
    let machines = if architecture == "multi" { vec!["x86_64", "s390x"] } else { vec![machine(architecture)] };
    let mut disks = Vec::new();
    for machine in machines {
        if let Some(images) = &contents.boot_images
            && let Some(disk) = images.kubevirt(machine)?
        {
            disks.push((machine.to_owned(), disk));
        }
    }
    Ok(disks)
}

/// Whether clusters of this version demand a sigstore signature of their payload.
pub(super) fn demands_sigstore(version: &str) -> bool {
    let mut numbers = version.split('.').map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= SIGSTORE_FROM
}

fn tag_of(text: &str) -> Result<Tag, Error> {
    Tag::new(text).map_err(|e| Error::new(ErrorKind::Invalid, format!("name a release `{text}`"), e))
}

fn missing(name: &str, reasons: Vec<Reason>, error: &Error) -> Missing {
    Missing {
        name: name.to_owned(),
        kind: Kind::Release,
        reasons,
        code: error.kind().code().into(),
        cause: error.to_string(),
        hint: error.hint_text().map(str::to_owned),
    }
}
