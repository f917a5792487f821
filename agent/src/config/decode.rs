//! From the tree into types, each error with its place and its path.

use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::Fault;
use super::tree::{Entry, Node, Position, Value, boolean};

/// # Errors
/// The first key that is not known, or value that does not fit.
pub(super) fn decode<T: serde::de::DeserializeOwned>(node: &Node) -> Result<T, Fault> {
    T::deserialize(node).map_err(|error| {
        let position = error.position.as_ref().unwrap_or(&node.position);
        Fault::at(position, &error.path.join("."), error.message)
    })
}

/// What went wrong, and once it is known, where.
#[derive(Debug)]
pub(super) struct DecodeError {
    message: String,
    position: Option<Position>,
    path: Vec<String>,
}

impl DecodeError {
    fn at(mut self, position: &Position) -> Self {
        self.position.get_or_insert_with(|| position.clone());
        self
    }

    fn within(mut self, key: &str) -> Self {
        self.path.insert(0, key.to_owned());
        self
    }
}

impl serde::de::Error for DecodeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), position: None, path: Vec::new() }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let meant = nearest(variant, expected.iter().copied());
        let meant = meant.map(|it| format!("; did you mean {it}?")).unwrap_or_default();
        Self::custom(format!("one of {} belongs here{meant}", expected.join(", ")))
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}

/// What is said of a key that nobody knows.
pub(super) fn not_known<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    match nearest(key, known) {
        Some(near) => format!("not known; did you mean {near}?"),
        None => "not known; `hithe config schema` lists what is".to_owned(),
    }
}

fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let key = key.to_ascii_lowercase().replace('-', "_");
    let scored = known.map(|it| (strsim::jaro_winkler(&key, it), it));
    scored.filter(|(score, _)| *score > 0.8).max_by(|a, b| a.0.total_cmp(&b.0)).map(|it| it.1)
}

impl<'de> Node {
    fn scalar(&'de self, belongs: &str) -> Result<&'de str, DecodeError> {
        match &self.value {
            Value::Text(text) => Ok(text),
            _ => {
                let message = format!("{belongs} belongs here, not {}", self.kind());
                Err(DecodeError::custom(message).at(&self.position))
            }
        }
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(_) => self.deserialize_seq(visitor),
            Value::Map(_) => self.deserialize_map(visitor),
        }
        .map_err(|error| error.at(&self.position))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let message = "true or false belongs here";
        let value = boolean(self.scalar("true or false")?);
        let value = value.ok_or_else(|| DecodeError::custom(message).at(&self.position))?;
        visitor.visit_bool(value)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let number = self.scalar("a number")?.replace('_', "").parse();
        let number =
            number.map_err(|_| DecodeError::custom("a whole number belongs here").at(&self.position))?;
        visitor.visit_i64(number).map_err(|error: DecodeError| error.at(&self.position))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let text = self.scalar("a text")?;
        visitor.visit_borrowed_str(text).map_err(|error: DecodeError| error.at(&self.position))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.is_null() {
            return visitor.visit_none();
        }
        visitor.visit_some(self).map_err(|error| error.at(&self.position))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self).map_err(|error| error.at(&self.position))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(Elements(self.list().iter()))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let map = match &self.value {
            Value::Map(map) => map.as_slice(),
            Value::Null => &[],
            _ => {
                let message = self.no_map(false);
                return Err(DecodeError::custom(message).at(&self.position));
            }
        };
        visitor.visit_map(Entries { rest: map.iter(), entry: None })
    }

    /// Where the known keys are known too.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let entries = if let Value::Map(map) = &self.value { map.as_slice() } else { &[] };
        if let Some(entry) = entries.iter().find(|entry| !fields.contains(&entry.key.as_str())) {
            let message = not_known(&entry.key, fields.iter().copied());
            return Err(DecodeError::custom(message).at(&entry.position).within(&entry.key));
        }
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let text = self.scalar(&format!("one of {}", variants.join(", ")))?;
        let text: StrDeserializer<'_, DecodeError> = text.into_deserializer();
        visitor.visit_enum(text).map_err(|error| error.at(&self.position))
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}

struct Elements<'de>(std::slice::Iter<'de, Node>);

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        self.0.next().map(|node| seed.deserialize(node)).transpose()
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, Entry>,
    entry: Option<&'de Entry>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        // What has no value says nothing.
        self.entry = self.rest.find(|entry| !entry.node.is_null());
        let Some(entry) = self.entry else { return Ok(None) };
        seed.deserialize(BorrowedStrDeserializer::new(&entry.key)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, DecodeError> {
        let entry = self.entry.take().ok_or_else(|| DecodeError::custom("a value without its key"))?;
        seed.deserialize(&entry.node).map_err(|error| error.at(&entry.node.position).within(&entry.key))
    }
}
