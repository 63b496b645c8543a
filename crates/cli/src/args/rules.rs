//! `rules render|resolve`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::output::Format;

/// `airlock rules`.
#[derive(Debug, Args)]
pub(crate) struct RulesArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: RulesCommand,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// The registries.conf that the Machine Config Operator writes on every node.
    Render(RenderArgs),
    /// What a node tries for a reference, in order, and why.
    Resolve(ResolveArgs),
    /// The same as `airlock audit`.
    Audit(Box<super::audit::AuditArgs>),
}

/// What stands around the rules in a cluster.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Registries.conf that rendering starts from, instead of the one of every built-in pool.
    #[arg(long, value_name = "REGISTRIES_CONF")]
    pub base: Option<PathBuf>,
    /// The object `image.config.openshift.io/cluster`.
    #[arg(long, value_name = "FILE")]
    pub image_config: Option<PathBuf>,
    /// The release image as ClusterVersion names it; decides which blocked registries count.
    #[arg(long, value_name = "REF")]
    pub release_image: Option<String>,
}

/// How a rendered file looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Style {
    /// Byte for byte what the Machine Config Operator writes.
    #[default]
    Mco,
    /// Without empty settings.
    Plain,
}

/// `rules render`.
#[derive(Debug, Args)]
pub(crate) struct RenderArgs {
    /// Files or directories with IDMS, ITMS and ICSP objects; `-` for standard input.
    #[arg(required_unless_present = "image_config")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// How the file looks.
    #[arg(long, value_enum, default_value = "mco")]
    pub style: Style,
    /// Write all files below this directory, as they lie on a node, instead of the one to standard output.
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Form of the output; `table` is the file itself.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// `rules resolve`.
#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// References as pods write them.
    #[arg(required = true)]
    pub references: Vec<String>,
    /// A registries.conf as it lies on a node.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["rules", "image_config"])]
    pub registries_conf: Option<PathBuf>,
    /// Its directory of drop-ins.
    #[arg(long, value_name = "DIR", requires = "registries_conf")]
    pub dropins: Option<PathBuf>,
    /// Files or directories with IDMS, ITMS and ICSP objects (repeat, or several after one --rules); `-` for standard input.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "registries_conf")]
    pub rules: Vec<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Form of the output; `json` is always an array with one element a reference.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}
