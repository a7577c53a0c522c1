//! Values during an evaluation: JSON read where it lies, and what was made of it.
//!
//! Lists and maps are shared, so a value costs what it is made of once. What
//! visits a value in depth (comparing, putting out) pays for each visit.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use super::limits::{RESULT_BYTES_MAX, RESULT_DEPTH_MAX, STEP_BYTES, STEPS_MAX};
use super::scope::EvaluationError;

/// What is left of [`STEPS_MAX`].
pub(super) struct Fuel(u64);

impl Fuel {
    pub(super) fn full() -> Self {
        Self(STEPS_MAX)
    }

    pub(super) fn step(&mut self) -> Result<(), EvaluationError> {
        self.spend(1)
    }

    /// Pays for reading or writing `bytes`.
    pub(super) fn bytes(&mut self, bytes: usize) -> Result<(), EvaluationError> {
        self.spend((bytes / STEP_BYTES) as u64)
    }

    pub(super) fn items(&mut self, count: usize) -> Result<(), EvaluationError> {
        self.spend(count as u64)
    }

    fn spend(&mut self, steps: u64) -> Result<(), EvaluationError> {
        self.0 = self.0.checked_sub(steps).ok_or(EvaluationError::TooManySteps)?;
        Ok(())
    }
}

#[derive(Clone)]
pub(super) enum Datum<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'a>),
    List(Rc<Vec<Datum<'a>>>),
    JsonList(&'a [Value]),
    Map(Rc<BTreeMap<Key<'a>, Datum<'a>>>),
    JsonMap(&'a serde_json::Map<String, Value>),
}

#[derive(Clone)]
pub(super) enum Text<'a> {
    Borrowed(&'a str),
    Owned(Rc<str>),
}

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }
}

/// A key of a map literal. Numbers that are equal are one key, so every
/// whole number is held as the widest integer.
#[derive(Clone)]
pub(super) enum Key<'a> {
    Bool(bool),
    Number(i128),
    Text(Text<'a>),
}

impl Key<'_> {
    fn rank(&self) -> (u8, i128, &str) {
        match self {
            Self::Bool(value) => (0, i128::from(*value), ""),
            Self::Number(value) => (1, *value, ""),
            Self::Text(text) => (2, 0, text.as_str()),
        }
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Key<'_> {}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl std::fmt::Display for Key<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool(value) => write!(formatter, "{value}"),
            Self::Number(value) => write!(formatter, "{value}"),
            Self::Text(text) => formatter.write_str(text.as_str()),
        }
    }
}

