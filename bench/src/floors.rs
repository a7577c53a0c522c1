//! What must be reached: floors, and how a measurement is held against them.
//!
//! They are those of *Figures* in the README. `query`, `lists`, `snapshot` and `week` judge
//! themselves, by numbers that stand in no key.

use crate::arguments::{BenchArguments, DurabilityChoice};
use crate::figures::Figures;

/// On which side of it a figure has to be.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A key of the output.
#[derive(Clone, Copy)]
struct Key {
    name: &'static str,
    of: fn(&Figures) -> Option<f64>,
}

const SECONDS: Key = Key { name: "seconds", of: |figures| Some(figures.seconds) };
const PER_S: Key = Key { name: "per_s", of: |figures| figures.per_s };
const P50_MS: Key = Key { name: "p50_ms", of: |figures| figures.p50_ms };
const P99_MS: Key = Key { name: "p99_ms", of: |figures| figures.p99_ms };
const RATIO: Key = Key { name: "ratio", of: |figures| figures.ratio };
const CPU_US_ENGINE: Key = Key { name: "cpu_us_engine", of: |figures| figures.cpu_us_engine };
const RSS_MIB: Key = Key { name: "rss_mib", of: |figures| figures.rss_mib };

/// A floor of one case at one size: of others nothing is promised.
struct Floor {
    case: &'static str,
    n: u64,
    durability: DurabilityChoice,
    key: Key,
    bound: Bound,
}

const fn floor(case: &'static str, n: u64, key: Key, bound: Bound) -> Floor {
    Floor { case, n, durability: DurabilityChoice::Process, key, bound }
}

const FLOORS: [Floor; 14] = [
    floor("intake", 300_000, RATIO, Bound::AtLeast(0.5)),
    floor("intake_batch", 1_000_000, PER_S, Bound::AtLeast(120_000.0)),
    floor("runs", 120_000, PER_S, Bound::AtLeast(8_000.0)),
    Floor {
        durability: DurabilityChoice::Power,
        ..floor("runs", 100_000, PER_S, Bound::AtLeast(2_500.0))
    },
    floor("latency", 100, P50_MS, Bound::AtMost(5.0)),
    floor("latency", 100, P99_MS, Bound::AtMost(25.0)),
    floor("fanout", 1_000, P50_MS, Bound::AtMost(100.0)),
    floor("match_types", 10_000, CPU_US_ENGINE, Bound::AtMost(5.0)),
    floor("match_equality", 10_000, CPU_US_ENGINE, Bound::AtMost(5.0)),
    floor("plan", 1_000, P50_MS, Bound::AtMost(5.0)),
    floor("plan", 100_000, P50_MS, Bound::AtMost(1_000.0)),
    floor("recovery", 10_000, SECONDS, Bound::AtMost(10.0)),
    floor("recovery", 10_000, PER_S, Bound::AtLeast(200_000.0)),
    floor("memory", 100_000, RSS_MIB, Bound::AtMost(1_024.0)),
];

/// Says of each floor that `figures` miss what was measured and what must be. One engine on one
/// server is judged, and nothing that was measured for a moment only.
pub fn missed(figures: &Figures, arguments: &BenchArguments) -> Vec<String> {
    if arguments.smoke || arguments.engines() != 1 || arguments.servers() != 1 {
        return Vec::new();
    }
    let applies = |floor: &&Floor| {
        (floor.case, floor.n, floor.durability) == (figures.case, figures.n, arguments.durability)
    };
    FLOORS.iter().filter(applies).filter_map(|floor| floor.missed_by(figures)).collect()
}

