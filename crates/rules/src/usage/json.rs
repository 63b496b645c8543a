//! JSON, as a stream: any number of values one after the other, each an object, a list of objects, or an array of objects.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, Read};

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::lines::{Lines, breaks};
use super::tree::{Keep, MAX_DEPTH, MAX_NODES, Node};
use super::{Error, Reader, object};

/// Reads to the end.
pub(super) fn read<R: BufRead>(reader: &mut Reader<'_>, mut input: Lines<R>) -> Result<(), Error> {
    let mut buffered = Bytes { input: &mut input, buffer: Vec::new(), at: 0 };
    loop {
        let first = buffered.first().map_err(|e| reader.error(0, 0, e.to_string()))?;
        if first.is_none() {
            return Ok(());
        }
        let line = buffered.line();
        let mut json = serde_json::Deserializer::from_reader(&mut buffered);
        if let Err(error) = (Top { reader }).deserialize(&mut json) {
            let (at, column) = (line + (error.line() as u64).saturating_sub(1), error.column() as u64);
            let mut cause = error.to_string();
            if let Some(end) = cause.rfind(" at line ") {
                cause.truncate(end);
            }
            return Err(reader.error(at, column, format!("not valid JSON: {cause}")));
        }
    }
}

/// serde_json asks for single bytes; here they come from a buffer of our own without a call into the source for each.
struct Bytes<'r, R> {
    input: &'r mut Lines<R>,
    buffer: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Bytes<'_, R> {
    /// The next byte that is no blank.
    fn first(&mut self) -> io::Result<Option<u8>> {
        loop {
            while let Some(byte) = self.buffer.get(self.at) {
                if !byte.is_ascii_whitespace() {
                    return Ok(Some(*byte));
                }
                self.at += 1;
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// The line of the next byte.
    fn line(&self) -> u64 {
        self.input.line() - breaks(&self.buffer[self.at..])
    }

    #[cold]
    fn fill(&mut self) -> io::Result<bool> {
        let got = self.input.fill_buf()?;
        self.buffer.clear();
        self.buffer.extend_from_slice(got);
        self.at = 0;
        let amount = self.buffer.len();
        self.input.consume(amount);
        Ok(amount > 0)
    }
}

impl<R: BufRead> Read for Bytes<'_, R> {
    #[inline]
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.buffer.len() && !self.fill()? {
            return Ok(0);
        }
        if let [one] = out {
            *one = self.buffer[self.at];
            self.at += 1;
            return Ok(1);
        }
        let amount = out.len().min(self.buffer.len() - self.at);
        out[..amount].copy_from_slice(&self.buffer[self.at..self.at + amount]);
        self.at += amount;
        Ok(amount)
    }
}

/// A whole value of the stream.
struct Top<'r, 'i> {
    reader: &'r mut Reader<'i>,
}

/// The items of a list, each read and forgotten.
struct Items<'r, 'i> {
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
        while let Some(key) = map.next_key::<Box<str>>()? {
            if &*key == "items" {
                is_list = true;
                map.next_value_seed(Items { reader: &mut *self.reader })?;
                continue;
            }
            match Keep::of(&key) {
                Keep::Skip => drop(map.next_value::<IgnoredAny>()?),
                keep => {
                    let node = map.next_value_seed(Cut { scalars: keep.scalars(), depth: 1, nodes: &nodes })?;
                    if !node.is_nothing() {
                        entries.push((key, node));
                    }
                }
            }
        }
        object::end_of_value(self.reader, &Node::Map(entries), is_list).map_err(serde::de::Error::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        Items { reader: &mut *self.reader }.visit_seq(seq)?;
        self.reader.name_items("", "");
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Items<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let nodes = Cell::new(0);
        while let Some(item) = seq.next_element_seed(Cut { scalars: false, depth: 1, nodes: &nodes })? {
            object::read(self.reader, &item).map_err(serde::de::Error::custom)?;
            nodes.set(0);
        }
        Ok(())
    }

    /// `"items": null` is what an empty list looks like to some servers.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
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
        while let Some(key) = map.next_key::<Box<str>>()? {
            match Keep::of(&key) {
                Keep::Skip => drop(map.next_value::<IgnoredAny>()?),
                keep => {
                    let scalars = self.scalars || keep.scalars();
                    let node = map.next_value_seed(Cut { scalars, depth: self.depth + 1, nodes: self.nodes })?;
                    if !node.is_nothing() {
                        entries.push((key, node));
                    }
                }
            }
        }
        Ok(Node::Map(entries))
    }
}
