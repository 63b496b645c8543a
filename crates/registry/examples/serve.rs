//! Serves a directory as a registry, for trying things by hand:
//! `cargo run -p airlock-registry --example serve -- ROOT ADDRESS [HTPASSWD] [CERTIFICATES]`

use std::path::Path;

use airlock_oci::{Error, ErrorKind};
use airlock_registry::{Anonymous, Server, Tls, Users};
use airlock_store::distribution::{Durability, Writer};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = || Error::new(ErrorKind::Invalid, "serve", "usage: serve ROOT ADDRESS [HTPASSWD or -] [CERTIFICATES]");
    let [root, address, more @ ..] = &arguments[..] else { return Err(usage()) };
    let address = address.parse().map_err(|_| usage())?;
    let mut builder = Server::writable(Writer::open(Path::new(root), Durability::Image)?);
    builder = match more.first().filter(|file| *file != "-") {
        Some(file) => builder.users(Users::read(Path::new(file))?),
        None => builder.anonymous(Anonymous::Push),
    };
    if let Some(folder) = more.get(1) {
        builder = builder.tls(Tls::SelfMade { folder: folder.into(), names: Vec::new() });
    }
    let running = builder.bind(address).await?;
    tracing::info!(addr = %running.addr, "listening");
    tokio::signal::ctrl_c().await.map_err(|e| Error::io("wait for Ctrl-C", &e))?;
    running.shutdown().await
}
