//! What two sets of strategies make of the same events.

use std::collections::{BTreeMap, HashSet};

use fermata_core::digest::hash_parts_128;
use fermata_core::event::Event;
use fermata_core::strategy::{Chosen, Decision, StrategySet};
use serde::Serialize;

/// Keys by which repeats are told, at most: as many as a partition keeps. Above, a repeat counts
/// as an event of its own.
const KEYS_MAX: usize = 2_000_000;

/// Runs of one strategy in both sets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    /// The same runs, with the same values.
    pub same: u64,
    /// Runs of another workflow, version or with other values.
    pub changed: u64,
    /// Runs that only the active strategies start.
    pub only_now: u64,
    /// Runs that only the draft starts.
    pub only_draft: u64,
    /// Events for which they differ, the first ones.
    pub samples: Vec<Sample>,
}

/// An event for which the sets differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Sample {
    /// Where it stands in EVENTS.
    pub sequence: u64,
    /// Its `id`.
    pub id: String,
    /// Its `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What differs: `changed`, `only_now` or `only_draft`.
    pub differs: &'static str,
}

/// Counts over all events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Comparison {
    /// Events decided by both.
    pub events: u64,
    /// Events that repeat an earlier one, which start nothing.
    pub repeats: u64,
    /// Events that cannot be read, whatever the strategies.
    pub rejected: u64,
    /// Events that a contract refused when they came, which started nothing.
    pub refused: u64,
    /// Events that match nothing now.
    pub unmatched_now: u64,
    /// Events that match nothing by the draft.
    pub unmatched_draft: u64,
    /// By strategy.
    pub strategies: BTreeMap<String, Difference>,
    #[serde(skip)]
    seen: HashSet<u128>,
    #[serde(skip)]
    samples_max: usize,
}

impl Comparison {
    /// Nothing yet; keeps so many samples of each strategy.
    pub fn new(samples_max: usize) -> Self {
        Self { samples_max, ..Self::default() }
    }

    /// Whether a run would differ.
    pub fn differs(&self) -> bool {
        self.strategies.values().any(Difference::differs)
    }

    /// Decides `event`, which stands at `sequence`, by both sets.
    pub fn add(
        &mut self,
        sequence: u64,
        event: &Event<'_>,
        now: &StrategySet,
        draft: &StrategySet,
    ) {
        let key = event.idempotency().to_be_bytes();
        let key = hash_parts_128(&[event.tenant.as_bytes(), &key]);
        if self.seen.contains(&key) {
            self.repeats += 1;
            return;
        }
        self.events += 1;
        let (now, draft) = (now.decide(event), draft.decide(event));
        self.unmatched_now += u64::from(matches!(now, Decision::Unmatched { .. }));
        self.unmatched_draft += u64::from(matches!(draft, Decision::Unmatched { .. }));
        let (now, draft) = (runs(&now), runs(&draft));
        // Only what starts work makes a repeat of what comes later.
        if !(now.is_empty() && draft.is_empty()) && self.seen.len() < KEYS_MAX {
            self.seen.insert(key);
        }
        for (name, chosen) in &now {
            let difference = self.strategies.entry((*name).to_owned()).or_default();
            let differs = match draft.get(name) {
                Some(other) if same(chosen, other) => {
                    difference.same += 1;
                    continue;
                }
                Some(_) => {
                    difference.changed += 1;
                    "changed"
                }
                None => {
                    difference.only_now += 1;
                    "only_now"
                }
            };
            difference.sample(sequence, event, differs, self.samples_max);
        }
        for name in draft.keys().filter(|name| !now.contains_key(*name)) {
            let difference = self.strategies.entry((*name).to_owned()).or_default();
            difference.only_draft += 1;
            difference.sample(sequence, event, "only_draft", self.samples_max);
        }
    }
}

impl Difference {
    /// Whether a run would differ.
    pub fn differs(&self) -> bool {
        self.changed + self.only_now + self.only_draft > 0
    }

