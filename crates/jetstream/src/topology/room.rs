//! How the room that an engine may take is shared among its streams, and how they get more of it later.
//!
//! | share | streams | why |
//! |---|---|---|
//! | kept | AUDIT, CHECKPOINTS, the archive of journals | nothing is ever taken out of them: what they hold is how long the engine goes on |
//! | passing | all others | snapshots, acknowledgements and ages empty them |
//!
//! Of a small room half is for what is kept, of a large one two thirds.

use std::collections::HashMap;

use super::{Limits, Topology, spec::MIB};

const GIB: i64 = 1024 * 1024 * 1024;

/// How much of the broker's file store the streams of a new engine reserve when nothing else is said:
/// what a small disk has, so that a first try does not fail on a laptop.
pub const STREAM_ROOM_BYTES_DEFAULT: u64 = 8 << 30;

/// The least that they may be given: below it journals are too small for the snapshots that empty them.
pub const STREAM_ROOM_BYTES_MIN: u64 = 2 << 30;

/// The most, a pebibyte: beyond what a broker's disk has.
pub const STREAM_ROOM_BYTES_MAX: u64 = 1 << 50;

/// Passing streams of a small room have up to so much of it.
const PASSING_BYTES_SMALL: i64 = 4 * GIB;

/// Of what is kept, percent for the audit logs of all partitions and for checkpoints; the rest is the archive's.
/// A run of three tasks takes about as much in an audit log as in the archive, and a fifth to two fifths of it in checkpoints
/// where runs come one by one.
const AUDIT_PERCENT: i64 = 46;
const CHECKPOINTS_PERCENT: i64 = 10;

impl Topology {
    /// The same topology with limits that fill about `room_bytes`: larger and smaller ones than the
    /// default's, and a mebibyte at least for each stream.
    ///
    /// The sizes hold for what is created; streams that are there keep theirs until an
    /// [`Enlargement`](super::Enlargement).
    #[must_use]
    pub fn fitted_to(self, room_bytes: i64) -> Self {
        let partitions = i64::from(self.partitions) + 1;
        let kept_of = |limits: &Limits| {
            limits.audit_bytes * partitions + limits.checkpoints_bytes + limits.archive_bytes
        };
        let passing_whole = self.reserved_bytes() - kept_of(&self.limits);
        let passing = (room_bytes / 2).min(PASSING_BYTES_SMALL.max(room_bytes / 3));
        let kept = room_bytes - passing;
        let limits = self.limits.scaled(passing, passing_whole);
        let audit_bytes = (kept / 100 * AUDIT_PERCENT / partitions).max(MIB);
        let checkpoints_bytes = kept / 100 * CHECKPOINTS_PERCENT;
        let archive_bytes = kept - audit_bytes * partitions - checkpoints_bytes;
        let [checkpoints_bytes, archive_bytes] =
            [checkpoints_bytes, archive_bytes].map(|bytes| bytes.max(MIB));
        let limits = Limits { audit_bytes, checkpoints_bytes, archive_bytes, ..limits };
        Self { limits, ..self }
    }

    /// The least room, doubled from what the streams have now, in which each of `full` may hold twice
    /// what it does: pairs of a name and of its bytes now. Nothing where no room does.
    #[must_use]
    pub fn room_for(&self, reserved_bytes: i64, full: &[(String, i64)]) -> Option<i64> {
        let most = i64::try_from(STREAM_ROOM_BYTES_MAX).unwrap_or(i64::MAX);
        let least = i64::try_from(STREAM_ROOM_BYTES_MIN).unwrap_or(i64::MAX);
        // What is not scaled makes a room of 8 GiB a little more.
        let rounded = (reserved_bytes.max(least) + GIB / 2) / GIB * GIB;
        let rooms = std::iter::successors(rounded.checked_mul(2), |room| room.checked_mul(2));
        rooms.take_while(|room| *room <= most).find(|room| {
            let specs = self.clone().fitted_to(*room).streams();
            full.iter().all(|(stream, bytes)| {
                let spec = specs.iter().find(|spec| spec.name == *stream);
                spec.is_some_and(|spec| spec.max_bytes / 2 >= *bytes)
            })
        })
    }

