//! What comes in: events that start runs which wait, and events with
//! correlation keys that some of them wait for.

use bytes::Bytes;
use fermata_core::command::{
    CancelCommand, Command, Correlation, EventCommand, EventReference, StartRun, Verdict,
};
use fermata_core::digest::{Digest, hash_parts_128};
use fermata_core::identity::{PartitionId, RunId, SourcePosition, Tenant};
use fermata_core::json::Json;
use fermata_core::relay::SignalData;
use fermata_wire::commands::CommandFrame;
use uuid::Uuid;

use crate::dice::Dice;
use crate::trace::Broken;

/// Different correlation keys: few, so that waits and events meet.
const KEYS: u64 = 7;

/// One frame to publish to a partition until it is stored.
pub(super) struct Item {
    pub(super) partition: PartitionId,
    pub(super) frame: Bytes,
    pub(super) stored: bool,
}

fn broken(error: impl std::fmt::Display) -> Broken {
    Broken::new("load_is_sound", error.to_string())
}

/// Draws everything that comes in.
pub(super) fn draw(
    events: u64,
    partitions: u16,
    plan: Digest,
    dice: &mut Dice,
) -> Result<Vec<Item>, Broken> {
    let tenant: Tenant = "acme".parse().map_err(broken)?;
    let mut items = Vec::new();
    for sequence in 1..=events {
        let key = hash_parts_128(&[b"key", &sequence.to_be_bytes()]);
        let partition = PartitionId(u16::try_from(dice.below(u64::from(partitions))).unwrap_or(0));
        let source = SourcePosition { sequence, index: 0 };
        let correlation = dice.below(KEYS);
        let waits = dice.chance(500);
        let kind = ["order.paid", "order.sent"].get(usize::from(dice.chance(400)));
        let event = EventReference {
            tenant: tenant.clone(),
            id: format!("event-{sequence}").into(),
            source: "simulation".into(),
            kind: if waits { "order.placed" } else { kind.copied().unwrap_or("order") }.into(),
            traceparent: None,
            hops: 0,
            breach: None,
            replayed: None,
        };
        let start = StartRun {
            strategy: "wait".into(),
            strategy_version: 1,
            plan,
            input: Json::from_text(&format!("{{\"key\":\"k{correlation}\"}}")).map_err(broken)?,
        };
        let starts = waits || dice.chance(100);
        let verdict = match (starts, dice.chance(200)) {
            (true, _) => Verdict::Start { runs: vec![start] },
            (false, true) => Verdict::Ignored { strategy: "quiet".into() },
            (false, false) => Verdict::Unmatched { near: Vec::new() },
        };
        let signalled = !waits || dice.chance(100);
        let correlation = signalled.then(|| {
            let data = SignalData { json: Json::null(), omitted_bytes: None };
            Box::new(Correlation { key: format!("k{correlation}").into(), data })
        });
        let command = EventCommand { event, key, source, replay: None, verdict, correlation };
        items.push(item(partition, Command::Event(command))?);
        if starts && dice.chance(150) {
            let cancel = CancelCommand {
                id: Uuid::from_bytes(dice.bytes16()),
                run: RunId::new(partition, &tenant, key, source, "wait", None),
                by: "operator".to_owned(),
                reason: "changed my mind".to_owned(),
                reply_to: None,
            };
            items.push(item(partition, Command::Cancel(cancel))?);
        }
    }
    Ok(items)
}

fn item(partition: PartitionId, command: Command) -> Result<Item, Broken> {
    let frame = CommandFrame { floor: 0, commands: vec![command] }.encode().map_err(broken)?;
    Ok(Item { partition, frame: frame.into(), stored: false })
}
