//! The events of the demonstration and what they must come to.
//!
//! The figures are counted while the events are made up, from what the two
//! example workflows and the strategies say; the engine is never asked. A test
//! holds them against the strategies.

mod events;

use std::collections::BTreeMap;

use fermata_jetstream::Bytes;
use serde::Serialize;

use crate::demo::plugin_server::Behaviour;
use events::{Making, Step};

/// How many events the demonstration publishes when nothing else is said.
pub const EVENTS_DEFAULT: u32 = 200;

/// Fewest events: with fewer some kind of event would be missing.
pub const EVENTS_MIN: u32 = 40;

/// Most events: they are published at once, and with many more calls would wait for a connection
/// to the plugin beyond their time limits, which is a retry that the scenario does not imply.
pub const EVENTS_MAX: u32 = 5_000;

/// Whose events most are.
pub const TENANT: &str = "acme";

/// Whose the others are.
pub const OTHER_TENANT: &str = "globex";

/// Name of the workflow that reports on jobs.
pub const REPORT: &str = "job-report";

/// Name of the workflow that handles requests.
pub const REQUEST: &str = "request-handling";

/// Requests of at least this amount are assessed by a plugin.
pub const LARGE_AMOUNT: u32 = 1_000;

/// How far behind its first copy a repeated event comes, in events.
const REPEAT_DISTANCE: usize = 20;

/// The path of the plugin that fails once for each request and then succeeds.
pub const FLAKY_PATH: &str = "/plugin/runtime/assessor/execute";

/// One message to publish, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScenarioMessage {
    /// Where to.
    pub subject: String,
    /// Media type for the header `Content-Type`.
    pub content_type: &'static str,
    /// The bytes.
    pub payload: Bytes,
    /// How many events it holds.
    pub events: u32,
}

/// What all messages together must come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// Events published, each of a batch counted.
    pub events: u32,
    /// Runs that succeed, by workflow.
    pub runs_succeeded: BTreeMap<&'static str, u32>,
    /// Runs in which an attempt failed and another was made.
    pub runs_with_retry: u32,
    /// Attempts that fail.
    pub attempts_failed: u32,
    /// Events recognised as repeats.
    pub repeats: u32,
    /// Events that a strategy ignores.
    pub ignored: u32,
    /// Events that no strategy takes.
    pub unmatched: u32,
    /// Dead letters by reason code.
    pub dead_letters: BTreeMap<&'static str, u32>,
    /// Effects done by plugins, by path: one per key.
    pub commits: BTreeMap<String, u32>,
}

impl Expected {
    /// Runs that succeed, over all workflows.
    #[must_use]
    pub fn runs(&self) -> u32 {
        self.runs_succeeded.values().sum()
    }

    /// Dead letters, over all reasons.
    #[must_use]
    pub fn dead(&self) -> u32 {
        self.dead_letters.values().sum()
    }
}

/// The whole scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// To publish, in order.
    pub messages: Vec<ScenarioMessage>,
    /// What they must come to.
    pub expected: Expected,
}

/// How many events there are of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shares {
    reports: u32,
    requests: u32,
    repeats: u32,
    ignored: u32,
    unmatched: u32,
    malformed: u32,
}

impl Shares {
    fn of(events: u32) -> Self {
        let events = events.max(EVENTS_MIN);
        let (repeats, ignored, unmatched, malformed) = (events / 20, events / 20, events / 25, 3);
        let working = events - repeats - ignored - unmatched - malformed;
        let reports = working * 3 / 5;
        Self { reports, requests: working - reports, repeats, ignored, unmatched, malformed }
    }
}

