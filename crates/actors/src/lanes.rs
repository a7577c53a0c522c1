//! Lanes: where the events of tenants above their share wait, so that nobody waits behind them.
//!
//! A listener that is short of room spills them to WAITING, by tenant into one of [`LANES`] lanes.
//! Matchers drain the lanes by turns. For the floor a *mark* in ADMITTED stands for what was
//! spilled; it is acknowledged here, after everything in WAITING up to it is. See
//! `docs/adr/0040-lanes.md`.

mod draining;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fermata_core::identity::{PartitionId, Tenant};
pub use fermata_jetstream::topology::LANE_FRAME_BYTES_TARGET;
use fermata_jetstream::topology::WAITING_STREAM;
use fermata_jetstream::{Acker, SharedConsumerOptions};
use fermata_wire::stages::{AdmittedFrame, WaitingMark};
use fermata_wire::subjects;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::listener::shares::Counts;

pub(crate) use self::draining::{Draining, LaneTurns};

/// Lanes of WAITING. Tenants above their share are few; each further lane is one more consumer
/// while there are any.
pub const LANES: u16 = 16;

/// Events of a frame in a lane at most: how long a turn of a lane is.
pub const LANE_FRAME_EVENTS_MAX: usize = 256;

/// Frames of one lane that a process holds: one that is decided, and one that is there when it is.
pub const LANE_FRAMES_HELD_MAX: u32 = 2;

/// Frames of all lanes that a process decides at a time: what somebody waits for who is not above
/// their share, and enough to hide the broker's answer times.
pub const LANE_FRAMES_AT_ONCE: usize = 4;

/// Bytes that one request for frames of a lane asks for: more than one frame can have.
const PULL_BYTES: usize = 4 * 1024 * 1024;

/// After how long without a request the broker forgets the consumer of a lane. What it had not
/// acknowledged is still in WAITING. Longer than a frame may be held without another request.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(300);

/// The lane of a tenant, the same for ever and everywhere.
#[must_use]
pub fn lane_of(tenant: &str) -> u16 {
    PartitionId::of(&[tenant.as_bytes()], LANES).0
}

/// How all matchers together take from a lane.
#[must_use]
pub fn lane_consumer(lane: u16) -> SharedConsumerOptions {
    SharedConsumerOptions {
        pull_messages: 1,
        pull_bytes: PULL_BYTES,
        filter_subject: Some(subjects::waiting(lane)),
        inactive_threshold: Some(FORGOTTEN_AFTER),
        ..SharedConsumerOptions::new(WAITING_STREAM, format!("lane-{lane}"))
    }
}

/// A frame that waited in a lane.
#[derive(Debug)]
pub struct Waited(pub AdmittedFrame);

/// Marks that this process was given, and whether there is anything to drain. Clones share it.
#[derive(Clone, Default)]
pub struct Lanes(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// At most as many as the broker delivers without an acknowledgement.
    marks: Mutex<Vec<(WaitingMark, Acker)>>,
    woken: Notify,
    known: Mutex<Known>,
    /// Events that came out of lanes lately, by tenant, since it was last asked.
    drained: Mutex<Counts>,
}

/// What this process knows of WAITING.
#[derive(Debug, Default)]
struct Known {
    /// Whether something waits.
    holds_any: bool,
    /// How often it was told that something does: an answer to an older question knows nothing of
    /// what was stored since.
    wakes: u64,
}

/// When it was asked whether WAITING holds anything.
#[derive(Debug, Clone, Copy)]
struct Asked(u64);

impl Lanes {
    /// Tells that WAITING holds something.
    pub(crate) fn wake(&self) {
        {
            let mut known = self.known();
            known.wakes += 1;
            known.holds_any = true;
        }
        self.0.woken.notify_one();
    }

    /// Whether something waits, as far as this process knows: then whoever is above its share
    /// waits behind it, also when there is room for a moment.
    pub(crate) fn holds_any(&self) -> bool {
        self.known().holds_any
    }

    /// The question how much WAITING holds is put now.
    fn asked(&self) -> Asked {
        Asked(self.known().wakes)
    }

    /// So many frames are left, says the answer. What was stored after the question was put is
    /// still there.
    fn learn(&self, Asked(wakes): Asked, left: u64) {
        let mut known = self.known();
        if left > 0 {
            known.holds_any = true;
        } else if known.wakes == wakes {
            known.holds_any = false;
        }
    }

