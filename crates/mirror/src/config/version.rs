//! Versions in filters, as tolerant as oc-mirror's: `1.2` and `v1.2.3-rc.1+build` are versions.

use std::cmp::Ordering;

/// A version that may leave out minor and patch numbers. Build metadata does not count.
#[derive(Clone, Debug)]
pub(super) struct Version {
    numbers: [u64; 3],
    written: usize,
    pre: Vec<String>,
}

impl Version {
    /// `[v]MAJOR[.MINOR[.PATCH]][-PRE][+BUILD]`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (text, build) = text.split_once('+').map_or((text, None), |(t, b)| (t, Some(b)));
        let (core, pre) = text.split_once('-').map_or((text, None), |(c, p)| (c, Some(p)));
        let mut numbers = [0; 3];
        let mut written = 0;
        for part in core.split('.') {
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            *numbers.get_mut(written)? = if digits { part.parse().ok()? } else { return None };
            written += 1;
        }
        if !pre.is_none_or(identifiers) || !build.is_none_or(identifiers) {
            return None;
        }
        let pre = pre.map(|p| p.split('.').map(str::to_owned).collect()).unwrap_or_default();
        Some(Self { numbers, written, pre })
    }

    /// Semantic precedence (semver.org 11).
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => compare_pre(&self.pre, &other.pre),
        };
        self.numbers.cmp(&other.numbers).then(pre)
    }

    /// Whether all three numbers are written, as releases need.
    pub(super) fn is_full(&self) -> bool {
        self.written == 3
    }
}

fn identifiers(text: &str) -> bool {
    text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
}

fn compare_pre(a: &[String], b: &[String]) -> Ordering {
    for (a, b) in a.iter().zip(b) {
        let order = match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => a.cmp(b),
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerant_versions_parse_and_order() {
        let parse = |t: &str| Version::parse(t).unwrap_or_else(|| panic!("{t}"));
        for (less, more) in [("1.2", "1.2.1"), ("v4.9.0", "4.18"), ("1.0.0-rc.2", "1.0.0-rc.10"), ("1.0.0-rc.1", "1")] {
            assert_eq!(parse(less).compare(&parse(more)), Ordering::Less, "{less} {more}");
        }
        assert_eq!(parse("1.2").compare(&parse("v1.2.0+build.7")), Ordering::Equal);
        for bad in ["", "v", "1.", "1.2.3.4", "a", "1.x", "1.2-", "1.2.3+", "stable", "99999999999999999999"] {
            assert!(Version::parse(bad).is_none(), "{bad}");
        }
    }
}
