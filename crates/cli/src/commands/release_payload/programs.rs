//! `release extract --tools`: the programs of a release as the archives that people download (updates-and-releases.md 7.3).
//!
//! An image is read once, however many programs come out of it, and a program goes straight from its layer into its archive. The list of
//! checksums is written last: who finds it finds everything.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read};
use std::path::{Path, PathBuf};

use airlock_content::image::instance;
use airlock_content::layers::{self, Image, Limits, Visitor, Wanted};
use airlock_content::release::tools::{self, Location, Os, Slot, System, Tool};
use airlock_oci::{Digest, Error, ErrorKind, Platform};

use super::extract::{beside, make, values};
use super::pack::{Kind, pack};
use super::{Opened, info, shown};
use crate::exit::Failure;

/// Clients for Linux are built for these besides the release's own architecture.
const CLIENTS: [&str; 3] = ["amd64", "arm64", "ppc64le"];
/// Clients for one RHEL are built for these.
const RHEL_CLIENTS: [&str; 4] = ["amd64", "arm64", "ppc64le", "s390x"];
const RHEL: [u8; 2] = [8, 9];
/// Installers for Linux are built for these besides the release's own architecture.
const INSTALLERS: [&str; 2] = ["amd64", "arm64"];
/// What is written beside the archives.
const DESCRIPTION: &str = "release.txt";
const SUMS: &str = "sha256sum.txt";

/// A program, and the archive that it goes into.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Packed {
    tool: Tool,
    location: Location,
    archive: String,
    kind: Kind,
}

/// The archives that are made of a release: without the installers that only some platforms need, which `--command` gives.
fn archives(version: &str, architecture: &str) -> Vec<Packed> {
    let mut found = Vec::new();
    let mut add = |tool: Tool, os: Os, on: Option<&str>, stem: String| {
        let system = System { os, architecture: on.map(str::to_owned) };
        // Not everything is made for every architecture of a release.
        let Ok(location) = tool.location(&system, architecture) else { return };
        let kind = if os == Os::Windows { Kind::Zip } else { Kind::TarGz };
        found.push(Packed { tool, location, archive: format!("{stem}-{version}.{}", kind.extension()), kind });
    };
    add(Tool::Oc, Os::Linux, None, "openshift-client-linux".into());
    for on in CLIENTS {
        add(Tool::Oc, Os::Linux, Some(on), format!("openshift-client-linux-{on}"));
    }
    for (on, rhel) in RHEL_CLIENTS.iter().flat_map(|on| RHEL.map(|rhel| (*on, rhel))) {
        add(Tool::OcRhel(rhel), Os::Linux, Some(on), format!("openshift-client-linux-{on}-rhel{rhel}"));
    }
    add(Tool::Install, Os::Linux, None, "openshift-install-linux".into());
    for on in INSTALLERS {
        add(Tool::Install, Os::Linux, Some(on), format!("openshift-install-linux-{on}"));
    }
    for (tool, what) in [(Tool::Oc, "client"), (Tool::Install, "install")] {
        add(tool, Os::Mac, None, format!("openshift-{what}-mac"));
        add(tool, Os::Mac, Some("arm64"), format!("openshift-{what}-mac-arm64"));
    }
    add(Tool::Oc, Os::Windows, None, "openshift-client-windows".into());
    add(Tool::Ccoctl, Os::Linux, None, "ccoctl-linux".into());
    for rhel in RHEL {
        add(Tool::CcoctlRhel(rhel), Os::Linux, None, format!("ccoctl-linux-rhel{rhel}"));
    }
    found
}

/// Packs each wanted file of one image.
struct Packer {
    folder: PathBuf,
    /// By the file in the image; several archives may hold the same program under different names.
    wanted: BTreeMap<String, Vec<(Packed, Vec<(Slot, String)>)>>,
    sums: BTreeMap<String, Digest>,
    missing: Vec<(String, Slot)>,
}

impl Visitor for Packer {
    fn file(&mut self, file: &layers::File<'_>, content: &mut dyn Read) -> Result<(), Error> {
        let Some(all) = self.wanted.remove(file.path) else { return Ok(()) };
        let [(first, values), others @ ..] = &all[..] else { return Ok(()) };
        let path = self.folder.join(&first.archive);
        let what = || format!("write `{}`", path.display());
        let out = File::create_new(&path).map_err(|e| Error::io(what(), &e))?;
        let oc = matches!(first.tool, Tool::Oc | Tool::OcRhel(_));
        // The program has its plain name inside, for whatever system it is.
        let name = if oc {
            first.location.file_name.replace(first.tool.name(), "oc")
        } else {
            plain(&first.location.file_name)
        };
        let packed = pack(first.kind, BufWriter::new(out), &name, file, oc, |out| tools::copy(content, out, values));
        let (sum, missing) = packed.map_err(|e| layers::broken(e, what()))?;
        File::open(&path).and_then(|f| f.sync_all()).map_err(|e| Error::io(what(), &e))?;
        for (same, _) in others {
            fs::copy(&path, self.folder.join(&same.archive)).map_err(|e| Error::io(what(), &e))?;
            self.sums.insert(same.archive.clone(), sum.clone());
        }
        self.missing.extend(missing.into_iter().map(|slot| (first.archive.clone(), slot)));
        self.sums.insert(first.archive.clone(), sum);
        Ok(())
    }
}

