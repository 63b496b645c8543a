//! Changes to a user's own text: bytes are replaced, everything else stays, comments and order included.

use std::ops::Range;

/// One replacement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The bytes that go.
    pub range: Range<usize>,
    /// What comes instead.
    pub text: String,
}

impl Edit {
    /// Puts text in the place of bytes.
    pub fn replace(range: Range<usize>, text: impl Into<String>) -> Self {
        Self { range, text: text.into() }
    }

    /// Puts text before a byte.
    pub fn insert(at: usize, text: impl Into<String>) -> Self {
        Self { range: at..at, text: text.into() }
    }

    /// Removes whole lines: from the one in which the range begins to the one in which it ends.
    pub fn delete_lines(text: &str, range: &Range<usize>) -> Self {
        let start = line_start(text, range.start);
        let end = line_end(text, range.end.max(range.start + 1) - 1);
        Self { range: start..end, text: String::new() }
    }
}

/// The text with all edits. Of edits that overlap the first stays, and one that comes twice (an entry that YAML's aliases
/// repeat is one text) is done once.
pub fn apply(text: &str, edits: &[Edit]) -> String {
    let mut sorted: Vec<&Edit> = edits.iter().collect();
    sorted.sort_by_key(|edit| (edit.range.start, edit.range.end));
    sorted.dedup();
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for edit in sorted {
        if edit.range.start < done {
            continue;
        }
        out.push_str(&text[done..edit.range.start]);
        out.push_str(&edit.text);
        done = edit.range.end;
    }
    out.push_str(&text[done..]);
    out
}

/// The first byte of the line of a byte.
pub(crate) fn line_start(text: &str, at: usize) -> usize {
    text[..text.floor_char_boundary(at)].rfind('\n').map_or(0, |newline| newline + 1)
}

/// The byte after the newline of the line of a byte.
pub(crate) fn line_end(text: &str, at: usize) -> usize {
    // The end that a parser tells of a value which the file breaks off in may lie beyond the text.
    let at = text.floor_char_boundary(at);
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

/// Whether the bytes are the value itself, on one line, in quotes or without: only then can they be replaced by another
/// value (a folded text, or one with escapes, cannot).
pub(crate) fn is_written_plainly(text: &str, range: &Range<usize>, value: &str) -> bool {
    let written = text.get(range.clone()).unwrap_or_default();
    let quoted = |quote: char| written.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) == Some(value);
    written == value || quoted('"') || quoted('\'')
}

/// Whether the value at a byte is an item of a block list and alone on its lines, so that deleting lines deletes it and
/// nothing else.
pub(crate) fn is_own_item(text: &str, range: &Range<usize>) -> bool {
    let before = text.get(line_start(text, range.start)..range.start);
    let after = text.get(range.end..line_end(text, range.end));
    let (Some(before), Some(after)) = (before, after.map(str::trim)) else { return false };
    let dashed = before.trim_start();
    dashed.starts_with('-') && dashed[1..].trim().is_empty() && (after.is_empty() || after.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_keep_what_they_do_not_touch() {
        let text = "a: 1 # one\nb: 2\nc: 3\n";
        let edits = [Edit::replace(3..4, "9"), Edit::delete_lines(text, &(11..15)), Edit::insert(16, "# three\n")];
        assert_eq!(apply(text, &edits), "a: 9 # one\n# three\nc: 3\n");
        assert!(is_own_item("- x # y\n", &(2..3)) && !is_own_item("[x]\n", &(1..2)));
    }
}