    fn sample(&mut self, sequence: u64, event: &Event<'_>, differs: &'static str, max: usize) {
        if self.samples.len() < max {
            let (id, kind) = (event.id.to_string(), event.kind.to_string());
            self.samples.push(Sample { sequence, id, kind, differs });
        }
    }
}

/// The runs that start, by strategy.
fn runs<'d>(decision: &'d Decision<'d>) -> BTreeMap<&'d str, &'d Chosen<'d>> {
    match decision {
        Decision::Start { chosen, .. } => {
            chosen.iter().map(|chosen| (chosen.strategy.name(), chosen)).collect()
        }
        Decision::Ignored { .. } | Decision::Unmatched { .. } | Decision::Failed { .. } => {
            BTreeMap::new()
        }
    }
}

fn same(now: &Chosen<'_>, draft: &Chosen<'_>) -> bool {
    now.strategy.workflow() == draft.strategy.workflow() && now.variables == draft.variables
}

#[cfg(test)]
mod tests {
    use fermata_core::event::{EventLimits, Subject, decode_message};
    use fermata_definitions::{Limits, read_strategies};

    use super::*;

    fn set(text: &str) -> StrategySet {
        StrategySet::compile(read_strategies(text, None, &Limits::default()).unwrap()).unwrap()
    }

    fn compare(now: &StrategySet, draft: &StrategySet, events: &[(&str, u32)]) -> Comparison {
        let mut comparison = Comparison::new(2);
        for (sequence, (id, n)) in (1..).zip(events) {
            let text = format!(
                r#"{{"specversion":"1.0","id":"{id}","source":"/t","type":"job.done","data":{{"n":{n}}}}}"#
            );
            let subject = Subject { tenant: "acme", kind: "job.done" };
            let decoded = decode_message(None, text.as_bytes(), subject, &EventLimits::default());
            comparison.add(sequence, decoded[0].as_ref().unwrap(), now, draft);
        }
        comparison
    }

    const NOW: &str = "
strategies:
  - name: large
    version: 1
    tenant: acme
    on: job.done
    when: event.data.n > 10
    workflow: { name: report, version: '1' }
    variables: { n: event.data.n }
";

    #[test]
    fn a_draft_that_takes_more_starts_runs_that_only_it_starts() {
        let (now, draft) = (set(NOW), set(&NOW.replace("> 10", "> 5")));

        let compared = compare(&now, &draft, &[("1", 20), ("2", 7), ("3", 1), ("1", 20)]);

        let difference = &compared.strategies["large"];
        assert_eq!((difference.same, difference.only_draft, difference.only_now), (1, 1, 0));
        assert_eq!((compared.events, compared.repeats), (3, 1));
        assert_eq!((compared.unmatched_now, compared.unmatched_draft), (2, 1));
        assert_eq!((difference.samples[0].id.as_str(), difference.samples[0].sequence), ("2", 2));
        assert!(compared.differs());
    }

    #[test]
    fn other_values_are_another_run_and_the_same_draft_changes_nothing() {
        let now = set(NOW);

        let changed =
            compare(&now, &set(&NOW.replace("n: event.data.n }", "n: '1' }")), &[("1", 20)]);
        let same = compare(&now, &set(NOW), &[("1", 20), ("2", 3)]);

        assert_eq!(changed.strategies["large"].changed, 1);
        assert_eq!(same.strategies["large"].same, 1);
        assert!(changed.differs() && !same.differs());
    }

    #[test]
    fn samples_are_bounded() {
        let (now, draft) = (set(NOW), set(&NOW.replace("name: large", "name: other")));

        let compared = compare(&now, &draft, &[("1", 11), ("2", 12), ("3", 13)]);

        assert_eq!(compared.strategies["large"].only_now, 3);
        assert_eq!(compared.strategies["other"].only_draft, 3);
        assert_eq!(compared.strategies["large"].samples.len(), 2);
    }
}
