//! Receipts: made from a broker, checked without one, by the program and by Python.

use std::path::{Path, PathBuf};

use fermata_actors::journal_archive::Removed;
use fermata_core::identity::{RunId, SourcePosition, Tenant};
use fermata_core::record::{Body, EndReason, Record, RunClosing, TruncationAccepted};
use fermata_jetstream::object_folder::ObjectFolder;
use fermata_jetstream::purge::purge_before;
use fermata_jetstream::topology::ARCHIVE_BUCKET;
use serde_json::{Value, json};

use super::written_log::WrittenLog;
use super::{write_log, write_log_of};
use crate::runs::{run_of, started};
use crate::support::{ENGINE, Ended, PARTITION, Stage, run, signer};

/// What changes in a receipt when it is tampered with.
type Tamper = fn(&mut Value);

async fn check(file: &Path, vkey: &str) -> Ended {
    run(&["audit", "check-receipt", &file.display().to_string(), "--vkey", vkey]).await
}

/// The independent verifier's verdict, and what it printed.
async fn check_in_python(file: &Path, vkey: &str) -> (i32, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/verify_audit.py");
    let mut python = tokio::process::Command::new("python3");
    python.arg(script).arg("--receipts").arg(file).args(["--vkey", vkey]).kill_on_drop(true);
    let ended = python.output().await.unwrap();
    let printed = [ended.stdout, ended.stderr].concat();
    (ended.status.code().unwrap(), String::from_utf8(printed).unwrap())
}

/// Proves all three records of a sound log, opened, into a file.
async fn receipts(stage: &Stage) -> PathBuf {
    write_log(stage, |_, _| {}).await;
    let file = stage.folder.path().join("receipts.ndjson");
    let all = ["--record", "2", "--record", "0", "--record", "1"];
    let out = file.display().to_string();
    let mut arguments = vec!["audit", "prove", "--partition", "0", "--open", "--out", &out];
    arguments.extend(all);
    let proved = stage.run(&arguments).await;
    assert_eq!(proved.code, 0, "{}{}", proved.stdout, proved.stderr);
    assert!(proved.stdout.contains("proved: 3 records of partition 0"), "{}", proved.stdout);
    assert!(proved.stdout.contains("run.closing"), "{}", proved.stdout);
    file
}

#[tokio::test]
async fn a_receipt_holds_without_a_broker() {
    let stage = Stage::new().await;
    let file = receipts(&stage).await;
    let vkey = signer().vkey();

    let checked = check(&file, &vkey).await;
    let (code, printed) = check_in_python(&file, &vkey).await;

    assert_eq!(checked.code, 0, "{}{}", checked.stdout, checked.stderr);
    assert!(checked.stdout.ends_with("sound: 3 receipts hold\n"), "{}", checked.stdout);
    let first = format!("holds: record 0 of `{ENGINE}/{PARTITION}`, opened: ");
    assert!(checked.stdout.starts_with(&first), "{}", checked.stdout);
    assert_eq!(code, 0, "{printed}");
    assert!(printed.contains(&format!("holds: record 2 of {ENGINE}/{PARTITION}, in 3 entries")));
    assert!(printed.ends_with("receipts 3, findings 0\n"), "{printed}");
}

fn flip(value: &mut Value) {
    let text = value.as_str().unwrap();
    let other = if text.starts_with('0') { "1" } else { "0" };
    *value = format!("{other}{}", &text[1..]).into();
}

#[tokio::test]
async fn a_tampered_receipt_is_refused_whatever_was_changed() {
    let stage = Stage::new().await;
    let file = receipts(&stage).await;
    let text = std::fs::read_to_string(&file).unwrap();
    let sound: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let tampers: [(&str, Tamper); 10] = [
        ("index", |receipt| receipt["index"] = json!(1)),
        ("header", |receipt| flip(&mut receipt["header"])),
        ("commitment", |receipt| flip(&mut receipt["commitment"])),
        ("leaf", |receipt| flip(&mut receipt["leaf"])),
        ("path", |receipt| flip(&mut receipt["path"][1])),
        ("shorter path", |receipt| drop(receipt["path"].as_array_mut().unwrap().pop())),
        ("salt", |receipt| flip(&mut receipt["opened"]["salt"])),
        ("payload", |receipt| flip(&mut receipt["opened"]["payload"])),
        ("partition", |receipt| receipt["partition"] = json!("1")),
        ("size", |receipt| {
            let note = receipt["checkpoint"].as_str().unwrap().replacen("\n3\n", "\n4\n", 1);
            receipt["checkpoint"] = note.into();
        }),
    ];
    for (what, tamper) in tampers {
        let mut receipt = sound.clone();
        tamper(&mut receipt);
        assert_ne!(receipt, sound, "{what}");
        std::fs::write(&file, receipt.to_string()).unwrap();

        let checked = check(&file, &signer().vkey()).await;
        let (code, printed) = check_in_python(&file, &signer().vkey()).await;

        assert_eq!(checked.code, 1, "{what}: {}{}", checked.stdout, checked.stderr);
        assert!(checked.stdout.contains("DOES NOT HOLD"), "{what}: {}", checked.stdout);
        assert_eq!(code, 1, "{what}: {printed}");
    }
}

