//! YAML text to a tree in which every value knows its line and column.
//!
//! serde's data model has no place for positions of *wrong* values and stops at the first error; a configuration wants all
//! its problems at once. So the events of the YAML parser are made into a small tree, duplicate keys are found on the
//! way, aliases and merge keys are resolved within a budget, and the typed reading is done over the tree.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::problem::code;

/// Most values of one file, counting each use of an alias: an image of a set takes about five.
const MAX_NODES: usize = 1_000_000;

/// Deepest nesting, aliases followed: the format needs ten, and a tree is walked by recursion.
const MAX_DEPTH: usize = 64;

/// A place in the text. Lines and columns (in characters) count from 1.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    pub(super) line: u32,
    pub(super) column: u32,
    pub(super) length: u32,
}

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) mark: Mark,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// `plain`: written without quotes, so that its type follows from its looks.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) mark: Mark,
    pub(super) text: String,
}

/// What is wrong with the YAML as such.
pub(super) struct Fault {
    pub(super) code: &'static str,
    pub(super) mark: Mark,
    pub(super) message: String,
}

/// What a plain scalar looks like, by the rules of YAML 1.1, which Kubernetes' tools go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    Null,
    Boolean(bool),
    Integer,
    Float,
    Text,
}

impl Node {
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if looks(text) == Looks::Null)
    }
}

pub(super) fn looks(text: &str) -> Looks {
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

/// The root of the only document. Duplicate keys are reported and the first value kept; anything else that is wrong with
/// the YAML ends the reading, and there is no root.
pub(super) fn read(text: &str) -> (Option<Node>, Vec<Fault>) {
    let options = serde_saphyr::granit_parser::options! { emit_comments: false };
    let mut builder = Builder::new(text, options);
    let root = builder.document();
    let mut faults = builder.faults;
    match root {
        Ok(node) => (Some(node), faults),
        Err(fault) => {
            faults.push(fault);
            (None, faults)
        }
    }
}

struct Builder<'t> {
    parser: Parser<'t, StrInput<'t>>,
    faults: Vec<Fault>,
    /// Anchored values, and of how many values each consists.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

type Next<'t> = (Event<'t>, Span);

impl<'t> Builder<'t> {
    fn new(text: &'t str, options: Options) -> Self {
        let parser = Parser::new_from_str_with_options(text, options);
        Self { parser, faults: Vec::new(), anchors: HashMap::new(), nodes: 0 }
    }

    fn next(&mut self) -> Result<Next<'t>, Fault> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(scan_fault(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(&mut self) -> Result<Node, Fault> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => {
                    let node = self.node(event, span, 0)?;
                    if root.is_none() {
                        root = Some(node);
                    } else if !node.is_null() {
                        let message = "more than one document: a configuration is one YAML document".to_owned();
                        return Err(Fault { code: code::DOCUMENTS, mark: node.mark, message });
                    }
                }
            }
        }
        root.filter(|root| !root.is_null()).ok_or_else(|| Fault {
            code: code::DOCUMENTS,
            mark: Mark { line: 1, column: 1, length: 1 },
            message: "the file is empty".to_owned(),
        })
    }

    fn count(&mut self, nodes: usize, mark: Mark) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MAX_NODES {
            return Ok(());
        }
        let message = format!("more than {MAX_NODES} values, aliases counted each time");
        Err(Fault { code: code::SYNTAX, mark, message })
    }

    /// One value, `depth` levels down.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Fault> {
        let mark = mark(&span);
        self.count(1, mark)?;
        limit_depth(depth, mark)?;
        let first = self.nodes;
        let (anchor, node) = match event {
            Event::Alias(id) => {
                let Some((node, size)) = self.anchors.get(&id) else {
                    let message = "the alias refers to a value that it is part of".to_owned();
                    return Err(Fault { code: code::SYNTAX, mark, message });
                };
                let (node, size) = (node.clone(), *size);
                limit_depth(depth + height(&node), mark)?;
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
            _ => {
                let message = "unexpected end of the document".to_owned();
                return Err(Fault { code: code::SYNTAX, mark, message });
            }
        };
        if anchor != 0 {
            let size = self.nodes - first + 1;
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
                let message = "a key must be a plain word".to_owned();
                return Err(Fault { code: code::SYNTAX, mark: key.mark, message });
            };
            if plain && text == "<<" {
                merges.push(value);
                continue;
            }
            if let Some(line) = known.get(&text) {
                let message = format!("duplicate key `{text}`: it is already set in line {line}");
                self.faults.push(Fault { code: code::DUPLICATE_KEY, mark: key.mark, message });
                continue;
            }
            known.insert(text.clone(), key.mark.line);
            entries.push((Key { mark: key.mark, text }, value));
        }
        for merged in merges {
            merge(&mut entries, merged)?;
        }
        Ok(entries)
    }
}

fn limit_depth(depth: usize, mark: Mark) -> Result<(), Fault> {
    if depth <= MAX_DEPTH {
        return Ok(());
    }
    Err(Fault { code: code::SYNTAX, mark, message: format!("nested more than {MAX_DEPTH} levels deep") })
}

fn height(node: &Node) -> usize {
    match &node.value {
        Value::Scalar { .. } => 0,
        Value::List(items) => items.iter().map(|item| height(item) + 1).max().unwrap_or(0),
        Value::Map(entries) => entries.iter().map(|(_, value)| height(value) + 1).max().unwrap_or(0),
    }
}

/// `<<`: keys of the other mappings, where they are not set here; the first of several mappings wins.
fn merge(entries: &mut Vec<(Key, Node)>, merged: Node) -> Result<(), Fault> {
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
            items.into_iter().try_for_each(|item| merge(entries, item))
        }
        _ => {
            let message = "`<<` needs a mapping or a list of mappings".to_owned();
            Err(Fault { code: code::SYNTAX, mark: merged.mark, message })
        }
    }
}

fn scalar_is_plain(style: ScalarStyle, tag: Option<&Tag>) -> bool {
    style == ScalarStyle::Plain && !tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"))
}

fn mark(span: &Span) -> Mark {
    let (start, end) = (span.start, span.end);
    let length = if end.line() == start.line() { end.col().saturating_sub(start.col()) } else { usize::MAX };
    Mark {
        line: number(start.line()).max(1),
        column: number(start.col()).saturating_add(1),
        length: number(length).max(1),
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn scan_fault(error: &ScanError) -> Fault {
    let marker = error.marker();
    let mark = Mark { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1), length: 1 };
    Fault { code: code::SYNTAX, mark, message: format!("not valid YAML: {}", error.info()) }
}
