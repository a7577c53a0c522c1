//! Spills what tenants above their share publish to lanes, and marks it for the floor.
//!
//! The order counts: frames are stored in WAITING, then a mark in ADMITTED, and only then may the
//! messages that they came of be acknowledged in EVENTS.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fermata_core::identity::Tenant;
use fermata_jetstream::PublishOutcome;
use fermata_wire::stages::{Admission, AdmittedEvent, AdmittedFrame, StageFrame as _, WaitingMark};
use fermata_wire::subjects;
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, sleep_until};

use super::shares::Shares;
use crate::hop::{Hop, publish, publish_known};
use crate::lanes::{LANE_FRAME_BYTES_TARGET, LANE_FRAME_EVENTS_MAX, lane_of};
use crate::ports::Ports;

/// Events of a batch that are passed on at once where there are several tenants: before each part
/// it is looked again whether room is short.
pub const EVENTS_AT_ONCE: usize = 8_192;

/// Frames for lanes that are published at the same time.
const FRAMES_AT_ONCE: usize = 64;

/// Between two marks of one listener; batches that are spilled meanwhile share the next one. Each
/// mark is kept by a matcher until what it stands for is done: it is longer by as much for each
/// [`MARKS_PER_INTERVAL`] that this process keeps, so that a long flood does not use up what the
/// broker delivers of ADMITTED without an acknowledgement.
pub const MARK_INTERVAL: Duration = Duration::from_millis(20);

/// See [`MARK_INTERVAL`]: 20,000 marks of one listener are a backlog of an hour.
pub const MARKS_PER_INTERVAL: u32 = 1_000;

/// How long nothing is spilled after a mark was not stored: longer than until its batch comes
/// again, which would be stored once more.
pub const MARK_FAILED_PAUSE: Duration = Duration::from_secs(5);

/// How long a lane that took nothing is not tried again.
pub const LANE_FULL_PAUSE: Duration = Duration::from_secs(1);

/// Bytes of an event in a frame besides its own text, roughly.
const EVENT_BYTES: usize = 256;

/// Sequences of messages of which not everything that came of them is known to be durable: they
/// come again.
pub(super) type Again = Vec<u64>;

/// Stores frames in lanes.
#[derive(Debug)]
pub(super) struct Spilling {
    ports: Ports,
    shares: Mutex<Shares>,
    marks: Marks,
    /// Lanes that took nothing, until they are tried again.
    full: Mutex<BTreeMap<u16, Instant>>,
    /// Until when nothing is spilled.
    paused_until: Mutex<Option<Instant>>,
}

impl Spilling {
    pub(super) fn new(ports: Ports) -> Self {
        let (shares, marks, full) = (Mutex::default(), Marks::default(), Mutex::default());
        Self { ports, shares, marks, full, paused_until: Mutex::default() }
    }

    /// Passes events on, but spills those of tenants that are above their share while room is short
    /// or lanes hold anything.
    pub(super) async fn pass(
        &self,
        next: &Hop<AdmittedFrame>,
        events: Vec<AdmittedEvent>,
    ) -> Again {
        let has_others = self.shares().see(tenants(&events), Instant::now());
        // Whoever was there before may have spilled: behind what waits nobody is alone.
        if !has_others && !self.ports.lanes.holds_any() {
            return pass(next, events).await;
        }
        // Room may become short over the first part of a large batch.
        let mut rest = events.into_iter();
        loop {
            let part: Vec<_> = rest.by_ref().take(EVENTS_AT_ONCE).collect();
            if part.is_empty() {
                return Again::new();
            }
            let mut again = self.pass_part(next, part).await;
            if !again.is_empty() {
                again.extend(sequences(rest.as_slice()));
                return again;
            }
        }
    }

    /// What is in a lane and marked does not come again because something else of its batch does:
    /// it would be stored there once more, each time.
    async fn pass_part(&self, next: &Hop<AdmittedFrame>, events: Vec<AdmittedEvent>) -> Again {
        if !self.ports.room.is_short() && !self.ports.lanes.holds_any() {
            self.shares().forget();
            return pass(next, events).await;
        }
        if self.paused().is_some_and(|until| Instant::now() < until) {
            return pass(next, events).await;
        }
        let above = {
            let (mut shares, now) = (self.shares(), Instant::now());
            shares.drained(self.ports.lanes.take_drained(now), now);
            shares.above(tenants(&events), now)
        };
        let (spilled, direct): (Vec<_>, Vec<_>) =
            events.into_iter().partition(|event| above.contains(&event.event.tenant));
        let direct = pass(next, direct);
        let spilled = async {
            let all = sequences(&spilled);
            match self.spill(spilled).await {
                Some(refused) => pass(next, refused).await,
                None => all,
            }
        };
        let (mut again, spilled) = tokio::join!(direct, spilled);
        again.extend(spilled);
        again
    }

