use std::time::Duration;

use fermata_test_clock::assert_within;
use proptest::prelude::*;

use super::*;
use crate::json::Json;
use crate::plan::testing::{noop_plan, noop_plan_of};
use crate::plan::{Completion, FailureClass, RetryPolicy, Work};

fn transform(value: &str) -> Work {
    Work::Transform { value: value.to_owned() }
}

fn problems(plan: Plan) -> Vec<String> {
    let problems = Executable::new(plan).expect_err("the plan was taken");
    problems
        .into_iter()
        .map(|problem| {
            let node = problem.node.map_or("-".to_owned(), |node| node.to_string());
            format!("{node} {}: {}", problem.field, problem.message)
        })
        .collect()
}

#[test]
fn a_sound_plan_gives_its_parts_by_index_and_by_id() {
    let mut plan = noop_plan_of(&[&[], &[0], &[0, 1]]);
    plan.nodes[1].when = Some("input.go".to_owned());
    plan.nodes[2].work = transform("tasks.n1.output");

    let executable = Executable::new(plan.clone()).unwrap();

    assert_eq!(executable.plan(), &plan);
    assert_eq!(executable.find("n2"), Some(2));
    assert_eq!(executable.find("n3"), None);
    assert_eq!(executable.roots(), [0]);
    assert_eq!(executable.guard(1).map(Expression::source), Some("input.go"));
    assert_eq!(executable.value(2).map(Expression::source), Some("tasks.n1.output"));
    assert!(executable.guard(0).is_none() && executable.value(9).is_none());
    assert_eq!(executable.node(1).map(|node| &*node.id), Some("n1"));
}

