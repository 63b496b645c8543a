//! A catalog as large as Red Hat's, and what reading it and choosing from it costs.
//!
//! ```text
//! catalog_size generate DIR            an OCI layout: 400 packages, 9,000 bundles, 150 MB of documents
//! catalog_size read DIR [all|heads]    reads, chooses, examines, and renders what was chosen; prints times and the most memory held
//! ```
#![expect(clippy::print_stdout, reason = "numbers for whoever runs it")]

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::time::Instant;

use airlock_content::catalog::{Filter, PackageFilter, Rule, Selection, doctor, read, rebuild, related, select};
use airlock_content::layers::writer::Writer;
use airlock_oci::{Digest, Reference, media_type};
use airlock_store::oci_layout::Layout;
use serde_json::json;

const PACKAGES: usize = 400;
const BUNDLES: usize = 9_000;
/// Bytes of a bundle's document, in the middle.
const BUNDLE_BYTES: usize = 16_600;
const IMAGES: usize = 18;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["generate", folder] => generate(Path::new(folder)),
        ["read", folder] => measure(Path::new(folder), "heads"),
        ["read", folder, what] => measure(Path::new(folder), what),
        _ => Err("usage: catalog_size generate|read DIR [all|heads]".into()),
    }
}

/// Text that looks different everywhere and is the same on every run.
fn noise(seed: &str, len: usize) -> String {
    let mut text = String::with_capacity(len + 71);
    let mut number = 0;
    while text.len() < len {
        text += Digest::of(format!("{seed}/{number}").as_bytes()).hex();
        text.push(' ');
        number += 1;
    }
    text.truncate(len);
    text
}

fn package(number: usize) -> Vec<u8> {
    let name = format!("operator-{number:03}");
    // A few have very many, most few, as in life: 22 or 23 on average.
    let count = BUNDLES / PACKAGES + usize::from(number < BUNDLES % PACKAGES);
    let count = if number % 10 == 0 { count * 4 } else { count * 2 / 3 };
    let version = |at: usize| format!("{}.{}.{}", at / 20 + 1, at % 20 / 4, at % 4);
    let mut out = Vec::new();
    let mut put = |value: serde_json::Value| {
        let _ = writeln!(out, "{value:#}");
    };
    put(json!({"schema": "olm.package", "name": name, "defaultChannel": "stable", "description": noise(&name, 2000),
        "icon": {"base64data": noise("icon", 6000), "mediatype": "image/svg+xml"}}));
    for (channel, from) in [("stable", 0), ("fast", count / 3), ("candidate", count / 2)] {
        let entries: Vec<_> = (from..count)
            .map(|at| {
                let mut entry = json!({"name": format!("{name}.v{}", version(at)), "skipRange": format!(">=1.0.0 <{}", version(at))});
                if at > from {
                    entry["replaces"] = format!("{name}.v{}", version(at - 1)).into();
                    entry["skips"] = (from.max(at.saturating_sub(20))..at - 1).map(|s| format!("{name}.v{}", version(s))).collect();
                }
                entry
            })
            .collect();
        put(json!({"schema": "olm.channel", "package": name, "name": channel, "entries": entries}));
    }
    for at in 0..count {
        let bundle = format!("{name}.v{}", version(at));
        let image = |what: usize| {
            // Half of the images stay over several versions.
            let of = if what % 2 == 0 { format!("{bundle}/{what}") } else { format!("{name}/{}/{what}", at / 4) };
            format!("registry.redhat.io/{name}-tech/{name}-component-{what}-rhel9@{}", Digest::of(of.as_bytes()))
        };
        let images: Vec<_> =
            (0..IMAGES).map(|what| json!({"name": format!("component-{what}"), "image": image(what)})).collect();
        put(
            json!({"schema": "olm.bundle", "name": bundle, "package": name, "image": image(0), "relatedImages": images, "properties": [
                {"type": "olm.package", "value": {"packageName": name, "version": version(at)}},
                {"type": "olm.gvk", "value": {"group": format!("{name}.example.com"), "kind": "Thing", "version": "v1"}},
                {"type": "olm.gvk", "value": {"group": format!("{name}.example.com"), "kind": "Other", "version": "v1alpha1"}},
                {"type": "olm.csv.metadata", "value": {"displayName": name, "description": noise(&bundle, BUNDLE_BYTES - 6000),
                    "annotations": {"alm-examples": noise(&bundle, 2000), "features.operators.openshift.io/disconnected": "true"}}},
            ]}),
        );
    }
    out
}

