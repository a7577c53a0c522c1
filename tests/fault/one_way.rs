//! Lines that carry one way only: a worker that is heard and hears nothing, and one that hears and
//! is not heard.

use std::time::{Duration, Instant};

use fermata_jetstream::Durability;
use fermata_jetstream::server::Placement;
use fermata_jetstream::topology::LEASE_TTL;
use fermata_tests::networks::Networks;
use fermata_tests::rights::{network_namespaces, not_run};

use crate::LEASE_LEFT_MIN;
use crate::ground::Ground;
use crate::load::{Load, WIDE};
use crate::process::Surroundings;
use crate::scene::Scene;
use crate::workers::balance;

/// How long the others may take to take over; the leases run out first.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(LEASE_TTL.as_secs() * 3);

/// How many frames whoever took over appends while the lines are broken.
const FRAMES: usize = 40;

/// Networks of the two workers.
const DEAF: u8 = 0;
const MUTE: u8 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_hear_nothing_or_are_not_heard_lose_and_double_nothing() {
    const NAME: &str = "workers that hear nothing or are not heard lose and double nothing";
    if let Err(reason) = network_namespaces() {
        return not_run(NAME, &reason);
    }
    let networks = Networks::new(0, 2);
    let place = Placement { address: networks.outside(), ..Placement::default() };
    let ground = Ground::alone_at(Durability::Process, place).await;
    let mut scene = Scene::set_at("one-way cuts", ground, networks.outside()).await;
    let url = scene.ground.url();
    let inside =
        |network| Surroundings { launcher: networks.launcher(network), ..Surroundings::default() };
    let mut deaf = scene.engine_in(&url, "w-a", &inside(DEAF));
    let mut mute = scene.engine_in(&url, "w-b", &inside(MUTE));
    let sound = scene.engine("w-c");
    let mut watches = scene.watches();
    let load = Load::start(scene.publisher.clone(), WIDE);
    balance(&scene, &mut watches, &["w-a", "w-b", "w-c"], "three start").await;
    let before = scene.owners(&mut watches).await;
    assert!(["w-a", "w-b"].iter().all(|cut| before.iter().any(|owner| owner == cut)), "{before:?}");
    scene.wait(500..1_000).await;

    networks.assert_heard_and_answered(DEAF, (true, true));
    networks.deafen(DEAF);
    networks.mute(MUTE);
    let begun = Instant::now();
    while !scene.owners(&mut watches).await.iter().all(|owner| owner == "w-c") {
        assert!(begun.elapsed() < TAKEOVER_LIMIT, "not all is taken over: {before:?}");
        scene.wait(50..100).await;
    }
    println!(
        "fault: {}: all was taken over after {:.1} s",
        scene.name,
        begun.elapsed().as_secs_f64()
    );
    assert!(begun.elapsed() > LEASE_LEFT_MIN, "a living owner was pre-empted");
    networks.assert_heard_and_answered(DEAF, (true, false));
    networks.assert_heard_and_answered(MUTE, (false, false));
    let frames = |watches: &[fermata_tests::journal::JournalWatch]| {
        watches.iter().map(|watch| watch.messages.len()).sum::<usize>()
    };
    let taken_over = frames(&watches);
    while frames(&watches) < taken_over + FRAMES {
        assert!(begun.elapsed() < 2 * TAKEOVER_LIMIT, "the new owner does not go on");
        let _ = scene.owners(&mut watches).await;
        scene.wait(50..100).await;
    }

    [DEAF, MUTE].into_iter().for_each(|network| networks.mend(network));
    // They come back by themselves, and own what they should again.
    balance(&scene, &mut watches, &["w-a", "w-b", "w-c"], "the lines are mended").await;
    let published = load.stop().await;

    assert!(deaf.is_running() && mute.is_running());
    scene.heal_and_check(&published, 1).await;
    for engine in [deaf, mute, sound] {
        engine.kill().await;
    }
}
