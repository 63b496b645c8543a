//! `catalog mirror`: the flags of `oc adm catalog mirror` (updates-and-releases.md 9), and ours for registries.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::args::registries::{CommonArgs, SourceArgs, TargetArgs};
use crate::output::Format;

/// `catalog mirror`.
#[derive(Debug, Args)]
pub(crate) struct MirrorArgs {
    /// The catalog: HOST/NAME:TAG, HOST/NAME@DIGEST, or file://NAME:TAG in a file tree.
    #[arg(value_name = "SRC")]
    pub source: String,
    /// Where to: HOST[:PORT][/NAMESPACE], or file://NAME for a file tree.
    #[arg(value_name = "DEST")]
    pub destination: String,
    /// Only write the files; copy nothing.
    #[arg(long, conflicts_with = "dry_run")]
    pub manifests_only: bool,
    /// Where the files are written; else manifests-NAME-TIME.
    #[arg(long, value_name = "DIR")]
    pub to_manifests: Option<PathBuf>,
    /// Which platform's image of the catalog is read (a regular expression over os/arch). Everything is copied for all platforms.
    #[arg(long, visible_alias = "filter-by-os", value_name = "REGEX")]
    pub index_filter_by_os: Option<String>,
    /// Most components of a repository's name at the destination: the last takes up the rest; 0: no limit. Always 0 for file://.
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub max_components: usize,
    /// Whether rules are for repositories or for whole registries.
    #[arg(long, visible_alias = "icsp-scope", value_enum, default_value = "repository", value_name = "SCOPE")]
    pub idms_scope: Scope,
    /// Most bytes of one object of rules; what is beyond goes into a further one.
    #[arg(
        long, visible_alias = "max-icsp-size", default_value_t = MAX_RULES_BYTES, value_name = "BYTES",
        value_parser = clap::value_parser!(u64).range(1..=MAX_RULES_BYTES)
    )]
    pub max_idms_size: u64,
    /// Go on when an image cannot be had; the exit code is then 3.
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true",
        action = clap::ArgAction::Set
    )]
    pub continue_on_error: bool,
    /// Look everything up and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// The directory of the file tree that file:// destinations are in.
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub dir: PathBuf,
    /// The directory of the file tree that file:// sources are in; else that of --dir.
    #[arg(long, value_name = "DIR")]
    pub from_dir: Option<PathBuf>,
    /// Images, and blobs, that are copied at once.
    #[arg(long, default_value = "4", value_name = "N")]
    pub max_per_registry: NonZeroUsize,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// `oc` unpacks the catalog there; this program reads it as it streams by.
    #[arg(long, hide = true, value_name = "PATH:DIR")]
    pub path: Option<String>,
    /// Both sides.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Source.
    #[command(flatten)]
    pub side: SourceArgs,
    /// Target.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// The largest object of rules (bytes): `oc apply` keeps a second copy of it in an annotation, of which 256 KiB are stored.
const MAX_RULES_BYTES: u64 = 250_000;

/// What a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// A repository.
    Repository,
    /// A registry, with all its repositories: fewer rules, and fewer restarts of nodes when the catalog grows.
    Registry,
}
