//! `.indexignore`: files of a catalog's directory that are no part of it, by the patterns of gitignore(5).

/// The file's name.
pub(super) const NAME: &str = ".indexignore";
/// Most bytes of such a file.
pub(super) const MAX_BYTES: u64 = 1024 * 1024;

/// The patterns of all `.indexignore` files of a catalog.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    /// From the root downwards, so that later ones win.
    patterns: Vec<Pattern>,
}

#[derive(Debug)]
struct Pattern {
    /// The directory of the file, without a slash at its end; empty for the root.
    folder: String,
    segments: Vec<String>,
    negated: bool,
    directory: bool,
    anchored: bool,
}

impl Ignore {
    /// Adds the file in `folder`.
    pub(super) fn add(&mut self, folder: &str, text: &str) {
        for line in text.lines() {
            let line = line.trim_end();
            let (negated, rest) = match line.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, line),
            };
            if rest.is_empty() || line.starts_with('#') {
                continue;
            }
            let directory = rest.ends_with('/');
            let body = rest.trim_end_matches('/');
            let anchored = body.contains('/');
            let segments: Vec<String> =
                body.trim_start_matches('/').split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect();
            if !segments.is_empty() {
                self.patterns.push(Pattern { folder: folder.to_owned(), segments, negated, directory, anchored });
            }
        }
        // Stable: within a file the order stays.
        self.patterns.sort_by_key(|p| if p.folder.is_empty() { 0 } else { p.folder.matches('/').count() + 1 });
    }

    /// Whether a file is left out, itself or with a directory above it.
    pub(super) fn ignores(&self, path: &str) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let parents = path.match_indices('/').map(|(at, _)| (&path[..at], true));
        parents.chain([(path, false)]).any(|(path, directory)| {
            self.patterns.iter().rev().find(|p| p.matches(path, directory)).is_some_and(|p| !p.negated)
        })
    }
}

impl Pattern {
    fn matches(&self, path: &str, directory: bool) -> bool {
        if self.directory && !directory {
            return false;
        }
        let inside = match self.folder.as_str() {
            "" => path,
            folder => match path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) {
                Some(inside) => inside,
                None => return false,
            },
        };
        let parts: Vec<&str> = inside.split('/').collect();
        if self.anchored {
            return path_matches(&self.segments, &parts);
        }
        parts.last().is_some_and(|last| segment_matches(self.segments[0].as_bytes(), last.as_bytes()))
    }
}

/// `**` is any number of parts. Works through the parts once for every segment, so that no pattern is slow.
fn path_matches(segments: &[String], parts: &[&str]) -> bool {
    let mut reach = vec![false; parts.len() + 1];
    reach[0] = true;
    for (number, segment) in segments.iter().enumerate() {
        let mut next = vec![false; parts.len() + 1];
        if segment == "**" {
            // At the end it is everything inside, and not the directory itself.
            let from = usize::from(number + 1 == segments.len());
            if let Some(first) = reach.iter().position(|r| *r) {
                next.iter_mut().skip(first + from).for_each(|n| *n = true);
            }
        } else {
            for (at, part) in parts.iter().enumerate() {
                next[at + 1] = reach[at] && segment_matches(segment.as_bytes(), part.as_bytes());
            }
        }
        reach = next;
    }
    reach[parts.len()]
}

/// `*`, `?`, `[a-z]` and `\` within one part of a path.
fn segment_matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        match one(&pattern[p.min(pattern.len())..], text[t]) {
            Some(used) => {
                p += used;
                t += 1;
            }
            None => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern[p.min(pattern.len())..].iter().all(|b| *b == b'*')
}

/// How much of the pattern stands for this one byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (*escaped == byte).then_some(2),
        [b'[', rest @ ..] => {
            let (negated, rest) = match rest {
                [b'!' | b'^', rest @ ..] => (true, rest),
                _ => (false, rest),
            };
            // A bracket that is first stands for itself.
            let Some(end) = rest.iter().skip(1).position(|b| *b == b']').map(|at| at + 1) else {
                return (byte == b'[').then_some(1);
            };
            let (mut set, mut found) = (&rest[..end], false);
            while let Some((first, others)) = set.split_first() {
                match others {
                    [b'-', last, others @ ..] => {
                        found |= (*first..=*last).contains(&byte);
                        set = others;
                    }
                    _ => {
                        found |= *first == byte;
                        set = others;
                    }
                }
            }
            (found != negated).then_some(1 + usize::from(negated) + end + 1)
        }
        [plain, ..] => (*plain == byte).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_gitignore() {
        let cases: [(&str, &str, bool); 24] = [
            ("*.md", "README.md", true),
            ("*.md", "a/b/README.md", true),
            ("/*.md", "a/README.md", false),
            ("a/*.md", "a/README.md", true),
            ("a/*.md", "a/b/README.md", false),
            ("a/**/x", "a/x", true),
            ("a/**/x", "a/b/c/x", true),
            ("**/x", "a/b/x", true),
            ("a/**", "a/b", true),
            ("a/**", "b/a/c", false),
            ("docs/", "docs/a/b.json", true),
            ("docs/", "docs", false),
            ("docs", "x/docs/a.json", true),
            ("# comment", "# comment", false),
            ("*\n!keep.json", "keep.json", false),
            ("*\n!keep.json", "other.json", true),
            ("docs\n!docs/a.json", "docs/a.json", true),
            ("[a-c].json", "b.json", true),
            ("[!a-c].json", "b.json", false),
            ("[]x].json", "].json", true),
            ("a?c", "abc", true),
            ("a\\*c", "abc", false),
            ("", "anything", false),
            ("a*b*c*d", "axxbxxbxxcxx", false),
        ];
        for (text, path, wanted) in cases {
            let mut ignore = Ignore::default();
            ignore.add("", text);
            assert_eq!(ignore.ignores(path), wanted, "{text:?} {path}");
        }
    }

    #[test]
    fn a_deeper_file_has_the_last_word() {
        let mut ignore = Ignore::default();
        ignore.add("a", "!x.json\n*.txt");
        ignore.add("", "*.json");
        assert!(ignore.ignores("x.json") && !ignore.ignores("a/x.json") && ignore.ignores("a/y.json"));
        assert!(ignore.ignores("a/b.txt") && !ignore.ignores("b.txt") && !ignore.ignores("ab/x.txt"));
    }
}
