//! The documents of a file, one after another: concatenated JSON, or YAML with `---` between.
//!
//! As `opm` does it: a file whose first character is `{` is JSON, anything else YAML, whatever its name. Only one document is in memory.

use std::io::{BufRead, BufReader, Read};

use airlock_oci::Error;

use crate::layers::broken;

/// The largest document that is read (bytes): Red Hat's largest bundles have a few megabytes.
pub const MAX_DOCUMENT_BYTES: usize = 32 * 1024 * 1024;
const BUFFER_BYTES: usize = 64 * 1024;

/// A document, and the line where it begins.
pub(super) struct Document<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) line: u64,
    pub(super) yaml: bool,
}

/// Why a file could not be taken apart.
pub(super) enum Fault {
    /// What is wrong, and in which line.
    Syntax { line: u64, cause: String },
    /// Reading failed, or whoever takes the documents did.
    Other(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

struct Input<'a> {
    reader: BufReader<&'a mut dyn Read>,
    line: u64,
}

/// Hands every document to `take`.
pub(super) fn documents(
    content: &mut dyn Read,
    take: &mut dyn FnMut(Document<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut input = Input { reader: BufReader::with_capacity(BUFFER_BYTES, content), line: 1 };
    let mut blank = Vec::new();
    match input.blank(&mut blank)? {
        None => Ok(()),
        Some(b'{') => json(&mut input, take),
        Some(_) => yaml(&mut input, blank, take),
    }
}

impl Input<'_> {
    fn fill(&mut self) -> Result<&[u8], Fault> {
        self.reader.fill_buf().map_err(|e| Fault::Other(broken(e, "read a file of a catalog")))
    }

    /// Takes white space, and says what comes next. What was taken of the last line is given back, since YAML goes by indentation.
    fn blank(&mut self, taken: &mut Vec<u8>) -> Result<Option<u8>, Fault> {
        loop {
            let buffer = self.fill()?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let end = buffer.iter().position(|b| !b.is_ascii_whitespace());
            let blank = &buffer[..end.unwrap_or(buffer.len())];
            let next = end.map(|at| buffer[at]);
            let (lines, used) = (count_lines(blank), blank.len());
            match blank.iter().rposition(|b| *b == b'\n') {
                Some(at) => {
                    taken.clear();
                    taken.extend_from_slice(&blank[at + 1..]);
                }
                None => taken.extend_from_slice(blank),
            }
            if taken.len() > MAX_DOCUMENT_BYTES {
                return Err(too_large(self.line));
            }
            self.line += lines;
            self.reader.consume(used);
            if next.is_some() {
                return Ok(next);
            }
        }
    }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.split(|b| *b == b'\n').count() as u64 - 1
}

fn too_large(line: u64) -> Fault {
    Fault::Syntax { line, cause: format!("the document that begins here has more than {MAX_DOCUMENT_BYTES} bytes") }
}

fn json(input: &mut Input<'_>, take: &mut dyn FnMut(Document<'_>) -> Result<(), Fault>) -> Result<(), Fault> {
    let (mut document, mut blank) = (Vec::new(), Vec::new());
    loop {
        match input.blank(&mut blank)? {
            None => return Ok(()),
            Some(b'{') => {
                let line = input.line;
                object(input, &mut document)?;
                take(Document { bytes: &document, line, yaml: false })?;
                document.clear();
            }
            // Between JSON documents as between YAML ones.
            Some(b'-') => separator(input)?,
            Some(other) => {
                let cause = format!("expected `{{`, the beginning of a document, and found `{}`", other.escape_ascii());
                return Err(Fault::Syntax { line: input.line, cause });
            }
        }
    }
}

fn separator(input: &mut Input<'_>) -> Result<(), Fault> {
    for _ in 0..3 {
        if input.fill()?.first() != Some(&b'-') {
            let cause = "expected a document or `---`".to_owned();
            return Err(Fault::Syntax { line: input.line, cause });
        }
        input.reader.consume(1);
    }
    Ok(())
}

