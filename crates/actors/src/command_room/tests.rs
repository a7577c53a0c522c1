use std::future::pending;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_frame_before_which_nothing_passes_waits_for_a_minute() {
    let room = Room::default();
    let begun = tokio::time::Instant::now();

    assert!(!room.pass(pending()).await);

    assert_eq!(begun.elapsed().as_secs(), ROOM_WAIT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_frame_before_which_others_pass_waits_for_its_turn() {
    let room = Room::default();
    let others = (0..4).map(|_| room.pass(tokio::time::sleep(ROOM_WAIT / 2)));
    let others = futures_util::future::join_all(others);

    let (others, last) = tokio::join!(others, room.pass(tokio::time::sleep(SECOND)));

    assert_eq!(others, [true; 4]);
    assert!(last, "it was let through after two minutes");
}

#[tokio::test(start_paused = true)]
async fn no_frame_waits_for_longer_than_its_source_is_held() {
    let room = Room::default();
    let begun = tokio::time::Instant::now();
    let others = (0..10).map(|_| room.pass(tokio::time::sleep(ROOM_WAIT / 2)));
    let others = futures_util::future::join_all(others);

    let (_, last) = tokio::join!(others, room.pass(pending()));

    assert!(!last);
    assert!(begun.elapsed() <= HOLD_MAX + SECOND, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_publish_that_ends_wakes_the_frame_that_waits() {
    let room = Arc::new(Room::default());
    room.known().window.begin(1, Instant::now());
    let admitted = Admitted { room: room.clone(), bytes: 1, commands: 1, outcome: None };

    drop(admitted);

    assert!(timeout(Duration::ZERO, room.news.notified()).await.is_ok());
}
