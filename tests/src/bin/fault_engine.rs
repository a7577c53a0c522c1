//! An engine in a process of its own, for tests that kill and pause it.
//!
//!     fault_engine URL WORKER FOLDER SINK_URL PARTITIONS QUEUE SNAPSHOTS
//!
//! SNAPSHOTS is `often` or `seldom`, see [`fermata_tests::snapshots`].
//!
//! Gives back what it owns and ends when it is asked to (SIGTERM). Ends at once with its standard
//! input, so it never outlives the test.

use std::path::Path;

use fermata_actors::task_worker::ServedQueues;
use fermata_tests::snapshots::Snapshots;
use fermata_tests::{TestEngine, sink};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "warn".into()))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let [url, worker, folder, sink_url, partitions, queue, often] = arguments.as_slice() else {
        panic!("expected URL WORKER FOLDER SINK_URL PARTITIONS QUEUE SNAPSHOTS: {arguments:?}");
    };
    let mut asked_to_end = signal(SignalKind::terminate()).expect("a handler");
    let engine = TestEngine {
        partitions: partitions.parse().expect("a number of partitions"),
        queues: ServedQueues { names: vec![queue.clone()], ..ServedQueues::default() },
        snapshots: often.parse::<Snapshots>().expect("how often").policy(),
        ..TestEngine::at(url).named(worker).with_executors(sink::executors_for(sink_url))
    };
    let engine = engine.start(Path::new(folder)).await;
    let mut input = Vec::new();
    let mut parent = tokio::io::stdin();
    let in_order = tokio::select! {
        _ = parent.read_to_end(&mut input) => false,
        _ = asked_to_end.recv() => true,
        () = engine.ended() => panic!("the engine gave up"),
    };
    if in_order {
        engine.shut_down().await;
    }
    // At once: a runtime that waits for its blocking reader would stay.
    std::process::exit(0);
}
