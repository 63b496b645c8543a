//! YAML, as a stream of events: any number of documents, each an object or a list of objects.

use std::collections::HashMap;
use std::io::BufRead;
use std::marker::PhantomData;

use serde_saphyr::granit_parser::{ErrorKind, Event, Parser, ParserTrait, ScalarStyle, Span, StrInput};

use super::lines::Lines;
use super::tree::{Keep, MAX_DEPTH, MAX_NODES, Node};
use super::{Error, Reader, items, object, thin};

/// Reads to the end: lists item by item, whatever has another form as a stream.
pub(super) fn read<R: BufRead>(reader: &mut Reader<'_>, mut input: Lines<R>) -> Result<(), Error> {
    while items::read(reader, &mut input)? {}
    stream(reader, input)
}

/// Reads to the end as a stream, in whatever form YAML may have.
pub(super) fn stream<R: BufRead>(reader: &mut Reader<'_>, input: Lines<R>) -> Result<(), Error> {
    let first_line = input.line();
    let chars = Chars { input, buffer: Vec::new(), at: 0 };
    let options = serde_saphyr::granit_parser::options! { emit_comments: false };
    let parser = Parser::new_from_fallible_iter_with_options(chars, options);
    Walk::new(parser, reader, first_line).documents()
}

/// The items of a list, of which the text begins in a line. Several may stand there only where one has none of its own lines.
pub(super) fn read_items(reader: &mut Reader<'_>, text: &str, line: u64) -> Result<(), Error> {
    // What was left out may have been misjudged, and the places of mistakes are wrong in what is left: then it is read as it is.
    let thinned = thin::thin(text).and_then(|text| Walk::new(of_text(&text), reader, line).list().ok());
    let items = match thinned {
        Some(items) => items,
        None => Walk::new(of_text(text), reader, line).list()?,
    };
    items.iter().try_for_each(|item| object::read(reader, item)).map_err(|cause| reader.error(line, 0, cause))
}

/// The fields of a list without its items.
pub(super) fn read_frame(reader: &mut Reader<'_>, text: &str, line: u64) -> Result<(), Error> {
    Walk::new(of_text(text), reader, line).documents()
}

fn of_text(text: &str) -> Parser<'_, StrInput<'_>> {
    Parser::new_from_str_with_options(text, serde_saphyr::granit_parser::options! { emit_comments: false })
}

/// UTF-8 as characters.
struct Chars<R> {
    input: Lines<R>,
    buffer: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Chars<R> {
    #[cold]
    fn fill(&mut self) -> std::io::Result<bool> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let got = self.input.fill_buf()?;
        let amount = got.len();
        self.buffer.extend_from_slice(got);
        self.input.consume(amount);
        Ok(amount > 0)
    }

    /// The next character, where a whole one is in the buffer.
    #[inline]
    fn ready(&mut self) -> Option<Result<char, ErrorKind>> {
        let first = *self.buffer.get(self.at)?;
        if first < 0x80 {
            self.at += 1;
            return Some(Ok(char::from(first)));
        }
        let length = match first {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => return Some(Err(no_utf8())),
        };
        let bytes = self.buffer.get(self.at..self.at + length)?;
        self.at += length;
        Some(std::str::from_utf8(bytes).ok().and_then(|t| t.chars().next()).ok_or_else(no_utf8))
    }
}

impl<R: BufRead> Iterator for Chars<R> {
    type Item = Result<char, ErrorKind>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(ready) = self.ready() {
                return Some(ready);
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) if self.at == self.buffer.len() => return None,
                Ok(false) => return Some(Err(no_utf8())),
                Err(error) => return Some(Err(ErrorKind::InputDecoding { message: error.to_string() })),
            }
        }
    }
}

fn no_utf8() -> ErrorKind {
    ErrorKind::InputDecoding { message: "this is not UTF-8 text".to_owned() }
}

struct Walk<'r, 'i, 'e, P> {
    events: P,
    reader: &'r mut Reader<'i>,
    /// The line in which the text begins.
    first_line: u64,
    lifetime: PhantomData<&'e ()>,
    /// What aliases of this document stand for.
    anchors: HashMap<usize, Node>,
    /// Values of this object, and values behind anchors of this document: both are limited.
    nodes: usize,
    anchored: usize,
}

