//! Strategies and their tests, right and wrong.

use super::*;

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
fn the_expressions_of_sound_strategies_are_checked_whatever_the_others_are_like() {
    let source = "
strategies:
  - { name: unfinished, tenant: acme, on: a.b, action: ignore }
  - { name: one, version: 1, tenant: acme, on: a.b, when: 'event.data.x >', action: ignore }
  - { name: misspelt, version: 1, tenant: acme, on: a.b, wehn: 'true', action: ignore }
  - { name: two, version: 1, tenant: acme, on: a.b, when: 'input.x', action: ignore }
  - { name: one, version: 1, tenant: acme, on: a.b, action: ignore }
";
    let problems = strategy_problems(source);

    for (problem, start) in problems.iter().zip([
        "3:5: strategies[0]: `version` is missing",
        "4:74: strategies[1].when: the expression does not compile",
        "5:58: strategies[2].wehn: `wehn` is not known here",
        "6:59: strategies[3].when: `input` is not known here",
        "7:13: strategies[4].name: the name is already taken by definition 1 (from 0)",
    ]) {
        assert!(problem.starts_with(start), "{start}\n{problem}");
    }
    assert_eq!(problems.len(), 5, "{problems:#?}");
}

#[test]
fn what_can_be_read_of_a_strategy_is_checked_whatever_is_missing_of_it() {
    let source = "
strategies:
  - { name: one, on: a.b, match: { source: x }, when: 'event.data.x >', action: ignore }
  - { version: 1, tenant: a.c, on: a.b, fan_out: true, variables: { x: [], y: 'input.x' } }
  - { name: one, version: 1, tenant: acme, on: a..b, workflow: { name: w }, variables: { x: '1 +' } }
";
    let problems = strategy_problems(source);

    for (problem, start) in problems.iter().zip([
        "3:5: strategies[0]: `version` is missing",
        "3:5: strategies[0]: `tenant` is missing",
        "3:44: strategies[0].match.source: expected a list of values",
        "3:70: strategies[0].when: the expression does not compile",
        "4:5: strategies[1]: `name` is missing",
        "4:5: strategies[1]: the strategy does nothing",
        "4:27: strategies[1].tenant: `a.c` is not a tenant name",
        "4:79: strategies[1].variables.y: `input` is not known here",
        "5:48: strategies[2].on: `a..b` is not a type pattern",
        "5:64: strategies[2].workflow: `version` is missing",
        "5:97: strategies[2].variables.x: the expression does not compile",
    ]) {
        assert!(problem.starts_with(start), "{start}\n{problem}");
    }
    assert_eq!(problems.len(), 11, "{problems:#?}");
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
