//! Exit codes (ux.md 3.2) and the failures that lead to them.

use airlock_mirror::config::Problems;
use airlock_oci::Error;

/// The stable exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Usage or configuration.
    Usage = 2,
    /// Something is missing or damaged.
    Verification = 4,
    /// Credentials.
    NotAuthorised = 5,
    /// Somebody could not be spoken to.
    Network = 7,
    /// A gap or a difference was found, as asked.
    Gap = 8,
    /// Refused for safety.
    Refused = 9,
}

/// Why a command ended without doing what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The configuration has problems, each with its place.
    Config(Problems),
    /// Mirror rules have problems, each with its place.
    Rules(airlock_rules::Problems),
    /// Flags that contradict one another, with what to type instead.
    Usage {
        /// What is wrong.
        message: String,
        /// What helps.
        hint: Option<String>,
    },
    /// Anything else.
    Error(Error),
    /// An error that has a code of its own here.
    Coded(Error, u8),
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }
}

impl Failure {
    /// A usage error with a hint.
    pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Usage { message: message.into(), hint: Some(hint.into()) }
    }

    /// The exit code.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Rules(_) | Self::Usage { .. } => Exit::Usage.code(),
            Self::Error(error) => airlock_mirror::report::exit_code(error),
            Self::Coded(_, code) => *code,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Config(problems)
    }
}

impl From<airlock_rules::Problems> for Failure {
    fn from(problems: airlock_rules::Problems) -> Self {
        Self::Rules(problems)
    }
}

impl From<airlock_rules::Problem> for Failure {
    fn from(problem: airlock_rules::Problem) -> Self {
        Self::Rules(problem.into())
    }
}
