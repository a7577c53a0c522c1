//! What a case measured.

use std::time::Duration;

use serde::Serialize;

/// One line of output. What a case does not measure is absent.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// The case.
    pub case: &'static str,
    /// Its size: events, runs, nodes, or rounds.
    pub n: u64,
    /// Time from the first publish until all is done.
    pub seconds: f64,
    /// `n` divided by `seconds`; for `recovery` the records replayed per second, for `fanout` nodes.
    pub per_s: Option<f64>,
    /// Median of single times.
    pub p50_ms: Option<f64>,
    /// Their 99th percentile; with fewer than 100 of them the longest.
    pub p99_ms: Option<f64>,
    /// What the broker alone did in the same run.
    pub raw_per_s: Option<f64>,
    /// `per_s` divided by `raw_per_s`; for `neighbours` the 99th percentile divided by the one alone.
    pub ratio: Option<f64>,
    /// CPU time of the engine per event or run, microseconds.
    pub cpu_us_engine: Option<f64>,
    /// CPU time of the broker per event or run, microseconds.
    pub cpu_us_broker: Option<f64>,
    /// Most memory that the engine ever held resident, MiB.
    pub rss_mib: Option<f64>,
    /// Engine processes.
    pub workers: u16,
    /// Servers, each with a copy of every stream.
    pub servers: usize,
    /// What else there is to say, for people.
    #[serde(skip)]
    pub notes: Vec<String>,
}

impl Figures {
    /// The figures of `n` things done in `elapsed`.
    pub fn of(case: &'static str, n: u64, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        Self { case, n, seconds, per_s: Some(count(n) / seconds.max(1e-9)), ..Self::default() }
    }

    /// Adds the percentiles of single times.
    pub fn with_times(mut self, times: Vec<Duration>) -> Self {
        let times = Times::of(times);
        self.p50_ms = times.percentile_ms(50);
        self.p99_ms = times.percentile_ms(99);
        self
    }

    /// Adds what the broker alone did.
    pub fn with_raw(mut self, raw_per_s: f64) -> Self {
        self.raw_per_s = Some(raw_per_s);
        self.ratio = self.per_s.map(|per_s| per_s / raw_per_s);
        self
    }

    /// Adds how many times the 99th percentile is the one that was measured alone.
    pub fn beside(mut self, alone: &Self) -> Self {
        self.ratio = self.p99_ms.zip(alone.p99_ms).map(|(beside, alone)| beside / alone);
        self
    }

    /// Adds a remark.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The same with each number at a precision that the measurement has.
    pub fn rounded(mut self) -> Self {
        let round = |value: f64, digits: i32| {
            let scale = 10_f64.powi(digits);
            (value * scale).round() / scale
        };
        self.seconds = round(self.seconds, 4);
        for (field, digits) in [
            (&mut self.per_s, 1),
            (&mut self.p50_ms, 3),
            (&mut self.p99_ms, 3),
            (&mut self.raw_per_s, 1),
            (&mut self.ratio, 3),
            (&mut self.cpu_us_engine, 2),
            (&mut self.cpu_us_broker, 2),
            (&mut self.rss_mib, 1),
        ] {
            *field = field.map(|value| round(value, digits));
        }
        self
    }
}

/// Single times, ascending.
#[derive(Debug)]
pub struct Times(Vec<Duration>);

impl Times {
    /// Sorts them.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self(times)
    }

    /// The time that `percent` of them do not exceed (nearest rank), milliseconds.
    pub fn percentile_ms(&self, percent: usize) -> Option<f64> {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).map(|time| time.as_secs_f64() * 1e3)
    }
}

/// A count as a number to divide by; exact below 2^53.
pub fn count(n: u64) -> f64 {
    #[expect(
        clippy::as_conversions,
        reason = "there is no lossless conversion, and none is needed"
    )]
    let number = n as f64;
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_of_few_times_is_the_longest() {
        let times = Times::of((1..=20).rev().map(Duration::from_millis).collect());

        assert_eq!((times.percentile_ms(50), times.percentile_ms(99)), (Some(10.0), Some(20.0)));
    }

    #[test]
    fn no_times_have_no_percentile() {
        assert_eq!(Times::of(Vec::new()).percentile_ms(50), None);
    }

    #[test]
    fn what_was_not_measured_is_null_and_every_key_is_there() {
        let line = serde_json::to_value(Figures::of("raw", 10, Duration::from_secs(2))).unwrap();

        let keys: Vec<_> = line.as_object().unwrap().keys().cloned().collect();
        let mut expected = [
            "case",
            "n",
            "seconds",
            "per_s",
            "p50_ms",
            "p99_ms",
            "raw_per_s",
            "ratio",
            "cpu_us_engine",
            "cpu_us_broker",
            "rss_mib",
            "servers",
            "workers",
        ]
        .map(String::from);
        let mut keys = keys;
        keys.sort();
        expected.sort();
        assert_eq!(keys, expected);
        assert_eq!((&line["per_s"], &line["ratio"]), (&5.0.into(), &serde_json::Value::Null));
    }
}