#[test]
fn a_plan_survives_being_stored() {
    let mut plan = noop_plan(5);
    plan.input_schema = Some(Json::from_text(r#"{"type":"object"}"#).unwrap());
    plan.nodes[3].work = Work::Http {
        plugin: "store".to_owned(),
        path: "/run".to_owned(),
        body: "input".to_owned(),
        idempotent: true,
        completion: Completion::Answer,
    };
    plan.nodes[3].retry = RetryPolicy::exponential_backoff();

    let stored = serde_json::to_string(&plan).unwrap();
    let mut foreign: serde_json::Value = serde_json::from_str(&stored).unwrap();
    foreign["nodes"][0]["surprise"] = true.into();

    assert_eq!(serde_json::from_str::<Plan>(&stored).unwrap(), plan);
    assert!(serde_json::from_value::<Plan>(foreign).is_err());
}

#[test]
fn everything_that_is_wrong_is_named_at_once() {
    let mut plan = noop_plan_of(&[&[], &[0], &[1], &[]]);
    plan.version = 2;
    plan.workflow = "no name".into();
    plan.run_timeout_ms = 0;
    plan.input_schema = Some(Json::from_text(r#"{"oneOf":[]}"#).unwrap());
    plan.nodes[1].id = "n0".into();
    plan.nodes[1].timeout_ms = 0;
    plan.nodes[2].id = "Upper".into();
    plan.nodes[2].retry =
        RetryPolicy { max_attempts: 0, factor_permille: 1, ..RetryPolicy::none() };
    plan.nodes[3].work = Work::Http {
        plugin: String::new(),
        path: "//evil/../x".to_owned(),
        body: "input.".to_owned(),
        idempotent: true,
        completion: Completion::Answer,
    };

    let problems = problems(plan).join("\n");

    for part in [
        "- version: plan version 2",
        "- name: `no name` is no name",
        "- run_timeout:",
        "- input: `oneOf` has no effect yet",
        "1 id: there is another task `n0`",
        "1 timeout:",
        "2 id: `Upper` is no task id",
        "2 retry: `max_attempts`",
        "2 retry: `factor`",
        "3 http.plugin:",
        "3 http.path:",
        "3 http.body:",
    ] {
        assert!(problems.contains(part), "{part} is missing in\n{problems}");
    }
}

#[test]
fn an_event_that_no_run_sees_is_refused_of_a_writer_and_taken_from_the_store() {
    let mut plan = noop_plan(1);
    plan.nodes[0].work = transform("event.data.n + input.n");

    assert!(Executable::new(plan.clone()).is_ok());
    let refused = Executable::written(plan.clone()).unwrap_err();
    assert_eq!(refused[0].message, "`event` is not known here");
    assert!(refused[0].hint.as_deref().is_some_and(|hint| hint.contains("`variables`")));
    assert_eq!(Executable::problems(&plan, &[]), refused);
    plan.nodes[0].work = transform("evnt.data.n");
    assert!(Executable::new(plan).is_err());
}

#[test]
fn edges_that_do_not_fit_are_refused() {
    let broken: [fn(&mut Plan); 8] = [
        |plan| plan.nodes[1].predecessors = vec![1],
        |plan| plan.nodes[0].predecessors = vec![1],
        |plan| plan.nodes[1].predecessors = vec![],
        |plan| plan.nodes[2].predecessors = vec![1, 0],
        |plan| plan.nodes[2].predecessors = vec![0, 0],
        |plan| plan.nodes[0].successors = vec![1, 2, 9],
        |plan| plan.nodes[0].successors = vec![2, 1],
        |plan| plan.nodes[2].predecessors = vec![0, u32::MAX],
    ];
    for (number, breaking) in broken.into_iter().enumerate() {
        let mut plan = noop_plan_of(&[&[], &[0], &[0, 1]]);
        breaking(&mut plan);

        assert!(Executable::new(plan).is_err(), "{number}");
    }
    let mut empty = noop_plan(1);
    empty.nodes.clear();
    assert_eq!(problems(empty), ["- tasks: a plan has 1 to 100000 tasks, not 0"]);
}

#[test]
fn an_expression_mentions_only_tasks_that_have_ended() {
    // 0 → 1 → 2, and 3 beside them.
    let mut plan = noop_plan_of(&[&[], &[0], &[1], &[]]);
    plan.nodes[0].id = "notify-owner".into();
    plan.nodes[2].when = Some("tasks['notify-owner'].ok && tasks.n3.ok".to_owned());
    plan.nodes[2].work = transform("tasks.notify-owner.output");
    plan.nodes[1].work = transform("tasks.n1.output");
    plan.nodes[3].work = transform("[tasks, secrets.key, tasks.n9]");

    let problems = problems(plan);

    assert_eq!(
        problems,
        [
            "1 transform: `n1` mentions its own output, which does not exist yet",
            "2 transform: `owner` is not known here",
            "2 transform: `tasks.notify` is mentioned, but there is no task `notify`",
            "2 when: `tasks.n3` is mentioned, but `n3` need not have ended before `n2`",
            "3 transform: `secrets` is not known here",
            "3 transform: `tasks` is mentioned without a task",
            "3 transform: `tasks.n9` is mentioned, but there is no task `n9`",
        ]
    );
}

#[test]
fn far_mentions_are_followed_through_more_than_one_word() {
    let chain: Vec<Vec<NodeIndex>> =
        (0..200).map(|index: NodeIndex| index.checked_sub(1).into_iter().collect()).collect();
    let mut plan = noop_plan_of(&chain.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let all: Vec<_> = (0..199).map(|index| format!("tasks.n{index}.ok")).collect();
    plan.nodes[199].work = transform(&format!("[{}]", all[..150].join(", ")));
    assert!(Executable::new(plan.clone()).is_ok());

    plan.nodes[10].work = transform("tasks.n150");
    assert_eq!(problems(plan).len(), 1);
}

#[test]
fn a_large_plan_is_checked_in_linear_time() {
    let plan_of = |size| {
        let mut plan = noop_plan(size);
        for (index, node) in plan.nodes.iter_mut().enumerate().skip(1) {
            node.when = Some(format!("input.n > {}", index % 100));
            node.work = transform(&format!("tasks.n{}.output", index - 1));
        }
        plan
    };
    for (size, limit) in [(1_000, Duration::from_millis(50)), (100_000, Duration::from_secs(3))] {
        let plan = plan_of(size);
        let name = format!("the check of {size} tasks");
        let analysis = assert_within(limit, &name, || {
            let executable = Executable::new(plan.clone()).unwrap();
            crate::plan::analysis::analyse(executable.plan())
        });
        assert_eq!(analysis.layers.len(), size as usize);
    }
}

proptest! {
    #[test]
    fn no_stored_plan_makes_the_check_panic(
        lists in prop::collection::vec(
            (prop::collection::vec(0_u32..8, 0..4), prop::collection::vec(0_u32..8, 0..4)),
            0..8,
        ),
        id in "[a-zé]{0,3}", when in "\\PC{0,12}", timeout_ms: u64,
    ) {
        let mut plan = noop_plan(1);
        let node = plan.nodes.remove(0);
        for (predecessors, successors) in lists {
            plan.nodes.push(PlanNode {
                id: format!("{id}{}", plan.nodes.len()).into(),
                predecessors,
                successors,
                when: Some(when.clone()),
                timeout_ms,
                retry: RetryPolicy { on: vec![FailureClass::Timeout], ..RetryPolicy::none() },
                queue: None,
                ..node.clone()
            });
        }

        let _ = Executable::new(plan.clone());
        let _ = crate::plan::analysis::analyse(&plan);
    }

    #[test]
    fn every_graph_that_points_backwards_is_taken(
        lists in prop::collection::vec(prop::collection::btree_set(0_u32..20, 0..4), 1..20),
    ) {
        let lists: Vec<Vec<NodeIndex>> = lists
            .into_iter()
            .zip(0_u32..)
            .map(|(list, index)| list.into_iter().filter(|at| *at < index).collect())
            .collect();
        let plan = noop_plan_of(&lists.iter().map(Vec::as_slice).collect::<Vec<_>>());

        prop_assert!(Executable::new(plan).is_ok());
    }
}
