//! The audit of what a real engine did: all of it is there and signed, and
//! whatever is changed afterwards is found and named.

use std::time::Duration;

use fermata_audit::{Checkpoint, Finding, Hash, Part, Stream};
use fermata_core::identity::PartitionId;
use fermata_core::record::Kind;
use fermata_jetstream::Durability;
use fermata_tests::audit::{Evidence, StoredEntry, complete};
use fermata_tests::engine::{ENGINE_NAME, checkpoint_dir, signer};
use fermata_tests::journal::{count, records_until};
use fermata_tests::{Sink, TestBroker, TestEngine, definitions, events};

const LIMIT: Duration = Duration::from_secs(60);

const WORKFLOW: &str = "
workflow:
  name: call
  version: '1'
  tasks:
    - { id: a, http: { plugin: sink, path: /ok, body: input.n } }
    - { id: b, depends_on: [a], noop: {} }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: demo.start, workflow: { name: call, version: '1' }, variables: { n: event.data.n } }
";

/// What one partition holds after 40 runs.
async fn evidence() -> Evidence {
    let broker = TestBroker::start(Durability::Process).await;
    let sink = Sink::start().await;
    let engine = TestEngine::at(broker.url()).with_executors(sink.executors());
    let engine = engine.start(broker.folder()).await;
    engine.ready().await;
    definitions::apply_yaml(&engine, &[WORKFLOW], STRATEGIES).await;
    for id in 0..40 {
        events::publish(&engine.ports().publisher, "demo.start", id).await;
    }
    let reader = &engine.ports().reader;
    records_until(reader, 2, LIMIT, |records| count(records, Kind::RunSucceeded) == 40).await;

    complete(reader, PartitionId::CONTROL, LIMIT).await;
    complete(reader, PartitionId(1), LIMIT).await;
    let evidence = complete(reader, PartitionId(0), LIMIT).await;
    engine.shut_down().await;
    assert!(evidence.records.len() > 40, "{}", evidence.records.len());
    evidence
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_changed_after_it_was_signed_is_found_and_named() {
    let sound = evidence().await;
    let at = sound.records.len() / 2;
    let index = at as u64;
    let tampered = |tamper: &dyn Fn(&mut Evidence)| {
        let mut evidence = sound.clone();
        tamper(&mut evidence);
        evidence.verify().findings
    };

    assert_eq!(
        tampered(&|evidence| evidence.records[at].payload[0] ^= 1),
        [Finding::Changed { index, stream: Stream::Journal, part: Part::Payload }]
    );
    assert_eq!(
        tampered(&|evidence| evidence.records[at].header[3] ^= 1),
        [Finding::Changed { index, stream: Stream::Journal, part: Part::Header }]
    );
    assert_eq!(
        tampered(&|evidence| evidence.entries[at].leaf[0] ^= 1),
        [Finding::Changed { index, stream: Stream::Audit, part: Part::Leaf }]
    );
    let dropped = tampered(&|evidence| drop(evidence.records.remove(at)));
    let missing = Finding::Missing { index, count: 1, stream: Stream::Journal };
    assert!(dropped.contains(&missing), "{dropped:?}");
    let dropped = tampered(&|evidence| drop(evidence.entries.remove(at)));
    let missing = Finding::Missing { index, count: 1, stream: Stream::Audit };
    assert!(dropped.contains(&missing), "{dropped:?}");
    let swapped = tampered(&|evidence| evidence.entries.swap(at, at + 1));
    assert!(
        swapped.iter().any(|finding| matches!(finding, Finding::Reordered { .. })
            && finding.index().is_some_and(|found| found == index || found == index + 1)),
        "{swapped:?}"
    );
    let inserted = tampered(&|evidence| {
        let header = b"forged".to_vec();
        let leaf = *fermata_audit::leaf_hash(&header, &[0; 32]).as_bytes();
        let entry = StoredEntry { index, header, commitment: [0; 32], leaf };
        evidence.entries.insert(at, entry);
    });
    let added = Finding::Added { index, count: 1, stream: Stream::Audit };
    assert!(inserted.contains(&added), "{inserted:?}");
    // Both streams changed alike: only the signature tells.
    let forged = tampered(&|evidence| {
        let header = &mut evidence.records[at].header;
        header[3] ^= 1;
        let commitment = &evidence.entries[at].commitment;
        let leaf = *fermata_audit::leaf_hash(header, commitment).as_bytes();
        evidence.entries[at].header.clone_from(header);
        evidence.entries[at].leaf = leaf;
    });
    assert!(
        forged.iter().any(|finding| matches!(finding, Finding::RootMismatch { sound_to, size, .. } if *sound_to <= index && index < *size)),
        "{forged:?}"
    );
    let cut = tampered(&|evidence| {
        evidence.records.truncate(at);
        evidence.entries.truncate(at);
    });
    assert!(
        cut.iter().any(
            |finding| matches!(finding, Finding::CheckpointAhead { leaves, .. } if *leaves == index)
        ),
        "{cut:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_behind_what_was_signed_halts_and_says_so_and_the_others_go_on() {
    let broker = TestBroker::start(Durability::Process).await;
    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    engine.ready().await;
    engine.shut_down().await;
    let origin = format!("{ENGINE_NAME}/0");
    let ahead = Checkpoint::new(&origin, 1_000, Hash([7; 32]), 900).expect("a checkpoint");
    let file = checkpoint_dir(broker.folder(), "w-1").join("0.checkpoint");
    std::fs::write(file, ahead.sign(&signer())).expect("a written checkpoint");

    let engine = TestEngine::at(broker.url()).start(broker.folder()).await;
    let status = async {
        loop {
            let status = engine.status().await;
            let in_state = |state| status.iter().filter(|one| one.state == state).count();
            if in_state("halted") == 1 && in_state("owning") == 2 {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let status = tokio::time::timeout(LIMIT, status).await.expect("a halted partition in time");

    let halted = status.iter().find(|one| one.state == "halted").expect("a halted partition");
    assert_eq!(halted.partition, "0");
    let reason = halted.reason.as_deref().unwrap_or_default();
    assert!(reason.contains("1000 were signed"), "`{reason}`");
    engine.shut_down().await;
}
