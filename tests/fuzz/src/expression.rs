//! Expressions of strangers.

use fermata_core::expression::{Expression, RESULT_BYTES_MAX, Scope};
use serde_json::{Value, json};

/// The text of a guard: it is refused, or it has the same value twice, within
/// the limits of values.
///
/// # Panics
///
/// When a law is broken.
pub fn cel_guard(bytes: &[u8]) {
    let Ok(source) = std::str::from_utf8(bytes) else { return };
    let Ok(expression) = Expression::compile(source) else { return };
    let (event, input, tasks) = (event(), json!({ "n": 3, "list": [1, 2, 3] }), json!({}));
    let scope = Scope::new().with("event", &event).with("input", &input).with("tasks", &tasks);
    let value = expression.evaluate(&scope);
    assert_eq!(value, expression.evaluate(&scope), "evaluated twice");
    if let Ok(Value::String(text)) = &value {
        assert!(text.len() <= RESULT_BYTES_MAX, "a text of {} bytes", text.len());
    }
    let _guard: Result<bool, _> = expression.evaluate_bool(&scope);
}

fn event() -> Value {
    json!({
        "id": "e-1", "source": "/shop", "type": "order.created", "tenant": "acme",
        "data": {
            "total": 1200.5, "paid": true, "note": null, "name": "Grüße 🎼",
            "items": (0..40).map(|n| json!({ "sku": format!("s{n}"), "n": n })).collect::<Vec<_>>(),
            "deep": [[[[1, 2], [3]], []]],
        },
    })
}
