//! JSON, as a stream: any number of values one after the other, each an object, a list of objects, or an array of objects.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead};

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::lines::Lines;
use super::tree::{Keep, MAX_DEPTH, MAX_NODES, Node};
use super::{Error, Reader, object};

/// Largest value that is taken into memory at once, in bytes: an item of a list, or an object. What a cluster keeps ends at some
/// 1.5 MB.
const MAX_VALUE_BYTES: usize = 64 << 20;

/// Reads to the end. The stream is cut into the items of its lists by looking at quotes and brackets only; each is then parsed from
/// memory, which serde_json does several times faster than from a stream.
pub(super) fn read<R: BufRead>(reader: &mut Reader<'_>, input: Lines<R>) -> Result<(), Error> {
    let mut cut = Cutter { reader, input };
    loop {
        match cut.peek()? {
            None => return Ok(()),
            Some(b'{') => cut.object()?,
            Some(b'[') => {
                cut.items()?;
                cut.reader.name_items("", "");
            }
            Some(_) => return Err(cut.error("expected an object or a list of objects")),
        }
    }
}

struct Cutter<'r, 'i, R> {
    reader: &'r mut Reader<'i>,
    input: Lines<R>,
}

impl<R: BufRead> Cutter<'_, '_, R> {
    fn error(&self, cause: &str) -> Error {
        self.reader.error(self.input.line(), 0, format!("not valid JSON: {cause}"))
    }

    fn failed(&self, error: &io::Error) -> Error {
        self.reader.error(self.input.line(), 0, error.to_string())
    }

    /// The next byte that is no blank, which stays in the stream.
    fn peek(&mut self) -> Result<Option<u8>, Error> {
        loop {
            let (found, blanks) = match self.input.fill_buf() {
                Ok([]) => return Ok(None),
                Ok(buffer) => match buffer.iter().position(|b| !b.is_ascii_whitespace()) {
                    Some(at) => (Some(buffer[at]), at),
                    None => (None, buffer.len()),
                },
                Err(error) => return Err(self.failed(&error)),
            };
            self.input.consume(blanks);
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    /// The next byte that is no blank must be one of these, and is taken.
    fn take(&mut self, expected: &[u8], what: &str) -> Result<u8, Error> {
        match self.peek()? {
            Some(byte) if expected.contains(&byte) => {
                self.input.consume(1);
                Ok(byte)
            }
            Some(_) => Err(self.error(&format!("expected {what}"))),
            None => Err(self.error("it ends too early")),
        }
    }

    /// An object; its `items` are read and forgotten, the rest of it is judged as a whole.
    fn object(&mut self) -> Result<(), Error> {
        self.take(b"{", "an object")?;
        let (mut frame, mut value) = (b"{".to_vec(), Vec::new());
        if self.peek()? == Some(b'}') {
            self.input.consume(1);
        } else {
            loop {
                if self.peek()? != Some(b'"') {
                    return Err(self.error("expected a key in double quotes"));
                }
                value.clear();
                let place = self.value(&mut value)?;
                let key: String = self.parse(&value, place, std::marker::PhantomData)?;
                self.take(b":", "`:`")?;
                if key == "items" && self.peek()? == Some(b'[') {
                    self.items()?;
                    frame.extend_from_slice(b"\"items\":[],");
                } else {
                    let key = std::mem::take(&mut value);
                    let place = self.value(&mut value)?;
                    self.parse(&value, place, std::marker::PhantomData::<IgnoredAny>)?;
                    if frame.len() + value.len() > MAX_VALUE_BYTES {
                        return Err(self.error("the object is too large"));
                    }
                    frame.extend_from_slice(&key);
                    frame.push(b':');
                    frame.extend_from_slice(&value);
                    frame.push(b',');
                }
                if self.take(b",}", "`,` or `}`")? == b'}' {
                    break;
                }
            }
            frame.pop();
        }
        frame.push(b'}');
        let line = self.input.line();
        let mut json = serde_json::Deserializer::from_slice(&frame);
        let top = Top { reader: &mut *self.reader }.deserialize(&mut json);
        top.map_err(|e| self.reader.error(line, 0, message(&e)))
    }

    fn items(&mut self) -> Result<(), Error> {
        self.take(b"[", "a list")?;
        if self.peek()? == Some(b']') {
            self.input.consume(1);
            return Ok(());
        }
        let (mut item, nodes) = (Vec::new(), Cell::new(0));
        loop {
            item.clear();
            nodes.set(0);
            let place = self.value(&mut item)?;
            let node = self.parse(&item, place, Cut { scalars: false, depth: 1, nodes: &nodes })?;
            object::read(self.reader, &node).map_err(|cause| self.reader.error(place, 0, cause))?;
            if self.take(b",]", "`,` or `]`")? == b']' {
                return Ok(());
            }
        }
    }

    fn parse<'t, S: DeserializeSeed<'t>>(&self, text: &'t [u8], line: u64, seed: S) -> Result<S::Value, Error> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let parsed = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
        parsed.map_err(|error| {
            let (row, column) = (error.line() as u64, error.column() as u64);
            // The column within the first line of a value is not that within the line of the file.
            let column = if row > 1 { column } else { 0 };
            self.reader.error(line + row.saturating_sub(1), column, format!("not valid JSON: {}", message(&error)))
        })
    }

    /// Takes the next value as it is, whatever it is, and gives its line. Only quotes and brackets are looked at.
    fn value(&mut self, out: &mut Vec<u8>) -> Result<u64, Error> {
        let Some(first) = self.peek()? else { return Err(self.error("it ends too early")) };
        let line = self.input.line();
        let scalar = !matches!(first, b'{' | b'[' | b'"');
        let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
        loop {
            let buffer = match self.input.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) => return Err(self.failed(&error)),
            };
            if buffer.is_empty() {
                return if scalar { Ok(line) } else { Err(self.error("it ends too early")) };
            }
            let (mut at, mut done) = (0, false);
            while at < buffer.len() && !done {
                if quoted {
                    if std::mem::take(&mut escaped) {
                        at += 1;
                        continue;
                    }
                    at += buffer[at..].iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(buffer.len() - at);
                    if let Some(byte) = buffer.get(at) {
                        at += 1;
                        escaped = *byte == b'\\';
                        quoted = escaped;
                        done = !quoted && depth == 0;
                    }
                    continue;
                }
                let byte = buffer[at];
                if scalar && (byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}' | b':')) {
                    done = true;
                    break;
                }
                at += 1;
                match byte {
                    b'"' => quoted = true,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth = depth.saturating_sub(1);
                        done = depth == 0;
                    }
                    _ => {}
                }
            }
            out.extend_from_slice(&buffer[..at]);
            self.input.consume(at);
            if done {
                return Ok(line);
            }
            if out.len() > MAX_VALUE_BYTES {
                return Err(self.error(&format!("a value is larger than {MAX_VALUE_BYTES} bytes")));
            }
        }
    }
}

