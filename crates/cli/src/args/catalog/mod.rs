mod look;

use clap::{Args, Subcommand};

pub(crate) use look::{InitArgs, ListArgs, WhereArgs};

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
    /// Write a configuration for some operators of a catalog.
    Init(Box<InitArgs>),
}
