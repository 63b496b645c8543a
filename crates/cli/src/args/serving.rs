//! `airlock registry serve`, understood without the rest of the command line.
//!
//! A server stays, and the pages of the program that its start has touched stay mapped with it. The flags of all verbs are several MiB of code
//! and memory, of which serving needs a few kilobytes; so they are only set up when these few do not suffice: for help, and for what is mistyped.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};

use super::registry::{RegistryArgs, RegistryCommand, ServeArgs};
use super::{Arguments, Command};

#[derive(Debug, Subcommand)]
enum Serving {
    Registry(Verb),
}

#[derive(Debug, Args)]
struct Verb {
    #[command(subcommand)]
    command: Serve,
}

#[derive(Debug, Subcommand)]
enum Serve {
    Serve(Box<ServeArgs>),
}

/// What was typed, if it is `airlock registry serve` with flags that mean something. `None` says nothing: ask [`Arguments`].
pub(crate) fn parse(arguments: &[OsString]) -> Option<Arguments> {
    if arguments.get(1)? != "registry" || arguments.get(2)? != "serve" {
        return None;
    }
    let Arguments { quiet, verbose, progress, command } = Arguments::<Serving>::try_parse_from(arguments).ok()?;
    let Serving::Registry(Verb { command: Serve::Serve(args) }) = command;
    let command = Command::Registry(RegistryArgs { command: RegistryCommand::Serve(*args) });
    Some(Arguments { quiet, verbose, progress, command })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serving_is_understood_as_by_the_whole() {
        let serve = "airlock registry serve --root r --listen 127.0.0.1:0 --plain-http --anonymous pull";
        for line in [serve.to_owned(), format!("{serve} -vv --progress none"), format!("{serve} --quiet")] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let whole: Arguments = Arguments::try_parse_from(&words).unwrap();
            assert_eq!(format!("{:?}", parse(&words).unwrap()), format!("{whole:?}"));
        }
        for line in
            ["airlock", "airlock registry", "airlock registry serve --help", "airlock registry serve --no-such-flag"]
        {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert!(parse(&words).is_none(), "{line}");
        }
    }
}
