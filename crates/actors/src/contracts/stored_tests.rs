use fermata_core::event::{EventLimits, Subject, decode_message};
use serde_json::json;

use super::tests::{definitions, renewed, schema};
use super::*;

/// Of an event without data, with these members.
fn elsewhere(contracts: &Contracts, members: Value) -> Verdict {
    let mut event =
        json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "order.placed"});
    event.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    let text = event.to_string();
    let subject = Subject { tenant: "acme", kind: "order.placed" };
    let mut decoded = decode_message(None, text.as_bytes(), subject, &EventLimits::default());
    contracts.check(&decoded.remove(0).unwrap(), &mut Steps::default())
}

#[test]
fn data_that_is_elsewhere_is_checked_when_it_was_read_and_what_is_not_read_is_no_sound_data() {
    let of = |mode| renewed(&definitions(mode, &[("v1", schema())]));
    let reference = PayloadReference { digest: Digest::of(b"{}") };
    let ours = |kind: &str| {
        let (uri, digest) = (reference.uri("acme"), reference.datadigest());
        json!({"dataref": uri, "datadigest": digest, "datacontenttype": kind})
    };
    let enforced = of(ContractMode::Enforce);

    for uri in ["https://acme.example/data", "s3://bucket/data", "x://y"] {
        let foreign = json!({"dataref": uri});
        let verdict = elsewhere(&enforced, foreign.clone());
        let Verdict::Breach(Breach::Refuse("contract_unchecked", detail)) = verdict else {
            panic!("{verdict:?}")
        };
        assert!(detail.starts_with("version `v1`: not checked: `dataref`"), "{detail}");
        let warned = elsewhere(&of(ContractMode::Warn), foreign);
        assert!(matches!(warned, Verdict::Breach(Breach::Warn(_))), "{warned:?}");
    }
    // It is none: there is no data, and the contract asks for some.
    let none = elsewhere(&enforced, json!({"dataref": "data"}));
    assert!(matches!(none, Verdict::Breach(Breach::Refuse("contract_violation", _))), "{none:?}");
    let picture = elsewhere(&enforced, ours("image/png"));
    assert!(matches!(picture, Verdict::Breach(Breach::Refuse("contract_violation", _))));
    let stored = elsewhere(&enforced, ours("application/json"));
    let Verdict::Stored(check, found) = stored else { panic!("{stored:?}") };
    assert_eq!(found, reference);
    let reason = |bytes: &[u8], mut steps: u64| match check.breach(bytes, &mut steps) {
        None => "sound",
        Some(Breach::Refuse(reason, _)) => reason,
        Some(Breach::Warn(_)) => "warned",
    };
    let deep = format!("{{\"amount\":1,\"x\":{}{}}}", "[".repeat(63), "]".repeat(63));
    assert_eq!(reason(br#"{"amount": 1}"#, MESSAGE_STEPS_MAX), "sound");
    assert_eq!(reason(br#"{"amount": "1"}"#, MESSAGE_STEPS_MAX), "contract_violation");
    assert_eq!(reason(b"{", MESSAGE_STEPS_MAX), "contract_violation");
    assert_eq!(reason(b"\xff", MESSAGE_STEPS_MAX), "contract_violation");
    assert_eq!(reason(br#"{"amount": 1}"#, 1), "contract_too_costly");
    assert_eq!(reason(deep.as_bytes(), MESSAGE_STEPS_MAX), "contract_unchecked");
}
