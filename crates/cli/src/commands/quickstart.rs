//! `airlock quickstart`: the whole flow on this machine, with an upstream made on the spot. No network.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use airlock_client::{Client, Options, RegistriesConf, RegistrySink};
use airlock_mirror::archives::{self, Opened};
use airlock_mirror::config;
use airlock_mirror::plan::Target;
use airlock_mirror::report::{Report, Status};
use airlock_mirror::run::{Request, Settings, Workflow, verify_target};
use airlock_oci::{
    BlobStream, Content, Descriptor, Digest, Error, ErrorKind, Manifest, Repository, Sink, Tag, media_type,
};
use airlock_registry::{Anonymous, Running, Server};
use airlock_store::archive::verify;
use airlock_store::distribution::{Durability, Writer};
use airlock_transfer::Stop;
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::json;

use crate::args::QuickstartArgs;
use crate::commands::shell;
use crate::commands::version::VERSION;
use crate::exit::Failure;
use crate::output::size;
use crate::progress::{Look, Progress, time};
use crate::{signals, told};

/// Marks a folder that an earlier quickstart made and this one may make anew.
const MARKER: &str = ".made-by-airlock-quickstart";
/// What the upstream is called in the image set; registries.conf leads it to the embedded registry.
const UPSTREAM: &str = "registry.example.com";
/// Bytes of each layer of the made images.
const LAYER_BYTES: usize = 2 * 1024 * 1024;

/// Content that is in memory, because it was just made.
struct Made(Bytes);

#[async_trait]
impl Content for Made {
    async fn open(&self, offset: u64) -> Result<BlobStream, Error> {
        let bytes = self.0.slice((offset as usize).min(self.0.len())..);
        Ok(Box::pin(futures_util::stream::once(async move { Ok(bytes) })))
    }
}

/// Runs the verb.
pub(crate) async fn run(args: QuickstartArgs, look: Look) -> Result<u8, Failure> {
    let began = Instant::now();
    let root = std::path::absolute(&args.directory).map_err(|e| Error::io("find the current directory", &e))?;
    prepare(&root)?;
    let progress = Progress::start(look);
    let say = |text: &str| {
        if !look.quiet {
            progress.line(text);
        }
    };

    say("1/6 making a small upstream registry");
    let (upstream, writer) = serve(&root.join("upstream")).await?;
    let pinned = fill(&writer).await?;
    let conf = root.join("registries.conf");
    write(
        &conf,
        &format!("[[registry]]\nlocation = \"{}\"\nprefix = \"{UPSTREAM}\"\ninsecure = true\n", upstream.addr),
    )?;
    let isc = root.join("isc.yaml");
    write(&isc, &image_set(&pinned))?;

    let source = Client::new(Options {
        registries_conf: RegistriesConf::File { path: conf.clone(), dropins: Some(root.join("no-dropins")) },
        ..Options::default()
    })?;
    let target_client =
        Client::new(Options { tls_verify: false, registries_conf: RegistriesConf::Ignore, ..Options::default() })?;
    let stop = Stop::default();
    signals::listen(&stop);
    let request = |workflow: Workflow| -> Result<Request, Failure> {
        Ok(Request {
            services: airlock_mirror::plan::origins::Services::default(),
            loaded: config::load(&isc)?,
            workflow,
            settings: Settings::default(),
            dry_run: None,
            source: source.clone(),
            target: target_client.clone(),
            transfer: airlock_transfer::Options::default(),
            cache: root.join("cache"),
            state: root.join("state"),
            retry: None,
            version: VERSION.into(),
        })
    };

    let archive = root.join("archive");
    let at = shell(&format!("file://{}", archive.display()));
    say(&format!("2/6 airlock mirror -c isc.yaml {at}"));
    let events = progress.events();
    let out =
        airlock_mirror::run::run(request(Workflow::ToDisk { directory: archive.clone() })?, Arc::clone(&events), &stop)
            .await?;
    complete(&out)?;
    // From here on nothing but the archive is left of the upstream.
    upstream.shutdown().await?;

    say(&format!("3/6 airlock archive verify {}", shell(&archive.display().to_string())));
    let Opened::Ours { archive: opened, .. } = archives::open(&archive)? else {
        return Err(Error::new(ErrorKind::Invalid, "open the archive", "it is not ours").into());
    };
    let damages = tokio::task::spawn_blocking(move || verify::full(&opened, &|_| {}))
        .await
        .map_err(|e| Error::new(ErrorKind::Io, "verify the archive", e))??;
    if let Some(damage) = damages.first() {
        return Err(Error::new(ErrorKind::Content, "verify the archive", &damage.what).into());
    }

    let (mirror, _) = serve(&root.join("registry")).await?;
    let name = mirror.addr.to_string();
    say(&format!("4/6 airlock mirror -c isc.yaml --from {at} docker://{name} (the upstream is gone)"));
    let workflow = Workflow::FromDisk { from: vec![archive.clone()], workspace: None, registry: name.clone() };
    let loaded = airlock_mirror::run::run(request(workflow)?, Arc::clone(&events), &stop).await?;
    complete(&loaded)?;

    say(&format!("5/6 airlock verify -c isc.yaml --from {at} docker://{name}"));
    let target = Target::parse(&name, 0)?;
    let archives = Arc::new(archives::Archives::open(std::slice::from_ref(&archive))?);
    let settings = Settings::default();
    let cache = root.join("cache");
    let carried = airlock_mirror::run::Carried::alone(&archives, &cache);
    let found =
        airlock_mirror::run::plan_from(&config::load(&isc)?, carried, &settings, Some(&target), &events).await?;
    let plan = found.discovered.plan;
    let sink = RegistrySink::new(target_client.clone(), target.registry.clone(), None)?;
    let verified = verify_target(&plan, &target, &sink, &events).await?;
    if let Some(absence) = verified.absent.first() {
        let what = format!("{} of `{}` is absent", absence.what, absence.image);
        return Err(Error::new(ErrorKind::Content, "verify the mirror", what).into());
    }

    say("6/6 what a cluster is told");
    progress.end();
    let resources = archive.join("working-dir/cluster-resources");
    for file in ["idms-oc-mirror.yaml", "itms-oc-mirror.yaml"] {
        let text = std::fs::read_to_string(resources.join(file)).map_err(|e| Error::io(format!("read {file}"), &e))?;
        crate::output::text(&format!("# {}\n{text}", resources.join(file).display()))?;
    }
    mirror.shutdown().await?;
    if !told::is_json() {
        told::say("summary", "");
    }
    let text = format!(
        "done in {}: {} images, {} carried; {} manifests and {} blobs verified at the mirror",
        time(began.elapsed().as_secs()),
        out.images.len(),
        size(out.bytes.moved),
        verified.manifests,
        verified.blobs
    );
    told::say("summary", &text);
    for line in [
        format!("everything is in {}", root.display()),
        format!("see what the archive holds:  airlock archive ls {}", shell(&archive.display().to_string())),
        format!(
            "serve it as a registry:      airlock registry serve --archive {} --plain-http --anonymous pull",
            shell(&archive.display().to_string())
        ),
        "mirror your own images:      airlock mirror -c isc.yaml file:///mnt/usb".to_owned(),
    ] {
        told::say("next", &line);
    }
    Ok(0)
}

