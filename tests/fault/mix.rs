//! Two or three faults at once, drawn from a seed among all that can be done to workers, servers,
//! lines, clocks, the plugin and the streams; then everything heals, and every promise is kept.

use std::time::Duration;

use fermata_core::record::Kind;
use fermata_tests::journal::count;
use tokio::time::Instant;

use crate::clock::wrong_times;
use crate::faults::{Fault, draw};
use crate::ground::SERVERS;
use crate::load::{ALL, Load, Past};
use crate::targets::Targets;
use crate::workers::balance;

/// Rounds unless `FAULT_MIXES` says otherwise.
const ROUNDS: u32 = 1;

/// Time between two events: the machine has several servers and workers to run.
const PAUSE: Duration = Duration::from_millis(16);

/// How many of a hundred runs must succeed: some are cancelled, and some meet a plugin that fails for
/// longer than they try.
const SUCCEEDED_PERCENT_MIN: usize = 30;

#[tokio::test(flavor = "multi_thread")]
async fn faults_mixed_on_one_server_break_no_promise() {
    const TEST: &str = "faults mixed on one server break no promise";
    mixes(Targets::set("mixed on one server", TEST, 1, 2).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_mixed_on_three_servers_break_no_promise() {
    const TEST: &str = "faults mixed on three servers break no promise";
    mixes(Targets::set("mixed on three servers", TEST, SERVERS, 3).await).await;
}

async fn mixes(mut targets: Targets) {
    let mut watches = targets.scene.watches();
    let load = Load::start_at(targets.scene.publisher.clone(), ALL, PAUSE);
    let past = load.past();
    balance(&targets.scene, &mut watches, targets.names(), "all start").await;

    let most = std::env::var("FAULT_MIXES").ok();
    let most = most.map_or(ROUNDS, |most| most.parse().expect("a number of rounds"));
    let mut rounds = 0;
    while rounds < most && targets.scene.has_time_for_one_more(rounds) {
        rounds += 1;
        mix(&mut targets, &past, rounds).await;
        targets.scene.wait(300..800).await;
    }
    let published = load.stop().await;

    let scene = &targets.scene;
    let healed = scene.heal_and_check_runs(&published, rounds, SUCCEEDED_PERCENT_MIN).await;
    let disturbed = targets.disturbed;
    println!("fault: {}: {disturbed:?}, {} starts in vain", scene.name, targets.started_in_vain);
    let of = |kind| count(&healed.records, kind);
    assert_eq!(of(Kind::CancelAnswered), disturbed.cancels);
    // Of a publish without an answer nobody knows.
    let poisoned = disturbed.commands_stored..=disturbed.commands_tried;
    assert!(poisoned.contains(&of(Kind::CommandPoisoned)), "{poisoned:?}");
    for watch in &mut watches {
        watch.read(&scene.reader).await.expect("a journal");
        assert_eq!(wrong_times(watch), [""; 0]);
    }
    targets.kill_workers().await;
}

/// Lets the faults of one round begin and end, and waits until everybody is back.
async fn mix(targets: &mut Targets, past: &Past, round: u32) {
    let drawn = draw(&mut targets.scene.dice, &targets.means);
    let told = drawn.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    println!("fault: {}: round {round}: {told}", targets.scene.name);
    let mut steps = drawn
        .iter()
        .flat_map(|one| {
            [(one.during_ms.start, one.fault, true), (one.during_ms.end, one.fault, false)]
        })
        .collect::<Vec<(u64, Fault, bool)>>();
    steps.sort_by_key(|(at_ms, ..)| *at_ms);
    let begun = Instant::now();
    for (at_ms, fault, begins) in steps {
        tokio::time::sleep_until(begun + Duration::from_millis(at_ms)).await;
        if begins {
            targets.begin(fault, past).await;
        } else {
            targets.end(fault).await;
        }
    }
    targets.settle().await;
}
