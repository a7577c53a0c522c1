//! What comes in: a model of the listener and of operators, who publish command
//! frames until they are acknowledged.

use std::sync::Arc;

use bytes::Bytes;
use fermata_core::command::{
    CancelCommand, Command, Correlation, EventCommand, EventReference, StartRun, Verdict,
};
use fermata_core::digest::{Digest, hash_parts_128};
use fermata_core::identity::{PartitionId, RunId, SourcePosition, Tenant};
use fermata_core::json::Json;
use fermata_core::relay::SignalData;
use fermata_core::review::{Resolution, ResolveCommand};
use fermata_wire::commands::CommandFrame;
use uuid::Uuid;

use crate::dice::Dice;
use crate::invariants::EventSource;
use crate::trace::Broken;

/// Events of one batch.
const BATCH_MAX: u64 = 3;

/// Names of the strategies; each starts its own run of an event.
const STRATEGIES: [&str; 2] = ["first", "second"];

/// Different correlation keys: few, so that waits and events meet.
const CORRELATION_KEYS: u64 = 4;

/// Something to publish until it is acknowledged.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) kind: ItemKind,
    pub(crate) acknowledged: bool,
}

#[derive(Debug)]
pub(crate) enum ItemKind {
    /// A message of EVENTS.
    Events { sequence: u64, keys: Vec<u64> },
    /// Somebody cancels the runs of an event.
    Cancel { id: Uuid, run: RunId },
    /// Somebody replays an event with authority.
    Replay { id: Uuid, source: SourcePosition, key: u64 },
    /// Bytes that are no frame.
    Garbage(Bytes),
    /// Somebody resolves a review case, or says something else about it later.
    Resolve { case: Uuid, resolution: Resolution, source: SourcePosition },
}

/// Everything that comes in.
pub(crate) struct Load {
    tenant: Tenant,
    partition: PartitionId,
    plans: Vec<Digest>,
    items: Vec<Item>,
}

impl Load {
    pub(crate) fn new(partition: PartitionId, plans: Vec<Digest>) -> Result<Self, Broken> {
        let tenant =
            "acme".parse().map_err(|error| Broken::new("load_is_sound", format!("{error}")))?;
        Ok(Self { tenant, partition, plans, items: Vec::new() })
    }

    /// Draws everything that comes in; returns how many items there are.
    pub(crate) fn draw(&mut self, events: u64, garbage: u32, dice: &mut Dice) -> usize {
        for sequence in 1..=events {
            // A key that came before makes a repeat.
            let keys = (0..dice.between(1, BATCH_MAX))
                .map(|index| match dice.chance(150) {
                    true => dice.below(sequence * BATCH_MAX),
                    false => sequence * BATCH_MAX + index,
                })
                .collect::<Vec<_>>();
            let source = SourcePosition { sequence, index: 0 };
            let first = keys.first().copied().unwrap_or(0);
            self.push(ItemKind::Events { sequence, keys });
            let id = Uuid::from_bytes(dice.bytes16());
            if dice.chance(150) {
                let run = self.run_id(first, source, STRATEGIES.first().copied().unwrap_or(""));
                self.push(ItemKind::Cancel { id, run });
            } else if dice.chance(80) {
                self.push(ItemKind::Replay { id, source, key: first });
            }
            if dice.chance(garbage) {
                let length = dice.between(0, 40);
                let bytes = (0..length).map(|_| u8::try_from(dice.below(256)).unwrap_or(0));
                let bytes = bytes.collect::<Bytes>();
                self.push(ItemKind::Garbage(bytes));
            }
            if dice.chance(60) {
                let resolution = match dice.below(3) {
                    0 => Resolution::Close,
                    1 => Resolution::Retry,
                    _ => Resolution::Route { strategy: "first".into() },
                };
                // Few cases, so that one is resolved several times.
                let case = self.case(dice.below(8));
                self.push(ItemKind::Resolve { case, resolution, source });
            }
        }
        self.items.len()
    }

    fn case(&self, number: u64) -> Uuid {
        let mut bytes = [0; 16];
        let prefix = self.partition.0.to_be_bytes();
        let parts = prefix.into_iter().chain(number.to_be_bytes());
        bytes.iter_mut().zip(parts).for_each(|(byte, value)| *byte = value);
        Uuid::from_bytes(bytes)
    }

    fn push(&mut self, kind: ItemKind) {
        self.items.push(Item { kind, acknowledged: false });
    }

    /// The bytes of an item; matching may decide otherwise each time.
    pub(crate) fn frame(&self, item: usize, dice: &mut Dice) -> Result<Option<Bytes>, Broken> {
        let Some(item) = self.items.get(item) else { return Ok(None) };
        let commands = match &item.kind {
            ItemKind::Garbage(bytes) => return Ok(Some(bytes.clone())),
            ItemKind::Cancel { id, run } => vec![Command::Cancel(CancelCommand {
                id: *id,
                run: *run,
                by: "operator".to_owned(),
                reason: "changed my mind".to_owned(),
                reply_to: Some("reply".into()),
            })],
            ItemKind::Events { sequence, keys } => (0..)
                .zip(keys)
                .map(|(index, key)| {
                    let source = SourcePosition { sequence: *sequence, index };
                    let verdict = self.verdict(*key, dice);
                    Command::Event(self.event(source, *key, None, verdict))
                })
                .collect(),
            ItemKind::Resolve { case, resolution, source } => {
                vec![Command::Resolve(ResolveCommand {
                    case: *case,
                    tenant: self.tenant.clone(),
                    run: None,
                    resolution: resolution.clone(),
                    by: "operator".to_owned(),
                    reason: "looked at".to_owned(),
                    events: vec![*source],
                    left_out: 0,
                    reply_to: Some("reply".into()),
                })]
            }
            ItemKind::Replay { id, source, key } => {
                let verdict = self.verdict(*key, dice);
                vec![Command::Event(self.event(*source, *key, Some(*id), verdict))]
            }
        };
        let frame = CommandFrame { floor: self.floor(), commands }
            .encode()
            .map_err(|error| Broken::new("load_is_sound", error.to_string()))?;
        Ok(Some(frame.into()))
    }

