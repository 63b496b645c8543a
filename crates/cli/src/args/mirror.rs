//! `mirror`, `plan`, `verify`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::registries::{CommonArgs, SourceArgs, TargetArgs, duration};
use crate::output::Format;

const EXAMPLES: &str = "\
Examples:
  airlock mirror -c isc.yaml file:///mnt/usb                                  registry -> archive
  airlock mirror -c isc.yaml --from file:///mnt/usb docker://mirror:5000/ocp  archive  -> registry
  airlock mirror -c isc.yaml --workspace file://ws docker://mirror:5000/ocp   registry -> registry
  airlock mirror --retry /mnt/usb/working-dir/report.json                     finish a partial run";

/// Which attachments of an image are carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum AttachmentsArg {
    /// cosign signatures and referrers.
    #[default]
    Signatures,
    /// cosign attestations and SBOMs too.
    All,
}

/// How thoroughly an archive is read before anything is pushed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyArg {
    /// Every byte once; a receipt saves the next load from doing it again.
    #[default]
    Full,
    /// Seal, sizes, headers, links, manifests, table. Blobs are hashed while they are pushed.
    Quick,
}

/// Which images may be mirrored from registries (containers-policy.json). Images of an archive are not judged again.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PolicyArgs {
    /// Mirror only what a policy allows: that of --policy, else ~/.config/containers/policy.json, else /etc/containers/policy.json.
    #[arg(long)]
    pub secure_policy: bool,
    /// Mirror only what this policy allows (containers-policy.json: reject, sigstoreSigned by key, …).
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// How OpenShift releases are found. UPDATE_URL_OVERRIDE names another update service, OCP_SIGNATURE_URL another store of signatures,
/// OCP_SIGNATURE_VERIFICATION_PK a file of the keys that may sign.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PlatformArgs {
    /// The update graph's data (a .tar.gz), in place of those of the update service.
    #[arg(long, value_name = "FILE|URL", env = "AIRLOCK_GRAPH_DATA")]
    pub graph_data: Option<String>,
    /// The image that the graph image is built upon (default: registry.access.redhat.com/ubi9/ubi:latest).
    #[arg(long, value_name = "IMAGE")]
    pub graph_base: Option<String>,
    /// Neither fetch nor check signatures of releases.
    #[arg(long)]
    pub ignore_release_signature: bool,
}

/// Which rules choose bundles of operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SelectionArg {
    /// The table of OpenShift's book: the default channel, ranges by version.
    #[default]
    Table,
    /// As oc-mirror since 2025: heads of every channel, ranges along the replaces chain.
    Head,
}

/// What becomes of an operator's bundle of which an image cannot be had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnMissingArg {
    /// It is left out of the catalog, and not carried.
    #[default]
    Skip,
    /// The catalog keeps it; only its image is withheld.
    Keep,
    /// Nothing at all is mirrored.
    Fail,
}

/// How bundles of operators are chosen.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct OperatorArgs {
    /// Which rules choose bundles.
    #[arg(long, value_enum, default_value = "table", env = "AIRLOCK_SELECTION")]
    pub selection: SelectionArg,
    /// What becomes of a bundle of which an image cannot be had.
    #[arg(long, value_enum, default_value = "skip")]
    pub on_missing: OnMissingArg,
    /// Add the bundles that the chosen ones need.
    #[arg(long)]
    pub with_dependencies: bool,
    /// Of a range of versions keep only the bundles that an update passes.
    #[arg(long)]
    pub minimal_path: bool,
}

