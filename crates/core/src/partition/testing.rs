//! Events for tests of a partition.

use uuid::Uuid;

use crate::command::{Command, EventCommand, EventReference, StartRun, Verdict};
use crate::digest::Digest;
use crate::identity::SourcePosition;
use crate::json::Json;

/// An event of the tenant `acme` at this sequence of EVENTS, with a key of its own.
pub(super) fn event(sequence: u64, replay: Option<Uuid>, verdict: Verdict) -> Command {
    let event = EventReference {
        tenant: "acme".parse().unwrap(),
        id: sequence.to_string().into(),
        source: "test".into(),
        kind: "test".into(),
        traceparent: None,
        hops: 0,
        breach: None,
        replayed: None,
    };
    let source = SourcePosition { sequence, index: 0 };
    let (key, correlation) = (u128::from(sequence), None);
    Command::Event(EventCommand { event, key, source, replay, verdict, correlation })
}

/// It starts one run of the plan with the digest of `plan`.
pub(super) fn start() -> Verdict {
    let run = StartRun {
        strategy: "test".into(),
        strategy_version: 1,
        plan: Digest::of(b"plan"),
        input: Json::null(),
    };
    Verdict::Start { runs: vec![run] }
}
