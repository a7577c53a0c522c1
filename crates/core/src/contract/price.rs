//! What checking one event by a schema costs, told from the schema and from how
//! much data there is: before it is checked, for a check cannot be interrupted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::COST_MAX;
use super::cost::{COST, Count, Graph, Part};

/// Bytes of text that a keyword looks at in the time that it takes for a value.
const TEXT_BYTES_PER_LOOK: u64 = 16;
/// States of a regular expression that a byte is held against in the time that a
/// keyword takes.
const STATES_PER_STEP: u64 = 4;

const KEYWORDS: Count = COST;
/// States of regular expressions; finding out whether a schema is asked holds nothing against one.
const STATES: Count = Count { own: |asking| asking.states, asked: 0, again: 2 };

/// What checking costs for each part of the data, at the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Keywords that look at one value, the schemas that it is handed on to included.
    pub keywords: u64,
    /// States of the regular expressions that look at one byte of text.
    pub states: u64,
}

/// How much data there is to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSize {
    /// Values, and the names of properties.
    pub values: u64,
    /// Bytes of texts and names, as JSON.
    pub text_bytes: u64,
}

impl DataSize {
    /// Of data as sound JSON; empty lists and objects count twice.
    #[must_use]
    pub fn of(json: &str) -> Self {
        let mut size = Self { values: 1, text_bytes: 0 };
        let (mut in_text, mut escaped) = (false, false);
        for byte in json.bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = !in_text,
                b',' | b':' | b'[' | b'{' if !in_text => size.values += 1,
                _ => {}
            }
            size.text_bytes += u64::from(in_text);
        }
        size
    }
}

impl Price {
    /// Of a schema without problems. `states_of` tells how many states a regular
    /// expression has.
    #[must_use]
    pub fn of(schema: &Value, states_of: &dyn Fn(&str) -> u64) -> Self {
        let Ok(graph) = Graph::weighed(schema, states_of) else {
            return Self { keywords: COST_MAX, states: 0 };
        };
        let (leading, _) = graph.leading_back();
        let most = |count| most(&graph, &leading, count);
        Self { keywords: most(KEYWORDS), states: most(STATES) }
    }

    /// What checking data of a size costs at the most: keywords that are looked at,
    /// and what regular expressions cost as much as.
    #[must_use]
    pub fn steps(&self, size: DataSize) -> u64 {
        let DataSize { values, text_bytes } = size;
        let looks = values.saturating_add(text_bytes / TEXT_BYTES_PER_LOOK);
        let states = text_bytes.saturating_mul(self.states) / STATES_PER_STEP;
        looks.saturating_mul(self.keywords).saturating_add(states)
    }
}

/// What looks at a schema's value and at its parts, in keywords or in states.
#[derive(Default)]
struct Most {
    /// At the value itself.
    load: u64,
    /// At each part of it.
    parts: BTreeMap<(Part, String), u64>,
    /// At the one of them, or of what lies below, that most looks at.
    most: u64,
}

/// What looks at one value at the most.
fn most(graph: &Graph, leading: &BTreeSet<usize>, count: Count) -> u64 {
    // What leads back meets itself again in parts: all of it counts.
    if leading.contains(&0) {
        return graph.sum(0, count, &mut BTreeSet::new(), &mut HashMap::new());
    }
    // Nothing leads back, so those that are asked come first. Written so because a
    // chain of schemas may be longer than the stack.
    let mut known: HashMap<usize, Most> = HashMap::new();
    let mut waiting = vec![0];
    while let Some(schema) = waiting.last().copied() {
        let asked = graph.asked(schema).iter().map(|asked| asked.schema);
        let unknown: Vec<usize> = asked.filter(|asked| !known.contains_key(asked)).collect();
        if unknown.is_empty() {
            waiting.pop();
            known.insert(schema, Most::of(graph, schema, count, &known));
        }
        waiting.extend(unknown);
    }
    known.get(&0).map_or(0, |root| root.most)
}

