//! One bit of what the only server stored is another one when it starts again: what an operator is
//! told then.

use std::os::unix::fs::FileExt as _;

use fermata_partition::snapshot::SnapshotPolicy;

use crate::support::{Ended, Stage, examined_until};
use crate::truncation::{ended, fermata, halted, start};

/// How the server ends before the bit flips.
#[derive(Debug, Clone, Copy)]
enum Ends {
    /// It has noted what it stores: what cannot be read is missing.
    InOrder,
    /// It looks through what it stores: what cannot be read is the end.
    Killed,
}

/// Flips a bit amid what the server stored of a stream.
async fn damage(stage: &mut Stage, stream: &str, ends: Ends) {
    match ends {
        Ends::InOrder => stage.server.stop().await.expect("a stopped server"),
        Ends::Killed => stage.server.kill().await.expect("a killed server"),
    }
    let store = stage.server.data_dir().join("streams/jetstream/$G/streams").join(stream);
    let block = store.join("msgs/1.blk");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&block);
    let file = file.unwrap_or_else(|error| panic!("{}: {error}", block.display()));
    let middle = file.metadata().expect("a file").len() / 2;
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], middle).expect("a written byte");
    stage.server.restart().await.expect("a server that starts again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_a_journal_halts_its_partition_and_everybody_tells_it() {
    for ends in [Ends::InOrder, Ends::Killed] {
        let mut stage = ended().await;
        damage(&mut stage, "JOURNAL_0", ends).await;

        let engine = start(&stage, SnapshotPolicy::default()).await;
        let reason = halted(&engine).await;
        let doctor = async || fermata(&stage, &["doctor", "--json"]).await;
        let is_told = |ended: &Ended| ended.check("code", "partition_halted").is_some();
        let examined = examined_until(doctor, is_told).await;
        let verified = fermata(&stage, &["audit", "verify", "--json"]).await;
        engine.shut_down().await;

        let told = examined.check("code", "partition_halted").expect("it is told");
        assert_eq!((&told["health"], examined.code), (&"fail".into(), 1), "{ends:?}");
        assert_eq!(told["details"][0]["reason"], reason, "{ends:?}");
        assert_ne!(verified.code, 0, "{ends:?}: {reason}: {}", verified.stdout);
        println!("{ends:?}: {reason}\n{}{}", verified.stdout, verified.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_an_audit_log_is_found_by_whoever_verifies_it() {
    for ends in [Ends::InOrder, Ends::Killed] {
        let mut stage = ended().await;
        let whole = fermata(&stage, &["audit", "verify", "--json"]).await;
        damage(&mut stage, "AUDIT_0", ends).await;

        let verified = fermata(&stage, &["audit", "verify", "--json"]).await;

        assert_eq!(whole.code, 0, "{}{}", whole.stdout, whole.stderr);
        assert_ne!(verified.code, 0, "{ends:?}: {}", verified.stdout);
        println!("{ends:?}: {}{}", verified.stdout, verified.stderr);
    }
}
