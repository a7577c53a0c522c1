//! `fermata doctor --repair halted-partition --accept-truncation`, on what a real
//! engine wrote and a broker has lost.

mod snapshots;

use std::time::{Duration, Instant};

use fermata_actors::task_worker::ServedQueues;
use fermata_actors::{Engine, EngineConfig, Role};
use fermata_audit::leaf_hash;
use fermata_core::partition::KEYS_MAX_DEFAULT;
use fermata_core::record::Kind;
use fermata_executors::ExecutorsConfig;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::{StoredMessage, StreamReader};
use fermata_partition::snapshot::SnapshotPolicy;
use fermata_wire::audit::{AuditFrame, Entry};
use fermata_wire::journal::JournalFrame;
use fermata_wire::replay::ReplayKeys;
use fermata_wire::subjects;
use serde_json::Value;

use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::engine::event;
use crate::process::Running;
use crate::support::{ENGINE, Ended, PARTITION, SOON, Stage, program, run, signer, topology};

const WORKFLOW: &str = "
workflow:
  name: w
  version: '1'
  tasks:
    - { id: a, noop: {} }
    - { id: b, depends_on: [a], noop: {} }
";
const STRATEGIES: &str = "
strategies:
  - { name: s, version: 1, tenant: '*', on: demo.start, workflow: { name: w, version: '1' } }
";
const RUNS: usize = 6;

pub async fn start(stage: &Stage, snapshots: SnapshotPolicy) -> Engine {
    let folder = stage.folder.path();
    let config = EngineConfig {
        nats_url: stage.server.url(),
        monitor_url: None,
        worker: "w-1".to_owned(),
        roles: Role::ALL.into_iter().collect(),
        topology: topology(),
        executors: ExecutorsConfig::default(),
        signer: signer(),
        engine: ENGINE.to_owned(),
        checkpoint_dir: folder.join("checkpoints"),
        read_model_dir: folder.join("read-model"),
        belongs_to: None,
        snapshots,
        replay_keys: ReplayKeys::default(),
        queues: ServedQueues::default(),
        keys_max: KEYS_MAX_DEFAULT,
    };
    Engine::start(config).await.expect("the engine starts")
}

/// Runs the program beside what the engine keeps.
pub async fn fermata(stage: &Stage, arguments: &[&str]) -> Ended {
    let (url, folder) = (stage.server.url(), stage.folder.path().display().to_string());
    run(&[&["--nats-url", &url, "--data-dir", &folder], arguments].concat()).await
}

/// Asks again where a worker or the broker did not answer at once: nothing was done then.
async fn repair(stage: &Stage, by: &str, more: &[&str]) -> Ended {
    let asked =
        ["doctor", "--repair", "halted-partition", "--partition", "0", "--accept-truncation"];
    let said = ["--reason", "a power cut", "--by", by, "--json"];
    let silences = ["does not answer", "did not tell its time at once"];
    let begun = Instant::now();
    loop {
        let ended = fermata(stage, &[&asked[..], &said, more].concat()).await;
        if begun.elapsed() > SOON || !silences.iter().any(|told| ended.stderr.contains(told)) {
            return ended;
        }
    }
}

async fn apply(stage: &Stage, command: &str, yaml: &str) {
    let file = stage.folder.path().join(format!("{command}.yaml"));
    std::fs::write(&file, yaml).unwrap();
    let applied = fermata(stage, &[command, "apply", file.to_str().unwrap()]).await;
    assert_eq!(applied.code, 0, "{}{}", applied.stdout, applied.stderr);
}

async fn publish(stage: &Stage, id: usize) {
    let file = stage.folder.path().join("event.json");
    std::fs::write(&file, event(id, "demo.start").to_string()).unwrap();
    let published = fermata(stage, &["publish", file.to_str().unwrap()]).await;
    assert_eq!(published.code, 0, "{}{}", published.stdout, published.stderr);
}

async fn messages(stage: &Stage, stream: &str) -> Vec<StoredMessage> {
    let reader = StreamReader::new(&stage.broker);
    let mut replay = reader.replay(stream, 1, Holes::Allowed).await.unwrap();
    let mut found = Vec::new();
    loop {
        let batch = replay.next_batch(1_000).await.unwrap();
        if batch.is_empty() {
            return found;
        }
        found.extend(batch);
    }
}

fn kinds(journal: &[StoredMessage]) -> Vec<Kind> {
    let of = |message: &StoredMessage| {
        let frame = JournalFrame::decode(&message.payload).unwrap();
        frame.records.iter().map(|record| record.header().unwrap().kind).collect::<Vec<_>>()
    };
    journal.iter().flat_map(of).collect()
}

