//! More events than an engine gets done, from publishers who do not wait: what it takes stays
//! within bounds that do not depend on how many there are.

use std::time::{Duration, Instant};

use fermata_tests::footprint::{Footprint, stream_bytes, unacknowledged};
use fermata_tests::snapshots::Snapshots;

use crate::load::{Load, WIDE};
use crate::scene::Scene;

/// Time between two events.
const PAUSE: Duration = Duration::from_micros(500);

/// How long the flood lasts, and its first part, with which the second is compared.
const FLOOD: Duration = Duration::from_secs(12);
const FIRST_PART: Duration = Duration::from_secs(6);

/// Memory of one worker with four partitions, in bytes.
const RESIDENT_BYTES_MAX: u64 = 512 << 20;

/// How much more of it the second part of a flood may take than the first: keys of events are
/// remembered for a day (some 200 bytes each), and an allocator takes in steps.
const GROWTH_BYTES_MAX: u64 = 96 << 20;

/// Open files of one worker: 256 connections to a plugin (`connections_per_plugin_max`), and as
/// many for all else: those that are kept for the next call, and what is always open.
const OPEN_FILES_MAX: usize = 256 + 256;

/// Threads of one worker: some per processor, and those that wait for a disk.
const THREADS_MAX: u64 = 128;

/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_that_is_more_than_an_engine_gets_done_takes_no_more_than_it_may() {
    let mut scene = Scene::set("flood").await;
    // As users run it: what it takes is measured.
    scene.snapshots = Snapshots::Seldom;
    let engine = scene.engine("w-a");
    scene.wait(1_000..1_500).await;
    let load = Load::start_at(scene.publisher.clone(), WIDE, PAUSE);

    let begun = Instant::now();
    let (mut first, mut second) = (Footprint::default(), Footprint::default());
    let (mut waiting_most, mut looks) = (0, 0);
    while begun.elapsed() < FLOOD {
        let now = Footprint::of(engine.pid());
        let part = if begun.elapsed() < FIRST_PART { &mut first } else { &mut second };
        *part = part.or_more(now);
        assert!(now.resident_bytes <= RESIDENT_BYTES_MAX, "{now:?}");
        assert!(now.open_files <= OPEN_FILES_MAX, "{now:?}");
        assert!(now.threads <= THREADS_MAX, "{now:?}");
        for (name, bytes, most) in stream_bytes(&scene.broker).await.unwrap_or_default() {
            let most = most.unwrap_or_else(|| panic!("{name} has no bound"));
            assert!(bytes <= most, "{name} holds {bytes} of {most}");
            looks += 1;
        }
        for stream in ["EVENTS", "TASKS"] {
            let consumers = unacknowledged(&scene.broker, stream).await.unwrap_or_default();
            for (waiting, most) in consumers {
                let most = most.expect("a bound of what is not acknowledged");
                assert!(waiting <= most, "{stream}: {waiting} of {most}");
                waiting_most = waiting_most.max(waiting);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    let published = load.stop().await;

    println!(
        "fault: flood: {} events in {:.1} s; first part {first:?}, second {second:?}, \
         {waiting_most} not acknowledged at the most",
        published.acknowledged.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(looks > 100, "the broker told {looks} times what a stream holds");
    let growth = second.resident_bytes.saturating_sub(first.resident_bytes);
    assert!(growth <= GROWTH_BYTES_MAX, "{growth} bytes more: {first:?}, {second:?}");
    scene.heal_and_check(&published, 1).await;
    let after = Footprint::of(engine.pid());
    assert!(after.resident_bytes <= RESIDENT_BYTES_MAX, "{after:?}");
    engine.kill().await;
}
