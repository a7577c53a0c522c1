//! Delays: of a length, until a time, over a change of owners, and longer than
//! their run.

use fermata_core::plan::FailureClass;
use fermata_core::record::{Body, Kind};
use fermata_tests::journal::{count, kinds_of, of_run};
use uuid::Uuid;

use super::scene::{Scene, failure_of};

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_ends_when_its_time_has_come_though_another_owner_took_over() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: pause, delay: 2500ms }
    - { id: after, depends_on: [pause], http: { plugin: sink, path: /ok } }
",
    )
    .await;

    scene.publish(1).await;
    scene.until_kind(Kind::NodeDelayed).await;
    let scene = scene.restarted().await;
    let (records, run) = scene.until_kind(Kind::RunSucceeded).await;

    assert_eq!(
        kinds_of(&records, run),
        [
            Kind::RunStarted,
            Kind::NodeDelayed,
            Kind::NodeSucceeded,
            Kind::NodeDispatched,
            Kind::NodeSucceeded,
            Kind::RunSucceeded,
        ]
    );
    let of_run = of_run(&records, run);
    let times = of_run.iter().map(|(header, _)| header.time.0).collect::<Vec<_>>();
    let [_, began, ended, ..] = times.as_slice() else { panic!("{times:?}") };
    assert!(ended - began >= 2_500, "{times:?}");
    assert_eq!(count(&records, Kind::PartitionOwned), 4, "both partitions had two owners");
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_until_a_time_waits_for_it_and_not_for_one_that_has_passed() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: past, delay: { until: \"'2001-02-03T04:05:06+01:00'\" } }
    - { id: soon, depends_on: [past], delay: { until: input.n } }
",
    )
    .await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let soon = u64::try_from(now.expect("a clock").as_millis()).expect("milliseconds") + 1_500;

    scene.publish(soon).await;
    let (records, run) = scene.until_kind(Kind::RunSucceeded).await;

    let dues =
        of_run(&records, run).into_iter().filter_map(|(header, record)| match &record.body {
            Body::NodeDelayed(delayed) => Some(delayed.due.0.saturating_sub(header.time.0)),
            _ => None,
        });
    let dues = dues.collect::<Vec<_>>();
    assert_eq!(dues[0], 0, "what has passed is no wait");
    let mut ended = records.iter().filter(|(header, _)| header.kind == Kind::NodeSucceeded);
    assert!(ended.next_back().is_some_and(|(header, _)| header.time.0 >= soon), "{records:?}");
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_that_would_outlast_its_run_fails_at_once_and_a_cancelled_run_does_not_wait() {
    let scene = Scene::with(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: pause, delay: { until: input.n } }
",
    )
    .await;
    let in_2100 = 4_102_444_800_000;

    scene.publish(in_2100).await;
    let (records, run) = scene.until_kind(Kind::RunFailed).await;
    let (class, detail) = failure_of(&records, run).expect("a failure");
    assert_eq!(class, FailureClass::Timeout, "{detail}");

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let in_an_hour = now.expect("a clock").as_millis() + 3_600_000;
    scene.publish(u64::try_from(in_an_hour).expect("milliseconds")).await;
    let (_, run) = scene.until_kind(Kind::NodeDelayed).await;
    assert_eq!(scene.cancel(run, Uuid::from_bytes(rand::random())).await, "closing");
    let (records, cancelled) = scene.until_kind(Kind::RunCancelled).await;
    assert_eq!(cancelled, run);
    assert_eq!(count(&records, Kind::EffectLate), 0);
    scene.engine.shut_down().await;
}