    /// Stores events in their lanes; says which were not taken, once all others are marked. None
    /// when they could not be marked.
    async fn spill(&self, events: Vec<AdmittedEvent>) -> Option<Vec<AdmittedEvent>> {
        let stored = stream::iter(frames(events))
            .map(|(lane, frame)| self.store(lane, frame))
            .buffer_unordered(FRAMES_AT_ONCE);
        let (up_to, refused) = stored
            .fold((None, Vec::new()), |(up_to, mut refused), stored| async move {
                match stored {
                    Ok(sequence) => (up_to.max(Some(sequence)), refused),
                    Err(frame) => {
                        refused.extend(frame.events);
                        (up_to, refused)
                    }
                }
            })
            .await;
        if let Some(up_to) = up_to {
            self.ports.lanes.wake();
            if !self.marks.store(&self.ports, up_to).await {
                *self.paused() = Some(Instant::now() + MARK_FAILED_PAUSE);
                return None;
            }
        }
        Some(refused)
    }

    /// Where a frame is stored, or the frame again.
    async fn store(&self, lane: u16, frame: AdmittedFrame) -> Result<u64, AdmittedFrame> {
        if self.full().get(&lane).is_some_and(|until| Instant::now() < *until) {
            return Err(frame);
        }
        let Ok(bytes) = frame.encode() else { return Err(frame) };
        let subject = subjects::waiting(lane);
        match publish_known(&self.ports.publisher, &subject, bytes.into()).await {
            PublishOutcome::Stored { sequence, .. } => Ok(sequence),
            // What may be there all the same is passed on too, and recognised by its positions.
            PublishOutcome::Refused { .. } | PublishOutcome::Unknown => {
                self.full().insert(lane, Instant::now() + LANE_FULL_PAUSE);
                Err(frame)
            }
        }
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        // Nobody panics while holding it.
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn paused(&self) -> MutexGuard<'_, Option<Instant>> {
        // Nobody panics while holding it.
        self.paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn full(&self) -> MutexGuard<'_, BTreeMap<u16, Instant>> {
        // Nobody panics while holding it.
        self.full.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tenants(events: &[AdmittedEvent]) -> impl Iterator<Item = &Tenant> + Clone {
    events.iter().map(|event| &event.event.tenant)
}

/// The messages that the events are of, in their order.
fn sequences(events: &[AdmittedEvent]) -> Again {
    let mut sequences: Again = events.iter().map(|event| event.source.sequence).collect();
    sequences.dedup();
    sequences
}

/// Passes events on, all or none of them.
pub(super) async fn pass(next: &Hop<AdmittedFrame>, events: Vec<AdmittedEvent>) -> Again {
    let all = sequences(&events);
    match events.is_empty() || next.pass(AdmittedFrame { events }).await {
        true => Again::new(),
        false => all,
    }
}

/// Frames of bounded size, each for one lane, in order of arrival within a lane.
fn frames(events: Vec<AdmittedEvent>) -> Vec<(u16, AdmittedFrame)> {
    let mut open: BTreeMap<u16, (AdmittedFrame, usize)> = BTreeMap::new();
    let mut frames = Vec::new();
    for event in events {
        let lane = lane_of(event.event.tenant.as_str());
        let bytes = bytes_of(&event);
        let (frame, filled) =
            open.entry(lane).or_insert_with(|| (AdmittedFrame { events: Vec::new() }, 0));
        let is_full = frame.events.len() >= LANE_FRAME_EVENTS_MAX
            || *filled + bytes > LANE_FRAME_BYTES_TARGET;
        if is_full && !frame.events.is_empty() {
            frames.push((lane, AdmittedFrame { events: std::mem::take(&mut frame.events) }));
            *filled = 0;
        }
        *filled += bytes;
        frame.events.push(event);
    }
    frames.extend(open.into_iter().map(|(lane, (frame, _))| (lane, frame)));
    frames
}

fn bytes_of(event: &AdmittedEvent) -> usize {
    let raw = match &event.admission {
        Admission::Admitted { raw } => raw.len(),
        Admission::Rejected(rejection) => rejection.detail.len(),
    };
    let signal = event.correlation.as_ref();
    let signal = signal.map_or(0, |signal| signal.key.len() + signal.data.json.as_str().len());
    EVENT_BYTES + raw + signal
}

/// The marks of a listener: each speaks for all frames that were stored before it.
#[derive(Debug, Default)]
struct Marks {
    asked: Mutex<Asked>,
    /// Up to which request marks are stored, and when the last one was.
    stored: tokio::sync::Mutex<(u64, Option<Instant>)>,
}

/// What is to be marked.
#[derive(Debug, Default)]
struct Asked {
    requests: u64,
    up_to: u64,
}

impl Marks {
    /// Waits until a mark is stored that speaks for everything up to `up_to`; false when it is not
    /// known to be.
    async fn store(&self, ports: &Ports, up_to: u64) -> bool {
        let request = {
            let mut asked = self.asked();
            asked.requests += 1;
            asked.up_to = asked.up_to.max(up_to);
            asked.requests
        };
        let mut stored = self.stored.lock().await;
        if stored.0 >= request {
            return true;
        }
        if let Some(last) = stored.1 {
            let kept = u32::try_from(ports.lanes.marks_kept()).unwrap_or(u32::MAX);
            sleep_until(last + MARK_INTERVAL * (1 + kept / MARKS_PER_INTERVAL)).await;
        }
        // Sequences only grow: a mark may stand for more than was asked for, and never for less.
        let (requests, up_to) = {
            let asked = self.asked();
            (asked.requests, asked.up_to)
        };
        let Ok(bytes) = (WaitingMark { up_to }).encode() else { return false };
        let is_stored = publish(&ports.publisher, subjects::ADMITTED, bytes.into()).await;
        stored.1 = Some(Instant::now());
        if is_stored {
            stored.0 = requests;
        }
        is_stored
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        // Nobody panics while holding it.
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use fermata_core::command::EventReference;
    use fermata_core::identity::SourcePosition;
    use proptest::prelude::*;

    use super::*;

    fn event(tenant: u8, sequence: u64, bytes: usize) -> AdmittedEvent {
        let text = || Arc::from("");
        AdmittedEvent {
            event: EventReference {
                tenant: format!("t{tenant}").parse().expect("a tenant"),
                id: text(),
                source: text(),
                kind: text(),
                traceparent: None,
                hops: 0,
                breach: None,
                replayed: None,
            },
            key: [0; 16],
            source: SourcePosition { sequence, index: 0 },
            replay: None,
            admission: Admission::Admitted { raw: Bytes::from(vec![b' '; bytes]) },
            correlation: None,
        }
    }

    proptest! {
        #[test]
        fn every_event_is_in_one_frame_of_its_lane_in_order_and_turns_are_bounded(
            sizes in prop::collection::vec((0..40_u8, 0..40_000_usize), 0..600),
        ) {
            let numbered = sizes.iter().zip(0..);
            let events = numbered.map(|((tenant, bytes), at)| event(*tenant, at, *bytes));
            let events = events.collect::<Vec<_>>();

            let frames = frames(events.clone());

            let mut found: BTreeMap<u16, Vec<AdmittedEvent>> = BTreeMap::new();
            for (lane, frame) in frames {
                prop_assert!(!frame.events.is_empty());
                prop_assert!(frame.events.len() <= LANE_FRAME_EVENTS_MAX);
                let bytes = frame.events.iter().map(bytes_of).sum::<usize>();
                prop_assert!(bytes <= LANE_FRAME_BYTES_TARGET || frame.events.len() == 1);
                prop_assert!(frame.encode().is_ok());
                found.entry(lane).or_default().extend(frame.events);
            }
            for (lane, found) in &found {
                let of_lane = |event: &&AdmittedEvent| lane_of(event.event.tenant.as_str()) == *lane;
                let expected = events.iter().filter(of_lane).cloned().collect::<Vec<_>>();
                prop_assert_eq!(found, &expected);
            }
            prop_assert_eq!(found.values().map(Vec::len).sum::<usize>(), events.len());
        }
    }
}
