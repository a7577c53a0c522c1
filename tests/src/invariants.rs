//! What must hold of a journal whatever happened to the processes. Each
//! function names what it found wrong; nothing means that it holds.

use std::collections::{BTreeMap, BTreeSet};

use fermata_core::identity::{RunId, SourcePosition};
use fermata_core::record::{Body, Header, Kind};

use crate::journal::Entry;
use crate::sink::SeenEffect;

/// Every one of `accepted` has exactly one record that says what became of it.
#[must_use]
pub fn invariant_each_event_has_one_outcome(
    records: &[Entry],
    accepted: impl IntoIterator<Item = SourcePosition>,
) -> Vec<String> {
    let mut outcomes: BTreeMap<SourcePosition, u32> = BTreeMap::new();
    for (_, record) in records {
        if let Some(source) = source_of(&record.body) {
            *outcomes.entry(source).or_default() += 1;
        }
    }
    accepted
        .into_iter()
        .filter_map(|source| match outcomes.get(&source) {
            Some(1) => None,
            found => Some(format!("event {source} has {} outcomes", found.copied().unwrap_or(0))),
        })
        .collect()
}

/// No event has an outcome twice, and no key starts work twice.
#[must_use]
pub fn invariant_no_key_starts_twice(records: &[Entry]) -> Vec<String> {
    let mut started = BTreeSet::new();
    let mut wrong = Vec::new();
    for (_, record) in records {
        if let Body::EventStarted(event) = &record.body
            && !started.insert(event.key)
            && event.replay.is_none()
        {
            wrong.push(format!("event {} starts work again", event.source));
        }
    }
    wrong
}

/// Every run that began has one terminal record, and none of its own after it.
#[must_use]
pub fn invariant_each_run_ends_once(records: &[Entry]) -> Vec<String> {
    let mut runs: BTreeMap<RunId, u32> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (header, _) in records {
        let Some(run) = header.run else { continue };
        if header.kind == Kind::RunStarted && runs.insert(run, 0).is_some() {
            wrong.push(format!("run {run} began again"));
        }
        if !is_of_the_run(header.kind) {
            continue;
        }
        match runs.get_mut(&run) {
            None => {
                wrong.push(format!("record {} is of run {run}, which never began", header.index))
            }
            Some(ended) if *ended > 0 => {
                wrong.push(format!(
                    "record {} ({}) follows the end of run {run}",
                    header.index,
                    header.kind.as_str()
                ));
            }
            Some(ended) => *ended += u32::from(header.kind.ends_run()),
        }
    }
    wrong.extend(
        runs.iter()
            .filter(|(_, ended)| **ended == 0)
            .map(|(run, _)| format!("run {run} never ended")),
    );
    wrong
}

/// No effect key has two recorded outcomes; each that was ordered has one, unless its run was
/// closed while it waited to be tried again.
#[must_use]
pub fn invariant_each_effect_has_one_outcome(records: &[Entry]) -> Vec<String> {
    let mut effects: BTreeMap<String, u32> = BTreeMap::new();
    let (mut between_attempts, mut given_up) = (BTreeMap::new(), BTreeSet::new());
    for (header, _) in records {
        let Some(run) = header.run else { continue };
        if header.kind == Kind::NodeRetrying {
            let waiting: &mut BTreeSet<String> = between_attempts.entry(run).or_default();
            waiting.extend(key_of(header));
        }
        if header.kind == Kind::RunClosing || header.kind == Kind::RunCancelled {
            given_up.extend(between_attempts.remove(&run).unwrap_or_default());
        }
        let Some(key) = effect_key(header) else { continue };
        if let Some(waiting) = between_attempts.get_mut(&run) {
            waiting.remove(&key);
        }
        let outcomes = effects.entry(key).or_default();
        *outcomes += u32::from(is_outcome(header.kind));
    }
    let wanted = |key: &String| u32::from(!given_up.contains(key));
    let wrong = effects.into_iter().filter(|(key, outcomes)| *outcomes != wanted(key));
    wrong.map(|(key, outcomes)| format!("effect {key} has {outcomes} outcomes")).collect()
}

