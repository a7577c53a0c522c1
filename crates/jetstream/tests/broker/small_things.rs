//! Leases, definitions, blobs, the configuration and live messages, against the real broker.

use std::time::Duration;

use crate::support::{SOON, Stage, connect, options, small_topology};
use fermata_jetstream::topology::EVENTS_STREAM;
use fermata_jetstream::{
    Bytes, ConnectionEvent, ManagedServer, Publisher, PublisherOptions, ServerOptions,
    StreamReader,
    core_messages::{CoreMessageError, CoreMessages},
    definitions_store::{DefinitionChange, DefinitionsStore},
    engine_config::{agree_on_engine_config, read_engine_config},
    leases::{Acquired, LeaseChange, Leases, Renewed, partition_key, worker_key},
};
use tempfile::TempDir;
use tokio::time::timeout;

#[tokio::test]
async fn of_two_who_want_a_lease_one_gets_it_and_the_other_learns_who() {
    let stage = Stage::new().await;
    let leases = Leases::open(&stage.broker).await.expect("leases");
    let key = partition_key("0");

    let (one, other) =
        tokio::join!(leases.acquire(&key, "one".into()), leases.acquire(&key, "other".into()));

    let outcomes = [one.expect("an answer"), other.expect("an answer")];
    let granted: Vec<_> =
        outcomes.iter().filter(|outcome| matches!(outcome, Acquired::Granted(_))).collect();
    assert_eq!(granted.len(), 1);
    let [Acquired::Granted(lease)] = granted[..] else { panic!("granted") };
    assert!(outcomes.contains(&Acquired::HeldBy(lease.clone())));
}

#[tokio::test]
async fn a_lease_is_renewed_only_at_the_revision_that_its_holder_wrote() {
    let stage = Stage::new().await;
    let leases = Leases::open(&stage.broker).await.expect("leases");
    let Acquired::Granted(lease) =
        leases.acquire("partition.0", "one".into()).await.expect("an answer")
    else {
        panic!("free")
    };

    let renewed = leases.renew(&lease).await.expect("an answer");
    let stale = leases.renew(&lease).await.expect("an answer");

    assert!(matches!(renewed, Renewed::Renewed(_)));
    assert_eq!(stale, Renewed::Lost);
}

#[tokio::test]
async fn a_released_lease_is_free_and_watchers_see_it() {
    let stage = Stage::new().await;
    let leases = Leases::open(&stage.broker).await.expect("leases");
    let mut watch = leases.watch().await.expect("a watch");
    let mut next = async || {
        timeout(SOON, watch.next()).await.expect("in time").expect("a change").expect("a change")
    };

    let Acquired::Granted(first) =
        leases.acquire("partition.0", "one".into()).await.expect("an answer")
    else {
        panic!("free")
    };
    assert_eq!(next().await, LeaseChange::Held(first.clone()));
    leases.release(&first).await.expect("released");
    assert_eq!(next().await, LeaseChange::Gone { key: first.key });
    let Acquired::Granted(second) =
        leases.acquire("partition.0", "two".into()).await.expect("an answer")
    else {
        panic!("free again")
    };
    assert_eq!(next().await, LeaseChange::Held(second));
}

#[tokio::test]
async fn live_workers_are_listed_by_name_and_what_no_worker_wrote_is_foreign() {
    let stage = Stage::new().await;
    let leases = Leases::open(&stage.broker).await.expect("leases");
    for (key, holder) in [
        (worker_key("b"), &b"b"[..]),
        (worker_key("a"), b"a"),
        (partition_key("0"), b"a"),
        (partition_key("1"), b"\xff\x00"),
        (worker_key("phantom"), b"\x93garbage"),
        (worker_key("two.tokens"), b"two.tokens"),
        ("another.program".to_owned(), b"a"),
    ] {
        leases.acquire(&key, Bytes::from_static(holder)).await.expect("an answer");
    }
    // No key of a bucket, but a subject of its stream.
    stage.fill("$KV.fermata-leases.worker.{}", 1..=1).await;

    let held = leases.held().await.expect("a list");

    assert_eq!(held.workers, ["a", "b"]);
    assert_eq!(leases.live_workers().await.expect("a list"), ["a", "b"]);
    assert_eq!(held.leases.keys().collect::<Vec<_>>(), ["partition.0", "worker.a", "worker.b"]);
    assert_eq!(held.foreign.len(), 5, "{:?}", held.foreign);
}

