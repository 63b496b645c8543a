//! `registry serve`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `airlock registry`.
#[derive(Debug, Args)]
pub(crate) struct RegistryArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RegistryCommand,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Serve a directory as a registry, or an archive as a read-only one.
    Serve(ServeArgs),
}

/// What may be done without credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnonymousArg {
    /// Pull.
    Pull,
    /// Pull and push.
    Push,
}

/// `registry serve`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["root", "archive"]))]
pub(crate) struct ServeArgs {
    /// Serve this directory (docker-distribution's layout; made if it does not exist).
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Serve the archives in these directories, read-only, in place (file:// is accepted; repeatable).
    #[arg(long, value_name = "DIR")]
    pub archive: Vec<PathBuf>,
    /// Address; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:5000", value_name = "ADDR:PORT")]
    pub listen: std::net::SocketAddr,
    /// Certificate (PEM, with its chain).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Serve plain HTTP. Without this and without a certificate one is made on the spot.
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    pub plain_http: bool,
    /// Users (bcrypt lines, as `htpasswd -B` writes them).
    #[arg(long, value_name = "FILE")]
    pub htpasswd: Option<PathBuf>,
    /// What may be done without credentials; bare: push.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "push")]
    pub anonymous: Option<AnonymousArg>,
}
