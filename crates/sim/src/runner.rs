//! The in-process runner of effects, and the receiver that counts commits.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use fermata_core::effect::{Attempt, AttemptWork, EffectKey, Outcome};
use fermata_core::identity::RunId;
use fermata_core::json::Json;
use fermata_core::plan::FailureClass;
use fermata_core::run::AttemptReport;

use crate::dice::Dice;
use crate::scenario::Faults;

/// What a process works on, and what it holds for its next owner.
#[derive(Debug, Default)]
pub(crate) struct Runner {
    /// Under way, by a token of this start.
    pub(crate) running: BTreeMap<u64, Attempt>,
    /// Ended, and no owner in this process has committed them.
    pub(crate) results: Vec<AttemptReport>,
    /// Outcomes on their way to COMMANDS, until acknowledged.
    pub(crate) outbox: BTreeMap<u64, Bytes>,
}

impl Runner {
    /// What the next owner in this process need not order again.
    pub(crate) fn live(&self) -> HashSet<(EffectKey, u32)> {
        let results = self.results.iter().map(|report| {
            let key = EffectKey::of_node(report.run, report.node.clone(), report.activation);
            (key, report.attempt)
        });
        let running = self.running.values().map(|attempt| (attempt.key(), attempt.attempt));
        running.chain(results).collect()
    }

    /// Tokens of the attempts of a run.
    pub(crate) fn of_run(&self, run: RunId) -> Vec<u64> {
        let of_run = self.running.iter().filter(|(_, attempt)| attempt.run == run);
        of_run.map(|(token, _)| *token).collect()
    }
}

/// The report of an attempt.
pub(crate) fn report_of(attempt: &Attempt, outcome: Outcome) -> AttemptReport {
    AttemptReport {
        run: attempt.run,
        node: attempt.node.clone(),
        activation: attempt.activation,
        attempt: attempt.attempt,
        tenant: Some(attempt.tenant.clone()),
        outcome,
    }
}

/// How an attempt will go.
#[derive(Debug)]
pub(crate) struct Course {
    /// When the receiver commits, milliseconds from the start.
    pub(crate) commits_after_ms: Option<u64>,
    /// When the runner knows, milliseconds from the start.
    pub(crate) ends_after_ms: u64,
    /// What the runner learns.
    pub(crate) outcome: Outcome,
}

fn failed(class: FailureClass) -> Outcome {
    Outcome::Failed { class, detail: class.as_str().to_owned() }
}

impl Course {
    pub(crate) fn draw(attempt: &Attempt, faults: &Faults, dice: &mut Dice) -> Self {
        let fails = dice.chance(faults.attempt_fails);
        let AttemptWork::Http { path, .. } = &attempt.work else {
            let slow = if fails { dice.between(1_000, 20_000) } else { dice.between(1, 60) };
            let outcome = Outcome::Succeeded { output: Json::null() };
            return Self { commits_after_ms: None, ends_after_ms: slow, outcome };
        };
        let slow = if &**path == "/slow" { 3_000 } else { 300 };
        let commit = dice.between(1, slow);
        let end = commit + dice.between(1, slow);
        let course = |commits_after_ms, ends_after_ms, outcome| Self {
            commits_after_ms,
            ends_after_ms,
            outcome,
        };
        if !fails {
            let output = Json::from_value(&serde_json_answer(attempt));
            return course(Some(commit), end, Outcome::Succeeded { output });
        }
        let limit = attempt.timeout_ms;
        match dice.below(6) {
            0 | 1 => course(None, end, failed(FailureClass::Http5xx)),
            2 => course(Some(commit), end, failed(FailureClass::Connect)),
            3 => course(None, limit, failed(FailureClass::Timeout)),
            4 => course(Some(limit + dice.below(9_000)), limit, failed(FailureClass::Timeout)),
            _ => course(None, end, failed(FailureClass::Http4xx)),
        }
    }
}

/// The answer is a function of the effect, as a receiver that knows the key gives it.
fn serde_json_answer(attempt: &Attempt) -> serde_json::Value {
    serde_json::json!({ "key": attempt.key().to_string() })
}

/// The receiver behind every call.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    keys: BTreeSet<String>,
}

impl Sink {
    /// Whether the call commits something: a receiver that honours keys
    /// commits each key once, the other one whatever comes.
    pub(crate) fn commits(&mut self, attempt: &Attempt) -> bool {
        match &attempt.work {
            AttemptWork::Http { path, .. } if &**path == "/pay" => true,
            AttemptWork::Http { .. }
            | AttemptWork::Emit { .. }
            | AttemptWork::Nats { .. }
            | AttemptWork::Command { .. } => self.keys.insert(attempt.key().to_string()),
            AttemptWork::Noop => false,
        }
    }
}
