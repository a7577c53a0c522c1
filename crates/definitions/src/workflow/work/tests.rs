use fermata_core::plan::{Completion, Delay, EventType, FailureClass, PlanNode, Work};

use crate::{Limits, read_workflow};

fn document(task: &str) -> String {
    format!("workflow:\n  name: a\n  version: '1'\n  tasks:\n    - {{ id: x, {task} }}\n")
}

fn node(task: &str) -> PlanNode {
    let read = read_workflow(&document(task), None, &Limits::WRITTEN);
    read.unwrap_or_else(|problems| panic!("{task}: {problems:?}")).into_plan().nodes.remove(0)
}

fn problem(task: &str) -> String {
    let problems = read_workflow(&document(task), None, &Limits::WRITTEN).unwrap_err();
    problems[0].to_string()
}

#[test]
fn a_delay_is_a_duration_or_a_point_of_time() {
    for (task, milliseconds) in
        [("delay: 10s", 10_000), ("delay: 90", 90_000), ("delay: 250ms", 250)]
    {
        assert_eq!(node(task).work, Work::Delay(Delay::Milliseconds(milliseconds)), "{task}");
    }
    let until = node("delay: { until: input.at }").work;
    assert_eq!(until, Work::Delay(Delay::Until("input.at".to_owned())));

    assert!(problem("delay: soon").contains("expected a duration"));
    assert!(problem("delay: {}").contains("`until` is missing"));
    let told = problem("delay: 24h");
    assert!(told.contains("a delay of 24h outlasts the run, which may take 24h"), "{told}");
    assert!(problem("delay: { until: tasks.y.output }").contains("`y`"));
}

#[test]
fn an_event_has_a_type_as_it_is_or_a_computed_one() {
    let input = "input".to_owned();
    assert_eq!(
        node("emit: { type: order.shipped }").work,
        Work::Emit {
            event_type: EventType::Constant("order.shipped".to_owned()),
            data: input.clone()
        }
    );
    assert_eq!(
        node("emit: { type_from: input.kind, data: input }").work,
        Work::Emit { event_type: EventType::Computed("input.kind".to_owned()), data: input }
    );

    assert!(problem("emit: {}").contains("`type` is missing"));
    assert!(problem("emit: { type: a, type_from: b }").contains("say the same thing"));
    for kind in ["'a.>'", "'*'", "a..b", "'a b'", "''", "a."] {
        let told = problem(&format!("emit: {{ type: {kind} }}"));
        assert!(told.contains("no type of an event"), "{kind}: {told}");
    }
    assert!(problem("emit: { type: a, tenant: other }").contains("for its own tenant"));
    assert!(problem("emit: { type_from: 'input.' }").contains("emit.type_from"));
}

#[test]
fn a_question_names_a_subject_that_may_be_asked() {
    let ask = |subject: &str, idempotent| Work::Nats {
        subject: subject.to_owned(),
        body: "input".to_owned(),
        idempotent,
        completion: Completion::Answer,
    };
    assert_eq!(node("nats: { subject: billing.charge }").work, ask("billing.charge", true));
    let once = node("nats: { subject: billing.charge, idempotent: false }");
    assert_eq!(once.work, ask("billing.charge", false));

    for subject in
        ["'a.*'", "'>'", "$JS.API.INFO", "$SYS.x", "_INBOX.x", "fermata.events.a.b", "a..b"]
    {
        let told = problem(&format!("nats: {{ subject: {subject} }}"));
        assert!(told.contains("nats.subject"), "{subject}: {told}");
    }
}

#[test]
fn a_program_has_a_name_and_is_not_taken_to_be_idempotent() {
    let program = |args: Option<&str>, idempotent| Work::Command {
        name: "report".to_owned(),
        args: args.map(str::to_owned),
        stdin: "input".to_owned(),
        idempotent,
    };
    assert_eq!(node("command: { name: report }").work, program(None, false));
    let task = "command: { name: report, args: \"['-n', input.n]\", idempotent: true }";
    assert_eq!(node(task).work, program(Some("['-n', input.n]"), true));

    assert!(problem("command: { name: /bin/sh }").contains("no name of a program"));
    assert!(problem("command: { name: a, shell: 'ls' }").contains("there is none"));
}

#[test]
fn a_call_ends_by_its_answer_or_by_callback() {
    for (task, completion) in [
        ("http: { plugin: a }", Completion::Answer),
        ("http: { plugin: a, completion: callback }", Completion::Callback),
        ("nats: { subject: a, completion: callback }", Completion::Callback),
        ("nats: { subject: a, completion: answer }", Completion::Answer),
    ] {
        assert_eq!(node(task).work.completion(), completion, "{task}");
    }
    assert!(problem("http: { plugin: a, completion: later }").contains("`answer` or `callback`"));
}

#[test]
fn each_kind_adds_what_it_may_well_try_again_and_the_first_kinds_add_nothing() {
    let first = [FailureClass::Timeout, FailureClass::Connect, FailureClass::Http5xx];
    for (work, own) in [
        ("http: { plugin: a }", None),
        ("noop: {}", None),
        ("emit: { type: a }", None),
        ("nats: { subject: a }", Some(FailureClass::NoResponders)),
        ("command: { name: a }", Some(FailureClass::ExitTemporary)),
    ] {
        let expected = first.into_iter().chain(own).collect::<Vec<_>>();
        for retry in ["retry_policy: exponential_backoff", "retry: { max_attempts: 3 }"] {
            assert_eq!(node(&format!("{work}, {retry}")).retry.on, expected, "{work}");
        }
    }
}

#[test]
fn the_example_with_an_approval_is_sound() {
    let source = include_str!("../../../../../examples/approval.workflow.yaml");

    let plan = read_workflow(source, None, &Limits::WRITTEN).unwrap().into_plan();

    assert_eq!(plan.nodes.len(), 4);
    assert_eq!(plan.nodes[0].work.completion(), Completion::Callback);
}