fn complete(report: &Report) -> Result<(), Failure> {
    if report.status == Status::Complete {
        return Ok(());
    }
    let cause = report
        .failures()
        .find_map(|i| i.errors.first().map(|e| e.cause.clone()))
        .unwrap_or_else(|| "it was interrupted".into());
    let code = report.exit_code();
    Err(Failure::Coded(Error::new(ErrorKind::Io, "mirror the quick start's image set", cause), code))
}

/// A fresh folder; one that somebody else filled is left alone.
fn prepare(root: &Path) -> Result<(), Failure> {
    let failed = |e: &std::io::Error| Error::io(format!("make {}", root.display()), e);
    if root.join(MARKER).exists() {
        std::fs::remove_dir_all(root).map_err(|e| failed(&e))?;
    } else if std::fs::read_dir(root).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::usage(
            format!("{} is not empty and was not made by a quick start", root.display()),
            "choose another folder with --directory",
        ));
    }
    std::fs::create_dir_all(root).map_err(|e| failed(&e))?;
    std::fs::write(root.join(MARKER), "").map_err(|e| failed(&e))?;
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    Ok(std::fs::write(path, text).map_err(|e| Error::io(format!("write {}", path.display()), &e))?)
}

async fn serve(root: &Path) -> Result<(Running, Writer), Failure> {
    let root: PathBuf = root.to_owned();
    let writer = tokio::task::spawn_blocking(move || Writer::open(&root, Durability::Image))
        .await
        .map_err(|e| Error::new(ErrorKind::Io, "open the registry", e))??;
    let running = Server::writable(writer.clone()).anonymous(Anonymous::Push).bind(([127, 0, 0, 1], 0).into()).await?;
    Ok((running, writer))
}

fn image_set(pinned: &Digest) -> String {
    format!(
        "# The image set of the quick start.\n\
         kind: ImageSetConfiguration\n\
         apiVersion: mirror.openshift.io/v2alpha1\n\
         mirror:\n\
         \x20 additionalImages:\n\
         \x20 - name: {UPSTREAM}/demo/web:1.0\n\
         \x20 - name: {UPSTREAM}/demo/tool:2.1\n\
         \x20 - name: {UPSTREAM}/demo/signed:3.0\n\
         \x20 - name: {UPSTREAM}/demo/pinned@{pinned}\n"
    )
}

