//! JSON text kept as text.
//!
//! Variables, node outputs and event data travel through the engine far more
//! often than they are looked into, so they stay compact text and are parsed
//! where an expression needs them.

mod told;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use told::told;

/// How much of a key an error shows, in characters.
const KEY_CHARACTERS_SHOWN: usize = 80;

/// One JSON value as compact text, cheap to clone.
///
/// The text was checked when the value was made, so [`Json::parse`] does not
/// fail for values made by this engine; bytes that come from a stream are
/// checked when they are decoded.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Arc<str>);

impl Json {
    /// The JSON value `null`.
    #[must_use]
    pub fn null() -> Self {
        Self(Arc::from("null"))
    }

    /// Renders `value` as compact text.
    #[must_use]
    pub fn from_value(value: &serde_json::Value) -> Self {
        Self(Arc::from(value.to_string()))
    }

    /// Takes over `text` after checking that it is one JSON value.
    ///
    /// # Errors
    ///
    /// The parser's error when `text` is not JSON.
    pub fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        let raw: &serde_json::value::RawValue = serde_json::from_str(text)?;
        Ok(Self(Arc::from(raw.get())))
    }

    /// Parses the text; `null` when it is no JSON, which a checked value never is.
    #[must_use]
    pub fn parse(&self) -> serde_json::Value {
        serde_json::from_str(&self.0).unwrap_or(serde_json::Value::Null)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the value is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        &*self.0 == "null"
    }
}

/// Checks that no object in `text` has a key twice: a parser takes the last, a reader the first.
///
/// # Errors
///
/// The parser's error when `text` is not JSON, or one that names the key; with line and column, which is
/// behind the key.
pub fn check_unique_keys(text: &str) -> Result<(), serde_json::Error> {
    serde_json::from_str::<UniqueKeys>(text).map(|UniqueKeys| ())
}

/// The error that names a key that an object in `text` has twice; nothing where none has, or where something
/// else is wrong with `text`.
#[must_use]
pub fn key_twice(text: &str) -> Option<serde_json::Error> {
    check_unique_keys(text).err().filter(serde_json::Error::is_data)
}

/// Any value whose objects have each key once.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while let Some(Self) = items.next_element()? {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            if keys.contains(&key) {
                let key = key.chars().take(KEY_CHARACTERS_SHOWN).collect::<String>();
                return Err(A::Error::custom(format!("`{key}` is there twice")));
            }
            keys.insert(key);
            let Self = members.next_value()?;
        }
        Ok(self)
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::null()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_text(&text).map_err(serde::de::Error::custom)
    }
}