impl<'r, 'i, 'e, P: ParserTrait<'e>> Walk<'r, 'i, 'e, P> {
    fn new(events: P, reader: &'r mut Reader<'i>, first_line: u64) -> Self {
        let (anchors, lifetime) = (HashMap::new(), PhantomData);
        Self { events, reader, first_line, lifetime, anchors, nodes: 0, anchored: 0 }
    }

    fn next(&mut self) -> Result<(Event<'e>, Span), Error> {
        match self.events.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let marker = error.marker();
                let cause = format!("not valid YAML: {}", error.info());
                let line = self.first_line + marker.line().max(1) as u64 - 1;
                Err(self.reader.error(line, marker.col() as u64 + 1, cause))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn error(&self, span: &Span, cause: impl Into<String>) -> Error {
        let line = self.first_line + span.start.line().max(1) as u64 - 1;
        self.reader.error(line, span.start.col() as u64 + 1, cause)
    }

    fn documents(&mut self) -> Result<(), Error> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::StreamStart | Event::DocumentStart(..) => {
                    self.anchors.clear();
                    (self.nodes, self.anchored) = (0, 0);
                }
                Event::MappingStart(..) => self.value(&span)?,
                Event::SequenceStart(..) => {
                    self.items()?;
                    self.reader.name_items("", "");
                }
                Event::Scalar(text, style, ..) if !is_null(&text, style) => {
                    let cause = "this is no object: expected a mapping with apiVersion, kind and metadata";
                    return Err(self.error(&span, cause));
                }
                _ => {}
            }
        }
    }

    /// The mapping of a document.
    fn value(&mut self, start: &Span) -> Result<(), Error> {
        let mut entries = Vec::new();
        let mut is_list = false;
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key = self.key(event, &span)?;
            let (event, span) = self.next()?;
            if key == "items" {
                is_list = true;
                match event {
                    Event::SequenceStart(..) => self.items()?,
                    Event::Scalar(..) => {}
                    _ => return Err(self.error(&span, "`items` must be a list")),
                }
                continue;
            }
            self.entry(&mut entries, key, (event, span), 1, false)?;
        }
        let done = object::end_of_value(self.reader, &Node::Map(entries), is_list);
        done.map_err(|cause| self.error(start, cause))
    }

    /// The items of the text of a list.
    fn list(&mut self) -> Result<Vec<Node>, Error> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(items),
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::SequenceStart(..) => loop {
                    let next = self.next()?;
                    if matches!(next.0, Event::SequenceEnd) {
                        break;
                    }
                    self.nodes = 0;
                    items.push(self.node(next, 1, false)?);
                },
                _ => return Err(self.error(&span, "expected an item of the list")),
            }
        }
    }

    /// The items of a list, each read and forgotten.
    fn items(&mut self) -> Result<(), Error> {
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(());
            }
            self.nodes = 0;
            let item = self.node((event, span), 1, false)?;
            object::read(self.reader, &item).map_err(|cause| self.error(&span, cause))?;
        }
    }

    fn key(&mut self, event: Event<'e>, span: &Span) -> Result<String, Error> {
        match event {
            Event::Scalar(text, ..) => Ok(text.into_owned()),
            Event::Alias(_) => Ok(String::new()),
            _ => Err(self.error(span, "a key must be a plain word")),
        }
    }

    fn entry(
        &mut self,
        entries: &mut Vec<(Box<str>, Node)>,
        key: String,
        next: (Event<'e>, Span),
        depth: usize,
        scalars: bool,
    ) -> Result<(), Error> {
        match Keep::of(&key) {
            Keep::Skip => self.skip(&next.0),
            keep => {
                let node = self.node(next, depth + 1, scalars || keep.scalars())?;
                if key == "<<" {
                    let merged: &[Node] = if let Node::List(all) = &node { all } else { std::slice::from_ref(&node) };
                    for (key, value) in merged.iter().flat_map(Node::entries) {
                        if entries.iter().all(|(known, _)| known != key) {
                            entries.push((key.clone(), value.copy(&mut self.nodes)));
                        }
                    }
                } else if !node.is_nothing() {
                    // A key of the mapping itself counts for more than a merged one.
                    entries.retain(|(known, _)| **known != *key);
                    entries.push((key.into(), node));
                }
                Ok(())
            }
        }
    }

    fn node(&mut self, next: (Event<'e>, Span), depth: usize, scalars: bool) -> Result<Node, Error> {
        let (event, _) = next;
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            self.skip(&event)?;
            return Ok(Node::Nothing);
        }
        let anchor = match &event {
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(_, anchor, _) | Event::MappingStart(_, anchor, _) => {
                *anchor
            }
            _ => 0,
        };
        // Where an alias will stand is not known yet, so that an anchored scalar is kept whatever its key.
        let keep = scalars || anchor != 0;
        let node = match event {
            Event::Scalar(text, style, ..) if keep && !is_null(&text, style) => Node::Text(text.into()),
            Event::Alias(id) => match self.anchors.remove(&id) {
                Some(node) => {
                    let copy = node.copy(&mut self.nodes);
                    self.anchors.insert(id, node);
                    copy
                }
                None => Node::Nothing,
            },
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    let next = self.next()?;
                    if matches!(next.0, Event::SequenceEnd) {
                        break Node::List(items);
                    }
                    let item = self.node(next, depth + 1, keep)?;
                    if !item.is_nothing() {
                        items.push(item);
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut entries = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if matches!(event, Event::MappingEnd) {
                        break Node::Map(entries);
                    }
                    let key = self.key(event, &span)?;
                    let next = self.next()?;
                    self.entry(&mut entries, key, next, depth, keep)?;
                }
            }
            _ => Node::Nothing,
        };
        if anchor != 0 {
            let copy = node.copy(&mut self.anchored);
            if self.anchored <= MAX_NODES {
                self.anchors.insert(anchor, copy);
            }
            if !scalars && matches!(node, Node::Text(_)) {
                return Ok(Node::Nothing);
            }
        }
        Ok(node)
    }

    /// Passes over a value of which the first event was taken.
    fn skip(&mut self, first: &Event<'e>) -> Result<(), Error> {
        let mut open = usize::from(matches!(first, Event::SequenceStart(..) | Event::MappingStart(..)));
        while open > 0 {
            match self.next()?.0 {
                Event::SequenceStart(..) | Event::MappingStart(..) => open += 1,
                Event::SequenceEnd | Event::MappingEnd => open -= 1,
                Event::StreamEnd => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    }
}

fn is_null(text: &str, style: ScalarStyle) -> bool {
    style == ScalarStyle::Plain && matches!(text, "" | "~" | "null" | "Null" | "NULL")
}
