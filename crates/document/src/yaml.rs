//! YAML or JSON text to trees in which every value knows its place: line, column and bytes.
//!
//! serde's data model has no place for positions of *wrong* values and stops at the first error; a user wants all problems at
//! once, and a fix replaces bytes of the user's own file so that comments and order stay. So the events of the YAML parser are
//! made into a small tree; duplicate keys are found on the way, aliases and merge keys are resolved within a budget, and the
//! typed reading is done over the tree.

use std::collections::HashMap;
use std::ops::Range;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

/// What the texts of one format may be, and how their faults are called.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Most values of one text, counting each use of an alias.
    pub max_values: usize,
    /// Deepest nesting, aliases followed: a tree is walked by recursion.
    pub max_depth: usize,
    /// The code of what is not YAML.
    pub syntax: &'static str,
    /// The code of a key that occurs twice.
    pub duplicate_key: &'static str,
}

/// A place in a text. Lines and columns (in characters) count from 1; bytes from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// The line.
    pub line: u32,
    /// The first column.
    pub column: u32,
    /// How many characters of the line belong to it, at least 1.
    pub length: u32,
    /// The first byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it stands.
    pub mark: Mark,
    /// What it is.
    pub value: Value,
}

/// A value.
#[derive(Clone, Debug)]
pub enum Value {
    /// A text, a number, a boolean or nothing.
    Scalar {
        /// As it reads, without quotes.
        text: String,
        /// Written without quotes, so that its type follows from its looks.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug)]
pub struct Key {
    /// Where it stands.
    pub mark: Mark,
    /// As it reads.
    pub text: String,
}

/// What a plain scalar looks like, by the rules of YAML 1.1, which Kubernetes' tools go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// Nothing.
    Null,
    /// A truth value, in any of its spellings.
    Boolean(bool),
    /// A whole number, of any base.
    Integer,
    /// Another number.
    Float,
    /// None of these.
    Text,
}

/// What is wrong with the YAML as such.
#[derive(Clone, Debug)]
pub struct Fault {
    /// [`Format::syntax`] or [`Format::duplicate_key`].
    pub code: &'static str,
    /// Where.
    pub mark: Mark,
    /// What.
    pub message: String,
}

impl Mark {
    /// The bytes.
    pub fn range(&self) -> Range<usize> {
        self.start..self.end
    }
}

impl Node {
    /// Nothing written, or `null`.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if looks(text) == Looks::Null)
    }

    /// A scalar that is a text: not a number, a boolean or nothing, unless it is quoted.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, plain } if !*plain || looks(text) == Looks::Text => Some(text),
            _ => None,
        }
    }

    /// A scalar's text, whatever its type.
    pub fn as_scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The items of a sequence.
    pub fn as_list(&self) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The entries of a mapping.
    pub fn as_map(&self) -> Option<&[(Key, Node)]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a key, where this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.iter().find(|(k, _)| k.text == key).map(|(_, node)| node)
    }

    /// The value at the end of a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// What to call it in a message.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Map(_) => "a mapping",
            Value::List(_) => "a list",
            Value::Scalar { text, plain: true } => match looks(text) {
                Looks::Null => "nothing",
                Looks::Boolean(_) => "a boolean",
                Looks::Integer | Looks::Float => "a number",
                Looks::Text => "a string",
            },
            Value::Scalar { .. } => "a string",
        }
    }

    /// The last byte that belongs to it or to anything inside.
    pub fn last_byte(&self) -> usize {
        let inner = match &self.value {
            Value::Scalar { .. } => None,
            Value::List(items) => items.last().map(Node::last_byte),
            Value::Map(entries) => entries.iter().map(|(_, value)| value.last_byte()).max(),
        };
        inner.unwrap_or(0).max(self.mark.start.max(match self.value {
            Value::Scalar { .. } => self.mark.end,
            _ => self.mark.start,
        }))
    }
}

/// What a plain scalar looks like.
pub fn looks(text: &str) -> Looks {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Looks::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Looks::Boolean(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Looks::Boolean(false);
        }
        ".nan" | ".NaN" | ".NAN" | ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf"
        | "-.INF" => {
            return Looks::Float;
        }
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = |t: &str, radix: u32| {
        t.bytes().any(|b| b != b'_') && t.chars().all(|c| c == '_' || c.is_digit(radix)) && !t.starts_with('_')
    };
    let based = [("0x", 16), ("0o", 8), ("0b", 2)]
        .iter()
        .any(|(prefix, radix)| unsigned.strip_prefix(prefix).is_some_and(|rest| digits(rest, *radix)));
    if based || digits(unsigned, 10) {
        return Looks::Integer;
    }
    let begins = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let float = unsigned.replace('_', "");
    if begins && float.bytes().any(|b| b.is_ascii_digit()) && float.parse::<f64>().is_ok() {
        return Looks::Float;
    }
    Looks::Text
}

