use std::time::Duration;

use fermata_core::contract::incompatibilities;
use fermata_core::event::{EventLimits, Subject, decode_message};
use fermata_core::json::Json;
use fermata_test_clock::assert_within;
use proptest::prelude::*;
use serde_json::json;

use super::*;

pub(super) fn definitions(mode: ContractMode, schemas: &[(&str, Value)]) -> Definitions {
    let entry = |(version, schema): &(&str, Value)| ContractEntry {
        tenant: "acme".parse().unwrap(),
        kind: "order.placed".into(),
        version: (*version).into(),
        schema: Json::from_value(schema),
    };
    Definitions {
        contracts: schemas.iter().map(entry).collect(),
        contract_modes: [("acme".into(), mode)].into(),
        ..Definitions::default()
    }
}

pub(super) fn renewed(definitions: &Definitions) -> Contracts {
    Contracts::default().renewed(definitions)
}

/// As a listener finds it in the end.
fn check(contracts: &Contracts, dataschema: Option<&str>, data: Value) -> Option<Breach> {
    match verdict(contracts, dataschema, data, &mut Steps::default()) {
        Verdict::Sound => None,
        Verdict::Breach(breach) => Some(breach),
        Verdict::Later(check) => check.breach(),
        Verdict::Stored(..) => panic!("the data is in the event"),
    }
}

fn verdict(
    contracts: &Contracts,
    dataschema: Option<&str>,
    data: Value,
    steps: &mut Steps,
) -> Verdict {
    let mut event = json!({
        "specversion": "1.0", "id": "1", "source": "/s", "type": "order.placed", "data": data,
    });
    if let Some(uri) = dataschema {
        event["dataschema"] = uri.into();
    }
    let text = event.to_string();
    let subject = Subject { tenant: "acme", kind: "order.placed" };
    let mut decoded = decode_message(None, text.as_bytes(), subject, &EventLimits::default());
    contracts.check(&decoded.remove(0).unwrap(), steps)
}

pub(super) fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["amount"],
        "properties": {"amount": {"type": "integer"}, "note": {"pattern": "^[a-z]+$"}},
    })
}

#[test]
fn a_breach_names_every_place_and_no_value() {
    let contracts = renewed(&definitions(ContractMode::Enforce, &[("v1", schema())]));

    assert_eq!(check(&contracts, None, json!({"amount": 1})), None);
    let Some(Breach::Refuse(_, detail)) =
        check(&contracts, None, json!({"amount": "secret-1", "note": "SECRET-2"}))
    else {
        panic!()
    };
    assert!(detail.starts_with("version `v1`: ") && detail.contains("/amount: "), "{detail}");
    assert!(detail.contains("/note: ") && !detail.to_lowercase().contains("secret"), "{detail}");
    assert!(detail.len() < 600);
}

#[test]
fn an_event_is_checked_by_the_version_it_names_or_the_newest() {
    let older = json!({"required": ["old"]});
    let versions = [("v1", older), ("v2", schema())];
    let contracts = renewed(&definitions(ContractMode::Warn, &versions));
    let uri = |version: &str| format!("https://acme.example/order/{version}");

    assert_eq!(check(&contracts, None, json!({"amount": 1})), None);
    assert_eq!(check(&contracts, Some(&uri("v1")), json!({"old": 1})), None);
    for (schema, data) in
        [(None, json!({"old": 1})), (Some("v1"), json!({"amount": 1})), (Some("v9"), json!({}))]
    {
        let breach = check(&contracts, schema.map(uri).as_deref(), data);
        assert!(matches!(breach, Some(Breach::Warn(_))), "{breach:?}");
    }
}

#[test]
fn a_tenant_that_is_off_or_has_none_is_not_looked_at() {
    let off = renewed(&definitions(ContractMode::Off, &[("v1", schema())]));
    assert!(off.tenants.is_empty());
    assert_eq!(check(&off, None, json!(1)), None);
}

/// A schema of which `items` are looked at by so many keywords.
fn costly(keywords: usize) -> Value {
    let all: Vec<_> = (0..keywords).map(|at| json!({ "maximum": at })).collect();
    json!({"items": {"anyOf": all}})
}

#[test]
fn what_costs_little_is_checked_at_once_until_a_batch_has_had_enough_and_the_rest_aside() {
    let contracts = renewed(&definitions(ContractMode::Enforce, &[("v1", costly(30))]));
    let mut steps = Steps::default();
    let mut look = |data| match verdict(&contracts, None, data, &mut steps) {
        Verdict::Sound => "sound",
        Verdict::Breach(_) => "breach",
        Verdict::Later(check) => check.breach().map_or("later, sound", |_| "later, breach"),
        Verdict::Stored(..) => "stored",
    };

    assert_eq!(look(json!(vec![0; 10])), "sound");
    assert_eq!(look(json!(vec![99; 10])), "breach");
    assert_eq!(look(json!(vec![0; 10_000])), "later, sound");
    assert_eq!(look(json!(vec![99; 10_000])), "later, breach");
    assert!((0..1_000).any(|_| look(json!(vec![0; 10])) == "later, sound"), "it is never enough");
}

