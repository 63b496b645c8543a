//! `catalog list|diff|init`: what only reads.

use std::path::PathBuf;

use airlock_updates::Minor;
use clap::Args;

use crate::args::mirror::SelectionArg;
use crate::args::registries::{CommonArgs, OneSideArgs};
use crate::output::Format;

/// Where a catalog is read.
#[derive(Debug, Args)]
pub(crate) struct WhereArgs {
    /// Read it in this archive (file://DIR), under the name it was mirrored from.
    #[arg(long, value_name = "file://DIR")]
    pub from: Option<String>,
    /// Registry.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Registry.
    #[command(flatten)]
    pub side: OneSideArgs,
}

/// `catalog list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The catalog: HOST/NAME:TAG, HOST/NAME@DIGEST, oci:DIR[:TAG], or a directory of catalog files (/DIR, ./DIR). Without one, the catalogs of
    /// --version, or those in the archive of --from.
    pub catalog: Option<String>,
    /// The public catalogs for this version of OpenShift (X.Y).
    #[arg(long, value_name = "X.Y", conflicts_with_all = ["catalog", "from"])]
    pub version: Option<Minor>,
    /// The channels of this operator.
    #[arg(long, value_name = "NAME", requires = "catalog")]
    pub package: Option<String>,
    /// The versions in this channel of it.
    #[arg(long, value_name = "NAME", requires = "package")]
    pub channel: Option<String>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Where.
    #[command(flatten)]
    pub place: WhereArgs,
}

/// `catalog diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// Two catalogs, the older one first. None with two configurations, whose own catalogs are compared then.
    #[arg(num_args = 0..=2, value_name = "CATALOG")]
    pub catalogs: Vec<String>,
    /// What this configuration chooses, in place of everything; twice for each side its own.
    #[arg(short, long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// By which rules configurations choose.
    #[arg(long, value_enum, default_value = "table", env = "AIRLOCK_SELECTION")]
    pub selection: SelectionArg,
    /// Look no images up: nothing is said of bytes.
    #[arg(long)]
    pub no_bytes: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Registry.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Registry.
    #[command(flatten)]
    pub side: OneSideArgs,
}

/// `catalog init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// The catalog: HOST/NAME:TAG, HOST/NAME@DIGEST or oci:DIR.
    pub catalog: String,
    /// An operator, perhaps with channels (NAME[,CHANNEL…]); else its default channel. Repeatable.
    #[arg(long = "package", value_name = "NAME[,CHANNEL…]", required = true)]
    pub packages: Vec<String>,
    /// The file that is written; else standard output.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Replace the file.
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Where.
    #[command(flatten)]
    pub place: WhereArgs,
}
