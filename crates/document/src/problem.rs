//! What is wrong with a user's text, as data: each problem with its place, its line and what helps.

use std::fmt;

use serde::Serialize;

use crate::yaml::Mark;

/// Longest part of a source line that is shown, in characters; a whole dump may stand on one line.
const MAX_SHOWN_LINE: usize = 160;

/// Whether what has the problem can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It can; worth knowing.
    Information,
    /// It can, but not quite as the author may think.
    Warning,
    /// It cannot.
    Error,
}

/// One thing that is wrong, at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Stable, and of the format that the text has: `E01..` for image sets, `E05..` for mirror rules.
    pub code: &'static str,
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, with the offending value.
    pub message: String,
    /// The file, as the caller named it.
    pub file: Box<str>,
    /// Counted from 1; 0 where the whole file is meant.
    pub line: u32,
    /// In characters, counted from 1; 0 where the whole file is meant.
    pub column: u32,
    /// Number of characters that are marked, at least 1.
    pub length: u32,
    /// The line of the file, or the part of a long one around the mark; tabs are single blanks.
    pub source: Box<str>,
    /// How many characters of the line were cut off before `source`.
    pub source_cut: u32,
    /// The line in which the same thing stands already, which is said beside the mark; 0 where it does not.
    pub earlier: u32,
    /// What helps.
    pub hint: Option<String>,
}

/// Everything that is wrong with a set of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Severity {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Information => "information",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Problem {
    /// A problem of the whole file.
    pub fn of_file(code: &'static str, file: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            file: file.into(),
            line: 0,
            column: 0,
            length: 1,
            source: Box::default(),
            source_cut: 0,
            earlier: 0,
            hint: None,
        }
    }

    /// A problem at a place of a text.
    pub fn at(code: &'static str, file: &str, text: &str, mark: Mark, message: impl Into<String>) -> Self {
        let line = text.lines().nth((mark.line as usize).saturating_sub(1)).unwrap_or_default();
        Self::in_line(code, file, line, mark, message)
    }

    /// The same for a caller that has the line at hand: of a long text with many problems, finding each costs.
    pub fn in_line(code: &'static str, file: &str, line: &str, mark: Mark, message: impl Into<String>) -> Self {
        let mut problem = Self::of_file(code, file, message);
        (problem.line, problem.column, problem.length) = (mark.line, mark.column, mark.length);
        problem.show(line);
        problem
    }

    /// The same with what helps.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same as a warning.
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Shows the line in which the mark lies, cutting a long one around it.
    fn show(&mut self, line: &str) {
        let total = line.chars().count();
        let column = (self.column.max(1) as usize - 1).min(total);
        let cut = if total > MAX_SHOWN_LINE { column.saturating_sub(MAX_SHOWN_LINE / 4) } else { 0 };
        let shown = line.chars().skip(cut).take(MAX_SHOWN_LINE);
        self.source = shown.map(|c| if c == '\t' { ' ' } else { c }).collect();
        let rest = (self.source.chars().count() + cut).saturating_sub(column).max(1);
        self.source_cut = u32::try_from(cut).unwrap_or(u32::MAX);
        self.length = self.length.clamp(1, u32::try_from(rest).unwrap_or(u32::MAX));
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]: {}", self.severity.as_str(), self.code, clean(&self.message))?;
        if self.line == 0 {
            if !self.file.is_empty() {
                write!(f, "\n  --> {}", self.file)?;
            }
        } else {
            let gutter = " ".repeat(self.line.to_string().len());
            write!(f, "\n{gutter}--> {}:{}:{}", self.file, self.line, self.column)?;
            let before = " ".repeat((self.column.max(1) - 1).saturating_sub(self.source_cut) as usize);
            let carets = "^".repeat(self.length.max(1) as usize);
            let beside = if self.earlier > 0 { format!(" already in line {}", self.earlier) } else { String::new() };
            let (line, source) = (self.line, clean(&self.source));
            write!(f, "\n{gutter} |\n{line} | {source}\n{gutter} | {before}{carets}{beside}")?;
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
        for (at, problem) in self.0.iter().enumerate() {
            let gap = if at == 0 { "" } else { "\n\n" };
            write!(f, "{gap}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_with_its_line_and_mark() {
        let mark = Mark { line: 2, column: 3, length: 4, start: 0, end: 0 };
        let problem = Problem::at("E0509", "a.yaml", "a:\n  long\n", mark, "too short").hint("write more");
        let shown = "error[E0509]: too short\n --> a.yaml:2:3\n  |\n2 |   long\n  |   ^^^^\nhelp: write more";
        assert_eq!(problem.to_string(), shown);
    }

    #[test]
    fn an_earlier_line_is_named_beside_the_mark() {
        let mark = Mark { line: 14, column: 15, length: 4, start: 0, end: 0 };
        let problem = Problem::in_line("E0109", "isc.yaml", "      - name: helm", mark, "too short");
        let problem = Problem { earlier: 12, ..problem.hint("write more") };
        let shown = "error[E0109]: too short\n  --> isc.yaml:14:15\n   |\n14 |       - name: helm\n   |               ^^^^ already in line 12\nhelp: write more";
        assert_eq!(problem.to_string(), shown);
    }

    #[test]
    fn a_very_long_line_is_shown_around_the_mark() {
        let mark = Mark { line: 1, column: 90_000, length: 50_000, start: 0, end: 0 };
        let problem = Problem::in_line("E", "f", &"x".repeat(100_000), mark, "");
        assert_eq!((problem.source.len(), problem.source_cut), (160, 89_959));
        assert!(problem.to_string().len() < 1_000);
    }
}
