//! A catalog as large as Red Hat's, and what reading it and choosing from it costs.
//!
//! ```text
//! catalog_size generate DIR            an OCI layout: 400 packages, 9,000 bundles, 150 MB of documents
//! catalog_size read DIR [all|heads]    reads, chooses, examines, and renders what was chosen; prints times and the most memory held
//! catalog_size serve DIR PORT          a registry with the catalog (`redhat/catalog:latest`) and the manifests of all of its images
//! ```
//!
//! As in life a bundle has five or six images, of which three or four are its own, and all but the bundle's own image are made for four
//! architectures: some 34,000 images of 133,000 manifests. The registry has no layers except those of the catalog; a plan needs none.
#![expect(clippy::print_stdout, reason = "numbers for whoever runs it")]

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
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
/// Images of a bundle, its own among them.
const IMAGES: usize = 6;
const PLATFORMS: [&str; 4] = ["amd64", "arm64", "ppc64le", "s390x"];

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["generate", folder] => generate(Path::new(folder)),
        ["read", folder] => measure(Path::new(folder), "heads"),
        ["read", folder, what] => measure(Path::new(folder), what),
        ["serve", folder, port] => serve(Path::new(folder), port.parse()?),
        _ => Err("usage: catalog_size generate|read|serve DIR [all|heads|PORT]".into()),
    }
}

/// Text that looks different everywhere and is the same on every run.
fn noise(seed: &str, len: usize) -> String {
    let mut text = String::with_capacity(len + 71);
    let mut number = 0;
    while text.len() < len {
        text += &Digest::of(format!("{seed}/{number}").as_bytes()).hex();
        text.push(' ');
        number += 1;
    }
    text.truncate(len);
    text
}

/// How many bundles a package has: a few have very many, most few, as in life; 22 or 23 on average.
fn count(number: usize) -> usize {
    let count = BUNDLES / PACKAGES + usize::from(number < BUNDLES % PACKAGES);
    if number.is_multiple_of(10) { count * 4 } else { count * 2 / 3 }
}

fn version(at: usize) -> String {
    format!("{}.{}.{}", at / 20 + 1, at % 20 / 4, at % 4)
}

/// What an image of a bundle is made from: half of the images stay over several versions.
fn seed(name: &str, at: usize, what: usize) -> String {
    if what.is_multiple_of(2) { format!("{name}.v{}/{what}", version(at)) } else { format!("{name}/{}/{what}", at / 4) }
}

/// The manifests of an image, the one that names it last.
fn manifests(seed: &str) -> Vec<(Digest, String)> {
    let single = |platform: &str| {
        // The lower layers are the distribution's and in many images.
        let layers: Vec<_> = (0..5)
            .map(|at| {
                let of = if at < 2 { format!("{platform}/{at}") } else { format!("{seed}/{platform}/{at}") };
                let digest = Digest::of(of.as_bytes());
                json!({"mediaType": media_type::OCI_LAYER_GZIP, "digest": digest, "size": 10_000_000 + 1_000 * at})
            })
            .collect();
        let config = Digest::of(format!("{seed}/{platform}/config").as_bytes());
        let config = json!({"mediaType": media_type::OCI_CONFIG, "digest": config, "size": 4_000});
        let text =
            json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": layers})
                .to_string();
        (Digest::of(text.as_bytes()), text)
    };
    if seed.ends_with("/0") {
        return vec![single("amd64")];
    }
    let mut all: Vec<_> = PLATFORMS.into_iter().map(single).collect();
    let children: Vec<_> = all
        .iter()
        .zip(PLATFORMS)
        .map(|((digest, text), platform)| {
            json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": text.len(),
                "platform": {"os": "linux", "architecture": platform}})
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children}).to_string();
    all.push((Digest::of(index.as_bytes()), index));
    all
}