impl Format {
    /// The roots of all documents of a text, empty ones too. Duplicate keys are reported and the first value kept; anything else that is
    /// wrong with the YAML ends the reading, and the documents before it are returned.
    pub fn read(self, text: &str) -> (Vec<Node>, Vec<Fault>) {
        let options = serde_saphyr::granit_parser::options! { emit_comments: false };
        let mut builder = Builder {
            format: self,
            parser: Parser::new_from_str_with_options(text, options),
            faults: Vec::new(),
            anchors: HashMap::new(),
            values: 0,
        };
        let mut roots = Vec::new();
        if let Err(fault) = builder.documents(&mut roots) {
            builder.faults.push(fault);
        }
        (roots, builder.faults)
    }

    fn fault(self, mark: Mark, message: impl Into<String>) -> Fault {
        Fault { code: self.syntax, mark, message: message.into() }
    }

    fn limit_depth(self, depth: usize, mark: Mark) -> Result<(), Fault> {
        if depth <= self.max_depth {
            return Ok(());
        }
        Err(self.fault(mark, format!("nested more than {} levels deep", self.max_depth)))
    }

    /// `<<`: keys of the other mappings, where they are not set here; the first of several mappings wins.
    fn merge(self, entries: &mut Vec<(Key, Node)>, merged: Node) -> Result<(), Fault> {
        match merged.value {
            Value::Map(others) => {
                for (key, value) in others {
                    if !entries.iter().any(|(known, _)| known.text == key.text) {
                        entries.push((key, value));
                    }
                }
                Ok(())
            }
            Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Map(_))) => {
                items.into_iter().try_for_each(|item| self.merge(entries, item))
            }
            _ => Err(self.fault(merged.mark, "`<<` needs a mapping or a list of mappings")),
        }
    }

    fn scan_fault(self, error: &ScanError) -> Fault {
        let marker = error.marker();
        let start = marker.byte_offset().unwrap_or_default();
        let mark = Mark {
            line: number(marker.line()).max(1),
            column: number(marker.col()).saturating_add(1),
            length: 1,
            start,
            end: start,
        };
        self.fault(mark, format!("not valid YAML: {}", error.info()))
    }
}

struct Builder<'t> {
    format: Format,
    parser: Parser<'t, StrInput<'t>>,
    faults: Vec<Fault>,
    /// Anchored values, and of how many values each consists.
    anchors: HashMap<usize, (Node, usize)>,
    values: usize,
}

type Next<'t> = (Event<'t>, Span);

impl<'t> Builder<'t> {
    fn next(&mut self) -> Result<Next<'t>, Fault> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.format.scan_fault(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn documents(&mut self, roots: &mut Vec<Node>) -> Result<(), Fault> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) => self.anchors.clear(),
                event => {
                    let node = self.node(event, span, 0)?;
                    roots.push(node);
                }
            }
        }
    }

    fn count(&mut self, values: usize, mark: Mark) -> Result<(), Fault> {
        self.values = self.values.saturating_add(values);
        let most = self.format.max_values;
        if self.values <= most {
            return Ok(());
        }
        Err(self.format.fault(mark, format!("more than {most} values, aliases counted each time")))
    }

    /// One value, `depth` levels down.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Fault> {
        let mark = mark(&span);
        self.count(1, mark)?;
        self.format.limit_depth(depth, mark)?;
        let first = self.values;
        let (anchor, node) = match event {
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id) else {
                    return Err(self.format.fault(mark, "the alias refers to a value that it is part of"));
                };
                let (node, size) = (node.clone(), *size);
                self.format.limit_depth(depth + height(&node), mark)?;
                self.count(size, mark)?;
                (0, node)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = scalar_is_plain(style, tag.as_deref());
                (anchor, Node { mark, value: Value::Scalar { text: text.into_owned(), plain } })
            }
            Event::SequenceStart(_, anchor, _) => (anchor, Node { mark, value: Value::List(self.list(depth + 1)?) }),
            Event::MappingStart(_, anchor, _) => {
                let entries = self.map(depth + 1)?;
                // A block mapping begins where its first key does; the event itself has no extent.
                let mark =
                    entries.first().map_or(mark, |(key, _)| if key.mark.line == mark.line { key.mark } else { mark });
                (anchor, Node { mark, value: Value::Map(entries) })
            }
            _ => return Err(self.format.fault(mark, "unexpected end of the document")),
        };
        if anchor != 0 {
            let size = self.values - first + 1;
            self.count(size, mark)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Vec<(Key, Node)>, Fault> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        let mut known: HashMap<String, u32> = HashMap::new();
        let mut merges = Vec::new();
        loop {
            let key = match self.next()? {
                (Event::MappingEnd, _) => break,
                (event, span) => self.node(event, span, depth)?,
            };
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth)?;
            let Value::Scalar { text, plain } = key.value else {
                return Err(self.format.fault(key.mark, "a key must be a plain word"));
            };
            if plain && text == "<<" {
                merges.push(value);
                continue;
            }
            if let Some(line) = known.get(&text) {
                let message = format!("duplicate key `{text}`: it is already set in line {line}");
                self.faults.push(Fault { code: self.format.duplicate_key, mark: key.mark, message });
                continue;
            }
            known.insert(text.clone(), key.mark.line);
            entries.push((Key { mark: key.mark, text }, value));
        }
        for merged in merges {
            self.format.merge(&mut entries, merged)?;
        }
        Ok(entries)
    }
}

