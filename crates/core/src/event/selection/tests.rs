//! What is selected lies in the message, and nothing else is made.

use super::*;
use crate::event::{EventLimits, Subject, decode_message};

const EVENT: &str = r#"{
    "specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.paid", "subject": "order 7",
    "priority": 3, "data": {
        "order": { "id": "o-7", "total": 12.50, "note": "left \"as is\"", "paid": true, "by": null },
        "lines": [
            { "sku": "a-1", "count": 2, "options": { "colour": "red" } },
            { "sku": "b-2", "count": 1, "options": { "colour": "blue" } }
        ],
        "customer": { "name": "nobody asks", "address": { "street": "nor for that" } },
        "history": [ [ { "sku": "no line" } ], "created", "paid" ],
        "sku": "not this one either"
    }
}"#;

/// All paths of the event that somebody looks at, with their names.
struct Wanted {
    tree: PathTree,
    paths: Vec<(&'static str, PathId)>,
}

impl Wanted {
    fn new(names: &[&'static str]) -> Self {
        let mut tree = PathTree::default();
        let mut path_of = |name: &'static str| {
            let path = name.split('.').fold(PathId::EVENT, |path, name| tree.extend(path, name));
            (name, path)
        };
        let paths = names.iter().map(|name| path_of(name)).collect();
        Self { tree, paths }
    }

    fn name(&self, path: PathId) -> &'static str {
        self.paths.iter().find(|(_, known)| *known == path).map_or("", |(name, _)| name)
    }

    /// Each text and number of what was selected, with the name of its path.
    fn leaves<'s, 'e>(
        &self,
        selected: &'s Selected<'e>,
        at: PathId,
        found: &mut Vec<(&'static str, &'s Selected<'e>)>,
    ) {
        match selected {
            Selected::Fields(fields) if !fields.is_empty() => {
                fields.iter().for_each(|(path, value)| self.leaves(value, *path, found));
            }
            Selected::List(values) => {
                values.iter().for_each(|value| self.leaves(value, at, found));
            }
            leaf @ (Selected::Null
            | Selected::Truth(_)
            | Selected::Number(_)
            | Selected::Text(_)
            | Selected::Fields(_)
            | Selected::Unreadable) => found.push((self.name(at), leaf)),
        }
    }
}

#[test]
fn what_is_looked_at_lies_in_the_message_and_nothing_else_is_made() {
    let wanted = Wanted::new(&[
        "id",
        "subject",
        "priority",
        "data.order.id",
        "data.order.total",
        "data.order.note",
        "data.order.paid",
        "data.order.by",
        "data.lines.sku",
        "data.customer",
    ]);
    let subject = Subject { tenant: "acme", kind: "order.paid" };
    let decoded = decode_message(None, EVENT.as_bytes(), subject, &EventLimits::default());
    let event = decoded.into_iter().next().unwrap().unwrap();

    let selected = event.select(&wanted.tree);

    let mut leaves = Vec::new();
    wanted.leaves(&selected, PathId::EVENT, &mut leaves);
    let message = EVENT.as_bytes().as_ptr_range();
    let lies_in_message = |text: &str| {
        let here = text.as_bytes().as_ptr_range();
        message.start <= here.start && here.end <= message.end
    };
    let mut told = Vec::new();
    for (name, leaf) in leaves {
        let (said, lies_there) = match leaf {
            Selected::Text(text) => (text.to_string(), lies_in_message(text)),
            Selected::Number(number) => {
                (number.as_str().to_owned(), lies_in_message(number.as_str()))
            }
            Selected::Truth(_) | Selected::Null | Selected::Fields(_) => {
                (format!("{leaf:?}"), true)
            }
            Selected::List(_) | Selected::Unreadable => panic!("{name}: {leaf:?}"),
        };
        // What is written with escapes cannot be lent.
        assert_eq!(lies_there, name != "data.order.note", "{name}: `{said}`");
        told.push((name, said));
    }
    told.sort();
    let expected = [
        // An object is there, and its fields are for nobody.
        ("data.customer", "Fields([])"),
        ("data.lines.sku", "a-1"),
        ("data.lines.sku", "b-2"),
        ("data.order.by", "Null"),
        ("data.order.id", "o-7"),
        ("data.order.note", "left \"as is\""),
        ("data.order.paid", "Truth(true)"),
        ("data.order.total", "12.50"),
        ("id", "e-1"),
        ("priority", "3"),
        ("subject", "order 7"),
    ];
    assert_eq!(told, expected.map(|(name, said)| (name, said.to_owned())));
}
