//! A worker's wall clock is set an hour ahead and an hour back, while it runs and between two runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use fermata_core::record::Kind;
use fermata_partition::clock::AHEAD_MS_MAX;
use fermata_tests::clocks::{SteppedClock, c_compiler};
use fermata_tests::journal::{Entry, JournalWatch};
use fermata_tests::rights::not_run;

use crate::load::{Load, REST, TIMED};
use crate::process::{Surroundings, log_of};
use crate::scene::{PARTITIONS, Scene};

const HOUR_S: i64 = 3_600;

/// How long the log may take to tell it: it is looked at every few seconds.
const TELL_LIMIT: Duration = Duration::from_secs(30);

/// How the log tells it, and that it is over.
const DIFFER: &str = "this machine's clock and the broker's differ";
const AGREE: &str = "this machine's clock and the broker's agree again";

/// What is logged: the latter is no warning.
const LOGGED: &str = "warn,fermata_actors::coordinator::status=info";

/// How much an estimate of the broker's time may be off while the machine is busy, milliseconds:
/// a thousandth of the step.
const SLACK_MS: u64 = 3_600;

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_by_an_hour_fires_no_timer_early_and_loses_none() {
    const NAME: &str = "a clock that is set by an hour fires no timer early and loses none";
    if let Err(reason) = c_compiler() {
        return not_run(NAME, &reason);
    }
    let clock = SteppedClock::new();
    let mut scene = Scene::set("clock set").await;
    let (url, log) = (scene.ground.url(), log_of(scene.ground.folder(), "w-a"));
    let mut variables = clock.variables();
    variables.push(("RUST_LOG", LOGGED.into()));
    let surroundings = Surroundings { variables, ..Surroundings::default() };
    let engine = scene.engine_in(&url, "w-a", &surroundings);
    let load = Load::start(scene.publisher.clone(), TIMED);
    scene.wait(1_500..2_000).await;

    for step in [HOUR_S, -HOUR_S] {
        let before = told(&log, DIFFER);
        clock.step(step);
        told_again(&log, DIFFER, &before).await;
        scene.wait(2_000..3_000).await;
        let before = told(&log, AGREE);
        clock.step(0);
        // Who does not notice that does not tell the next step.
        told_again(&log, AGREE, &before).await;
    }
    // Ahead in one life, behind in the next: journal time goes on from where it was.
    let before = told(&log, DIFFER);
    clock.step(HOUR_S);
    told_again(&log, DIFFER, &before).await;
    engine.kill().await;
    let before = told(&log, DIFFER);
    clock.step(-HOUR_S);
    let engine = scene.engine_in(&url, "w-a", &surroundings);
    told_again(&log, DIFFER, &before).await;
    scene.wait(1_000..1_500).await;
    clock.step(0);
    let published = load.stop().await;

    scene.heal_and_check(&published, 4).await;
    let mut watches = scene.watches();
    let _ = scene.owners(&mut watches).await;
    let mut rested = 0;
    for watch in &watches {
        assert_eq!(wrong_times(watch), [""; 0]);
        rested += rests(&watch.records);
    }
    assert!(rested > 100, "{rested} rests");
    engine.kill().await;
}

/// How often each data partition has told this.
fn told(log: &Path, what: &str) -> Vec<usize> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let told_by = |partition: u16| {
        let name = format!("partition={partition} ");
        text.lines().filter(|line| line.contains(what) && line.contains(&name)).count()
    };
    (0..PARTITIONS).map(told_by).collect()
}

/// Waits until each data partition has told this once more.
async fn told_again(log: &Path, what: &str, before: &[usize]) {
    let begun = Instant::now();
    loop {
        let now = told(log, what);
        if now.iter().zip(before).all(|(now, before)| now > before) {
            return;
        }
        assert!(
            begun.elapsed() < TELL_LIMIT,
            "`{what}`: told {before:?} times before, now {now:?}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Where journal time falls, or runs further ahead of the broker's clock than it may.
pub fn wrong_times(watch: &JournalWatch) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut last_ms = 0;
    let stored = watch.messages.iter().map(|message| (message.sequence, message.broker_time_ns));
    let stored_ms = stored.map(|(sequence, ns)| (sequence, ns.unsigned_abs() / 1_000_000));
    let stored_ms = stored_ms.collect::<BTreeMap<_, _>>();
    // What has no writer is no frame of ours.
    for message in watch.messages.iter().filter(|message| message.writer.is_some()) {
        let frame = fermata_wire::journal::JournalFrame::decode(&message.payload);
        let time_ms = frame.expect("a frame").head.time.0;
        if time_ms < last_ms {
            wrong.push(format!("frame {}: {time_ms} follows {last_ms}", message.sequence));
        }
        last_ms = time_ms;
        let stored_ms = stored_ms[&message.sequence];
        if time_ms > stored_ms + AHEAD_MS_MAX + SLACK_MS {
            wrong.push(format!("frame {}: {time_ms} when it was {stored_ms}", message.sequence));
        }
    }
    wrong
}

/// How many runs rested; each as long as it should by the journal's time.
fn rests(records: &[Entry]) -> usize {
    let (node, length) = REST;
    let mut begun = BTreeMap::new();
    let mut rested = 0;
    for (header, _) in records.iter().filter(|(header, _)| header.node.as_deref() == Some(node)) {
        match header.kind {
            Kind::NodeDelayed => {
                begun.insert(header.run, header.time.0);
            }
            Kind::NodeSucceeded => {
                let length_ms = header.time.0 - begun[&header.run];
                assert!(u128::from(length_ms) >= length.as_millis(), "{length_ms} ms");
                rested += 1;
            }
            _ => {}
        }
    }
    rested
}
