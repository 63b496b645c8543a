//! What is printed, as `oc adm release mirror` prints it: people and scripts read these lines.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use airlock_content::release::Payload;
use airlock_oci::{Digest, Error, Reference};
use serde::Serialize;

use super::places::{self, Targets};
use super::{Done, Plan};
use crate::args::release::{Instructions, MirrorArgs};
use crate::commands::places::{Origin, shown};
use crate::exit::Failure;
use crate::output::{self, size};

/// What a plan comes to.
pub(super) struct Totals {
    /// Blobs and manifests that more than one image names.
    shared: usize,
    /// Blobs and manifests.
    unique: usize,
    /// Of these, the bytes.
    pub unique_bytes: u64,
    /// As many as there would be if nothing were shared.
    all_bytes: u64,
}

/// `-o json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'d> {
    release: String,
    version: String,
    digest: &'d Digest,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    signer: Option<&'d str>,
    images: Vec<Line<'d>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    update_image: Option<String>,
    mirror_prefix: String,
    mirrors: Vec<Mirror<'d>>,
    signature_files: &'d [PathBuf],
}

#[derive(Serialize)]
struct Line<'d> {
    name: &'d str,
    source: String,
    destination: String,
    digest: &'d Digest,
}

#[derive(Serialize)]
struct Mirror<'d> {
    source: &'d str,
    mirrors: &'d BTreeSet<String>,
}

impl Totals {
    /// Counts.
    pub(super) fn of(plan: &Plan) -> Result<Self, Error> {
        let mut seen: HashMap<Digest, (u64, usize)> = HashMap::new();
        let mut all_bytes = 0;
        for item in &plan.items {
            let mut own: BTreeMap<Digest, u64> = BTreeMap::new();
            for node in super::job(item)?.nodes {
                own.extend(node.blobs.into_iter().chain([node.manifest]).map(|d| (d.digest, d.size)));
            }
            for (digest, size) in own {
                all_bytes += size;
                seen.entry(digest).or_insert((size, 0)).1 += 1;
            }
        }
        Ok(Self {
            shared: seen.values().filter(|(_, times)| *times > 1).count(),
            unique: seen.len(),
            unique_bytes: seen.values().map(|(size, _)| size).sum(),
            all_bytes,
        })
    }
}

/// What goes into one repository.
#[derive(Default)]
struct Incoming {
    /// By size and digest, with the repository that each comes from.
    blobs: BTreeMap<(u64, Digest), String>,
    manifests: Vec<String>,
}

/// The plan, line by line; in a dry run every blob and every manifest, below the place and the repository that they go to.
pub(super) fn plan(plan: &Plan, args: &MirrorArgs) -> Result<Vec<String>, Failure> {
    let (_, to) = plan.targets.prefix()?;
    let mut lines = vec![format!("info: Mirroring {} images to {to} ...", plan.items.len())];
    let mut places = BTreeMap::<String, BTreeMap<String, Incoming>>::new();
    for item in &plan.items {
        let (spot, source) = (&item.destination.spot, &item.source);
        let place = match (&spot.registry, &args.to_dir) {
            (None, Some(tree)) => tree.display().to_string(),
            (registry, _) => registry.iter().map(|registry| format!("{registry}/")).collect(),
        };
        let from = shown(&Reference::new(source.registry().clone(), source.repository().clone(), None, None));
        let incoming = places.entry(place).or_default().entry(spot.repository.to_string()).or_default();
        for node in super::job(item)?.nodes {
            let digest = node.manifest.digest;
            match &node.tags[..] {
                [] => incoming.manifests.push(digest.to_string()),
                tags => incoming.manifests.extend(tags.iter().map(|tag| format!("{digest} -> {tag}"))),
            }
            for blob in node.blobs {
                incoming.blobs.entry((blob.size, blob.digest)).or_insert_with(|| from.clone());
            }
        }
    }
    for (place, repositories) in places.iter().filter(|_| args.dry_run) {
        lines.push(place.clone());
        for (repository, incoming) in repositories {
            lines.extend([format!("  {repository}"), "    blobs:".to_owned()]);
            let blobs = incoming.blobs.iter();
            lines.extend(blobs.map(|((bytes, digest), from)| format!("      {from} {digest} {}", tight(*bytes))));
            lines.push("    manifests:".to_owned());
            lines.extend(incoming.manifests.iter().map(|manifest| format!("      {manifest}")));
        }
    }
    let totals = Totals::of(plan)?;
    // Two digits are what `oc` shows.
    let ratio = totals.unique_bytes as f64 / totals.all_bytes.max(1) as f64;
    lines.push(format!(
        "  stats: shared={} unique={} size={} ratio={ratio:.2}",
        totals.shared,
        totals.unique,
        tight(totals.unique_bytes)
    ));
    Ok(lines)
}

