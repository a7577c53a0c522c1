//! What people write, right and wrong.

mod bounds;
mod meaning;
mod strategies;

use crate::{
    Expectation, FoundProblems, Limits, TaskDocument, WorkflowDocument, build, build_plan,
    read_strategies, read_strategies_document, read_workflow, report,
};
use fermata_core::plan::{FailureClass, Join, RetryPolicy, Work};
use fermata_core::strategy::Action;
use serde_json::json;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/");

fn example(name: &str) -> String {
    std::fs::read_to_string(format!("{EXAMPLES}{name}")).unwrap()
}

/// Problems as `line:column path: message (hint)`.
fn lines(problems: FoundProblems) -> Vec<String> {
    report(&problems).lines().map(str::to_owned).collect()
}

fn workflow_problems(source: &str) -> Vec<String> {
    lines(read_workflow(source, None, &Limits::WRITTEN).expect_err("the document was taken"))
}

fn strategy_problems(source: &str) -> Vec<String> {
    lines(read_strategies(source, None, &Limits::WRITTEN).expect_err("the document was taken"))
}

#[test]
fn the_example_workflows_become_plans() {
    let report_plan = read_workflow(
        &example("report.workflow.yaml"),
        Some("report.workflow.yaml"),
        &Limits::WRITTEN,
    )
    .unwrap_or_else(|problems| panic!("{}", report(&problems)))
    .into_plan();
    let ids: Vec<_> = report_plan.nodes.iter().map(|node| &*node.id).collect();

    assert_eq!(ids, ["fetch", "summarise", "notify-owner", "notify-ops", "archive"]);
    assert_eq!(report_plan.nodes[0].timeout_ms, 10_000);
    assert_eq!(report_plan.nodes[0].retry, RetryPolicy::exponential_backoff());
    assert_eq!(report_plan.nodes[2].retry.on, [FailureClass::Timeout, FailureClass::Http5xx]);
    assert_eq!(report_plan.nodes[4].predecessors, [2, 3]);
    assert_eq!(report_plan.run_timeout_ms, 86_400_000);
    assert!(report_plan.input_schema.is_some());

    let request = read_workflow(&example("request.workflow.yaml"), None, &Limits::WRITTEN)
        .unwrap_or_else(|problems| panic!("{}", report(&problems)));
    let respond = request.find("respond").and_then(|index| request.node(index)).unwrap();
    assert_eq!(respond.join, Join::Any);
}

#[test]
fn the_example_strategies_are_read() {
    let strategies = read_strategies(&example("strategies.yaml"), None, &Limits::WRITTEN)
        .unwrap_or_else(|problems| panic!("{}", report(&problems)));

    let names: Vec<_> = strategies.iter().map(|strategy| strategy.name.as_str()).collect();
    assert_eq!(names, ["report-on-completed-job", "handle-request", "ignore-heartbeats"]);
    assert_eq!(strategies[0].priority, 100);
    assert_eq!(strategies[1].weight, 100);
    assert_eq!(strategies[2].action, Action::Ignore);
}

#[test]
fn json_is_read_too() {
    let source =
        r#"{"workflow": {"name": "a", "version": "1", "tasks": [{"id": "x", "noop": {}}]}}"#;

    let plan = read_workflow(source, None, &Limits::WRITTEN).unwrap().into_plan();

    assert_eq!(plan.nodes[0].work, Work::Noop);
}

#[test]
fn tasks_stand_in_any_order_in_the_document() {
    let source = "
workflow:
  name: a
  version: '1'
  tasks:
    - { id: last, depends_on: [middle], noop: {} }
    - { id: middle, depends_on: [first], noop: {} }
    - { id: first, noop: {} }
";
    let plan = read_workflow(source, None, &Limits::WRITTEN).unwrap().into_plan();

    let ids: Vec<_> = plan.nodes.iter().map(|node| &*node.id).collect();
    assert_eq!(ids, ["first", "middle", "last"]);
    assert_eq!(plan.nodes[1].successors, [2]);
}

