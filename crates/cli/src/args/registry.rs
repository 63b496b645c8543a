//! `registry serve`, and the verbs that keep its storage in order.

use std::path::PathBuf;

use airlock_mirror::import::Pattern;
use clap::{Args, Subcommand, ValueEnum};

use super::registries::{CommonArgs, SourceArgs, TargetArgs, address};
use crate::args::registry_install::{CertArgs, InstallArgs, StatusArgs, UninstallArgs, UpgradeArgs};
use crate::output::Format;

/// `airlock registry`.
#[derive(Debug, Args)]
pub(crate) struct RegistryArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RegistryCommand,
}

impl RegistryArgs {
    /// Whether a registry is served, and not only worked on.
    pub(crate) fn is_serve(&self) -> bool {
        matches!(self.command, RegistryCommand::Serve(_))
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum RegistryCommand {
    /// Serve a directory as a registry, or an archive as a read-only one.
    Serve(ServeArgs),
    /// Take over what another registry, its storage, archives or OCI layouts hold, as a generation; also while the registry serves.
    Import(Box<ImportArgs>),
    /// List what imports have brought.
    Generations(GenerationsArgs),
    /// Install a registry that stays: certificate, users, service, and what a cluster must be told. Again: change it.
    Install(Box<InstallArgs>),
    /// Put this program in the place of an installed one; back again if it does not work.
    Upgrade(UpgradeArgs),
    /// How the installed registry is.
    Status(StatusArgs),
    /// Change the certificate of the installed registry while it serves.
    Cert(CertArgs),
    /// Remove the installed registry; what is mirrored stays.
    Uninstall(UninstallArgs),
    /// Remove what no manifest names, also while the registry serves.
    Gc(GcArgs),
    /// Read every byte and compare it with its name, also while the registry serves.
    Scrub(ScrubArgs),
    /// Bring back from archives what is damaged or missing, also while the registry serves.
    Repair(RepairArgs),
    /// Add, remove and list the users of a file that the registry serves with.
    User(UserArgs),
}

/// `registry user`.
#[derive(Debug, Args)]
pub(crate) struct UserArgs {
    /// The file of users (bcrypt lines); that of the installed registry, else ./htpasswd, unless it is said.
    #[arg(long, value_name = "FILE", global = true)]
    pub htpasswd: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: UserCommand,
}

/// The verbs of `registry user`.
#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Add a user; a password is made and printed unless one is given.
    Add {
        /// The user's name.
        name: String,
        /// Read the password from standard input.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Give a user a new password; one is made and printed unless one is given.
    Passwd {
        /// The user's name.
        name: String,
        /// Read the password from standard input.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Remove a user.
    Remove {
        /// The user's name.
        name: String,
    },
    /// List the users.
    List {
        /// Form of the output.
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
}

/// When what is pushed is safe from a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    /// Each blob before it is acknowledged.
    Each,
    /// All blobs of an image before its manifest is acknowledged.
    Image,
}

/// What is taken although something that it names is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SparseArg {
    /// Nothing.
    None,
    /// Indexes without some of their platforms.
    Indexes,
    /// Images without some of their layers too.
    Images,
}

/// A bucket of an S3-compatible object store. Credentials come from where the AWS tools take them.
#[derive(Debug, Args)]
pub(crate) struct BucketArgs {
    /// A place in a bucket of an S3-compatible object store (docker-distribution's layout).
    #[arg(long, value_name = "s3://BUCKET[/PREFIX]")]
    pub s3: Option<String>,
    /// The object store's URL, if it is not AWS; http:// is taken as it is.
    #[arg(long, value_name = "URL", requires = "s3")]
    pub s3_endpoint: Option<String>,
    /// The bucket's region.
    #[arg(long, value_name = "REGION", requires = "s3")]
    pub s3_region: Option<String>,
}

/// `registry gc`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("where").required(true).args(["root", "s3"]))]
pub(crate) struct GcArgs {
    /// The directory that the registry serves.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// First let go what only imports before the last N complete ones have brought.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), conflicts_with = "s3")]
    pub keep: Option<u32>,
    /// The bucket that registries serve.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// Only say what would be removed.
    #[arg(long)]
    pub dry_run: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// `registry import`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("destination").required(true).args(["root", "to"]))]
pub(crate) struct ImportArgs {
    /// docker://HOST[:PORT][/PATH], or a directory (file:// is accepted): docker-distribution's storage, archives (several are read newest
    /// first), an OCI layout, or layouts as zot keeps them.
    #[arg(required = true, value_name = "SOURCE")]
    pub source: Vec<String>,
    /// Into the directory that a registry serves, or will serve.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Into another registry: docker://HOST[:PORT][/PATH].
    #[arg(long, value_name = "REGISTRY")]
    pub to: Option<String>,
    /// Only these repositories (`*` is a part of a component, `**` any number of components; repeatable).
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<Pattern>,
    /// Not these repositories (repeatable).
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<Pattern>,
    /// Put this before each repository's name.
    #[arg(long, value_name = "PATH", conflicts_with = "to")]
    pub prefix: Option<String>,
    /// The repository of an OCI layout whose names do not tell it.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Copy files that could be linked, so that the storage shares nothing with its source.
    #[arg(long)]
    pub copy: bool,
    /// Only say what would be imported, with the exact number of bytes.
    #[arg(long)]
    pub dry_run: bool,
    /// Images side by side.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel_images: Option<u16>,
    /// Blobs of one image side by side.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel_layers: Option<u16>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Both sides.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Source.
    #[command(flatten)]
    pub from: SourceArgs,
    /// Target.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `registry generations`.
#[derive(Debug, Args)]
pub(crate) struct GenerationsArgs {
    /// The directory that the registry serves.
    #[arg(long, value_name = "DIR")]
    pub root: PathBuf,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// `registry scrub`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("where").required(true).args(["root", "s3"]))]
pub(crate) struct ScrubArgs {
    /// The directory that the registry serves.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The bucket that registries serve.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// Read at most so many MiB a second, to leave the disk or the network to those who pull.
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// `registry repair`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("where").required(true).args(["root", "s3"]))]
pub(crate) struct RepairArgs {
    /// The directory that the registry serves.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The bucket that registries serve.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// An archive's directory (file:// is accepted; repeatable, asked in this order).
    #[arg(long, value_name = "ARCHIVE", required = true)]
    pub from: Vec<PathBuf>,
    /// Only look for what is missing, without reading every byte first.
    #[arg(long)]
    pub quick: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
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
#[command(group = clap::ArgGroup::new("what").required(true).args(["root", "archive", "s3"]))]
pub(crate) struct ServeArgs {
    /// Serve this directory (docker-distribution's layout; made if it does not exist).
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Serve the archives in these directories, read-only, in place (file:// is accepted; repeatable).
    #[arg(long, value_name = "DIR")]
    pub archive: Vec<PathBuf>,
    /// Serve a bucket, and write what is pushed into it; several servers may serve the same one.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// Address; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:5000", value_name = "ADDR:PORT", value_parser = address)]
    pub listen: std::net::SocketAddr,
    /// Certificate (PEM, with its chain).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Private key (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Keep a CA and a certificate from it in this folder, and use what is put there (`given.pem`).
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tls_cert", "tls_key", "plain_http"])]
    pub tls_folder: Option<PathBuf>,
    /// A name or address that the certificate made here is for (repeatable).
    #[arg(long, value_name = "NAME", conflicts_with_all = ["tls_cert", "tls_key", "plain_http"])]
    pub hostname: Vec<String>,
    /// Serve plain HTTP. Without this and without a certificate one is made on the spot.
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    pub plain_http: bool,
    /// Users (bcrypt lines, as `htpasswd -B` writes them).
    #[arg(long, value_name = "FILE")]
    pub htpasswd: Option<PathBuf>,
    /// What may be done without credentials; bare: push.
    #[arg(long, value_enum, num_args = 0..=1, default_missing_value = "push")]
    pub anonymous: Option<AnonymousArg>,
    /// Who may do what where (lines `USER REPOSITORIES RIGHTS`); without it users may do everything.
    #[arg(long, value_name = "FILE")]
    pub rights: Option<PathBuf>,
    /// Give clients tokens for some minutes instead of asking for the password with every request.
    #[arg(long, requires = "htpasswd")]
    pub tokens: bool,
    /// The URL by which clients reach this registry, where a proxy stands before it (`https://mirror.example.com`).
    #[arg(long, value_name = "URL")]
    pub external_url: Option<airlock_registry::ExternalUrl>,
    /// When what is pushed is safe from a power cut.
    #[arg(long, value_enum, default_value = "image", conflicts_with_all = ["archive", "s3"])]
    pub durability: DurabilityArg,
    /// What is taken although something that it names is not there.
    #[arg(long, value_enum, default_value = "indexes", conflicts_with = "archive")]
    pub sparse: SparseArg,
    /// Answer /healthz, /readyz and /metrics (Prometheus) at this address, without credentials.
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<std::net::SocketAddr>,
}
