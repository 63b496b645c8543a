//! Channels by name: `stable-4.18`, `eus-4.18`, and those of OKD, which need not follow the pattern.

use std::fmt;

use crate::version::Minor;

/// The streams of OpenShift, as they are tried when a channel is not known.
pub(crate) const STREAMS: [&str; 4] = ["stable", "fast", "candidate", "eus"];

/// A channel's name.
///
/// * Only `0-9`, `a-z`, `-` and `.`: what an update service accepts (updates-and-releases 1.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelName(String);

/// A channel's name has a character that no update service accepts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a channel: it must be of lower-case letters, digits, `-` and `.`, such as stable-4.18")]
pub struct InvalidChannel(pub String);

impl ChannelName {
    /// Checks and keeps a name.
    pub fn new(text: &str) -> Result<Self, InvalidChannel> {
        let legal = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase() || b == b'-' || b == b'.';
        if text.is_empty() || !text.bytes().all(legal) {
            return Err(InvalidChannel(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// The channel of this stream for a minor version.
    pub fn of(stream: &str, minor: Minor) -> Result<Self, InvalidChannel> {
        Self::new(&format!("{stream}-{minor}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands before the last `-`, and the minor version after it, where the name follows that pattern.
    pub fn parts(&self) -> Option<(&str, Minor)> {
        let (stream, minor) = self.0.rsplit_once('-')?;
        Some((stream, minor.parse().ok()?))
    }

    /// The minor version that the channel is named after.
    pub fn minor(&self) -> Option<Minor> {
        self.parts().map(|(_, minor)| minor)
    }

    /// Whether this is a channel of extended update support.
    pub fn is_eus(&self) -> bool {
        self.0.contains("eus")
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_parts_where_they_follow_the_pattern() {
        let parts = |text: &str| ChannelName::new(text).unwrap().parts().map(|(s, m)| (s.to_owned(), m.to_string()));
        assert_eq!(parts("stable-4.18"), Some(("stable".into(), "4.18".into())));
        assert_eq!(parts("eus-4.16"), Some(("eus".into(), "4.16".into())));
        assert_eq!(parts("4-scos-stable"), None);
        assert_eq!(parts("stable"), None);
        for bad in ["", "Stable-4.18", "fast-4+9", "stable 4.18", "stable_4.18", "a/b"] {
            assert!(ChannelName::new(bad).is_err(), "{bad}");
        }
    }
}
