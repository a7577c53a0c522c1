use std::sync::LazyLock;
use std::time::Duration;

use fermata_test_clock::assert_within;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn compiled(source: &str) -> Expression {
    Expression::compile(source).unwrap_or_else(|error| panic!("`{source}`: {error}"))
}

fn value(source: &str, input: Value) -> Result<Value, EvaluationError> {
    compiled(source).evaluate(&Scope::new().with("input", &input))
}

fn refusal(source: &str) -> String {
    Expression::compile(source).expect_err(source).message
}

#[test]
fn expressions_have_the_values_that_their_readers_expect() {
    let input = json!({
        "job": "7", "n": 91_230, "half": 0.5, "tags": ["a", "b"], "none": null,
        "big": u64::MAX, "items": [{"price": 3}, {"price": 4}], "map": {"b": 1, "a": 2},
    });
    let mut compared = 0;
    for (source, expected) in [
        (
            "{'title': 'Job ' + input.job, 'slow': input.n > 60000}",
            json!({"title": "Job 7", "slow": true}),
        ),
        ("1 == 1.0 && 1u == 1 && input.n == 91230.0", json!(true)),
        ("input.big > 9.2e18 && input.big == 18446744073709551615u", json!(true)),
        ("9007199254740993 == 9007199254740992.0", json!(false)),
        ("has(input.job) && !has(input.other)", json!(true)),
        ("'a' in input.tags && !('c' in input.tags) && 'b' in input.map", json!(true)),
        ("input.items.map(i, i.price * 2)", json!([6, 8])),
        ("input.items.filter(i, i.price > 3).size()", json!(1)),
        ("input.items.map(i, i.price > 3, i.price)", json!([4])),
        ("input.items.all(i, i.price > 2) && input.items.exists_one(i, i.price == 4)", json!(true)),
        ("input.map.map(k, k)", json!(["a", "b"])),
        ("input.tags[1] + string(input.n) + string(input.half)", json!("b912300.5")),
        ("input.tags + ['c'] == ['a', 'b', 'c']", json!(true)),
        ("size('πέντε') + size(input.tags) + input.map.size()", json!(9)),
        ("input.job.startsWith('7') && 'abc'.contains('b') && 'abc'.endsWith('bc')", json!(true)),
        ("int('42') + int(2.9) + int(3u)", json!(47)),
        ("double(1) / 2.0", json!(0.5)),
        ("input.n / 1000 - -1 * 7 % 4", json!(94)),
        ("input['job'] == input.job ? 'same' : 'other'", json!("same")),
        ("input.none == null && dyn(1) != 'a'", json!(true)),
        ("false && input.missing.field", json!(false)),
        ("input.missing || true", json!(true)),
        ("input.items.exists(i, i.cost > 1 || i.price == 4)", json!(true)),
        ("{1: 'a', 'b': [1.5, null]}", json!({"1": "a", "b": [1.5, null]})),
        ("input.items.all(i, input.tags.exists(t, t == 'a'))", json!(true)),
        ("'it\\'s' + r'\\d' + \"\\u00e9\"", json!("it's\\d\u{e9}")),
    ] {
        assert_eq!(value(source, input.clone()), Ok(expected.clone()), "{source}");
        // The crate visits a map's keys in another order each time, and rounds
        // an integer before it compares it with a double.
        let known = source.contains(".map.map") || source.starts_with("9007199254740993");
        if let Some(theirs) = by_the_crate(source, &input).filter(|_| !known) {
            assert_eq!(theirs, expected, "{source}");
            compared += 1;
        }
    }
    assert!(compared > 20, "{compared} values were compared with the crate's");
}

#[test]
fn a_number_beyond_64_bits_becomes_what_the_documentation_says() {
    let page = include_str!("../../../../docs/events.md");
    for sent in ["98765432109876543210987", "1234567890.123456789", "18446744073709551615"] {
        let input = serde_json::from_str(sent).unwrap();

        let got = value("input", input).unwrap().to_string();

        let kept = got == sent;
        assert!(kept || page.contains(&format!("`{sent}`")), "{sent}");
        assert!(kept || page.contains(&format!("`{got}`")), "{sent} becomes {got}");
    }
}

