//! `fermata audit verify` beside a janitor: what goes while the journal is read was removed, and not lost.

use fermata_actors::journal_archive::{JournalArchive, Removed};
use fermata_cli::broker_session::BrokerSession;
use fermata_cli::commands::audit::{PartitionCheck, check_partition};
use fermata_jetstream::StreamReader;
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::purge::purge_before;
use fermata_jetstream::topology::ARCHIVE_BUCKET;
use indicatif::ProgressBar;

use super::records;
use super::written_log::WrittenLog;
use crate::support::{PARTITION, Stage};

/// Messages of the journal, of one record each.
const MESSAGES: u64 = 12;

/// Writes a journal, its audit log and its checkpoint, and archives all but the newest message.
async fn archived(stage: &Stage) -> JournalArchive {
    let mut log = WrittenLog::new(stage);
    for _ in 0..MESSAGES {
        log.record(&records()[0]).await;
    }
    log.sign().await;
    let reader = StreamReader::new(&stage.broker);
    let archive = JournalArchive::open(&reader, PARTITION).await.unwrap();
    // Each message is a segment.
    archive.archive(&reader, MESSAGES - 1, 1).await.unwrap();
    purge_before(&stage.broker, "JOURNAL_0", MESSAGES).await.unwrap();
    archive
}

async fn begun(stage: &Stage, records: u64) -> PartitionCheck {
    let session = BrokerSession::open_url(&stage.server.url()).await.unwrap();
    let config = session.engine_config().await.unwrap();
    let progress = ProgressBar::hidden();
    let mut check = check_partition(&session, &config, PARTITION, &progress).await.unwrap();
    while check.records() < records {
        assert!(check.step().await.unwrap(), "the journal ends too early");
    }
    check
}

#[tokio::test]
async fn segments_that_are_removed_while_the_journal_is_read_are_no_loss() {
    for read in [0, 3] {
        let stage = Stage::new().await;
        let archive = archived(&stage).await;
        let check = begun(&stage, read).await;

        let reader = StreamReader::new(&stage.broker);
        let removed = archive.remove_before(&reader, u64::MAX, 1).await.unwrap();
        let audit = check.finish().await.unwrap();

        assert_eq!(removed as u64, MESSAGES - 2, "the newest segment stays");
        assert_eq!(audit.findings(), Vec::<String>::new());
        assert_eq!((audit.removed, audit.report.records), (MESSAGES - 2 - read, MESSAGES));
        let notices = audit.notices();
        assert!(notices[0].contains("kept long enough"), "{notices:?}");
    }
}

#[tokio::test]
async fn the_end_of_what_is_checked_may_be_removed_as_well() {
    let stage = Stage::new().await;
    let archive = archived(&stage).await;
    let check = begun(&stage, 2).await;
    // The engine goes on: everything that was there when the check began is archived and goes.
    for number in MESSAGES..MESSAGES + 3 {
        stage.journal(number, number, &records()[..1]).await;
    }
    let reader = StreamReader::new(&stage.broker);
    archive.archive(&reader, MESSAGES + 2, 1).await.unwrap();
    purge_before(&stage.broker, "JOURNAL_0", MESSAGES + 3).await.unwrap();
    archive.remove_before(&reader, u64::MAX, 1).await.unwrap();

    let audit = check.finish().await.unwrap();

    assert_eq!(audit.findings(), Vec::<String>::new());
    assert_eq!((audit.removed, audit.report.records), (MESSAGES - 2, MESSAGES));
}

#[tokio::test]
async fn a_segment_that_went_before_older_ones_is_a_loss_whatever_is_told() {
    let stage = Stage::new().await;
    archived(&stage).await;
    let folder = ObjectFolder::open(&stage.broker, ARCHIVE_BUCKET, "0").await.unwrap();
    let names = folder.list().await.unwrap();
    folder.remove(&names[4]).await.unwrap();
    let told = Removed { last_sequence: 5, next_record_index: u64::MAX, ..Removed::default() };
    let bytes = serde_json::to_vec(&told).unwrap();
    folder.put(&told.name(), &bytes.into()).await.unwrap();

    let verified = stage.run(&["audit", "verify", "--partition", "0", "--json"]).await;

    assert_eq!(verified.code, 1, "{}{}", verified.stdout, verified.stderr);
    let data = verified.json().remove(0);
    assert_eq!(data["removed"], 0, "{data}");
    assert!(data["findings"][0].as_str().unwrap().contains("4"), "{data}");
}
