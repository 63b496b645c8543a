//! What can go wrong between a source and a sink, as data: a kind to branch on, the thing, the cause, a hint.

use std::fmt;

/// What the failure means to the caller. Registries' status codes and file systems' errors are mapped into these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The name, manifest or blob does not exist there.
    NotFound,
    /// No or wrong credentials (401).
    Unauthorized,
    /// The credentials do not suffice (403).
    Denied,
    /// The other side asks to slow down (429).
    TooManyRequests,
    /// Connection, DNS, TLS or time-out: the other side could not be spoken to.
    Network,
    /// The other side failed (5xx) or broke the protocol.
    Server,
    /// The bytes do not have the digest or the size that was asked for.
    Content,
    /// The content is understood but cannot be carried (schema 1, oversized manifest, absurd sizes).
    Unsupported,
    /// The sink refuses this content (sparse index, media type, nested name, …).
    Refused,
    /// No space, or a quota.
    Full,
    /// The local file system failed in another way.
    Io,
    /// What the user gave contradicts itself or cannot be understood: a configuration, a name, a credential file.
    Invalid,
    /// A file of ours or an archive is not as it was written, or not whole.
    Damaged,
    /// Another run holds the lock.
    Locked,
    /// Stopped on request.
    Interrupted,
}

/// Every kind.
const ALL: [ErrorKind; 15] = [
    ErrorKind::NotFound,
    ErrorKind::Unauthorized,
    ErrorKind::Denied,
    ErrorKind::TooManyRequests,
    ErrorKind::Network,
    ErrorKind::Server,
    ErrorKind::Content,
    ErrorKind::Unsupported,
    ErrorKind::Refused,
    ErrorKind::Full,
    ErrorKind::Io,
    ErrorKind::Invalid,
    ErrorKind::Damaged,
    ErrorKind::Locked,
    ErrorKind::Interrupted,
];

/// One endpoint that was tried, and how it went (oci keeps it; the client fills it).
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The physical name that was contacted, `host[:port]/path`.
    pub endpoint: String,
    /// What came of it, in one line: status, the registry's own message, which credential was used.
    pub outcome: String,
}

/// A failure: what was being done to which thing, why it failed, what helps.
#[derive(Debug, Clone)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug, Clone)]
struct Inner {
    kind: ErrorKind,
    what: String,
    cause: String,
    hint: Option<String>,
    attempts: Vec<Attempt>,
    retry: bool,
}

impl ErrorKind {
    /// Whether trying again later may help, in general (oc-mirror 8.2).
    pub fn is_transient(self) -> bool {
        matches!(self, Self::TooManyRequests | Self::Network | Self::Server)
    }

    /// The kind that has this word.
    pub fn from_code(code: &str) -> Option<Self> {
        ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// A stable word for reports and JSON.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::Unauthorized => "unauthorized",
            Self::Denied => "denied",
            Self::TooManyRequests => "too-many-requests",
            Self::Network => "network",
            Self::Server => "server",
            Self::Content => "content",
            Self::Unsupported => "unsupported",
            Self::Refused => "refused",
            Self::Full => "full",
            Self::Io => "io",
            Self::Invalid => "invalid",
            Self::Damaged => "damaged",
            Self::Locked => "locked",
            Self::Interrupted => "interrupted",
        }
    }
}

impl Error {
    /// `what` says what was being done to which thing ("pull manifest `quay.io/a/b:1`"), `cause` why it failed.
    pub fn new(kind: ErrorKind, what: impl Into<String>, cause: impl fmt::Display) -> Self {
        let (what, cause) = (what.into(), cause.to_string());
        Self {
            inner: Box::new(Inner { kind, what, cause, hint: None, attempts: Vec::new(), retry: kind.is_transient() }),
        }
    }

    /// A local file could not be read or written. Disk full is [`ErrorKind::Full`].
    pub fn io(what: impl Into<String>, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge => {
                ErrorKind::Full
            }
            _ => ErrorKind::Io,
        };
        Self::new(kind, what, error)
    }

    /// Adds what the user may do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// Adds the endpoints that were tried.
    pub fn attempts(mut self, attempts: Vec<Attempt>) -> Self {
        self.inner.attempts = attempts;
        self
    }

    /// Overrides whether trying again may help.
    pub fn retryable(mut self, retry: bool) -> Self {
        self.inner.retry = retry;
        self
    }

    /// Gives the failure another meaning, keeping everything that it says.
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.inner.kind = kind;
        self.inner.retry = kind.is_transient();
        self
    }

    /// Replaces what was being done, keeping cause, hint and attempts.
    pub fn context(mut self, what: impl Into<String>) -> Self {
        let inner = &mut self.inner;
        inner.cause = format!("{}: {}", inner.what, inner.cause);
        inner.what = what.into();
        self
    }

    /// What the failure means.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What was being done, and to which thing.
    pub fn what(&self) -> &str {
        &self.inner.what
    }

    /// Why it failed.
    pub fn cause(&self) -> &str {
        &self.inner.cause
    }

    /// What helps, where something is known to.
    pub fn hint_text(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// Every endpoint that was tried, in order.
    pub fn tried(&self) -> &[Attempt] {
        &self.inner.attempts
    }

    /// Whether trying again may help.
    pub fn is_retryable(&self) -> bool {
        self.inner.retry
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.inner.what, self.inner.cause)?;
        for attempt in &self.inner.attempts {
            write!(f, "; tried {}: {}", attempt.endpoint, attempt.outcome)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_found_by_its_word() {
        for kind in ALL {
            assert_eq!(ErrorKind::from_code(kind.code()), Some(kind));
        }
        assert_eq!(ErrorKind::from_code("other"), None);
    }
}
