//! `release list|path|info|extract`, and `updates show|path`.

mod graph;
mod payload;

use clap::{Args, Subcommand};

pub(crate) use graph::{ReleaseListArgs, ReleasePathArgs, ServiceArgs, UpdatesArgs, UpdatesCommand};
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
}
