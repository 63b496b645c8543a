//! The `airlock` binary. Under the name `oc-mirror` it behaves as the `oc mirror --v2` plugin.
//!
//! Arguments are parsed in [`args`], each verb is carried out by one file of [`commands`]. Only this crate prints: data to stdout,
//! everything else to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the command line is what prints")]

/// Shadows the macro of the standard library, which ends the program where nobody reads stderr any more (`2>&1 | head`, a terminal that was
/// closed): what is told must not end what is done.
macro_rules! eprintln {
    ($($told:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr().lock(), $($told)*);
    }};
}

/// Shadows its like too, for the same reason.
macro_rules! eprint {
    ($($told:tt)*) => {{
        use std::io::Write;
        let _ = write!(std::io::stderr().lock(), $($told)*);
    }};
}

mod args;
#[cfg(feature = "cluster")]
mod cluster;
mod commands;
mod diagnostics;
mod environment;
mod exit;
mod logging;
mod output;
mod progress;
mod signals;
mod told;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::catalog::CatalogCommand;
use args::release::{ReleaseCommand, UpdatesCommand};
use args::{Arguments, Command};
use exit::Exit;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if args::oc_mirror::is_name(arguments.first()) {
        return commands::oc_mirror::main(arguments);
    }
    // `airlock oc-mirror …` is the same program under its other name.
    if arguments.get(1).is_some_and(|a| a == "oc-mirror") {
        return commands::oc_mirror::main(arguments.into_iter().skip(1).collect());
    }
    let parsed = match args::serving::parse(&arguments).map_or_else(|| Arguments::try_parse_from(&arguments), Ok) {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { Exit::Usage.code() } else { 0 });
        }
    };
    let look = progress::Look { quiet: parsed.quiet, verbose: parsed.verbose, style: parsed.progress };
    told::begin(look);
    let serves = matches!(&parsed.command, Command::Registry(args) if args.is_serve());
    logging::init(parsed.verbose, parsed.quiet, serves);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(parsed, look));
    told::end(code);
    // What still blocks on a slow disk or network must not keep the terminal.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    ExitCode::from(code)
}

async fn run(arguments: Arguments, look: progress::Look) -> u8 {
    let result = match arguments.command {
        Command::Mirror(args) => commands::mirror::run(*args, look).await,
        Command::Plan(args) => commands::plan::run(args, look).await,
        Command::Verify(args) => commands::verify::run(args, look).await,
        Command::Archive(args) => commands::archive::run(args, look).await,
        Command::Image(args) => commands::image::run(args, look).await,
        Command::Release(args) => match args.command {
            ReleaseCommand::List(args) => commands::release_graph::list(args, look).await,
            ReleaseCommand::Path(args) => commands::release_graph::path(args, look).await,
            ReleaseCommand::Info(args) => commands::release_payload::info(*args, look).await,
            ReleaseCommand::Extract(args) => commands::release_payload::extract(*args, look).await,
            ReleaseCommand::Mirror(args) => commands::release_mirror::run(*args, look).await,
        },
        Command::Catalog(args) => match args.command {
            CatalogCommand::List(args) => commands::catalog::list(*args, look).await,
            CatalogCommand::Diff(args) => commands::catalog::diff(*args, look).await,
            CatalogCommand::Init(args) => commands::catalog::init(*args, look).await,
            CatalogCommand::Mirror(args) => commands::catalog_mirror::run(*args, look).await,
        },
        Command::Updates(args) => match args.command {
            UpdatesCommand::Show(args) => commands::release_graph::list(args, look).await,
            UpdatesCommand::Path(args) => commands::release_graph::path(args, look).await,
        },
        Command::Login(args) => commands::login::login(args, look).await,
        Command::Logout(args) => commands::login::logout(args).await,
        Command::Registry(args) => commands::registry::run(args, look).await,
        Command::Rules(args) => commands::rules::run(args, look).await,
        Command::Audit(args) => commands::audit::run(*args, look).await,
        Command::Cluster(args) => commands::cluster::run(*args).await,
        Command::Quickstart(args) => commands::quickstart::run(args, look).await,
        Command::Completion(args) => commands::completion::run(&args),
        Command::Version(args) => commands::version::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(failure) => {
            diagnostics::print(&failure);
            failure.code()
        }
    }
}
