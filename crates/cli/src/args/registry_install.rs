//! `registry install|upgrade|status|uninstall|cert`. The names of mirror-registry's flags are accepted beside ours.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::output::Format;

/// Who is to keep the registry running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServiceArg {
    /// The machine's systemd for root, the user's for others, nobody where there is no systemd.
    Auto,
    /// The machine's systemd.
    System,
    /// The user's systemd.
    User,
    /// Nobody; it is said how to start it.
    None,
}

/// Another machine, reached with the system's `ssh`.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct TargetArgs {
    /// Do it on this machine, over ssh.
    #[arg(short = 'H', long, alias = "targetHostname", value_name = "HOST", help_heading = "Another machine")]
    pub target_hostname: Option<String>,
    /// The user there.
    #[arg(
        short = 'u',
        long,
        alias = "targetUsername",
        value_name = "USER",
        requires = "target_hostname",
        help_heading = "Another machine"
    )]
    pub target_username: Option<String>,
    /// The key to log in with; what ssh takes by itself unless it is said.
    #[arg(short = 'k', long, value_name = "FILE", help_heading = "Another machine")]
    pub ssh_key: Option<PathBuf>,
}

/// What mirror-registry has and nothing here needs: accepted, with a word about it.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NeedlessArgs {
    #[arg(long = "sqliteStorage", hide = true, value_name = "DIR")]
    pub sqlite_storage: Option<String>,
    #[arg(short = 'i', long, hide = true, value_name = "FILE")]
    pub image_archive: Option<String>,
    #[arg(long = "askBecomePass", hide = true)]
    pub ask_become_pass: bool,
    #[arg(long = "additionalArgs", hide = true, value_name = "ARGS", allow_hyphen_values = true)]
    pub additional_args: Option<String>,
    #[arg(short = 'c', long, hide = true)]
    pub no_color: bool,
}

/// `registry install`.
#[derive(Debug, Args)]
pub(crate) struct InstallArgs {
    /// The name, with the port, that clients write; this machine's name, and 8443, unless it is said.
    #[arg(long, alias = "quayHostname", value_name = "HOST[:PORT]")]
    pub hostname: Option<String>,
    /// The name where nothing is remembered and --hostname is not given: the machine's name as whoever installs it from elsewhere knows it.
    #[arg(long, hide = true, value_name = "HOST[:PORT]")]
    pub default_hostname: Option<String>,
    /// Where everything goes; /var/lib/airlock-registry for root, ~/.local/share/airlock/registry for others.
    #[arg(short = 'r', long, alias = "quayRoot", value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Where content goes (docker-distribution's layout; what is there is served); below the root unless it is said.
    #[arg(long, alias = "quayStorage", value_name = "DIR")]
    pub storage: Option<PathBuf>,
    /// Where it listens; the port of --hostname at every address of this machine unless it is said.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Further names and addresses for the certificate (repeatable).
    #[arg(long, value_name = "NAME")]
    pub also_for: Vec<String>,
    /// The first user's name [default: init].
    #[arg(long, alias = "initUser", value_name = "NAME")]
    pub init_user: Option<String>,
    /// Read the first user's password from standard input; one is made unless this is said.
    #[arg(long, conflicts_with = "init_password")]
    pub init_password_stdin: bool,
    /// The first user's password. Everybody on this machine can see it: rather use --init-password-stdin.
    #[arg(long, alias = "initPassword", value_name = "PASSWORD", hide = true)]
    pub init_password: Option<String>,
    /// A certificate of your own (PEM, with its chain) instead of one made here.
    #[arg(long, alias = "sslCert", value_name = "FILE", requires = "ssl_key")]
    pub ssl_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, alias = "sslKey", value_name = "FILE", requires = "ssl_cert")]
    pub ssl_key: Option<PathBuf>,
    /// The CA that it is from, for the files that clusters get.
    #[arg(long, value_name = "FILE", requires = "ssl_cert")]
    pub ssl_ca: Option<PathBuf>,
    /// The certificate need not be for --hostname: a proxy with another name stands in front.
    #[arg(long, alias = "sslCheckSkip")]
    pub ssl_check_skip: bool,
    /// Whether anybody may pull; bare: true.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub anonymous_pull: Option<bool>,
    /// Who may do what where (the file is copied); without it users may do everything.
    #[arg(long, value_name = "FILE")]
    pub rights: Option<PathBuf>,
    /// Whether clients get tokens instead of being asked for the password each time; bare: true.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tokens: Option<bool>,
    /// Answer /healthz, /readyz and /metrics at this address, without credentials.
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Who is to keep it running; as it was, or auto, unless it is said.
    #[arg(long, value_enum)]
    pub service: Option<ServiceArg>,
    /// The user that it runs as when root installs it; made where there is none [default: airlock-registry].
    #[arg(long, value_name = "USER")]
    pub service_user: Option<String>,
    /// Only say what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub needless: NeedlessArgs,
}

