//! What strategies made of events, counted by strategy, and how long their runs took.
//!
//! Partitions tell it as their records become durable, from several threads and for
//! each event: so a place is found without a lock, and without memory of its own once
//! its strategy is known. Whoever asks for the figures reads what stands there.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use fermata_core::effect::EventMatch;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{
    AsyncInstrument, Histogram, Meter, ObservableCounter, ObservableGauge,
};

use crate::matcher::strategy_of_near_miss;

/// Upper bounds of the buckets of a run's time, in seconds: from one that only
/// transforms to one that waits for a day.
pub(crate) const RUN_SECONDS: [f64; 16] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3_600.0,
    86_400.0,
];

/// Strategies that have figures of their own, the first that come in this process. Default 100:
/// each is a label of three counters and a histogram, and who writes strategies chooses the
/// names. The rest are counted together as [`OTHER`].
pub const STRATEGIES_COUNTED_MAX: usize = 100;

/// The label of the strategies beyond [`STRATEGIES_COUNTED_MAX`].
pub const OTHER: &str = "other";

/// Places, of which most stay empty, so that one is found at the first look.
const PLACES: usize = 4 * STRATEGIES_COUNTED_MAX;

/// Counts events by what strategies made of them.
#[derive(Debug, Clone)]
pub struct StrategyFigures {
    counted: Arc<Counted>,
    latency: Histogram<f64>,
    _hit_rate: ObservableGauge<f64>,
    _counters: Arc<[ObservableCounter<u64>]>,
}

#[derive(Debug)]
struct Counted {
    eligible: AtomicU64,
    misses: AtomicU64,
    by_strategy: ByStrategy,
}

/// What is counted of one strategy.
#[derive(Debug)]
struct Counts {
    strategy: Arc<str>,
    started: AtomicU64,
    ignored: AtomicU64,
    near_misses: AtomicU64,
}

impl Counts {
    fn of(strategy: &str) -> Self {
        Self {
            strategy: strategy.into(),
            started: AtomicU64::new(0),
            ignored: AtomicU64::new(0),
            near_misses: AtomicU64::new(0),
        }
    }
}

/// Counts by name: a table of fixed size to which names are added and that never loses one.
#[derive(Debug)]
struct ByStrategy {
    hasher: RandomState,
    places: Box<[OnceLock<Counts>]>,
    /// Places that are taken or about to be.
    taken: AtomicUsize,
    other: Counts,
}

impl Default for ByStrategy {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            places: (0..PLACES).map(|_| OnceLock::new()).collect(),
            taken: AtomicUsize::new(0),
            other: Counts::of(OTHER),
        }
    }
}

impl ByStrategy {
    fn of(&self, strategy: &str) -> &Counts {
        if strategy == OTHER {
            return &self.other;
        }
        let hash = self.hasher.hash_one(strategy);
        let first = usize::try_from(hash % PLACES as u64).unwrap_or(0);
        let (before, behind) = self.places.split_at(first);
        for place in behind.iter().chain(before) {
            let counts = match place.get() {
                Some(counts) => counts,
                None if self.is_full() => break,
                None => self.add(place, strategy),
            };
            if *counts.strategy == *strategy {
                return counts;
            }
        }
        &self.other
    }

    /// Takes the place, unless another thread is first: then it may be another strategy's.
    /// Threads that take the last ones at once may take one each.
    fn add<'a>(&self, place: &'a OnceLock<Counts>, strategy: &str) -> &'a Counts {
        place.get_or_init(|| {
            self.taken.fetch_add(1, Ordering::Relaxed);
            Counts::of(strategy)
        })
    }

    fn is_full(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= STRATEGIES_COUNTED_MAX
    }

    fn each(&self) -> impl Iterator<Item = &Counts> {
        self.places.iter().filter_map(OnceLock::get).chain([&self.other])
    }
}

