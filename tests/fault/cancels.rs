//! Runs that are cancelled while they come to their end by themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use fermata_core::command::{CancelCommand, Command};
use fermata_core::identity::RunId;
use fermata_core::record::Kind;
use fermata_jetstream::{Publisher, StreamReader};
use fermata_tests::journal::{Entry, JournalWatch, count};
use fermata_wire::commands::CommandFrame;
use fermata_wire::subjects;
use rand::RngExt as _;

use crate::load::{CALLS, Load, publish_until_stored};
use crate::scene::Scene;

/// Runs that are cancelled at some time of their lives.
const CANCELS: usize = 1_000;

/// How long after a run was seen to have begun it is cancelled, milliseconds: most have ended by
/// then or are about to.
const AFTER_MS: std::ops::Range<u64> = 0..200;

/// Pause between two looks at the journals.
const LOOK: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_cancelled_as_it_completes_ends_once_and_one_way() {
    let mut scene = Scene::set("cancelled as they complete").await;
    let engine = scene.engine("w-a");
    let load = Load::start(scene.publisher.clone(), CALLS);

    let (mut watches, mut seen) = (scene.watches(), BTreeSet::new());
    let mut cancels = tokio::task::JoinSet::new();
    while seen.len() < CANCELS && (seen.len() < CANCELS / 4 || scene.has_time(3)) {
        for run in begun(&scene.reader, &mut watches, &mut seen).await {
            let after = Duration::from_millis(scene.dice.random_range(AFTER_MS));
            let publisher = scene.publisher.clone();
            cancels.spawn(async move {
                tokio::time::sleep(after).await;
                cancel(&publisher, run).await;
            });
        }
        tokio::time::sleep(LOOK).await;
    }
    let published = load.stop().await;
    let cancelled = cancels.join_all().await.len();

    let records = scene.heal_and_check_runs(&published, 1, 0).await.records;
    let of = |kind| count(&records, kind);
    let (stopped, succeeded) = (of(Kind::RunCancelled), of(Kind::RunSucceeded));
    println!(
        "fault: cancelled as they complete: {cancelled} cancels: {stopped} runs cancelled, \
         {succeeded} succeeded; {} late outcomes",
        of(Kind::EffectLate)
    );
    assert_eq!(of(Kind::CancelAnswered), cancelled);
    // It was a race: each side won some.
    let won_at_least = cancelled / 20;
    assert!(stopped > won_at_least && stopped < cancelled - won_at_least, "{stopped}");
    assert_eq!(began_after_the_cancel(&records), [""; 0]);
    engine.kill().await;
}

/// The runs that have begun since the last look.
pub async fn begun(
    reader: &StreamReader,
    watches: &mut [JournalWatch],
    seen: &mut BTreeSet<RunId>,
) -> Vec<RunId> {
    for watch in watches.iter_mut() {
        // What could not be read is read the next time.
        let _ = watch.read(reader).await;
    }
    let records = watches.iter().flat_map(|watch| &watch.records);
    let started = records.filter(|(header, _)| header.kind == Kind::RunStarted);
    started.filter_map(|(header, _)| header.run).filter(|run| seen.insert(*run)).collect()
}

/// Asks for it until it is known to be asked; a repeat has the same id.
pub async fn cancel(publisher: &Publisher, run: RunId) {
    let command = Command::Cancel(CancelCommand {
        id: uuid::Uuid::from_bytes(rand::random()),
        run,
        by: "test".to_owned(),
        reason: "a race".to_owned(),
        reply_to: None,
    });
    let frame = CommandFrame { floor: 0, commands: vec![command] }.encode().expect("a frame");
    let subject = subjects::commands(run.partition());
    publish_until_stored(publisher, subject, &frame.into()).await;
}

/// Attempts that were ordered of a run that was closing already.
fn began_after_the_cancel(records: &[Entry]) -> Vec<String> {
    let (mut closing, mut wrong) = (BTreeSet::new(), Vec::new());
    for (header, _) in records {
        let Some(run) = header.run else { continue };
        if header.kind == Kind::RunClosing {
            closing.insert(run);
        }
        if header.kind == Kind::NodeDispatched && closing.contains(&run) {
            wrong.push(format!("record {} orders an attempt of run {run}", header.index));
        }
    }
    wrong
}