/// Bytes as `oc` writes them: `1.2KiB`.
fn tight(bytes: u64) -> String {
    size(bytes).replace(' ', "")
}

/// A time as `oc` writes it: `24.3s`, `1m2.3s`.
pub(super) fn took(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    let seconds = format!("{:.1}s", (time.as_secs_f64() - (minutes * 60) as f64).min(59.9));
    if minutes == 0 { seconds } else { format!("{minutes}m{seconds}") }
}

/// `--to-mirror`: what `oc image mirror -f` reads.
pub(super) async fn pairs(
    args: &MirrorArgs,
    release: &Reference,
    origin: &Origin,
    payload: &Payload,
    targets: &Targets,
) -> Result<(), Failure> {
    let mut text = String::new();
    for component in &payload.references.components {
        let source = places::component(origin, release, component).await?;
        text.push_str(&format!("{} {}\n", shown(&source), targets.component(&component.name)?));
    }
    if !args.skip_release_image {
        text.push_str(&format!("{} {}\n", shown(&payload.name), targets.release()?));
    }
    output::text(&text)
}

/// The end of a run.
pub(super) fn print(args: &MirrorArgs, release: &Reference, done: &Done) -> Result<(), Failure> {
    let plan = &done.plan;
    let update = plan.items.iter().find(|i| i.component.is_none()).map(|i| &i.destination);
    let (pattern, prefix) = plan.targets.prefix()?;
    let document = Document {
        release: shown(release),
        version: plan.payload.version(),
        digest: plan.payload.digest(),
        dry_run: args.dry_run,
        signer: plan.signed.as_ref().map(|s| s.signer.as_str()),
        images: plan
            .items
            .iter()
            .map(|item| Line {
                name: item.component.as_deref().unwrap_or("release"),
                source: shown(&item.source),
                destination: item.destination.to_string(),
                digest: item.image.digest(),
            })
            .collect(),
        update_image: update.map(ToString::to_string),
        mirror_prefix: prefix.clone(),
        mirrors: done.mirrors.iter().map(|(source, mirrors)| Mirror { source, mirrors }).collect(),
        signature_files: &done.signature_files,
    };
    if output::value(args.output, &document)? || args.dry_run {
        return Ok(());
    }
    let mut text = String::new();
    for line in &document.images {
        text.push_str(&format!("{} {}\n", line.digest, line.destination));
    }
    text.push_str("\nSuccess\n");
    if let Some(update) = update {
        text.push_str(&format!("Update image:  {update}\n"));
    }
    let label = if pattern { "Mirrored to: " } else { "Mirror prefix: " };
    for place in std::iter::once(&prefix).chain(&args.to_release_image) {
        text.push_str(&format!("{label}{place}\n"));
    }
    let on_disk = plan.items.iter().find(|i| i.destination.spot.registry.is_none());
    if let (Some(item), Some(to_dir)) = (on_disk, &args.to_dir) {
        let at = update.filter(|u| u.spot.registry.is_none()).unwrap_or(&item.destination);
        text.push_str(&format!(
            "\nTo upload local images to a registry, run:\n\n    oc image mirror --from-dir={} '{at}*' REGISTRY/REPOSITORY\n\n",
            to_dir.display()
        ));
        if let Some(update) = update.filter(|u| u.spot.registry.is_none()) {
            eprintln!(
                "next: airlock release mirror --from-dir {} --from {update} --to REGISTRY/REPOSITORY (takes cosign signatures along)",
                to_dir.display()
            );
        }
    }
    if !done.mirrors.is_empty() {
        text.push_str(&instructions(args.print_mirror_instructions, &done.mirrors));
        if args.print_mirror_instructions == Instructions::Icsp {
            eprintln!(
                "note: ImageContentSourcePolicy is deprecated since OpenShift 4.13; --print-mirror-instructions idms prints what took its place"
            );
        }
    }
    if let [json, yaml] = &done.signature_files[..] {
        for file in [json, yaml] {
            text.push_str(&format!("Configmap signature file {} created\n", file.display()));
        }
        text.push_str(&format!("\nTo let a cluster trust the release, run:\n\n    oc apply -f {}\n\n", json.display()));
    }
    output::text(&text)
}

