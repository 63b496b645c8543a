//! `archive ls`, `archive verify`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::output::Format;

/// `airlock archive`.
#[derive(Debug, Args)]
pub(crate) struct ArchiveArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ArchiveCommand,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum ArchiveCommand {
    /// What an archive holds.
    Ls {
        /// Its directory (file:// is accepted).
        directory: PathBuf,
        /// Form of the output.
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// Whether an archive is whole: every byte, or with --quick its structure.
    Verify {
        /// Its directory (file:// is accepted).
        directory: PathBuf,
        /// Seal, sizes, headers, links, manifests and table only.
        #[arg(long)]
        quick: bool,
        /// Form of the output.
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
}
