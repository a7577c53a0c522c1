//! Publishing and fenced appends, against the real broker.

use std::time::Duration;

use crate::support::{SOON, Stage};
use fermata_jetstream::{
    Bytes, ConnectionEvent, PublishOutcome, Publisher, PublisherOptions, Refusal,
    core_messages::CoreMessages, reader::StreamReader,
};
use tokio::time::timeout;

const JOURNAL: &str = "fermata.journal.0";

#[tokio::test]
async fn pipelined_publishes_are_stored_in_the_order_of_calls() {
    let stage = Stage::new().await;
    let mut receipts = Vec::new();
    for number in 0..3_000_u64 {
        receipts
            .push(stage.publisher.publish(JOURNAL, None, Bytes::from(number.to_string())).await);
    }

    for (expected, receipt) in (1..).zip(receipts) {
        assert_eq!(receipt.await, PublishOutcome::Stored { sequence: expected, duplicate: false });
    }
    assert_eq!(stage.publisher.unanswered(), 0);
}

#[tokio::test]
async fn an_append_at_the_wrong_end_is_refused_and_told_where_the_stream_stands() {
    let stage = Stage::new().await;
    let first = stage.publisher.append(JOURNAL, 0, "writer-1", Bytes::from_static(b"a")).await;

    let stale = stage.publisher.append(JOURNAL, 0, "writer-2", Bytes::from_static(b"b")).await;

    assert_eq!(first.sequence(), Some(1));
    let PublishOutcome::Refused { refusal, code, .. } = stale else { panic!("{stale:?}") };
    assert_eq!((refusal, code), (Refusal::WrongLastSequence { last: Some(1) }, 10071));
}

#[tokio::test]
async fn the_writer_of_an_append_is_stored_with_it() {
    let stage = Stage::new().await;
    stage.publisher.append(JOURNAL, 0, "0123456789abcdef", Bytes::from_static(b"a")).await;

    let message = StreamReader::new(&stage.broker)
        .read_one("JOURNAL_0", 1)
        .await
        .expect("read")
        .expect("a message");

    assert_eq!(message.writer.as_deref(), Some("0123456789abcdef"));
}

#[tokio::test]
async fn a_writer_that_cannot_be_a_header_is_refused_without_being_sent() {
    let stage = Stage::new().await;

    let outcome = stage.publisher.append(JOURNAL, 0, "a\r\nb", Bytes::new()).await;

    assert!(
        matches!(outcome, PublishOutcome::Refused { refusal: Refusal::NotSent, .. }),
        "{outcome:?}"
    );
    assert_eq!(stage.publisher.unanswered(), 0);
}