/// What an installation and a cluster are told of the mirror.
fn instructions(kind: Instructions, mirrors: &BTreeMap<String, BTreeSet<String>>) -> String {
    let (snippet, version, name, list) = match kind {
        Instructions::Icsp => (
            "imageContentSources",
            "operator.openshift.io/v1alpha1",
            "ImageContentSourcePolicy",
            "repositoryDigestMirrors",
        ),
        Instructions::Idms => {
            ("imageDigestSources", "config.openshift.io/v1", "ImageDigestMirrorSet", "imageDigestMirrors")
        }
        Instructions::None => return String::new(),
    };
    let entries = |indent: &str| -> String {
        let mut text = String::new();
        for (source, mirrors) in mirrors {
            text.push_str(&format!("{indent}- mirrors:\n"));
            for mirror in mirrors {
                text.push_str(&format!("{indent}  - {mirror}\n"));
            }
            text.push_str(&format!("{indent}  source: {source}\n"));
        }
        text
    };
    format!(
        "\nTo use the new mirrored repository to install, add the following section to the install-config.yaml:\n\n{snippet}:\n{}\n\n\
         To use the new mirrored repository for upgrades, use the following to create an {name}:\n\n\
         apiVersion: {version}\nkind: {name}\nmetadata:\n  name: example\nspec:\n  {list}:\n{}\n",
        entries(""),
        entries("  ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_those_of_oc() {
        let mirrors = BTreeMap::from([
            ("q.io/release".to_owned(), BTreeSet::from(["h:5000/a".to_owned(), "h:5000/b".to_owned()])),
            ("q.io/art".to_owned(), BTreeSet::from(["h:5000/a".to_owned()])),
        ]);
        assert_eq!(
            instructions(Instructions::Idms, &mirrors),
            "\nTo use the new mirrored repository to install, add the following section to the install-config.yaml:\n\n\
             imageDigestSources:\n- mirrors:\n  - h:5000/a\n  source: q.io/art\n- mirrors:\n  - h:5000/a\n  - h:5000/b\n  \
             source: q.io/release\n\n\n\
             To use the new mirrored repository for upgrades, use the following to create an ImageDigestMirrorSet:\n\n\
             apiVersion: config.openshift.io/v1\nkind: ImageDigestMirrorSet\nmetadata:\n  name: example\nspec:\n  \
             imageDigestMirrors:\n  - mirrors:\n    - h:5000/a\n    source: q.io/art\n  - mirrors:\n    - h:5000/a\n    - h:5000/b\n    \
             source: q.io/release\n\n"
        );
        let icsp = instructions(Instructions::Icsp, &mirrors);
        assert!(icsp.contains("\nimageContentSources:\n- mirrors:") && icsp.contains("  repositoryDigestMirrors:\n"));
        assert_eq!(instructions(Instructions::None, &mirrors), "");
    }

    #[test]
    fn times_read_as_with_oc() {
        for (millis, text) in
            [(0, "0.0s"), (24_300, "24.3s"), (59_990, "59.9s"), (62_300, "1m2.3s"), (3_720_000, "62m0.0s")]
        {
            assert_eq!(took(Duration::from_millis(millis)), text);
        }
    }
}
