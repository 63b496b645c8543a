//! `cluster pull-secret|ca|resources`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::output::Format;

/// `airlock cluster`.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ClusterCommand,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum ClusterCommand {
    /// The global pull secret: what is in it, and changes to it. Secrets are never shown.
    PullSecret(PullSecretArgs),
    /// Certificates of mirrors: the ConfigMap, and the image configuration that points to it.
    Ca(CaArgs),
    /// What a mirroring run left in working-dir/cluster-resources.
    Resources(ResourcesArgs),
}

/// Which cluster, and as whom.
#[cfg(feature = "cluster")]
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct KubeArgs {
    /// Kubeconfig (else KUBECONFIG, ~/.kube/config, the service account of the pod).
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// `cluster pull-secret`.
#[derive(Debug, Args)]
pub(crate) struct PullSecretArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: PullSecretCommand,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum PullSecretCommand {
    /// What is in it, without the secrets, and what is wrong with it.
    Show(ShowArgs),
    /// Set the credentials of a registry.
    Add(AddArgs),
    /// Take registries out.
    Remove(RemoveArgs),
    /// Put several into one.
    Merge(MergeArgs),
    /// What differs between two. Exit code 8 where something does.
    Diff(DiffArgs),
}

/// `cluster pull-secret show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// A credential file or a Secret that holds one; `-` for standard input.
    #[cfg_attr(feature = "cluster", arg(required_unless_present = "live", conflicts_with = "live"))]
    #[cfg_attr(not(feature = "cluster"), arg(required = true))]
    pub file: Option<PathBuf>,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub live: LiveArgs,
    /// The credential file that writes to the mirror: what is also in there is named.
    #[arg(long, value_name = "FILE")]
    pub pushes: Option<PathBuf>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// The cluster's own pull secret.
#[cfg(feature = "cluster")]
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LiveArgs {
    /// The secret openshift-config/pull-secret of the cluster.
    #[arg(long)]
    pub live: bool,
    #[command(flatten)]
    pub kube: KubeArgs,
}

/// Where a pull secret is taken from and goes to.
#[derive(Debug, Args)]
pub(crate) struct EditArgs {
    /// The file that is written; it is also what is changed, unless --from names another.
    #[cfg_attr(feature = "cluster", arg(long, value_name = "FILE", required_unless_present_any = ["live", "dry_run"]))]
    #[cfg_attr(not(feature = "cluster"), arg(long, value_name = "FILE", required_unless_present = "dry_run"))]
    pub to: Option<PathBuf>,
    /// Write a Secret that can be applied, instead of the credential file itself.
    #[arg(long, requires = "to")]
    pub as_secret: bool,
    /// Only say what would change.
    #[arg(long)]
    pub dry_run: bool,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub live: LiveArgs,
    /// The credential file that writes to the mirror: no node should have what is in there, and a warning says so.
    #[arg(long, value_name = "FILE")]
    pub pushes: Option<PathBuf>,
    /// Form of the list of changes.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// `cluster pull-secret add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// HOST[:PORT] or HOST[:PORT]/PATH, as mirrors are written in the rules.
    #[arg(long, value_name = "HOST")]
    pub registry: String,
    /// The user; best one that may only pull.
    #[arg(long, short)]
    pub username: String,
    /// Read the password from standard input.
    #[arg(long, required_unless_present = "password_file")]
    pub password_stdin: bool,
    /// Read the password from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    pub password_file: Option<PathBuf>,
    /// An e-mail address for the entry.
    #[arg(long)]
    pub email: Option<String>,
    /// What is changed, where that is not the file that is written.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    #[command(flatten)]
    pub edit: EditArgs,
}

/// `cluster pull-secret remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Registries.
    #[arg(required = true)]
    pub registries: Vec<String>,
    /// What is changed, where that is not the file that is written.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    #[command(flatten)]
    pub edit: EditArgs,
}

/// `cluster pull-secret merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Credential files, or Secrets that hold such; with --live they are merged into the cluster's.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// Where two have a registry differently, the later counts. Otherwise nothing is merged.
    #[arg(long, conflicts_with = "keep")]
    pub replace: bool,
    /// Where two have a registry differently, the earlier counts.
    #[arg(long)]
    pub keep: bool,
    /// Credentials that may only pull: they take the place of what the files have for the same registries.
    #[arg(long, value_name = "FILE")]
    pub read_only: Option<PathBuf>,
    #[command(flatten)]
    pub edit: EditArgs,
}

/// `cluster pull-secret diff`.
#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// The one.
    pub old: PathBuf,
    /// The other; with --live it is compared with the cluster's.
    #[cfg_attr(feature = "cluster", arg(required_unless_present = "live", conflicts_with = "live"))]
    #[cfg_attr(not(feature = "cluster"), arg(required = true))]
    pub new: Option<PathBuf>,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub live: LiveArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// `cluster ca`.
#[derive(Debug, Args)]
pub(crate) struct CaArgs {
    /// Certificates of hosts, each HOST[:PORT]=FILE with the host as mirrors are written in the rules. PEM or DER.
    #[arg(value_name = "HOST=FILE", required_unless_present = "check")]
    pub hosts: Vec<String>,
    /// Certificates of the registry that holds the graph data, for the update service.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub update_service: Option<PathBuf>,
    /// Name of the ConfigMap.
    #[arg(long, value_name = "NAME", default_value = airlock_rules::ca::DEFAULT_NAME)]
    pub name: String,
    /// Print only the merge patch of image.config.openshift.io/cluster.
    #[arg(long, conflicts_with_all = ["check", "to"])]
    pub patch: bool,
    /// Write ca-config-map.yaml and image-config.yaml into this folder, instead of printing both.
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    pub to: Option<PathBuf>,
    /// Look at an existing ConfigMap instead.
    #[arg(long, value_name = "FILE", conflicts_with = "hosts")]
    pub check: Option<PathBuf>,
    /// With --check: every mirror of these rules must have a key.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "check")]
    pub rules: Vec<PathBuf>,
    /// With --check: there is an UpdateService, whose key must be there.
    #[arg(long, requires = "check")]
    pub expect_update_service: bool,
    /// Write both into the cluster of the kubeconfig.
    #[cfg(feature = "cluster")]
    #[arg(long, conflicts_with_all = ["check", "to", "patch"])]
    pub live: bool,
    /// With --live: only say what would be written.
    #[cfg(feature = "cluster")]
    #[arg(long, requires = "live")]
    pub dry_run: bool,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub kube: KubeArgs,
}

/// `cluster resources`.
#[derive(Debug, Args)]
pub(crate) struct ResourcesArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ResourcesCommand,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum ResourcesCommand {
    /// Apply what is in a folder: rules first and together, so that nodes change once.
    Apply(ApplyArgs),
}

/// How far `--dry-run` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DryRun {
    /// Nothing is asked of the cluster.
    Client,
    /// The cluster checks it and keeps nothing.
    #[cfg(feature = "cluster")]
    Server,
}

/// `cluster resources apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// The folder, or files.
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Say what would be applied; `server` lets the cluster check it.
    #[cfg_attr(
        feature = "cluster",
        arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", required_unless_present = "server_side")
    )]
    #[cfg_attr(
        not(feature = "cluster"),
        arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", required = true)
    )]
    pub dry_run: Option<DryRun>,
    /// Apply, with the cluster working out the changes (server-side apply).
    #[cfg(feature = "cluster")]
    #[arg(long)]
    pub server_side: bool,
    /// Take over fields that others manage.
    #[cfg(feature = "cluster")]
    #[arg(long)]
    pub force_conflicts: bool,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub kube: KubeArgs,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}