/// YAML 1.2, clause 10.3.2: only `true` and `false` are truth values.
#[test]
fn no_and_off_are_texts_and_no_truth() {
    let workflow = |name: &str, idempotent: &str| {
        format!(
            "workflow:\n  name: {name}\n  version: '1'\n  tasks:\n    \
             - {{ id: x, http: {{ plugin: store, path: /x, idempotent: {idempotent} }} }}\n"
        )
    };
    for text in ["no", "off", "NO", "Off", "n", "yes", "on"] {
        let named = read_workflow(&workflow(&text.to_lowercase(), "true"), None, &Limits::WRITTEN);
        assert_eq!(*named.expect(text).plan().workflow, text.to_lowercase());

        let problems = workflow_problems(&workflow("a", text)).join("\n");
        assert!(problems.contains("expected true or false, found a text"), "{text}: {problems}");
        let is_hinted = problems.contains("write `true` or `false`");
        assert_eq!(is_hinted, text != "n", "{text}: {problems}");
    }
}

#[test]
fn every_problem_is_told_with_its_place() {
    let source = r#"workflow:
  name: bad name
  version: 1.0
  orchestration_pattern: supervisr
  agents: {}
  input: { type: object, oneOf: [] }
  tasks:
    - id: fetch
      depends_on: [fetch]
      http: { plugin: store, paht: /x, idempotent: yes }
    - id: sum
      depend_on: [fetch]
      depends_on: [fetsh]
      transform: "tasks.late.output +"
    - id: late
      transform: "{'a': nwo(input.x)}"
      timeout: soon
      compensate: {}
    - id: sum
      transform: |
        tasks.fetch.x
          && other.y
      noop: {}
    - id: nothing
      retry: { max_attempts: 3, on: [timeot] }
    - id: mail
      approval: { by: x }
      join: { n: 2 }
  fault_tolerance:
    circuit_breaker: { failure_threshold: 3 }
"#;
    let problems = workflow_problems(source);

    assert_eq!(
        problems,
        [
            "2:9: workflow.name: `bad name` is no name of a workflow; use 1 to 128 letters, digits, `.`, `_` and `-`",
            "3:12: workflow.version: expected a text, found a number (put it in quotes)",
            "4:26: workflow.orchestration_pattern: `supervisr` is no orchestration pattern (did you mean `supervisor`?)",
            "5:3: workflow.agents: `agents` has no effect yet (call the agents as plugins with `http`)",
            "6:33: workflow.input.oneOf: `oneOf` has no effect yet; `type`, `required` and `properties` have",
            "9:20: workflow.tasks[0].depends_on[0]: `fetch` waits for itself",
            "10:30: workflow.tasks[0].http.paht: `paht` is not known here (did you mean `path`?)",
            "10:52: workflow.tasks[0].http.idempotent: expected true or false, found a text (write `true` or `false`)",
            "12:7: workflow.tasks[1].depend_on: `depend_on` is not known here (did you mean `depends_on`?)",
            "13:20: workflow.tasks[1].depends_on[0]: there is no task `fetsh` (did you mean `fetch`?)",
            "14:38: workflow.tasks[1].transform: the expression is not finished",
            "16:25: workflow.tasks[2].transform: there is no function `nwo`; there are size, contains, startsWith, endsWith, string, int, uint, double, bool, dyn, has, all, exists, exists_one, map, filter",
            "17:16: workflow.tasks[2].timeout: expected a duration such as `200ms`, `10s`, `5m`, `24h`, or a number of seconds",
            "18:7: workflow.tasks[2].compensate: `compensate` has no effect yet (undo by a task of its own with a `when`)",
            "19:11: workflow.tasks[3].id: there is another task `sum`, tasks[1]",
            "23:7: workflow.tasks[3].noop: a task does one thing, this one has `transform` and `noop`",
            "24:7: workflow.tasks[4]: the task does nothing (add one of `http`, `nats`, `command`, `emit`, `transform`, `delay`, `wait` or `noop: {}`)",
            "25:38: workflow.tasks[4].retry.on[0]: `timeot` is no class of failures (did you mean `timeout`?)",
            "27:7: workflow.tasks[5].approval: `approval` has no effect yet (ask through a plugin with `http` and `completion: callback`)",
            "28:13: workflow.tasks[5].join: `n` has no effect yet (use `all` or `any`)",
            "30:5: workflow.fault_tolerance.circuit_breaker: `circuit_breaker` has no effect yet (bound the calls with `timeout` and `retry` on each task)",
        ]
    );
}

