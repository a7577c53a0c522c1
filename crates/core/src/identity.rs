//! Names and ids: tenants, partitions, runs, positions, time.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::digest::hash_parts;

/// Longest tenant name in bytes; a tenant is one token of a NATS subject.
pub const TENANT_BYTES_MAX: usize = 64;

/// Who owns an event, a run, a record: one token of ASCII letters, digits,
/// `-` and `_`, 1 to [`TENANT_BYTES_MAX`] bytes, the first a letter or digit
/// (names that begin with `_` are the engine's own).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Tenant(Arc<str>);

/// Text that is no tenant name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "`{0}` is not a tenant name; use 1 to 64 ASCII letters, digits, `-` and `_`, the first a letter or digit"
)]
pub struct NotATenant(pub String);

impl Tenant {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `text` can be the name of a tenant.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
            && text.len() <= TENANT_BYTES_MAX
            && text.bytes().all(allowed)
    }
}

impl FromStr for Tenant {
    type Err = NotATenant;

    fn from_str(name: &str) -> Result<Self, NotATenant> {
        if !Self::is_name(name) {
            return Err(NotATenant(name.chars().take(80).collect()));
        }
        Ok(Self(Arc::from(name)))
    }
}

impl Borrow<str> for Tenant {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Tenant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl serde::de::Visitor<'_> for Name {
            type Value = Tenant;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a tenant name")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Tenant, E> {
                name.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// A partition: one journal, one writer at a time.
///
/// Data partitions count from 0; [`PartitionId::CONTROL`] holds definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u16);

impl PartitionId {
    /// The partition whose journal is the truth about definitions.
    pub const CONTROL: Self = Self(u16::MAX);

    /// The data partition that owns `parts`, of `count` in all.
    #[must_use]
    pub fn of(parts: &[&[u8]], count: u16) -> Self {
        let hash = hash_parts(parts);
        let [a, b, c, d, ..] = hash;
        let count = u32::from(count.max(1));
        // The remainder is below a u16, so the conversion keeps its value.
        Self(u16::try_from(u32::from_be_bytes([a, b, c, d]) % count).unwrap_or(0))
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CONTROL => formatter.write_str("control"),
            Self(number) => write!(formatter, "{number}"),
        }
    }
}

/// Text that is no partition.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{0}` is not a partition; expected a number or `control`")]
pub struct NotAPartition(String);

impl FromStr for PartitionId {
    type Err = NotAPartition;

    fn from_str(text: &str) -> Result<Self, NotAPartition> {
        if text == "control" {
            return Ok(Self::CONTROL);
        }
        text.parse().map(Self).map_err(|_| NotAPartition(text.chars().take(80).collect()))
    }
}

/// A run: a UUID of version 8 (RFC 9562, section 5.8).
///
/// Its first 16 bits are the partition that owns the run, the rest is a hash
/// of what started it, so deciding the same command twice names the same run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// The run that `strategy` starts for the event `key` of `tenant` that stood
    /// at `source`; `replay` tells authorised replays of the same event apart.
    ///
    /// The position is part of it because a key may start work again once its
    /// window has passed: that is another run, with other effect keys.
    #[must_use]
    pub fn new(
        partition: PartitionId,
        tenant: &Tenant,
        key: u128,
        source: SourcePosition,
        strategy: &str,
        replay: Option<Uuid>,
    ) -> Self {
        let replay = replay.map(|replay| *replay.as_bytes());
        let hash = hash_parts(&[
            b"run",
            tenant.as_str().as_bytes(),
            &key.to_be_bytes(),
            &source.sequence.to_be_bytes(),
            &source.index.to_be_bytes(),
            strategy.as_bytes(),
            replay.as_ref().map_or(&[], |bytes| bytes.as_slice()),
        ]);
        let mut bytes = [0_u8; 16];
        let prefix = partition.0.to_be_bytes();
        for (byte, value) in bytes.iter_mut().zip(prefix.iter().chain(hash.iter())) {
            *byte = *value;
        }
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The partition that owns the run.
    #[must_use]
    pub fn partition(self) -> PartitionId {
        let [high, low, ..] = *self.0.as_bytes();
        PartitionId(u16::from_be_bytes([high, low]))
    }

    /// The id as a UUID.
    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, formatter)
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// Where a message stands in a stream, with what tells a stream that was cut
/// and written again from the one that we read before.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct StreamPosition {
    /// The stream sequence; 0 stands before the first message.
    pub sequence: u64,
    /// The broker's timestamp of that message, nanoseconds since 1970.
    pub broker_time_ns: i64,
}

/// Where a business event stood: the message in EVENTS and its place in the
/// message's batch. The same position twice is a redelivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourcePosition {
    /// Sequence in the EVENTS stream.
    pub sequence: u64,
    /// Place in the batch, from 0.
    pub index: u32,
}

impl fmt::Display for SourcePosition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.sequence, self.index)
    }
}

/// Milliseconds since 1970 as set by the owner of a journal; never falls
/// within one journal.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct JournalTime(pub u64);

impl JournalTime {
    /// The time `ms` milliseconds later, at most the largest there is.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_names_its_partition_and_is_a_uuid_of_version_8() {
        let tenant: Tenant = "acme".parse().unwrap();
        let source = SourcePosition { sequence: 9, index: 0 };
        let id = RunId::new(PartitionId(5), &tenant, 42, source, "report", None);
        let later = SourcePosition { sequence: 10, index: 0 };

        assert_eq!(id.partition(), PartitionId(5));
        assert_eq!(id.as_uuid().get_version_num(), 8);
        assert_eq!(id, RunId::new(PartitionId(5), &tenant, 42, source, "report", None));
        assert_ne!(id, RunId::new(PartitionId(5), &tenant, 42, later, "report", None));
        assert_ne!(
            id,
            RunId::new(PartitionId(5), &tenant, 42, source, "report", Some(Uuid::nil()))
        );
    }

    #[test]
    fn a_tenant_is_one_subject_token() {
        for refused in ["", "a.b", "a b", "*", ">", "ü", "_a", &"x".repeat(65)] {
            assert!(refused.parse::<Tenant>().is_err(), "{refused}");
        }
        assert!("acme-2_X".parse::<Tenant>().is_ok());
    }
}