#[test]
fn what_costs_more_than_a_message_may_is_told_of_and_not_checked() {
    let definitions = |mode| definitions(mode, &[("v1", costly(3_000))]);
    let contracts = renewed(&definitions(ContractMode::Enforce));
    // All of it is good by the contract.
    let data = json!(vec![0; 10_000]);

    let Some(Breach::Refuse(reason, detail)) = check(&contracts, None, data.clone()) else {
        panic!()
    };
    assert_eq!(reason, "contract_too_costly");
    assert!(
        detail.contains("version `v1`: not checked") && detail.contains("16000000"),
        "{detail}"
    );
    let warned = check(&renewed(&definitions(ContractMode::Warn)), None, data);
    assert!(matches!(warned, Some(Breach::Warn(detail)) if detail.contains("not checked")));
}

#[test]
fn the_events_of_one_message_share_what_a_message_may_cost() {
    let contracts = renewed(&definitions(ContractMode::Enforce, &[("v1", costly(3_000))]));
    let mut steps = Steps::default();
    let look = |steps: &mut Steps| verdict(&contracts, None, json!(vec![0; 300]), steps);

    let taken = std::iter::from_fn(|| Some(look(&mut steps)))
        .take_while(|verdict| matches!(verdict, Verdict::Later(_)))
        .take(1_000)
        .count();
    assert!((2..20).contains(&taken), "{taken}");
    let Verdict::Breach(Breach::Refuse(_, detail)) = look(&mut steps) else { panic!() };
    assert!(detail.contains("by itself"), "{detail}");
    steps.next_message();
    assert!(matches!(look(&mut steps), Verdict::Later(_)));
}

#[test]
fn the_costliest_events_that_are_checked_take_about_a_second() {
    let text: String = (0..200_000_u32)
        .map(|at| if at.wrapping_mul(2_654_435_761) >> 31 == 0 { 'a' } else { 'b' })
        .collect();
    let times = |count: usize, schema: Value| json!(vec![schema; count]);
    let closed: serde_json::Map<_, _> =
        (0..1_000).map(|at| (format!("p{at}"), json!({"type": "string"}))).collect();
    let full: serde_json::Map<_, _> = (0..1_000).map(|at| (format!("p{at}"), json!("x"))).collect();
    let worst = [
        (json!({"pattern": "^[ab]*a[ab]{300}c$"}), json!(text)),
        (costly(3_000), json!(vec![9_999; 40_000])),
        (
            json!({ "allOf": times(500, json!({"uniqueItems": true})) }),
            json!((0..20_000).map(|at| json!([at])).collect::<Vec<_>>()),
        ),
        (
            json!({"items": {"allOf": times(250, json!({"multipleOf": 0.01}))}}),
            json!(vec![19.99; 40_000]),
        ),
        (
            json!({"items": {"properties": closed, "additionalProperties": false}}),
            json!(vec![full; 22]),
        ),
    ];
    for (schema, mut data) in worst {
        let contracts = renewed(&definitions(ContractMode::Enforce, &[("v1", schema.clone())]));
        let name: String = schema.to_string().chars().take(60).collect();
        // As much of it as is checked.
        let check = loop {
            match verdict(&contracts, None, data.clone(), &mut Steps::default()) {
                Verdict::Stored(..) => panic!("the data is in the event"),
                Verdict::Later(check) => break check,
                Verdict::Breach(Breach::Refuse("contract_too_costly", _)) => match &mut data {
                    Value::String(text) => text.truncate(text.len() * 3 / 4),
                    Value::Array(items) => items.truncate(items.len() * 3 / 4),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => panic!(),
                },
                other @ (Verdict::Sound | Verdict::Breach(_)) => panic!("{name}: {other:?}"),
            }
        };
        let what = format!("{name} on {} bytes", data.to_string().len());
        let _ = assert_within(Duration::from_millis(1_500), &what, || check.breach());
    }
}

#[test]
fn a_contract_that_was_compiled_is_taken_over_and_none_of_a_tenant_that_is_off() {
    let before = renewed(&definitions(ContractMode::Warn, &[("v1", schema())]));
    let versions = [("v1", schema()), ("v1.1", schema()), ("v2", json!(true))];
    let after = before.renewed(&definitions(ContractMode::Enforce, &versions));

    let of = |contracts: &Contracts, version: &str| {
        contracts.tenants["acme"].types["order.placed"].contracts[version].clone().unwrap()
    };
    assert!(Arc::ptr_eq(&of(&before, "v1"), &of(&after, "v1")));
    assert!(Arc::ptr_eq(&of(&after, "v1"), &of(&after, "v1.1")), "one content, compiled once");
    assert_eq!(after.compiled.len(), 2);
    assert!(after.renewed(&definitions(ContractMode::Off, &versions)).compiled.is_empty());
}

