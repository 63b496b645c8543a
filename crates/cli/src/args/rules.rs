//! `rules render|resolve|lint|convert|impact|undo`.

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
    /// What is wrong with rules: seventy checks, each with its place, its reason and what helps.
    Lint(Box<LintArgs>),
    /// Rules from other rules: ICSP, registries.conf, mapping.txt or a list of images to IDMS and ITMS.
    Convert(Box<ConvertArgs>),
    /// What a change costs: which nodes reload, drain or reboot, and why.
    Impact(ImpactArgs),
    /// The objects to delete and to restore, to come back from NEW to OLD.
    Undo(UndoArgs),
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

/// How much one entry covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeArg {
    /// A whole registry.
    Registry,
    /// The first part of the path.
    Namespace,
    /// One repository.
    Repository,
}

/// Whether sources may be contacted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PolicyArg {
    /// NeverContactSource: what is not at a mirror fails at once.
    Never,
    /// AllowContactingSource.
    Allow,
}

/// How a converted ICSP looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum MigrateStyle {
    /// The user's text with what must change, changed: comments and order stay.
    #[default]
    Keep,
    /// Written anew, as `oc adm migrate icsp` writes it.
    Oc,
}

/// `rules convert`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("from").required(true).multiple(true).args(["files", "registries_conf", "mapping", "images"]))]
pub(crate) struct ConvertArgs {
    /// Files or directories with ICSP, IDMS and ITMS objects; an ICSP becomes an IDMS.
    #[arg(conflicts_with_all = ["registries_conf", "mapping", "mirror"])]
    pub files: Vec<PathBuf>,
    /// A registries.conf to make objects of.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["mapping", "images"])]
    pub registries_conf: Option<PathBuf>,
    /// Its directory of drop-ins.
    #[arg(long, value_name = "DIR", requires = "registries_conf")]
    pub dropins: Option<PathBuf>,
    /// A mapping.txt (source=destination lines) to make objects of.
    #[arg(long, value_name = "FILE", conflicts_with = "images")]
    pub mapping: Option<PathBuf>,
    /// A list of images: with --mirror to make objects of, with FILES the images that --scope repository keeps.
    #[arg(long, value_name = "FILE")]
    pub images: Option<PathBuf>,
    /// Where the images of --images go; their paths are kept below it.
    #[arg(long, value_name = "HOST[/PATH]", requires = "images")]
    pub mirror: Option<String>,
    /// How much one entry covers; widens or narrows the entries of FILES.
    #[arg(long, value_enum)]
    pub scope: Option<ScopeArg>,
    /// Every source of --images in both kinds, whatever the list says.
    #[arg(long, requires = "mirror")]
    pub both: bool,
    /// mirrorSourcePolicy of every entry.
    #[arg(long, value_enum)]
    pub policy: Option<PolicyArg>,
    /// How a converted ICSP looks.
    #[arg(long, value_enum, default_value = "keep", requires = "files", conflicts_with_all = ["policy", "scope"])]
    pub style: MigrateStyle,
    /// Names of new objects begin with this.
    #[arg(long, default_value = "airlock")]
    pub name: String,
    /// Write one file for each of FILES into this directory, instead of all to standard output.
    #[arg(long, value_name = "DIR", requires = "files")]
    pub dest_dir: Option<PathBuf>,
}

/// `rules impact`.
#[derive(Debug, Args)]
pub(crate) struct ImpactArgs {
    /// Rules as they are: a file or directory of objects, or a registries.conf.
    pub old: PathBuf,
    /// Rules as they will be.
    pub new: PathBuf,
    /// Version of OpenShift, such as 4.18.
    #[arg(long, value_name = "VERSION")]
    pub openshift_version: Option<String>,
    /// Show which of these images are pulled from elsewhere afterwards.
    #[arg(long, value_name = "FILE")]
    pub images: Option<PathBuf>,
    /// Registries.conf that rendering starts from.
    #[arg(long, value_name = "REGISTRIES_CONF")]
    pub base: Option<PathBuf>,
    /// The release image as ClusterVersion names it.
    #[arg(long, value_name = "REF")]
    pub release_image: Option<String>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// `rules undo`.
#[derive(Debug, Args)]
pub(crate) struct UndoArgs {
    /// Rules as they were: a file or directory of objects.
    pub old: PathBuf,
    /// Rules as they are now.
    pub new: PathBuf,
    /// Write `delete.yaml` and `restore.yaml` into this directory.
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// The forms of findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LintFormat {
    /// For people.
    #[default]
    Table,
    /// An array.
    Json,
    /// The same as YAML.
    Yaml,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
}

/// What the cluster can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Profile {
    /// Only mirrors, once it is in production.
    #[default]
    Disconnected,
    /// The internet too.
    Connected,
}

/// `rules lint`.
#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// Files or directories with IDMS, ITMS and ICSP objects (MachineConfigs and the CA's ConfigMap may be among them); `-` for
    /// standard input.
    #[arg(required_unless_present_any = ["explain", "registries_conf"])]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// Images in use, one a line: judge the rules against them.
    #[arg(long, value_name = "FILE")]
    pub images: Option<PathBuf>,
    /// A node's registries.conf.
    #[arg(long, value_name = "FILE")]
    pub registries_conf: Option<PathBuf>,
    /// Its directory of drop-ins.
    #[arg(long, value_name = "DIR", requires = "registries_conf")]
    pub dropins: Option<PathBuf>,
    /// The global pull secret: a docker config or the Secret. Only its hosts are looked at.
    #[arg(long, value_name = "FILE")]
    pub pull_secret: Option<PathBuf>,
    /// The ConfigMap that additionalTrustedCA names.
    #[arg(long, value_name = "FILE")]
    pub trusted_ca: Option<PathBuf>,
    /// The rules as they are in the cluster: a file or directory.
    #[arg(long, value_name = "FILE")]
    pub current: Option<PathBuf>,
    /// Values of a chart.
    #[arg(long, value_name = "FILE")]
    pub values: Option<PathBuf>,
    /// Ask the mirrors whether they have the images of --images. Read-only.
    #[arg(long, requires = "images")]
    pub check_mirror: bool,
    /// With --check-mirror, ask the sources too what their tags mean.
    #[arg(long, requires = "check_mirror")]
    pub check_source: bool,
    /// Credential file for --check-mirror.
    #[arg(long, short = 'a', env = "REGISTRY_AUTH_FILE", value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Check certificates with --check-mirror.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
    /// Most parts of a path that a registry takes (repeat).
    #[arg(long, value_name = "HOST=N")]
    pub max_nested_paths: Vec<String>,
    /// What the cluster can reach.
    #[arg(long, value_enum, default_value = "disconnected")]
    pub profile: Profile,
    /// Put right what can be put right without a doubt; comments and order of the files stay.
    #[arg(long)]
    pub fix: bool,
    /// Fail on this code, or on this severity and worse (error, warning, information); repeat.
    #[arg(long, value_name = "CODE|SEVERITY")]
    pub deny: Vec<String>,
    /// Leave findings of this code out, `CODE:PATTERN` only where source or message match; repeat.
    #[arg(long, value_name = "CODE[:PATTERN]")]
    pub allow: Vec<String>,
    /// What a code means.
    #[arg(long, value_name = "CODE", exclusive = true)]
    pub explain: Option<String>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: LintFormat,
}
