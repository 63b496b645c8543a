//! `image copy|inspect|tags|digest|delete`.

use clap::{Args, Subcommand};

use super::registries::{CommonArgs, OneSideArgs, SourceArgs, TargetArgs};
use crate::output::Format;

/// `airlock image`.
#[derive(Debug, Args)]
pub(crate) struct ImageArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Copy one image with all its platforms and attachments, byte for byte.
    Copy(CopyArgs),
    /// Show an image: digest, platforms, layers, labels.
    Inspect {
        /// docker://HOST/NAME[:TAG][@DIGEST] or oci:DIR[:TAG].
        image: String,
        /// The manifest's bytes as they are.
        #[arg(long)]
        raw: bool,
        /// The image's configuration.
        #[arg(long, conflicts_with = "raw")]
        config: bool,
        /// Form of the output.
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
        /// Which platform of an index, for --config (os/arch).
        #[arg(long)]
        platform: Option<airlock_oci::Platform>,
        /// Registry.
        #[command(flatten)]
        common: CommonArgs,
        /// Registry.
        #[command(flatten)]
        side: OneSideArgs,
    },
    /// List a repository's tags.
    Tags {
        /// docker://HOST/NAME
        repository: String,
        /// Form of the output.
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
        /// Registry.
        #[command(flatten)]
        common: CommonArgs,
        /// Registry.
        #[command(flatten)]
        side: OneSideArgs,
    },
    /// Print an image's digest.
    Digest {
        /// docker://HOST/NAME[:TAG]
        image: String,
        /// Registry.
        #[command(flatten)]
        common: CommonArgs,
        /// Registry.
        #[command(flatten)]
        side: OneSideArgs,
    },
    /// Remove a tag, or with a digest a manifest and all its tags.
    Delete {
        /// docker://HOST/NAME:TAG or docker://HOST/NAME@DIGEST.
        image: String,
        /// Do it; without, only what would go is shown.
        #[arg(short, long)]
        yes: bool,
        /// Registry.
        #[command(flatten)]
        common: CommonArgs,
        /// Registry.
        #[command(flatten)]
        side: OneSideArgs,
    },
}

/// `image copy`.
#[derive(Debug, Args)]
pub(crate) struct CopyArgs {
    /// docker://HOST/NAME[:TAG][@DIGEST] or oci:DIR[:TAG].
    pub source: String,
    /// docker://HOST/NAME[:TAG] or oci:DIR[:TAG].
    pub destination: String,
    /// Only these platforms of an index (os/arch; repeatable). The index itself stays as it is.
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Vec<airlock_oci::Platform>,
    /// All platforms (the default; accepted for skopeo's sake).
    #[arg(long, conflicts_with = "platform")]
    pub all: bool,
    /// Digests are always preserved (accepted for skopeo's sake).
    #[arg(long)]
    pub preserve_digests: bool,
    /// Carry no signatures and no referrers.
    #[arg(long)]
    pub remove_signatures: bool,
    /// Both sides.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Source.
    #[command(flatten)]
    pub from: SourceArgs,
    /// Target.
    #[command(flatten)]
    pub to: TargetArgs,
}
