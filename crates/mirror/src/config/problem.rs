//! What is wrong with a configuration, as data: each problem with its place and what helps.

use std::fmt;
use std::path::PathBuf;

/// Longest part of a source line that is shown, in characters; a whole set may stand on one line.
const MAX_SHOWN_LINE: usize = 160;

/// Whether a configuration with the problem can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It can, but not quite as the author may think.
    Warning,
    /// It cannot.
    Error,
}

/// One thing that is wrong, at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Stable: `E01..` for errors, `W01..` for warnings (see [`code`]).
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, with the offending value.
    pub message: String,
    /// The file, as the caller named it.
    pub file: String,
    /// Counted from 1; 0 where the whole file is meant.
    pub line: u32,
    /// In characters, counted from 1; 0 where the whole file is meant.
    pub column: u32,
    /// Number of characters that are marked, at least 1.
    pub length: u32,
    /// The line of the file, or the part of a long one around the mark; tabs are single blanks.
    pub source: String,
    /// How many characters of the line were cut off before `source`.
    pub source_cut: u32,
    /// What stands beside the mark.
    pub label: Option<String>,
    /// What helps.
    pub hint: Option<String>,
}

/// Everything that is wrong with one file, in the order of its lines.
#[derive(Clone, Debug)]
pub struct Problems {
    /// The file.
    pub path: PathBuf,
    /// Errors and warnings; at least one error.
    pub problems: Vec<Problem>,
}

/// The stable codes of problems.
pub mod code {
    /// The file cannot be read.
    pub const UNREADABLE: &str = "E0101";
    /// Not YAML.
    pub const SYNTAX: &str = "E0102";
    /// A key occurs twice.
    pub const DUPLICATE_KEY: &str = "E0103";
    /// More than one document, or none.
    pub const DOCUMENTS: &str = "E0104";
    /// Wrong or missing `kind`, or the wrong sections for it.
    pub const KIND: &str = "E0105";
    /// A field that does not exist.
    pub const UNKNOWN_FIELD: &str = "E0106";
    /// A value of the wrong type.
    pub const TYPE: &str = "E0107";
    /// A value that must be there is not.
    pub const MISSING: &str = "E0108";
    /// A value that is not among those allowed or not of the right form.
    pub const VALUE: &str = "E0109";
    /// Not an image reference, or one without tag and digest.
    pub const REFERENCE: &str = "E0110";
    /// Not a version.
    pub const VERSION: &str = "E0111";
    /// The same thing is listed twice.
    pub const DUPLICATE: &str = "E0112";
    /// Two settings exclude each other.
    pub const EXCLUSIVE: &str = "E0113";
    /// A field of an older version that has no counterpart.
    pub const UNSUPPORTED: &str = "E0114";
    /// The `apiVersion` is missing or unknown.
    pub const API_VERSION: &str = "W0101";
    /// A deprecated field.
    pub const DEPRECATED: &str = "W0102";
    /// A field that is accepted and ignored.
    pub const IGNORED: &str = "W0103";
    /// A value that is legal and probably not meant.
    pub const SUSPICIOUS: &str = "W0104";
    /// A default that newer versions do not fill in.
    pub const IMPLIED: &str = "W0105";
}

impl Problem {
    /// Shows the line in which the mark lies, cutting a long one around it.
    pub(super) fn show(&mut self, line: &str) {
        let total = line.chars().count();
        let column = (self.column.max(1) as usize - 1).min(total);
        let cut = if total > MAX_SHOWN_LINE { column.saturating_sub(MAX_SHOWN_LINE / 4) } else { 0 };
        let shown = line.chars().skip(cut).take(MAX_SHOWN_LINE);
        self.source = shown.map(|c| if c == '\t' { ' ' } else { c }).collect();
        let rest = (self.source.chars().count() + cut).saturating_sub(column).max(1);
        self.source_cut = u32::try_from(cut).unwrap_or(u32::MAX);
        self.length = self.length.clamp(1, u32::try_from(rest).unwrap_or(u32::MAX));
    }

    /// A problem of the whole file.
    pub(super) fn of_file(code: &'static str, file: &str, message: String) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message,
            file: file.to_owned(),
            line: 0,
            column: 0,
            length: 1,
            source: String::new(),
            source_cut: 0,
            label: None,
            hint: None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity}[{}]: {}", self.code, clean(&self.message))?;
        if self.line == 0 {
            write!(f, "\n  --> {}", self.file)?;
        } else {
            let gutter = " ".repeat(self.line.to_string().len());
            write!(f, "\n{gutter}--> {}:{}:{}", self.file, self.line, self.column)?;
            let before = " ".repeat((self.column.max(1) - 1).saturating_sub(self.source_cut) as usize);
            let carets = "^".repeat(self.length.max(1) as usize);
            let label = self.label.as_deref().map(|l| format!(" {}", clean(l))).unwrap_or_default();
            let (line, source) = (self.line, clean(&self.source));
            write!(f, "\n{gutter} |\n{line} | {source}\n{gutter} | {before}{carets}{label}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhelp: {}", clean(hint))?;
        }
        Ok(())
    }
}

/// A terminal must not obey what a file says.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let gap = if at == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The nearest of the known words, if one is near enough to have been meant.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let limit = (word.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The number of insertions, deletions, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    const MAX_WORD: usize = 64;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(MAX_WORD).collect(), b.chars().take(MAX_WORD).collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["additionalImages", "operators", "helm"];
        assert_eq!(nearest("aditionalImage", known), Some("additionalImages"));
        assert_eq!(nearest("oeprators", known), Some("operators"));
        assert_eq!(nearest("hlem", known), Some("helm"));
        assert_eq!(nearest("something", known), None);
    }

    #[test]
    fn a_problem_is_shown_with_its_line_and_mark() {
        let problem = Problem {
            line: 14,
            column: 15,
            length: 4,
            source: "      - name: helm".to_owned(),
            label: Some("here".to_owned()),
            hint: Some("write more".to_owned()),
            ..Problem::of_file("E0109", "isc.yaml", "too short".to_owned())
        };
        let shown = "error[E0109]: too short\n  --> isc.yaml:14:15\n   |\n14 |       - name: helm\n   |               ^^^^ here\nhelp: write more";
        assert_eq!(problem.to_string(), shown);
    }

    #[test]
    fn a_very_long_line_is_shown_around_the_mark() {
        let mut problem =
            Problem { line: 1, column: 90_000, length: 50_000, ..Problem::of_file("E", "f", String::new()) };
        problem.show(&"x".repeat(100_000));
        assert_eq!((problem.source.len(), problem.source_cut), (160, 89_959));
        assert!(problem.to_string().len() < 1_000);
    }
}