    /// How many bytes more streams reserve when each of `now`, pairs of a name and of its bytes, has at least
    /// what this topology says. One without a limit of its own has 0 there, and gets none.
    #[must_use]
    pub fn added_bytes(&self, now: &[(String, i64)]) -> i64 {
        let specs = self.streams();
        let specs = specs.iter().map(|spec| (spec.name.as_str(), spec.max_bytes));
        let sizes = specs.collect::<HashMap<_, _>>();
        let limited = now.iter().filter(|(_, bytes)| *bytes > 0);
        let added = limited.filter_map(|(stream, bytes)| {
            sizes.get(stream.as_str()).map(|size| (size - bytes).max(0))
        });
        added.sum()
    }

    /// The largest room, in whole gibibytes, that streams which are as `now` may be given with no more than
    /// `free_bytes` more reserved; nothing where that enlarges none.
    #[must_use]
    pub fn room_within(&self, now: &[(String, i64)], free_bytes: i64) -> Option<i64> {
        let added = |bytes: i64| self.clone().fitted_to(bytes).added_bytes(now);
        largest_room(|bytes| added(bytes) <= free_bytes).filter(|bytes| added(*bytes) > 0)
    }
}

/// The largest room, in whole gibibytes, that `fits`; nothing where not even the least does. Of what fits,
/// everything smaller must.
pub(super) fn largest_room(fits: impl Fn(i64) -> bool) -> Option<i64> {
    let gib_of = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX) / GIB;
    let (mut most, mut beyond) = (gib_of(STREAM_ROOM_BYTES_MIN), gib_of(STREAM_ROOM_BYTES_MAX) + 1);
    if !fits(most * GIB) {
        return None;
    }
    while beyond - most > 1 {
        let between = most.midpoint(beyond);
        match fits(between * GIB) {
            true => most = between,
            false => beyond = between,
        }
    }
    Some(most * GIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(room_bytes: i64) -> Topology {
        Topology::default().fitted_to(room_bytes)
    }

    #[test]
    fn a_room_is_filled_and_half_of_a_small_one_is_for_what_is_never_taken_out() {
        for (gib, kept_percent) in [(2, 50), (8, 50), (12, 66), (40, 66), (400, 66)] {
            let room = gib * GIB;
            let topology = fitted(room);

            let reserved = topology.reserved_bytes();
            assert!(reserved <= room + room / 50 && reserved > room - room / 50, "{gib} GiB");
            let Limits { audit_bytes, archive_bytes, checkpoints_bytes, .. } = topology.limits;
            let kept = audit_bytes * 9 + archive_bytes + checkpoints_bytes;
            let percent = kept * 100 / room;
            assert!(percent.abs_diff(kept_percent) <= 1, "{gib} GiB: {percent} %");
        }
    }

    #[test]
    fn more_room_makes_no_stream_smaller() {
        let rooms = [2, 4, 8, 11, 12, 13, 16, 40, 100].map(|gib| fitted(gib * GIB).streams());

        for pair in rooms.windows(2) {
            for (smaller, larger) in pair[0].iter().zip(&pair[1]) {
                assert!(smaller.max_bytes <= larger.max_bytes, "{}", smaller.name);
            }
        }
    }

    #[test]
    fn the_room_that_is_asked_for_doubles_what_is_full() {
        let topology = Topology::default();
        let now = fitted(8 * GIB);
        let full = |stream: &str, bytes| [(stream.to_owned(), bytes)];

        let audit =
            topology.room_for(now.reserved_bytes(), &full("AUDIT_3", now.limits.audit_bytes));
        assert_eq!(audit, Some(16 * GIB));
        let journal =
            topology.room_for(now.reserved_bytes(), &full("JOURNAL_3", now.limits.journal_bytes));
        assert_eq!(journal, Some(32 * GIB));
        assert_eq!(topology.room_for(8 * GIB, &full("CONFIG", 1 << 20)), None);
    }

    /// The streams of a topology as they are on a broker.
    fn sizes(topology: &Topology) -> Vec<(String, i64)> {
        topology.streams().into_iter().map(|spec| (spec.name, spec.max_bytes)).collect()
    }

    #[test]
    fn the_room_within_what_is_free_fits_and_a_gibibyte_more_does_not() {
        let now = sizes(&fitted(8 * GIB));
        for free_gib in [1, 3, 18, 40, 1_000] {
            let free = free_gib * GIB;

            let room = Topology::default().room_within(&now, free).expect("something fits");

            assert!(fitted(room).added_bytes(&now) <= free, "{free_gib} GiB");
            assert!(fitted(room + GIB).added_bytes(&now) > free, "{free_gib} GiB");
        }
        assert_eq!(Topology::default().room_within(&now, MIB), None);
    }

    #[test]
    fn what_is_larger_already_and_what_has_no_limit_reserves_no_more() {
        let mut now = sizes(&fitted(8 * GIB));
        assert_eq!(fitted(4 * GIB).added_bytes(&now), 0);
        let whole = fitted(16 * GIB).added_bytes(&now);

        let (_, bytes) = now.iter_mut().find(|(name, _)| name == "EVENTS").expect("a stream");
        let events = std::mem::replace(bytes, 0);

        let larger = fitted(16 * GIB).limits.events_bytes - events;
        assert_eq!(fitted(16 * GIB).added_bytes(&now), whole - larger);
    }

    /// As docs/limits.md has it.
    fn size(bytes: i64) -> String {
        if bytes < GIB {
            return format!("{} MiB", (bytes + MIB / 2) / MIB);
        }
        let tenths = (bytes * 10 + GIB / 2) / GIB;
        format!("{}.{} GiB", tenths / 10, tenths % 10)
    }

    #[test]
    fn the_page_of_limits_has_the_sizes_that_are_made() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/limits.md");
        let page = std::fs::read_to_string(path).expect("the page of limits");
        let topologies =
            [fitted(8 * GIB), fitted(40 * GIB), fitted(120 * GIB), Topology::default()];
        let row = |name: &str, bytes: &dyn Fn(&Topology) -> i64| {
            let sizes = topologies.iter().map(|topology| size(bytes(topology)));
            format!("| {name} | {} |", sizes.collect::<Vec<_>>().join(" | "))
        };

        for (name, stream) in [
            ("EVENTS", "EVENTS"),
            ("ADMITTED, MATCHED, each", "MATCHED"),
            ("WAITING", "WAITING"),
            ("`COMMANDS_<p>`, each", "COMMANDS_0"),
            ("`JOURNAL_<p>`, each", "JOURNAL_0"),
            ("`AUDIT_<p>`, each", "AUDIT_0"),
            ("CHECKPOINTS", "CHECKPOINTS"),
            ("DEAD", "DEAD"),
            ("TASKS", "TASKS"),
            ("`KV_fermata-definitions`", "KV_fermata-definitions"),
            ("`KV_fermata-leases`", "KV_fermata-leases"),
            ("`OBJ_fermata-plans`", "OBJ_fermata-plans"),
            ("`OBJ_fermata-snapshots`", "OBJ_fermata-snapshots"),
            ("`OBJ_fermata-archive`", "OBJ_fermata-archive"),
            ("`OBJ_fermata-payloads`", "OBJ_fermata-payloads"),
        ] {
            let row = row(name, &|topology| {
                let specs = topology.streams();
                let spec = specs.iter().find(|spec| spec.name == stream);
                spec.unwrap_or_else(|| panic!("no stream `{stream}`")).max_bytes
            });
            assert!(page.contains(&row), "{row}");
        }
        let together = row("together", &Topology::reserved_bytes);
        assert!(page.contains(&together), "{together}");
    }
}