impl Floor {
    fn missed_by(&self, figures: &Figures) -> Option<String> {
        let measured = (self.key.of)(figures);
        let (is_kept, must_be, bound) = match self.bound {
            Bound::AtLeast(least) => (measured.is_some_and(|it| it >= least), "at least", least),
            Bound::AtMost(most) => (measured.is_some_and(|it| it <= most), "at most", most),
        };
        let measured = measured.map_or_else(|| "not measured".to_owned(), |it| format!("{it:.3}"));
        let (case, key) = (self.case, self.key.name);
        (!is_kept).then(|| format!("{case}: `{key}` is {measured}, the floor is {must_be} {bound}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser as _;

    use super::*;
    use crate::arguments::Arguments;

    fn told(words: &str) -> BenchArguments {
        let words = std::iter::once("fermata-bench").chain(words.split(' '));
        Arguments::try_parse_from(words).unwrap().bench
    }

    /// A measurement in which one key has this value and every other one is as good as can be.
    fn measured(case: &'static str, n: u64, key: &str, value: f64) -> Figures {
        let mut figures = Figures {
            per_s: Some(f64::MAX),
            p50_ms: Some(0.0),
            p99_ms: Some(0.0),
            ratio: Some(f64::MAX),
            cpu_us_engine: Some(0.0),
            rss_mib: Some(0.0),
            ..Figures::of(case, n, Duration::ZERO)
        };
        let field = match key {
            "seconds" => {
                figures.seconds = value;
                return figures;
            }
            "per_s" => &mut figures.per_s,
            "p50_ms" => &mut figures.p50_ms,
            "p99_ms" => &mut figures.p99_ms,
            "ratio" => &mut figures.ratio,
            "cpu_us_engine" => &mut figures.cpu_us_engine,
            "rss_mib" => &mut figures.rss_mib,
            other => panic!("no key `{other}`"),
        };
        *field = Some(value);
        figures
    }

    #[test]
    fn a_figure_that_is_worse_than_its_floor_is_told_and_one_that_is_not_is_not() {
        for (words, case, n, key, worse, enough) in [
            ("intake", "intake", 300_000, "ratio", 0.49, 0.5),
            ("intake_batch", "intake_batch", 1_000_000, "per_s", 119_999.0, 120_000.0),
            ("runs", "runs", 120_000, "per_s", 7_999.0, 8_000.0),
            ("runs --durability power", "runs", 100_000, "per_s", 2_499.0, 2_500.0),
            ("latency", "latency", 100, "p50_ms", 5.1, 5.0),
            ("latency", "latency", 100, "p99_ms", 25.1, 25.0),
            ("fanout", "fanout", 1_000, "p50_ms", 100.1, 100.0),
            ("match", "match_types", 10_000, "cpu_us_engine", 5.1, 5.0),
            ("match", "match_equality", 10_000, "cpu_us_engine", 5.1, 5.0),
            ("plan", "plan", 1_000, "p50_ms", 5.1, 5.0),
            ("plan", "plan", 100_000, "p50_ms", 1_001.0, 1_000.0),
            ("recovery", "recovery", 10_000, "seconds", 10.1, 10.0),
            ("recovery", "recovery", 10_000, "per_s", 199_999.0, 200_000.0),
            ("memory", "memory", 100_000, "rss_mib", 1_025.0, 1_024.0),
        ] {
            let arguments = told(words);
            let [chosen] = arguments.chosen()[..] else { panic!("{words}") };
            assert!(arguments.sizes(chosen).contains(&n), "{words} is not measured with {n}");

            let told = missed(&measured(case, n, key, worse), &arguments);

            assert_eq!(told.len(), 1, "{words}: {told:?}");
            assert!(told[0].starts_with(&format!("{case}: `{key}` is ")), "{told:?}");
            let none = missed(&measured(case, n, key, enough), &arguments);
            assert!(none.is_empty(), "{words}: {none:?}");
        }
    }

    #[test]
    fn what_has_a_floor_and_was_not_measured_misses_it() {
        let figures = Figures { p50_ms: None, ..measured("fanout", 1_000, "seconds", 1.0) };

        assert_eq!(missed(&figures, &told("fanout")).len(), 1);
    }

    #[test]
    fn moments_other_sizes_and_shared_machines_are_not_judged() {
        let figures = |n| measured("plan", n, "p50_ms", f64::MAX);

        assert_eq!(missed(&figures(1_000), &told("plan")).len(), 1);
        for words in ["plan --smoke", "plan --workers 2", "plan --cluster"] {
            assert_eq!(missed(&figures(1_000), &told(words)), [""; 0], "{words}");
        }
        assert_eq!(missed(&figures(999), &told("plan --n 999")), [""; 0]);
    }
}