#[tokio::test]
async fn a_subject_that_no_stream_takes_has_no_responders() {
    let stage = Stage::new().await;

    let outcome = stage.publisher.publish("elsewhere", None, Bytes::new()).await.await;

    assert!(
        matches!(outcome, PublishOutcome::Refused { refusal: Refusal::NoResponders, .. }),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_without_being_sent() {
    let stage = Stage::new().await;

    let outcome =
        stage.publisher.publish(JOURNAL, None, Bytes::from(vec![0; 2 * 1024 * 1024])).await.await;

    assert!(
        matches!(outcome, PublishOutcome::Refused { refusal: Refusal::TooLarge, .. }),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_full_stream_refuses_and_keeps_what_it_has() {
    let stage = Stage::new().await;
    let mut last = None;

    // CONFIG holds 1 MiB.
    for _ in 0..3 {
        last = Some(
            stage
                .publisher
                .publish("fermata.config", None, Bytes::from(vec![0; 600 * 1024]))
                .await
                .await,
        );
    }

    assert!(
        matches!(
            last,
            Some(PublishOutcome::Refused { refusal: Refusal::StreamFull, code: 10077, .. })
        ),
        "{last:?}"
    );
    let state = StreamReader::new(&stage.broker).stream_state("CONFIG").await.expect("a state");
    assert_eq!(state.first_sequence, 1);
}

#[tokio::test]
async fn a_killed_server_makes_everything_in_flight_unknown_at_once_and_nothing_is_left_behind() {
    let mut stage = Stage::new().await;
    let options = PublisherOptions { window: 64, answer_limit: Duration::from_secs(3_600) };
    let publisher = Publisher::new(&stage.broker, options).await.expect("a publisher");
    let core = CoreMessages::new(&stage.broker);
    let _listener = core.subscribe("silent").await.expect("a subscription");
    let mut receipts = Vec::new();
    for _ in 0..32 {
        receipts.push(publisher.publish("silent", None, Bytes::new()).await);
    }

    stage.server.kill().await.expect("killed");

    for receipt in receipts {
        let outcome = timeout(SOON, receipt).await.expect("resolved long before the answer limit");
        assert_eq!(outcome, PublishOutcome::Unknown);
    }
    assert_eq!(publisher.unanswered(), 0);
    stage.server.restart().await.expect("restarted");
    let after = timeout(SOON, publisher.append(JOURNAL, 0, "writer", Bytes::new()))
        .await
        .expect("an answer");
    assert_eq!(after.sequence(), Some(1));
}

#[tokio::test]
async fn while_the_connection_is_down_a_publish_is_refused_and_never_sent_later() {
    let mut stage = Stage::new().await;
    let options = PublisherOptions { window: 64, answer_limit: Duration::from_millis(200) };
    let publisher = Publisher::new(&stage.broker, options).await.expect("a publisher");
    let mut notices = stage.broker.notices();
    stage.server.kill().await.expect("killed");
    let mut lost = 0;
    while lost < 2 {
        let notice = timeout(SOON, notices.recv()).await.expect("in time").expect("a notice");
        lost += u32::from(notice.event == ConnectionEvent::Disconnected);
    }

    let outcome = timeout(SOON, publisher.publish(JOURNAL, None, Bytes::new()).await)
        .await
        .expect("resolved");

    assert!(
        matches!(outcome, PublishOutcome::Refused { refusal: Refusal::NotSent, .. }),
        "{outcome:?}"
    );
    stage.server.restart().await.expect("restarted");
    timeout(SOON, stage.broker.connected()).await.expect("connected again");
    let state = StreamReader::new(&stage.broker).stream_state("JOURNAL_0").await.expect("a state");
    assert_eq!(state.last_sequence, 0);
}

#[tokio::test]
async fn answers_that_never_come_become_unknown_and_give_the_window_back() {
    let stage = Stage::new().await;
    let publisher = Publisher::new(
        &stage.broker,
        PublisherOptions { window: 4, answer_limit: Duration::from_millis(300) },
    )
    .await
    .expect("a publisher");
    // Somebody listens, so the broker does not say that nobody answers; but nobody answers.
    let core = CoreMessages::new(&stage.broker);
    let _listener = core.subscribe("silent").await.expect("a subscription");

    for _ in 0..12 {
        let receipt = timeout(SOON, publisher.publish("silent", None, Bytes::new()))
            .await
            .expect("a place in the window");
        drop(receipt);
    }
    let outcome = timeout(SOON, publisher.publish("silent", None, Bytes::new()).await)
        .await
        .expect("resolved");

    assert_eq!(outcome, PublishOutcome::Unknown);
    assert_eq!(publisher.unanswered(), 0);
}

#[tokio::test]
async fn a_receipt_outlives_its_publisher_as_unknown() {
    let stage = Stage::new().await;
    let publisher =
        Publisher::new(&stage.broker, PublisherOptions::default()).await.expect("a publisher");
    let core = CoreMessages::new(&stage.broker);
    let _listener = core.subscribe("silent").await.expect("a subscription");
    let receipt = publisher.publish("silent", None, Bytes::new()).await;

    drop(publisher);

    assert_eq!(timeout(SOON, receipt).await.expect("resolved"), PublishOutcome::Unknown);
}

#[tokio::test]
async fn losing_and_regaining_the_connection_is_told() {
    let mut stage = Stage::new().await;
    let mut notices = stage.broker.notices();

    stage.server.kill().await.expect("killed");
    stage.server.restart().await.expect("restarted");

    let mut seen = Vec::new();
    while seen.iter().filter(|event| **event == ConnectionEvent::Connected).count() < 2 {
        seen.push(timeout(SOON, notices.recv()).await.expect("in time").expect("a notice").event);
    }
    assert_eq!(seen.iter().filter(|event| **event == ConnectionEvent::Disconnected).count(), 2);
}
