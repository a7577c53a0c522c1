//! Files of closed hours: keys that a snapshot names instead of holding them.
//!
//! A file is named by its hour and by the digest of its body, so it never
//! changes, and whoever writes it again, also an owner that was paused, writes
//! what is there. A snapshot names each with its digest and counts, and is worth
//! something only with all of them.

use std::collections::BTreeMap;

use fermata_core::digest::Digest;
use fermata_core::identity::PartitionId;
use fermata_core::partition::{ClosedHour, FrozenPartition};
use fermata_wire::WireError;
use fermata_wire::envelope::write_named;
use fermata_wire::sealed_file::{FileKind, open_named, read_body, seal};
use serde::{Deserialize, Serialize};

use crate::snapshot::SnapshotError;

/// Kind and version of the file.
pub const KEY_HOUR: FileKind = FileKind { name: "key-hour", version: 1 };

/// What a snapshot says of an hour whose keys stand in a file of their own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HourName {
    /// Hours of journal time since 1970.
    pub hour: u64,
    /// SHA-256 of the file's body.
    pub digest: Digest,
    /// Keys of events in it.
    pub keys: u64,
    /// Ids of commands in it.
    pub commands: u64,
}

impl HourName {
    /// The name of its object among those of its partition; names are in the
    /// order of hours.
    #[must_use]
    pub fn object(&self) -> String {
        format!("{:010}-{}", self.hour, self.digest)
    }

    /// The hour that an object was named for.
    #[must_use]
    pub fn hour_of(object: &str) -> Option<u64> {
        object.split_once('-')?.0.parse().ok()
    }
}

/// A closed hour as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HourFile {
    /// What it is named.
    pub name: HourName,
    /// What is stored.
    pub bytes: Vec<u8>,
}

/// Names the closed hours of `partition`, and writes those that are not among `stored`.
pub(crate) fn write_hours(
    partition: &FrozenPartition,
    stored: &[HourName],
) -> Result<(Vec<HourName>, Vec<HourFile>), WireError> {
    let (mut names, mut files) = (Vec::new(), Vec::new());
    for hour in partition.closed_hours() {
        let name = stored.iter().find(|name| name.hour == hour);
        names.push(match name {
            Some(name) => name.clone(),
            None => {
                let file = write_hour(&partition.closed_hour(hour))?;
                let name = file.name.clone();
                files.push(file);
                name
            }
        });
    }
    Ok((names, files))
}

fn write_hour(closed: &ClosedHour) -> Result<HourFile, WireError> {
    let mut digest = Digest([0; 32]);
    let bytes = seal(KEY_HOUR, |bytes| {
        let begin = bytes.len();
        write_named(bytes, closed)?;
        digest = Digest::of(bytes.get(begin..).unwrap_or_default());
        Ok(())
    })?;
    let (keys, commands) = (closed.keys() as u64, closed.commands() as u64);
    Ok(HourFile { name: HourName { hour: closed.hour, digest, keys, commands }, bytes })
}

/// Reads the hours that `names` names from their files.
pub(crate) fn read_hours(
    partition: PartitionId,
    names: &[HourName],
    files: &BTreeMap<HourName, impl AsRef<[u8]>>,
) -> Result<Vec<ClosedHour>, SnapshotError> {
    let read = |name: &HourName| {
        let hour = name.hour;
        let file = files.get(name).ok_or(SnapshotError::HourMissing { hour })?;
        let damaged = |source| SnapshotError::Hour { hour, source };
        let body = open_named(KEY_HOUR, &name.digest, file.as_ref()).map_err(damaged)?;
        let closed: ClosedHour = read_body(KEY_HOUR, body).map_err(damaged)?;
        let counts = (closed.keys() as u64, closed.commands() as u64);
        let is_named = closed.hour == hour && counts == (name.keys, name.commands);
        match is_named && closed.partition == partition {
            true => Ok(closed),
            false => Err(SnapshotError::OtherHour { hour }),
        }
    };
    names.iter().map(read).collect()
}
