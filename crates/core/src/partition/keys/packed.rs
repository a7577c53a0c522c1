//! Keys as they stand in a snapshot: the keys of an hour as one string of bytes.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{FrozenKeys, KeyWindow};
use crate::identity::SourcePosition;

/// The value of a key as bytes.
pub trait Pack: Copy + Ord {
    /// How many bytes a value takes.
    const BYTES: usize;

    /// Adds the value.
    fn pack(self, bytes: &mut Vec<u8>);

    /// Reads a value of [`Self::BYTES`] bytes.
    fn unpack(bytes: &[u8]) -> Option<Self>;
}

impl Pack for () {
    const BYTES: usize = 0;

    fn pack(self, _: &mut Vec<u8>) {}

    fn unpack(_: &[u8]) -> Option<Self> {
        Some(())
    }
}

impl Pack for SourcePosition {
    const BYTES: usize = 12;

    fn pack(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.index.to_be_bytes());
    }

    fn unpack(bytes: &[u8]) -> Option<Self> {
        let (sequence, index) = bytes.split_first_chunk()?;
        let sequence = u64::from_be_bytes(*sequence);
        Some(Self { sequence, index: u32::from_be_bytes(*index.first_chunk()?) })
    }
}

/// Bytes of a key.
const KEY_BYTES: usize = 16;

/// The keys that came in one hour, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound = "V: Pack")]
pub(in crate::partition) struct KeyHour<V> {
    /// Hours of journal time since 1970.
    hour: u64,
    keys: Packed<V>,
}

impl<V> KeyHour<V> {
    pub(in crate::partition) fn new(hour: u64, keys: Packed<V>) -> Self {
        Self { hour, keys }
    }

    pub(in crate::partition) fn hour(&self) -> u64 {
        self.hour
    }

    pub(in crate::partition) fn into_keys(self) -> Packed<V> {
        self.keys
    }
}

/// Keys with their values, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::partition) struct Packed<V>(Vec<(u128, V)>);

impl<V> Default for Packed<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Packed<V> {
    pub(in crate::partition) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<V: Pack> Serialize for Packed<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(self.0.len() * (KEY_BYTES + V::BYTES));
        for (key, value) in &self.0 {
            bytes.extend(key.to_be_bytes());
            value.pack(&mut bytes);
        }
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de, V: Pack> Deserialize<'de> for Packed<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(Unpack(PhantomData))
    }
}

struct Unpack<V>(PhantomData<V>);

impl<V: Pack> Visitor<'_> for Unpack<V> {
    type Value = Packed<V>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "keys of {} bytes each", KEY_BYTES + V::BYTES)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Packed<V>, E> {
        let keys = bytes.chunks(KEY_BYTES + V::BYTES).map(|entry| {
            let (key, value) = entry.split_first_chunk()?;
            let value = V::unpack(value).filter(|_| entry.len() == KEY_BYTES + V::BYTES)?;
            Some((u128::from_be_bytes(*key), value))
        });
        let keys = keys.collect::<Option<Vec<_>>>();
        keys.map(Packed).ok_or_else(|| E::invalid_length(bytes.len(), &self))
    }
}

impl<V: Pack> FrozenKeys<V> {
    /// The hours that have keys, oldest first.
    pub(in crate::partition) fn hours(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|chunk| chunk.hour)
    }

    /// The keys of the hours that are `wanted`, by the hour, oldest first.
    pub(in crate::partition) fn of_hours(&self, wanted: impl Fn(u64) -> bool) -> Vec<KeyHour<V>> {
        let mut hours: Vec<KeyHour<V>> = Vec::new();
        for chunk in self.0.iter().filter(|chunk| wanted(chunk.hour)) {
            match hours.last_mut().filter(|last| last.hour == chunk.hour) {
                Some(last) => last.keys.0.extend_from_slice(&chunk.keys),
                None => {
                    let keys = Packed(chunk.keys.clone());
                    hours.push(KeyHour { hour: chunk.hour, keys });
                }
            }
        }
        hours
    }
}

impl<V: Pack> KeyWindow<V> {
    /// Keeps what a snapshot says was kept.
    pub(in crate::partition) fn restore(&mut self, hours: Vec<KeyHour<V>>) {
        for KeyHour { hour, keys } in hours {
            for (key, value) in keys.0 {
                if self.get(key).is_none() {
                    self.put(key, value, hour);
                }
            }
        }
    }
}
