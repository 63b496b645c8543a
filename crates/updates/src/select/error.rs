//! Why no releases could be chosen: what, where, why, and what helps.

use airlock_oci::{Error, ErrorKind, reference};

use crate::architecture::{Architecture, UnknownArchitecture};
use crate::channel::{ChannelName, InvalidChannel};
use crate::version::{InvalidVersion, Version};

/// Why one channel, or the way between channels, could not be resolved.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SelectError {
    /// The channel's name cannot be one.
    #[error("{source}{}", at(*line))]
    ChannelName {
        /// Where it stands.
        line: u32,
        /// What is wrong.
        source: InvalidChannel,
    },
    /// The way to another channel needs names that end in a minor version.
    #[error("channel `{channel}`{} does not end in a minor version, so no way to the other channels can be found", at(*line))]
    ChannelPattern {
        /// Which channel.
        channel: ChannelName,
        /// Where it stands.
        line: u32,
    },
    /// `minVersion` or `maxVersion` is no version.
    #[error("{field} of channel `{channel}`{}: {source}", at(*line))]
    Version {
        /// `minVersion` or `maxVersion`.
        field: &'static str,
        /// Which channel.
        channel: String,
        /// Where it stands.
        line: u32,
        /// What is wrong.
        source: InvalidVersion,
    },
    /// The lowest version is above the highest.
    #[error("channel `{channel}`{}: minVersion {} is above maxVersion {}", at(*line), range.min, range.max)]
    MinAboveMax {
        /// Which channel.
        channel: ChannelName,
        /// Where it stands.
        line: u32,
        /// Both.
        range: Box<Range>,
    },
    /// No such architecture.
    #[error(transparent)]
    Architecture(UnknownArchitecture),
    /// The service knows no release in the channel.
    #[error("channel `{channel}`{}: {place} knows no release in it for {architecture}", at(*line))]
    UnknownChannel {
        /// Which channel.
        channel: ChannelName,
        /// Where it stands.
        line: u32,
        /// For what.
        architecture: Architecture,
        /// Who was asked.
        place: String,
        /// The name that was probably meant.
        nearest: Option<String>,
        /// Channels of the same minor version.
        known: Vec<String>,
    },
    /// The channel exists, but not for this architecture.
    #[error("channel `{channel}`{} has no release for {architecture}; it has for {has}", at(*line))]
    WrongArchitecture {
        /// Which channel.
        channel: ChannelName,
        /// Where it stands.
        line: u32,
        /// For what.
        architecture: Architecture,
        /// An architecture that has releases there.
        has: Architecture,
    },
    /// A path needs a version that the channel does not have.
    #[error("version {version} is not in channel `{channel}`{}{}", at(*line), nearest(near))]
    NotInChannel {
        /// Which version.
        version: Version,
        /// Which channel.
        channel: ChannelName,
        /// Where it stands.
        line: u32,
        /// The nearest versions below and above.
        near: Vec<Version>,
    },
    /// No version lies within the bounds.
    #[error("channel `{channel}`{} has no version from {} to {}{}", at(*line), range.min, range.max, nearest(near))]
    EmptyRange {
        /// Which channel.
        channel: ChannelName,
        /// Where it stands.
        line: u32,
        /// Where a version was looked for.
        range: Box<Range>,
        /// The nearest versions below and above.
        near: Vec<Version>,
    },
    /// The graph names no proper payload for a chosen release.
    #[error("the graph of channel `{channel}` names `{payload}` as the payload of {version}: {reason}")]
    Payload {
        /// Which release.
        version: Version,
        /// Which channel.
        channel: ChannelName,
        /// As written.
        payload: String,
        /// What is wrong with it.
        reason: reference::ParseError,
    },
    /// The graph could not be read.
    #[error("{0}")]
    Graph(Error),
}

/// Two versions and what lies between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Lowest, included.
    pub min: Version,
    /// Highest, included.
    pub max: Version,
}

/// Everything that was wrong. Never empty when returned as an error.
#[derive(Clone, Debug, Default)]
pub struct Failures {
    errors: Vec<SelectError>,
}

