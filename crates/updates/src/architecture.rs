//! Architectures of releases, under Go's names and under those of release tags.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// What a payload is built for. Each has a graph of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Architecture {
    /// x86_64.
    #[default]
    Amd64,
    /// aarch64.
    Arm64,
    /// IBM Power.
    Ppc64le,
    /// IBM Z.
    S390x,
    /// One payload for all of them.
    Multi,
}

/// The name is none of an architecture that has releases.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no architecture of a release; there are amd64, arm64, ppc64le, s390x and multi")]
pub struct UnknownArchitecture(pub String);

impl Architecture {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 5] = [Self::Amd64, Self::Arm64, Self::Ppc64le, Self::S390x, Self::Multi];

    /// The name in graphs and configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Ppc64le => "ppc64le",
            Self::S390x => "s390x",
            Self::Multi => "multi",
        }
    }

    /// The name at the end of a release's tag: `4.18.3-x86_64`.
    pub fn tag_suffix(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
            Self::Ppc64le => "ppc64le",
            Self::S390x => "s390x",
            Self::Multi => "multi",
        }
    }
}

impl FromStr for Architecture {
    type Err = UnknownArchitecture;

    /// Either name is understood.
    fn from_str(text: &str) -> Result<Self, UnknownArchitecture> {
        let lower = text.to_ascii_lowercase();
        Self::ALL
            .into_iter()
            .find(|a| a.name() == lower || a.tag_suffix() == lower)
            .ok_or_else(|| UnknownArchitecture(text.to_owned()))
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Architecture {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_of_names_are_translated() {
        for (text, name, suffix) in [
            ("amd64", "amd64", "x86_64"),
            ("x86_64", "amd64", "x86_64"),
            ("aarch64", "arm64", "aarch64"),
            ("ppc64le", "ppc64le", "ppc64le"),
            ("s390x", "s390x", "s390x"),
            ("multi", "multi", "multi"),
        ] {
            let architecture: Architecture = text.parse().unwrap();
            assert_eq!((architecture.name(), architecture.tag_suffix()), (name, suffix));
        }
        assert!("arrgh64".parse::<Architecture>().unwrap_err().to_string().contains("s390x"));
    }
}
