//! Versions of bundles and the bounds that a configuration sets: semantic versioning, read as tolerantly as they are written.

use std::cmp::Ordering;

/// A version without its build metadata, which orders nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Version {
    numbers: [u64; 3],
    pre: Vec<Part>,
}

/// Numbers before words, as semver.org 11 orders them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

impl Version {
    /// `1.2.3-rc.1+build`, `v1.2`, `1`.
    pub(super) fn tolerant(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_prefix('v').unwrap_or(text);
        let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
        let (numbers, pre) = rest.split_once('-').map_or((rest, None), |(numbers, pre)| (numbers, Some(pre)));
        let legal = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        if !pre.is_none_or(legal) || !build.is_none_or(legal) {
            return None;
        }
        let mut found = [0; 3];
        let parts: Vec<&str> = numbers.split('.').collect();
        if parts.len() > 3 {
            return None;
        }
        for (number, part) in found.iter_mut().zip(parts) {
            *number = Some(part).filter(|p| p.bytes().all(|b| b.is_ascii_digit())).and_then(|p| p.parse().ok())?;
        }
        let part = |part: &str| match part.parse() {
            Ok(number) if part.bytes().all(|b| b.is_ascii_digit()) => Part::Number(number),
            _ => Part::Word(part.to_owned()),
        };
        Some(Self { numbers: found, pre: pre.map(|p| p.split('.').map(part).collect()).unwrap_or_default() })
    }

    /// All three numbers, no `v`, no leading zeros: what OLM demands of the property `olm.package`.
    pub(super) fn strict(text: &str) -> Option<Self> {
        semver::Version::parse(text).ok()?;
        Self::tolerant(text)
    }

    /// The version in a bundle's name, `operator.v1.2.3-4`.
    pub(super) fn of_name(name: &str) -> Option<Self> {
        let (_, version) = name.split_once('.')?;
        if version.split('.').count() < 3 {
            return None;
        }
        Self::tolerant(version)
    }

    /// The first one after all that begin with the same `count` numbers.
    pub(super) fn next(&self, count: usize) -> Option<Self> {
        let mut numbers = [0; 3];
        numbers[..count].copy_from_slice(&self.numbers[..count]);
        numbers[count - 1] = numbers[count - 1].checked_add(1)?;
        Some(Self { numbers, pre: Vec::new() })
    }

    /// Whether it has a pre-release part.
    pub(super) fn is_pre(&self) -> bool {
        !self.pre.is_empty()
    }

    /// Whether the three numbers are the same.
    pub(super) fn same_numbers(&self, other: &Self) -> bool {
        self.numbers == other.numbers
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        };
        self.numbers.cmp(&other.numbers).then(pre)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_semantic_versioning() {
        let sorted =
            ["0.9", "1.0.0-1", "1.0.0-2.a", "1.0.0-10", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0", "v1.0.1", "1.10.0"];
        let versions: Vec<_> = sorted.iter().map(|t| Version::tolerant(t).unwrap()).collect();
        assert!(versions.is_sorted_by(|a, b| a < b));
        assert_eq!(Version::tolerant("1.0.0+b"), Version::tolerant("1"));
        for bad in
            ["", "v", "1.", "1.x", "1.2.3.4", "latest", "1.2.3-", "1.2.3+", "1.2.3-a_b", "-1", "99999999999999999999"]
        {
            assert_eq!(Version::tolerant(bad), None, "{bad}");
        }
        assert!(
            Version::strict("1.2").is_none()
                && Version::strict("v1.2.3").is_none()
                && Version::strict("1.2.3+x").is_some()
        );
    }

    #[test]
    fn a_name_has_a_version_after_its_first_dot() {
        assert_eq!(Version::of_name("a.v1.2.3-4"), Version::tolerant("1.2.3-4"));
        assert_eq!(Version::of_name("a.0.14.0"), Version::tolerant("0.14.0"));
        for none in ["a", "a.v1.2", "a.b.v1.2.3", "a.clusterserviceversion"] {
            assert_eq!(Version::of_name(none), None, "{none}");
        }
    }
}