#[test]
fn an_expression_is_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>(_: &T) {}

    shared(&compiled("1"));
}

#[test]
fn what_has_no_value_says_why() {
    let input = json!({"n": 1, "text": "a", "list": [1], "double": 1.5});
    for (source, expected) in [
        (
            "input.missing",
            "there is no `missing`; test with `has(…)` or `in` where it may be missing",
        ),
        ("input.list[1]", "`1` is outside of a list of 1"),
        ("input.list[-1]", "`-1` is outside of a list of 1"),
        (
            "input.n + input.double",
            "`+` does not take int and double; convert one of them with `int(…)` or `double(…)`",
        ),
        (
            "input.text + input.n",
            "`+` does not take string and int; convert the other with `string(…)`",
        ),
        ("9223372036854775807 + input.n", "`+` has no result: the number is out of range"),
        ("input.n / 0", "`/` has no result: division by zero"),
        ("input.n % 0", "`%` has no result: division by zero"),
        ("(-9223372036854775807 - 1) / -1", "`/` has no result: the number is out of range"),
        ("input.n ? 1 : 2", "expected true or false, found int"),
        ("input.text < 1", "`<` does not take string and int"),
        ("input.n.field", "`.` does not take int"),
        ("{'a': 1, 'a': 2}", "the key `a` stands twice in one map"),
        ("{1: 1, '1': 2}", "the key `1` stands twice in one map"),
        ("1.0 / 0.0", "the value holds a number that JSON cannot hold"),
        ("int('x')", "`int` has no result: the value is no number of that type"),
        ("int(1e300)", "`int` has no result: the value is no number of that type"),
        ("tasks.a", "`tasks` is not known here"),
        ("input.n.map(x, x)", "`map` does not take int"),
    ] {
        let error = value(source, input.clone()).expect_err(source);

        assert_eq!(error.to_string(), expected, "{source}");
    }
}

#[test]
fn what_does_not_exist_is_refused_by_name_with_its_place() {
    let error = Expression::compile("input.a ||\n  now() > 1").unwrap_err();

    assert!(error.message.starts_with("there is no function `now`; there are size,"), "{error}");
    assert_eq!(error.position, Some((2, 3)));
    for (source, part) in [
        ("'a'.matches('a+')", "`matches`"),
        ("timestamp('x')", "`timestamp`"),
        ("type(1)", "`type`"),
        ("size(1, 2)", "`size(value)`"),
        ("contains('a', 'b')", "`text.contains(part)`"),
        ("b'ab'", "bytes"),
        ("a.B{c: 1}", "message type"),
        ("input.?a", "unsupported"),
        ("1 +", ""),
        ("", ""),
        ("'open", ""),
    ] {
        assert!(refusal(source).contains(part), "{source}: {}", refusal(source));
    }
}

#[test]
fn references_name_roots_tasks_and_the_need_for_data() {
    let references = compiled(
        "tasks.fetch.output.size() + tasks['notify-owner'].output.n > input.n && has(tasks.x) \
         && event.type == 'a'",
    )
    .references()
    .clone();

    assert_eq!(references.roots.into_iter().collect::<Vec<_>>(), ["event", "input", "tasks"]);
    assert_eq!(references.tasks.into_iter().collect::<Vec<_>>(), ["fetch", "notify-owner", "x"]);
    assert!(!references.tasks_as_a_whole && !references.event_data);
    assert!(compiled("event.data.x == 1").references().event_data);
    assert!(compiled("has(event.data)").references().event_data);
    assert!(compiled("event == input").references().event_data);
    assert!(compiled("tasks[input.name]").references().tasks_as_a_whole);
    assert!(compiled("[1].map(tasks, tasks)").references().roots.is_empty());
}

