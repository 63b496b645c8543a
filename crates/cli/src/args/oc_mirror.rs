//! The flags of `oc-mirror --v2` (oc-mirror 2.2, 2.3): names, defaults and conflicts as scripts know them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, Command, Parser};

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
    /// User of the source; with its password.
    #[arg(long, hide = true, conflicts_with_all = ["src_creds", "src_no_creds"], requires = "src_password")]
    pub src_username: Option<String>,
    /// Password of the source's user.
    #[arg(long, hide = true, requires = "src_username")]
    pub src_password: Option<String>,
    /// User of the destination; with its password.
    #[arg(long, hide = true, conflicts_with_all = ["dest_creds", "dest_no_creds"], requires = "dest_password")]
    pub dest_username: Option<String>,
    /// Password of the destination's user.
    #[arg(long, hide = true, requires = "dest_username")]
    pub dest_password: Option<String>,
    /// What is accepted and has no effect.
    #[command(flatten)]
    pub ignored: IgnoredArgs,
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

/// Hidden flags of oc-mirror that mean nothing here: accepted, each with a line that says so.
#[derive(Debug, Default, Args)]
pub(crate) struct IgnoredArgs {
    #[arg(long, hide = true)]
    src_registry_token: Option<String>,
    #[arg(long, hide = true)]
    dest_registry_token: Option<String>,
    #[arg(long, hide = true)]
    src_shared_blob_dir: Option<String>,
    #[arg(long, hide = true)]
    dest_shared_blob_dir: Option<String>,
    #[arg(long, hide = true)]
    src_daemon_host: Option<String>,
    #[arg(long, hide = true)]
    dest_daemon_host: Option<String>,
    #[arg(long, hide = true)]
    dest_compress: bool,
    #[arg(long, hide = true)]
    dest_decompress: bool,
    #[arg(long, hide = true)]
    dest_oci_accept_uncompressed_layers: bool,
    #[arg(long, hide = true)]
    dest_compress_format: Option<String>,
    #[arg(long, hide = true)]
    dest_compress_level: Option<String>,
    #[arg(long, hide = true)]
    dest_precompute_digests: bool,
    #[arg(long, hide = true)]
    cpu_prof: bool,
    #[arg(long, hide = true)]
    mem_prof: bool,
}

impl IgnoredArgs {
    /// The flags that were given, each with why it has no effect.
    pub(crate) fn given(&self) -> Vec<(&'static str, &'static str)> {
        const TOKENS: &str = "tokens are asked for with the credentials; use an authfile";
        const TRANSPORTS: &str = "images are in registries, archives and OCI layouts";
        const BYTES: &str = "content is never altered";
        const PROFILES: &str = "no profile is written";
        [
            ("--src-registry-token", self.src_registry_token.is_some(), TOKENS),
            ("--dest-registry-token", self.dest_registry_token.is_some(), TOKENS),
            ("--src-shared-blob-dir", self.src_shared_blob_dir.is_some(), TRANSPORTS),
            ("--dest-shared-blob-dir", self.dest_shared_blob_dir.is_some(), TRANSPORTS),
            ("--src-daemon-host", self.src_daemon_host.is_some(), TRANSPORTS),
            ("--dest-daemon-host", self.dest_daemon_host.is_some(), TRANSPORTS),
            ("--dest-compress", self.dest_compress, BYTES),
            ("--dest-decompress", self.dest_decompress, BYTES),
            ("--dest-oci-accept-uncompressed-layers", self.dest_oci_accept_uncompressed_layers, BYTES),
            ("--dest-compress-format", self.dest_compress_format.is_some(), BYTES),
            ("--dest-compress-level", self.dest_compress_level.is_some(), BYTES),
            ("--dest-precompute-digests", self.dest_precompute_digests, "digests are known before anything moves"),
            ("--cpu-prof", self.cpu_prof, PROFILES),
            ("--mem-prof", self.mem_prof, PROFILES),
        ]
        .into_iter()
        .filter_map(|(flag, given, why)| given.then_some((flag, why)))
        .collect()
    }
}

/// Where the first word is that is neither a flag nor the value of one: the verb, or the destination.
pub(crate) fn first_word(words: &[String], command: &Command) -> Option<usize> {
    let takes_next = |word: &str| {
        let is_it = |argument: &&clap::Arg| {
            let longs = argument.get_long_and_visible_aliases().unwrap_or_default();
            longs.iter().any(|long| word.strip_prefix("--") == Some(long))
                || argument.get_short().is_some_and(|short| word == format!("-{short}"))
        };
        // Clap calls a flag with an optional value `0..=1`; only those that must have one take the next word.
        let needs_value =
            |a: &clap::Arg| a.get_action().takes_values() && a.get_num_args().is_none_or(|n| n.min_values() > 0);
        command.get_arguments().find(is_it).is_some_and(needs_value)
    };
    let mut at = 0;
    while let Some(word) = words.get(at) {
        if !word.starts_with('-') || word == "-" {
            return Some(at);
        }
        at += if takes_next(word) { 2 } else { 1 };
    }
    None
}

