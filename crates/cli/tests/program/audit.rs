//! `fermata audit`.

mod kept;
mod key;
mod over_http;
mod receipts;
mod removed;
mod written_log;

use fermata_actors::journal_archive::Removed;
use fermata_audit::{Checkpoint, Hash, Tree, commitment, leaf_hash};
use fermata_core::identity::Tenant;
use fermata_core::record::{Body, EndReason, Record, RunClosing};
use fermata_jetstream::StreamReader;
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::purge::purge_before;
use fermata_jetstream::topology::ARCHIVE_BUCKET;
use fermata_wire::audit::{AuditFrame, Entry};
use fermata_wire::journal::JournalFrame;

use crate::support::{ENGINE, PARTITION, Stage, signer};

fn records() -> Vec<Record> {
    let tenant: Tenant = "acme".parse().unwrap();
    let closing = || RunClosing { reason: EndReason::TimedOut };
    vec![
        Record::of_tenant(&tenant, Body::from(closing())),
        Record::of_partition(Body::from(closing())),
        Record::of_tenant(&"globex".parse().unwrap(), Body::from(closing())),
    ]
}

/// Writes a journal, and its audit log and checkpoint as an auditor would, `forge` applied to
/// the entries' headers. Tells the leaves that were signed.
pub async fn write_log(stage: &Stage, forge: impl Fn(usize, &mut Vec<u8>)) -> Vec<Hash> {
    write_log_of(stage, &records(), forge).await
}

async fn write_log_of(
    stage: &Stage,
    records: &[Record],
    forge: impl Fn(usize, &mut Vec<u8>),
) -> Vec<Hash> {
    stage.journal(0, 0, records).await;
    let reader = StreamReader::new(&stage.broker);
    let message = reader.read_one("JOURNAL_0", 1).await.unwrap().unwrap();
    let frame = JournalFrame::decode(&message.payload).unwrap();
    let (mut tree, mut leaves) = (Tree::new(), Vec::new());
    let mut parts = Vec::new();
    for (at, record) in frame.records.iter().enumerate() {
        let commitment = commitment(record.salt, record.payload);
        leaves.push(leaf_hash(record.header, &commitment));
        tree.extend(leaves.last().copied());
        let mut header = record.header.to_vec();
        forge(at, &mut header);
        let leaf = leaf_hash(&header, &commitment);
        parts.push((header, commitment, leaf.0));
    }
    let entries = (0..)
        .zip(&parts)
        .map(|(index, (header, commitment, leaf))| Entry { index, header, commitment, leaf })
        .collect();
    let audit = AuditFrame { journal_sequence: 1, entries }.encode().unwrap();
    stage.append(&fermata_wire::subjects::audit_log(PARTITION), 0, audit).await;
    let origin = format!("{ENGINE}/{PARTITION}");
    let note = Checkpoint::new(&origin, tree.size(), tree.root(), 1).unwrap().sign(&signer());
    let subject = fermata_wire::subjects::checkpoints(PARTITION);
    stage.append(&subject, 0, note.into_bytes()).await;
    leaves
}

#[tokio::test]
async fn a_log_as_it_was_signed_is_sound_and_can_be_exported() {
    let stage = Stage::new().await;
    write_log(&stage, |_, _| {}).await;
    let folder = stage.folder.path().join("export").display().to_string();

    let verified =
        stage.run(&["audit", "verify", "--json", "--complete", "--export", &folder]).await;

    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    let lines = verified.json();
    let data = lines.iter().find(|line| line["partition"] == "0").unwrap();
    assert_eq!(
        (&data["records"], &data["leaves"], &data["checkpoint_size"]),
        (&3.into(), &3.into(), &3.into())
    );
    let export = std::fs::read_to_string(format!("{folder}/0.ndjson")).unwrap();
    assert_eq!(export.lines().count(), 1 + 3 + 1);
}

#[tokio::test]
async fn a_changed_entry_is_found_and_named() {
    let stage = Stage::new().await;
    write_log(&stage, |at, header| {
        if at == 1 {
            *header.last_mut().unwrap() ^= 1;
        }
    })
    .await;

    let verified = stage.run(&["audit", "verify"]).await;

    assert_eq!(verified.code, 1, "{}", verified.stdout);
    assert!(verified.stdout.contains("NOT SOUND"), "{}", verified.stdout);
    let named =
        verified.stdout.lines().any(|line| line.starts_with("partition 0: ") && line.contains('1'));
    assert!(named, "{}", verified.stdout);
}

