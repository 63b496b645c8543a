//! `airlock registry`: serving, keeping the storage in order, and installing a registry that stays.

mod describe;
mod import;
mod installed;
mod upkeep;
mod user;

use std::sync::Arc;

use airlock_mirror::archives::Archives;
use airlock_oci::{Error, ErrorKind};
use airlock_registry::{Anonymous, Rights, Server, Tls, Users};
use airlock_store::bucket::{Bucket, Settings};
use airlock_store::distribution::{Durability, Writer};
use airlock_transfer::Stop;

use self::describe::Describer;
use crate::args::registry::{
    AnonymousArg, BucketArgs, DurabilityArg, RegistryArgs, RegistryCommand, ServeArgs, SparseArg,
};
use crate::commands::plain_path;
use crate::exit::{Exit, Failure};
use crate::progress::Look;
use crate::{environment, signals};

/// Runs the verb.
pub(crate) async fn run(args: RegistryArgs, look: Look) -> Result<u8, Failure> {
    match args.command {
        RegistryCommand::Serve(args) => serve(args).await,
        RegistryCommand::Import(args) => import::run(*args, look).await,
        RegistryCommand::Generations(args) => upkeep::generations(args).await,
        RegistryCommand::Install(args) => installed::install::run(*args).await,
        RegistryCommand::Upgrade(args) => installed::upgrade::run(args).await,
        RegistryCommand::Status(args) => installed::status::run(args).await,
        RegistryCommand::Cert(args) => installed::cert::run(args).await,
        RegistryCommand::Uninstall(args) => installed::uninstall::run(args).await,
        RegistryCommand::Gc(args) => upkeep::gc(args).await,
        RegistryCommand::Scrub(args) => upkeep::scrub(args).await,
        RegistryCommand::Repair(args) => upkeep::repair(args).await,
        RegistryCommand::User(args) => user::run(args).await,
    }
}

async fn serve(args: ServeArgs) -> Result<u8, Failure> {
    let anonymous = match args.anonymous {
        Some(AnonymousArg::Pull) => Anonymous::Pull,
        Some(AnonymousArg::Push) => Anonymous::Push,
        None => Anonymous::None,
    };
    if args.htpasswd.is_none() && args.anonymous.is_none() {
        return Err(Failure::usage(
            "nobody could use this registry: it has neither users nor anonymous rights",
            "add --htpasswd FILE, or --anonymous pull, or --anonymous (pull and push)",
        ));
    }
    let bucket = open_bucket(&args.bucket).await?;
    let (builder, what) = match (bucket, &args.root) {
        (Some(bucket), _) => {
            let what = bucket.describe();
            (Server::bucket(bucket).describe(Arc::new(Describer::default())), what)
        }
        (None, Some(root)) => {
            let root = root.clone();
            let durability = match args.durability {
                DurabilityArg::Each => Durability::Each,
                DurabilityArg::Image => Durability::Image,
            };
            let writer = blocking(move || Writer::open(&root, durability)).await?;
            let what = writer.directory().root().display().to_string();
            (Server::writable(writer).describe(Arc::new(Describer::default())), what)
        }
        (None, None) => {
            let directories: Vec<_> = args.archive.iter().map(|d| plain_path(d)).collect();
            let archives = blocking(move || Archives::open(&directories)).await?;
            warn_of_gaps(&archives);
            let archives = Arc::new(archives);
            let what = airlock_store::Storage::describe(archives.as_ref());
            let describer = Describer { archives: Some(Arc::clone(&archives)) };
            (Server::read_only(archives).describe(Arc::new(describer)), what)
        }
    };
    let mut builder = builder
        .anonymous(anonymous)
        .sparse_indexes(args.sparse != SparseArg::None)
        .sparse_images(args.sparse == SparseArg::Images);
    if let Some(path) = &args.htpasswd {
        builder = builder.users(Users::read(path)?);
    }
    if let Some(path) = &args.rights {
        builder = builder.rights(Rights::read(path)?);
    }
    if args.tokens {
        builder = builder.tokens();
    }
    if let Some(url) = args.external_url {
        builder = builder.external_url(url);
    }
    if let Some(addr) = args.metrics {
        builder = builder.health(addr);
    }
    let mut scheme = "https";
    let mut ca = None;
    if args.plain_http {
        scheme = "http";
    } else if let (Some(certificate), Some(key)) = (args.tls_cert, args.tls_key) {
        builder = builder.tls(Tls::Files { certificate, key });
    } else if let Some(folder) = args.tls_folder {
        ca = Some(folder.join("ca.crt"));
        builder = builder.tls(Tls::Kept { folder, names: args.hostname });
    } else {
        let folder = environment::state().join("tls");
        ca = Some(folder.join("ca.crt"));
        let mut names = args.hostname;
        names.push(args.listen.ip().to_string());
        if let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
            names.push(name.trim().to_owned());
        }
        names.retain(|n| n != "0.0.0.0" && n != "::");
        builder = builder.tls(Tls::SelfMade { folder, names });
    }
    let mut running = builder.bind(args.listen).await?;
    let stop = Stop::default();
    signals::listen_quietly(&stop);
    eprintln!("serving {what} at {scheme}://{}", running.addr);
    eprintln!("what is mirrored: {scheme}://{}/ in a browser", running.addr);
    if let Some(addr) = running.health {
        eprintln!("health and metrics at http://{addr}");
    }
    if let Some(ca) = ca {
        eprintln!("clients must trust {}", ca.display());
    }
    tokio::select! {
        ended = running.wait() => ended?,
        () = stop.stopped() => running.shutdown().await?,
    }
    Ok(0)
}

/// Says at the start what nobody will be able to pull.
fn warn_of_gaps(archives: &Archives) {
    for ((sequence, created), blobs) in archives.needed_archives() {
        eprintln!(
            "warning: {blobs} blobs lie in archive {sequence} of {created}, which is not served here: images that need \
             them cannot be pulled; add its directory with --archive"
        );
    }
    let void = archives.void_digests();
    if let Some(first) = void.first() {
        eprintln!(
            "warning: {} blobs and manifests were missing when the archive was written, such as {first}: images that \
             need them cannot be pulled; `airlock archive ls` names them",
            void.len()
        );
    }
}

/// The bucket that the arguments name, if they name one.
/// A store that cannot be spoken to is a failure of the network here; behind a registry that serves, it is one of its storage.
async fn open_bucket(args: &BucketArgs) -> Result<Option<Bucket>, Failure> {
    let Some(url) = &args.s3 else {
        if args.s3_endpoint.is_some() || args.s3_region.is_some() {
            return Err(Failure::usage("--s3-endpoint and --s3-region mean nothing without --s3", "leave them out"));
        }
        return Ok(None);
    };
    let mut settings = Settings::parse(url)?;
    settings.endpoint.clone_from(&args.s3_endpoint);
    settings.region.clone_from(&args.s3_region);
    Bucket::open(&settings).await.map(Some).map_err(|error| match error.kind() {
        ErrorKind::Server => Failure::Coded(error, Exit::Network.code()),
        _ => error.into(),
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::new(ErrorKind::Io, "open the storage", e))?
}
