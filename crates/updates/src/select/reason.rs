//! Why a release is mirrored, and what else the user should know.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::channel::ChannelName;
use crate::version::Version;

/// One reason for a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// The channel whose graph has it.
    pub channel: ChannelName,
    /// The line of the configuration that asked, counted from 1; 0: none.
    pub line: u32,
    /// Why.
    pub reason: Reason,
    /// Names of the known risks of the update that leads here, where the path had no other way.
    pub risks: Vec<String>,
}

/// Why a release is among those chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The newest of the channel, where no version is configured.
    Latest,
    /// Between the lowest and the highest version.
    InRange {
        /// Lowest, included.
        min: Version,
        /// Highest, included.
        max: Version,
    },
    /// `full`: every version of the channel.
    Full,
    /// One end of an update path.
    PathEnd {
        /// The path's start.
        from: Version,
        /// The path's end.
        to: Version,
    },
    /// On the shortest update path.
    OnPath {
        /// The path's start.
        from: Version,
        /// The path's end.
        to: Version,
    },
    /// Of a minor version between the two: no cluster can leave it out.
    IntermediateMinor {
        /// The path's start.
        from: Version,
        /// The path's end.
        to: Version,
    },
    /// On the way from one channel to another.
    AcrossChannels {
        /// The lowest version of all channels.
        from: Version,
        /// The highest.
        to: Version,
    },
}

/// Something to know about a selection that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A configured bound is no version of the channel; the range begins or ends beside it.
    NotInChannel {
        /// `minVersion` or `maxVersion`.
        field: &'static str,
        /// As configured.
        version: Version,
        /// Which channel.
        channel: ChannelName,
        /// The nearest versions below and above.
        near: Vec<Version>,
    },
    /// Minor versions lie between the two ends; these releases lead through them.
    Through {
        /// The path's start.
        from: Version,
        /// The path's end.
        to: Version,
        /// Which channel.
        channel: ChannelName,
        /// The releases between.
        through: Vec<Version>,
    },
    /// The path uses an update with known risks, as there is no other.
    Risky {
        /// Before the update.
        from: Version,
        /// After it.
        to: Version,
        /// Names of the risks.
        risks: Vec<String>,
    },
    /// No updates lead from one to the other, in any of the channels. Both ends are chosen, but a cluster cannot go this way.
    NoPath {
        /// The path's start.
        from: Version,
        /// The path's end.
        to: Version,
        /// Where a path was looked for.
        channels: Vec<ChannelName>,
        /// Updates with known risks would lead there, but are not wanted.
        avoided: bool,
    },
}

impl Reason {
    /// A stable word for reports and JSON.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Latest => "latest",
            Self::InRange { .. } => "in-range",
            Self::Full => "full",
            Self::PathEnd { .. } => "path-end",
            Self::OnPath { .. } => "on-path",
            Self::IntermediateMinor { .. } => "intermediate-minor",
            Self::AcrossChannels { .. } => "across-channels",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let channel = &self.channel;
        match &self.reason {
            Reason::Latest => write!(f, "latest of {channel}")?,
            Reason::InRange { min, max } if min == max => write!(f, "chosen in {channel}")?,
            Reason::InRange { min, max } => write!(f, "within {min} to {max} in {channel}")?,
            Reason::Full => write!(f, "every version of {channel}")?,
            Reason::PathEnd { from, to } => write!(f, "an end of the update path {from} to {to} in {channel}")?,
            Reason::OnPath { from, to } => write!(f, "on the shortest update path {from} to {to} in {channel}")?,
            Reason::IntermediateMinor { from, to } => {
                write!(f, "intermediate minor version between {from} and {to}, from {channel}")?;
            }
            Reason::AcrossChannels { from, to } => {
                write!(f, "on the update path {from} to {to} across channels, from {channel}")?;
            }
        }
        if !self.risks.is_empty() {
            write!(f, "; the update to it has known risks: {}", self.risks.join(", "))?;
        }
        Ok(())
    }
}

impl Serialize for Why {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Written<'w> {
            channel: &'w str,
            #[serde(skip_serializing_if = "is_zero")]
            line: u32,
            reason: &'static str,
            #[serde(skip_serializing_if = "<[String]>::is_empty")]
            risks: &'w [String],
            text: String,
        }
        Written {
            channel: self.channel.as_str(),
            line: self.line,
            reason: self.reason.code(),
            risks: &self.risks,
            text: self.to_string(),
        }
        .serialize(serializer)
    }
}

impl Note {
    /// Whether a cluster cannot go the way that was asked for.
    pub fn is_gap(&self) -> bool {
        matches!(self, Self::NoPath { .. })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInChannel { field, version, channel, near } => {
                write!(f, "{field} {version} is no version of {channel}")?;
                if !near.is_empty() {
                    write!(f, " (nearest: {})", list(near, " and "))?;
                }
                Ok(())
            }
            Self::Through { from, to, channel, through } => {
                write!(f, "{channel}: the update from {from} to {to} goes through {}", list(through, ", "))
            }
            Self::Risky { from, to, risks } => write!(
                f,
                "the update from {from} to {to} has known risks ({}); a cluster takes it only if none concerns it, or when told to",
                risks.join(", ")
            ),
            Self::NoPath { from, to, channels, avoided } => {
                write!(f, "no updates lead from {from} to {to} in {}", list(channels, ", "))?;
                if *avoided {
                    f.write_str(" but those with known risks")?;
                }
                f.write_str("; both are mirrored, but a cluster cannot go this way")
            }
        }
    }
}

fn list(items: &[impl fmt::Display], between: &str) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(between)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(line: &u32) -> bool {
    *line == 0
}
