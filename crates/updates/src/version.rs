//! Versions of releases, and the minor versions that channels are named after.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A release's version.
///
/// * Semantic versioning with all three numbers.
/// * Ordered by precedence (semver.org 11); build metadata, which a graph builder uses for the architecture, decides only between equals.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(semver::Version);

/// The first two numbers of a version, `4.18`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Minor {
    /// `4`.
    pub major: u64,
    /// `18`.
    pub minor: u64,
}

/// Why a text is no version of a release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a version: {reason}")]
pub struct InvalidVersion {
    /// As written.
    pub text: String,
    /// What is wrong.
    pub reason: String,
}

impl Version {
    /// The first two numbers.
    pub fn minor(&self) -> Minor {
        Minor { major: self.0.major, minor: self.0.minor }
    }

    /// Whether this is neither a candidate nor an engineering build.
    pub fn is_final(&self) -> bool {
        self.0.pre.is_empty()
    }

    /// Whether both have the same precedence: the same release, perhaps of another architecture.
    pub fn is(&self, other: &Self) -> bool {
        self.0.cmp_precedence(&other.0) == Ordering::Equal
    }
}

impl Minor {
    /// The next one: `4.18` after `4.17`. Nobody knows yet where a major version ends.
    pub fn next(self) -> Self {
        Self { minor: self.minor.saturating_add(1), ..self }
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    /// A leading `v`, as some tags have it, is left out.
    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let bare = text.trim();
        let bare = bare.strip_prefix('v').unwrap_or(bare);
        semver::Version::parse(bare).map(Self).map_err(|error| {
            let numbers = bare.split(['-', '+']).next().unwrap_or_default();
            let reason = match numbers.split('.').count() {
                1 | 2 if !numbers.is_empty() => "three numbers are needed, such as 4.18.3".to_owned(),
                _ => error.to_string(),
            };
            InvalidVersion { text: text.to_owned(), reason }
        })
    }
}

impl FromStr for Minor {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let number = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            part.parse().ok().filter(|_| plain)
        };
        text.split_once('.')
            .and_then(|(major, minor)| Some(Self { major: number(major)?, minor: number(minor)? }))
            .ok_or_else(|| InvalidVersion { text: text.to_owned(), reason: "expected such as 4.18".to_owned() })
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp_precedence(&other.0).then_with(|| self.0.build.as_str().cmp(other.0.build.as_str()))
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn order_is_by_precedence_and_the_build_decides_between_equals() {
        let sorted = ["4.0.0-0.okd-0", "4.0.0-4", "4.9.0", "4.10.0-rc.2", "4.10.0-rc.10", "4.10.0", "4.10.1+amd64"];
        let mut shuffled: Vec<Version> = sorted.iter().rev().map(|t| version(t)).collect();
        shuffled.sort();
        assert_eq!(shuffled.iter().map(ToString::to_string).collect::<Vec<_>>(), sorted);
        assert!(version("4.10.1+amd64").is(&version("4.10.1+arm64")));
        assert!(version("4.10.1+amd64") != version("4.10.1+arm64"));
        assert_eq!(version("v4.18.3"), version("4.18.3"));
    }

    #[test]
    fn a_bad_version_says_what_is_wrong() {
        let reason = |text: &str| text.parse::<Version>().unwrap_err().to_string();
        assert_eq!(reason("4.18"), "`4.18` is not a version: three numbers are needed, such as 4.18.3");
        for bad in ["", "v", "4.18.x", "4.18.03", "stable-4.18", "4.18.1.2", "-4.1.1"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }

    #[test]
    fn minors_are_two_plain_numbers() {
        assert_eq!("4.18".parse::<Minor>().unwrap().next().to_string(), "4.19");
        for bad in ["4", "4.", "4.x", "4.18.1", "+4.1", ""] {
            assert!(bad.parse::<Minor>().is_err(), "{bad}");
        }
    }
}