/// Whether the program was called by its other name (`oc-mirror`, also as a symbolic link or with a suffix of its file type).
pub(crate) fn is_name(program: Option<&OsString>) -> bool {
    let name = program.map(Path::new).and_then(Path::file_stem).and_then(|n| n.to_str());
    matches!(name, Some("oc-mirror" | "oc_mirror" | "kubectl-mirror"))
}

/// The arguments with boolean flags as this parser wants them. pflag takes a value after `=`, and each word that Go's `ParseBool` takes:
/// `--strict-archive=false` is as if it were not there, `--dry-run=1` as `--dry-run`. A value that is none stays, and is refused.
pub(crate) fn plain_switches(arguments: Vec<OsString>, command: &Command) -> Vec<OsString> {
    let mut switches: Vec<(String, bool)> = Vec::new();
    let mut add = |command: &Command| {
        for argument in command.get_arguments() {
            let takes_value = argument.get_num_args().is_some_and(|n| n.takes_values());
            let is_bool = argument.get_long().is_some_and(|long| long.ends_with("tls-verify"));
            if matches!(argument.get_action(), ArgAction::SetTrue | ArgAction::Help) || is_bool {
                let longs = argument.get_long_and_visible_aliases().unwrap_or_default();
                switches.extend(longs.iter().map(|long| (format!("--{long}"), takes_value)));
                switches.extend(argument.get_short().map(|short| (format!("-{short}"), takes_value)));
            }
        }
    };
    add(command);
    command.get_subcommands().for_each(add);
    let plain = |argument: OsString| -> Option<OsString> {
        let text = argument.to_str()?;
        let (name, value) = text.split_once('=')?;
        let (_, takes_value) = switches.iter().find(|(switch, _)| switch == name)?;
        let value = match value {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
            "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
            _ => return None,
        };
        Some(match (takes_value, value) {
            (true, value) => format!("{name}={value}").into(),
            (false, true) => name.into(),
            (false, false) => OsString::new(),
        })
    };
    let mut after_dashes = false;
    let mut out = Vec::with_capacity(arguments.len());
    for argument in arguments {
        after_dashes |= argument == "--";
        match plain(argument.clone()).filter(|_| !after_dashes) {
            Some(switch) if switch.is_empty() => {}
            Some(switch) => out.push(switch),
            None => out.push(argument),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parsed(words: &[&str]) -> Result<OcMirrorArgs, clap::Error> {
        let words = ["oc-mirror"].iter().chain(words).map(OsString::from).collect();
        OcMirrorArgs::try_parse_from(plain_switches(words, &OcMirrorArgs::command()))
    }

    #[test]
    fn the_verb_is_found_behind_flags_and_their_values() {
        let found = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            first_word(&words, &OcMirrorArgs::command()).map(|at| words[at].clone())
        };
        assert_eq!(found(&["--v2", "delete", "--generate"]).as_deref(), Some("delete"));
        assert_eq!(found(&["--workspace", "file://list", "--src-tls-verify", "list"]).as_deref(), Some("list"));
        assert_eq!(found(&["-c", "version", "--v2", "file://d"]).as_deref(), Some("file://d"));
        assert_eq!(found(&["--log-level=debug", "--v2"]), None);
    }

    #[test]
    fn switches_take_the_words_of_go() {
        for word in ["1", "t", "T", "TRUE", "true", "True"] {
            let args = parsed(&[&format!("--v2={word}"), &format!("--dry-run={word}"), &format!("-q={word}")]).unwrap();
            assert!(args.v2 && args.dry_run && args.quiet, "{word}");
        }
        for word in ["0", "f", "F", "FALSE", "false", "False"] {
            let flags = [format!("--strict-archive={word}"), format!("--src-tls-verify={word}"), "--v2".to_owned()];
            let args = parsed(&flags.each_ref().map(String::as_str)).unwrap();
            assert!(!args.strict_archive && !args.src_tls_verify && args.v2, "{word}");
        }
        assert!(parsed(&["--dry-run=perhaps"]).is_err());
        assert!(parsed(&["--since=true"]).unwrap().since == "true");
    }
}
