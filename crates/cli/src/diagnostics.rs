//! Errors for people: what failed, why, every endpoint that was tried, what helps.

use airlock_oci::Error;

use crate::exit::Failure;

/// Prints a failure to stderr.
pub(crate) fn print(failure: &Failure) {
    match failure {
        Failure::Config(problems) => eprintln!("{problems}"),
        Failure::Rules(problems) => eprintln!("{problems}"),
        Failure::Usage { message, hint } => {
            eprintln!("error: {message}");
            if let Some(hint) = hint {
                eprintln!("hint: {hint}");
            }
        }
        Failure::Error(error) | Failure::Coded(error, _) => print_error(error),
    }
}

/// Prints one error with its attempts and hint.
pub(crate) fn print_error(error: &Error) {
    eprintln!("error: cannot {}: {}", error.what(), error.cause());
    for attempt in error.tried() {
        eprintln!("  tried {}: {}", attempt.endpoint, attempt.outcome);
    }
    if let Some(hint) = error.hint_text() {
        eprintln!("hint: {hint}");
    }
}
