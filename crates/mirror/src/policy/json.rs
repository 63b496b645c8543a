//! JSON objects, read more strictly than serde does by itself.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A value that must be written as an object. serde also takes a list of the values of its fields, in their order, which no other reader
/// of these files would.
pub(super) struct Object<T>(pub T);

/// An object of which no key occurs twice.
pub(super) struct Unique<T>(pub BTreeMap<String, T>);

/// An object with the fields of `W` that is then checked to be a `T`.
struct ObjectVisitor<W, T>(PhantomData<(W, T)>);

struct UniqueVisitor<T>(PhantomData<T>);

/// Reads an object with the fields of `W` and makes a `T` of it. What `T` finds wrong gets the object's line, since it is said while the
/// object is being read.
pub(super) fn object_as<'de, W, T, D>(deserializer: D) -> Result<T, D::Error>
where
    W: Deserialize<'de>,
    T: TryFrom<W, Error: fmt::Display>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_map(ObjectVisitor::<W, T>(PhantomData))
}

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object_as::<T, T, D>(deserializer).map(Object)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Unique<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

impl<'de, W: Deserialize<'de>, T: TryFrom<W, Error: fmt::Display>> Visitor<'de> for ObjectVisitor<W, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::try_from(W::deserialize(MapAccessDeserializer::new(map))?).map_err(de::Error::custom)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for UniqueVisitor<T> {
    type Value = Unique<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<T>, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            if entries.contains_key(&key) {
                return Err(de::Error::custom(format!("`{key}` occurs twice")));
            }
            // serde_json finds the line again at the end of the text.
            let value = map.next_value().map_err(|e| de::Error::custom(format!("`{key}`: {e}")))?;
            entries.insert(key, value);
        }
        Ok(Unique(entries))
    }
}