async fn until_succeeded(stage: &Stage, runs: usize) {
    let wait = async {
        loop {
            let kinds = kinds(&messages(stage, "JOURNAL_0").await);
            if kinds.iter().filter(|kind| **kind == Kind::RunSucceeded).count() == runs {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("the runs end in time");
}

/// Makes a stream hold these messages and nothing else, from its first sequence on: as a
/// broker that has lost the others.
async fn rewrite(stage: &Stage, stream: &str, subject: &str, messages: &[StoredMessage]) {
    stage.delete_stream(stream).await;
    topology().apply(&stage.broker).await.expect("streams");
    for (message, last) in messages.iter().zip(0..) {
        let writer = message.writer.as_deref().expect("ours");
        let payload = message.payload.clone();
        let outcome = stage.publisher.append(subject.to_owned(), last, writer, payload).await;
        outcome.sequence().expect("stored");
    }
}

/// An engine that has ended after some runs, all of them signed.
pub async fn ended() -> Stage {
    let stage = Stage::bare().await;
    let engine = start(&stage, SnapshotPolicy::default()).await;
    engine.ready().await;
    apply(&stage, "workflow", WORKFLOW).await;
    apply(&stage, "strategy", STRATEGIES).await;
    for id in 0..RUNS {
        publish(&stage, id).await;
    }
    until_succeeded(&stage, RUNS).await;
    until_signed(&stage).await;
    engine.shut_down().await;
    stage
}

/// Waits until everything is audited and signed; what the check then printed.
async fn until_signed(stage: &Stage) -> Ended {
    let wait = async {
        loop {
            let verified = fermata(stage, &["audit", "verify", "--complete", "--json"]).await;
            if verified.code == 0 {
                return verified;
            }
        }
    };
    tokio::time::timeout(SOON, wait).await.expect("a sound log in time")
}

/// The same, and the journal lost what it has from the end of run number `runs` on.
async fn truncated(runs: usize) -> Stage {
    let stage = ended().await;
    let journal = messages(&stage, "JOURNAL_0").await;
    let ends = |kept: &usize| {
        let kinds = kinds(&journal[..*kept]);
        kinds.iter().filter(|kind| **kind == Kind::RunSucceeded).count() >= runs
    };
    let kept = (1..journal.len()).find(ends).unwrap();
    rewrite(&stage, "JOURNAL_0", &subjects::journal(PARTITION), &journal[..kept]).await;
    stage
}

fn answer(ended: &Ended) -> Value {
    let mut lines = ended.json();
    assert_eq!((ended.code, lines.len()), (0, 1), "{}{}", ended.stdout, ended.stderr);
    lines.remove(0)
}

pub async fn halted(engine: &Engine) -> String {
    let begun = Instant::now();
    loop {
        let status = engine.status().await;
        let halted = status.iter().find(|one| one.state == "halted");
        if let Some(halted) = halted {
            assert_eq!(halted.partition, "0");
            return halted.reason.clone().unwrap_or_default();
        }
        assert!(begun.elapsed() < SOON, "no partition is halted: {status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_lost_records_goes_on_when_somebody_accepts_that_on_the_record() {
    let stage = truncated(3).await;
    let engine = start(&stage, SnapshotPolicy::default()).await;
    let reason = halted(&engine).await;
    assert!(reason.contains("were signed; records are gone"), "`{reason}`");
    let before = messages(&stage, "JOURNAL_0").await.len();

    let unasked = repair(&stage, "ada", &[]).await;
    assert_eq!(unasked.code, 2, "{}", unasked.stdout);
    assert!(unasked.stderr.contains("--yes"), "{}", unasked.stderr);
    let dry = answer(&repair(&stage, "ada", &["--dry-run"]).await);
    assert_eq!(dry["answer"], "would_accept");
    assert_eq!(dry["kinds"]["run.succeeded"], RUNS - 3);
    assert_eq!(messages(&stage, "JOURNAL_0").await.len(), before, "nothing was done");
    let (yes, also) = (["--yes"], ["--yes"]);
    let (ada, bob) = tokio::join!(repair(&stage, "ada", &yes), repair(&stage, "bob", &also));
    let (ada, bob) = (answer(&ada), answer(&bob));
    let (first, second) = if ada["answer"] == "accepted" { (ada, bob) } else { (bob, ada) };
    assert_eq!(
        (&first["answer"], &second["answer"]),
        (&"accepted".into(), &"accepted_already".into())
    );
    assert_eq!(second["loss"]["by"], first["loss"]["by"]);
    engine.shut_down().await;

    let engine = start(&stage, SnapshotPolicy::default()).await;
    engine.ready().await;
    // Runs whose commands are still stored are decided again, and new ones come.
    publish(&stage, RUNS).await;
    until_succeeded(&stage, RUNS + 1).await;
    let verified = until_signed(&stage).await;
    engine.shut_down().await;

    let lines = verified.json();
    let data = lines.iter().find(|line| line["partition"] == "0").unwrap();
    assert_eq!(data["accepted_losses"][0]["by"], first["loss"]["by"]);
    assert_eq!(data["accepted_losses"][0]["from"], first["loss"]["from"]);
    assert!(data["notices"][0].as_str().unwrap().contains("a power cut"), "{data}");
    let again = answer(&repair(&stage, "eve", &["--yes"]).await);
    assert_eq!(again["answer"], "accepted_already");
    let journal = kinds(&messages(&stage, "JOURNAL_0").await);
    let accepted = journal.iter().filter(|kind| **kind == Kind::TruncationAccepted).count();
    assert_eq!(accepted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_with_a_halted_partition_says_that_it_is_up_which_is_halted_and_what_to_do() {
    let stage = truncated(3).await;
    let (url, folder) = (stage.server.url(), stage.folder.path().display().to_string());
    std::fs::write(stage.folder.path().join("audit.key"), signer().to_private_text()).unwrap();
    let up = ["up", "--nats-url", &url, "--data-dir", &folder];

    let mut programs = Running::of(program(&[&up[..], &["--json"]].concat())).await;
    programs.end().await;
    let mut people = program(&up).spawn().unwrap();
    let mut lines = BufReader::new(people.stdout.take().unwrap()).lines();
    let mut printed = String::new();
    while !printed.contains("Ctrl-C ends it") {
        let line = tokio::time::timeout(SOON, lines.next_line()).await.expect("in time").unwrap();
        printed.push_str(&line.unwrap_or_else(|| panic!("it ended\n{printed}")));
        printed.push('\n');
    }

    let said = &programs.said;
    assert_eq!((&said["ready"], &said["halted"][0]["partition"]), (&false.into(), &"0".into()));
    let reason = said["halted"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("were signed; records are gone"), "{said}");
    assert!(printed.starts_with("fermata is up at "), "{printed}");
    for told in
        [&format!("HALTED: partition 0 is halted here: {reason}"), "docs/failure-semantics.md"]
    {
        assert!(printed.contains(told), "{printed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_accepted_where_nothing_is_lost_or_somebody_runs_the_partition() {
    let stage = ended().await;

    let whole = repair(&stage, "ada", &["--yes"]).await;
    let engine = start(&stage, SnapshotPolicy::default()).await;
    engine.ready().await;
    let running = repair(&stage, "ada", &["--yes"]).await;
    engine.shut_down().await;

    assert_eq!((whole.code, running.code), (1, 1), "{}{}", whole.stdout, running.stdout);
    assert!(whole.stderr.contains("lost no record that was signed"), "{}", whole.stderr);
    assert!(running.stderr.contains("is not halted"), "{}", running.stderr);
}

/// Each entry of the audit log, changed by `change`, in messages as before.
fn changed(audit: &[StoredMessage], change: impl Fn(u64, &mut [u8; 32])) -> Vec<StoredMessage> {
    let rewritten = |message: &StoredMessage| {
        let frame = AuditFrame::decode(&message.payload).unwrap();
        let parts = frame.entries.iter().map(|entry| {
            let mut commitment = *entry.commitment;
            change(entry.index, &mut commitment);
            (entry.index, entry.header, commitment, leaf_hash(entry.header, &commitment))
        });
        let parts = parts.collect::<Vec<_>>();
        let entries = parts.iter().map(|(index, header, commitment, leaf)| Entry {
            index: *index,
            header,
            commitment,
            leaf: leaf.as_bytes(),
        });
        let journal_sequence = frame.journal_sequence;
        let frame = AuditFrame { journal_sequence, entries: entries.collect() };
        StoredMessage { payload: frame.encode().unwrap().into(), ..message.clone() }
    };
    audit.iter().map(rewritten).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_audit_log_does_not_prove_is_not_accepted() {
    let stage = truncated(3).await;
    let before = messages(&stage, "JOURNAL_0").await.len();
    let audit = messages(&stage, "AUDIT_0").await;
    let subject = subjects::audit_log(PARTITION);
    let last = AuditFrame::decode(&audit.last().unwrap().payload).unwrap();
    let lost = last.entries.last().unwrap().index;

    let forged = changed(&audit, |index, commitment| commitment[0] ^= u8::from(index == lost));
    rewrite(&stage, "AUDIT_0", &subject, &forged).await;
    let forged = repair(&stage, "ada", &["--yes"]).await;
    rewrite(&stage, "AUDIT_0", &subject, &audit[..audit.len() - 1]).await;
    let short = repair(&stage, "ada", &["--yes"]).await;

    assert_eq!((forged.code, short.code), (1, 1), "{}{}", forged.stdout, short.stdout);
    assert!(forged.stderr.contains("is not what was signed"), "{}", forged.stderr);
    assert!(short.stderr.contains("Restore the stream `AUDIT_0`"), "{}", short.stderr);
    assert_eq!(messages(&stage, "JOURNAL_0").await.len(), before, "nothing was done");
    // And with the log as it was, it is.
    rewrite(&stage, "AUDIT_0", &subject, &audit).await;
    assert_eq!(answer(&repair(&stage, "ada", &["--yes"]).await)["answer"], "accepted");
}