impl Scenario {
    /// Makes `events` events up, at least [`EVENTS_MIN`]; the same for the same arguments.
    /// `round` is part of every `source`, so that another round on the same engine repeats
    /// nothing of this one.
    #[must_use]
    pub fn new(events: u32, round: &str) -> Self {
        let shares = Shares::of(events);
        let mut making = Making::new(round);
        let mut steps: Vec<Step> = Vec::new();
        steps.extend((0..shares.reports).map(|number| making.report(number)));
        steps.extend((0..shares.requests).map(|number| making.request(number)));
        steps.extend((0..shares.unmatched).map(|number| making.unmatched(number)));
        steps.extend(making.malformed());
        shuffle(&mut steps);
        let mut steps = with_repeats(steps, shares.repeats);
        making.expect_repeats(shares.repeats);
        // One batch, so that both forms are seen.
        steps.insert(0, making.ignored_batch(shares.ignored));
        let messages: Vec<_> = steps.into_iter().map(|step| step.message).collect();
        let mut expected = making.into_expected();
        expected.events = messages.iter().map(|message| message.events).sum();
        Self { messages, expected }
    }

    /// What the plugin server is to do so that the figures come about.
    #[must_use]
    pub fn behaviours() -> Vec<(String, Behaviour)> {
        vec![(FLAKY_PATH.to_owned(), Behaviour::FailFirst(1))]
    }

    /// The plugins that the workflows call; all are played by the one server.
    #[must_use]
    pub fn plugins() -> [&'static str; 5] {
        ["job-store", "notifier", "pager", "archive", "assessor"]
    }
}

/// Mixes the kinds (Fisher and Yates, with a fixed generator: the order is part of the scenario).
fn shuffle(steps: &mut [Step]) {
    let mut random = 0x5eed_u64;
    for last in (1..steps.len()).rev() {
        // Knuth's MMIX generator; its high bits are the good ones.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bound = u64::try_from(last + 1).unwrap_or(u64::MAX);
        let other = usize::try_from((random >> 33) % bound).unwrap_or(0);
        steps.swap(last, other);
    }
}

/// Puts repeats of the first events that start runs [`REPEAT_DISTANCE`] steps behind them.
fn with_repeats(steps: Vec<Step>, repeats: u32) -> Vec<Step> {
    let mut left = repeats;
    let mut placed: Vec<(usize, Step)> = Vec::new();
    for (place, step) in steps.into_iter().enumerate() {
        if left > 0 && step.starts_run {
            left -= 1;
            placed.push((2 * (place + REPEAT_DISTANCE) + 1, step.clone()));
        }
        placed.push((2 * place, step));
    }
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, step)| step).collect()
}

#[cfg(test)]
mod tests {
    use fermata_core::event::{EventLimits, decode_message, parse_subject};
    use fermata_core::identity::PartitionId;
    use fermata_core::strategy::{Decision, StrategySet};
    use fermata_definitions::{Limits, read_strategies, read_workflow};
    use fermata_jetstream::topology::PARTITIONS_DEFAULT;

    use super::*;
    use crate::demo;

    #[test]
    fn the_same_arguments_make_the_same_events() {
        assert_eq!(Scenario::new(200, "a"), Scenario::new(200, "a"));
        assert_ne!(Scenario::new(200, "a").messages, Scenario::new(200, "b").messages);
    }

    #[test]
    fn every_kind_of_event_is_there_and_the_sum_is_what_was_asked_for() {
        for events in [EVENTS_MIN, 41, 200, 1_003, EVENTS_MAX] {
            let expected = Scenario::new(events, "a").expected;

            assert_eq!(expected.events, events);
            let kinds =
                [expected.repeats, expected.ignored, expected.unmatched, expected.runs_with_retry];
            assert!(kinds.iter().all(|count| *count > 0), "{expected:?}");
            assert_eq!(
                expected.runs()
                    + expected.repeats
                    + expected.ignored
                    + expected.unmatched
                    + expected.dead(),
                events
            );
            assert!(
                expected.runs_succeeded[REQUEST] > expected.runs_with_retry,
                "both branches are taken"
            );
            let slow = expected.commits["/plugin/runtime/pager/execute"];
            assert!(slow > 0 && slow < expected.runs_succeeded[REPORT], "both ways are taken");
        }
    }

    #[test]
    fn as_many_jobs_are_slow_as_the_figures_say() {
        let scenario = Scenario::new(EVENTS_MAX, "a");

        // An event that is repeated counts once.
        let slow = scenario.messages.iter().filter_map(|message| {
            let event: serde_json::Value = serde_json::from_slice(&message.payload).ok()?;
            let job = event["data"]["job_id"].as_str()?.starts_with("job-");
            (job && event["data"]["duration_ms"].as_u64()? > 60_000)
                .then(|| event["id"].to_string())
        });
        let slow = slow.collect::<std::collections::BTreeSet<_>>().len();
        assert_eq!(slow, scenario.expected.commits["/plugin/runtime/pager/execute"] as usize);
    }

