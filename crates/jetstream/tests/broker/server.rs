//! The managed server, against the real binary.

use crate::support::{PlainServer, SOON, Stage, connect, options, small_topology};
use fermata_jetstream::{
    Broker, Bytes, ConnectOptions, ConnectionEvent, Durability, ManagedServer, ServerOptions,
    connection::{ConnectError, Credentials},
    core_messages::CoreMessages,
    monitoring::store,
    reader::StreamReader,
    server::ServerError,
    store_room::LimitedBy,
    topology::TopologyError,
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

        let found = store(server.monitor_url().expect("an address"))
            .await
            .expect("a report")
            .is_sync_always;

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

#[tokio::test]
async fn a_topology_that_is_too_large_for_the_disk_says_so_and_fits_when_scaled_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = ManagedServer::start(options(&folder)).await.expect("a server");
    let broker = connect(&server).await;
    let mut huge = small_topology();
    huge.limits.events_bytes = i64::MAX / 4;

    let refused = huge.apply(&broker).await;
    let fitted = huge.fitted_to(1 << 30);

    assert!(
        matches!(&refused, Err(TopologyError::NoRoom { stream, .. }) if stream == "EVENTS"),
        "{refused:?}"
    );
    assert!(fitted.reserved_bytes() < (1 << 30) + (64 << 20), "{}", fitted.reserved_bytes());
    assert_eq!(fitted.apply(&broker).await.expect("applied").drift, []);
}

#[tokio::test]
async fn what_the_account_cannot_hold_is_refused_before_the_first_stream_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let account = "users: [{ user: a, password: b }], jetstream: { max_file: 3GB }";
    let config = format!(
        "jetstream: {{ store_dir: {:?}, max_file_store: 20GB }}\naccounts: {{ A: {{ {account} }} }}\n\
         no_auth_user: a\n",
        folder.path()
    );
    let server = PlainServer::start(&config).await;
    let broker = Broker::connect(&server.url, ConnectOptions::default()).await.expect("connected");
    let topology = small_topology();

    let refused = topology.apply_config(&broker, None).await.expect_err("too much");

    let TopologyError::NotAllFit(shortage) = &refused else { panic!("{refused:?}") };
    assert_eq!(shortage.room.limited_by, LimitedBy::Account);
    assert_eq!(shortage.most_bytes, Some(2 << 30), "{shortage:?}");
    let missing = topology.compare(&broker).await.expect("compared");
    assert_eq!(missing.len(), topology.streams().len(), "not one is there: {missing:?}");
    let fitted = topology.fitted_to(2 << 30);
    fitted.apply_config(&broker, None).await.expect("room for it");
    assert_eq!(fitted.apply(&broker).await.expect("applied").drift, []);
}

/// Set for the copy of this test that plays the program which is killed.
const VICTIM_FOLDER: &str = "FERMATA_TEST_VICTIM_FOLDER";

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_ends_when_its_program_is_killed() {
    if let Some(folder) = std::env::var_os(VICTIM_FOLDER) {
        let options = ServerOptions {
            data_dir: folder.into(),
            durability: Durability::Process,
            port: None,
            monitor: false,
        };
        let _server = ManagedServer::start(options).await.expect("a server");
        std::future::pending::<()>().await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut victim = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "server::a_server_ends_when_its_program_is_killed"])
        .env(VICTIM_FOLDER, folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("a program");
    let process = tokio::time::timeout(SOON, async {
        loop {
            // The ports file is written last, when the server listens.
            let listening = std::fs::read_dir(folder.path()).expect("a folder").any(|entry| {
                entry
                    .expect("an entry")
                    .path()
                    .extension()
                    .is_some_and(|extension| extension == "ports")
            });
            if let (true, Ok(pid)) =
                (listening, std::fs::read_to_string(folder.path().join("nats-server.pid")))
            {
                return std::path::Path::new("/proc").join(pid.trim());
            }
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the program has a server");
    assert!(process.exists());

    victim.kill().expect("killed");
    victim.wait().expect("a status");

    // Gone, or ended and not yet collected by whoever adopted it: then its command line is empty.
    tokio::time::timeout(SOON, async {
        while std::fs::read(process.join("cmdline"))
            .is_ok_and(|command_line| !command_line.is_empty())
        {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the server has ended; is `setpriv` installed?");
}

#[tokio::test]
async fn a_refused_subject_is_told_although_the_caller_sees_only_a_time_out() {
    let server = PlainServer::start(
        "authorization { users = [ { user: a, password: b, permissions: { publish: { deny: \"secret.>\" } } } ] }\n",
    )
    .await;
    let credentials = |password: &str| Credentials::UserAndPassword {
        user: "a".to_owned(),
        password: password.to_owned(),
    };
    let connect = async |password| {
        let options =
            ConnectOptions { credentials: credentials(password), ..ConnectOptions::default() };
        Broker::connect(&server.url, options).await
    };

    let stranger = connect("wrong").await;
    let broker = connect("b").await.expect("a connection");
    let mut notices = broker.notices();
    CoreMessages::new(&broker).publish_core("secret.plan", Bytes::new()).await.expect("queued");
    let notice =
        tokio::time::timeout(SOON, notices.recv()).await.expect("in time").expect("a notice");

    assert!(matches!(stranger, Err(ConnectError::Refused { .. })), "{stranger:?}");
    assert!(
        matches!(&notice.event, ConnectionEvent::PermissionDenied(text) if text.contains("secret.plan")),
        "{notice:?}"
    );
}