/// The sink committed each key at most once, each that succeeded exactly once,
/// and every attempt of a key carried the same body.
#[must_use]
pub fn invariant_each_effect_is_committed_once(
    records: &[Entry],
    effects: &BTreeMap<String, SeenEffect>,
    is_http: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut wrong = Vec::new();
    for (key, effect) in effects {
        if effect.commits > 1 {
            wrong.push(format!("{key} was committed {} times", effect.commits));
        }
        if effect.other_bodies > 0 {
            wrong.push(format!("{key} came with {} other bodies", effect.other_bodies));
        }
    }
    for (header, _) in records {
        let succeeded = header.kind == Kind::NodeSucceeded;
        if !succeeded || !header.node.as_deref().is_some_and(&is_http) {
            continue;
        }
        let Some(key) = effect_key(header) else { continue };
        let commits = effects.get(&key).map_or(0, |effect| effect.commits);
        if commits != 1 {
            wrong.push(format!("{key} succeeded with {commits} commits"));
        }
    }
    wrong
}

/// Every attempt that reached the sink was ordered by a record first.
#[must_use]
pub fn invariant_each_attempt_was_ordered(
    records: &[Entry],
    effects: &BTreeMap<String, SeenEffect>,
) -> Vec<String> {
    let ordered = records
        .iter()
        .filter(|(header, _)| header.kind == Kind::NodeDispatched)
        .filter_map(|(header, _)| Some((effect_key(header)?, header.attempt?)))
        .collect::<BTreeSet<_>>();
    let seen = effects.iter().flat_map(|(key, effect)| {
        effect.attempts.iter().map(move |attempt| (key.clone(), *attempt))
    });
    seen.filter(|attempt| !ordered.contains(attempt))
        .map(|(key, attempt)| format!("attempt {attempt} of {key} was never ordered"))
        .collect()
}

/// Epochs rise from owner to owner.
#[must_use]
pub fn invariant_epochs_rise(records: &[Entry]) -> Vec<String> {
    let mut last = 0;
    let mut wrong = Vec::new();
    for (_, record) in records {
        if let Body::PartitionOwned(owned) = &record.body {
            if owned.epoch <= last {
                wrong.push(format!("epoch {} follows {last}", owned.epoch));
            }
            last = owned.epoch;
        }
    }
    wrong
}

/// The key that the sink sees for the effect of a record.
#[must_use]
pub fn effect_key(header: &Header) -> Option<String> {
    let counts = header.kind == Kind::NodeDispatched || is_outcome(header.kind);
    counts.then(|| key_of(header)).flatten()
}

fn key_of(header: &Header) -> Option<String> {
    // A node without an attempt touches nothing: it has no effect.
    let (run, node, _) = (header.run?, header.node.as_deref()?, header.attempt?);
    Some(format!("{run}/{node}/{}", header.activation))
}

fn is_outcome(kind: Kind) -> bool {
    matches!(kind, Kind::NodeSucceeded | Kind::NodeFailed | Kind::NodeUnknown)
}

/// Cases, late outcomes and answers to cancels name a run and are not its own.
fn is_of_the_run(kind: Kind) -> bool {
    kind.as_str().starts_with("run.") || kind.as_str().starts_with("node.")
}

/// Where the event stood whose outcome a record is.
#[must_use]
pub fn source_of(body: &Body) -> Option<SourcePosition> {
    if !body.kind().is_event_outcome() {
        return None;
    }
    match body {
        Body::EventStarted(event) => Some(event.source),
        Body::EventIgnored(event) => Some(event.source),
        Body::EventUnmatched(event) => Some(event.source),
        Body::EventRejected(event) => Some(event.source),
        Body::EventRepeated(event) => Some(event.source),
        Body::EventSignalled(event) => Some(event.source),
        _ => None,
    }
}