impl<'a> Datum<'a> {
    pub(super) fn text(text: String) -> Self {
        Self::Text(Text::Owned(text.into()))
    }

    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Self::Int(number),
                (None, Some(number)) => Self::Uint(number),
                (None, None) => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Self::Text(Text::Borrowed(text)),
            Value::Array(items) => Self::JsonList(items),
            Value::Object(entries) => Self::JsonMap(entries),
        }
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::List(_) | Self::JsonList(_) => "list",
            Self::Map(_) | Self::JsonMap(_) => "map",
        }
    }

    /// The value as a key; `None` for what cannot be one.
    pub(super) fn key(&self) -> Option<Key<'a>> {
        match self {
            Self::Bool(value) => Some(Key::Bool(*value)),
            Self::Int(value) => Some(Key::Number(i128::from(*value))),
            Self::Uint(value) => Some(Key::Number(i128::from(*value))),
            // A double that is a whole number finds that number's entry.
            #[expect(clippy::cast_possible_truncation, reason = "whole and within 64 bits")]
            Self::Double(value) if value.fract() == 0.0 && value.abs() < 1e18 => {
                Some(Key::Number(*value as i128))
            }
            Self::Text(text) => Some(Key::Text(text.clone())),
            Self::Double(_)
            | Self::Null
            | Self::List(_)
            | Self::JsonList(_)
            | Self::Map(_)
            | Self::JsonMap(_) => None,
        }
    }

    /// The entry under `key`; `None` when it is missing or this is no map.
    pub(super) fn entry(&self, key: &Key<'a>) -> Option<Self> {
        match (self, key) {
            (Self::Map(entries), key) => entries.get(key).cloned(),
            (Self::JsonMap(entries), Key::Text(text)) => entries.get(text.as_str()).map(Self::of),
            _ => None,
        }
    }

    pub(super) fn field(&self, field: &'a str) -> Option<Self> {
        self.entry(&Key::Text(Text::Borrowed(field)))
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self, Self::Map(_) | Self::JsonMap(_))
    }

    /// Number of items of a list or entries of a map; `None` for the rest.
    pub(super) fn length(&self) -> Option<usize> {
        match self {
            Self::List(items) => Some(items.len()),
            Self::JsonList(items) => Some(items.len()),
            Self::Map(entries) => Some(entries.len()),
            Self::JsonMap(entries) => Some(entries.len()),
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Uint(_)
            | Self::Double(_)
            | Self::Text(_) => None,
        }
    }

    /// The item at `index` of a list.
    pub(super) fn item(&self, index: usize) -> Option<Self> {
        match self {
            Self::List(items) => items.get(index).cloned(),
            Self::JsonList(items) => items.get(index).map(Self::of),
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Uint(_)
            | Self::Double(_)
            | Self::Text(_)
            | Self::Map(_)
            | Self::JsonMap(_) => None,
        }
    }

    /// What a fold visits: the items of a list or the keys of a map, in one
    /// fixed order.
    pub(super) fn range(&self, fuel: &mut Fuel) -> Result<Option<Vec<Self>>, EvaluationError> {
        let Some(length) = self.length() else { return Ok(None) };
        fuel.items(length)?;
        Ok(Some(if let Self::Map(entries) = self {
            entries.keys().map(Self::of_key).collect()
        } else if let Self::JsonMap(entries) = self {
            entries.keys().map(|key| Self::Text(Text::Borrowed(key))).collect()
        } else {
            (0..length).filter_map(|index| self.item(index)).collect()
        }))
    }

    fn of_key(key: &Key<'a>) -> Self {
        match key {
            Key::Bool(value) => Self::Bool(*value),
            Key::Number(number) => match i64::try_from(*number) {
                Ok(number) => Self::Int(number),
                Err(_) => Self::Uint(u64::try_from(*number).unwrap_or(u64::MAX)),
            },
            Key::Text(text) => Self::Text(text.clone()),
        }
    }

    /// The value as JSON.
    pub(super) fn to_json(&self, fuel: &mut Fuel) -> Result<Value, EvaluationError> {
        let mut room = RESULT_BYTES_MAX;
        self.put_out(fuel, &mut room, RESULT_DEPTH_MAX)
    }

    fn put_out(
        &self,
        fuel: &mut Fuel,
        room: &mut usize,
        depth: usize,
    ) -> Result<Value, EvaluationError> {
        fuel.step()?;
        let depth = depth.checked_sub(1).ok_or(EvaluationError::ResultTooDeep)?;
        // Two bytes are the least that a value and what separates it take.
        take(room, 2)?;
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(number) => Value::from(*number),
            Self::Uint(number) => Value::from(*number),
            Self::Double(number) => Value::Number(
                serde_json::Number::from_f64(*number).ok_or(EvaluationError::NotJson)?,
            ),
            Self::Text(text) => {
                fuel.bytes(text.as_str().len())?;
                take(room, text.as_str().len())?;
                Value::String(text.as_str().to_owned())
            }
            Self::List(items) => Value::Array(
                items
                    .iter()
                    .map(|item| item.put_out(fuel, room, depth))
                    .collect::<Result<_, _>>()?,
            ),
            Self::JsonList(items) => Value::Array(
                items
                    .iter()
                    .map(|item| Self::of(item).put_out(fuel, room, depth))
                    .collect::<Result<_, _>>()?,
            ),
            Self::Map(entries) => {
                let mut object = serde_json::Map::new();
                for (key, value) in entries.iter() {
                    let key = key.to_string();
                    fuel.bytes(key.len())?;
                    take(room, key.len())?;
                    let value = value.put_out(fuel, room, depth)?;
                    // `{1: 'a', '1': 'b'}` has two keys here and one in JSON.
                    if object.contains_key(&key) {
                        return Err(EvaluationError::RepeatedKey(key));
                    }
                    object.insert(key, value);
                }
                Value::Object(object)
            }
            Self::JsonMap(entries) => {
                let mut object = serde_json::Map::new();
                for (key, value) in *entries {
                    fuel.bytes(key.len())?;
                    take(room, key.len())?;
                    object.insert(key.clone(), Self::of(value).put_out(fuel, room, depth)?);
                }
                Value::Object(object)
            }
        })
    }
}

fn take(room: &mut usize, bytes: usize) -> Result<(), EvaluationError> {
    *room = room.checked_sub(bytes).ok_or(EvaluationError::ResultTooLarge)?;
    Ok(())
}