    #[test]
    fn the_workflows_of_the_scenario_are_sound_and_call_the_plugins_that_it_names() {
        let mut called = Vec::new();
        for (source, name) in [(demo::REPORT_WORKFLOW, REPORT), (demo::REQUEST_WORKFLOW, REQUEST)] {
            let executable = read_workflow(source, None, &Limits::default()).unwrap();
            assert_eq!(&*executable.plan().workflow, name);
            for node in &executable.plan().nodes {
                if let fermata_core::plan::Work::Http { plugin, path, .. } = &node.work {
                    called.push(plugin.clone());
                    assert!(Scenario::new(200, "a").expected.commits.contains_key(path), "{path}");
                }
            }
        }
        called.sort();
        called.dedup();
        let mut named = Scenario::plugins().map(str::to_owned).to_vec();
        named.sort();
        assert_eq!(called, named);
    }

    /// Two that share one would have two of them when a minute ends in between, and README.md other figures.
    #[test]
    fn no_two_unmatched_events_of_the_demonstration_share_a_case() {
        let scenario = Scenario::new(EVENTS_DEFAULT, "demo");
        let strategies = read_strategies(demo::STRATEGIES, None, &Limits::default()).unwrap();
        let strategies = StrategySet::compile(strategies).unwrap();
        let mut cases = std::collections::BTreeSet::new();
        for message in &scenario.messages {
            let subject = parse_subject(&message.subject).unwrap();
            let content_type = Some(message.content_type);
            let limits = EventLimits::default();
            let events = decode_message(content_type, &message.payload, subject, &limits);
            for event in events.into_iter().flatten() {
                if let Decision::Unmatched { .. } = strategies.decide(&event) {
                    let key = event.idempotency().to_be_bytes();
                    let parts = [event.tenant.as_bytes(), &key];
                    let partition = PartitionId::of(&parts, PARTITIONS_DEFAULT);
                    cases.insert((partition, event.tenant.to_string(), event.kind.to_string()));
                }
            }
        }

        assert_eq!(cases.len(), scenario.expected.unmatched as usize, "{cases:?}");
    }

    /// What the strategies make of the events, without an engine.
    #[test]
    fn the_expected_figures_are_what_the_strategies_say() {
        let scenario = Scenario::new(200, "a");
        let strategies = read_strategies(demo::STRATEGIES, None, &Limits::default()).unwrap();
        let strategies = StrategySet::compile(strategies).unwrap();
        let mut found = Expected { events: scenario.expected.events, ..Expected::default() };
        let mut keys = std::collections::BTreeSet::new();
        for message in &scenario.messages {
            let subject = parse_subject(&message.subject).unwrap();
            let content_type = Some(message.content_type);
            for decoded in
                decode_message(content_type, &message.payload, subject, &EventLimits::default())
            {
                let event = match decoded {
                    Ok(event) => event,
                    Err(rejected) => {
                        *found.dead_letters.entry(rejected.reason.as_str()).or_default() += 1;
                        continue;
                    }
                };
                match strategies.decide(&event) {
                    Decision::Ignored { .. } => found.ignored += 1,
                    Decision::Unmatched { .. } => found.unmatched += 1,
                    Decision::Start { .. } if !keys.insert(event.idempotency()) => {
                        found.repeats += 1
                    }
                    Decision::Start { chosen, .. } => {
                        let workflow = &chosen[0].strategy.workflow().unwrap().name;
                        let name = if workflow == REPORT { REPORT } else { REQUEST };
                        *found.runs_succeeded.entry(name).or_default() += 1;
                    }
                    Decision::Failed { detail, .. } => panic!("{detail}"),
                }
            }
        }

        let expected = Expected {
            commits: BTreeMap::new(),
            runs_with_retry: 0,
            attempts_failed: 0,
            ..scenario.expected
        };
        assert_eq!(found, expected);
    }
}
