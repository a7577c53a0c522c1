//! `fermata worker --roles projector`, and who asks it.

use std::time::Instant;

use fermata_core::plan::FailureClass;
use fermata_core::record::EndReason;
use fermata_core::record::{Record, RunFailed, RunSucceeded};
use fermata_jetstream::core_messages::CoreMessages;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::process::Running;
use crate::runs::{run_of, started, tenant};
use crate::support::{SOON, Stage, signer};

/// A projector beside the broker of `stage`, its read model in the folder `model`.
async fn projector(stage: &Stage, model: &str) -> Running {
    let folder = stage.folder.path().join(model);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("audit.key"), signer().to_private_text()).unwrap();
    Running::worker(stage, model, "projector", &[]).await
}

async fn stop(mut worker: Running, signal: Signal) {
    worker.signal(signal);
    worker.ended().await;
}

/// Lists until a projector has answered that has read the journals to their ends.
async fn listed(stage: &Stage, arguments: &[&str]) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let all = [&["runs", "list", "--json"], arguments].concat();
        let listed = stage.run(&all).await;
        assert_eq!(listed.code, 0, "{}", listed.stderr);
        let lags = ["the journals are read instead", "journal messages are not read yet"];
        if !lags.iter().any(|lag| listed.stderr.contains(lag)) {
            // Nothing that is active has a workflow of that name, which is told.
            let told = listed.stderr.lines();
            let told = told.filter(|line| !line.contains("there is no workflow `another`"));
            assert_eq!(told.collect::<Vec<_>>(), Vec::<&str>::new());
            return listed.json();
        }
        assert!(begun.elapsed() < SOON, "no projector is there yet: {}", listed.stderr);
    }
}

/// Runs `names`, the first half of them ended.
async fn journal_runs(stage: &Stage, last: u64, names: &[&str]) {
    let mut records: Vec<Record> = names.iter().map(|name| started(run_of(name))).collect();
    let (class, detail) = (FailureClass::Http5xx, String::new());
    let reason = EndReason::Failed { node: "fetch".into(), class, detail };
    for (at, name) in names.iter().enumerate().take(names.len() / 2) {
        let body = match at % 2 {
            0 => RunSucceeded {}.into(),
            _ => RunFailed { reason: reason.clone() }.into(),
        };
        records.push(Record::of_run(&tenant(), run_of(name), body));
    }
    stage.journal(last, last * 100, &records).await;
}

const QUESTIONS: [&[&str]; 6] = [
    &[],
    &["--status", "failed"],
    &["--tenant", "acme", "--status", "running"],
    &["--workflow", "w", "--limit", "3"],
    &["--workflow", "another"],
    &["--since", "2023-11-14T22:13:20.500Z"],
];

#[tokio::test]
async fn a_projector_lists_what_the_journals_hold_also_when_it_was_ended_or_killed() {
    let stage = Stage::new().await;
    journal_runs(&stage, 0, &["a", "b", "c", "d", "e", "f"]).await;
    let mut last = 1;
    let mut worker = None;
    for signal in [None, Some(Signal::TERM), Some(Signal::KILL)] {
        if let Some(signal) = signal {
            let ended: Option<Running> = worker.take();
            stop(ended.unwrap(), signal).await;
            // What comes while nobody follows is caught up with.
            journal_runs(&stage, last, &[&format!("{signal:?}"), "x"]).await;
            last += 1;
        }
        let mut told = Vec::new();
        for question in QUESTIONS {
            let read = stage.run(&[&["runs", "list", "--json"], question].concat()).await;
            assert!(read.stderr.contains("no projector answers"), "{}", read.stderr);
            told.push(read.json());
        }
        let running = projector(&stage, "model").await;
        for (question, told) in QUESTIONS.iter().zip(&told) {
            assert_eq!(&listed(&stage, question).await, told, "{question:?} after {signal:?}");
        }
        let rebuilt = match signal {
            None => Some("there is none yet"),
            Some(Signal::TERM) => None,
            Some(_) => Some("it was not closed in order"),
        };
        running.logs.until(rebuilt.unwrap_or_default()).await;
        let logs = running.logs.all();
        assert_eq!(logs.contains("made from the journals"), rebuilt.is_some(), "{logs}");
        worker = Some(running);
    }
}