fn height(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { .. } => 0,
        Value::List(items) => items.iter().map(|item| height(item) + 1).max().unwrap_or(0),
        Value::Map(entries) => entries.iter().map(|(_, value)| height(value) + 1).max().unwrap_or(0),
    }
}

fn scalar_is_plain(style: ScalarStyle, tag: Option<&Tag>) -> bool {
    style == ScalarStyle::Plain && !tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"))
}

fn mark(span: &Span) -> Mark {
    let (start, end) = (span.start, span.end);
    let length = if end.line() == start.line() { end.col().saturating_sub(start.col()) } else { usize::MAX };
    let bytes = span.byte_range().unwrap_or_default();
    Mark {
        line: number(start.line()).max(1),
        column: number(start.col()).saturating_add(1),
        length: number(length).max(1),
        start: bytes.start,
        end: bytes.end,
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: Format = Format { max_values: 1_000, max_depth: 10, syntax: "syntax", duplicate_key: "twice" };

    fn read(text: &str) -> (Vec<Node>, Vec<Fault>) {
        FORMAT.read(text)
    }

    #[test]
    fn documents_and_places_are_kept() {
        let text = "a: 1\n---\n# note\n---\nb:\n- ümlaut: x\n  c: 'y'\n";
        let (roots, faults) = read(text);
        assert!(faults.is_empty());
        assert_eq!(roots.iter().map(Node::is_null).collect::<Vec<_>>(), [false, true, false]);
        let c = roots[2].get("b").and_then(Node::as_list).and_then(|l| l[0].get("c")).expect("c");
        assert_eq!((c.mark.line, c.mark.column, &text[c.mark.range()]), (7, 6, "'y'"));
    }

    #[test]
    fn types_are_those_of_yaml() {
        for (text, is_text) in
            [("abc", true), ("yes", false), ("1.5", false), ("1.5.0", true), ("~", false), ("\"1\"", true)]
        {
            let (roots, _) = read(&format!("[{text}]"));
            assert_eq!(roots[0].as_list().expect("list")[0].as_text().is_some(), is_text, "{text}");
        }
    }

    #[test]
    fn json_is_read_and_faults_have_places() {
        let (roots, faults) = read("{\n\t\"a\": [1, {\"b\": \"c\"}]\n}\n");
        assert!(faults.is_empty() && roots[0].get("a").is_some());
        let (_, faults) = read("a: b\nc: [1\n");
        assert_eq!(faults[0].code, "syntax");
        let (_, faults) = read("a: 1\na: 2\n");
        assert_eq!((faults[0].code, faults[0].mark.line), ("twice", 2));
    }

    #[test]
    fn a_text_beyond_the_limits_is_refused() {
        let (_, faults) = read(&format!("a: [{}]", "x, ".repeat(1_000)));
        assert_eq!((faults[0].code, faults[0].message.contains("more than 1000 values")), ("syntax", true));
        let (_, faults) = read(&("[".repeat(12) + &"]".repeat(12)));
        assert!(faults[0].message.contains("more than 10 levels"), "{}", faults[0].message);
    }
}
