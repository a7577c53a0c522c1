use fermata_core::command::Replayed;
use fermata_core::identity::SourcePosition;
use fermata_core::plan::FailureClass;
use fermata_core::record::{Body, Header, Record};
use fermata_definitions::{Limits, read_workflow};
use uuid::Uuid;

use super::*;
use crate::journal_view::testing::{Script, run_of};

const WORKFLOW: &str = "
workflow:
  name: job-report
  version: '1.0'
  tasks:
    - { id: fetch, noop: {}, retry: { max_attempts: 3 } }
    - { id: check, noop: {} }
    - { id: report, depends_on: [fetch, check], noop: {} }
";

fn plan() -> Plan {
    read_workflow(WORKFLOW, None, &Limits::default()).unwrap().plan().clone()
}

fn history_of(records: &[(Header, Record)]) -> RunHistory {
    let ((header, record), later) = records.split_first().unwrap();
    let mut history = RunHistory::begin(header, record).unwrap();
    later.iter().for_each(|(header, record)| history.fold(header, record));
    history
}

fn explained(records: &[(Header, Record)], now_ms: u64) -> String {
    let history = history_of(records);
    sentences(&history, Some(&plan()), &Around::default(), now_ms).join("\n")
}

#[test]
fn a_run_that_waits_for_a_retry_says_when_and_after_which_failure() {
    let run = run_of("a");
    let mut script = Script::default();
    let records = [
        script.at(1_000).started(run),
        script.dispatched(run, "fetch", 1),
        script.dispatched(run, "check", 1),
        script.at(1_100).retrying(run, "fetch", 1, 3_100),
    ];

    insta::assert_snapshot!(explained(&records, 1_600));
}

#[test]
fn a_run_of_a_replay_says_who_asked_for_it_and_why() {
    let mut script = Script::default();
    let (header, mut record) = script.at(1_000).started(run_of("a"));
    let mut told = |by: Option<&str>, reason: Option<&str>| {
        let Body::RunStarted(started) = &mut record.body else { panic!() };
        let (by, reason) = (by.map(Into::into), reason.map(Into::into));
        let replayed = Replayed { by, reason, unless_started: false };
        started.event.replayed = Some(replayed.into());
        explained(&[(header.clone(), record.clone())], 1_600)
    };

    for (by, reason, expected) in [
        (Some("ann"), Some("a typo"), " once more because `ann` asked for it: a typo."),
        (Some("ann"), None, " once more because `ann` asked for it."),
        (None, Some("a typo"), " once more: a typo."),
    ] {
        let told = told(by, reason);
        assert!(told.lines().any(|line| line.ends_with(expected)), "{told}");
    }
}

#[test]
fn a_failed_run_tells_what_was_started_for_it_since() {
    let (run, retried) = (run_of("a"), run_of("b"));
    let (case, place) = (Uuid::from_u128(7), SourcePosition { sequence: 5, index: 0 });
    let mut script = Script::default();
    let records = [
        script.at(1_000).started(run),
        script.at(2_000).failed(run, "fetch"),
        script.at(3_000).case_resolved(run, case, place),
    ];
    let mut history = history_of(&records);
    let told = |history: &RunHistory| {
        sentences(history, Some(&plan()), &Around::default(), 9_000).join("\n")
    };

    let waiting = told(&history);
    let resolved = format!(
        "Its case {case} was resolved by `ada` at 1970-01-01T00:00:03.000Z (retry): mended."
    );
    assert!(
        waiting.contains(&format!("{resolved} That has started nothing, or not yet.\n")),
        "{waiting}"
    );

    for source in [place, SourcePosition { sequence: 9, index: 0 }] {
        let (header, record) = script.at(4_000).event_replayed(1, source, retried);
        let Body::EventStarted(started) = &record.body else { panic!() };
        history.start_again(&header, started);
    }
    let told = told(&history);
    let by = |what: &str| {
        format!(
            "{what} its event was decided once more, and started run {retried} at 1970-01-01T00:00:04.000Z"
        )
    };
    assert!(told.contains(&format!("{resolved}\n{}", by("For that"))), "{told}");
    assert!(told.contains(&by("By a replay")), "{told}");
    assert!(told.ends_with("\nNothing more will happen."), "{told}");
}

fn running_beside(around: &Around) -> String {
    let run = run_of("a");
    let mut script = Script::default();
    let history = history_of(&[script.at(1_000).started(run), script.dispatched(run, "fetch", 1)]);
    let mut plan = plan();
    plan.nodes.iter_mut().for_each(|node| node.queue = Some("gpu".into()));
    sentences(&history, Some(&plan), around, 1_600).join("\n")
}

