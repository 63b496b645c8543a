//! `release mirror`: the flags of `oc adm release mirror` (updates-and-releases.md 7.1), and ours for registries.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::args::registries::{CommonArgs, SourceArgs, TargetArgs};
use crate::output::Format;

/// `release mirror`.
#[derive(Debug, Args)]
pub(crate) struct MirrorArgs {
    /// The release: HOST/NAME:TAG, HOST/NAME@DIGEST, or file://NAME:TAG with --from-dir.
    #[arg(value_name = "RELEASE")]
    pub release: Option<String>,
    /// The same as RELEASE.
    #[arg(long, value_name = "RELEASE", conflicts_with = "release")]
    pub from: Option<String>,
    /// The file tree that file:// releases are read from.
    #[arg(long, value_name = "DIR")]
    pub from_dir: Option<PathBuf>,
    /// Where to: HOST/NAME, without a tag; tags become VERSION-ARCH-COMPONENT. `${component}` and `${version}` make a pattern of it
    /// (HOST/NAME:${version}-${component}). With --to-dir also file://NAME.
    #[arg(long, value_name = "HOST/NAME")]
    pub to: Option<String>,
    /// Into a file tree below this directory; --to is then file://openshift/release.
    #[arg(long, value_name = "DIR")]
    pub to_dir: Option<PathBuf>,
    /// Another place for the release image itself.
    #[arg(long, value_name = "HOST/NAME[:TAG]", conflicts_with = "skip_release_image")]
    pub to_release_image: Option<String>,
    /// Components only.
    #[arg(long)]
    pub skip_release_image: bool,
    /// Releases for several architectures as they are; otherwise only the images for one platform.
    #[arg(long)]
    pub keep_manifest_list: bool,
    /// The platform taken out of a release for several architectures (os/arch); else linux on this machine's architecture.
    #[arg(long, visible_alias = "filter-by-os", value_name = "OS/ARCH", conflicts_with = "keep_manifest_list")]
    pub platform: Option<airlock_oci::Platform>,
    /// Print what a cluster needs to find the mirror.
    #[arg(long, value_enum, default_value = "icsp", value_name = "KIND")]
    pub print_mirror_instructions: Instructions,
    /// Write the signature that clusters ask for as a ConfigMap into this directory; with --to-dir that is DIR/config.
    #[arg(long, value_name = "DIR", conflicts_with = "skip_verification")]
    pub release_image_signature_to_dir: Option<PathBuf>,
    /// Mirror a release that nobody trusted has signed.
    #[arg(long)]
    pub skip_verification: bool,
    /// Only print SOURCE DESTINATION of each image.
    #[arg(long, conflicts_with = "dry_run")]
    pub to_mirror: bool,
    /// Look everything up and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Images, and blobs, that are copied at once.
    #[arg(long, default_value = "6", value_name = "N")]
    pub max_per_registry: NonZeroUsize,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
    /// `oc` imports into a live cluster; this program does not.
    #[arg(long, hide = true, value_name = "NAME")]
    pub to_image_stream: Option<String>,
    /// `oc` writes to a live cluster; this program does not.
    #[arg(long, hide = true)]
    pub apply_release_image_signature: bool,
    /// Only with the flag above.
    #[arg(long, hide = true)]
    pub overwrite: bool,
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

/// What a cluster is told of a mirror by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Instructions {
    /// ImageContentSourcePolicy, for clusters before 4.13.
    Icsp,
    /// ImageDigestMirrorSet.
    Idms,
    /// Nothing.
    None,
}
