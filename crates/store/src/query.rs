//! What is asked of the list of runs.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use fermata_core::identity::{RunId, Tenant};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::run::{RunStatus, RunSummary};

/// Most runs in one page: with the longest names and ids that events may have a page stays
/// within a few messages' worth of memory.
pub const PAGE_RUNS_MAX: usize = 500;

/// Bytes of [`Cursor`].
pub(crate) const PLACE_BYTES: usize = 24;

/// A place in the order of runs: the newest first, runs of the same millisecond by id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(pub(crate) [u8; PLACE_BYTES]);

/// Text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this is no cursor; take the one that the page before ended with")]
pub struct NotACursor;

impl Cursor {
    /// Where `run` stands.
    #[must_use]
    pub fn of(run: &RunSummary) -> Self {
        Self::new(run.started_ms, run.id)
    }

    pub(crate) fn new(started_ms: u64, run: RunId) -> Self {
        let mut place = [0; PLACE_BYTES];
        let (newest_first, run) = ((u64::MAX - started_ms).to_be_bytes(), run.as_uuid());
        let bytes = newest_first.iter().chain(run.as_bytes());
        for (to, from) in place.iter_mut().zip(bytes) {
            *to = *from;
        }
        Self(place)
    }

    /// The id of the run there.
    pub(crate) fn run_bytes(&self) -> [u8; 16] {
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(self.0.iter().skip(8)) {
            *to = *from;
        }
        id
    }

    /// When the run there started.
    pub(crate) fn started_ms(&self) -> u64 {
        let newest_first = self.0.first_chunk().copied().map_or(u64::MAX, u64::from_be_bytes);
        u64::MAX - newest_first
    }

    /// Before every run that started at `started_ms` or earlier, behind those that started later.
    fn before_all_of(started_ms: u64) -> Self {
        Self::at(started_ms, 0)
    }

    /// Behind every run that started at `started_ms` or later.
    fn behind_all_of(started_ms: u64) -> Self {
        Self::at(started_ms, 0xff)
    }

    fn at(started_ms: u64, fill: u8) -> Self {
        let mut place = [fill; PLACE_BYTES];
        for (to, from) in place.iter_mut().zip((u64::MAX - started_ms).to_be_bytes()) {
            *to = from;
        }
        Self(place)
    }

    /// The next place; nothing behind the last.
    fn next(mut self) -> Option<Self> {
        for byte in self.0.iter_mut().rev() {
            let (value, overflowed) = byte.overflowing_add(1);
            *byte = value;
            if !overflowed {
                return Some(self);
            }
        }
        None
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let mut place = [0; PLACE_BYTES];
        if text.len() != PLACE_BYTES * 2 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotACursor);
        }
        for (byte, pair) in place.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| NotACursor)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| NotACursor)?;
        }
        Ok(Self(place))
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Which runs are wanted; everything that is absent takes all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunQuery {
    /// Only of this tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<Tenant>,
    /// Only of this workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Arc<str>>,
    /// Only those that stand here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<RunStatus>,
    /// Only those that started then or later, journal time in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Only those that started before then, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// At most so many, and never more than [`PAGE_RUNS_MAX`].
    pub limit: usize,
    /// Only those behind this place: where the page before ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Cursor>,
}

impl RunQuery {
    /// Whether `run` is wanted, wherever it stands in the order.
    #[must_use]
    pub fn takes(&self, run: &RunSummary) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| run.tenant == *tenant)
            && self.workflow.as_ref().is_none_or(|workflow| run.workflow == *workflow)
            && self.status.is_none_or(|status| run.status == status)
            && self.since_ms.is_none_or(|since| run.started_ms >= since)
            && self.until_ms.is_none_or(|until| run.started_ms < until)
    }

    /// First and last place that can be wanted; nothing when none can.
    pub(crate) fn places(&self) -> Option<(Cursor, Cursor)> {
        let latest = match self.until_ms {
            Some(until) => Cursor::before_all_of(until.checked_sub(1)?),
            None => Cursor([0; PLACE_BYTES]),
        };
        let first = match self.after {
            Some(after) => latest.max(after.next()?),
            None => latest,
        };
        let last = Cursor::behind_all_of(self.since_ms.unwrap_or(0));
        (first <= last).then_some((first, last))
    }

    /// How many runs one page holds.
    pub(crate) fn page_runs(&self) -> usize {
        self.limit.clamp(1, PAGE_RUNS_MAX)
    }
}

/// Some of the runs that were asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPage {
    /// The newest first.
    pub runs: Vec<RunSummary>,
    /// Where to go on; absent when there are no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Cursor>,
}
