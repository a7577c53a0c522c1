//! What programs beside Fermata ask it over NATS, and what it answers.

use std::io::Write as _;
use std::time::Instant;

use fermata_jetstream::core_messages::CoreMessages;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::described::{Described, STORED_OR_SENT};
use crate::engine::{RunningEngine, event};
use crate::support::SOON;

const WORKFLOW: &str = "
workflow:
  name: asks
  version: '1'
  tasks: [{ id: ask, nats: { subject: approvals.ask, completion: callback }, timeout: 1h }]
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: asks.start, workflow: { name: asks, version: '1' } }
";
const CALLBACKS: &str = "fermata.callbacks.acme";

/// Asks, and holds question and answer against the document.
async fn ask(
    core: &CoreMessages,
    described: &mut Described,
    (channel, answer): (&str, &str),
    subject: &str,
    question: &Value,
) -> Value {
    described.check(channel, subject, question);
    answered(core, described, answer, subject, question).await
}

/// Asks, and holds the answer against the document.
async fn answered(
    core: &CoreMessages,
    described: &mut Described,
    message: &str,
    subject: &str,
    question: &Value,
) -> Value {
    let answer = core.request(subject, question.to_string().into(), SOON).await.expect("an answer");
    let value = serde_json::from_slice::<Value>(&answer.payload).expect("JSON");
    described.check_one_of("inbox", message, &answer.subject, &value);
    value
}

#[tokio::test(flavor = "multi_thread")]
async fn every_question_and_answer_is_as_the_document_says() {
    let mut config = NamedTempFile::new().expect("a file");
    writeln!(config, r#"{{ "nats": {{ "subjects": ["approvals.>"] }} }}"#).expect("a file");
    let path = config.path().to_str().expect("text");
    let engine = RunningEngine::start(&["--config", path, "--partitions", "1"], &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    let broker = engine.broker().await;
    let core = CoreMessages::new(&broker);
    let mut calls = core.subscribe("approvals.ask").await.expect("a subscription");
    core.flush().await.expect("subscribed");
    engine.publish(&event(1, "asks.start").to_string()).await;
    let call = tokio::time::timeout(SOON, calls.next()).await.expect("in time").expect("a call");
    let headers = call.headers.expect("headers");
    let token = headers.get("fermata-callback-token").expect("a token").as_str();
    core.publish_core(call.reply.expect("a reply"), Default::default()).await.expect("accepted");
    let mut described = Described::read();
    let described = &mut described;

    let completes = ("callbacks", "completionAnswer");
    let forged = json!({ "token": format!("{token}a"), "failed": "no" });
    let refused = ask(&core, described, completes, CALLBACKS, &forged).await;
    let completion = json!({ "token": token, "output": { "approved": true } });
    let completed = ask(&core, described, completes, CALLBACKS, &completion).await;
    let again = ask(&core, described, completes, CALLBACKS, &completion).await;
    let answers = [refused, completed, again].map(|answer| answer["answer"].clone());
    assert_eq!(answers, ["invalid_token", "completed", "late"]);

    let lists = ("queryRuns", "runsAnswer");
    let question = json!({ "query": { "tenant": "acme", "status": "succeeded", "limit": 500 } });
    let begun = Instant::now();
    let run = loop {
        let listed = ask(&core, described, lists, "fermata.query.runs", &question).await;
        if let Some(run) = listed["ok"]["runs"].get(0) {
            break run.clone();
        }
        assert!(begun.elapsed() < SOON, "{listed}\n{}", engine.up.logs.all());
    };
    let finds = ("queryRun", "runAnswer");
    let question = json!({ "run": run["id"], "at_least": [{ "partition": 0, "sequence": 1 }] });
    let found = ask(&core, described, finds, "fermata.query.run", &question).await;
    assert_eq!(found["ok"]["run"], run);
    let nobodys = json!({ "run": "00000000-0000-8000-8000-000000000000" });
    let missing = ask(&core, described, finds, "fermata.query.run", &nobodys).await;
    assert!(missing["ok"]["run"].is_null(), "{missing}");
    let no_question = json!({ "of": "whom" });
    let refused = answered(&core, described, "runAnswer", "fermata.query.run", &no_question).await;
    assert_eq!(refused["error"]["code"], "malformed");

    let inbox = "_INBOX.questions";
    let mut answers = core.subscribe(inbox).await.expect("a subscription");
    let question = json!({ "reply_to": inbox });
    described.check("status", "fermata.status", &question);
    core.publish_core("fermata.status", question.to_string().into()).await.expect("asked");
    let answer = tokio::time::timeout(SOON, answers.next()).await.expect("in time");
    let answer = answer.expect("an answer");
    let status = serde_json::from_slice::<Value>(&answer.payload).expect("JSON");
    described.check_one_of("inbox", "statusAnswer", &answer.subject, &status);
    assert_eq!(status["partitions"].as_array().map(Vec::len), Some(2), "{status}");

    // What is stored or sent without being asked for is held against it elsewhere.
    assert_eq!(described.unseen(&STORED_OR_SENT), [""; 0]);
}