#[tokio::test]
async fn records_that_are_there_are_checked_whoever_says_that_they_were_removed() {
    let stage = Stage::new().await;
    write_log(&stage, |_, _| {}).await;
    let archive = ObjectFolder::open(&stage.broker, ARCHIVE_BUCKET, "0").await.unwrap();
    let told = Removed { last_sequence: 1, next_record_index: u64::MAX, ..Removed::default() };
    let bytes = serde_json::to_vec(&told).unwrap();
    archive.put(&told.name(), &bytes.into()).await.unwrap();
    let all = stage.run(&["audit", "verify", "--partition", "0"]).await;

    // Something else in the place of what was signed.
    stage.journal(1, 0, &records()[1..]).await;
    purge_before(&stage.broker, "JOURNAL_0", 2).await.unwrap();
    let other = stage.run(&["audit", "verify", "--partition", "0"]).await;

    assert_eq!(all.code, 0, "{}{}", all.stdout, all.stderr);
    assert!(!all.stdout.contains("are removed"), "{}", all.stdout);
    assert_eq!(other.code, 1, "{}", other.stdout);
}

#[tokio::test]
async fn a_key_that_did_not_sign_makes_the_log_unsound() {
    let stage = Stage::new().await;
    write_log(&stage, |_, _| {}).await;
    let other = fermata_audit::Signer::from_seed(ENGINE, [2; 32]).unwrap().vkey();

    let verified = stage.run(&["audit", "verify", "--partition", "0", "--vkey", &other]).await;

    assert_eq!(verified.code, 1, "{}", verified.stdout);
}

#[tokio::test]
async fn notes_that_the_key_did_not_sign_are_noticed_and_one_that_contradicts_is_found() {
    let stage = Stage::new().await;
    write_log(&stage, |_, _| {}).await;
    let subject = fermata_wire::subjects::checkpoints(PARTITION);
    stage.append(&subject, 1, b"garbage\n999999\n".to_vec()).await;
    let folder = stage.folder.path().join("export").display().to_string();

    let noticed =
        stage.run(&["audit", "verify", "--partition", "0", "--export", &folder, "--json"]).await;
    let origin = format!("{ENGINE}/{PARTITION}");
    let forked = Checkpoint::new(&origin, 3, Hash([7; 32]), 1).unwrap().sign(&signer());
    stage.append(&subject, 2, forked.into_bytes()).await;
    let found = stage.run(&["audit", "verify", "--partition", "0"]).await;

    assert_eq!(noticed.code, 0, "{}{}", noticed.stdout, noticed.stderr);
    let notices = &noticed.json()[0]["notices"];
    assert!(notices[0].as_str().unwrap().starts_with("checkpoint 2: is none of"), "{notices}");
    let export = std::fs::read_to_string(format!("{folder}/0.ndjson")).unwrap();
    assert!(!export.contains("garbage"), "{export}");
    assert_eq!(found.code, 1, "{}", found.stdout);
    let finding = "partition 0: checkpoint 3: contradicts another of size 3";
    assert!(found.stdout.lines().any(|line| line == finding), "{}", found.stdout);
    let notice = "notice, partition 0: checkpoint 2: is none of";
    assert!(found.stdout.lines().any(|line| line.starts_with(notice)), "{}", found.stdout);
}

#[tokio::test]
async fn a_partition_that_is_not_there_is_not_found() {
    let stage = Stage::new().await;

    let verified = stage.run(&["audit", "verify", "--partition", "5"]).await;

    assert_eq!(verified.code, 4, "{}", verified.stderr);
}

#[tokio::test]
async fn stored_entries_are_printed_as_canonical_json_of_one_tenant() {
    let stage = Stage::new().await;
    write_log(&stage, |_, _| {}).await;

    let printed =
        stage.run(&["audit", "tail", "--from-start", "--no-follow", "--tenant", "acme"]).await;

    assert_eq!(printed.code, 0, "{}", printed.stderr);
    let lines: Vec<_> = printed.stdout.lines().collect();
    assert_eq!(lines.len(), 1, "{}", printed.stdout);
    assert!(lines[0].starts_with("{\"commitment\":\""), "{}", lines[0]);
    assert!(lines[0].contains("\"partition\":\"0\",\"tenant\":\"acme\""), "{}", lines[0]);
    assert!(lines[0].contains("\"kind\":\"run.closing\""), "{}", lines[0]);
}