/// One JSON object, from its `{` to its `}`: only strings and braces are understood here.
fn object(input: &mut Input<'_>, document: &mut Vec<u8>) -> Result<(), Fault> {
    let begun = input.line;
    let (mut depth, mut string, mut escaped) = (0_u64, false, false);
    loop {
        let buffer = input.fill()?;
        if buffer.is_empty() {
            let cause = "the file ends within the document that begins here".to_owned();
            return Err(Fault::Syntax { line: begun, cause });
        }
        let mut end = None;
        for (at, byte) in buffer.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if string => escaped = true,
                b'"' => string = !string,
                b'{' if !string => depth += 1,
                b'}' if !string => {
                    depth -= 1;
                    if depth == 0 {
                        end = Some(at + 1);
                        break;
                    }
                }
                _ => {}
            }
        }
        let used = end.unwrap_or(buffer.len());
        if document.len() + used > MAX_DOCUMENT_BYTES {
            return Err(too_large(begun));
        }
        document.extend_from_slice(&buffer[..used]);
        let lines = count_lines(&buffer[..used]);
        input.line += lines;
        input.reader.consume(used);
        if end.is_some() {
            return Ok(());
        }
    }
}

fn yaml(
    input: &mut Input<'_>,
    mut document: Vec<u8>,
    take: &mut dyn FnMut(Document<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut begun = input.line;
    let mut line = std::mem::take(&mut document);
    loop {
        // One byte more than allowed, so that going over is seen.
        let most = (MAX_DOCUMENT_BYTES + 1).saturating_sub(line.len()) as u64;
        (&mut input.reader)
            .take(most)
            .read_until(b'\n', &mut line)
            .map_err(|e| Fault::Other(broken(e, "read a file of a catalog")))?;
        let ended = line.is_empty();
        let marker = line.strip_prefix(b"---").is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace));
        if ended || marker {
            if !document.iter().all(u8::is_ascii_whitespace) {
                take(Document { bytes: &document, line: begun, yaml: true })?;
            }
            if ended {
                return Ok(());
            }
            document.clear();
            begun = input.line;
        }
        if document.len() + line.len() > MAX_DOCUMENT_BYTES {
            return Err(too_large(begun));
        }
        document.extend_from_slice(&line);
        input.line += count_lines(&line);
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Result<Vec<(u64, String)>, (u64, String)> {
        let mut found = Vec::new();
        let result = documents(&mut text.as_bytes(), &mut |d| {
            found.push((d.line, String::from_utf8(d.bytes.to_vec()).unwrap()));
            Ok(())
        });
        match result {
            Ok(()) => Ok(found),
            Err(Fault::Syntax { line, cause }) => Err((line, cause)),
            Err(Fault::Other(error)) => panic!("{error}"),
        }
    }

    fn own(list: &[(u64, &str)]) -> Vec<(u64, String)> {
        list.iter().map(|(line, text)| (*line, (*text).to_owned())).collect()
    }

    #[test]
    fn json_documents_follow_one_another_with_or_without_anything_between() {
        assert_eq!(split("").unwrap(), []);
        assert_eq!(split(" \n\n").unwrap(), []);
        assert_eq!(split("{}{\"a\":{}}\n\n---\n{\n}").unwrap(), own(&[(1, "{}"), (1, "{\"a\":{}}"), (4, "{\n}")]));
        let tricky = r#"{"a":"}{\"\\","b":["{"]}"#;
        assert_eq!(split(&format!("\n {tricky} ")).unwrap(), own(&[(2, tricky)]));
    }

    #[test]
    fn broken_json_names_the_line() {
        assert_eq!(split("{}\n{\n\"a\":{}").unwrap_err().0, 2);
        assert_eq!(split("{}\n\n]").unwrap_err().0, 3);
        assert_eq!(split("{}\n--{}").unwrap_err().0, 2);
    }

    #[test]
    fn yaml_documents_are_told_by_their_markers() {
        let text = "---\na: 1\n--- # second\nb: |\n  ---\n  x\n---\n---\nc: ----\n";
        let want = [(1, "---\na: 1\n"), (3, "--- # second\nb: |\n  ---\n  x\n"), (7, "---\n"), (8, "---\nc: ----\n")];
        assert_eq!(split(text).unwrap(), own(&want));
        assert_eq!(split("\n\n  a: 1\n  b: 2").unwrap(), own(&[(3, "  a: 1\n  b: 2")]));
    }
}