#[tokio::test]
async fn a_receipt_says_nothing_to_who_trusts_another_key() {
    let stage = Stage::new().await;
    let file = receipts(&stage).await;
    let stranger = fermata_audit::Signer::from_seed(ENGINE, [2; 32]).unwrap().vkey();

    let checked = check(&file, &stranger).await;
    let (code, printed) = check_in_python(&file, &stranger).await;

    assert_eq!(checked.code, 1, "{}", checked.stdout);
    assert_eq!(code, 1, "{printed}");
}

#[tokio::test]
async fn what_is_no_receipt_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.ndjson");
    for text in ["", "{}\n", "not JSON"] {
        std::fs::write(&file, text).unwrap();

        let checked = check(&file, &signer().vkey()).await;
        let (code, printed) = check_in_python(&file, &signer().vkey()).await;

        assert_eq!((checked.code, code), (2, 2), "{text}: {}{printed}", checked.stderr);
    }
}

#[tokio::test]
async fn a_run_is_proven_by_all_its_records_and_nothing_personal_is_shown_unasked() {
    let stage = Stage::new().await;
    let tenant: Tenant = "acme".parse().unwrap();
    let source = SourcePosition { sequence: 1, index: 0 };
    let id = |strategy| RunId::new(PARTITION, &tenant, 42, source, strategy, None);
    let closing = || Body::from(RunClosing { reason: EndReason::TimedOut });
    let of = |run| Record::of_run(&tenant, run, closing());
    let records =
        [of(id("a")), of(id("b")), Record::of_partition(closing()), of(id("a")), of(id("b"))];
    write_log_of(&stage, &records, |_, _| {}).await;

    let proved = stage.run(&["audit", "prove", "--run", &id("b").to_string(), "--json"]).await;

    assert_eq!(proved.code, 0, "{}{}", proved.stdout, proved.stderr);
    let receipts = proved.json();
    let indices: Vec<_> = receipts.iter().map(|receipt| receipt["index"].clone()).collect();
    assert_eq!(indices, [1, 4]);
    assert!(!proved.stdout.contains("opened"), "{}", proved.stdout);
    let file = stage.folder.path().join("run.ndjson");
    std::fs::write(&file, &proved.stdout).unwrap();
    let checked = check(&file, &signer().vkey()).await;
    assert_eq!(checked.code, 0, "{}{}", checked.stdout, checked.stderr);
    let unknown = stage.run(&["audit", "prove", "--run", &id("c").to_string()]).await;
    assert_eq!(unknown.code, 4, "{}", unknown.stderr);
}

#[tokio::test]
async fn a_run_that_is_not_there_is_answered_with_the_ids_that_were_probably_meant() {
    let stage = Stage::new().await;
    let meant = run_of("a").to_string();
    let wrong = |last: &str| {
        let kept = meant.strip_suffix(char::is_alphanumeric).unwrap();
        let last = if meant.ends_with(last) { "0" } else { last };
        format!("{kept}{last}")
    };
    let far = "0000ffff-ffff-8fff-bfff-ffffffffffff";
    let prove = async |run: &str| stage.run(&["audit", "prove", "--run", run]).await;

    let nothing_signed = prove(&meant).await;
    write_log_of(&stage, &[started(run_of("a"))], |_, _| {}).await;
    let near = prove(&wrong("1")).await;
    let of_no_partition = prove(&format!("0009{}", &meant[4..])).await;
    let unlike_any = prove(far).await;

    for (ended, told) in [
        (&nothing_signed, "`fermata runs list` lists the runs"),
        (&near, &*format!("did you mean `{meant}`?")),
        (&of_no_partition, "name its partition, here 9, and this engine has 1"),
        (&unlike_any, "`fermata runs list` lists the runs"),
    ] {
        assert_eq!(ended.code, 4, "{}", ended.stderr);
        assert!(ended.stderr.contains(told), "{told}: {}", ended.stderr);
    }
    assert_eq!(prove(&meant).await.code, 0);
}

#[tokio::test]
async fn a_record_that_is_not_signed_has_no_receipt() {
    let stage = Stage::new().await;
    let prove = ["audit", "prove", "--partition", "0", "--record", "3"];
    let nothing = stage.run(&prove).await;
    write_log(&stage, |_, _| {}).await;

    let beyond = stage.run(&prove).await;

    assert_eq!(nothing.code, 4, "{}", nothing.stderr);
    assert_eq!(beyond.code, 4, "{}", beyond.stderr);
    assert!(beyond.stderr.contains("record 3 is not in the 3 entries"), "{}", beyond.stderr);
}

