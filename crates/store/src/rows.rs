//! How the index lies in the database: keys, values, and the sum over both.
//!
//! ```text
//! 0                                             header
//! 1 partition                                   a journal and how far it was applied
//! 2 run                                         its status and when it began
//! 3 0 status place                              the run
//! 3 by [tenant] [workflow] status place         nothing: the order of runs, three times
//! ```
//!
//! The run itself stands in the order of time: what is written then is written side by side,
//! while ids are spread over all of the database, and only small rows are kept there.
//!
//! `by` says which of tenant and workflow follow, each as the first 8 bytes of its SHA-256: a
//! row found there is compared with its run, so names that share them cost time and nothing
//! else. A question without a status goes through the orders of all seven side by side, which
//! keeps a row for each status out of the database.

use fermata_core::digest::Digest;
use fermata_core::identity::{PartitionId, RunId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::index::{Position, StoreError, StreamOrigin};
use crate::query::{Cursor, PLACE_BYTES, RunQuery};
use crate::run::{RunStatus, RunSummary};

/// Layout of the rows, and what they count. Another one is not read: the index is made anew.
pub(crate) const SCHEMA: u16 = 3;

pub(crate) const HEADER_KEY: &[u8] = &[0];
const STREAM: u8 = 1;
const ID: u8 = 2;
const PLACE: u8 = 3;

const BY_TENANT: u8 = 1;
const BY_WORKFLOW: u8 = 2;

/// What the index says of itself; written with every change of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderRow {
    pub schema: u16,
    pub engine: String,
    pub runs: u64,
    /// Sum over all runs and places, so that a row that is lost or changed is noticed.
    pub sum: RowSum,
    pub left_out_until_ms: Option<u64>,
}

/// A journal and how far it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StreamRow {
    pub origin: StreamOrigin,
    pub position: Position,
}

/// A sum over rows in any order: of the first 16 bytes of their digests, modulo 2¹²⁸.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowSum(u64, u64);

impl RowSum {
    fn of(key: &[u8], value: &[u8]) -> u128 {
        let mut hash = Sha256::new();
        hash.update((key.len() as u64).to_be_bytes());
        hash.update(key);
        hash.update(value);
        hash.finalize().iter().take(16).fold(0, |sum, byte| (sum << 8) | u128::from(*byte))
    }

    fn get(self) -> u128 {
        (u128::from(self.0) << 64) | u128::from(self.1)
    }

    #[expect(clippy::cast_possible_truncation, reason = "it is taken apart into its halves")]
    fn set(&mut self, sum: u128) {
        *self = Self((sum >> 64) as u64, sum as u64);
    }

    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.set(self.get().wrapping_add(Self::of(key, value)));
    }

    pub fn take(&mut self, key: &[u8], value: &[u8]) {
        self.set(self.get().wrapping_sub(Self::of(key, value)));
    }
}

pub(crate) fn stream_key(partition: PartitionId) -> Vec<u8> {
    [&[STREAM][..], &partition.0.to_be_bytes()].concat()
}

pub(crate) fn is_stream_key(key: &[u8]) -> bool {
    key.first() == Some(&STREAM)
}

/// Where a run is found by its id.
pub(crate) fn id_key(run: RunId) -> [u8; 17] {
    let mut key = [ID; 17];
    for (to, from) in key.iter_mut().skip(1).zip(run.as_uuid().as_bytes()) {
        *to = *from;
    }
    key
}

/// What stands there: the rest of the run's place.
pub(crate) fn id_row(run: &RunSummary) -> [u8; 9] {
    let mut row = [status_byte(run.status); 9];
    for (to, from) in row.iter_mut().zip(run.started_ms.to_be_bytes()) {
        *to = from;
    }
    row
}

/// The row of the run `run`, by what stands at its id.
pub(crate) fn run_key_at(run: RunId, id_row: &[u8]) -> Result<Vec<u8>, StoreError> {
    let damaged = StoreError::Damaged("an id");
    let Some((status, started_ms)) = id_row.split_last() else { return Err(damaged) };
    let Ok(started_ms) = started_ms.try_into().map(u64::from_be_bytes) else {
        return Err(damaged);
    };
    let status = usize::from(*status);
    let status = RunStatus::ALL.get(status).ok_or(damaged)?;
    Ok(run_key(*status, &Cursor::new(started_ms, run)))
}

