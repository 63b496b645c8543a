//! The flags of `oc-mirror --v2` (oc-mirror 2.2, 2.3): names, defaults and conflicts as scripts know them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;

use super::registries::duration;

/// `oc-mirror` for image sets. Each flag does what it does there; those that this program does not need are accepted with a line that says so.
#[derive(Debug, Parser)]
#[command(
    name = "oc-mirror",
    disable_version_flag = true,
    about = "Mirror an image set as `oc mirror --v2` does",
    after_help = "Workflows:\n  oc-mirror -c isc.yaml file://DIR --v2\n  oc-mirror -c isc.yaml --from file://DIR docker://REG[/ns] --v2\n  oc-mirror -c isc.yaml --workspace file://DIR docker://REG[/ns] --v2\n\nExit code: 0, or the sum of 1 generic, 2 release, 4 operator, 8 additional, 16 helm"
)]
pub(crate) struct OcMirrorArgs {
    /// file://DIR or docker://REGISTRY[/NAMESPACE].
    pub destination: Vec<String>,
    /// Path to the image set configuration.
    #[arg(long, short)]
    pub config: Option<PathBuf>,
    /// file://DIR with archives.
    #[arg(long, default_value = "")]
    pub from: String,
    /// file://DIR for generated files.
    #[arg(long, default_value = "")]
    pub workspace: String,
    /// Accepted; no cache is needed.
    #[arg(long)]
    pub cache_dir: Option<PathBuf>,
    /// Accepted; no port is needed.
    #[arg(long, short)]
    pub port: Option<u16>,
    /// info, debug, trace or error.
    #[arg(long, visible_alias = "loglevel", default_value = "info")]
    pub log_level: String,
    /// Images side by side (1 to 10).
    #[arg(long, default_value_t = 4)]
    pub parallel_images: u32,
    /// Layers side by side (1 to 10).
    #[arg(long, default_value_t = 5)]
    pub parallel_layers: u32,
    /// Credential file.
    #[arg(long, env = "REGISTRY_AUTH_FILE")]
    pub authfile: Option<PathBuf>,
    /// How often a transient failure is tried again.
    #[arg(long, default_value_t = 5)]
    pub retry_times: u32,
    /// Time between tries; 0: exponential.
    #[arg(long, default_value = "0", value_parser = duration)]
    pub retry_delay: Duration,
    /// Check the source's certificates.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    pub src_tls_verify: bool,
    /// Check the destination's certificates.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    pub dest_tls_verify: bool,
    /// Deprecated: both.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
    /// Write mapping.txt, move nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// As --dry-run, with each platform.
    #[arg(long)]
    pub dry_run_manifest_lists: bool,
    /// yyyy-MM-dd.
    #[arg(long, default_value = "")]
    pub since: String,
    /// The longest one image may take, retries included.
    #[arg(long, value_parser = duration)]
    pub image_timeout: Option<Duration>,
    /// Most components of a repository's name.
    #[arg(long, default_value_t = 0)]
    pub max_nested_paths: usize,
    /// Fail when a blob is larger than archiveSize.
    #[arg(long)]
    pub strict_archive: bool,
    /// Copy no signatures.
    #[arg(long)]
    pub remove_signatures: bool,
    /// Neither fetch nor check the signature of `platform.release`.
    #[arg(long, hide = true)]
    pub ignore_release_signature: bool,
    /// Mirror only what the policy allows.
    #[arg(long)]
    pub secure_policy: bool,
    /// The policy for --secure-policy (else ~/.config/containers/policy.json, /etc/containers/policy.json).
    #[arg(long)]
    pub policy: Option<PathBuf>,
    /// Accepted; signatures are always looked for beside the images.
    #[arg(long = "registries.d", value_name = "DIR")]
    pub registries_d: Option<PathBuf>,
    /// `user:password` of the source.
    #[arg(long, alias = "screds", hide = true)]
    pub src_creds: Option<String>,
    /// `user:password` of the destination.
    #[arg(long, alias = "dcreds", hide = true)]
    pub dest_creds: Option<String>,
    /// Read anonymously.
    #[arg(long, hide = true, conflicts_with = "src_creds")]
    pub src_no_creds: bool,
    /// Write anonymously.
    #[arg(long, hide = true, conflicts_with = "dest_creds")]
    pub dest_no_creds: bool,
    /// Certificates of the source.
    #[arg(long, hide = true)]
    pub src_cert_dir: Option<PathBuf>,
    /// Certificates of the destination.
    #[arg(long, hide = true)]
    pub dest_cert_dir: Option<PathBuf>,
    /// Credential file of the source.
    #[arg(long, hide = true)]
    pub src_authfile: Option<PathBuf>,
    /// Credential file of the destination.
    #[arg(long, hide = true)]
    pub dest_authfile: Option<PathBuf>,
    /// Accepted and without effect, as there.
    #[arg(long, short, hide = true)]
    pub quiet: bool,
    /// Accepted and without effect, as there.
    #[arg(long, short, hide = true)]
    pub force: bool,
    /// Accepted and without effect, as there.
    #[arg(long, hide = true, default_value = "")]
    pub rootless_storage_path: String,
    /// Print the version.
    #[arg(long, short = 'v')]
    pub version: bool,
    /// The only version of the behaviour; accepted.
    #[arg(long)]
    pub v2: bool,
    /// Not provided.
    #[arg(long)]
    pub v1: bool,
}

/// Whether the program was called by its other name (`oc-mirror`, also as a symbolic link or with a suffix of its file type).
pub(crate) fn is_name(program: Option<&OsString>) -> bool {
    let name = program.map(Path::new).and_then(Path::file_stem).and_then(|n| n.to_str());
    matches!(name, Some("oc-mirror" | "oc_mirror" | "kubectl-mirror"))
}
