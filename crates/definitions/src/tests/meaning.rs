//! What can be read and cannot be meant.

use super::workflow_problems;
use crate::{Limits, read_workflow};

#[test]
fn a_workflow_that_mentions_the_event_is_told_how_its_data_get_there() {
    let problems = workflow_problems(
        "
workflow:
  name: a
  version: '1'
  tasks:
    - { id: one, transform: 'event.data.x' }
    - { id: two, wait: { event: a.b, correlation: event.id } }
",
    );

    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].contains("tasks[0].transform: `event` is not known here"), "{problems:?}");
    assert!(problems[0].contains("the strategy's `variables` pass as `input`"), "{problems:?}");
    assert!(problems[1].contains("correlation: `event` is not known here"), "{problems:?}");
}

#[test]
fn retries_that_cannot_be_as_they_are_written_are_refused() {
    let problems = workflow_problems(
        "
workflow:
  name: a
  version: '1'
  tasks:
    - { id: one, noop: {}, retry: { max_attempts: 3, initial: 40m, max: 10s } }
    - { id: two, noop: {}, retry: { max_attempts: 3, initial: 1m } }
    - { id: three, noop: {}, retry: { max_attempts: 3, on: [] } }
    - { id: four, noop: {}, retry: { max_attempts: 3, initial: 30s } }
    - { id: five, noop: {}, retry: { max_attempts: 3, max: 1ms } }
",
    );

    assert_eq!(problems.len(), 3, "{problems:?}");
    for (problem, path) in problems.iter().zip(["[0].retry.initial", "[1].retry.initial"]) {
        assert!(problem.contains(path) && problem.contains("longer than `max`"), "{problem}");
    }
    assert!(problems[2].contains("[2].retry.on: the list is empty"), "{problems:?}");
}

#[test]
fn a_file_with_two_documents_is_told_that_it_holds_one() {
    let one = "workflow: { name: a, version: '1', tasks: [{ id: a, noop: {} }] }\n";

    let problems = workflow_problems(&format!("{one}---\n{one}"));

    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("more than one YAML document (`---`)"), "{problems:?}");
}

#[test]
fn words_of_other_languages_are_answered_with_those_of_this_one() {
    let guarded = |when: &str| {
        format!(
            "workflow: {{ name: a, version: '1', tasks: [{{ id: a, when: \"{when}\", noop: {{}} }}] }}"
        )
    };
    let of = |when: &str| workflow_problems(&guarded(when));

    for (when, told) in [
        ("input.x = 1", "`=` is no operator; compare with `==`"),
        ("input.x == 1 and input.y", "`and` is no operator; write `&&`"),
        ("input.x or input.y", "`or` is no operator; write `||`"),
        ("not input.x", "`not` is no operator; write `!`"),
        ("input.x AND 'a = b'", "`AND` is no operator; write `&&`"),
    ] {
        let problems = of(when);
        assert!(problems.len() == 1 && problems[0].contains(told), "{when}: {problems:?}");
    }
    for when in ["input.x == 'a and b = c' &&", "input.and >= input.or <="] {
        assert!(of(when)[0].contains("the expression is not finished"), "{:?}", of(when));
    }
    let sound = guarded("input.and != input.not");
    assert!(read_workflow(&sound, None, &Limits::WRITTEN).is_ok());
}