/// serde_json's words without the place, which is told apart.
fn message(error: &serde_json::Error) -> String {
    let mut cause = error.to_string();
    if let Some(end) = cause.rfind(" at line ") {
        cause.truncate(end);
    }
    cause
}

/// A key, and what becomes of its value. Borrowed from the text where it stands there as it is.
struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = (Keep, Cow<'de, str>);

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for KeySeed {
    type Value = (Keep, Cow<'de, str>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok((Keep::of(key), Cow::Borrowed(key)))
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok((Keep::of(key), Cow::Owned(key.to_owned())))
    }
}

/// An object of the stream, without the items it has as a list.
struct Top<'r, 'i> {
    reader: &'r mut Reader<'i>,
}

/// One value, cut down.
struct Cut<'c> {
    scalars: bool,
    depth: usize,
    nodes: &'c Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Top<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Top<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let nodes = Cell::new(0);
        let mut entries = Vec::new();
        let mut is_list = false;
        while let Some((keep, key)) = map.next_key_seed(KeySeed)? {
            // The items themselves were read while the object was cut out.
            is_list |= key == "items";
            if keep == Keep::Skip || key == "items" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let node = map.next_value_seed(Cut { scalars: keep.scalars(), depth: 1, nodes: &nodes })?;
            if !node.is_nothing() {
                entries.push((key.into(), node));
            }
        }
        object::end_of_value(self.reader, &Node::Map(entries), is_list).map_err(serde::de::Error::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Cut<'_> {
    type Value = Node;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        let count = self.nodes.get() + 1;
        self.nodes.set(count);
        if count > MAX_NODES || self.depth > MAX_DEPTH {
            // An object of this size or depth has no images of ours in there.
            deserializer.deserialize_ignored_any(IgnoredAny)?;
            return Ok(Node::Nothing);
        }
        deserializer.deserialize_any(self)
    }
}

impl Cut<'_> {
    fn scalar(&self, text: impl FnOnce() -> Box<str>) -> Node {
        if self.scalars { Node::Text(text()) } else { Node::Nothing }
    }
}

impl<'de> Visitor<'de> for Cut<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(self.scalar(|| text.into()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(self.scalar(|| value.to_string().into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(self.scalar(|| value.to_string().into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(self.scalar(|| value.to_string().into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(self.scalar(|| value.to_string().into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        let inner = || Cut { scalars: self.scalars, depth: self.depth + 1, nodes: self.nodes };
        while let Some(item) = seq.next_element_seed(inner())? {
            if !item.is_nothing() {
                items.push(item);
            }
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some((keep, key)) = map.next_key_seed(KeySeed)? {
            if keep == Keep::Skip {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let scalars = self.scalars || keep.scalars();
            let node = map.next_value_seed(Cut { scalars, depth: self.depth + 1, nodes: self.nodes })?;
            if !node.is_nothing() {
                entries.push((key.into(), node));
            }
        }
        Ok(Node::Map(entries))
    }
}
