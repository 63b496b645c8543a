//! `airlock cluster`: one file a noun.

mod ca;
mod pull_secret;
mod resources;

use airlock_rules::{Problem, Problems};

use crate::args::cluster::{ClusterArgs, ClusterCommand, ResourcesCommand};
use crate::exit::Failure;

/// Runs the verb.
pub(crate) async fn run(args: ClusterArgs) -> Result<u8, Failure> {
    match args.command {
        ClusterCommand::PullSecret(args) => pull_secret::run(args).await,
        ClusterCommand::Ca(args) => ca::run(args).await,
        ClusterCommand::Resources(args) => match args.command {
            ResourcesCommand::Apply(args) => resources::apply(args).await,
        },
    }
}

/// Problems that do not keep a command from its work.
fn warn(problems: &[Problem]) {
    if !problems.is_empty() {
        eprintln!("{}", Problems(problems.to_vec()));
    }
}