/// The row of the run at `place`.
pub(crate) fn run_key(status: RunStatus, place: &Cursor) -> Vec<u8> {
    place_key(Named::default(), status, place)
}

pub(crate) fn is_run_key(key: &[u8]) -> bool {
    key.first_chunk() == Some(&[PLACE, 0])
}

/// First bytes of the digests of names, where they take part in a key.
#[derive(Clone, Copy, Default)]
struct Named {
    tenant: Option<[u8; 8]>,
    workflow: Option<[u8; 8]>,
}

/// The rows by which a run is found, but for that of its id and its own.
pub(crate) fn place_keys(run: &RunSummary) -> [Vec<u8>; 3] {
    let place = Cursor::of(run);
    let (tenant, workflow) = (Some(digest_of(run.tenant.as_str())), Some(digest_of(&run.workflow)));
    [(tenant, None), (None, workflow), (tenant, workflow)]
        .map(|(tenant, workflow)| place_key(Named { tenant, workflow }, run.status, &place))
}

fn digest_of(name: &str) -> [u8; 8] {
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(Sha256::digest(name.as_bytes())) {
        *to = from;
    }
    first
}

fn place_key(named: Named, status: RunStatus, place: &Cursor) -> Vec<u8> {
    let Named { tenant, workflow } = named;
    let by = u8::from(tenant.is_some()) * BY_TENANT + u8::from(workflow.is_some()) * BY_WORKFLOW;
    let mut key = Vec::with_capacity(2 + 16 + 1 + PLACE_BYTES);
    key.extend_from_slice(&[PLACE, by]);
    for name in [tenant, workflow].into_iter().flatten() {
        key.extend_from_slice(&name);
    }
    key.push(status_byte(status));
    key.extend_from_slice(&place.0);
    key
}

/// A range of rows, and the status that all runs in it have.
pub(crate) type PlaceRange = (RunStatus, Vec<u8>, Vec<u8>);

/// The rows where the runs that `query` wants are found: one range for each status.
pub(crate) fn place_ranges(query: &RunQuery) -> Vec<PlaceRange> {
    let Some((first, last)) = query.places() else { return Vec::new() };
    let named = Named {
        tenant: query.tenant.as_ref().map(|tenant| digest_of(tenant.as_str())),
        workflow: query.workflow.as_deref().map(digest_of),
    };
    let wanted = |status: &RunStatus| query.status.is_none_or(|wanted| wanted == *status);
    let range = |status| {
        let key = |place| place_key(named, status, place);
        (status, key(&first), key(&last))
    };
    RunStatus::ALL.into_iter().filter(wanted).map(range).collect()
}

/// The rows of runs of any tenant that have ended, a range for each way to end.
pub(crate) fn ended_ranges() -> impl Iterator<Item = PlaceRange> {
    let range = |status| {
        let key = |fill| run_key(status, &Cursor([fill; PLACE_BYTES]));
        (status, key(0), key(0xff))
    };
    RunStatus::ALL.into_iter().filter(|status| status.has_ended()).map(range)
}

/// The place at the end of a key of a run, or of [`place_keys`].
pub(crate) fn place_of(key: &[u8]) -> Option<Cursor> {
    let (_, place) = key.split_last_chunk::<PLACE_BYTES>()?;
    Some(Cursor(*place))
}

fn status_byte(status: RunStatus) -> u8 {
    let place = RunStatus::ALL.iter().position(|other| *other == status);
    place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
}

/// The run as its row holds it: without names of fields, since [`SCHEMA`] says what they are.
pub(crate) fn encode_run(run: &RunSummary) -> Result<Vec<u8>, StoreError> {
    Ok(rmp_serde::to_vec(run)?)
}

pub(crate) fn encode(row: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    Ok(rmp_serde::to_vec_named(row)?)
}

pub(crate) fn decode<T: DeserializeOwned>(row: &[u8], what: &'static str) -> Result<T, StoreError> {
    rmp_serde::from_slice(row).map_err(|_| StoreError::Damaged(what))
}

/// A digest over what an index says of itself: its header and its positions.
pub(crate) fn state_digest(header: &[u8], streams: &[Vec<u8>]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(header);
    streams.iter().for_each(|stream| hash.update(stream));
    Digest(hash.finalize().into())
}
