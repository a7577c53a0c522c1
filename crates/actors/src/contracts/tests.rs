use fermata_core::contract::incompatibilities;
use fermata_core::event::{EventLimits, Subject, decode_message};
use fermata_core::json::Json;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn definitions(mode: ContractMode, schemas: &[(&str, Value)]) -> Definitions {
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

fn check(contracts: &Contracts, dataschema: Option<&str>, data: Value) -> Option<Breach> {
    let mut event = json!({
        "specversion": "1.0", "id": "1", "source": "/s", "type": "order.placed", "data": data,
    });
    if let Some(uri) = dataschema {
        event["dataschema"] = uri.into();
    }
    let text = event.to_string();
    let subject = Subject { tenant: "acme", kind: "order.placed" };
    let mut decoded = decode_message(None, text.as_bytes(), subject, &EventLimits::default());
    contracts.check(&decoded.remove(0).unwrap())
}

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["amount"],
        "properties": {"amount": {"type": "integer"}, "note": {"pattern": "^[a-z]+$"}},
    })
}

#[test]
fn a_breach_names_every_place_and_no_value() {
    let contracts = Contracts::new(&definitions(ContractMode::Enforce, &[("v1", schema())]));

    assert_eq!(check(&contracts, None, json!({"amount": 1})), None);
    let Some(Breach::Refuse(detail)) =
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
    let contracts = Contracts::new(&definitions(ContractMode::Warn, &versions));
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
    let off = Contracts::new(&definitions(ContractMode::Off, &[("v1", schema())]));
    assert!(off.tenants.is_empty());
    assert_eq!(check(&off, None, json!(1)), None);
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
    let contracts = Contracts::new(&definitions(ContractMode::Enforce, &broken));
    assert!(matches!(check(&contracts, None, json!({})), Some(Breach::Refuse(_))));
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
        let valid = validator.is_valid(&data) && problems(&validator, &data, 1).is_empty();
        let long = compile(&long.to_string());
        valid && (long.is_err() || !long.unwrap().is_valid(&data))
    });
    assert!(thread.unwrap().join().unwrap());
}

#[test]
fn of_large_data_the_first_problem_is_told() {
    let contracts =
        Contracts::new(&definitions(ContractMode::Enforce, &[("v1", json!({"items": false}))]));
    let Some(Breach::Refuse(detail)) = check(&contracts, None, json!(vec![0; 20_000])) else {
        panic!()
    };
    assert!(detail.contains("/0: ") && !detail.contains("/1: "), "{detail}");
}

#[test]
fn what_mends_an_older_major_version_is_not_the_newest() {
    let versions = [("v1", json!(true)), ("v2", json!(true)), ("v1.1", json!(false))];
    let contracts = Contracts::new(&definitions(ContractMode::Enforce, &versions));
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
