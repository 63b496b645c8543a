//! What may be typed. Structs only; what they mean is the commands' business.

pub(crate) mod archive;
pub(crate) mod audit;
pub(crate) mod catalog;
pub(crate) mod cluster;
pub(crate) mod image;
pub(crate) mod mirror;
pub(crate) mod oc_mirror;
pub(crate) mod oc_mirror_list;
pub(crate) mod registries;
pub(crate) mod registry;
pub(crate) mod registry_install;
pub(crate) mod release;
pub(crate) mod rules;
pub(crate) mod serving;

use clap::{Args, Parser, Subcommand};

use crate::output::Format;
use crate::progress::Style;

/// Exit codes, for every `--help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes: 0 done · 1 failed · 2 usage or configuration · 3 partial, the report lists what is missing · 4 verification failed
5 not authorised · 6 no space · 7 network · 8 a gap was found · 9 refused for safety or locked · 130 interrupted, resumable";

/// Moves container images across an air gap and keeps disconnected OpenShift clusters running.
#[derive(Debug, Parser)]
#[command(name = "airlock", version, about, after_help = EXIT_CODES, max_term_width = 120)]
pub(crate) struct Arguments<C: Subcommand = Command> {
    /// Only errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// More detail (repeat for more).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// How progress is shown.
    #[arg(long, global = true, value_enum, default_value = "auto", env = "AIRLOCK_PROGRESS")]
    pub progress: Style,
    /// What to do.
    #[command(subcommand)]
    pub command: C,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mirror an image set: registry to archive, archive to registry, or registry to registry.
    Mirror(Box<mirror::MirrorArgs>),
    /// Show what would be mirrored, why, and how many bytes.
    Plan(mirror::PlanArgs),
    /// Check that the whole set is at a registry, to the last blob. Read-only.
    Verify(mirror::VerifyArgs),
    /// Look into archives.
    Archive(archive::ArchiveArgs),
    /// Copy, inspect and delete single images.
    Image(image::ImageArgs),
    /// Look into releases of OpenShift.
    Release(release::ReleaseArgs),
    /// Look into catalogs of operators, write configurations for them, copy them.
    Catalog(catalog::CatalogArgs),
    /// Look into the update graph.
    Updates(release::UpdatesArgs),
    /// Keep credentials for a registry, after trying them.
    Login(registries::LoginArgs),
    /// Forget credentials for a registry.
    Logout(registries::LogoutArgs),
    /// Serve a directory, or an archive, as a registry.
    Registry(registry::RegistryArgs),
    /// Mirror rules of a cluster: render, resolve, lint, convert them, and see what applying them costs.
    Rules(rules::RulesArgs),
    /// Which images in use these rules and mirrors can serve, and who uses those that they cannot.
    Audit(Box<audit::AuditArgs>),
    /// What a cluster must be told besides: credentials, certificates, resources.
    Cluster(Box<cluster::ClusterArgs>),
    /// The whole flow on this machine, with an embedded upstream. Needs no network.
    Quickstart(QuickstartArgs),
    /// Print a completion script.
    Completion(CompletionArgs),
    /// Print the version.
    Version(VersionArgs),
}

/// `quickstart`.
#[derive(Debug, Args)]
pub(crate) struct QuickstartArgs {
    /// Where everything is left.
    #[arg(long, default_value = "airlock-quickstart")]
    pub directory: std::path::PathBuf,
}

/// `completion`.
#[derive(Debug, Args)]
pub(crate) struct CompletionArgs {
    /// For which shell.
    pub shell: clap_complete::Shell,
}

/// `version`.
#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}
