//! `release list|path|info|extract|mirror`, and `updates show|path`.

mod graph;
mod mirror;
mod payload;

use clap::{Args, Subcommand};

pub(crate) use graph::{ReleaseListArgs, ReleasePathArgs, ServiceArgs, UpdatesArgs, UpdatesCommand};
pub(crate) use mirror::{Instructions, MirrorArgs};
pub(crate) use payload::{ExtractArgs, InfoArgs, InfoFormat, WhereArgs};

/// `airlock release`.
#[derive(Debug, Args)]
pub(crate) struct ReleaseArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ReleaseCommand,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum ReleaseCommand {
    /// List releases, channels, or the minor versions that there are.
    List(ReleaseListArgs),
    /// Show the shortest way of a cluster from one release to another, with known risks.
    Path(ReleasePathArgs),
    /// Show a release: digest, version, components; or what differs between two.
    Info(Box<InfoArgs>),
    /// Take files or programs out of a release.
    Extract(Box<ExtractArgs>),
    /// Copy a release with its components and signatures into a registry or a file tree, as `oc adm release mirror` does.
    Mirror(Box<MirrorArgs>),
}