/// `airlock mirror`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{}", super::EXIT_CODES))]
pub(crate) struct MirrorArgs {
    /// The image set.
    #[arg(long, short, value_name = "FILE", required_unless_present = "retry")]
    pub config: Option<PathBuf>,
    /// Where to: file://DIR or docker://HOST[:PORT][/NAMESPACE].
    #[arg(required_unless_present = "retry")]
    pub destination: Option<String>,
    /// Load from archives: file://DIR (repeatable, with increments).
    #[arg(long, value_name = "file://DIR")]
    pub from: Vec<String>,
    /// Registry to registry: where reports and cluster resources go.
    #[arg(long, value_name = "file://DIR")]
    pub workspace: Option<String>,
    /// Finish the run that left this report: fetches exactly what is missing.
    #[arg(long, value_name = "REPORT", conflicts_with_all = ["config", "destination", "from", "workspace", "secure_policy", "policy"])]
    pub retry: Option<PathBuf>,
    /// Plan and write the mapping; move nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// As --dry-run, with each platform of an index.
    #[arg(long, conflicts_with = "dry_run")]
    pub dry_run_manifest_lists: bool,
    /// Archive only what was not sent before this day (yyyy-MM-dd).
    #[arg(long, value_name = "DATE")]
    pub since: Option<String>,
    /// Fail when a blob is larger than archiveSize, instead of giving it a part of its own.
    #[arg(long)]
    pub strict_archive: bool,
    /// Remove the old archive in the directory first (needs less space; leaves nothing if this run fails).
    #[arg(long)]
    pub replace: bool,
    /// Most components of a repository's name at the target; the rest is joined by `-`. 0: no limit.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_nested_paths: usize,
    /// Which attachments to carry.
    #[arg(long, value_enum, default_value = "signatures")]
    pub attachments: AttachmentsArg,
    /// Carry no signatures and no referrers.
    #[arg(long, conflicts_with = "attachments")]
    pub remove_signatures: bool,
    /// Which images may be mirrored from registries.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// How releases are found.
    #[command(flatten)]
    pub release: PlatformArgs,
    /// How bundles of operators are chosen.
    #[command(flatten)]
    pub operators: OperatorArgs,
    /// When something of a release cannot be had, carry everything that belongs to no release nevertheless.
    #[arg(long)]
    pub keep_going: bool,
    /// How thoroughly archives are read before the first push.
    #[arg(long, value_enum, default_value = "full")]
    pub verify: VerifyArg,
    /// OpenShift version of the cluster; below 4.13 an ICSP is written in place of IDMS and ITMS.
    #[arg(long, value_name = "X.Y")]
    pub target_version: Option<String>,
    /// Images side by side.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel_images: Option<u16>,
    /// Blobs of one image side by side.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub parallel_layers: Option<u16>,
    /// The longest one image may take, retries included (default: as long as bytes flow).
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub image_timeout: Option<Duration>,
    /// Print the report to stdout.
    #[arg(short, long, value_enum)]
    pub output: Option<Format>,
    /// Both sides.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Source.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Target.
    #[command(flatten)]
    pub target: TargetArgs,
}

/// `airlock plan`.
#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The image set.
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// Plan from archives instead of registries: file://DIR.
    #[arg(long, value_name = "file://DIR")]
    pub from: Vec<String>,
    /// Why is this image or digest in the plan?
    #[arg(long, value_name = "IMAGE")]
    pub explain: Option<String>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Which attachments to carry.
    #[arg(long, value_enum, default_value = "signatures")]
    pub attachments: AttachmentsArg,
    /// Carry no signatures and no referrers.
    #[arg(long, conflicts_with = "attachments")]
    pub remove_signatures: bool,
    /// Which images may be mirrored.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// How releases are found.
    #[command(flatten)]
    pub release: PlatformArgs,
    /// How bundles of operators are chosen.
    #[command(flatten)]
    pub operators: OperatorArgs,
    /// Registries.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Source.
    #[command(flatten)]
    pub source: SourceArgs,
}

/// `airlock verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The image set.
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// The registry: docker://HOST[:PORT][/NAMESPACE].
    pub destination: String,
    /// What should be there according to archives instead of registries: file://DIR.
    #[arg(long, value_name = "file://DIR")]
    pub from: Vec<String>,
    /// As given when mirroring.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_nested_paths: usize,
    /// Which attachments were carried.
    #[arg(long, value_enum, default_value = "signatures")]
    pub attachments: AttachmentsArg,
    /// No signatures were carried.
    #[arg(long, conflicts_with = "attachments")]
    pub remove_signatures: bool,
    /// Which images were allowed: those that were refused took bundles out of catalogs.
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// How releases are found.
    #[command(flatten)]
    pub release: PlatformArgs,
    /// How bundles of operators are chosen.
    #[command(flatten)]
    pub operators: OperatorArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Registries.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Source.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Target.
    #[command(flatten)]
    pub target: TargetArgs,
}