    fn event(
        &self,
        source: SourcePosition,
        key: u64,
        replay: Option<Uuid>,
        verdict: Verdict,
    ) -> EventCommand {
        let event = EventReference {
            tenant: self.tenant.clone(),
            id: format!("event-{key}").into(),
            source: "simulation".into(),
            kind: ["order.placed", "order.paid"]
                .get(usize::from(key.is_multiple_of(2)))
                .copied()
                .unwrap_or("order")
                .into(),
            traceparent: None,
            hops: 0,
            breach: None,
            replayed: None,
        };
        let key_hash = Self::key_hash(key);
        // Which events have a correlation key is no choice of matching.
        let correlation = key.is_multiple_of(3).then(|| {
            let correlation_key = format!("k{}", (key / 3) % CORRELATION_KEYS).into();
            Box::new(Correlation { key: correlation_key, data: SignalData::default() })
        });
        EventCommand { event, key: key_hash, source, replay, verdict, correlation }
    }

    fn verdict(&self, key: u64, dice: &mut Dice) -> Verdict {
        match dice.below(20) {
            0 => Verdict::Ignored { strategy: "quiet".into() },
            1 | 2 => Verdict::Unmatched { near: Vec::new() },
            3 => Verdict::Rejected {
                reason: "contract".into(),
                detail: "no such field".to_owned(),
                original: Digest::of(b"original"),
            },
            4 => {
                let mut runs = self.runs(key, 1, dice);
                for run in &mut runs {
                    run.plan = Digest::of(b"nobody has this plan");
                }
                Verdict::Start { runs }
            }
            5 => self.start(key, 2, dice),
            _ => self.start(key, 1, dice),
        }
    }

    fn start(&self, key: u64, count: usize, dice: &mut Dice) -> Verdict {
        Verdict::Start { runs: self.runs(key, count, dice) }
    }

    fn runs(&self, key: u64, count: usize, dice: &mut Dice) -> Vec<StartRun> {
        STRATEGIES
            .iter()
            .take(count)
            .filter_map(|strategy| {
                let plan = usize::try_from(dice.below(self.plans.len() as u64)).ok()?;
                Some(StartRun {
                    strategy: Arc::from(*strategy),
                    strategy_version: 1,
                    plan: *self.plans.get(plan)?,
                    input: Json::from_text(&format!(
                        "{{\"n\":{},\"key\":\"k{}\"}}",
                        key % 12,
                        key % CORRELATION_KEYS
                    ))
                    .ok()?,
                })
            })
            .collect()
    }

    fn key_hash(key: u64) -> u128 {
        hash_parts_128(&[b"key", &key.to_be_bytes()])
    }

    fn run_id(&self, key: u64, source: SourcePosition, strategy: &str) -> RunId {
        RunId::new(self.partition, &self.tenant, Self::key_hash(key), source, strategy, None)
    }

    /// Every event message at or below this sequence is acknowledged.
    pub(crate) fn floor(&self) -> u64 {
        let sequences = self.items.iter().filter_map(|item| match &item.kind {
            ItemKind::Events { sequence, .. } => Some((*sequence, item.acknowledged)),
            ItemKind::Cancel { .. }
            | ItemKind::Replay { .. }
            | ItemKind::Garbage(_)
            | ItemKind::Resolve { .. } => None,
        });
        sequences.take_while(|(_, done)| *done).last().map_or(0, |(sequence, _)| sequence)
    }

    /// An item is stored; returns the events and the cancel that it holds.
    pub(crate) fn acknowledge(&mut self, item: usize) -> (Vec<EventSource>, Option<Uuid>) {
        let Some(item) = self.items.get_mut(item) else { return (Vec::new(), None) };
        item.acknowledged = true;
        match &item.kind {
            ItemKind::Events { sequence, keys } => {
                let count = u32::try_from(keys.len()).unwrap_or(u32::MAX);
                let places = 0..count;
                let sources =
                    places.map(|index| (SourcePosition { sequence: *sequence, index }, None));
                (sources.collect(), None)
            }
            ItemKind::Cancel { id, .. } => (Vec::new(), Some(*id)),
            ItemKind::Replay { id, source, .. } => (vec![(*source, Some(*id))], None),
            ItemKind::Garbage(_) | ItemKind::Resolve { .. } => (Vec::new(), None),
        }
    }

    pub(crate) fn is_acknowledged(&self, item: usize) -> bool {
        self.items.get(item).is_none_or(|item| item.acknowledged)
    }

    pub(crate) fn all_acknowledged(&self) -> bool {
        self.items.iter().all(|item| item.acknowledged)
    }
}
