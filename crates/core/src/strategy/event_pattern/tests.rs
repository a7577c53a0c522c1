use serde_json::{Value, json};

use super::super::tests::{Summary, compile, definition, run, summary, with_event};
use super::super::{StrategyDefinition, StrategyProblem, StrategyProblemKind, StrategySet};
use super::*;
use crate::event::LIST_VALUES_MAX;

fn with_pattern(name: &str, pattern: Value) -> StrategyDefinition {
    // Without variables nothing but the pattern looks at the data.
    let action = run(Some(&[]));
    StrategyDefinition { pattern: Some(pattern), action, ..definition(name, "job.done") }
}

/// Whether an event of `acme` with these data matches.
fn matches(pattern: &Value, data: &str) -> bool {
    let set = compile(&[with_pattern("s", pattern.clone())]);
    with_event("7", "job.done", data, |event| {
        matches!(summary(&set.decide(event)), Summary::Start(_))
    })
}

/// Whether the field `x` of an event's data matches `[wanted]`.
fn field_matches(wanted: &Value, x: &str) -> bool {
    matches(&json!({ "data": { "x": [wanted] } }), &format!(r#"{{"x":{x}}}"#))
}

fn problems(pattern: Value) -> Vec<String> {
    let found = StrategySet::compile(vec![with_pattern("s", pattern)]).unwrap_err();
    let line = |problem: &StrategyProblem| {
        let hint = problem.kind.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
        format!("{}: {}{hint}", problem.field, problem.kind)
    };
    found.iter().map(line).collect()
}

#[test]
fn each_operator_means_what_the_syntax_says() {
    for (wanted, holds, does_not) in [
        (
            json!("a"),
            vec![r#""a""#, r#""\u0061""#, r#"["b","a"]"#],
            vec![r#""A""#, "1", "null", "{}"],
        ),
        (json!(""), vec![r#""""#], vec!["null", "[]"]),
        (json!(null), vec!["null", "[1,null]"], vec![r#""""#, "false", "{}"]),
        (json!(true), vec!["true"], vec!["false", r#""true""#]),
        (
            json!(100),
            vec!["100", "1e2", "100.0", "[1,[100]]"],
            vec![r#""100""#, "101", "100.0000001"],
        ),
        (json!(0), vec!["0", "-0", "0e5"], vec!["false", "null"]),
        (json!(9007199254740993_u64), vec!["9007199254740993"], vec!["9007199254740992"]),
        (json!(0.1), vec!["0.1", "1e-1"], vec!["0.1000000000000000000001"]),
        (
            json!({"prefix": "us-"}),
            vec![r#""us-east""#, r#""us-""#],
            vec![r#""US-east""#, r#""us""#, "7"],
        ),
        (json!({"prefix": {"equals-ignore-case": "Us-"}}), vec![r#""US-east""#], vec![r#""us""#]),
        (json!({"suffix": ".png"}), vec![r#""a.png""#, r#""é.png""#], vec![r#""a.PNG""#]),
        (json!({"suffix": {"equals-ignore-case": ".PNG"}}), vec![r#""a.png""#], vec![r#""a.pn""#]),
        (
            json!({"equals-ignore-case": "Ärger"}),
            vec![r#""äRGER""#],
            vec![r#""arger""#, r#""ärgern""#],
        ),
        (
            json!({"wildcard": "a*b*c"}),
            vec![r#""abc""#, r#""axbxbc""#],
            vec![r#""abcd""#, r#""ab""#],
        ),
        (json!({"wildcard": "*"}), vec![r#""""#, r#""x""#], vec!["1"]),
        (json!({"wildcard": r"a\*\\*"}), vec![r#""a*\\b""#], vec![r#""ab\\""#]),
        (json!({"wildcard": "ab*ba"}), vec![r#""abba""#], vec![r#""aba""#]),
        (json!({"wildcard": "plain"}), vec![r#""plain""#], vec![r#""plainer""#]),
        (
            json!({"numeric": [">", 0, "<=", 5]}),
            vec!["5", "0.1", "[9,3]"],
            vec!["0", "5.1", r#""3""#],
        ),
        (json!({"numeric": ["<", 10, ">=", -1]}), vec!["-1"], vec!["10", "-1.5"]),
        (json!({"numeric": ["=", 3.018e2]}), vec!["301.8"], vec!["301.80001"]),
        (json!({"numeric": [">", 1e300]}), vec!["1e999"], vec!["-1e999"]),
        (
            json!({"cidr": "10.0.0.0/24"}),
            vec![r#""10.0.0.255""#],
            vec![r#""10.0.1.0""#, r#""x""#, r#""::ffff:10.0.0.1""#],
        ),
        (json!({"cidr": "0.0.0.0/0"}), vec![r#""1.2.3.4""#], vec![r#""::1""#]),
        (
            json!({"cidr": "2001:db8::/32"}),
            vec![r#""2001:db8:7::1""#],
            vec![r#""2001:db9::1""#, "1"],
        ),
        (
            json!({"exists": true}),
            vec!["null", "0", r#""""#, "[[1]]"],
            vec!["{}", "[]", "[{}]", r#"{"y":1}"#],
        ),
        (json!({"exists": false}), vec!["{}", "[]", r#"{"y":1}"#], vec!["null", "0", "[1]"]),
        (
            json!({"anything-but": "a"}),
            vec![r#""b""#, "1", "null", r#"["a","b"]"#],
            vec![r#""a""#, r#"["a"]"#, "[]", "{}"],
        ),
        (json!({"anything-but": [1, "a"]}), vec!["2"], vec!["1.0", r#""a""#]),
        (json!({"anything-but": {"prefix": "a"}}), vec![r#""b""#, "1"], vec![r#""ab""#]),
        (json!({"anything-but": {"prefix": ["a", "b"]}}), vec![r#""c""#], vec![r#""bb""#]),
        (json!({"anything-but": {"suffix": "z"}}), vec![r#""a""#], vec![r#""az""#]),
        (json!({"anything-but": {"wildcard": "*/lib/*"}}), vec![r#""/x""#], vec![r#""/lib/x""#]),
        (json!({"anything-but": {"equals-ignore-case": "no"}}), vec![r#""yes""#], vec![r#""NO""#]),
    ] {
        for x in holds {
            assert!(field_matches(&wanted, x), "{wanted} should hold for {x}");
        }
        for x in does_not {
            assert!(!field_matches(&wanted, x), "{wanted} should not hold for {x}");
        }
    }
}

#[test]
fn values_are_alternatives_and_fields_belong_together() {
    let pattern = json!({ "data": { "a": ["x", { "numeric": [">", 5] }], "b": [true] } });

    assert!(matches(&pattern, r#"{"a":"x","b":true}"#));
    assert!(matches(&pattern, r#"{"b":true,"a":6,"c":0}"#));
    assert!(!matches(&pattern, r#"{"a":"x","b":false}"#));
    assert!(!matches(&pattern, r#"{"a":"x"}"#));
    assert!(!matches(&pattern, "null"));
    assert!(!matches(&pattern, "[]"));
}

#[test]
fn what_is_missing_matches_only_where_absence_is_asked_for() {
    let absent = json!({ "data": { "a": { "b": [{ "exists": false }, "x"] } } });

    for data in ["{}", "null", "7", "[]", r#"{"a":7}"#, r#"{"a":{}}"#, r#"{"a":{"b":"x"}}"#] {
        assert!(matches(&absent, data), "{data}");
    }
    assert!(!matches(&absent, r#"{"a":{"b":null}}"#));
    assert!(!matches(&json!({ "data": { "a": [null] } }), "{}"));
    assert!(!matches(&json!({ "data": { "a": [{ "anything-but": 1 }] } }), "{}"));
}

#[test]
fn fields_of_objects_in_a_list_must_match_in_one_of_them() {
    let both = json!({ "data": { "people": { "first": ["Anna"], "last": ["Smith"] } } });
    let people = |list: &str| format!(r#"{{"people":{list}}}"#);

    let together = people(r#"[[{"first":"Jo"},{"first":"Anna","last":"Smith"}]]"#);
    let apart = people(r#"[{"first":"Anna","last":"Jones"},{"first":"Jo","last":"Smith"}]"#);
    assert!(matches(&both, &together));
    assert!(!matches(&both, &apart));
    let absent =
        json!({ "data": { "people": { "first": ["Jo"], "last": [{ "exists": false }] } } });
    assert!(matches(&absent, &together));
    assert!(!matches(&absent, &apart));
}

#[test]
fn one_branch_of_an_or_is_enough() {
    let pattern = json!({
        "source": ["/s"],
        "data": { "$or": [{ "a": [1] }, { "b": [2], "c": { "d": [3] } }] },
        "$or": [{ "subject": [{ "exists": false }] }, { "type": ["other"] }],
    });

    assert!(matches(&pattern, r#"{"a":1}"#));
    assert!(matches(&pattern, r#"{"b":2,"c":{"d":3}}"#));
    assert!(!matches(&pattern, r#"{"b":2}"#));
}

#[test]
fn attributes_and_extensions_are_matched_by_the_names_of_the_event() {
    let text = r#"{"specversion":"1.0","id":"7","source":"/s","type":"job.done","subject":"a/b",
        "region":"eu","attempt":3,"dry":true,"correlationkey":"k","datacontenttype":"text/plain",
        "data_base64":"aGk="}"#;
    let matches = |pattern: Value| {
        let set = compile(&[with_pattern("s", pattern)]);
        let subject = crate::event::Subject { tenant: "acme", kind: "job.done" };
        let limits = crate::event::EventLimits::default();
        let events = crate::event::decode_message(None, text.as_bytes(), subject, &limits);
        matches!(summary(&set.decide(events[0].as_ref().unwrap())), Summary::Start(_))
    };

    for pattern in [
        json!({ "id": ["7"], "type": ["job.done"], "tenant": ["acme"] }),
        json!({ "subject": [{ "prefix": "a/" }], "region": ["us", "eu"] }),
        json!({ "attempt": [{ "numeric": [">", 2] }], "dry": [true] }),
        json!({ "correlationkey": ["k"], "data_base64": [{ "exists": true }] }),
        json!({ "data": [{ "exists": false }], "time": [{ "exists": false }] }),
    ] {
        assert!(matches(pattern.clone()), "{pattern}");
    }
    assert!(!matches(json!({ "attempt": ["3"] })));
    assert!(!matches(json!({ "tenant": ["beta"] })));
}

#[test]
fn of_keys_that_are_there_twice_the_last_counts() {
    let pattern = json!({ "data": { "a": ["x"] } });

    assert!(matches(&pattern, r#"{"a":"y","a":"x"}"#));
    assert!(!matches(&pattern, r#"{"a":"x","a":"y"}"#));
    assert!(!matches(&pattern, r#"{"a":"x","\u0061":{"b":1}}"#));
}

#[test]
fn text_that_no_value_can_hold_is_there_and_nothing_else() {
    let half = r#""\ud800""#;

    assert!(field_matches(&json!({"exists": true}), half));
    assert!(!field_matches(&json!({"exists": false}), half));
    assert!(!field_matches(&json!({"anything-but": "a"}), half));
    assert!(!field_matches(&json!({"wildcard": "*"}), half));
    // Elsewhere it disturbs nobody.
    let pattern = json!({ "data": { "a": ["x"] } });
    assert!(matches(&pattern, r#"{"\ud800":1,"b":"\ud800","a":"x"}"#));
}

#[test]
fn a_list_that_is_too_long_is_not_looked_into() {
    let list = |count: usize| format!("[{}]", vec!["1"; count].join(","));
    let one = json!(1);

    assert!(field_matches(&one, &list(LIST_VALUES_MAX)));
    assert!(!field_matches(&one, &list(LIST_VALUES_MAX + 1)));
    assert!(field_matches(&json!({"exists": true}), &list(LIST_VALUES_MAX + 1)));
    // What others look at does not count against this.
    let beside = json!({ "data": { "items": { "name": ["x"] } } });
    let tags = json!({ "data": { "items": { "tags": [2] } } });
    let set = compile(&[with_pattern("beside", beside), with_pattern("tags", tags)]);
    let data = format!(r#"{{"items":[{{"name":"x","tags":{}}}]}}"#, list(LIST_VALUES_MAX + 1));
    with_event("1", "job.done", &data, |event| {
        assert_eq!(summary(&set.decide(event)), Summary::Start(vec!["beside".to_owned()]));
    });
}

#[test]
fn a_condition_is_asked_only_of_what_the_pattern_matches() {
    let broken = StrategyDefinition {
        when: Some("event.data.missing == 1".to_owned()),
        ..with_pattern("s", json!({ "data": { "a": ["x"] } }))
    };
    let set = compile(&[broken]);
    let error = |data: &str| {
        with_event("1", "job.done", data, |event| {
            let super::super::Decision::Unmatched { near } = set.decide(event) else { panic!() };
            assert_eq!(near[0].strategy.name(), "s");
            near[0].error.clone()
        })
    };

    assert_eq!(error(r#"{"a":"y"}"#), None);
    assert!(error(r#"{"a":"x"}"#).unwrap().contains("missing"));
}

#[test]
fn every_problem_of_a_pattern_is_told_with_its_place() {
    let pattern = json!({
        "Source": ["a"],
        "detail": ["x"],
        "specversion": ["1.0"],
        "data.status": ["x"],
        "$and": [],
        "$or": [{ "source": ["a"] }],
        "subject": "a",
        "type": [],
        "region": { "prefix": "us" },
        "data": {
            "a": "x",
            "b": { "prefix": "x" },
            "c": { "numeric": [">", 1] },
            "d": {},
            "e": [["x"]],
            "f": [{ "prefx": "x" }],
            "g": [{ "prefix": "a", "suffix": "b" }],
            "h": [{ "prefix": "" }, { "prefix": 1 }],
            "i": [{ "wildcard": "a**" }, { "wildcard": "a\\b" }, { "wildcard": "*a*a*a*a*a*a*a*a*" }],
            "j": [{ "numeric": [">", 5, "<", 5] }, { "numeric": [">", "5"] }, { "numeric": 5 }],
            "k": [{ "numeric": [">", 1, ">", 2] }, { "numeric": ["=", 1, "<", 2] }, { "numeric": ["!=", 1] }],
            "l": [{ "cidr": "10.0.0.1/8" }, { "cidr": "10.0.0.0/33" }, { "cidr": "ten/8" }, { "cidr": "::1" }],
            "m": [{ "exists": "yes" }, { "anything-but": { "numeric": ["=", 1] } }, { "anything-but": [] }],
            "n": [0.12345678901234567],
            "$or": { "a": ["x"] },
        },
    });
    // `serde_json` sorts a mapping's keys.
    let expected = [
        "match.$and: `$and` is not an attribute of events (names with `$` are operators, and only `$or` is one)",
        "match.$or: `$or` has 1 branches; it needs 2 to 256",
        "match.Source: `Source` is not an attribute of events (attributes have 1 to 64 lower-case letters and digits; other fields are in `data`)",
        "match.data.$or: expected a list of mappings, found a mapping",
        "match.data.a: expected a list of values, found a text (put it into brackets: `[\"x\"]`)",
        "match.data.b: `prefix` stands where a field's name is expected (put it into a list: `[{ prefix: … }]`)",
        "match.data.c: `numeric` stands where a field's name is expected (put it into a list: `[{ numeric: … }]`)",
        "match.data.d: the pattern says nothing here (name a field, or leave this out; `exists` asks whether something is there)",
        "match.data.e[0]: expected a value, found a list (a value is a text, a number, true, false, null or an operator)",
        "match.data.f[0].prefx: `prefx` is no operator (known are `prefix`, `suffix`, `wildcard`, `exists`, `anything-but`, `numeric`, `cidr` and `equals-ignore-case`)",
        "match.data.g[0]: expected one operator, found 2 (known are `prefix`, `suffix`, `wildcard`, `exists`, `anything-but`, `numeric`, `cidr` and `equals-ignore-case`)",
        "match.data.h[0].prefix: `prefix` is empty (`exists: true` holds for every value)",
        "match.data.h[1].prefix: expected a text, found a number",
        "match.data.i[0].wildcard: two `*` in a row mean no more than one",
        "match.data.i[1].wildcard: a backslash can stand only before `*` or another backslash",
        "match.data.i[2].wildcard: the wildcard has 9 `*`, the limit is 8",
        "match.data.j[0].numeric: no number is in this range",
        "match.data.j[1].numeric: this is no comparison with numbers (write one comparison or two: `[\">\", 0]`, `[\">=\", 0, \"<\", 10]`)",
        "match.data.j[2].numeric: expected a list, found a number (write one comparison or two: `[\">\", 0]`, `[\">=\", 0, \"<\", 10]`)",
        "match.data.k[0].numeric: this is no comparison with numbers (write one comparison or two: `[\">\", 0]`, `[\">=\", 0, \"<\", 10]`)",
        "match.data.k[1].numeric: this is no comparison with numbers (write one comparison or two: `[\">\", 0]`, `[\">=\", 0, \"<\", 10]`)",
        "match.data.k[2].numeric: this is no comparison with numbers (write one comparison or two: `[\">\", 0]`, `[\">=\", 0, \"<\", 10]`)",
        "match.data.l[0].cidr: the address has bits set beyond its length 8 (did you mean `10.0.0.0/8`?)",
        "match.data.l[1].cidr: the length is no whole number up to 32 (write an address and a length: `10.0.0.0/8`, `2001:db8::/32`)",
        "match.data.l[2].cidr: the network does not begin with an IP address (write an address and a length: `10.0.0.0/8`, `2001:db8::/32`)",
        "match.data.l[3].cidr: the network has no length (write an address and a length: `10.0.0.0/8`, `2001:db8::/32`)",
        "match.data.m[0].exists: expected true or false, found a text",
        "match.data.m[1].anything-but.numeric: `numeric` cannot be negated (known here are `prefix`, `suffix`, `equals-ignore-case`, `wildcard`)",
        "match.data.m[2].anything-but: the list has 0 values; it needs 1 to 256",
        "match.data.n[0]: the number has more than 15 digits and is no integer of 64 bits (compare it in `when`, or send it as a text)",
        "match.data.status: `data.status` is not an attribute of events (nest it: `data: { field: [ … ] }`)",
        "match.detail: `detail` is not an attribute of events (the event's content is under `data`)",
        "match.region: `region` is an attribute, it has no fields (put the values into a list; fields are those of `data`)",
        "match.specversion: `specversion` is not an attribute of events (it is always 1.0)",
        "match.subject: expected a list of values, found a text (put it into brackets: `[\"a\"]`)",
        "match.type: the list has 0 values; it needs 1 to 256",
    ];

    assert_eq!(problems(pattern), expected);
    assert_eq!(problems(json!({})).len(), 1);
    assert_eq!(problems(json!(["a"])), ["match: expected a mapping of fields, found a list"]);
}

#[test]
fn limits_on_patterns_are_kept() {
    let nested = |levels: usize| (0..levels).fold(json!([1]), |inner, _| json!({ "a": inner }));
    let deep = |levels: usize| json!({ "data": nested(levels) });
    let wide = |count: usize| json!({ "data": { "a": vec!["x"; count] } });
    let fields = |count: usize| {
        let field = |number: usize| (format!("f{number}"), json!(vec!["x"; 64]));
        json!({ "data": (0..count).map(field).collect::<serde_json::Map<_, _>>() })
    };
    let text = |bytes: usize| json!({ "data": { "a": ["x".repeat(bytes)] } });
    let or = |count: usize| json!({ "$or": vec![json!({ "source": ["a"] }); count] });
    for (sound, broken) in [
        (deep(PATTERN_DEPTH_MAX - 1), deep(PATTERN_DEPTH_MAX)),
        (wide(PATTERN_ALTERNATIVES_MAX), wide(PATTERN_ALTERNATIVES_MAX + 1)),
        (or(PATTERN_ALTERNATIVES_MAX), or(PATTERN_ALTERNATIVES_MAX + 1)),
        (fields(PATTERN_VALUES_MAX / 64), fields(PATTERN_VALUES_MAX / 64 + 1)),
        (text(PATTERN_TEXT_BYTES_MAX), text(PATTERN_TEXT_BYTES_MAX + 1)),
    ] {
        assert!(StrategySet::compile(vec![with_pattern("s", sound)]).is_ok());
        assert_eq!(problems(broken).len(), 1);
    }
}

#[test]
fn too_many_strategies_that_no_index_finds_are_refused_with_their_score() {
    let tried = |number: usize| {
        let pattern = json!({ "data": { "a": [{ "anything-but": number }] } });
        StrategyDefinition {
            when: Some("true".to_owned()),
            ..with_pattern(&format!("s{number}"), pattern)
        }
    };
    let found = |number: usize| {
        let pattern = json!({ "data": { "a": [number], "b": [{ "anything-but": 1 }] } });
        with_pattern(&format!("f{number}"), pattern)
    };
    let cheap: Vec<_> = (0..10_000).map(found).chain((0..61).map(tried)).collect();
    let dear: Vec<_> = cheap.iter().cloned().chain([tried(61)]).collect();

    assert!(StrategySet::compile(cheap).is_ok());
    let problems = StrategySet::compile(dear).unwrap_err();
    assert_eq!((problems.len(), problems[0].index, &*problems[0].field), (1, 10_061, "match"));
    let StrategyProblemKind::TooCostly { on, count, score, limit, .. } = &problems[0].kind else {
        panic!("{problems:?}")
    };
    // One of those that are found by `a`, whose `b` is tried, too.
    assert_eq!((on.as_str(), *count, *score, *limit), ("job.done", 63, 62 * 67 + 5, 4_096));
}

#[test]
fn scores_of_what_one_event_can_meet_add_up() {
    let of = |on: &str, tenant: &str, count: usize| -> Vec<StrategyDefinition> {
        let strategy = |number| StrategyDefinition {
            tenant: tenant.to_owned(),
            when: Some("true".to_owned()),
            ..definition(&format!("s-{on}-{tenant}-{number}").replace(['*', '>'], "any"), on)
        };
        (0..count).map(strategy).collect()
    };
    for (parts, refused) in [
        (vec![of("a.b", "*", 64)], false),
        (vec![of("a.b", "*", 65)], true),
        (vec![of("a.b", "acme", 33), of("a.b", "*", 32)], true),
        (vec![of("a.b", "acme", 33), of("a.b", "beta", 33)], false),
        (vec![of("a.b", "*", 33), of("a.*", "*", 32)], true),
        (vec![of("a.b", "*", 33), of("b.*", "*", 32)], false),
        (vec![of("a.*", "*", 33), of("*.b", "*", 32)], true),
        (vec![of("a.>", "*", 33), of("*.b", "acme", 32)], true),
        (vec![of("a.b", "*", 33), of("c.b", "*", 33), of("a.d", "*", 33)], false),
    ] {
        let bundle = parts.concat();
        let shown: Vec<_> = parts.iter().map(|part| (&part[0].on, &part[0].tenant)).collect();
        assert_eq!(StrategySet::compile(bundle).is_err(), refused, "{shown:?}");
    }
}
