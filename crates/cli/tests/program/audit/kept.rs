//! Checkpoints that somebody kept, against the log of today.

use fermata_audit::{Checkpoint, Hash, Signer, Tree};

use super::write_log;
use crate::support::{ENGINE, Ended, PARTITION, Stage, signer};

/// The checkpoint over `leaves`, as the log's key signs it.
pub(super) fn note(leaves: &[Hash]) -> String {
    checkpoint(leaves, 1).sign(&signer())
}

fn checkpoint(leaves: &[Hash], journal_sequence: u64) -> Checkpoint {
    let mut tree = Tree::new();
    tree.extend(leaves.iter().copied());
    let origin = format!("{ENGINE}/{PARTITION}");
    Checkpoint::new(&origin, tree.size(), tree.root(), journal_sequence).unwrap()
}

/// Checks the log against a kept note.
async fn verify(stage: &Stage, kept: &str) -> Ended {
    let file = stage.folder.path().join("kept.note");
    std::fs::write(&file, kept).unwrap();
    stage.run(&["audit", "verify", "--checkpoint", &file.display().to_string()]).await
}

#[tokio::test]
async fn a_log_goes_on_from_what_was_kept_of_it() {
    let stage = Stage::new().await;
    let leaves = write_log(&stage, |_, _| {}).await;
    let folder = stage.folder.path().join("kept").display().to_string();
    let earlier = stage.folder.path().join("earlier.note");
    std::fs::write(&earlier, note(&leaves[..2])).unwrap();
    let kept = stage.run(&["audit", "checkpoint", "--out", &folder]).await;
    let again = stage.run(&["audit", "checkpoint", "--out", &folder]).await;

    let earlier = earlier.display().to_string();
    let arguments = ["audit", "verify", "--checkpoint", &folder, "--checkpoint", &earlier];
    let verified = stage.run(&arguments).await;
    let json = stage.run(&[&arguments[..], &["--json"]].concat()).await;

    assert_eq!((kept.code, again.code), (0, 0), "{}{}", kept.stderr, again.stdout);
    assert_eq!(std::fs::read_to_string(format!("{folder}/0-3.note")).unwrap(), note(&leaves));
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    let line = "partition 0: goes on from 2 kept checkpoints, of 2 to 3 entries";
    assert!(verified.stdout.lines().any(|printed| printed == line), "{}", verified.stdout);
    let json = json.json();
    let data = json.iter().find(|line| line["partition"] == "0").unwrap();
    assert_eq!(data["kept"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_kept_checkpoint_of_another_history_is_found() {
    let stage = Stage::new().await;
    let leaves = write_log(&stage, |_, _| {}).await;
    let mut rewritten = leaves.clone();
    rewritten[0] = Hash([7; 32]);
    let longer = [leaves.clone(), vec![Hash([8; 32])]].concat();
    let forked = checkpoint(&leaves, 9).sign(&signer());
    let stranger = Signer::from_seed(ENGINE, [2; 32]).unwrap();
    let replaced = checkpoint(&leaves, 1).sign(&stranger);
    for (kept, sentence) in [
        (note(&rewritten[..2]), "the first 2 entries have root"),
        (note(&longer), "4 entries were signed, but audit ends after 3"),
        (forked, "checkpoint 1 says something else of the first 3 entries"),
        (replaced, "it is not signed with the key"),
    ] {
        let verified = verify(&stage, &kept).await;

        assert_eq!(verified.code, 1, "{sentence}: {}{}", verified.stdout, verified.stderr);
        let said = verified.stdout.lines().any(|line| {
            line.starts_with("partition 0: the kept checkpoint") && line.contains(sentence)
        });
        assert!(said, "{sentence}: {}", verified.stdout);
        assert!(verified.stdout.contains("NOT SOUND"), "{}", verified.stdout);
    }
}

#[tokio::test]
async fn a_history_that_was_rewritten_and_signed_anew_is_found_by_who_kept_a_checkpoint() {
    let (honest, rewritten) = tokio::join!(Stage::new(), Stage::new());
    write_log(&honest, |_, _| {}).await;
    let folder = honest.folder.path().join("kept").display().to_string();
    honest.run(&["audit", "checkpoint", "--out", &folder]).await;
    let mut others = super::records();
    others.remove(0);
    super::write_log_of(&rewritten, &others, |_, _| {}).await;

    let alone = rewritten.run(&["audit", "verify", "--complete"]).await;
    let against_what_was_kept = rewritten.run(&["audit", "verify", "--checkpoint", &folder]).await;

    assert_eq!(alone.code, 0, "{}{}", alone.stdout, alone.stderr);
    assert_eq!(against_what_was_kept.code, 1, "{}", against_what_was_kept.stdout);
}

#[tokio::test]
async fn a_kept_file_with_another_checkpoint_of_the_same_size_is_not_overwritten() {
    let stage = Stage::new().await;
    let leaves = write_log(&stage, |_, _| {}).await;
    let folder = stage.folder.path().join("kept");
    std::fs::create_dir(&folder).unwrap();
    let other = checkpoint(&leaves, 9).sign(&signer());
    std::fs::write(folder.join("0-3.note"), &other).unwrap();

    let kept = stage.run(&["audit", "checkpoint", "--out", &folder.display().to_string()]).await;

    assert_eq!(kept.code, 1, "{}{}", kept.stdout, kept.stderr);
    assert_eq!(std::fs::read_to_string(folder.join("0-3.note")).unwrap(), other);
}

#[tokio::test]
async fn what_is_no_checkpoint_of_this_engine_cannot_be_used() {
    let stage = Stage::new().await;
    let leaves = write_log(&stage, |_, _| {}).await;
    let other_engine = Checkpoint::new("other/0", 3, Hash([1; 32]), 1).unwrap().sign(&signer());

    let garbage = verify(&stage, "garbage").await;
    let other_engine = verify(&stage, &other_engine).await;
    let file = stage.folder.path().join("0.note");
    std::fs::write(&file, note(&leaves)).unwrap();
    let file = file.display().to_string();
    let other_partition =
        stage.run(&["audit", "verify", "--partition", "control", "--checkpoint", &file]).await;

    assert_eq!(garbage.code, 2, "{}{}", garbage.stdout, garbage.stderr);
    assert_eq!(other_engine.code, 2, "{}{}", other_engine.stdout, other_engine.stderr);
    assert!(other_engine.stderr.contains("no log of the engine"), "{}", other_engine.stderr);
    assert_eq!(other_partition.code, 2, "{}{}", other_partition.stdout, other_partition.stderr);
}
