//! `airlock completion`.

use clap::CommandFactory;

use crate::args::{Arguments, CompletionArgs};
use crate::exit::Failure;

/// Prints the script.
pub(crate) fn run(args: &CompletionArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut <Arguments>::command(), "airlock", &mut script);
    crate::output::text(&String::from_utf8_lossy(&script))?;
    Ok(0)
}
