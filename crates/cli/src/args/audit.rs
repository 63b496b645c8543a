//! `audit`, also `rules audit`.

use std::path::PathBuf;

use clap::Args;

use super::registries::{CommonArgs, Side};
use super::rules::ClusterArgs;
use crate::output::Format;

/// `airlock audit`.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// What uses images: dumps (`oc get … -o json|yaml`), rendered manifests, lists, folders such as a must-gather; `-` for
    /// standard input. `pods:`, `csv:`, `helm:`, `list:` or `nodes:` before a file says what it is.
    pub sources: Vec<String>,
    /// The same as the sources themselves.
    #[arg(long, value_name = "SOURCE", num_args = 1..)]
    pub images: Vec<String>,
    /// Files or directories with IDMS, ITMS and ICSP objects; without any rules those among the sources count.
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with = "registries_conf")]
    pub rules: Vec<PathBuf>,
    /// A registries.conf as it lies on a node, instead of objects.
    #[arg(long, value_name = "FILE", visible_alias = "conf")]
    pub registries_conf: Option<PathBuf>,
    /// Its directory of drop-ins.
    #[arg(long, value_name = "DIR", requires = "registries_conf", visible_alias = "conf-d")]
    pub dropins: Option<PathBuf>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// A node's files, such as the `/host` of `oc debug node/…`: registries.conf, drop-ins, certificates and credentials are
    /// examined, and without other rules count as the rules.
    #[arg(long, value_name = "DIR")]
    pub node: Option<PathBuf>,
    /// Read images and rules from the cluster of the kubeconfig.
    #[cfg(feature = "cluster")]
    #[arg(long)]
    pub live: bool,
    #[cfg(feature = "cluster")]
    #[command(flatten)]
    pub kube: super::cluster::KubeArgs,
    /// Ask the mirrors whether they have the images.
    #[arg(long)]
    pub check_mirror: bool,
    /// How many images are asked for at once.
    #[arg(long, value_name = "N", default_value = "16", value_parser = clap::value_parser!(u8).range(1..=128))]
    pub parallel_images: u8,
    /// A host that is a mirror although no rule names it (repeatable).
    #[arg(long, value_name = "HOST")]
    pub mirror_host: Vec<String>,
    /// A host that belongs to the cluster, so that nothing of it is mirrored (repeatable).
    #[arg(long, value_name = "HOST")]
    pub internal_host: Vec<String>,
    /// Write IDMS and ITMS that would cover what is not covered into this file.
    #[arg(long, value_name = "FILE")]
    pub suggest: Option<PathBuf>,
    /// Show only what is not as it should be.
    #[arg(long)]
    pub gaps: bool,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// Credential file for --check-mirror (else the lookup order of podman and docker).
    #[arg(long, short = 'a', visible_alias = "registry-config", env = "REGISTRY_AUTH_FILE", value_name = "FILE")]
    pub authfile: Option<PathBuf>,
    /// Certificates for --check-mirror.
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,
    /// Check certificates; `false` also allows plain HTTP.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub tls_verify: Option<bool>,
    /// How often a mirror that does not answer is asked again.
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub retry_times: u32,
}

impl AuditArgs {
    /// How mirrors are asked; `insecure` where the rules say that certificates are not checked.
    pub(crate) fn mirror_options(&self, insecure: bool) -> Result<airlock_client::Options, crate::exit::Failure> {
        let common = CommonArgs {
            authfile: self.authfile.clone(),
            tls_verify: self.tls_verify,
            insecure,
            retry_times: self.retry_times,
            ..CommonArgs::default()
        };
        let side = Side { cert_dir: self.cert_dir.clone(), ..Side::default() };
        // The endpoints are those of the rules; this machine's own registries.conf has no say.
        Ok(airlock_client::Options {
            registries_conf: airlock_client::RegistriesConf::Ignore,
            ..common.options(&side, &[])?
        })
    }
}