    /// Events of these tenants are passed on.
    fn passes_on<'a>(&self, tenants: impl Iterator<Item = &'a Tenant>, now: Instant) {
        self.drained().count(tenants, now);
    }

    /// How many events of which tenants were passed on lately, since this was last asked.
    pub(crate) fn take_drained(&self, now: Instant) -> HashMap<Tenant, u64> {
        self.drained().take(now)
    }

    /// Keeps a mark until everything up to it is acknowledged.
    pub(crate) fn keep(&self, mark: WaitingMark, acker: Acker) {
        self.marks().push((mark, acker));
        self.wake();
    }

    async fn woken(&self) {
        self.0.woken.notified().await;
    }

    /// Those that may be acknowledged when everything in WAITING up to `done` is.
    fn take_passed(&self, done: u64) -> Vec<Acker> {
        let mut marks = self.marks();
        // Others were delivered over a connection that is gone, and come again.
        marks.retain(|(_, acker)| acker.is_current());
        let passed = marks.extract_if(.., |(mark, _)| is_passed(*mark, done));
        passed.map(|(_, acker)| acker).collect()
    }

    fn take_all(&self) -> Vec<Acker> {
        std::mem::take(&mut *self.marks()).into_iter().map(|(_, acker)| acker).collect()
    }

    /// How many marks are kept here.
    pub(crate) fn marks_kept(&self) -> usize {
        self.marks().len()
    }

    /// Takes the marks out to tell the broker that they are still held, and puts them back.
    async fn remind(&self) {
        let marks = std::mem::take(&mut *self.marks());
        for (_, acker) in &marks {
            acker.in_progress().await;
        }
        self.marks().extend(marks);
    }

    fn marks(&self) -> MutexGuard<'_, Vec<(WaitingMark, Acker)>> {
        // Nobody panics while holding it.
        self.0.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nobody panics while holding it.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drained(&self) -> MutexGuard<'_, Counts> {
        // Nobody panics while holding it.
        self.0.drained.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lanes").field("marks", &self.marks().len()).finish()
    }
}

/// Whether a mark may be acknowledged when everything in WAITING up to `done` is acknowledged.
/// Once so, it stays so.
pub(crate) fn is_passed(mark: WaitingMark, done: u64) -> bool {
    mark.up_to <= done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::shares::SHARE_WINDOW;

    #[test]
    fn the_lane_of_a_tenant_is_the_same_for_ever() {
        // Changing these would put frames of one tenant into two lanes during an upgrade.
        let lanes = ["acme", "others", "quiet", "noisy"].map(lane_of);

        assert_eq!(lanes, [3, 11, 6, 10]);
        assert!(lanes.iter().all(|lane| *lane < LANES));
    }

    #[test]
    fn what_is_stored_while_it_is_asked_is_not_forgotten_with_an_old_answer() {
        let lanes = Lanes::default();
        let before = lanes.asked();
        lanes.wake();

        lanes.learn(before, 0);
        assert!(lanes.holds_any(), "the answer is older than what was stored");
        lanes.learn(lanes.asked(), 0);
        assert!(!lanes.holds_any());
    }

    #[test]
    fn what_a_look_finds_is_known_although_nobody_here_stored_it() {
        let lanes = Lanes::default();

        lanes.learn(lanes.asked(), 1);
        assert!(lanes.holds_any());
        lanes.learn(lanes.asked(), 0);
        assert!(!lanes.holds_any());
    }

    #[test]
    fn what_came_out_of_lanes_long_ago_does_not_count() {
        let (lanes, now) = (Lanes::default(), Instant::now());
        let tenant: Tenant = "others".parse().expect("a tenant");

        lanes.passes_on([&tenant; 3].into_iter(), now);
        let soon = lanes.take_drained(now + SHARE_WINDOW / 2);
        lanes.passes_on([&tenant; 5].into_iter(), now + SHARE_WINDOW);
        lanes.passes_on([&tenant; 7].into_iter(), now + SHARE_WINDOW * 60);
        let late = lanes.take_drained(now + SHARE_WINDOW * 60);

        assert_eq!(soon, HashMap::from([(tenant.clone(), 3)]));
        assert_eq!(late, HashMap::from([(tenant, 7)]));
        assert_eq!(lanes.take_drained(now + SHARE_WINDOW * 60), HashMap::new());
    }
}
