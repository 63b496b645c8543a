//! `release list|path`, and the same under `updates show|path`.

use airlock_updates::{Architecture, ChannelName, Minor, Version};
use clap::{Args, Subcommand};

use crate::args::registries::CommonArgs;
use crate::output::Format;

/// `airlock updates`.
#[derive(Debug, Args)]
pub(crate) struct UpdatesArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: UpdatesCommand,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum UpdatesCommand {
    /// The same as `release list`.
    Show(ReleaseListArgs),
    /// The same as `release path`.
    Path(ReleasePathArgs),
}

/// Which update service is asked.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ServiceArgs {
    /// The whole address of an update graph, in place of the public one.
    #[arg(long, env = "UPDATE_URL_OVERRIDE", hide_env_values = true, value_name = "URL")]
    pub graph_url: Option<String>,
    /// Releases of OKD.
    #[arg(long)]
    pub okd: bool,
}

/// `release list`.
#[derive(Debug, Args)]
pub(crate) struct ReleaseListArgs {
    /// What is held there, in place of what there is: docker://HOST/PATH or file://DIR with an archive.
    #[arg(conflicts_with_all = ["channel", "channels", "okd"])]
    pub place: Option<String>,
    /// Releases of this channel.
    #[arg(long, value_parser = channel, value_name = "NAME")]
    pub channel: Option<ChannelName>,
    /// Releases of this minor version (X.Y): its stable channel, where no channel is named.
    #[arg(long, value_name = "X.Y")]
    pub version: Option<Minor>,
    /// The channels that the releases are in.
    #[arg(long)]
    pub channels: bool,
    /// For which architectures (repeatable; amd64, arm64, ppc64le, s390x, multi). Of a graph amd64, else all.
    #[arg(long, visible_alias = "filter-by-archs", value_delimiter = ',', value_name = "ARCH")]
    pub arch: Vec<Architecture>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Which service.
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Connections.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// `release path`.
#[derive(Debug, Args)]
pub(crate) struct ReleasePathArgs {
    /// The release that a cluster has.
    pub from: Version,
    /// The release that it is to have.
    pub to: Version,
    /// Look in this channel only (else in the stable channels of all minor versions on the way, then fast, then candidate).
    #[arg(long, value_parser = channel, value_name = "NAME")]
    pub channel: Option<ChannelName>,
    /// For which architecture (amd64, arm64, ppc64le, s390x, multi).
    #[arg(long, default_value = "amd64", value_name = "ARCH")]
    pub arch: Architecture,
    /// Only updates without known risks.
    #[arg(long)]
    pub no_risks: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Which service.
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Connections.
    #[command(flatten)]
    pub common: CommonArgs,
}

fn channel(text: &str) -> Result<ChannelName, String> {
    ChannelName::new(text).map_err(|error| error.to_string())
}