/// Bytes that do not compress, the same on every machine.
fn noise(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// The upstream's content: several platforms, Docker and OCI, signed, by tag and by digest. Returns the digest of the pinned image.
async fn fill(upstream: &Writer) -> Result<Digest, Failure> {
    let mut children = Vec::new();
    for (number, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
        let image = image(upstream, "demo/web", 10 + number as u64, architecture, false, None).await?;
        let mut child = serde_json::to_value(image.descriptor()).unwrap_or_default();
        child["platform"] = json!({"os": "linux", "architecture": architecture});
        children.push(child);
    }
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": children});
    put(upstream, "demo/web", &index, Some("1.0")).await?;
    image(upstream, "demo/tool", 20, "amd64", true, Some("2.1")).await?;
    let signed = image(upstream, "demo/signed", 30, "amd64", false, Some("3.0")).await?;
    sign(upstream, "demo/signed", signed.digest()).await?;
    let pinned = image(upstream, "demo/pinned", 40, "amd64", false, None).await?;
    Ok(pinned.digest().clone())
}

async fn image(
    upstream: &Writer,
    repository: &str,
    seed: u64,
    architecture: &str,
    docker: bool,
    tag: Option<&str>,
) -> Result<Manifest, Failure> {
    let (manifest_type, config_type, layer_type) = if docker {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG, media_type::DOCKER_LAYER_GZIP)
    } else {
        (media_type::OCI_MANIFEST, media_type::OCI_CONFIG, media_type::OCI_LAYER_GZIP)
    };
    let mut layers = Vec::new();
    // The first layer is shared by all images, as a base image is.
    for layer in [noise(1, LAYER_BYTES), noise(seed, LAYER_BYTES)] {
        layers.push(blob(upstream, repository, layer_type, layer).await?);
    }
    let diff_ids: Vec<String> = layers.iter().map(|l| l.digest.to_string()).collect();
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Cmd": ["/bin/demo"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = blob(upstream, repository, config_type, config.to_string().into_bytes().into()).await?;
    let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": layers});
    put(upstream, repository, &manifest, tag).await
}

/// A cosign signature by a key that nobody keeps.
async fn sign(upstream: &Writer, repository: &str, subject: &Digest) -> Result<(), Failure> {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
    use base64::Engine;
    let failed = |_| Failure::from(Error::new(ErrorKind::Io, "sign an image", "no random numbers"));
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": format!("{UPSTREAM}/{repository}")},
            "image": {"docker-manifest-digest": subject},
            "type": "cosign container image signature",
        },
        "optional": null,
    })
    .to_string();
    let random = aws_lc_rs::rand::SystemRandom::new();
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
    let signature = key.sign(&random, payload.as_bytes()).map_err(failed)?;
    let mut layer =
        blob(upstream, repository, "application/vnd.dev.cosign.simplesigning.v1+json", payload.into_bytes().into())
            .await?;
    layer.annotations.insert(
        "dev.cosignproject.cosign/signature".into(),
        base64::engine::general_purpose::STANDARD.encode(signature.as_ref()),
    );
    let config =
        json!({"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer.digest]}});
    let config = blob(upstream, repository, media_type::OCI_CONFIG, config.to_string().into_bytes().into()).await?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "config": config, "layers": [layer],
    });
    put(upstream, repository, &manifest, Some(&format!("{}.sig", subject.fallback_tag()))).await?;
    Ok(())
}

async fn blob(upstream: &Writer, repository: &str, media_type: &str, bytes: Bytes) -> Result<Descriptor, Failure> {
    let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
    let repository = name(repository)?;
    if !upstream.has_blob(&repository, &descriptor).await? {
        upstream.write_blob(&repository, &descriptor, &Made(bytes)).await?;
    }
    Ok(descriptor)
}

async fn put(
    upstream: &Writer,
    repository: &str,
    manifest: &serde_json::Value,
    tag: Option<&str>,
) -> Result<Manifest, Failure> {
    let manifest = Manifest::parse(manifest.to_string().into_bytes().into(), None)?;
    let tag = tag.map(|t| Tag::new(t).map_err(|e| Failure::usage(format!("`{t}`: {e}"), "report this"))).transpose()?;
    Sink::put_manifest(upstream, &name(repository)?, &manifest, tag.as_ref()).await?;
    Ok(manifest)
}

fn name(repository: &str) -> Result<Repository, Failure> {
    Repository::new(repository).map_err(|e| Failure::usage(format!("`{repository}`: {e}"), "report this"))
}