/// Texts that are known to take minutes, gigabytes or the stack elsewhere.
fn bombs() -> Vec<String> {
    let digits = (0..100).map(|digit| digit.to_string()).collect::<Vec<_>>().join(",");
    let list = format!("[{digits}]");
    let mut doubling = "['aaaaaaaaaaaaaaaa']".to_owned();
    let mut lists = "[[1]]".to_owned();
    let mut sharing = "[1]".to_owned();
    for _ in 0..27 {
        doubling.push_str(".map(a, a + a)");
        lists.push_str(".map(a, a + a)");
        sharing.push_str(".map(a, [a, a])");
    }
    vec![
        format!("{list}.all(a, {list}.all(b, {list}.all(c, {list}.all(d, a + b + c + d >= 0))))"),
        format!("{list}.all(a, {list}.all(b, {list}.all(c, true)))"),
        format!("{list}.all(a, {list}.all(b, a + b + a + b + a + b + a + b + a + b >= 0))"),
        doubling,
        lists,
        sharing,
        "[1,1].map(a, [1,1])".to_owned() + &".map(a, a + a + a + a)".repeat(12),
        "input.map(a, input.map(b, input + input)).map(c, c + c).map(d, d + d + d)".to_owned(),
        "(".repeat(2_000),
        "[".repeat(2_000),
        "{1:".repeat(1_000),
        "((".repeat(1_000) + "1" + &"))".repeat(1_000),
        "[]".repeat(2_000),
        "a[".repeat(1_500),
        "!".repeat(4_000),
        "-".repeat(4_000),
        "1+".repeat(500) + "1",
        "1?".repeat(400) + "1" + &":1".repeat(400),
        "a.".repeat(500) + "a",
        "a.b(".repeat(500),
        "x.map(x,".repeat(300),
        "[1].all(".repeat(200) + "1",
        "a".repeat(5_000),
        "'".repeat(4_000),
        "\"\"\"".repeat(1_000),
        "&&".repeat(1_000),
        "f(".repeat(30) + &"1,".repeat(400),
        "\u{0}\u{1}\u{2}".repeat(1_000),
        "[({".repeat(10),
    ]
}

#[test]
fn known_bombs_are_refused_in_no_time() {
    for bomb in bombs() {
        let start: String = bomb.chars().take(40).collect();
        let limit = Duration::from_millis(50);
        let refused = assert_within(limit, &start, || Expression::compile(&bomb));

        assert!(refused.is_err(), "accepted: {start}");
    }
}

#[test]
fn an_accepted_expression_gives_up_on_an_input_that_is_too_long() {
    let expression = compiled("input.all(a, input.all(b, a == b || a != b))");
    let input = Value::Array((0..10_000).map(Value::from).collect());

    let scope = Scope::new().with("input", &input);
    let limit = Duration::from_millis(500);
    let gave_up = assert_within(limit, "the evaluation", || expression.evaluate(&scope));

    assert_eq!(gave_up, Err(EvaluationError::TooManySteps));
}

#[test]
fn a_value_beyond_its_limits_is_refused() {
    let text = json!("x".repeat(600_000));
    let scope = Scope::new().with("input", &text);
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!([deep]);
    }

    assert_eq!(compiled("[input, input]").evaluate(&scope), Err(EvaluationError::ResultTooLarge));
    assert_eq!(
        compiled("input").evaluate(&Scope::new().with("input", &deep)),
        Err(EvaluationError::ResultTooDeep)
    );
}