impl Most {
    /// Of a schema, where it is known of all that it asks.
    fn of(graph: &Graph, schema: usize, count: Count, known: &HashMap<usize, Self>) -> Self {
        let Some(asking) = graph.0.get(schema) else { return Self::default() };
        let times = if asking.again { count.again } else { 1 };
        let mut found = Self { load: (count.own)(asking), ..Self::default() };
        for asked in &asking.asked {
            let Some(below) = known.get(&asked.schema) else { continue };
            match &asked.part {
                Some(part) => found.add(part, below.most.saturating_add(count.asked)),
                None => {
                    found.load = found.load.saturating_add(below.load);
                    below.parts.iter().for_each(|(part, most)| found.add(part, *most));
                }
            }
        }
        found.load = found.load.saturating_mul(times);
        found.parts.values_mut().for_each(|most| *most = most.saturating_mul(times));
        found.most = found.load.saturating_add(found.names()).max(found.below());
        found
    }

    fn add(&mut self, part: &(Part, String), most: u64) {
        let sum = self.parts.entry(part.clone()).or_default();
        *sum = sum.saturating_add(most);
    }

    fn of_parts(&self, wanted: Part) -> impl Iterator<Item = u64> {
        self.parts.iter().filter(move |((part, _), _)| *part == wanted).map(|(_, most)| *most)
    }

    fn names(&self) -> u64 {
        self.of_parts(Part::Names).fold(0, u64::saturating_add)
    }

    /// At one property or item.
    fn below(&self) -> u64 {
        let any = |one: Part, all: Part| {
            let all = self.of_parts(all).fold(0, u64::saturating_add);
            all.saturating_add(self.of_parts(one).max().unwrap_or(0))
        };
        any(Part::Property, Part::Properties).max(any(Part::Item, Part::Items))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn price(schema: &Value) -> Price {
        Price::of(schema, &|pattern| pattern.len() as u64)
    }

    #[test]
    fn data_is_as_large_as_its_values_and_its_text() {
        let size = |json| DataSize::of(json);

        assert_eq!(size("1"), DataSize { values: 1, text_bytes: 0 });
        assert!(size("[1,2,3]").values >= 4);
        assert!(size(r#"{"a":1,"b":[2]}"#).values >= 6);
        let texts = size(r#"["a,b:[{\"","c"]"#);
        assert!(texts.values == 3 && texts.text_bytes >= 9, "{texts:?}");
    }

    #[test]
    fn only_what_looks_at_the_same_value_adds_up() {
        let string = json!({"type": "string", "pattern": "ab"});
        let one = price(&json!({"items": string}));
        let beside = price(
            &json!({"properties": {"a": string, "b": string, "c": {"$ref": "#/$defs/d"}}, "$defs": {"d": string}}),
        );
        let both = price(&json!({"items": {"allOf": [string, string]}}));
        let named =
            price(&json!({"properties": {"a": string}, "patternProperties": {"a": string}}));

        assert_eq!((one.states, beside.states), (2, 2));
        assert_eq!((both.states, named.states), (4, 4));
        assert!(
            both.keywords > beside.keywords && beside.keywords < 2 * one.keywords,
            "{one:?} {beside:?} {both:?}"
        );
    }

    #[test]
    fn what_leads_back_counts_as_often_as_it_can_meet_itself() {
        let chain = json!({"properties": {"below": {"$ref": "#"}}, "pattern": "abc", "items": {"pattern": "de"}});
        assert_eq!(price(&chain).states, 5);
    }

    #[test]
    fn a_chain_of_schemas_may_be_longer_than_the_stack() {
        let mut definitions = serde_json::Map::new();
        for at in 0..120 {
            let mut schema = json!({ "$ref": format!("#/$defs/d{}", at + 1) });
            for _ in 0..14 {
                schema = json!({ "items": { "not": schema } });
            }
            definitions.insert(format!("d{at}"), schema);
        }
        definitions.insert("d120".to_owned(), json!({"pattern": "abc"}));
        let long = json!({"$ref": "#/$defs/d0", "$defs": definitions});
        let thread = std::thread::Builder::new().stack_size(256 * 1024);

        let price = thread.spawn(move || price(&long)).unwrap().join().unwrap();
        assert_eq!(price.states, 3);
    }

    #[test]
    fn steps_grow_with_the_data() {
        let price = Price { keywords: 10, states: 8 };
        let steps = |values, text_bytes| price.steps(DataSize { values, text_bytes });

        assert_eq!(steps(100, 0), 1_000);
        assert_eq!(steps(1, 160), 110 + 160 * 8 / STATES_PER_STEP);
        assert_eq!(steps(u64::MAX, u64::MAX), u64::MAX);
    }
}
