//! `fermata publish --data-file`: a store without room, and an upload that is ended by a signal.

use std::time::Instant;

use fermata_jetstream::StreamReader;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::topology::EVENTS_STREAM;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{SOON, Stage, program};

const PAYLOADS: &str = "OBJ_fermata-payloads";
const MIB: u64 = 1024 * 1024;

/// Lets the store of payloads hold so many bytes.
async fn give_room(stage: &Stage, bytes: u64) {
    let core = CoreMessages::new(&stage.broker);
    let info = format!("$JS.API.STREAM.INFO.{PAYLOADS}");
    let answer = core.request(&info, Default::default(), SOON).await.unwrap();
    let mut config = serde_json::from_slice::<Value>(&answer.payload).unwrap()["config"].take();
    config["max_bytes"] = bytes.into();
    let update = format!("$JS.API.STREAM.UPDATE.{PAYLOADS}");
    let answer = core.request(&update, config.to_string().into(), SOON).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert!(answer.get("error").is_none(), "{answer}");
}

/// A file of so many bytes, and how it is published.
fn publishing(stage: &Stage, bytes: u64) -> Vec<String> {
    let file = stage.folder.path().join("scan.tiff");
    std::fs::File::create(&file).unwrap().set_len(bytes).unwrap();
    let arguments = ["publish", "--tenant", "acme", "--type", "scan.stored", "--data-file"];
    let file = file.display().to_string();
    arguments.iter().map(ToString::to_string).chain([file]).collect()
}

async fn messages(stage: &Stage, stream: &str) -> u64 {
    StreamReader::new(&stage.broker).stream_state(stream).await.unwrap().messages
}

#[tokio::test]
async fn a_store_of_payloads_without_room_is_told_with_its_figures_and_what_to_do() {
    let stage = Stage::new().await;
    give_room(&stage, 2 * MIB).await;

    let arguments = publishing(&stage, 4 * MIB);
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let refused = stage.run(&arguments).await;

    assert_eq!(refused.code, 1, "{}", refused.stderr);
    for part in [
        "the store of payloads (`OBJ_fermata-payloads`) has no room for the 4.0 MiB of `",
        "scan.tiff`: 0 bytes of 2.0 MiB are used",
        "`fermata doctor --repair room --stream-room ",
        "nothing was published",
    ] {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    assert_eq!((messages(&stage, PAYLOADS).await, messages(&stage, EVENTS_STREAM).await), (0, 0));
}

#[tokio::test]
async fn an_upload_that_a_signal_ends_leaves_no_chunks_behind() {
    for signal in [Signal::INT, Signal::TERM] {
        let stage = Stage::new().await;
        give_room(&stage, 256 * MIB).await;
        let url = stage.server.url();
        let mut command = program(&["--nats-url", &url]);
        let child = command.args(publishing(&stage, 200 * MIB)).spawn().expect("a program");
        let begun = Instant::now();
        while messages(&stage, PAYLOADS).await == 0 {
            assert!(begun.elapsed() < SOON, "nothing is uploaded");
        }

        let pid = Pid::from_raw(i32::try_from(child.id().expect("it runs")).unwrap()).unwrap();
        kill_process(pid, signal).expect("a signal");
        let ended = tokio::time::timeout(SOON, child.wait_with_output()).await;

        let ended = ended.expect("in time").expect("an end");
        let told = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(130), "{told}");
        assert!(told.contains("nothing was published"), "{told}");
        assert_eq!(messages(&stage, PAYLOADS).await, 0, "{told}");
        assert_eq!(messages(&stage, EVENTS_STREAM).await, 0, "{told}");
    }
}