#[tokio::test]
async fn a_log_that_is_not_the_signed_one_gives_no_receipt() {
    let stage = Stage::new().await;
    write_log(&stage, |at, header| {
        if at == 1 {
            *header.last_mut().unwrap() ^= 1;
        }
    })
    .await;

    let proved =
        stage.run(&["audit", "prove", "--partition", "0", "--record", "0", "--json"]).await;

    assert_eq!(proved.code, 1, "{}{}", proved.stdout, proved.stderr);
    let finding = proved.json().remove(0);
    let text = finding["finding"].as_str().unwrap();
    assert!(text.starts_with("the first 3 entries have root"), "{text}");
}

#[tokio::test]
async fn what_others_put_behind_the_newest_checkpoint_hides_no_record() {
    let stage = Stage::new().await;
    let leaves = write_log(&stage, |_, _| {}).await;
    let subject = fermata_wire::subjects::checkpoints(PARTITION);
    let older = super::kept::note(&leaves[..2]);
    stage.append(&subject, 1, older.into_bytes()).await;

    let behind_a_copy = stage.run(&["audit", "prove", "--partition", "0", "--record", "2"]).await;
    stage.append(&subject, 2, b"garbage".to_vec()).await;
    let behind_garbage = stage.run(&["audit", "prove", "--partition", "0", "--record", "2"]).await;

    assert_eq!(behind_a_copy.code, 0, "{}", behind_a_copy.stderr);
    assert_eq!(behind_garbage.code, 0, "{}", behind_garbage.stderr);
}

#[tokio::test]
async fn a_record_that_is_gone_is_proven_and_not_opened_and_it_is_told_why() {
    let stage = Stage::new().await;
    write_log(&stage, |_, _| {}).await;
    purge_before(&stage.broker, "JOURNAL_0", 2).await.unwrap();
    let prove = ["audit", "prove", "--partition", "0", "--record", "1", "--open", "--json"];

    let missing = stage.run(&prove).await;
    let archive = ObjectFolder::open(&stage.broker, ARCHIVE_BUCKET, "0").await.unwrap();
    let told = Removed { last_sequence: 1, next_record_index: 3, ..Removed::default() };
    let bytes = serde_json::to_vec(&told).unwrap();
    archive.put(&told.name(), &bytes.into()).await.unwrap();
    let removed = stage.run(&prove).await;

    for (proved, why) in [(missing, "is not in the journal"), (removed, "was kept long enough")] {
        assert_eq!(proved.code, 0, "{}{}", proved.stdout, proved.stderr);
        assert!(!proved.stdout.contains("opened"), "{}", proved.stdout);
        let told = format!("1 of 1 record {why}");
        assert!(proved.stderr.contains(&told), "{}", proved.stderr);
    }
}

/// A log whose records 6 to 11 are lost: the journal was cut behind its sixth message, and goes on
/// with the sequences of those that are gone.
async fn cut_log(stage: &Stage) {
    let record = &super::records()[0];
    let mut log = WrittenLog::new(stage);
    for _ in 0..6 {
        log.record(record).await;
    }
    for lost in 6..12_u8 {
        log.entry(b"a header", &[lost; 32], u64::from(lost) + 1).await;
    }
    let accepted = TruncationAccepted {
        from: 6,
        signed: 12,
        next: 12,
        checkpoint: String::new(),
        subtrees: Vec::new(),
        by: "ada".to_owned(),
        reason: "a power cut".to_owned(),
    };
    log.record(&Record::of_partition(accepted.into())).await;
    for _ in 0..8 {
        log.record(record).await;
    }
    log.sign().await;
}

#[tokio::test]
async fn what_stands_behind_an_accepted_loss_is_opened_and_what_is_lost_is_told_as_lost() {
    let stage = Stage::new().await;
    cut_log(&stage).await;
    let prove = async |records: &[&str]| {
        let mut asked = vec!["audit", "prove", "--partition", "0", "--open", "--json"];
        asked.extend(records.iter().flat_map(|record| ["--record", record]));
        let proved = stage.run(&asked).await;
        assert_eq!(proved.code, 0, "{}{}", proved.stdout, proved.stderr);
        proved
    };

    for record in ["5", "12", "13", "20"] {
        let proved = prove(&[record]).await;
        assert!(proved.json()[0].get("opened").is_some(), "record {record}: {}", proved.stderr);
        assert!(!proved.stderr.contains("not opened"), "{}", proved.stderr);
    }
    for records in [&["11"][..], &["5", "6", "12"]] {
        let proved = prove(records).await;
        let told = match records.len() {
            1 => "1 of 1 record is lost, which ada accepted",
            _ => "1 of 3 records is lost, which ada accepted",
        };
        assert!(proved.stderr.contains(told), "{}", proved.stderr);
    }
}