#[test]
fn the_expressions_of_sound_tasks_are_checked_whatever_the_others_are_like() {
    let with = |trouble: &str| {
        format!(
            "workflow:
  name: a
  version: '1'
  tasks:
    - {{ id: first, noop: {{}} }}
    - {{ id: beside, noop: {{}} }}
    - {{ id: late, depends_on: [first], transform: 'tasks.beside.output' }}
    - {{ id: lost, transform: 'tasks.nobody.output' }}
{trouble}"
        )
    };
    for (trouble, told) in [
        // A value out of its range, a dependency on nothing, a circle, an id twice, no work.
        ("    - { id: x, timeout: 0s, noop: {} }", "a time limit is"),
        ("    - { id: x, depends_on: [y], noop: {} }", "there is no task `y`"),
        (
            "    - { id: x, depends_on: [y], noop: {} }\n    - { id: y, depends_on: [x], noop: {} }",
            "wait for each other",
        ),
        ("    - { id: first, noop: {} }", "there is another task"),
        ("    - { id: x }", "the task does nothing"),
    ] {
        let problems = workflow_problems(&with(trouble));

        assert_eq!(problems.len(), 3, "{problems:#?}");
        assert!(problems[0].contains("`beside` need not have ended before `late`"), "{problems:?}");
        assert!(problems[1].contains("there is no task `nobody`"), "{problems:?}");
        assert!(problems[2].contains(told), "{problems:?}");
    }
}

#[test]
fn a_task_whose_dependencies_are_wrong_is_not_told_that_it_lacks_them() {
    let problems = workflow_problems(
        "workflow:
  name: a
  version: '1'
  tasks:
    - { id: fetch, noop: {} }
    - { id: sum, depends_on: [fetsh], transform: 'tasks.fetch.output' }
    - { id: report, depends_on: [sum], transform: 'tasks.fetch.output' }
    - { id: mail, depend_on: [fetch], transform: 'tasks.fetch.output' }
",
    );

    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].contains("there is no task `fetsh`"), "{problems:?}");
    assert!(problems[1].contains("`depend_on` is not known here"), "{problems:?}");
}

#[test]
fn a_place_inside_an_expression_is_a_place_in_the_file() {
    let in_task =
        |line: &str| format!("workflow:\n  name: a\n  version: '1'\n  tasks:\n    - id: x\n{line}");
    for (task, expected) in [
        ("      transform: now()\n", "6:18:"),
        ("      transform: '1 + now()'\n", "6:23:"),
        ("      transform: |\n        1 +\n        now()\n", "8:9:"),
        ("      transform: \"1 + now()\"\n", "6:23:"),
    ] {
        let problems = workflow_problems(&in_task(task));

        assert!(problems[0].starts_with(expected), "{expected} {problems:?}");
    }
}

