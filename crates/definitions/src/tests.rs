//! What people write, right and wrong.

use std::time::Duration;

use crate::{
    Expectation, Limits, Problem, TaskDocument, WorkflowDocument, build, build_plan,
    read_strategies, read_strategies_document, read_workflow, report,
};
use fermata_core::plan::{FailureClass, Join, RetryPolicy, Work};
use fermata_core::strategy::Action;
use serde_json::json;

/// Processor time of this thread so far: what other processes take does not count.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("no negative time")
}

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/");

fn example(name: &str) -> String {
    std::fs::read_to_string(format!("{EXAMPLES}{name}")).unwrap()
}

/// Problems as `line:column path: message (hint)`.
fn lines(problems: Vec<Problem>) -> Vec<String> {
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
            "8:31: workflow.tasks[2].transform: `taks` is not known here (a workflow's expressions see `input`, `tasks` and `event`)",
        ]
    );
}

#[test]
fn a_bad_strategy_is_told_with_its_place() {
    let shape = "
strategies:
  - name: one
    version: 0.5
    tenant: acme
    on: a.b
    canary: 5
    action: drop
  - name: two
    version: 1
    tenant: acme
    on: a.b
    wieght: 3
    fan_out: on
";
    assert_eq!(
        strategy_problems(shape),
        [
            "4:14: strategies[0].version: expected a whole number in range, found a number",
            "7:5: strategies[0].canary: `canary` has no effect yet (apply the strategy when it is ready)",
            "8:13: strategies[0].action: expected `ignore` (`ignore`, or leave it out and name a `workflow`)",
            "9:5: strategies[1]: the strategy does nothing (name a `workflow`, or write `action: ignore`)",
            "13:5: strategies[1].wieght: `wieght` is not known here (did you mean `weight`?)",
            "14:14: strategies[1].fan_out: expected true or false, found a text (write `true` or `false`)",
        ]
    );

    let meaning = "
strategies:
  - name: one
    version: 1
    tenant: a.c
    on: a..b
    when: event.data.x >
    workflow: { name: a, version: '1' }
    variables: { x: input.y, y: 'now()' }
";
    let problems = strategy_problems(meaning);
    for (problem, start) in problems.iter().zip([
        "5:13: strategies[0].tenant: `a.c`",
        "6:9: strategies[0].on: `a..b`",
        "7:25: strategies[0].when: the expression does not compile",
        "9:21: strategies[0].variables.x: `input` is not known here",
        "9:34: strategies[0].variables.y: the expression does not compile",
    ]) {
        assert!(problem.starts_with(start), "{start}\n{problem}");
    }
    assert_eq!(problems.len(), 5, "{problems:?}");
}

#[test]
fn what_is_wrong_with_an_event_pattern_is_told_with_its_place() {
    let source = r#"
strategies:
  - name: one
    version: 1
    tenant: acme
    on: a.b
    match:
      source: /plugins
      data:
        status: [done, { prefx: fail }]
        amount: [{ numeric: [">", 10, "<", 5] }]
        $or:
          - { a: [1] }
          - { b: { exists: true } }
    action: ignore
"#;

    assert_eq!(
        strategy_problems(source),
        [
            "8:15: strategies[0].match.source: expected a list of values, found a text (put it into brackets: `[\"/plugins\"]`)",
            "10:33: strategies[0].match.data.status[1].prefx: `prefx` is no operator (known are `prefix`, `suffix`, `wildcard`, `exists`, `anything-but`, `numeric`, `cidr` and `equals-ignore-case`)",
            "11:29: strategies[0].match.data.amount[0].numeric: no number is in this range",
            "14:18: strategies[0].match.data.$or[1].b: `exists` stands where a field's name is expected (put it into a list: `[{ exists: … }]`)",
        ]
    );
}

#[test]
fn tests_stand_beside_strategies_or_in_a_document_of_their_own() {
    let source = "
tests:
  - name: a failed job is looked into
    event: { type: job.failed, id: '7', data: { status: failed } }
    expect: { start: look, variables: { job: 7 } }
  - name: others are not
    tenant: acme
    event: { type: job.failed }
    expect: unmatched
  - name: both
    event: { type: a }
    expect: { start: [a, b] }
  - name: a heartbeat is ignored
    event: { type: a }
    expect: { ignored: heartbeats }
";
    let document = read_strategies_document(source, None, &Limits::WRITTEN)
        .unwrap_or_else(|problems| panic!("{}", report(&problems)));

    let [looked, others, both, heartbeat] = document.tests.as_slice() else { panic!() };
    assert_eq!((looked.tenant.as_str(), looked.line), ("test", 3));
    assert_eq!(
        looked.event,
        json!({
            "specversion": "1.0", "id": "7", "source": "/test", "type": "job.failed",
            "data": { "status": "failed" },
        })
    );
    let variables = Some(json!({ "job": 7 }));
    let start = Expectation::Start { strategies: vec!["look".to_owned()], variables };
    assert_eq!(looked.expect, start);
    assert_eq!((others.tenant.as_str(), &others.expect), ("acme", &Expectation::Unmatched));
    let strategies = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(both.expect, Expectation::Start { strategies, variables: None });
    assert_eq!(heartbeat.expect, Expectation::Ignored("heartbeats".to_owned()));
    assert!(document.strategies.is_empty());
}