/// `registry upgrade`.
#[derive(Debug, Args)]
pub(crate) struct UpgradeArgs {
    /// Which registry; needed only where several are installed.
    #[arg(short = 'r', long, alias = "quayRoot", value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// The new program; the one that is running this command unless it is said.
    #[arg(long, value_name = "FILE")]
    pub program: Option<PathBuf>,
    /// Remembered; refused when it is another than it was installed with.
    #[arg(long, alias = "quayHostname", value_name = "HOST[:PORT]", hide = true)]
    pub hostname: Option<String>,
    /// Remembered; refused when it is another than it was installed with.
    #[arg(long, alias = "quayStorage", value_name = "DIR", hide = true)]
    pub storage: Option<PathBuf>,
    /// A certificate of your own (PEM, with its chain) from now on, as `registry cert set` takes it.
    #[arg(long, alias = "sslCert", value_name = "FILE", requires = "ssl_key")]
    pub ssl_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, alias = "sslKey", value_name = "FILE", requires = "ssl_cert")]
    pub ssl_key: Option<PathBuf>,
    /// The certificate need not be for the registry's name: a proxy with another name stands in front.
    #[arg(long, alias = "sslCheckSkip")]
    pub ssl_check_skip: bool,
    /// Only say what would be done.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub needless: NeedlessArgs,
}

/// `registry status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Which registry; needed only where several are installed.
    #[arg(short = 'r', long, alias = "quayRoot", value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// `registry uninstall`.
#[derive(Debug, Args)]
pub(crate) struct UninstallArgs {
    /// Which registry; needed only where several are installed.
    #[arg(short = 'r', long, alias = "quayRoot", value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Do not ask.
    #[arg(short, long, alias = "autoApprove")]
    pub yes: bool,
    /// Delete what is mirrored, the users and the CA too; without this a later installation goes on with them.
    #[arg(long)]
    pub delete_data: bool,
    /// Remembered; refused when it is another. What is there is deleted only with --delete-data.
    #[arg(long, alias = "quayStorage", value_name = "DIR", hide = true)]
    pub storage: Option<PathBuf>,
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub needless: NeedlessArgs,
}

/// `registry cert`.
#[derive(Debug, Args)]
pub(crate) struct CertArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CertCommand,
}

/// The verbs of `registry cert`.
#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Serve a certificate of your own. Connections that are open go on.
    Set(CertSetArgs),
    /// Make the certificate anew, under the same CA. It is done by itself in time; connections that are open go on.
    Renew(CertRenewArgs),
}

/// `registry cert set`.
#[derive(Debug, Args)]
pub(crate) struct CertSetArgs {
    /// The certificate (PEM, with its chain).
    #[arg(long, alias = "ssl-cert", alias = "sslCert", value_name = "FILE")]
    pub cert: PathBuf,
    /// Its key (PEM).
    #[arg(long, alias = "ssl-key", alias = "sslKey", value_name = "FILE")]
    pub key: PathBuf,
    /// The CA that it is from, for the files that clusters get.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The certificate need not be for the registry's name: a proxy with another name stands in front.
    #[arg(long, alias = "ssl-check-skip", alias = "sslCheckSkip")]
    pub check_skip: bool,
    /// Which registry; needed only where several are installed.
    #[arg(short = 'r', long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

/// `registry cert renew`.
#[derive(Debug, Args)]
pub(crate) struct CertRenewArgs {
    /// Go back from a certificate that was given to one made here.
    #[arg(long)]
    pub own: bool,
    /// Which registry; needed only where several are installed.
    #[arg(short = 'r', long, value_name = "DIR")]
    pub root: Option<PathBuf>,
}

impl NeedlessArgs {
    /// The flags that were given, as they were typed.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        [
            ("--sqliteStorage", self.sqlite_storage.is_some()),
            ("--image-archive", self.image_archive.is_some()),
            ("--askBecomePass", self.ask_become_pass),
            ("--additionalArgs", self.additional_args.is_some()),
            ("--no-color", self.no_color),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
    }
}
