//! `catalog list|diff|init|mirror`.

mod look;
mod mirror;

use clap::{Args, Subcommand};

pub(crate) use look::{DiffArgs, InitArgs, ListArgs, WhereArgs};
pub(crate) use mirror::{MirrorArgs, Scope};

/// `airlock catalog`.
#[derive(Debug, Args)]
pub(crate) struct CatalogArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: CatalogCommand,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum CatalogCommand {
    /// List the operators of a catalog, the channels of one, or the versions in a channel.
    List(Box<ListArgs>),
    /// What differs between two catalogs, or between what two configurations choose: packages, channels, bundles, images, bytes.
    Diff(Box<DiffArgs>),
    /// Write a configuration for some operators of a catalog.
    Init(Box<InitArgs>),
    /// Copy a whole catalog with all images of its operators into a registry or a file tree, as `oc adm catalog mirror` does.
    Mirror(Box<MirrorArgs>),
}
