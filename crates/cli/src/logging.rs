//! Diagnostics of the program itself, to stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::told::{self, Lines};

/// Who changed what is always shown where a registry is served (`audit`); `-v` shows decisions, `-vv` requests, `-vvv` everything; `AIRLOCK_LOG` overrides.
pub(crate) fn init(verbose: u8, quiet: bool, audit: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) if !audit => "warn",
        (false, 0) => "warn,airlock_registry::audit=info",
        (false, 1) => "warn,airlock=info,airlock_client=info,airlock_mirror=info,airlock_registry=info",
        (false, 2) => "info,airlock=debug,airlock_client=debug,airlock_mirror=debug,airlock_registry=debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_env("AIRLOCK_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // A line that nobody can read any more is not worth ending the program for, which telling of it would do.
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Lines);
    let subscriber = subscriber.with_ansi(!told::is_json() && has_colors());
    let _ = subscriber.log_internal_errors(false).try_init();
}

/// Colors are for terminals, and for those who have not said that they want none (`NO_COLOR`).
fn has_colors() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