fn at(line: u32) -> String {
    if line == 0 { String::new() } else { format!(" (line {line})") }
}

fn nearest(near: &[Version]) -> String {
    if near.is_empty() {
        return String::new();
    }
    let versions: Vec<String> = near.iter().map(ToString::to_string).collect();
    format!("; nearest: {}", versions.join(" and "))
}

impl SelectError {
    /// Nobody answers: other questions need not be asked.
    pub fn is_network(&self) -> bool {
        matches!(self, Self::Graph(error) if error.kind() == ErrorKind::Network)
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::ChannelName { .. }
            | Self::ChannelPattern { .. }
            | Self::Version { .. }
            | Self::MinAboveMax { .. }
            | Self::Architecture(_) => ErrorKind::Invalid,
            Self::UnknownChannel { .. }
            | Self::WrongArchitecture { .. }
            | Self::NotInChannel { .. }
            | Self::EmptyRange { .. } => ErrorKind::NotFound,
            Self::Payload { .. } => ErrorKind::Server,
            Self::Graph(error) => error.kind(),
        }
    }

    /// What helps.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::ChannelName { .. } => "write such as stable-4.18".to_owned(),
            Self::ChannelPattern { .. } => {
                "mirror this channel with a configuration of its own, without a way to the others".to_owned()
            }
            Self::Version { .. } => "write x.y.z, such as 4.18.3".to_owned(),
            Self::MinAboveMax { .. } => "exchange the two".to_owned(),
            Self::Architecture(_) => "write one of amd64, arm64, ppc64le, s390x, multi".to_owned(),
            Self::UnknownChannel { nearest: Some(nearest), .. } => format!("did you mean `{nearest}`?"),
            Self::UnknownChannel { known, .. } if !known.is_empty() => format!("known are {}", known.join(", ")),
            Self::UnknownChannel { .. } => {
                "look at the channels with `airlock release list --version X.Y`; a channel is empty until its first release"
                    .to_owned()
            }
            Self::WrongArchitecture { has, .. } => format!("write {has} or another one into platform.architectures"),
            Self::NotInChannel { channel, .. } | Self::EmptyRange { channel, .. } => {
                format!("look at the versions with `airlock release list --channel {channel}`")
            }
            Self::Payload { .. } => "the update service is faulty; nothing was chosen from this graph".to_owned(),
            Self::Graph(error) => return error.hint_text().map(str::to_owned),
        };
        Some(hint)
    }
}

impl From<SelectError> for Error {
    fn from(error: SelectError) -> Self {
        let (kind, hint) = (error.kind(), error.hint());
        if let SelectError::Graph(error) = error {
            return error;
        }
        let made = Self::new(kind, "choose releases", error).retryable(false);
        match hint {
            Some(hint) => made.hint(hint),
            None => made,
        }
    }
}

impl Failures {
    pub(super) fn push(&mut self, error: SelectError) {
        self.errors.push(error);
    }

    pub(super) fn extend(&mut self, errors: Vec<SelectError>) {
        self.errors.extend(errors);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.errors.is_empty()
    }

    /// An error when there was any.
    pub(super) fn check(&mut self) -> Result<(), Self> {
        if self.errors.is_empty() { Ok(()) } else { Err(std::mem::take(self)) }
    }

    /// Each failure, in the order of the file.
    pub fn errors(&self) -> &[SelectError] {
        &self.errors
    }
}

impl std::fmt::Display for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, error) in self.errors.iter().enumerate() {
            if number > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failures {}

impl From<Failures> for Error {
    /// One failure is itself; several are told together, under the meaning of the first.
    fn from(mut failures: Failures) -> Self {
        if failures.errors.len() == 1
            && let Some(only) = failures.errors.pop()
        {
            return only.into();
        }
        let kind = failures.errors.first().map_or(ErrorKind::Invalid, SelectError::kind);
        let made = Self::new(kind, "choose releases", &failures).retryable(false);
        match failures.errors.iter().find_map(SelectError::hint) {
            Some(hint) => made.hint(hint),
            None => made,
        }
    }
}
