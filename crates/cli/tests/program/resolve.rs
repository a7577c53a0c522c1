//! `fermata review resolve`: what people decide about cases, on a running engine.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::engine::RunningEngine;
use crate::support::{Ended, SOON};

const WORKFLOW: &str = "
workflow: { name: report, version: '1', tasks: [{ id: a, noop: {} }] }
";
const OTHER: &str = "
strategies:
  - { name: other, version: 1, tenant: '*', on: other.kind, workflow: { name: report, version: '1' } }
";
const WANTED: &str = "
strategies:
  - { name: wanted, version: 1, tenant: '*', on: nobody.wants, workflow: { name: report, version: '1' } }
";

const BROKEN: &str = "
workflow: { name: broken, version: '1', tasks: [{ id: call, http: { plugin: nobody, path: /a, body: '{}' } }] }
";
const BREAKS: &str = "
strategies:
  - { name: breaks, version: 1, tenant: '*', on: breaks, workflow: { name: broken, version: '1' } }
";

const BREAKS_TWICE: &str = "
strategies:
  - { name: breaks, version: 1, tenant: '*', on: breaks, workflow: { name: broken, version: '1' } }
  - { name: too, version: 1, tenant: '*', on: breaks, fan_out: true, workflow: { name: broken, version: '1' } }
";

/// Events that nothing matches.
const UNMATCHED: u64 = 5;

struct Scene {
    engine: RunningEngine,
}

impl Scene {
    async fn start() -> Self {
        let engine = RunningEngine::start(&["--partitions", "2"], &[]).await;
        engine.apply("workflow", WORKFLOW).await;
        engine.apply("strategy", OTHER).await;
        Self { engine }
    }

    /// Publishes events, all in one message.
    async fn publish(&self, kind: &str, ids: std::ops::Range<u64>) {
        let event = |id: u64| {
            let event = json!({
                "specversion": "1.0", "id": id.to_string(), "source": "/t", "type": kind,
                "tenant": "acme", "data": { "n": id },
            });
            event.to_string() + "\n"
        };
        let file = self.engine.path("events");
        std::fs::write(&file, ids.map(event).collect::<String>()).expect("a file");
        self.engine.do_it(&["publish", "--ndjson", "--batch", "10", &file]).await;
    }

