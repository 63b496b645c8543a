//! The flags of `oc-mirror list releases|operators` (oc-mirror 2.5).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// `oc-mirror list`.
#[derive(Debug, Parser)]
#[command(name = "oc-mirror list", about = "List available content", disable_version_flag = true)]
pub(crate) struct OcMirrorListArgs {
    /// The only version of the behaviour; accepted.
    #[arg(long, global = true)]
    pub v2: bool,
    /// Accepted; only errors are told.
    #[arg(long, visible_alias = "loglevel", global = true, default_value = "info")]
    pub log_level: String,
    /// Credential file.
    #[arg(long, global = true, env = "REGISTRY_AUTH_FILE")]
    pub authfile: Option<PathBuf>,
    /// Check the source's certificates.
    #[arg(long, global = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    pub src_tls_verify: bool,
    /// What to list.
    #[command(subcommand)]
    pub what: OcMirrorListed,
}

/// What can be listed.
#[derive(Debug, Subcommand)]
pub(crate) enum OcMirrorListed {
    /// List the versions of OpenShift.
    Releases(OcMirrorReleasesArgs),
    /// List catalogs, and the operators, channels and versions in one.
    Operators(OcMirrorOperatorsArgs),
}

/// `oc-mirror list releases`.
#[derive(Debug, Args)]
pub(crate) struct OcMirrorReleasesArgs {
    /// An OpenShift version (X.Y).
    #[arg(long)]
    pub version: Option<String>,
    /// A channel.
    #[arg(long)]
    pub channel: Option<String>,
    /// List the channels of a version.
    #[arg(long)]
    pub channels: bool,
    /// Architectures: amd64, arm64, ppc64le, s390x, multi.
    #[arg(long, value_delimiter = ',', default_value = "amd64")]
    pub filter_by_archs: Vec<String>,
}

/// `oc-mirror list operators`.
#[derive(Debug, Args)]
pub(crate) struct OcMirrorOperatorsArgs {
    /// List the public catalogs of a version.
    #[arg(long)]
    pub catalogs: bool,
    /// An OpenShift version (X.Y).
    #[arg(long)]
    pub version: Option<String>,
    /// List the operators of this catalog.
    #[arg(long)]
    pub catalog: Option<String>,
    /// List the channels of this operator.
    #[arg(long)]
    pub package: Option<String>,
    /// List the versions in this channel.
    #[arg(long)]
    pub channel: Option<String>,
}
