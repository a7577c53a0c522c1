//! Prints what decoding and deciding cost, in nanoseconds per event.
//!
//! `cargo run --release -p fermata-core --example match_cost`

use std::hint::black_box;
use std::time::Instant;

use fermata_core::event::{Event, EventLimits, Subject, decode_message};
use fermata_core::strategy::{Action, StrategyDefinition, StrategySet, WorkflowRef};

const ROUNDS: u32 = 200_000;
const BATCH: usize = 100;

const EVENT: &str = r#"{"specversion":"1.0","id":"job-7781","source":"/plugins/etl","type":"plugin.job.completed","time":"2026-11-21T02:02:11.512Z","tenant":"acme","datacontenttype":"application/json","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","data":{"job_id":"7781","status":"succeeded","duration_ms":91230}}"#;

fn main() {
    let limits = EventLimits::default();
    let subject = Subject { tenant: "acme", kind: "plugin.job.completed" };
    println!("one event has {} bytes", EVENT.len());

    report("decode, one event per message", 1, || {
        decode_message(None, black_box(EVENT.as_bytes()), subject, &limits)
    });
    let batch = format!("[{}]", vec![EVENT; BATCH].join(","));
    report("decode, 100 events per message", BATCH, || {
        decode_message(None, black_box(batch.as_bytes()), subject, &limits)
    });

    let outcomes = decode_message(None, EVENT.as_bytes(), subject, &limits);
    let Some(Ok(event)) = outcomes.first() else {
        return eprintln!("the example's event is not valid");
    };
    report("idempotency key", 1, || black_box(event).idempotency());
    report("view, as expressions see it", 1, || black_box(event).view());

    let ignore = StrategyDefinition {
        when: None,
        action: Action::Ignore,
        ..definition("ignore", "plugin.job.completed")
    };
    decide("decide, ignore by exact type", event, vec![ignore.clone()]);
    let wildcard = StrategyDefinition { on: "plugin.>".to_owned(), ..ignore.clone() };
    decide("decide, ignore by wildcard", event, vec![wildcard]);
    let crowd = (0..10_000).map(|number| StrategyDefinition {
        tenant: if number % 2 == 0 { "acme" } else { "*" }.to_owned(),
        ..definition(&format!("other-{number}"), &format!("other.type.{number}.*"))
    });
    decide("decide, ignore among 10,000", event, crowd.chain([ignore]).collect());
    decide("decide, start by condition", event, vec![definition("run", "plugin.job.completed")]);
    let bare = StrategyDefinition { when: None, ..definition("run", "plugin.job.completed") };
    decide("decide, start without condition", event, vec![bare]);
}

fn definition(name: &str, on: &str) -> StrategyDefinition {
    let variables = [("job_id".to_owned(), "event.data.job_id".to_owned())];
    StrategyDefinition {
        name: name.to_owned(),
        version: 1,
        tenant: "*".to_owned(),
        on: on.to_owned(),
        pattern: None,
        when: Some("event.data.duration_ms >= 0".to_owned()),
        priority: 0,
        weight: 1,
        fan_out: false,
        action: Action::Run {
            workflow: WorkflowRef { name: "job-report".to_owned(), version: "1.0".to_owned() },
            variables: Some(variables.into()),
        },
    }
}

fn decide(what: &str, event: &Event<'_>, definitions: Vec<StrategyDefinition>) {
    match StrategySet::compile(definitions) {
        Ok(set) => report(what, 1, || {
            black_box(set.decide(black_box(event)));
        }),
        Err(problems) => eprintln!("the example's strategies do not compile: {problems:?}"),
    }
}

/// Runs `work`, which handles `events` events, and prints the best of five.
fn report<T>(what: &str, events: usize, work: impl Fn() -> T) {
    let rounds = ROUNDS / u32::try_from(events).unwrap_or(1);
    let best = (0..5).map(|_| {
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(work());
        }
        start.elapsed()
    });
    let best = best.min().unwrap_or_default();
    let handled = f64::from(rounds) * events as f64;
    println!("{what:<34} {:>8.0} ns/event", best.as_secs_f64() * 1e9 / handled);
}
