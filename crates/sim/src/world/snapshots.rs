//! The shell around snapshots: written when they are audited, stored, and what
//! they stand for purged; and which one a takeover begins from.

use bytes::Bytes;
use fermata_core::identity::PartitionId;
use fermata_partition::auditor::{self, AuditMark};
use fermata_partition::key_hours::HourFile;
use fermata_partition::owner::Input;
use fermata_partition::snapshot::{FrozenFold, Snapshot, SnapshotFile, SnapshotPolicy};

use super::World;
use crate::broker::{StoredSnapshot, StreamName};
use crate::dice::Dice;
use crate::trace::Broken;
use crate::worker::{KnownSnapshot, Seat, Work};

/// Snapshots come often here, so that lives begin from them and die around them.
pub(super) fn drawn_policy(swarm: bool, dice: &mut Dice) -> SnapshotPolicy {
    let records_max = if swarm { dice.between(3, 60) } else { 6 };
    let interval_ms = if swarm { dice.between(500, 60_000) } else { 1_000 };
    SnapshotPolicy {
        records_max,
        bytes_max: u64::MAX,
        interval_ms,
        rest_ms: 100,
        ..SnapshotPolicy::default()
    }
}

impl World {
    /// A snapshot is taken: it waits until its entries are audited.
    pub(super) fn frozen(
        &mut self,
        worker: usize,
        seat: u64,
        frozen: Box<FrozenFold>,
    ) -> Result<(), Broken> {
        self.invariants.invariant_a_snapshot_is_the_fold(&frozen)?;
        let Some(known) = self.workers.get_mut(worker).and_then(|known| known.seat_of(seat)) else {
            return Ok(());
        };
        let (auditor, index) = (known.auditor_id, frozen.next_index());
        known.frozen = Some(frozen);
        self.tell_auditor(worker, auditor, [auditor::Input::Mark(index)]);
        Ok(())
    }

    /// Its entries are audited: it is written, and on its way to the store.
    pub(super) fn marked(
        &mut self,
        worker: usize,
        auditor: u64,
        mark: &AuditMark,
    ) -> Result<(), Broken> {
        let known = self.workers.get_mut(worker).and_then(|known| known.audit_of(auditor));
        let newest = |seat: &Seat| seat.snapshots.last().map(|newest| newest.hours.clone());
        let Some((seat, hours, frozen)) =
            known.and_then(|seat| Some((seat.id, newest(seat), seat.frozen.take()?)))
        else {
            return Ok(());
        };
        let mut hours = hours.unwrap_or_default();
        hours.retain(|name| self.broker.hours().contains_key(name));
        let broken = |error: String| Broken::new("invariant_a_snapshot_is_written", error);
        let written = frozen.encode(mark, &hours).map_err(|error| broken(error.to_string()))?;
        let mut files = self.broker.hours().clone();
        let new = |file: &HourFile| (file.name.clone(), Bytes::from(file.bytes.clone()));
        files.extend(written.new_hours.iter().map(new));
        let read = SnapshotFile::decode(PartitionId(0), &written.bytes);
        let read = read.and_then(|file| file.with_hours(&files));
        let read = read.map_err(|error| broken(format!("{error:?}")))?;
        let again = read.encode().map_err(|error| broken(error.to_string()))?;
        if again != written.bytes {
            return Err(broken("a snapshot that was read is written otherwise".to_owned()));
        }
        let stored = StoredSnapshot {
            sequence: frozen.sequence(),
            position: frozen.position().sequence,
            bytes: written.bytes.into(),
            damaged: false,
            hours: written.hours,
            first_hour: frozen.first_hour(),
        };
        let after = match self.throws(self.faults.request_delayed) {
            true => self.dice.between(1_000, 20_000),
            false => self.dice.between(5, 500),
        };
        self.reach_worker(worker, after, Work::StoreSnapshot(seat, stored, written.new_hours));
        Ok(())
    }

    /// A snapshot reaches the store behind its hours, or not; what it stands for is
    /// purged later.
    pub(super) fn store_snapshot(
        &mut self,
        worker: usize,
        seat: u64,
        stored: StoredSnapshot,
        mut hours: Vec<HourFile>,
    ) -> Result<(), Broken> {
        let lost = self.throws(self.faults.request_lost);
        if let Some(hour) = hours.pop().filter(|_| !lost) {
            self.say(worker, format_args!("stores hour {}", hour.name.hour));
            self.hours_stored += 1;
            self.broker.store_hour(hour);
            let after = self.dice.between(1, 500);
            self.reach_worker(worker, after, Work::StoreSnapshot(seat, stored, hours));
            return Ok(());
        }
        if !lost {
            self.say(worker, format_args!("stores snapshot {}", stored.sequence));
            self.snapshots_stored += 1;
            let older = self.workers.get_mut(worker).and_then(|known| known.seat_of(seat));
            let older = older.and_then(|seat| {
                seat.snapshots.push(KnownSnapshot {
                    sequence: stored.sequence,
                    position: stored.position,
                    hours: stored.hours.clone(),
                    first_hour: stored.first_hour,
                });
                seat.older_snapshot().map(|older| (older.sequence, older.first_hour))
            });
            let (older, first_hour) = older.unwrap_or_default();
            self.broker.store_snapshot(stored, older);
            let after = self.dice.between(1, 2_000);
            self.reach_worker(worker, after, Work::RemoveHours(first_hour));
            let after = self.dice.between(1, 2_000);
            self.reach_worker(worker, after, Work::Purge(seat));
        }
        self.tell_owner(worker, seat, [Input::SnapshotEnded])
    }

    /// Purges below the older of the two newest snapshots that this owner knows
    /// to be good.
    pub(super) fn purge(&mut self, worker: usize, seat: u64) {
        let known = self.workers.get_mut(worker).and_then(|known| known.seat_of(seat));
        let older = known.and_then(|seat| seat.older_snapshot());
        let Some((sequence, position)) = older.map(|older| (older.sequence, older.position)) else {
            return;
        };
        self.say(worker, format_args!("purges journal {sequence}, commands {position}"));
        self.broker.purge(StreamName::Journal, sequence);
        if self.dice.chance(500) {
            self.broker.purge(StreamName::Commands, position);
        }
    }

    /// The newest snapshot that can be read and whose tail is there. None where
    /// the whole journal is; there is always one of both.
    pub(super) fn newest_snapshot(&mut self) -> Result<Option<Box<Snapshot>>, Broken> {
        let purged_to = self.broker.stream(StreamName::Journal).purged_to();
        if self.throws(self.faults.snapshot_damaged) {
            self.broker.damage_newest_of_two(purged_to, &mut self.dice);
        }
        let readable = |stored: &StoredSnapshot| {
            let bytes: &Bytes = &stored.bytes;
            SnapshotFile::decode(PartitionId(0), bytes)
                .and_then(|file| file.with_hours(self.broker.hours()))
                .ok()
                .filter(|snapshot| snapshot.sequence() >= purged_to)
        };
        let newest = self.broker.snapshots().find_map(readable);
        if newest.is_none() && purged_to > 0 {
            let detail = format!("the journal is purged up to {purged_to} and no snapshot is good");
            return Err(Broken::new("invariant_what_is_purged_is_replaced", detail));
        }
        if let Some(snapshot) = &newest {
            self.begun_from_snapshots += 1;
            self.hours_read += snapshot.hours().len() as u64;
        }
        Ok(newest.map(Box::new))
    }
}
