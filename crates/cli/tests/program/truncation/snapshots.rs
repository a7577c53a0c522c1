//! A loss that reaches back behind a snapshot: nobody may begin from what is lost.

use std::slice;
use std::time::Duration;

use fermata_actors::journal_archive::{JournalArchive, JournalReplay};
use fermata_core::record::Kind;
use fermata_jetstream::StreamReader;
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::purge::purge_before;
use fermata_jetstream::topology::SNAPSHOTS_BUCKET;
use fermata_partition::snapshot::SnapshotPolicy;
use fermata_wire::subjects;

use super::{
    STRATEGIES, WORKFLOW, answer, apply, halted, kinds, messages, publish, repair, rewrite, start,
    until_signed, until_succeeded,
};
use crate::support::{PARTITION, SOON, Stage};

/// Snapshots whenever something has happened, and none where nothing has: what a test cuts off
/// behind one is always some records. Nothing is archived or purged.
fn often() -> SnapshotPolicy {
    SnapshotPolicy {
        records_max: 20,
        interval_ms: u64::MAX,
        rest_ms: 50,
        segment_bytes: u64::MAX,
        ..SnapshotPolicy::default()
    }
}

async fn folder(stage: &Stage) -> ObjectFolder {
    ObjectFolder::open(&stage.broker, SNAPSHOTS_BUCKET, "0").await.unwrap()
}

/// Sequences that the stored snapshots end with.
async fn snapshots(stage: &Stage) -> Vec<u64> {
    let names = folder(stage).await.list().await.unwrap();
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

/// An engine that has ended behind two snapshots; how many runs it has run.
async fn ended(stage: &Stage) -> usize {
    let engine = start(stage, often()).await;
    engine.ready().await;
    apply(stage, "workflow", WORKFLOW).await;
    apply(stage, "strategy", STRATEGIES).await;
    let mut runs = 0;
    let stored = async {
        while snapshots(stage).await.len() < 2 {
            publish(stage, runs).await;
            runs += 1;
            until_succeeded(stage, runs).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, stored).await.expect("snapshots in time");
    until_signed(stage).await;
    engine.shut_down().await;
    runs
}

/// How many runs have succeeded, by the archive and what is left.
async fn succeeded(stage: &Stage) -> usize {
    let reader = StreamReader::new(&stage.broker);
    let mut replay = JournalReplay::open(&reader, PARTITION, 1).await.unwrap();
    let mut all = Vec::new();
    loop {
        let batch = replay.next_batch(1_000).await.unwrap();
        if batch.is_empty() {
            return kinds(&all).into_iter().filter(|kind| *kind == Kind::RunSucceeded).count();
        }
        all.extend(batch);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_of_what_is_lost_are_removed_and_the_next_owner_begins_from_an_older_one() {
    let stage = Stage::bare().await;
    let runs = ended(&stage).await;
    let [.., older, newest] = snapshots(&stage).await[..] else { panic!("two snapshots") };
    let journal = messages(&stage, "JOURNAL_0").await;
    // Frames that only move positions stand behind the last record: with them alone nothing is lost.
    let last = journal.iter().rposition(|message| !kinds(slice::from_ref(message)).is_empty());
    let lost_from = newest.min(journal[last.expect("records")].sequence);
    assert!(older < lost_from, "{older} and {newest} stand for the same records");
    let left = journal.into_iter().filter(|message| message.sequence < lost_from);
    let left = left.collect::<Vec<_>>();
    rewrite(&stage, "JOURNAL_0", &subjects::journal(PARTITION), &left).await;
    // What the older snapshot stands for is archived and gone: without it nobody can begin.
    let reader = StreamReader::new(&stage.broker);
    let archive = JournalArchive::open(&reader, PARTITION).await.unwrap();
    assert_eq!(archive.archive(&reader, older, 1).await.unwrap(), older);
    purge_before(&stage.broker, "JOURNAL_0", older).await.unwrap();

    let engine = start(&stage, often()).await;
    let reason = halted(&engine).await;
    engine.shut_down().await;
    let (folder, name) = (folder(&stage).await, format!("{older:020}"));
    let bytes = folder.get(&name).await.unwrap().expect("the older snapshot");
    folder.remove(&name).await.unwrap();
    let refused = repair(&stage, "ada", &["--yes"]).await;
    folder.put(&name, &bytes).await.unwrap();
    let accepted = answer(&repair(&stage, "ada", &["--yes"]).await);

    assert!(!reason.is_empty());
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert!(refused.stderr.contains("is left to begin from"), "{}", refused.stderr);
    assert_eq!(accepted["answer"], "accepted");
    let removed = accepted["snapshots_removed"].as_array().expect("names");
    assert_eq!(removed, &[format!("{newest:020}")], "{accepted}");
    assert_eq!(snapshots(&stage).await, [older]);
    let engine = start(&stage, often()).await;
    engine.ready().await;
    publish(&stage, runs).await;
    // Commands that only lost records had decided are decided again.
    let all = async {
        while succeeded(&stage).await < runs + 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, all).await.expect("the runs end in time");
    until_signed(&stage).await;
    engine.shut_down().await;
}