#[test]
fn a_run_that_nobody_decides_says_what_is_wrong_with_its_partition() {
    let beside = |partition| Around { partition: Some(partition), queues: None };

    let ownerless = running_beside(&beside(PartitionStanding::Ownerless));
    let (worker, reason) = ("w".to_owned(), "the journal ends at 7".to_owned());
    let halted = running_beside(&beside(PartitionStanding::Halted { worker, reason }));

    assert!(ownerless.contains("No worker holds its partition"), "{ownerless}");
    assert!(halted.contains("is halted at worker `w`"), "{halted}");
    assert!(halted.contains("the journal ends at 7"), "{halted}");
}

#[test]
fn a_task_of_a_queue_says_whether_anybody_serves_it() {
    let beside = |is_served| {
        let (queue, waiting, under_way) = ("gpu".to_owned(), 3, 1);
        let standing = QueueStanding { queue, waiting, under_way, is_served };
        running_beside(&Around { partition: None, queues: Some(vec![standing]) })
    };

    assert!(beside(true).contains("Its queue `gpu` is served; 3 tasks wait in it, 1 under way"));
    assert!(beside(false).contains("No worker serves its queue `gpu`, in which 3 tasks wait"));
}

#[test]
fn a_run_that_waits_for_an_event_says_for_which_and_until_when() {
    let run = run_of("a");
    let mut script = Script::default();
    let records = [
        script.at(1_000).started(run),
        script.at(1_100).waiting(run, "fetch", ("order.*", "o-42"), 61_100),
    ];

    let text = explained(&records, 1_600);

    let sentence = "`fetch` waits for an event of type `order.*` with the correlation key \
                    `o-42` until 1970-01-01T00:01:01.100Z, in 59.500s.";
    assert!(text.contains(sentence), "{text}");
    assert!(text.contains("if it fails, the run fails"), "{text}");
}

#[test]
fn a_run_that_failed_says_why() {
    let run = run_of("a");
    let mut script = Script::default();
    let records = [
        script.at(1_000).started(run),
        script.dispatched(run, "fetch", 1),
        script.at(1_100).retrying(run, "fetch", 1, 3_100),
        script.at(4_000).failed(run, "fetch"),
    ];

    let text = explained(&records, 9_000);

    assert!(text.contains("It failed at 1970-01-01T00:00:04.000Z, after 3.000s"), "{text}");
    assert!(text.contains("The reason: node fetch failed (status 500)."), "{text}");
    assert!(text.ends_with("Nothing more will happen."), "{text}");
}

#[test]
fn an_ended_run_tells_whose_outcome_nobody_knows() {
    let run = run_of("a");
    let mut script = Script::default();
    let records = [
        script.at(1_000).started(run),
        script.dispatched(run, "fetch", 1),
        script.dispatched(run, "check", 1),
        script.dispatched(run, "report", 1),
        script.at(2_000).node_unknown(run, "fetch", 1),
        script.node_unknown(run, "check", 1),
        script.node_failed(run, "report", 1, FailureClass::Cancelled),
        script.failed_unknown(run, "fetch"),
    ];

    let text = explained(&records, 9_000);

    assert!(text.contains("The reason: the outcome of node fetch is unknown (its owner"), "{text}");
    assert!(text.contains("The outcome of `fetch`, `check` is unknown: "), "{text}");
    assert!(text.contains("How `report` failed does not tell whether"), "{text}");
    assert!(!text.contains("Nothing more will happen") && !text.contains("node fetch failed"));

    let records = [
        script.at(1_000).started(run),
        script.node_failed(run, "fetch", 1, FailureClass::Http4xx),
        script.failed(run, "fetch"),
    ];
    assert!(explained(&records, 9_000).ends_with("Nothing more will happen."));
}

#[test]
fn a_task_is_free_once_nothing_else_is_waited_for() {
    let run = run_of("a");
    let mut script = Script::default();
    let records = [
        script.at(1_000).started(run),
        script.dispatched(run, "fetch", 1),
        script.dispatched(run, "check", 1),
        script.at(1_100).node_succeeded(run, "check", 1, "1"),
    ];

    let text = explained(&records, 1_600);

    assert!(text.contains("`report` waits for `fetch`."), "{text}");
    assert!(text.contains("When `fetch` succeeds, `report` can begin"), "{text}");
}