#[tokio::test]
async fn a_lease_that_nobody_renews_expires_and_watchers_see_it() {
    let stage = Stage::new().await;
    let leases = Leases::open(&stage.broker).await.expect("leases");
    leases.acquire("worker.a", "a".into()).await.expect("an answer");
    let mut watch = leases.watch().await.expect("a watch");

    let change = timeout(Duration::from_secs(40), async {
        loop {
            if let Some(change @ LeaseChange::Gone { .. }) = watch.next().await.expect("a change") {
                return change;
            }
        }
    })
    .await
    .expect("expired");

    assert_eq!(change, LeaseChange::Gone { key: "worker.a".to_owned() });
    assert!(matches!(
        leases.acquire("worker.a", "b".into()).await.expect("an answer"),
        Acquired::Granted(_)
    ));
}

#[tokio::test]
async fn definitions_are_written_read_and_watched() {
    let stage = Stage::new().await;
    let store = DefinitionsStore::open(&stage.broker).await.expect("a store");
    let revision = store.put("workflow.report.1", "one".into()).await.expect("written");
    let mut watch = store.watch("workflow.>").await.expect("a watch");

    store.put("workflow.report.2", "two".into()).await.expect("written");

    let read = store.get("workflow.report.1").await.expect("read").expect("a definition");
    assert_eq!((read.value.as_ref(), read.revision), (&b"one"[..], revision));
    assert_eq!(store.get("workflow.none").await.expect("read"), None);
    for expected in ["workflow.report.1", "workflow.report.2"] {
        let change = timeout(SOON, watch.next())
            .await
            .expect("in time")
            .expect("a change")
            .expect("a change");
        assert!(
            matches!(&change, DefinitionChange::Put(definition) if definition.key == expected),
            "{change:?}"
        );
    }
}

#[tokio::test]
async fn a_blob_is_stored_once_and_read_back_whole() {
    let stage = Stage::new().await;
    let store = DefinitionsStore::open(&stage.broker).await.expect("a store");
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();

    store.put_blob("00ff", &bytes).await.expect("stored");
    store.put_blob("00ff", b"other bytes under the same digest").await.expect("there already");

    assert_eq!(store.get_blob("00ff").await.expect("read").expect("a blob"), bytes);
    assert_eq!(store.get_blob("0000").await.expect("read"), None);
}

#[tokio::test]
async fn all_starters_agree_on_the_configuration_of_one_of_them() {
    let stage = Stage::new().await;
    assert_eq!(read_engine_config(&stage.broker).await.expect("read"), None);

    let (one, other) = tokio::join!(
        agree_on_engine_config(&stage.broker, &stage.publisher, "one", "1".into()),
        agree_on_engine_config(&stage.broker, &stage.publisher, "other", "2".into()),
    );

    let (one, other) = (one.expect("agreed"), other.expect("agreed"));
    assert_eq!(one, other);
    assert_eq!(one.sequence, 1);
    assert_eq!(read_engine_config(&stage.broker).await.expect("read"), Some(one));
}

#[tokio::test]
async fn a_configuration_is_agreed_on_over_foreign_messages() {
    let stage = Stage::new().await;
    stage.fill("fermata.config", 1..=3).await;
    assert_eq!(read_engine_config(&stage.broker).await.expect("read"), None);

    let agree = |bytes: &'static str| {
        agree_on_engine_config(&stage.broker, &stage.publisher, "one", bytes.into())
    };
    let first = agree("1").await.expect("agreed");
    stage.fill("fermata.config", 4..=4).await;
    let second = agree("2").await.expect("agreed");

    assert_eq!((first.sequence, first.payload.as_ref()), (4, &b"1"[..]));
    assert_eq!(second, first);
}

#[tokio::test]
async fn live_messages_reach_who_listens_and_a_question_without_listener_is_told() {
    let stage = Stage::new().await;
    let core = CoreMessages::new(&stage.broker);
    let mut feed = core.subscribe("fermata.audit.*").await.expect("a subscription");

    core.publish_core("fermata.audit.acme", "entry".into()).await.expect("sent");
    core.flush().await.expect("flushed");

    let message = timeout(SOON, feed.next()).await.expect("in time").expect("a message");
    assert_eq!(
        (message.subject.as_str(), message.payload.as_ref()),
        ("fermata.audit.acme", &b"entry"[..])
    );
    let silence = core.request("nobody", Bytes::new(), SOON).await;
    assert!(matches!(silence, Err(CoreMessageError::NoResponders { .. })), "{silence:?}");
}

