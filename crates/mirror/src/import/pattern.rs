//! Which repositories are imported: names with wildcards.

use std::str::FromStr;

use airlock_oci::Repository;

/// A repository's name in which `*` stands for any part of a component and `**` for any number of components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<String>);

/// What is included, less what is excluded.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Empty: everything.
    pub include: Vec<Pattern>,
    /// Taken out again.
    pub exclude: Vec<Pattern>,
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split('/').collect();
        for word in &words {
            let letters = word.replace('*', "a");
            if word.is_empty() || (word.contains("**") && *word != "**") || Repository::new(&letters).is_err() {
                return Err(format!(
                    "`{text}` is no name of a repository with wildcards: write such as `openshift/release`, `demo/*`, `ocp-*/**`"
                ));
            }
        }
        Ok(Self(words.into_iter().map(str::to_owned).collect()))
    }
}

impl Pattern {
    /// Whether a repository has such a name.
    pub fn matches(&self, repository: &Repository) -> bool {
        let components: Vec<&str> = repository.as_str().split('/').collect();
        components_match(&self.0, &components)
    }

    /// The one name that it stands for, if it has no wildcards.
    pub(super) fn name(&self) -> Option<Repository> {
        Repository::new(&self.0.join("/")).ok()
    }
}

fn components_match(words: &[String], components: &[&str]) -> bool {
    match (words, components) {
        ([], []) => true,
        ([word, rest @ ..], _) if word == "**" => {
            // From none to all of them.
            (0..=components.len()).any(|taken| components_match(rest, &components[taken..]))
        }
        ([word, rest @ ..], [component, more @ ..]) => {
            word_matches(word.as_bytes(), component.as_bytes()) && components_match(rest, more)
        }
        _ => false,
    }
}

/// One component. Goes back to the last `*` only, so that it takes at most as many steps as the product of both lengths.
fn word_matches(word: &[u8], component: &[u8]) -> bool {
    let (mut w, mut c) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while c < component.len() {
        if w < word.len() && word[w] == b'*' {
            star = Some((w, c));
            w += 1;
        } else if w < word.len() && word[w] == component[c] {
            (w, c) = (w + 1, c + 1);
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            (w, c) = (at + 1, from + 1);
        } else {
            return false;
        }
    }
    word[w..].iter().all(|b| *b == b'*')
}

impl Filter {
    /// Whether a repository is wanted.
    pub fn takes(&self, repository: &Repository) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(repository));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }

    /// The names that are included without wildcards, for a place that does not list what it has.
    pub(super) fn names(&self) -> Vec<Repository> {
        self.include.iter().filter_map(Pattern::name).filter(|name| self.takes(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_parts_and_for_components() {
        for (text, yes, no) in [
            ("a", &["a"][..], &["b", "a/b", "aa"][..]),
            ("a/*", &["a/b"], &["a", "a/b/c", "b/b"]),
            ("a/**", &["a", "a/b", "a/b/c"], &["ab/c", "b"]),
            ("**", &["a", "a/b/c"], &[]),
            ("**/x", &["x", "a/x", "a/b/x"], &["a", "x/a"]),
            ("ocp-*/re*se", &["ocp-v4/release", "ocp-4/rese"], &["ocp/release", "ocp-4/releases", "ocp-4/a/release"]),
            ("*a*", &["a", "xax", "aaa"], &["b", "x/a"]),
        ] {
            let pattern: Pattern = text.parse().unwrap();
            for name in yes {
                assert!(pattern.matches(&Repository::new(name).unwrap()), "{text} {name}");
            }
            for name in no {
                assert!(!pattern.matches(&Repository::new(name).unwrap()), "{text} {name}");
            }
        }
        for bad in ["", "/a", "a/", "a//b", "A", "a**", "a b", "a:1"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_excluded_is_not_taken() {
        let filter = Filter {
            include: vec!["a/**".parse().unwrap(), "b".parse().unwrap()],
            exclude: vec!["a/x".parse().unwrap()],
        };
        let takes = |name: &str| filter.takes(&Repository::new(name).unwrap());
        assert!(takes("a/b") && takes("b") && !takes("a/x") && !takes("c"));
        assert_eq!(filter.names(), [Repository::new("b").unwrap()]);
    }
}