#[tokio::test]
async fn what_was_just_journaled_is_in_the_next_list_and_pages_go_on_where_the_last_ended() {
    let stage = Stage::new().await;
    let _worker = projector(&stage, "model").await;
    assert!(listed(&stage, &[]).await.is_empty());
    for last in 0..4 {
        let name = format!("run-{last}");
        journal_runs(&stage, last, &[&name]).await;
        assert_eq!(listed(&stage, &[]).await.len(), usize::try_from(last).unwrap() + 1);
    }

    let all = listed(&stage, &[]).await;
    let mut paged = Vec::new();
    let mut page = listed(&stage, &["--limit", "3"]).await;
    let next = page.pop().unwrap()["next"].as_str().unwrap().to_owned();
    paged.extend(page);
    paged.extend(listed(&stage, &["--limit", "3", "--cursor", &next]).await);

    assert_eq!(paged, all);
}

#[tokio::test]
async fn a_second_process_is_refused_in_the_folder_of_another() {
    let stage = Stage::new().await;
    let first = projector(&stage, "model").await;
    let folder = stage.folder.path().join("model").display().to_string();

    let second = stage.run(&["worker", "--roles", "projector", "--data-dir", &folder]).await;

    assert_eq!(second.code, 2, "{}", second.stderr);
    assert!(second.stderr.contains("runs already in the data folder"), "{}", second.stderr);
    stop(first, Signal::TERM).await;
}

#[tokio::test]
async fn a_journal_that_was_made_again_is_read_again() {
    let stage = Stage::new().await;
    journal_runs(&stage, 0, &["a", "b"]).await;
    let worker = projector(&stage, "model").await;
    assert_eq!(listed(&stage, &[]).await.len(), 2);
    stop(worker, Signal::TERM).await;
    stage.delete_stream("JOURNAL_0").await;
    crate::support::topology().apply(&stage.broker).await.unwrap();
    journal_runs(&stage, 0, &["c"]).await;

    let worker = projector(&stage, "model").await;

    let ids: Vec<_> = listed(&stage, &[]).await.iter().map(|run| run["id"].clone()).collect();
    assert_eq!(ids, [json!(run_of("c"))]);
    worker.logs.until("it was made from other journals").await;
}

#[tokio::test]
async fn questions_that_make_no_sense_are_answered_with_the_reason() {
    let stage = Stage::new().await;
    journal_runs(&stage, 0, &["a"]).await;
    let _worker = projector(&stage, "model").await;
    listed(&stage, &[]).await;
    let core = CoreMessages::new(&stage.broker);
    let ask = async |subject: &str, question: &Value| {
        let question = question.to_string().into_bytes().into();
        let answer = core.request(subject, question, SOON).await.unwrap();
        serde_json::from_slice::<Value>(&answer.payload).unwrap()
    };

    let no_json = ask("fermata.query.runs", &json!("all")).await;
    let nowhere = ask("fermata.query.nothing", &json!({})).await;
    let ahead = json!({ "query": { "limit": 5 }, "at_least": [{ "partition": 0, "sequence": 9 }] });
    let ahead = ask("fermata.query.runs", &ahead).await;
    let found = ask("fermata.query.run", &json!({ "run": run_of("a") })).await;
    let missing = ask("fermata.query.run", &json!({ "run": run_of("z") })).await;
    let page = ask("fermata.query.runs", &json!({ "query": { "limit": 5 } })).await;

    let code = |answer: &Value| answer["error"]["code"].clone();
    assert_eq!((code(&no_json), code(&nowhere)), (json!("malformed"), json!("malformed")));
    assert_eq!(code(&ahead), "behind", "{ahead}");
    assert_eq!(found["ok"]["run"]["status"], "running", "{found}");
    assert_eq!(missing["ok"]["run"], Value::Null, "{missing}");
    assert_eq!(page["ok"]["runs"][0]["id"], json!(run_of("a")), "{page}");
    assert_eq!(page["ok"]["runs_held"], 1);
}