#[tokio::test]
async fn a_subscription_that_was_made_misses_nothing_that_is_sent_after_it() {
    let stage = Stage::new().await;
    let core = CoreMessages::new(&stage.broker);

    for round in 0..500 {
        let subject = format!("fermata.audit.tenant-{round}");
        let mut feed = core.subscribe(&subject).await.expect("a subscription");
        core.publish_core(subject, "entry".into()).await.expect("sent");
        let heard = timeout(SOON, feed.next()).await;
        heard.unwrap_or_else(|_| panic!("round {round}")).expect("a message");
    }
}

#[tokio::test]
async fn a_listener_that_falls_too_far_behind_is_told_that_it_lost_messages() {
    let stage = Stage::new().await;
    let core = CoreMessages::new(&stage.broker);
    let mut notices = stage.broker.notices();
    let _feed = core.subscribe("fermata.audit.*").await.expect("a subscription");

    for _ in 0..fermata_jetstream::core_messages::SUBSCRIPTION_CAPACITY + 100 {
        core.publish_core("fermata.audit.acme", Bytes::new()).await.expect("sent");
    }

    let notice = timeout(SOON, notices.recv()).await.expect("in time").expect("a notice");
    assert!(matches!(notice.event, ConnectionEvent::SlowConsumer { .. }), "{notice:?}");
}

/// A broker of its own in `folder`, on `port` where one is named.
async fn server(folder: &TempDir, port: Option<u16>) -> ManagedServer {
    ManagedServer::start(ServerOptions { port, ..options(folder) }).await.expect("a server")
}

/// Makes the streams, and agrees on an engine of the name.
async fn agree_on(server: &ManagedServer, engine: &'static str) {
    let broker = connect(server).await;
    small_topology().apply(&broker).await.expect("streams");
    let publisher =
        Publisher::new(&broker, PublisherOptions::default()).await.expect("a publisher");
    let agreed = agree_on_engine_config(&broker, &publisher, "w", engine.into()).await;
    assert_eq!(agreed.expect("agreed").payload, engine);
}

fn port_of(server: &ManagedServer) -> Option<u16> {
    Some(server.url().rsplit(':').next()?.parse().expect("a port"))
}

const QUEUED: usize = 100;

/// What is queued while nobody is connected is sent before anybody could look what was connected to.
#[tokio::test]
async fn what_was_queued_for_an_engine_is_never_sent_to_another_that_took_its_place() {
    let folders = [tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder")];
    let mut first = server(&folders[0], None).await;
    agree_on(&first, "first").await;
    let broker = connect(&first).await;
    broker.stay_with("first".into());
    first.kill().await.expect("killed");
    // Past the publisher, which sends nothing while it knows that nobody is connected.
    let client = CoreMessages::new(&broker);
    for _ in 0..QUEUED {
        let queued = client.publish_core("fermata.events.acme.a", "{}".into());
        timeout(SOON, queued).await.expect("in time").expect("queued");
    }

    let second = server(&folders[1], port_of(&first)).await;
    agree_on(&second, "second").await;
    let replaced = timeout(SOON, broker.replaced()).await.expect("in time");

    assert_eq!(replaced.found, Some("second".into()));
    assert!(replaced.url.contains("127.0.0.1"), "{replaced:?}");
    assert!(!broker.is_connected());
    let theirs = StreamReader::new(&connect(&second).await).stream_state(EVENTS_STREAM).await;
    assert_eq!(theirs.expect("a state").last_sequence, 0, "{QUEUED} were queued");
}

#[tokio::test]
async fn the_engine_that_comes_back_with_its_data_is_connected_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = server(&folder, None).await;
    agree_on(&first, "first").await;
    let broker = connect(&first).await;
    broker.stay_with("first".into());
    let before = broker.interruptions();

    first.kill().await.expect("killed");
    timeout(SOON, async {
        while broker.interruptions() < before + 2 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is noticed");
    first.restart().await.expect("started");

    timeout(SOON, broker.connected()).await.expect("in time");
    let read = read_engine_config(&broker).await.expect("an answer").expect("a configuration");
    assert_eq!(read.payload, "first");
}