#[test]
fn beyond_the_regular_expressions_of_all_contracts_none_is_compiled() {
    let many = |from: usize| {
        let all: Vec<_> = (from..from + 64).map(|at| json!({"pattern": at.to_string()})).collect();
        json!({ "allOf": all })
    };
    let names: Vec<_> = (0..33).map(|at| format!("{}", at + 1)).collect();
    let versions: Vec<_> =
        names.iter().enumerate().map(|(at, name)| (name.as_str(), many(at * 64))).collect();
    let contracts = renewed(&definitions(ContractMode::Enforce, &versions));

    let of =
        |version: &str| contracts.tenants["acme"].types["order.placed"].contracts[version].clone();
    assert!(of("32").is_ok());
    assert!(of("33").unwrap_err().contains("regular expressions"));
}

#[test]
fn a_pattern_that_takes_much_memory_or_time_for_each_byte_is_refused() {
    for taken in [r"^\p{L}[\p{L}\p{N}]*$", r"^[A-Z]{3}-[0-9]{8}$", r"^\w{1,500}$"] {
        assert!(compile(&json!({ "pattern": taken }).to_string()).is_ok(), "{taken}");
    }
    for refused in [r"^\p{L}{1,500}$", "^[ab]*a[ab]{5000}c$"] {
        assert!(compile(&json!({ "pattern": refused }).to_string()).is_err(), "{refused}");
    }
    let many: Vec<_> =
        (0..60).map(|at| json!({"pattern": format!("^\\w{{1,{}}}$", 300 + at)})).collect();
    let problems = compile(&json!({ "allOf": many }).to_string()).unwrap_err();
    assert!(problems[0].contains("states may look at one text"), "{problems:?}");
}

#[test]
fn a_pattern_of_exponential_time_is_linear_or_refused() {
    let nested = json!({"type": "string", "pattern": "^(a+)+$"}).to_string();
    let validator = compile(&nested).unwrap();
    assert!(!validator.is_valid(&json!(format!("{}!", "a".repeat(100_000)))));
    for refused in ["(?=a)b", "(a)\\1", "(a{1000}){1000}{1000}"] {
        assert!(compile(&json!({ "pattern": refused }).to_string()).is_err(), "{refused}");
    }
}

#[test]
fn a_contract_that_cannot_be_compiled_refuses_what_it_would_check() {
    let broken = [("v1", json!({"$ref": "#/$defs/none"}))];
    let contracts = renewed(&definitions(ContractMode::Enforce, &broken));
    assert!(matches!(check(&contracts, None, json!({})), Some(Breach::Refuse(..))));
}

#[test]
fn no_reference_is_ever_fetched() {
    let canary = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    canary.set_nonblocking(true).unwrap();
    let remote = format!("http://{}/schema.json", canary.local_addr().unwrap());

    for schema in
        [json!({ "$ref": remote }), json!({ "$id": remote }), json!({ "$schema": remote })]
    {
        assert!(compile(&schema.to_string()).is_err(), "{schema}");
        // Past our own rules as well: the library has no way out.
        let _ = jsonschema::options().build(&schema);
    }
    let refused = canary.accept().unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::WouldBlock, "nobody connected");
}

#[test]
fn the_deepest_schema_and_the_deepest_data_fit_the_stack_of_a_worker_thread() {
    // As many schemas about the same value as are allowed, at every level of the data.
    let mut chain = json!({"items": {"$ref": "#"}});
    for _ in 0..14 {
        chain = json!({ "allOf": [chain] });
    }
    let mut data = json!(1);
    for _ in 0..64 {
        data = json!([data]);
    }
    // As much as is compiled one within the other.
    let mut definitions = serde_json::Map::new();
    for at in 0..127 {
        let mut schema = json!({ "$ref": format!("#/$defs/d{}", at + 1) });
        for _ in 0..14 {
            schema = json!({ "items": { "not": schema } });
        }
        definitions.insert(format!("d{at}"), schema);
    }
    definitions.insert("d127".to_owned(), json!(true));
    let long = json!({"items": {"$ref": "#/$defs/d0"}, "$defs": definitions});
    let thread = std::thread::Builder::new().stack_size(2 * 1024 * 1024).spawn(move || {
        let validator = compile(&chain.to_string()).unwrap();
        let valid = validator.is_valid(&data) && validator.problems(&data, "").is_empty();
        let long = compile(&long.to_string());
        valid && (long.is_err() || !long.unwrap().is_valid(&data))
    });
    assert!(thread.unwrap().join().unwrap());
}

