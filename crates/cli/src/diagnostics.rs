//! Errors for people: what failed, why, every endpoint that was tried, what helps.

use airlock_oci::Error;

use crate::exit::Failure;
use crate::told;

/// Prints a failure to stderr.
pub(crate) fn print(failure: &Failure) {
    told::failure(failure);
}

/// Prints one error with its attempts and hint.
pub(crate) fn print_error(error: &Error) {
    told::whole(error);
}
