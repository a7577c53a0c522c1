//! The managed server, against the real binary.

use crate::support::{Stage, connect, options, small_topology};
use fermata_jetstream::{
    Durability, ManagedServer, ServerOptions, monitoring::is_sync_always, reader::StreamReader,
    server::ServerError,
};

#[tokio::test]
async fn what_was_stored_is_there_after_a_crash_and_a_restart_on_the_same_port() {
    let mut stage = Stage::new().await;
    stage.fill("fermata.journal.0", 1..=500).await;
    let url = stage.server.url();

    stage.server.kill().await.expect("killed");
    assert!(!stage.server.is_running());
    stage.server.restart().await.expect("restarted");

    let state = StreamReader::new(&connect(&stage.server).await)
        .stream_state("JOURNAL_0")
        .await
        .expect("a state");
    assert_eq!((state.first_sequence, state.last_sequence), (1, 500));
    assert_eq!(stage.server.url(), url);
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = ManagedServer::start(options(&folder)).await.expect("a server");

    let second = ManagedServer::start(options(&folder)).await;

    assert!(matches!(second, Err(ServerError::DataFolderInUse { .. })));
}

#[tokio::test]
async fn a_server_that_outlived_its_program_is_ended_before_the_next_one_starts() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = ManagedServer::start(options(&folder)).await.expect("a server");
    let data_dir = first.data_dir().to_owned();
    first.stop().await.expect("stopped");
    drop(first);
    let (binary, _) = fermata_jetstream::server::find_server_binary().expect("a binary");
    let mut orphan = std::process::Command::new(binary)
        .arg("-c")
        .arg(data_dir.join("nats-server.conf"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("an orphan");
    let pid_file = data_dir.join("nats-server.pid");
    while std::fs::read_to_string(&pid_file).ok().and_then(|pid| pid.trim().parse().ok())
        != Some(orphan.id())
    {
        tokio::task::yield_now().await;
    }
    // The orphan is our child here: somebody must take its exit status, or it stays visible as a process.
    let reaped = std::thread::spawn(move || orphan.wait());

    let second = ManagedServer::start(options(&folder)).await.expect("a server");

    assert!(!reaped.join().expect("a thread").expect("a status").success() || second.is_running());
    assert!(second.is_running());
}

#[tokio::test]
async fn a_clean_stop_ends_the_process_and_is_seen_by_who_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = ManagedServer::start(options(&folder)).await.expect("a server");

    server.stop().await.expect("stopped");

    server.ended().await;
    assert!(!server.is_running());
}

#[tokio::test]
async fn durability_against_power_cuts_is_what_the_server_says_it_does() {
    for (durability, expected) in [(Durability::Power, true), (Durability::Process, false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let server =
            ManagedServer::start(ServerOptions { durability, monitor: true, ..options(&folder) })
                .await
                .expect("a server");

        let found =
            is_sync_always(server.monitor_url().expect("an address")).await.expect("a report");

        assert_eq!(found, expected, "{durability:?}");
    }
}

#[tokio::test]
async fn the_server_tells_its_version() {
    let stage = Stage::new().await;

    assert_eq!(stage.broker.server_version(), stage.server.version().to_string());
}

#[tokio::test]
async fn applying_a_topology_from_two_starters_creates_each_stream_once_and_finds_no_drift() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = ManagedServer::start(options(&folder)).await.expect("a server");
    let (one, other) = (connect(&server).await, connect(&server).await);
    let topology = small_topology();

    let (first, second) = tokio::join!(topology.apply(&one), topology.apply(&other));
    let again = topology.apply(&one).await.expect("applied");

    let (first, second) = (first.expect("applied"), second.expect("applied"));
    assert_eq!((first.drift, second.drift, again.drift), (vec![], vec![], vec![]));
    assert!(again.created.is_empty());
    assert!(first.created.len() + second.created.len() >= topology.streams().len());
    assert_eq!(topology.compare(&one).await.expect("compared"), []);
}

#[tokio::test]
async fn a_stream_that_differs_is_reported_and_left_alone() {
    let stage = Stage::new().await;
    let mut other = small_topology();
    other.limits.events_bytes += 1;

    let applied = other.apply(&stage.broker).await.expect("applied");

    let fields: Vec<_> =
        applied.drift.iter().map(|drift| (drift.stream.as_str(), drift.field.as_str())).collect();
    assert_eq!(fields, [("EVENTS", "max_bytes")]);
}