#[test]
fn of_large_data_the_first_problem_is_told() {
    let contracts =
        renewed(&definitions(ContractMode::Enforce, &[("v1", json!({"items": false}))]));
    let Some(Breach::Refuse(_, detail)) = check(&contracts, None, json!(vec![0; 20_000])) else {
        panic!()
    };
    assert!(detail.contains("/0: ") && !detail.contains("/1: "), "{detail}");
}

#[test]
fn what_mends_an_older_major_version_is_not_the_newest() {
    let versions = [("v1", json!(true)), ("v2", json!(true)), ("v1.1", json!(false))];
    let contracts = renewed(&definitions(ContractMode::Enforce, &versions));
    assert_eq!(check(&contracts, None, json!(1)), None);
}

/// Schemas of objects with the properties `a` and `b`, both always described.
fn schema_of(depth: u32) -> BoxedStrategy<Value> {
    let scalar = prop_oneof![
        Just(json!({"type": "string"})),
        Just(json!({"type": ["string", "null"], "minLength": 1})),
        Just(json!({"type": "integer"})),
        Just(json!({"type": "number", "minimum": 0})),
        Just(json!({"type": "number", "exclusiveMinimum": 0})),
        Just(json!({"type": ["integer", "string", "null"], "maximum": 1})),
        Just(json!({"enum": [0, "x", null]})),
        Just(json!({"enum": [0, "x"]})),
        Just(json!({"const": 0})),
        Just(json!({"type": "array", "items": {"type": "integer"}, "maxItems": 1})),
        Just(json!({"type": "array", "items": {"type": "number"}, "uniqueItems": true})),
        Just(
            json!({"type": "array", "items": {"type": "number"}, "contains": {"const": 0}, "minContains": 0})
        ),
        Just(json!({"type": "array", "items": {"type": "number"}, "contains": {"const": 0}})),
        Just(json!(false)),
    ];
    if depth == 0 {
        return scalar.boxed();
    }
    let below = schema_of(depth - 1);
    let required = prop_oneof![
        Just(json!([])),
        Just(json!(["a"])),
        Just(json!(["b"])),
        Just(json!(["a", "b"]))
    ];
    let object = (below.clone(), below.clone(), below, required, any::<bool>(), any::<bool>());
    let object = object.prop_map(|(a, b, beside, required, typed, closed)| {
        let mut schema = json!({"properties": {"a": a, "b": b}, "required": required});
        schema["type"] = if typed { json!("object") } else { json!(["object", "null"]) };
        schema["additionalProperties"] = if closed { json!(false) } else { beside };
        schema
    });
    prop_oneof![1 => scalar, 2 => object].boxed()
}

fn data_of(depth: u32) -> BoxedStrategy<Value> {
    let scalar = prop_oneof![
        Just(json!(null)),
        Just(json!("")),
        Just(json!("x")),
        Just(json!(0)),
        Just(json!(2)),
        Just(json!(0.5)),
        Just(json!([])),
        Just(json!([0])),
        Just(json!([1.5, 1.5])),
    ];
    if depth == 0 {
        return scalar.boxed();
    }
    let below = proptest::option::of(data_of(depth - 1));
    let object = (below.clone(), below).prop_map(|(a, b)| {
        let members = [("a", a), ("b", b)].into_iter();
        let members = members.filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(members.collect())
    });
    prop_oneof![1 => scalar, 2 => object].boxed()
}

/// One part of a schema replaced by that of another.
fn mixed(old: &Value, other: &Value, choice: u32) -> Value {
    let (Value::Object(members), Value::Object(others)) = (old, other) else {
        return other.clone();
    };
    let mut new = members.clone();
    for (at, (name, value)) in others.iter().enumerate() {
        let is_chosen = choice >> (at % 32) & 1 == 1;
        match new.get(name) {
            Some(old) if name == "properties" => {
                let mixed = mixed(old, value, choice / 2);
                new.insert(name.clone(), mixed);
            }
            _ if is_chosen => {
                new.insert(name.clone(), value.clone());
            }
            _ => {}
        }
    }
    if choice & 64 != 0 {
        new.remove(["required", "minimum", "minContains", "contains", "enum"][choice as usize % 5]);
    }
    Value::Object(new)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_found_compatible_takes_what_was_taken(
        old in schema_of(2),
        other in schema_of(2),
        choice in any::<u32>(),
        data in proptest::collection::vec(data_of(2), 8),
    ) {
        let new = mixed(&old, &other, choice);
        if incompatibilities(&old, &new).is_empty() {
            let old = compile(&old.to_string()).unwrap();
            let new = compile(&new.to_string()).unwrap();
            for data in data.iter().filter(|data| old.is_valid(data)) {
                prop_assert!(new.is_valid(data), "{data}");
            }
        }
    }
}
