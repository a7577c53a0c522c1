//! How often engines under test take snapshots, archive what they stand for and purge it.

use std::fmt;
use std::str::FromStr;

use fermata_partition::snapshot::SnapshotPolicy;

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Snapshots {
    /// Every second or so, in segments of some kilobytes: lives begin from snapshots, and end while
    /// they are written, archived and purged.
    Often,
    /// As engines do: in a short test never.
    Seldom,
}

impl Snapshots {
    /// What an engine is told.
    #[must_use]
    pub fn policy(self) -> SnapshotPolicy {
        match self {
            Self::Often => SnapshotPolicy {
                records_max: 300,
                interval_ms: 1_000,
                rest_ms: 500,
                segment_bytes: 10_000,
                ..SnapshotPolicy::default()
            },
            Self::Seldom => SnapshotPolicy::default(),
        }
    }
}

impl fmt::Display for Snapshots {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Often => "often",
            Self::Seldom => "seldom",
        })
    }
}

impl FromStr for Snapshots {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "often" => Ok(Self::Often),
            "seldom" => Ok(Self::Seldom),
            other => Err(format!("`{other}` is neither `often` nor `seldom`")),
        }
    }
}
