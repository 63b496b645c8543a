//! Lists in YAML, cut into their items by lines, as clients print them: `items:` and the dashes of its items at the beginning of a
//! line. Each item is then parsed for itself, from a text in memory and without what cannot matter ([`super::thin`]), several times
//! faster than the stream as a whole. Whatever has another form is left to the stream.

use std::io::{BufRead, Read};

use super::lines::Lines;
use super::{Error, Reader, yaml};

/// Largest item, in bytes. What a cluster keeps ends at some 1.5 MB.
const MAX_ITEM_BYTES: usize = 32 << 20;

/// Most bytes before and behind the items of a list.
const MAX_FRAME_BYTES: usize = 64 * 1024;

/// Longest line, in bytes.
const MAX_LINE_BYTES: u64 = MAX_ITEM_BYTES as u64;

/// Reads a list if the stream begins with one, and leaves what comes behind it in the stream. `false`: it does not, and nothing
/// was taken.
pub(super) fn read<R: BufRead>(reader: &mut Reader<'_>, input: &mut Lines<R>) -> Result<bool, Error> {
    let first_line = input.line();
    let mut frame = String::new();
    let Some(mut line) = begin(reader, input, &mut frame)? else {
        input.give_back(frame.as_bytes(), first_line);
        return Ok(false);
    };
    let mut item = String::new();
    let mut start = input.line() - 1;
    loop {
        // `line` begins an item.
        item.clear();
        item.push_str(&line);
        let more = loop {
            line.clear();
            if !next(reader, input, &mut line)? {
                break false;
            }
            if !line.starts_with([' ', '#', '\n', '\r']) {
                break true;
            }
            item.push_str(&line);
            if item.len() > MAX_ITEM_BYTES {
                let cause = format!("an item of the list is larger than {MAX_ITEM_BYTES} bytes");
                return Err(reader.error(start, 0, cause));
            }
        };
        yaml::read_items(reader, &item, start)?;
        start = input.line() - 1;
        if !more {
            break;
        }
        if !is_item(&line) {
            // Behind the items: the rest of the list's own fields, to the end of the document.
            while !line.starts_with("---") && !line.starts_with("...") {
                frame.push_str(&line);
                if frame.len() > MAX_FRAME_BYTES {
                    return Err(reader.error(start, 0, "a list has too much behind its items"));
                }
                line.clear();
                if !next(reader, input, &mut line)? {
                    break;
                }
            }
            input.give_back(line.as_bytes(), input.line() - u64::from(!line.is_empty()));
            break;
        }
    }
    yaml::read_frame(reader, &frame, first_line)?;
    Ok(true)
}

/// Everything up to the first item, whose line comes back; `None` where the stream is of another form, with what was taken in
/// `frame`.
fn begin<R: BufRead>(reader: &Reader<'_>, input: &mut Lines<R>, frame: &mut String) -> Result<Option<String>, Error> {
    let mut line = String::new();
    let mut items = false;
    loop {
        line.clear();
        if !next(reader, input, &mut line)? {
            return Ok(None);
        }
        if items {
            if is_item(&line) {
                // Where the items were, nothing: the frame is a mapping of its own.
                return Ok(Some(line));
            }
            frame.push_str(&line);
            return Ok(None);
        }
        frame.push_str(&line);
        let text = line.trim_end();
        items = text == "items:";
        // A second document, or a line that says something about others, is not what a list begins with.
        let plain =
            text.is_empty() || text.starts_with('#') || text == "---" || text.contains(": ") || text.ends_with(':');
        if !plain || text.contains(['&', '*', '|', '>']) || frame.len() > MAX_FRAME_BYTES {
            return Ok(None);
        }
    }
}

fn is_item(line: &str) -> bool {
    line.starts_with("- ") || line.trim_end() == "-"
}

/// The next line with its end. `false`: there is none.
fn next<R: BufRead>(reader: &Reader<'_>, input: &mut Lines<R>, line: &mut String) -> Result<bool, Error> {
    let number = input.line();
    match input.by_ref().take(MAX_LINE_BYTES).read_line(line) {
        Ok(0) => Ok(false),
        Ok(got) if got as u64 == MAX_LINE_BYTES => {
            Err(reader.error(number, 0, format!("the line is longer than {MAX_LINE_BYTES} bytes")))
        }
        Ok(_) => Ok(true),
        Err(error) => Err(reader.error(number, 0, error.to_string())),
    }
}
