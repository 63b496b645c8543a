//! `airlock rules`: one file a verb, and what they read in [`input`].

mod convert;
mod impact;
pub(crate) mod input;
mod lint;
mod observe;
mod render;
mod resolve;
mod undo;

use crate::args::rules::{RulesArgs, RulesCommand};
use crate::exit::Failure;
use crate::progress::Look;

/// Runs the verb.
pub(crate) async fn run(args: RulesArgs, look: Look) -> Result<u8, Failure> {
    match args.command {
        RulesCommand::Render(args) => render::run(&args),
        RulesCommand::Resolve(args) => resolve::run(&args),
        RulesCommand::Lint(args) => lint::run(&args).await,
        RulesCommand::Convert(args) => convert::run(&args),
        RulesCommand::Impact(args) => impact::run(&args),
        RulesCommand::Undo(args) => undo::run(&args),
        RulesCommand::Audit(args) => crate::commands::audit::run(*args, look).await,
    }
}
