//! `release info|extract`.

use std::path::PathBuf;

use clap::Args;

use crate::args::registries::{CommonArgs, OneSideArgs};

/// Where a release is read.
#[derive(Debug, Args)]
pub(crate) struct WhereArgs {
    /// Read it in this archive (file://DIR), under the name it was mirrored from.
    #[arg(long, value_name = "file://DIR")]
    pub from: Option<String>,
    /// Of a release for several architectures, the image for this one (os/arch).
    #[arg(long, visible_alias = "filter-by-os", value_name = "OS/ARCH")]
    pub platform: Option<airlock_oci::Platform>,
    /// Pull through the mirrors of the IDMS, ITMS or ICSP in this file, by tag and by digest: they come first, then the release's own place
    /// unless a rule forbids it.
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub idms_file: Option<PathBuf>,
    /// The same; `oc` has two flags for it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "idms_file"])]
    pub icsp_file: Option<PathBuf>,
    /// Registry.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Registry.
    #[command(flatten)]
    pub side: OneSideArgs,
}

/// `release info`.
#[derive(Debug, Args)]
#[group(id = "view", multiple = false)]
pub(crate) struct InfoViews {
    /// Where each component lies, by digest.
    #[arg(long)]
    pub pullspecs: bool,
    /// Where this component lies, and nothing else.
    #[arg(long, value_name = "NAME")]
    pub image_for: Option<String>,
    /// Layers and bytes of each component. Reads the manifest of each.
    #[arg(long, visible_alias = "size")]
    pub sizes: bool,
    /// The sources each component was built from.
    #[arg(long)]
    pub commits: bool,
}

/// `release info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// The release: HOST/NAME:TAG, HOST/NAME@DIGEST or oci:DIR[:TAG].
    pub release: String,
    /// Another release: what differs from the first to this one.
    pub other: Option<String>,
    /// What to show.
    #[command(flatten)]
    pub views: InfoViews,
    /// Form of the output: table, json, yaml, digest, name, pullspec, or a field such as jsonpath={.metadata.version}.
    #[arg(short, long, default_value = "table", value_name = "FORM")]
    pub output: InfoFormat,
    /// Where.
    #[command(flatten)]
    pub place: WhereArgs,
}

/// How a release is printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum InfoFormat {
    /// For people.
    Table,
    /// One document.
    Json,
    /// The same as YAML.
    Yaml,
    /// Only the digest.
    Digest,
    /// The components' names.
    Name,
    /// Only the release's name by digest.
    Pullspec,
    /// One field of the document: the names on the way to it.
    Field(Vec<String>),
}

/// `release extract`.
#[derive(Debug, Args)]
pub(crate) struct ExtractArgs {
    /// The release: HOST/NAME:TAG, HOST/NAME@DIGEST or oci:DIR[:TAG].
    pub release: String,
    /// The directory that files are written to; made where there is none.
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub to: PathBuf,
    /// Only this file of `release-manifests`, to standard output.
    #[arg(long, value_name = "NAME", conflicts_with = "command")]
    pub file: Option<String>,
    /// A program instead: oc, openshift-install, openshift-baremetal-install, openshift-install-fips, ccoctl, or one of these for a RHEL
    /// (oc.rhel9). The release's name is written into it.
    #[arg(long, value_name = "NAME")]
    pub command: Option<String>,
    /// The programs for all systems as archives, with checksums; not the installers that only some platforms need.
    #[arg(long, conflicts_with_all = ["file", "command"])]
    pub tools: bool,
    /// The system that the program is for: linux, mac or windows, with an architecture as in linux/arm64. Else linux on the
    /// release's architecture.
    #[arg(long, value_name = "OS[/ARCH]", requires = "command")]
    pub command_os: Option<String>,
    /// Where.
    #[command(flatten)]
    pub place: WhereArgs,
}

impl std::str::FromStr for InfoFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "table" => Self::Table,
            "json" => Self::Json,
            "yaml" => Self::Yaml,
            "digest" => Self::Digest,
            "name" => Self::Name,
            "pullspec" => Self::Pullspec,
            _ => {
                let field = text.strip_prefix("jsonpath=").map(|path| path.trim_matches('\''));
                let field = field.and_then(|path| path.strip_prefix("{.")?.strip_suffix('}'));
                let names: Vec<String> = field.unwrap_or_default().split('.').map(str::to_owned).collect();
                let plain = |name: &String| !name.is_empty() && !name.contains(['[', ']', '{', '}', '*', '"']);
                if !names.iter().all(plain) {
                    return Err(format!(
                        "`{text}` is not known; one of table, json, yaml, digest, name, pullspec, jsonpath={{.FIELD.FIELD}}"
                    ));
                }
                Self::Field(names)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_output() {
        assert_eq!("json".parse(), Ok(InfoFormat::Json));
        let field = |names: &[&str]| Ok(InfoFormat::Field(names.iter().map(|n| (*n).to_owned()).collect()));
        assert_eq!("jsonpath={.digest}".parse(), field(&["digest"]));
        assert_eq!("jsonpath='{.metadata.version}'".parse(), field(&["metadata", "version"]));
        for bad in ["", "jsonpath={}", "jsonpath={.}", "jsonpath={.a..b}", "jsonpath={.a[0]}", "wide"] {
            assert!(bad.parse::<InfoFormat>().is_err(), "{bad}");
        }
    }
}
