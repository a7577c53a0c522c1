//! Random strategies and the events that they are made from.

use fermata_core::strategy::{Action, StrategyDefinition, WorkflowRef};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use super::document::Document;

const STRATEGIES_MAX: usize = 24;
const NAMES: [&str; 4] = ["a", "b", "c", "d.e"];
const TEXTS: [&str; 16] = [
    "",
    "a",
    "b",
    "ab",
    "abc",
    "aB",
    "ABC",
    "é",
    "École",
    "us-east",
    "10.0.0.7",
    "10.1.0.1",
    "2001:db8::1",
    r"x*\y",
    "\"q\"",
    "İ",
];
/// As events have them.
const NUMBERS: [&str; 20] = [
    "0",
    "-0",
    "0e7",
    "1",
    "1.0",
    "1e0",
    "10",
    "1e1",
    "100",
    "1E+2",
    "-5",
    "-0.5e1",
    "2.5",
    "0.1",
    "1e-1",
    "0.1000000000000000000001",
    "9007199254740992",
    "9007199254740993",
    "18446744073709551615",
    "1e400",
];

/// An event, as a document and as text.
#[derive(Debug, Clone)]
pub struct TestEvent {
    pub kind: String,
    /// Attributes, `tenant` included, and `data`.
    pub whole: Document,
    pub text: String,
}

/// Strategies, and events for them.
#[derive(Debug)]
pub struct Scene {
    pub strategies: Vec<StrategyDefinition>,
    pub events: Vec<TestEvent>,
}

impl Scene {
    pub fn draw(dice: &mut StdRng, events: usize) -> Self {
        let events: Vec<_> = (0..events).map(|_| event(dice)).collect();
        let count = dice.random_range(1..=STRATEGIES_MAX);
        let strategies = (0..count).map(|number| strategy(dice, &events, number)).collect();
        Self { strategies, events }
    }
}

fn pick<'p, T>(dice: &mut StdRng, from: &'p [T]) -> &'p T {
    &from[dice.random_range(0..from.len())]
}

