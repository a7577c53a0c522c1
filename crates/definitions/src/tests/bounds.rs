//! What is large, deep or made to hurt.

use std::time::Duration;

use fermata_test_clock::assert_within;

use super::*;
use crate::ITEMS_MAX;

/// For each document, of processor time.
const JUDGED_WITHIN: Duration = Duration::from_secs(1);

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
        let judged = || read_workflow(&source, None, &Limits::WRITTEN);
        let refused = assert_within(JUDGED_WITHIN, name, judged);

        let problems = refused.map(|_| ()).expect_err(name);
        assert!(!problems.is_empty() && problems.len() <= 200, "{name}: {problems:?}");
        assert!(report(&problems).len() < 100_000, "{name}");
    }
    let doubled = workflow_problems("workflow:\n  name: a\n  name: b\n");
    assert!(
        doubled[0].starts_with("3:3: ") && doubled[0].contains("`name` is there twice"),
        "{doubled:?}"
    );
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
    let built = |document| {
        let plan = build_plan(document).unwrap();
        (fermata_core::plan::analysis::analyse(&plan), plan)
    };

    for (count, limit) in [(1_000, Duration::from_millis(50)), (100_000, Duration::from_secs(3))] {
        let document = document(count);
        let name = format!("a workflow of {count} tasks");
        let (analysis, plan) = assert_within(limit, &name, || built(document.clone()));
        assert_eq!(plan.nodes.len(), count);
        assert!(analysis.critical_path.len() > 1);
    }
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

    let plan = read_workflow(&source, None, &Limits::GENERATED).unwrap().into_plan();

    assert_eq!(plan.nodes.len(), 100_000);
    assert!(read_workflow(&source, None, &Limits::WRITTEN).is_err());
}

/// The dearest that the bounds of generated documents let through, and what exceeds them.
#[test]
fn the_largest_documents_are_judged_in_a_second() {
    let tasks = "workflow:\n  name: a\n  version: '1'\n  tasks:\n";
    let lists = |of: &str, each: usize| format!("- [{}]\n", of.repeat(each)).repeat(40);
    for (name, source) in [
        ("keys", (0..900_000).map(|key| format!("k{key}: 1\n")).collect::<String>()),
        ("keys of many mappings", {
            let keys = (0..12_000).map(|key| format!("k{key}: 1, ")).collect::<String>();
            format!("- {{{keys}}}\n").repeat(40)
        }),
        ("tasks", {
            let each = (0..400_000).map(|task| format!("    - {{ id: n{task}, noop: {{}} }}\n"));
            tasks.to_owned() + &each.collect::<String>()
        }),
        ("numbers", lists("1, ", 24_000)),
        ("texts", lists("'a b', ", 24_000)),
        ("empty lists", lists("[],", 24_000)),
        ("too many numbers", lists("1,", 90_000)),
    ] {
        let judged = || read_workflow(&source, None, &Limits::GENERATED);
        let refused = assert_within(JUDGED_WITHIN, name, judged);

        assert!(refused.is_err(), "{name}");
    }
}

#[test]
fn what_is_longer_than_any_list_or_mapping_is_refused_at_that_length() {
    let list = |length: usize| format!("workflow:\n  - [{}]\n", "1,".repeat(length));
    let keys = |length: usize| (0..length).map(|key| format!("k{key}: 1\n")).collect::<String>();
    let told = |source: &str| {
        let problems = read_workflow(source, None, &Limits::GENERATED).expect_err("refused");
        report(&problems)
    };

    for (source, bound) in [
        (list(ITEMS_MAX + 1), "a list has at most 100000 values"),
        (keys(ITEMS_MAX + 1), "a mapping has at most 100000 keys"),
        ("- [1, 2]\n".repeat(ITEMS_MAX + 1), "a list has at most 100000 values"),
    ] {
        let told = told(&source);
        assert!(told.contains(bound) && told.lines().count() == 1, "{told}");
    }
    assert!(!told(&list(ITEMS_MAX)).contains("at most"), "a list may be that long");
    assert!(!told(&keys(ITEMS_MAX)).contains("at most"), "a mapping may have that many keys");
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

            for problem in read_workflow(&source, None, &Limits::WRITTEN).err().unwrap_or_default().listed {
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
fn what_nests_too_deep_is_told_with_the_limit_and_what_to_do() {
    let deep =
        |open: &str, close: &str| format!("workflow: {}1{}", open.repeat(80), close.repeat(80));
    let block: String = (0..80).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();

    for source in [deep("[", "]"), deep("{a: ", "}"), block] {
        let found = workflow_problems(&source);

        let [problem] = &found[..] else { panic!("{found:?}") };
        assert!(problem.contains("nests deeper than 64 levels (is a bracket"), "{problem}");
    }
}

#[test]
fn problems_that_are_not_listed_are_counted_each_once() {
    let tasks: String =
        (0..3_000).map(|at| format!("    - {{ id: t{at}, paht: {at} }}\n")).collect();
    let workflow = format!("workflow:\n  name: w\n  version: '1'\n  tasks:\n{tasks}");
    let strategies: String = (0..3_000)
        .map(|at| {
            let rest = "version: 1, tenant: acme, on: a, action: ignore, wieght: 1";
            format!("  - {{ name: s{at}, {rest} }}\n")
        })
        .collect();

    let of_workflow = read_workflow(&workflow, None, &Limits::GENERATED).unwrap_err();
    let strategies = format!("strategies:\n{strategies}");
    let of_strategies = read_strategies(&strategies, None, &Limits::GENERATED).unwrap_err();

    // Of each task its key, and that it does nothing; of each strategy its key.
    assert_eq!((of_workflow.len(), of_workflow.left_out), (200, 5_800));
    assert_eq!((of_strategies.len(), of_strategies.left_out), (200, 2_800));
    let few = read_workflow("workflow: {}", None, &Limits::WRITTEN).unwrap_err();
    assert_eq!((few.len(), few.left_out), (3, 0), "{few:?}");
}