/// `ccoctl` of `ccoctl.rhel9`.
fn plain(name: &str) -> String {
    name.split(".rhel").next().unwrap_or(name).to_owned()
}

/// Writes all archives of a release.
pub(super) async fn run(opened: &Opened, to: &Path) -> Result<u8, Failure> {
    let payload = &opened.payload;
    let all = archives(&payload.version(), &payload.config.platform.architecture);
    let mut images: BTreeMap<(&'static str, Option<String>), Vec<Packed>> = BTreeMap::new();
    for packed in all {
        images.entry((packed.location.component, packed.location.architecture.clone())).or_default().push(packed);
    }
    let folder = beside(to)?;
    let (mut sums, mut absent) = (BTreeMap::new(), Vec::new());
    for ((component, architecture), all) in images {
        let Some(found) = payload.references.component(component) else {
            absent.extend(all.into_iter().map(|packed| packed.archive));
            continue;
        };
        let (name, found) = opened.component(found).await?;
        let platform =
            architecture.map(|architecture| Platform { os: "linux".into(), architecture, ..Platform::default() });
        let image = instance(opened.source.as_ref(), &name, &found, platform.as_ref()).await?;
        let (mut wanted, mut files) = (Wanted::new(), BTreeMap::<String, Vec<_>>::new());
        for packed in all {
            wanted = wanted.file(&packed.location.path)?;
            let values = values(opened, packed.tool)?;
            files.entry(packed.location.path.clone()).or_default().push((packed, values));
        }
        let packer =
            Packer { folder: folder.path().to_owned(), wanted: files, sums: BTreeMap::new(), missing: Vec::new() };
        let read = Image { source: opened.source.as_ref(), name: &name, manifest: &image, near: Some(&found.place) };
        let packer = layers::files(read, &wanted, Limits::default(), packer).await?;
        for (archive, slot) in &packer.missing {
            eprintln!(
                "warning: the program in `{archive}` has no place for the release's {}; it stays as it was built",
                slot.what()
            );
        }
        absent.extend(packer.wanted.into_values().flatten().map(|(packed, _)| packed.archive));
        sums.extend(packer.sums);
    }
    if sums.is_empty() {
        let what = format!("extract the programs of the release `{}`", payload.name);
        return Err(Error::new(ErrorKind::NotFound, what, "it has none of them").into());
    }
    let count = sums.len();
    let text = info::description(payload);
    sums.insert(DESCRIPTION.to_owned(), Digest::of(text.as_bytes()));
    let list: String = sums.iter().map(|(name, sum)| format!("{}  {name}\n", sum.hex())).collect();
    for (name, text) in [(DESCRIPTION, &text), (SUMS, &list)] {
        fs::write(folder.path().join(name), text).map_err(|e| Error::io(format!("write `{name}`"), &e))?;
    }
    make(to)?;
    for name in sums.keys().map(String::as_str).chain([SUMS]) {
        let target = to.join(name);
        fs::rename(folder.path().join(name), &target)
            .map_err(|e| Error::io(format!("write `{}`", shown(&target)), &e))?;
    }
    absent.sort();
    for archive in &absent {
        eprintln!("note: `{archive}` is left out: the release has no such program");
    }
    eprintln!("extracted {count} archives of {} to `{}`", payload.version(), shown(to));
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_named_as_people_know_them() {
        let names: Vec<String> = archives("4.16.1", "amd64").into_iter().map(|packed| packed.archive).collect();
        for name in [
            "openshift-client-linux-4.16.1.tar.gz",
            "openshift-client-linux-arm64-4.16.1.tar.gz",
            "openshift-client-linux-s390x-rhel9-4.16.1.tar.gz",
            "openshift-client-mac-arm64-4.16.1.tar.gz",
            "openshift-client-windows-4.16.1.zip",
            "openshift-install-linux-4.16.1.tar.gz",
            "openshift-install-linux-amd64-4.16.1.tar.gz",
            "openshift-install-mac-4.16.1.tar.gz",
            "ccoctl-linux-rhel8-4.16.1.tar.gz",
        ] {
            assert!(names.iter().any(|n| n == name), "{name} is not in {names:?}");
        }
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len());
        assert!(!names.iter().any(|n| n.starts_with("openshift-client-linux-s390x-4")));
    }
}