fn word(dice: &mut StdRng, from: &[&'static str]) -> &'static str {
    from[dice.random_range(0..from.len())]
}

fn event(dice: &mut StdRng) -> TestEvent {
    let kind = word(dice, &["t.a", "t.b"]).to_owned();
    let id = dice.random_range(0..1_000_u32).to_string();
    let mut fields = vec![
        ("specversion".to_owned(), Document::text("1.0")),
        ("id".to_owned(), Document::text(&id)),
        ("source".to_owned(), Document::text(word(dice, &["/s", "/t"]))),
        ("type".to_owned(), Document::text(&kind)),
        ("tenant".to_owned(), Document::text("acme")),
    ];
    if dice.random_ratio(1, 2) {
        fields.push(("subject".to_owned(), Document::text(word(dice, &["a", "us-east"]))));
    }
    if dice.random_ratio(1, 2) {
        let values =
            [Document::text("eu"), Document::Truth(true), Document::Number("7".to_owned())];
        fields.push(("region".to_owned(), pick(dice, &values).clone()));
    }
    if dice.random_ratio(9, 10) {
        let data = if dice.random_ratio(9, 10) { object(dice, 3) } else { value(dice, 2) };
        fields.push(("data".to_owned(), data));
    }
    let whole = Document::Object(fields);
    let mut text = String::new();
    whole.write(dice, &mut text);
    TestEvent { kind, whole, text }
}

fn object(dice: &mut StdRng, depth: u32) -> Document {
    let fields = (0..dice.random_range(0..5)).map(|_| {
        let name = word(dice, &NAMES).to_owned();
        (name, value(dice, depth))
    });
    Document::Object(fields.collect())
}

fn value(dice: &mut StdRng, depth: u32) -> Document {
    match dice.random_range(0..if depth == 0 { 8 } else { 12 }) {
        0 => Document::Null,
        1 => Document::Truth(dice.random_ratio(1, 2)),
        2..=4 => Document::Number(word(dice, &NUMBERS).to_owned()),
        5..=7 => Document::text(word(dice, &TEXTS)),
        8 | 9 => {
            let values = (0..dice.random_range(0..4)).map(|_| value(dice, depth - 1));
            Document::List(values.collect())
        }
        _ => object(dice, depth - 1),
    }
}

fn strategy(dice: &mut StdRng, events: &[TestEvent], number: usize) -> StrategyDefinition {
    let ignores = dice.random_ratio(1, 6);
    let workflow = WorkflowRef { name: "w".to_owned(), version: "1".to_owned() };
    // Without variables nothing but the pattern looks into the event.
    let run = Action::Run { workflow, variables: Some([].into()) };
    let like = &pick(dice, events).whole;
    // Compiling a condition is slow; a few show that it is asked at the right time.
    let when = dice.random_ratio(1, 30).then(|| {
        word(dice, &["true", "false", "event.tenant == 'acme'", "event.nothing == 1"]).to_owned()
    });
    StrategyDefinition {
        // Names that sort against the order of the bundle.
        name: format!("s{:02}", 99 - number),
        version: 1,
        tenant: word(dice, &["*", "acme", "acme", "beta"]).to_owned(),
        on: word(dice, &["t.a", "t.a", "t.b", "t.*", ">"]).to_owned(),
        pattern: dice.random_ratio(19, 20).then(|| pattern(dice, like)),
        when,
        priority: dice.random_range(-1..2),
        weight: dice.random_range(1..5),
        fan_out: !ignores && dice.random_ratio(1, 4),
        action: if ignores { Action::Ignore } else { run },
    }
}

fn pattern(dice: &mut StdRng, like: &Document) -> Value {
    let mut all = Map::new();
    let nothing = Document::Object(Vec::new());
    let data = like.field("data").unwrap_or(&nothing);
    if dice.random_ratio(4, 5) {
        all.insert("data".to_owned(), within(dice, data, 0));
    }
    for name in ["source", "subject", "region", "type"] {
        if dice.random_ratio(1, 8) {
            all.insert(name.to_owned(), alternatives(dice, like.field(name)));
        }
    }
    if all.is_empty() {
        all.insert("source".to_owned(), alternatives(dice, like.field("source")));
    }
    if dice.random_ratio(1, 8) {
        let either = [json!({ "data": within(dice, data, 1) }), json!({ "source": ["/t"] })];
        all.insert("$or".to_owned(), either.to_vec().into());
    }
    Value::Object(all)
}

/// What a value at a path may have to be: often what it is.
fn within(dice: &mut StdRng, like: &Document, depth: u32) -> Value {
    match like {
        Document::Object(fields) if !fields.is_empty() && depth < 4 => {
            let mut all = Map::new();
            for _ in 0..dice.random_range(1..3) {
                let name = &pick(dice, fields).0;
                let inside = like.field(name).unwrap_or(like);
                all.insert(name.clone(), within(dice, inside, depth + 1));
            }
            if dice.random_ratio(1, 6) {
                let name = word(dice, &NAMES).to_owned();
                let absent = json!([{ "exists": false }, word(dice, &TEXTS)]);
                all.entry(name).or_insert(absent);
            }
            if dice.random_ratio(1, 6) {
                let branches = (0..dice.random_range(2..4)).map(|_| field(dice, fields, depth + 1));
                all.insert("$or".to_owned(), branches.collect());
            }
            Value::Object(all)
        }
        Document::List(values) if !values.is_empty() => {
            let like = pick(dice, values).clone();
            within(dice, &like, depth)
        }
        // Below `data` a pattern may ask for a field of what is no object.
        _ if depth == 0 || dice.random_ratio(1, 20) => {
            let name = word(dice, &NAMES).to_owned();
            Value::Object([(name, alternatives(dice, None))].into_iter().collect())
        }
        scalar => alternatives(dice, Some(scalar)),
    }
}

fn field(dice: &mut StdRng, fields: &[(String, Document)], depth: u32) -> Value {
    let (name, like) = pick(dice, fields);
    Value::Object([(name.clone(), within(dice, like, depth))].into_iter().collect())
}

fn alternatives(dice: &mut StdRng, like: Option<&Document>) -> Value {
    let mut values = Vec::new();
    if dice.random_ratio(5, 6) {
        values.push(like.map_or_else(|| json!({ "exists": false }), |like| fitting(dice, like)));
    }
    while values.is_empty() || dice.random_ratio(1, 5) {
        let any = value(dice, 0);
        values.push(fitting(dice, &any));
    }
    values.into()
}

/// A predicate that holds for `like`, mostly.
fn fitting(dice: &mut StdRng, like: &Document) -> Value {
    match (like, dice.random_range(0..8)) {
        (_, 0) => json!({ "exists": dice.random_ratio(3, 4) }),
        (_, 1) => anything_but(dice),
        (Document::Text(text), _) => for_text(dice, text),
        (Document::Number(number), choice) => for_number(dice, number, choice),
        (Document::Truth(value), _) => json!(value),
        (Document::Null | Document::List(_) | Document::Object(_), _) => Value::Null,
    }
}

fn for_text(dice: &mut StdRng, text: &str) -> Value {
    let characters: Vec<char> = text.chars().collect();
    if characters.is_empty() {
        return if dice.random_ratio(1, 2) { json!("") } else { json!({ "wildcard": "*" }) };
    }
    let cut = dice.random_range(0..characters.len());
    let head: String = characters[..=cut].iter().collect();
    let tail: String = characters[cut..].iter().collect();
    if text.contains(['.', ':']) && dice.random_ratio(2, 3) {
        let networks = ["10.0.0.0/8", "10.0.0.0/16", "10.0.0.7/32", "2001:db8::/32", "::/0"];
        return json!({ "cidr": word(dice, &networks) });
    }
    match dice.random_range(0..9) {
        0 => json!({ "prefix": head }),
        1 => json!({ "suffix": tail }),
        2 => json!({ "prefix": { "equals-ignore-case": head.to_uppercase() } }),
        3 => json!({ "suffix": { "equals-ignore-case": tail.to_lowercase() } }),
        4 => json!({ "equals-ignore-case": text.to_uppercase() }),
        5 => wildcard(dice, &characters),
        _ => json!(text),
    }
}

fn wildcard(dice: &mut StdRng, characters: &[char]) -> Value {
    let mut text = String::new();
    for character in characters {
        if dice.random_ratio(1, 3) {
            if !text.ends_with('*') || text.ends_with(r"\*") {
                text.push('*');
            }
            continue;
        }
        if matches!(character, '*' | '\\') {
            text.push('\\');
        }
        text.push(*character);
    }
    json!({ "wildcard": if text.is_empty() { "*" } else { &text } })
}

fn for_number(dice: &mut StdRng, number: &str, choice: u32) -> Value {
    let bound = |dice: &mut StdRng| pick(dice, &[0.0, 0.1, 1.0, 2.5, 10.0, -5.0, 1e15]).to_owned();
    let exact: Value = match number {
        "1e400" | "0.1000000000000000000001" => json!(0.1),
        "-0.5e1" => json!(-5),
        "1E+2" => json!(1e2),
        other => serde_json::from_str(other).unwrap_or(Value::Null),
    };
    match choice {
        2 => json!({ "numeric": [word(dice, &["<", "<=", ">", ">=", "="]), bound(dice)] }),
        3 => {
            let (one, two) = (bound(dice), bound(dice));
            let (lower, upper) = if one <= two { (one, two) } else { (two, one) };
            json!({ "numeric": [">=", lower, "<=", upper] })
        }
        4 => json!({ "numeric": ["<", 20, ">", -20] }),
        5 => json!({ "numeric": ["=", exact] }),
        _ => exact,
    }
}

fn anything_but(dice: &mut StdRng) -> Value {
    let text = word(dice, &TEXTS[1..]).to_owned();
    let operand = match dice.random_range(0..6) {
        0 => json!(text),
        1 => json!([text, 1, 100]),
        2 => json!({ "prefix": [text, "us-"] }),
        3 => json!({ "suffix": text }),
        4 => json!({ "equals-ignore-case": text }),
        _ => json!({ "wildcard": "*a*" }),
    };
    json!({ "anything-but": operand })
}