/// Expressions over one list of numbers, texts and maps, many of them nonsense.
fn any_expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("input".to_owned()),
        Just("x".to_owned()),
        Just("'text'".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        (-3_i64..100).prop_map(|number| number.to_string()),
        (0_u64..5).prop_map(|number| format!("{number}u")),
        Just("1.5".to_owned()),
        Just("2.0".to_owned()),
        Just("9223372036854775807".to_owned()),
    ];
    leaf.prop_recursive(5, 40, 3, |inner| {
        let operators = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in",
        ]);
        let folds = prop::sample::select(vec!["all", "exists", "exists_one", "map", "filter"]);
        let functions =
            prop::sample::select(vec!["size", "string", "int", "uint", "double", "bool", "dyn"]);
        let methods = prop::sample::select(vec!["contains", "startsWith", "endsWith"]);
        prop_oneof![
            (inner.clone(), operators, inner.clone())
                .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            (inner.clone(), folds, inner.clone())
                .prop_map(|(range, fold, body)| format!("{range}.{fold}(x, {body})")),
            (functions, inner.clone()).prop_map(|(function, value)| format!("{function}({value})")),
            (inner.clone(), methods, inner.clone())
                .prop_map(|(text, method, part)| format!("{text}.{method}({part})")),
            (inner.clone(), inner.clone()).prop_map(|(one, two)| format!("[{one}, {two}]")),
            (inner.clone(), inner.clone())
                .prop_map(|(one, two)| format!("{{'a': {one}, 'b': {two}}}")),
            (inner.clone(), inner.clone()).prop_map(|(list, at)| format!("{list}[{at}]")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(if_, then, else_)| format!("({if_} ? {then} : {else_})")),
            inner.clone().prop_map(|map| format!("{map}.a")),
            inner.clone().prop_map(|map| format!("has({map}.a)")),
            inner.clone().prop_map(|value| format!("!{value}")),
            inner.prop_map(|value| format!("-{value}")),
        ]
    })
}

fn some_input() -> Value {
    json!([1, 2.0, -3, "text", "te", true, null, [1, 2], {"a": 1, "b": "x"}, u64::MAX])
}

/// Evaluations by the crate before its value counts as another one than ours: two orders of two
/// keys make one in 2^64 wrong, and four of two maps one in 10^8.
const ORDERS_TRIED: u32 = 64;

/// Values that the crate may give by the orders of keys, ours aside, for ours to be judged.
const ORDERS_MAX: usize = 3;

/// The value of `source` by the interpreter of the `cel` crate.
fn by_the_crate(source: &str, input: &Value) -> Option<Value> {
    let program = cel::Env::stdlib().compile(source).ok()?;
    let mut context = cel::Context::default();
    context.add_variable("input", input).ok()?;
    program.execute(&context).ok()?.json().ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Both may refuse what the other takes (we refuse more, and convert less);
    /// a value that both give is the same. The crate goes through the keys of a map in any order,
    /// another one each time; ours, which is always the same one, has to be among them.
    #[test]
    fn values_are_those_of_the_crates_interpreter(source in any_expression()) {
        let input = some_input();
        let Ok(expression) = Expression::compile(&source) else { return Ok(()) };
        let Ok(ours) = expression.evaluate(&Scope::new().with("input", &input)) else { return Ok(()) };

        let mut theirs = Vec::new();
        for _ in 0..ORDERS_TRIED {
            match by_the_crate(&source, &input) {
                Some(value) if value != ours => if !theirs.contains(&value) { theirs.push(value) },
                Some(_) | None => return Ok(()),
            }
        }
        // Of more than that, as of many maps in a list, ours may come too seldom to be met.
        prop_assert!(theirs.len() > ORDERS_MAX, "{source}: {ours}, not one of {theirs:?}");
    }

    #[test]
    fn whatever_is_accepted_ends_soon_on_a_large_input(source in any_expression()) {
        let Ok(expression) = Expression::compile(&source) else { return Ok(()) };
        static INPUT: LazyLock<Value> = LazyLock::new(|| Value::Array(vec![some_input(); 5_000]));
        let scope = Scope::new().with("input", &INPUT);

        let limit = Duration::from_millis(250);
        let _ = assert_within(limit, &source, || expression.evaluate(&scope));
    }

    #[test]
    fn no_text_makes_the_compiler_panic(source in "\\PC{0,80}") {
        let _ = Expression::compile(&source);
    }

    #[test]
    fn no_shuffled_tokens_make_the_compiler_panic(
        tokens in prop::collection::vec(prop::sample::select(vec![
            "(", ")", "[", "]", "{", "}", ".", ",", ":", "?", "+", "-", "!", "==", "&&", "||",
            "in", "a", "has", "map", "all", "1", "1.", "0x", "1e", "'", "\"", "'''", "b'", "r\"",
            "\\", "\\u12", "null", "true", "//", "\n", " ", "@", "`", "1u", "9999999999999999999",
            "é", "\u{1F600}", "..", "=",
        ]), 0..40),
    ) {
        let _ = Expression::compile(&tokens.concat());
    }
}