impl StrategyFigures {
    /// Registers the instruments.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let counted = Arc::new(Counted {
            eligible: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            by_strategy: ByStrategy::default(),
        });
        let observed = counted.clone();
        let hit_rate = meter
            .f64_observable_gauge("agent.strategy.hit_rate")
            .with_description(
                "Events that a strategy matched over all that one could have matched, 0 to 1",
            )
            .with_callback(move |observer| {
                let eligible = observed.eligible.load(Ordering::Relaxed);
                let misses = observed.misses.load(Ordering::Relaxed);
                if eligible > 0 {
                    observer.observe(ratio(eligible.saturating_sub(misses), eligible), &[]);
                }
            })
            .build();
        let counter = |name, description, tell: fn(&Counted, &dyn AsyncInstrument<u64>)| {
            let observed = counted.clone();
            let counter = meter.u64_observable_counter(name).with_description(description);
            counter.with_callback(move |observer| tell(&observed, observer)).build()
        };
        let counters = [
            counter(
                "agent.strategy.eligible_total",
                "Events that a strategy could have matched",
                |counted, tell| tell.observe(counted.eligible.load(Ordering::Relaxed), &[]),
            ),
            counter(
                "agent.strategy.missed_total",
                "Eligible events that no strategy matched",
                |counted, tell| tell.observe(counted.misses.load(Ordering::Relaxed), &[]),
            ),
            counter(
                "agent.strategy.matched_total",
                "Events that the strategy matched, by strategy and what it said",
                |counted, tell| {
                    for counts in counted.by_strategy.each() {
                        let said = [("started", &counts.started), ("ignored", &counts.ignored)];
                        for (outcome, count) in said {
                            observe(tell, count, || {
                                vec![label(counts), KeyValue::new("outcome", outcome)]
                            });
                        }
                    }
                },
            ),
            counter(
                "agent.strategy.near_missed_total",
                "Events of the strategy's type that neither it nor any other matched, by strategy",
                |counted, tell| {
                    for counts in counted.by_strategy.each() {
                        observe(tell, &counts.near_misses, || vec![label(counts)]);
                    }
                },
            ),
        ];
        let latency = meter
            .f64_histogram("agent.strategy.latency")
            .with_unit("s")
            .with_boundaries(RUN_SECONDS.to_vec())
            .with_description("Time from the start of a run to its end, by strategy")
            .build();
        Self { counted, latency, _hit_rate: hit_rate, _counters: Arc::new(counters) }
    }

    /// A run that `strategy` started took this long.
    pub fn run_ended(&self, strategy: &str, seconds: f64) {
        let counts = self.counted.by_strategy.of(strategy);
        self.latency.record(seconds, &[label(counts)]);
    }

    /// Counts what is recorded of an event.
    pub fn count(&self, matched: &EventMatch) {
        let Counted { eligible, misses, by_strategy } = &*self.counted;
        match matched {
            EventMatch::Started { strategy, is_further } => {
                add(&by_strategy.of(strategy).started);
                if *is_further {
                    return;
                }
            }
            EventMatch::Ignored { strategy } => add(&by_strategy.of(strategy).ignored),
            EventMatch::Missed { near } => {
                for miss in near {
                    add(&by_strategy.of(strategy_of_near_miss(miss)).near_misses);
                }
                add(misses);
            }
        }
        add(eligible);
    }
}

fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// Tells a figure unless there is nothing to tell.
fn observe(
    tell: &dyn AsyncInstrument<u64>,
    count: &AtomicU64,
    labels: impl FnOnce() -> Vec<KeyValue>,
) {
    let count = count.load(Ordering::Relaxed);
    if count > 0 {
        tell.observe(count, &labels());
    }
}

fn label(counts: &Counts) -> KeyValue {
    KeyValue::new("strategy", counts.strategy.clone())
}

#[expect(clippy::cast_precision_loss, reason = "a ratio of counters needs no 53rd bit")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> StrategyFigures {
        StrategyFigures::new(&opentelemetry::global::meter("test"))
    }

    fn started(strategy: &str, is_further: bool) -> EventMatch {
        EventMatch::Started { strategy: strategy.into(), is_further }
    }

    /// Eligible events, misses, and per strategy: started, ignored, nearly matched.
    fn counted(figures: &StrategyFigures) -> (u64, u64, Vec<(String, [u64; 3])>) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Counted { eligible, misses, by_strategy } = &*figures.counted;
        let each = by_strategy.each().map(|counts| {
            let Counts { strategy, started, ignored, near_misses } = counts;
            (strategy.to_string(), [started, ignored, near_misses].map(load))
        });
        let mut each = each.filter(|(_, counts)| *counts != [0; 3]).collect::<Vec<_>>();
        each.sort_unstable();
        (load(eligible), load(misses), each)
    }

    #[test]
    fn an_event_counts_once_and_each_of_its_strategies() {
        let figures = figures();
        figures.count(&started("a", false));
        figures.count(&started("b", true));
        figures.count(&EventMatch::Ignored { strategy: "a".into() });
        figures.count(&EventMatch::Missed { near: vec!["b: its condition: no".to_owned()] });

        let each = vec![("a".to_owned(), [1, 1, 0]), ("b".to_owned(), [1, 0, 1])];
        assert_eq!(counted(&figures), (3, 1, each));
    }

    #[test]
    fn the_strategies_beyond_the_bound_are_counted_together() {
        let figures = figures();
        let last = STRATEGIES_COUNTED_MAX + 7;
        for _ in 0..2 {
            (1..=last).for_each(|number| figures.count(&started(&number.to_string(), false)));
        }

        let (eligible, misses, each) = counted(&figures);
        assert_eq!((eligible, misses), (2 * last as u64, 0));
        assert_eq!(each.len(), STRATEGIES_COUNTED_MAX + 1);
        let counts = |strategy: &str| each.iter().find(|(name, _)| name == strategy).unwrap().1;
        assert_eq!((counts("1"), counts(OTHER)), ([2, 0, 0], [14, 0, 0]));
        // The times of their runs have the same labels.
        let labels = |strategy: &str| label(figures.counted.by_strategy.of(strategy));
        assert_eq!(labels("1"), KeyValue::new("strategy", "1"));
        assert_eq!(labels(&last.to_string()), KeyValue::new("strategy", OTHER));
    }

    #[test]
    fn threads_that_count_at_once_lose_nothing() {
        let figures = figures();
        let (threads, names, times) = (4, 50, 200);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for number in 0..names * times {
                        figures.count(&started(&(number % names).to_string(), false));
                    }
                });
            }
        });

        let (eligible, _, each) = counted(&figures);
        assert_eq!((eligible, each.len() as u64), (threads * names * times, names));
        assert!(each.iter().all(|(_, counts)| *counts == [threads * times, 0, 0]), "{each:?}");
    }
}
