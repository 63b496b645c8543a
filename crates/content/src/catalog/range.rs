//! Ranges of versions as bundles write what they need: `>=1.0.0 <2.0.0 || 3.x` (the syntax of the library that OLM uses).

use super::version::Version;

/// Versions of which one of several groups of conditions holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VersionRange(Vec<Vec<Condition>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    operator: Operator,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

impl VersionRange {
    /// `None` where the text is no range. The empty one is none either.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let groups: Option<Vec<Vec<Condition>>> = text.split("||").map(group).collect();
        groups.map(Self)
    }

    /// Whether this version is among them.
    pub(super) fn has(&self, version: &Version) -> bool {
        self.0.iter().any(|group| group.iter().all(|condition| condition.holds(version)))
    }
}

fn group(text: &str) -> Option<Vec<Condition>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !"<>=! ".contains(c))?;
        let (operator, after) = rest.split_at(digits);
        let end = after.find(|c: char| " <>=!".contains(c)).unwrap_or(after.len());
        let (version, next) = after.split_at(end);
        conditions(operator.trim(), version, &mut found)?;
        rest = next.trim_start();
    }
    Some(found)
}

/// One condition, or the two that a wildcard stands for.
fn conditions(operator: &str, text: &str, found: &mut Vec<Condition>) -> Option<()> {
    let operator = match operator {
        "" | "=" | "==" => Operator::Equal,
        "!" | "!=" => Operator::Unequal,
        "<" => Operator::Less,
        "<=" => Operator::AtMost,
        ">" => Operator::More,
        ">=" => Operator::AtLeast,
        _ => return None,
    };
    let mut add = |operator, version| found.push(Condition { operator, version });
    let parts: Vec<&str> = text.split('.').collect();
    let wild = parts.iter().position(|part| matches!(*part, "x" | "X" | "*"));
    let Some(wild) = wild else {
        let version = Version::strict(text)?;
        add(operator, version);
        return Some(());
    };
    if wild == 0 || wild > 2 || parts[wild..].iter().any(|part| !matches!(*part, "x" | "X" | "*")) {
        return None;
    }
    let first = Version::tolerant(&parts[..wild].join("."))?;
    let next = first.next(wild)?;
    match operator {
        Operator::Equal => {
            add(Operator::AtLeast, first);
            add(Operator::Less, next);
        }
        Operator::Less => add(Operator::Less, first),
        Operator::AtMost => add(Operator::Less, next),
        Operator::More => add(Operator::AtLeast, next),
        Operator::AtLeast => add(Operator::AtLeast, first),
        Operator::Unequal => return None,
    }
    Some(())
}

impl Condition {
    fn holds(&self, version: &Version) -> bool {
        match self.operator {
            Operator::Equal => *version == self.version,
            Operator::Unequal => *version != self.version,
            Operator::Less => *version < self.version,
            Operator::AtMost => *version <= self.version,
            Operator::More => *version > self.version,
            Operator::AtLeast => *version >= self.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_say() {
        let cases: [(&str, &str, bool); 16] = [
            (">=1.0.0", "1.0.0", true),
            (">=1.0.0", "1.0.0-rc1", false),
            (">=1.0.0 <2.0.0", "1.9.9", true),
            (">=1.0.0 <2.0.0", "2.0.0", false),
            (">= 1.0.0 < 2.0.0", "1.5.0", true),
            (">=1.0.0<2.0.0", "2.1.0", false),
            ("<1.0.0 || >=3.0.0", "3.0.0", true),
            ("<1.0.0 || >=3.0.0", "2.0.0", false),
            ("1.2.3", "1.2.3+build", true),
            ("!=1.2.3", "1.2.3", false),
            ("1.2.x", "1.2.9", true),
            ("1.2.x", "1.3.0", false),
            ("1.x", "1.99.0", true),
            (">1.x", "2.0.0", true),
            ("<=1.x.x", "1.9.0", true),
            ("=1.0.0", "1.0.1", false),
        ];
        for (range, version, has) in cases {
            let range = VersionRange::parse(range).unwrap_or_else(|| panic!("{range}"));
            assert_eq!(range.has(&Version::strict(version).unwrap()), has, "{range:?} {version}");
        }
        for bad in ["", "latest", ">=", "~1.2.3", "^1.0.0", "x", "1.0.0 ||", ">>1.0.0", "1.2", "1.x.3", "1.2.3.x"] {
            assert_eq!(VersionRange::parse(bad), None, "{bad}");
        }
    }
}