#[test]
fn cycles_are_named_and_what_is_not_before_is_not_mentioned() {
    let cycle = "
workflow:
  name: a
  version: '1'
  tasks:
    - { id: start, noop: {} }
    - { id: one, depends_on: [start, three], noop: {} }
    - { id: two, depends_on: [one], noop: {} }
    - { id: three, depends_on: [two], noop: {} }
    - { id: end, depends_on: [three], noop: {} }
";
    assert_eq!(
        workflow_problems(cycle),
        [
            "7:30: workflow.tasks[1].depends_on: these tasks wait for each other: one → two → three → one (take one of the dependencies out)"
        ]
    );

    let beside = "
workflow:
  name: a
  version: '1'
  tasks:
    - { id: one, noop: {} }
    - { id: two, transform: 'tasks.one.output' }
    - { id: three, transform: 'taks.one.output' }
";
    assert_eq!(
        workflow_problems(beside),
        [
            "7:29: workflow.tasks[1].transform: `tasks.one` is mentioned, but `one` need not have ended before `two` (add `one` to `depends_on`)",
            "8:31: workflow.tasks[2].transform: `taks` is not known here (a workflow's expressions see `input` and `tasks`)",
        ]
    );
}

#[test]
fn the_shapes_that_are_for_later_are_refused_by_name() {
    let research = "
workflow:
  name: research
  version: '1'
  agents: { lead: { type: supervisor_agent } }
  tasks:
    - { id: decompose, agent: lead, depends_on: [], timeout: 300, retry_policy: exponential_backoff }
    - { id: research, agent: lead, depends_on: [decompose], parallel: true }
  coordination: { type: hybrid }
";
    let problems = workflow_problems(research);

    let named: Vec<_> = problems.iter().filter_map(|problem| problem.split('`').nth(1)).collect();
    assert_eq!(named, ["agents", "agent", "agent", "parallel", "coordination"]);
}

#[test]
fn a_task_can_wait_for_an_event() {
    let plan = read_workflow(
        "
workflow:
  name: order
  version: '1'
  tasks:
    - { id: paid, wait: { event: order.paid, correlation: input.order, timeout: 1h } }
    - { id: any, wait: { event: 'order.>', correlation: '\"k\"' } }
",
        None,
        &Limits::WRITTEN,
    )
    .unwrap_or_else(|problems| panic!("{}", report(&problems)))
    .into_plan();

    let [paid, any] = plan.nodes.as_slice() else { panic!("two tasks") };
    let correlation = "input.order".to_owned();
    assert_eq!(paid.work, Work::Wait { event: "order.paid".to_owned(), correlation });
    assert_eq!((paid.timeout_ms, any.timeout_ms), (3_600_000, 86_400_000));
}

#[test]
fn what_is_wrong_with_a_wait_is_told_where_it_stands() {
    let problems = workflow_problems(
        "
workflow:
  name: order
  version: '1'
  tasks:
    - { id: a, timeout: 1m, wait: { event: order.paid, correlation: input.order } }
    - { id: b, wait: { event: 'order.>.x', correlation: input.order } }
    - { id: c, wait: { correlation: input.order } }
",
    );

    let text = problems.join("\n");
    for part in ["`timeout` has no effect", "`event`"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let pattern = workflow_problems(
        "
workflow:
  name: order
  version: '1'
  tasks:
    - { id: b, wait: { event: 'order.>.x', correlation: input.order } }
",
    );
    assert!(pattern.join("\n").contains("no pattern of event types"), "{pattern:?}");
}

#[test]
fn a_task_names_the_queue_whose_workers_run_it() {
    let workflow = |queue: &str, work: &str| {
        format!(
            "workflow:\n  name: w\n  version: '1'\n  tasks:\n    - {{ id: a, queue: {queue}, {work} }}\n"
        )
    };

    let read = read_workflow(&workflow("gpu-2", "noop: {}"), None, &Limits::WRITTEN);
    assert_eq!(read.unwrap().into_plan().nodes[0].queue.as_deref(), Some("gpu-2"));
    for name in ["GPU", "'a.b'", "'*'", "-a", "''", &"q".repeat(33)] {
        let problems = workflow_problems(&workflow(name, "noop: {}"));
        assert!(problems[0].contains("is no name of a queue"), "{problems:?}");
    }
    for work in ["transform: '1'", "delay: 1s"] {
        let problems = workflow_problems(&workflow("gpu", work));
        assert!(problems[0].contains("no queue can have it"), "{problems:?}");
    }
}
