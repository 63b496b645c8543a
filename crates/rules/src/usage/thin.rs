//! An item of a list in YAML without the lines that cannot matter.
//!
//! A YAML parser reads some 30 MB in a second, and of a pod nine lines in ten are environment, mounts, probes and states. They are left
//! out line by line, by the same table of keys that decides what is kept ([`Keep`]), which ten times as fast a loop can do. Only
//! what clients print is understood; anything that cannot be told from one line (a quoted text over several lines, an anchor, a flow
//! collection over several) makes it say `None`, and the item is parsed as it is.

use super::tree::Keep;

/// What happens to the lines that lie deeper than a column.
#[derive(Clone, Copy)]
enum Below {
    /// They are left out.
    Drop(Inner),
    /// They are taken as they are.
    Take(Inner),
}

/// The lines that belong to a key.
#[derive(Clone, Copy)]
struct Inner {
    /// The key's column.
    column: usize,
    /// A list may stand in the key's own column.
    list: bool,
}

impl Inner {
    fn has(self, indent: usize, rest: &str) -> bool {
        indent > self.column || (self.list && indent == self.column && is_item(rest))
    }
}

/// The item without what cannot matter; `None` where that cannot be said line by line.
pub(super) fn thin(item: &str) -> Option<String> {
    let mut out = String::with_capacity(item.len() / 4);
    let mut below: Option<Below> = None;
    for line in item.split_inclusive('\n') {
        let rest = line.trim_start_matches(' ');
        let indent = line.len() - rest.len();
        let rest = rest.trim_end();
        if rest.is_empty() {
            // Within a text that is taken an empty line is part of it.
            if matches!(below, Some(Below::Take(_))) {
                out.push_str(line);
            }
            continue;
        }
        match below {
            Some(Below::Drop(inner)) if inner.has(indent, rest) || rest.starts_with('#') => continue,
            Some(Below::Take(inner)) if inner.has(indent, rest) => {
                out.push_str(line);
                continue;
            }
            _ => below = None,
        }
        if rest.starts_with('#') {
            continue;
        }
        let (column, rest) = after_dashes(indent, rest);
        let dashed = column != indent;
        let Some((key, value)) = key_and_value(rest)? else {
            // An item of a list, or a text that goes on.
            if !is_whole(rest) {
                return None;
            }
            out.push_str(line);
            continue;
        };
        let keep = Keep::of(key);
        let inner = |list| Inner { column, list };
        let block = value.starts_with(['|', '>']);
        if value.is_empty() {
            out.push_str(line);
            below = match keep {
                Keep::Skip => Some(Below::Drop(inner(true))),
                Keep::All => Some(Below::Take(inner(true))),
                Keep::Shape => None,
            };
        } else if !block && !is_whole(value) {
            return None;
        } else if dashed || keep == Keep::All || value.starts_with(['{', '[']) {
            out.push_str(line);
            // A text goes on in what lies deeper; after anything else nothing does.
            below = Some(Below::Take(inner(false))).filter(|_| !dashed || block);
        } else {
            below = Some(Below::Drop(inner(false)));
        }
    }
    Some(out)
}

fn is_item(rest: &str) -> bool {
    rest.starts_with("- ") || rest == "-"
}

/// Behind the dashes of list items: the column, and what stands there.
fn after_dashes(indent: usize, rest: &str) -> (usize, &str) {
    let (mut column, mut rest) = (indent, rest);
    while let Some(after) = rest.strip_prefix("- ") {
        let next = after.trim_start_matches(' ');
        column += rest.len() - next.len();
        rest = next;
    }
    (column, rest)
}

/// `Some(None)`: the line has no key. `None`: it cannot be told.
#[expect(clippy::option_option, reason = "three answers, of which one is to give up")]
fn key_and_value(rest: &str) -> Option<Option<(&str, &str)>> {
    let (key, after) = match rest.chars().next()? {
        quote @ ('"' | '\'') => {
            let (key, after) = rest[1..].split_once(quote)?;
            if key.contains('\\') {
                return None;
            }
            match after.strip_prefix(':') {
                Some(after) => (key, after),
                None => return Some(None),
            }
        }
        '{' | '[' | '?' | '&' | '*' | '!' | '%' | '@' | '`' | '|' | '>' | ',' | ']' | '}' => return None,
        _ => match rest.split_once(": ") {
            Some((key, after)) => (key, after),
            None => match rest.strip_suffix(':') {
                Some(key) => (key, ""),
                None => return Some(None),
            },
        },
    };
    let value = after.trim();
    // A merge key, an anchor, an alias, a tag, a comment: what they do to other lines cannot be seen here.
    if key == "<<" || key.contains(" #") || value.starts_with(['&', '*', '!', '#', '@', '`', '%']) {
        return None;
    }
    Some(Some((key, value)))
}

/// Whether a value ends in its line, as far as quotes and brackets say.
fn is_whole(value: &str) -> bool {
    match value.as_bytes()[0] {
        b'\'' => {
            value.len() > 1 && value.ends_with('\'') && value[1..value.len() - 1].replace("''", "").find('\'').is_none()
        }
        b'"' => {
            let mut escaped = false;
            let end = value.bytes().enumerate().skip(1).find(|(_, byte)| {
                let quote = *byte == b'"' && !escaped;
                escaped = *byte == b'\\' && !escaped;
                quote
            });
            end.is_some_and(|(at, _)| at + 1 == value.len())
        }
        b'{' | b'[' => matches!(value, "{}" | "[]"),
        _ => true,
    }
}
