//! `release-manifests/0000_50_installer_coreos-bootimages.yaml`: the disks that machines start from, of which one is an image in a registry
//! (updates-and-releases.md 5.4).

use std::collections::BTreeMap;

use airlock_oci::{Error, ErrorKind, Reference};
use serde::Deserialize;

/// Where the file is.
pub const PATH: &str = "release-manifests/0000_50_installer_coreos-bootimages.yaml";

/// The images in registries among the boot images of a release.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootImages {
    /// KubeVirt's container disk by the machine's name of the architecture (`x86_64`, `s390x`), as written; empty before about 4.15.
    pub kubevirt: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct ConfigMap {
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    stream: Option<String>,
}

#[derive(Deserialize)]
struct Stream {
    #[serde(default)]
    architectures: BTreeMap<String, Architecture>,
}

#[derive(Deserialize)]
struct Architecture {
    images: Option<Images>,
}

#[derive(Deserialize)]
struct Images {
    kubevirt: Option<ContainerDisk>,
}

#[derive(Deserialize)]
struct ContainerDisk {
    #[serde(rename = "digest-ref")]
    digest_ref: Option<String>,
}

impl BootImages {
    /// Reads the file's bytes. `what` names the release in errors.
    pub fn parse(bytes: &[u8], what: &str) -> Result<Self, Error> {
        let fail = |cause: String| {
            Error::new(ErrorKind::Content, format!("read the boot images of the release `{what}`"), cause)
        };
        let text = std::str::from_utf8(bytes).map_err(|e| fail(e.to_string()))?;
        let map: ConfigMap = serde_saphyr::from_str(text).map_err(|e| fail(format!("`{PATH}`: {e}")))?;
        let Some(stream) = map.data.and_then(|d| d.stream) else {
            return Err(fail(format!("`{PATH}` has no `data.stream`")));
        };
        let stream: Stream = serde_json::from_str(&stream).map_err(|e| fail(format!("`data.stream`: {e}")))?;
        let disk = |entry: Architecture| entry.images?.kubevirt?.digest_ref;
        let disks = stream.architectures.into_iter().filter_map(|(name, entry)| Some((name, disk(entry)?)));
        Ok(Self { kubevirt: disks.collect() })
    }

    /// KubeVirt's container disk for a machine (`x86_64`); `None` when the release has none. Read only when it is asked for, so that what is
    /// wrong with one architecture is no matter of another.
    pub fn kubevirt(&self, machine: &str) -> Result<Option<Reference>, Error> {
        let Some(named) = self.kubevirt.get(machine) else { return Ok(None) };
        let fail = |cause: String| {
            Error::new(ErrorKind::Content, format!("read the KubeVirt image for {machine} of a release"), cause)
        };
        let image: Reference = named.parse().map_err(|e| fail(format!("`{named}`: {e}")))?;
        if image.digest().is_none() {
            return Err(fail(format!("`{named}` has no digest")));
        }
        Ok(Some(image))
    }
}
