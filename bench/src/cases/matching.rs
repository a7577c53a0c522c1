//! `match`: from an event's bytes to what is to happen, without a broker.

use std::hint::black_box;
use std::time::{Duration, Instant};

use fermata_core::event::{EventLimits, Subject, decode_message};
use fermata_core::strategy::{Action, Decision, StrategyDefinition, StrategySet, WorkflowRef};
use miette::{ensure, miette};
use serde_json::{Map, Value, json};

use crate::figures::{Figures, Times, count};
use crate::process_usage::thread_cpu;
use crate::setup::progress;

/// Decisions measured for each shape.
const DECISIONS: usize = 200_000;

/// Decisions between two looks at the clock: a single one is too short to time.
const BATCH: usize = 20;

/// Decisions timed one by one, for the longest of them.
const SINGLE_DECISIONS: usize = 50_000;

/// Different events, so that no branch is learnt by heart.
const EVENTS: u64 = 1_000;

/// Bytes of an event.
const EVENT_BYTES: usize = 1_024;

/// How the strategies tell events apart.
struct Shape {
    case: &'static str,
    /// Type and pattern of a strategy by number.
    strategy: fn(u64) -> (String, Option<Value>),
    /// Type of the event that the strategy of this number takes, and the field of
    /// its data that decides.
    event: fn(u64) -> (String, (&'static str, Value)),
}

const SHAPES: [Shape; 4] = [
    Shape {
        case: "match_types",
        strategy: |number| (format!("plugin.job.kind-{number}"), None),
        event: |number| (format!("plugin.job.kind-{number}"), ("status", json!("failed"))),
    },
    Shape {
        case: "match_equality",
        strategy: |number| {
            let pattern = json!({ "data": { "job": [format!("job-{number}")] } });
            ("plugin.job.completed".to_owned(), Some(pattern))
        },
        event: |number| {
            ("plugin.job.completed".to_owned(), ("job", json!(format!("job-{number}"))))
        },
    },
    // Each range beside the next: one holds.
    Shape {
        case: "match_ranges",
        strategy: |number| {
            let range = json!([">=", number * 10, "<", number * 10 + 10]);
            let pattern = json!({ "data": { "duration_ms": [{ "numeric": range }] } });
            ("plugin.job.completed".to_owned(), Some(pattern))
        },
        event: |number| {
            ("plugin.job.completed".to_owned(), ("duration_ms", json!(number * 10 + 5)))
        },
    },
    // Thresholds: half of all hold, on the average.
    Shape {
        case: "match_thresholds",
        strategy: |number| {
            let pattern = json!({ "data": { "duration_ms": [{ "numeric": [">=", number] }] } });
            ("plugin.job.completed".to_owned(), Some(pattern))
        },
        event: |number| ("plugin.job.completed".to_owned(), ("duration_ms", json!(number))),
    },
];

/// Decides events by `n` strategies of each shape.
pub fn run(n: u64) -> miette::Result<Vec<Figures>> {
    SHAPES.iter().map(|shape| measure(shape, n)).collect()
}

/// Decides an event from its bytes.
fn decide(set: &StrategySet, (kind, text): &(String, String)) {
    let subject = Subject { tenant: "acme", kind };
    let limits = EventLimits::default();
    for decoded in decode_message(None, black_box(text.as_bytes()), subject, &limits) {
        let decided = decoded.as_ref().map(|event| set.decide(event));
        black_box(decided.is_ok());
    }
}

fn measure(shape: &Shape, n: u64) -> miette::Result<Figures> {
    let definitions = (0..n).map(|number| definition(shape, number)).collect();
    let set = StrategySet::compile(definitions)
        .map_err(|problems| miette!("the strategies do not compile: {:?}", problems.first()))?;
    let events: Vec<_> =
        (0..EVENTS).map(|at| (at * n / EVENTS, event(shape, at * n / EVENTS))).collect();
    for (number, (kind, text)) in &events {
        let wanted = format!("strategy-{number}");
        ensure!(
            winner(&set, kind, text) == Some(wanted),
            "{}: the wrong strategy wins",
            shape.case
        );
    }
    let bar = progress(shape.case, 1);
    let cpu_before = thread_cpu();
    let mut times = Vec::with_capacity(DECISIONS / BATCH);
    let mut rest = events.iter().cycle();
    for _ in 0..DECISIONS / BATCH {
        let begun = Instant::now();
        for (_, event) in rest.by_ref().take(BATCH) {
            decide(&set, event);
        }
        times.push(begun.elapsed());
    }
    let cpu = thread_cpu()?.saturating_sub(cpu_before?);
    let single = rest.take(SINGLE_DECISIONS).map(|(_, event)| {
        let begun = Instant::now();
        decide(&set, event);
        begun.elapsed()
    });
    let single = Times::of(single.collect());
    bar.inc(1);
    let total: Duration = times.iter().sum();
    let decisions = u64::try_from(DECISIONS).unwrap_or(u64::MAX);
    let each_us = cpu.as_secs_f64() * 1e6 / count(decisions);
    let times = Times::of(times);
    let batch = count(u64::try_from(BATCH).unwrap_or(u64::MAX));
    let batch_us = |percent| times.percentile_ms(percent).unwrap_or_default() * 1e3 / batch;
    Ok(Figures {
        per_s: Some(count(decisions) / cpu.as_secs_f64().max(1e-9)),
        cpu_us_engine: Some(each_us),
        ..Figures::of(shape.case, n, total)
    }
    .note(format!(
        "{each_us:.2} µs of CPU per event of {EVENT_BYTES} bytes, decoding included; by the clock, \
         over {BATCH} events, p50 {:.2} µs, p99 {:.2} µs each; of {SINGLE_DECISIONS} timed one by one, \
         p99 {:.2} µs",
        batch_us(50),
        batch_us(99),
        single.percentile_ms(99).unwrap_or_default() * 1e3,
    )))
}

fn definition(shape: &Shape, number: u64) -> StrategyDefinition {
    let (on, pattern) = (shape.strategy)(number);
    StrategyDefinition {
        name: format!("strategy-{number}"),
        version: 1,
        tenant: "*".to_owned(),
        on,
        pattern,
        when: None,
        // Of thresholds that hold, the highest wins.
        priority: i64::try_from(number).unwrap_or(i64::MAX),
        weight: 1,
        fan_out: false,
        action: Action::Run {
            workflow: WorkflowRef { name: "report".to_owned(), version: "1".to_owned() },
            variables: Some([].into()),
        },
    }
}

/// Type and text of an event, filled up to its size.
fn event(shape: &Shape, number: u64) -> (String, String) {
    let (kind, (name, value)) = (shape.event)(number);
    let mut data = Map::from_iter([(name.to_owned(), value)]);
    let write = |data: &Map<String, Value>| {
        json!({
            "specversion": "1.0", "id": number.to_string(), "source": "/plugins/etl",
            "type": kind, "time": "2026-11-21T02:02:11.512Z",
            "datacontenttype": "application/json", "data": data,
        })
        .to_string()
    };
    let mut fillers = 0;
    while write(&data).len() + 64 < EVENT_BYTES {
        let filler = json!({ "name": "some text", "value": fillers, "ok": true });
        data.insert(format!("field_{fillers}"), filler);
        fillers += 1;
    }
    let missing = EVENT_BYTES.saturating_sub(write(&data).len() + r#","rest":"""#.len());
    data.insert("rest".to_owned(), "x".repeat(missing).into());
    let text = write(&data);
    (kind, text)
}

fn winner(set: &StrategySet, kind: &str, text: &str) -> Option<String> {
    let subject = Subject { tenant: "acme", kind };
    let decoded = decode_message(None, text.as_bytes(), subject, &EventLimits::default());
    match set.decide(decoded.first()?.as_ref().ok()?) {
        Decision::Start { chosen, .. } => Some(chosen.first()?.strategy.name().to_owned()),
        Decision::Ignored { .. } | Decision::Unmatched { .. } | Decision::Failed { .. } => None,
    }
}