#[test]
fn everything_that_is_wrong_with_tests_is_told() {
    let source = "
tests:
  - name: one
    tenant: '*'
    event: { id: '1' }
    expect: unmached
  - event: 7
    expect: { start: [], ignored: a }
  - name: two
    event: { type: a }
    expect: { start: [] }
  - name: three
    event: { type: a }
    expect: { start: [a, b], variables: {} }
  - name: four
    event: { type: a }
    expect: { ignored: a, varables: {} }
";
    assert_eq!(
        strategy_problems(source),
        [
            "4:13: tests[0].tenant: an event belongs to one tenant; this is no name of one",
            "5:12: tests[0].event: `type` is missing (the other attributes may be left out)",
            "6:13: tests[0].expect: this is no outcome of an event (did you mean `unmatched`?)",
            "7:5: tests[1]: `name` is missing",
            "7:12: tests[1].event: expected a mapping: the event, found a number",
            "8:13: tests[1].expect: expected one outcome (write `unmatched`, `rejected`, or one of `start`, `ignored` and `failed` with the names of strategies)",
            "11:22: tests[2].expect.start: nothing is to start (write `unmatched`, or `ignored` with a strategy)",
            "14:30: tests[3].expect.variables: `variables` are those of one run; expect one strategy to start",
            "17:27: tests[4].expect.varables: `varables` is not known here (did you mean `variables`?)",
        ]
    );
    assert_eq!(strategy_problems("{}\n"), ["1:1: `strategies` is missing"]);
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
fn hostile_documents_are_refused_in_no_time() {
    let task = "workflow:\n  name: a\n  version: '1'\n  tasks:\n    - id: x\n      noop: {}\n";
    let laughs = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n\
                  c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: [*c,*c,*c,*c,*c,*c,*c,*c,*c]\n";
    let many = format!("workflow: [{}]", "1,".repeat(100_000));
    for (name, source) in [
        ("laughs", laughs.to_owned()),
        ("flow depth", "[".repeat(10_000)),
        (
            "block depth",
            (0..10_000).map(|depth| format!("{}a:\n", " ".repeat(depth % 2_000))).collect(),
        ),
        ("open maps", "{a: ".repeat(10_000)),
        ("dashes", "- ".repeat(20_000)),
        ("large", format!("{task}  description: '{}'\n", "x".repeat(10 * 1_024 * 1_024))),
        ("many", many),
        ("doubled", "workflow:\n  name: a\n  name: b\n".to_owned()),
        ("merged", "workflow:\n  <<: {name: a}\n".to_owned()),
        ("two", "workflow: {}\n---\nworkflow: {}\n".to_owned()),
        ("tagged", "workflow: !!binary aGVsbG8=\n".to_owned()),
        ("recursive", "workflow: &a [*a]\n".to_owned()),
        ("infinite", "workflow: { name: .inf }\n".to_owned()),
        ("empty", String::new()),
        ("nul", "\u{0}".to_owned()),
        ("tab", "workflow:\n\tname: a\n".to_owned()),
        ("question", "? [a]\n: b\n".to_owned()),
        ("scalar", "workflow".to_owned()),
        ("percent", "%YAML 9.9\n---\nworkflow: {}\n".to_owned()),
    ] {
        let started = processor_time();
        let refused = read_workflow(&source, None, &Limits::WRITTEN);
        let took = processor_time() - started;

        let problems = refused.map(|_| ()).expect_err(name);
        assert!(!problems.is_empty() && problems.len() <= 200, "{name}: {problems:?}");
        assert!(took < Duration::from_secs(1), "{name}: {took:?}");
        assert!(report(&problems).len() < 100_000, "{name}");
    }
    let doubled = workflow_problems("workflow:\n  name: a\n  name: b\n");
    assert!(doubled[0].starts_with("3:3: ") && doubled[0].contains("name"), "{doubled:?}");
    let aliases = workflow_problems("workflow: &a {}\nother: *a\n");
    assert!(aliases[0].contains("not allowed"), "{aliases:?}");
}

#[test]
fn a_generated_document_of_many_tasks_is_planned_quickly() {
    let tasks = (0..100_000_u32).map(|index| {
        let task = TaskDocument::new(format!("n{index}"), Work::Noop);
        match index {
            0 => task,
            _ => task.after([format!("n{}", (index - 1) / 2)]),
        }
    });
    let document = |count: usize| WorkflowDocument {
        name: "wide".to_owned(),
        version: "1".to_owned(),
        input: None,
        tasks: tasks.clone().take(count).collect(),
        run_timeout_ms: 1_000,
    };
    let time = |count| {
        let document = document(count);
        let started = processor_time();
        let plan = build_plan(document).unwrap();
        let analysis = fermata_core::plan::analysis::analyse(&plan);
        assert_eq!(plan.nodes.len(), count);
        assert!(analysis.critical_path.len() > 1);
        processor_time() - started
    };

    let (thousand, all) = (time(1_000), time(100_000));

    println!("1,000 tasks: {thousand:?}; 100,000 tasks: {all:?}");
    // Five and one, with room for a busy machine.
    assert!(thousand < Duration::from_millis(50), "{thousand:?}");
    assert!(all < Duration::from_secs(3), "{all:?}");
    let mut large = document(100_000);
    large.tasks.push(TaskDocument::new("more", Work::Noop));
    assert!(build(large).is_err());
}

#[test]
fn a_generated_file_of_many_tasks_is_read() {
    use std::fmt::Write as _;
    let mut source = "workflow:\n  name: a\n  version: '1'\n  tasks:\n".to_owned();
    for index in 0..100_000_u32 {
        let after = index.checked_sub(1).map(|before| format!("n{before}")).unwrap_or_default();
        writeln!(source, "    - {{ id: n{index}, depends_on: [{after}], noop: {{}} }}").unwrap();
    }

    let started = processor_time();
    let plan = read_workflow(&source, None, &Limits::GENERATED).unwrap().into_plan();

    println!("{} bytes: {:?}", source.len(), processor_time() - started);
    assert_eq!(plan.nodes.len(), 100_000);
    assert!(read_workflow(&source, None, &Limits::WRITTEN).is_err());
}

mod laws {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_document_makes_the_readers_panic(source in "[a-z:{}\\[\\]\\-\"'|>&*! \n#?,~0-9]{0,200}") {
            let _ = read_workflow(&source, None, &Limits::WRITTEN);
            let _ = read_strategies(&source, None, &Limits::WRITTEN);
        }

        /// An example with one character changed is read or refused, and what
        /// is refused has a place inside of the text.
        #[test]
        fn a_slip_in_an_example_is_read_or_told_with_its_place(
            at in 0_usize..2_400, with in "[a-z:{}\\[\\]\"'\n -]",
        ) {
            let mut source = example("report.workflow.yaml");
            if source.is_char_boundary(at.min(source.len())) && source.is_char_boundary((at + 1).min(source.len())) {
                source.replace_range(at.min(source.len())..(at + 1).min(source.len()), &with);
            }
            let lines = u32::try_from(source.lines().count()).unwrap() + 1;

            for problem in read_workflow(&source, None, &Limits::WRITTEN).err().unwrap_or_default() {
                prop_assert!((1..=lines).contains(&problem.line), "{problem}");
            }
        }

        /// Dependencies at random: a plan exists exactly when there is no cycle,
        /// and its order is topological.
        #[test]
        fn an_acyclic_document_becomes_a_plan_in_topological_order(
            lists in prop::collection::vec(prop::collection::btree_set(0_usize..12, 0..3), 1..12),
        ) {
            let count = lists.len();
            let tasks: Vec<_> = lists.iter().enumerate().map(|(at, list)| {
                let after = list.iter().filter(|to| **to < count && **to != at);
                TaskDocument::new(format!("n{at}"), Work::Noop).after(after.map(|to| format!("n{to}")))
            }).collect();
            let document = WorkflowDocument {
                name: "a".to_owned(), version: "1".to_owned(), input: None, tasks: tasks.clone(), run_timeout_ms: 1,
            };

            match build(document) {
                Ok(executable) => for task in &tasks {
                    for before in &task.depends_on {
                        prop_assert!(executable.find(before) < executable.find(&task.id));
                    }
                },
                Err(problems) => {
                    prop_assert_eq!(problems.len(), 1);
                    prop_assert!(problems[0].message.starts_with("these tasks wait for each other"));
                }
            }
        }
    }
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
