//! A list: one reference a line, `#` begins a comment, `docker://` may stand before, and of `source=destination` the source counts.

use std::io::{BufRead, Read};

use super::lines::Lines;
use super::{Error, MAX_IMAGE_BYTES, Place, Reader, Role};

/// Longest line, in bytes: a source and a destination.
const MAX_LINE_BYTES: u64 = 4 * MAX_IMAGE_BYTES as u64;

/// Whether the beginning of a source is a list. YAML has a line with a blank in it, or with a colon at its end; references have
/// neither.
pub(super) fn looks_like_one(head: &[u8], whole: bool) -> bool {
    let complete = match head.iter().rposition(|b| *b == b'\n') {
        Some(end) if !whole => &head[..end],
        _ => head,
    };
    let text = String::from_utf8_lossy(complete);
    let mut lines = text.lines().map(content).filter(|line| !line.is_empty()).peekable();
    lines.peek().is_some()
        && lines.all(|line| !line.contains(char::is_whitespace) && !line.ends_with(':') && !line.starts_with("---"))
}

/// What a line says, without comment and blanks.
fn content(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with('#') {
        return "";
    }
    line.split_once(" #").map_or(line, |(before, _)| before.trim_end())
}

/// Reads to the end.
pub(super) fn read<R: BufRead>(reader: &mut Reader<'_>, mut input: Lines<R>) -> Result<(), Error> {
    let kind = reader.images.symbol("");
    let mut line = Vec::new();
    loop {
        let number = input.line();
        line.clear();
        let got = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
        match got.map_err(|e| reader.error(number, 0, e.to_string()))? {
            0 => return Ok(()),
            got if got as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') => {
                let cause = format!("the line is longer than {MAX_LINE_BYTES} bytes: this is no list of images");
                return Err(reader.error(number, 0, cause));
            }
            _ => {}
        }
        let text = String::from_utf8_lossy(&line);
        let source = content(&text).split('=').next().unwrap_or_default();
        let source = source.strip_prefix("docker://").unwrap_or(source);
        if source.is_empty() {
            continue;
        }
        let added = reader.images.add(source, Role::Listed, kind, reader.source, Place::default());
        added.map_err(|cause| reader.error(number, 0, cause))?;
    }
}