fn generate(folder: &Path) -> Result<(), Failure> {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs)?;
    let path = folder.join("layer");
    let mut writer = Writer::new(BufWriter::new(File::create(&path)?), 0);
    let mut total = 0;
    writer.directory("configs")?;
    for number in 0..PACKAGES {
        let text = package(number);
        total += text.len();
        writer.directory(&format!("configs/operator-{number:03}"))?;
        writer.file(&format!("configs/operator-{number:03}/catalog.json"), text.len() as u64, &mut &text[..])?;
    }
    let (mut file, layer) = writer.finish()?;
    file.flush()?;
    std::fs::rename(path, blobs.join(layer.descriptor.digest.hex()))?;
    let put = |bytes: &[u8]| -> Result<Digest, Failure> {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes)?;
        Ok(digest)
    };
    let config =
        json!({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
        "config": {"Labels": {"operators.operatorframework.io.index.configs.v1": "/configs"}}})
        .to_string();
    let digest = put(config.as_bytes())?;
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "layers": [layer.descriptor],
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": digest, "size": config.len()}})
    .to_string();
    let digest = put(manifest.as_bytes())?;
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": media_type::OCI_MANIFEST, "digest": digest,
        "size": manifest.len(), "annotations": {"org.opencontainers.image.ref.name": "latest"}}]});
    std::fs::write(folder.join("index.json"), index.to_string())?;
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    println!("{PACKAGES} packages, {} MB of documents, {} MB compressed", total >> 20, layer.descriptor.size >> 20);
    Ok(())
}

/// The most memory that this process has held, in MiB.
fn peak() -> Result<u64, Failure> {
    let mut status = String::new();
    File::open("/proc/self/status")?.read_to_string(&mut status)?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? >> 10)
}

fn measure(folder: &Path, what: &str) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let layout = Layout::open(folder)?;
    let name: Reference = "example.com/catalog:latest".parse()?;
    let spool = folder.join("spool");
    let begun = Instant::now();
    let mut step = begun;
    let mut done = |what: &str| -> Result<(), Failure> {
        println!("{what:<10} {:>6.2} s   peak {:>4} MiB", step.elapsed().as_secs_f64(), peak()?);
        step = Instant::now();
        Ok(())
    };
    let catalog = runtime.block_on(read(&layout, &name, &spool))?;
    done("read")?;
    let packages = catalog.packages().map(|p| PackageFilter::named(&*p.name)).collect();
    let filter = Filter { full: what == "all", packages };
    let choose = |rule| -> Result<Selection, Failure> {
        select(&catalog, &filter, rule).map_err(|errors| errors[0].to_string().into())
    };
    let selection = choose(Rule::Table)?;
    let head = choose(Rule::Head)?;
    done("select")?;
    let images = related(&catalog, &selection)?;
    done("related")?;
    let findings = doctor::examine(&catalog, &selection);
    done("examine")?;
    let bytes: usize = rebuild::files(&catalog, &selection)?.iter().map(|(_, bytes)| bytes.len()).sum();
    done("render")?;
    println!(
        "{} bundles in {} packages; kept {} by table, {} by head; {} images, {} findings, {} MB rendered; {:.2} s in all",
        catalog.bundles(),
        catalog.packages().len(),
        selection.bundles(),
        head.bundles(),
        images.images.len(),
        findings.len(),
        bytes >> 20,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}