fn package(number: usize) -> Vec<u8> {
    let name = format!("operator-{number:03}");
    let count = count(number);
    let mut out = Vec::new();
    let mut put = |value: serde_json::Value| {
        let _ = writeln!(out, "{value:#}");
    };
    put(json!({"schema": "olm.package", "name": name, "defaultChannel": "stable", "description": noise(&name, 2000),
        "icon": {"base64data": noise("icon", 6000).replace(' ', "+"), "mediatype": "image/svg+xml"}}));
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
            let manifests = manifests(&seed(&name, at, what));
            let (digest, _) = manifests.last().expect("an image has a manifest");
            format!("registry.redhat.io/{name}-tech/{name}-component-{what}-rhel9@{digest}")
        };
        let images: Vec<_> =
            (0..IMAGES).map(|what| json!({"name": format!("component-{what}"), "image": image(what)})).collect();
        put(
            json!({"schema": "olm.bundle", "name": bundle, "package": name, "image": image(0), "relatedImages": images, "properties": [
                {"type": "olm.package", "value": {"packageName": name, "version": version(at)}},
                {"type": "olm.gvk", "value": {"group": format!("{name}.example.com"), "kind": "Thing", "version": "v1"}},
                {"type": "olm.gvk", "value": {"group": format!("{name}.example.com"), "kind": "Other", "version": "v1alpha1"}},
                {"type": "olm.csv.metadata", "value": {"displayName": name, "description": noise(&bundle, BUNDLE_BYTES - 4000),
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

/// What the registry has beside the files of the layout.
struct Content {
    manifests: HashMap<String, String>,
    /// The catalog's.
    latest: String,
    blobs: PathBuf,
}

/// A registry of the simplest kind: HTTP/1.1, a thread a connection, manifests from memory and blobs from the layout.
fn serve(folder: &Path, port: u16) -> Result<(), Failure> {
    let mut all = HashMap::new();
    for number in 0..PACKAGES {
        let name = format!("operator-{number:03}");
        for at in 0..count(number) {
            // What stays over several versions is made once.
            for what in (0..IMAGES).filter(|what| what.is_multiple_of(2) || at.is_multiple_of(4)) {
                all.extend(
                    manifests(&seed(&name, at, what)).into_iter().map(|(digest, text)| (digest.to_string(), text)),
                );
            }
        }
    }
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("index.json"))?)?;
    let latest = index["manifests"][0]["digest"].as_str().ok_or("the layout has no catalog")?.to_owned();
    let blobs = folder.join("blobs/sha256");
    let catalog = std::fs::read_to_string(blobs.join(latest.trim_start_matches("sha256:")))?;
    println!("{} manifests", all.len());
    all.insert(latest.clone(), catalog);
    let content = Arc::new(Content { manifests: all, latest, blobs });
    for connection in TcpListener::bind((Ipv4Addr::LOCALHOST, port))?.incoming() {
        let (connection, content) = (connection?, Arc::clone(&content));
        // A client that goes away ends only its own thread.
        thread::spawn(move || answer(&connection, &content).is_ok());
    }
    Ok(())
}

fn answer(connection: &TcpStream, content: &Content) -> Result<(), Failure> {
    let mut lines = BufReader::new(connection).lines();
    let mut out = BufWriter::new(connection);
    while let Some(request) = lines.next() {
        let request = request?;
        // Nothing asked for here has a body.
        while !lines.next().ok_or("the request breaks off")??.is_empty() {}
        let mut words = request.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (rest, name) = path.split('?').next().unwrap_or_default().rsplit_once('/').unwrap_or_default();
        let manifest = if name == "latest" { Some(&content.latest) } else { None }.map_or(name, String::as_str);
        let text = content.manifests.get_key_value(manifest).filter(|_| rest.ends_with("/manifests"));
        let blob = content.blobs.join(name.trim_start_matches("sha256:"));
        if let Some((digest, text)) = text {
            let index = text.contains(media_type::OCI_INDEX);
            let kind = if index { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
            write!(out, "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nDocker-Content-Digest: {digest}\r\n")?;
            write!(out, "Content-Length: {}\r\n\r\n", text.len())?;
            if method == "GET" {
                out.write_all(text.as_bytes())?;
            }
        } else if rest.ends_with("/blobs") && blob.is_file() {
            let mut file = File::open(blob)?;
            write!(
                out,
                "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
                file.metadata()?.len()
            )?;
            if method == "GET" {
                std::io::copy(&mut file, &mut out)?;
            }
        } else if path == "/v2/" {
            write!(out, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        } else {
            write!(out, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
        }
        out.flush()?;
    }
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