    /// Asks until `enough` says so.
    async fn until(&self, arguments: &[&str], enough: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let lines = self.engine.run(arguments).await.json();
            if enough(&lines) {
                return lines;
            }
            assert!(begun.elapsed() < SOON, "{arguments:?}: {lines:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The open reviews, once they hold `count` events.
    async fn open(&self, count: u64) -> Vec<Value> {
        let total = |lines: &[Value]| -> u64 {
            lines.iter().map(|review| review["count"].as_u64().expect("a count")).sum()
        };
        self.until(&["review", "list", "--json"], |lines| total(lines) == count).await
    }

    async fn resolve(&self, case: &str, rest: &[&str]) -> Ended {
        let mut all = vec!["review", "resolve", case, "--json", "--by", "ada", "--reason", "why"];
        all.extend(rest);
        self.engine.run(&all).await
    }
}

/// How many cases of these reviews nobody has resolved.
fn open_cases(reviews: &[Value]) -> u64 {
    let count = |review: &Value, name: &str| review[name].as_u64().expect("a count");
    let open = |review| count(review, "case_count") - count(review, "resolved_count");
    reviews.iter().map(open).sum()
}

fn case_of(review: &Value) -> &str {
    review["case"].as_str().expect("a case")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_event_starts_one_run_and_the_decision_stays() {
    let scene = Scene::start().await;
    scene.publish("nobody.wants", 0..UNMATCHED).await;
    let open = scene.open(UNMATCHED).await;
    scene.engine.apply("strategy", WANTED).await;

    let tried = scene.resolve(case_of(&open[0]), &["--retry", "--dry-run"]).await.json();
    assert_eq!((&tried[0]["dry_run"], &tried[0]["left_out"]), (&true.into(), &0.into()));
    scene.open(UNMATCHED).await;
    // Two minutes at the most, each a review.
    for review in &open {
        let resolved = scene.resolve(case_of(review), &["--retry"]).await;
        assert_eq!(resolved.code, 0, "{}{}", resolved.stdout, resolved.stderr);
        let again = scene.resolve(case_of(review), &["--retry"]).await;
        assert_eq!((again.code, &again.json()[0]["answer"]), (0, &"already_resolved".into()));
        let other = scene.resolve(case_of(review), &["--close"]).await;
        assert_eq!(other.code, 1, "{}", other.stdout);
        let answer = &other.json()[0];
        assert_eq!((&answer["answer"], &answer["status"]), (&"conflict".into(), &409.into()));
        assert_eq!((&answer["by"], &answer["resolution"]), (&"ada".into(), &"retry".into()));
    }

    let runs = scene
        .until(&["runs", "list", "--status", "succeeded", "--json"], |runs| {
            runs.len() as u64 >= UNMATCHED
        })
        .await;
    assert_eq!(runs.len() as u64, UNMATCHED, "{runs:?}");
    assert_eq!(scene.open(0).await.len(), 0);
    let all = scene.engine.run(&["review", "list", "--all"]).await;
    assert!(all.stdout.contains("retry by ada"), "{}", all.stdout);
    let verified = scene.engine.run(&["audit", "verify"]).await;
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_came_twice_is_decided_once_and_one_that_started_work_since_is_not() {
    let scene = Scene::start().await;
    scene.publish("nobody.wants", 0..2).await;
    scene.publish("nobody.wants", 0..1).await;
    let open = scene.open(3).await;
    scene.engine.apply("strategy", WANTED).await;
    scene.publish("nobody.wants", 1..2).await;
    let succeeded = ["runs", "list", "--status", "succeeded", "--json"];
    scene.until(&succeeded, |runs| runs.len() == 1).await;

    // Two minutes at the most, each a review.
    for review in &open {
        let resolved = scene.resolve(case_of(review), &["--retry"]).await;
        let is_done = resolved.stderr.contains("published again and started work since");
        assert!(resolved.code == 0 || is_done, "{}{}", resolved.stdout, resolved.stderr);
        scene.until(&succeeded, |runs| runs.len() > 1 || open.len() > 1).await;
    }
    let closed = scene.open(0).await;

    let runs = scene.until(&succeeded, |runs| runs.len() > 1).await;
    let mut events: Vec<_> = runs.iter().map(|run| run["event_id"].to_string()).collect();
    events.sort();
    assert_eq!(
        (closed.len(), events),
        (0, vec!["\"0\"".to_owned(), "\"1\"".to_owned()]),
        "{runs:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_routed_to_a_strategy_that_does_not_match_it() {
    let scene = Scene::start().await;
    scene.publish("nobody.wants", 0..1).await;
    let open = scene.open(1).await;
    let case = case_of(&open[0]);

    let unknown = scene.resolve(case, &["--route", "othr"]).await;
    assert_eq!(unknown.code, 4, "{}", unknown.stderr);
    assert!(unknown.stderr.contains("did you mean `other`?"), "{}", unknown.stderr);
    let routed = scene.resolve(case, &["--route", "other"]).await;
    assert_eq!(routed.code, 0, "{}", routed.stderr);

    let runs = scene
        .until(&["runs", "list", "--status", "succeeded", "--json"], |runs| !runs.is_empty())
        .await;
    assert_eq!((runs.len(), &runs[0]["strategy"]), (1, &"other".into()), "{runs:?}");
    // The same trouble again is another case, though perhaps of the same minute.
    scene.publish("nobody.wants", 1..2).await;
    let list = ["review", "list", "--json"];
    let again = scene.until(&list, |reviews| open_cases(reviews) == 1).await;
    let cases = again[0]["cases"].as_array().expect("cases");
    assert!(cases.iter().any(|other| other != case), "{again:?}");
    let closed = scene.resolve(case_of(&again[0]), &["--close"]).await;
    assert_eq!(closed.code, 0, "{}", closed.stderr);
    scene.open(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_runs_that_failed_together_one_is_retried_and_the_others_stay_open() {
    let scene = Scene::start().await;
    scene.engine.apply("workflow", BROKEN).await;
    scene.engine.apply("strategy", BREAKS).await;
    scene.publish("breaks", 0..3).await;
    let open = scene.open(3).await;
    let list = ["runs", "list", "--json"];
    let failed = scene.until(&list, |runs| runs.len() == 3).await;
    let run = open[0]["samples"][0]["run"].as_str().expect("a run");
    let event = &failed.iter().find(|known| known["id"] == run).expect("the run")["event_id"];
    let case = case_of(&open[0]);
    let one = ["review", "resolve", case, "--retry", "--run", run, "--reason", "why", "--json"];

    let resolved = scene.engine.run(&one).await;
    assert_eq!((resolved.code, resolved.json().len()), (0, 1), "{}", resolved.stderr);

    let runs = scene.until(&list, |runs| runs.len() == 4).await;
    let retried = |known: &&Value| failed.iter().all(|failed| failed["id"] != known["id"]);
    let retried: Vec<_> = runs.iter().filter(retried).map(|run| &run["event_id"]).collect();
    assert_eq!(retried, [event], "{runs:?}");
    // The two others, and that of the new run, which fails as the first one did.
    scene.until(&["review", "list", "--json"], |reviews| open_cases(reviews) == 3).await;
    let again = scene.engine.run(&one).await;
    assert_eq!((again.code, &again.json()[0]["answer"]), (0, &"already_resolved".into()));
    let otherwise = scene.resolve(case, &["--close", "--run", run]).await;
    assert_eq!((otherwise.code, &otherwise.json()[0]["answer"]), (1, &"conflict".into()));
    let nobodys = scene.resolve(case, &["--close", "--run", case]).await;
    assert_eq!(nobodys.code, 4, "{}", nobodys.stdout);
    assert!(nobodys.stderr.contains(&format!("is of run {case}")), "{}", nobodys.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_runs_failed_together_starts_each_of_them_once_more() {
    let scene = Scene::start().await;
    scene.engine.apply("workflow", BROKEN).await;
    scene.engine.apply("strategy", BREAKS_TWICE).await;
    scene.publish("breaks", 0..1).await;
    let open = scene.open(2).await;

    let tried = scene.resolve(case_of(&open[0]), &["--retry", "--dry-run"]).await.json();
    assert_eq!(tried[0]["events"], 1, "{tried:?}");
    let resolved = scene.resolve(case_of(&open[0]), &["--retry"]).await;
    assert_eq!(resolved.code, 0, "{}{}", resolved.stdout, resolved.stderr);

    // Cases of two more runs, which fail as the first ones did.
    let cases = |reviews: &[Value]| -> u64 {
        reviews.iter().map(|review| review["case_count"].as_u64().expect("a count")).sum()
    };
    let list = ["review", "list", "--all", "--json"];
    let all = scene.until(&list, |reviews| cases(reviews) >= 4).await;
    assert_eq!(cases(&all), 4, "{all:?}");
    let runs = scene.engine.run(&["runs", "list", "--json"]).await.json();
    assert_eq!(runs.len(), 4, "{runs:?}");
}
