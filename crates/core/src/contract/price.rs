//! What checking one event by a schema costs, told from the schema and from how
//! much data there is: before it is checked, for a check cannot be interrupted.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::COST_MAX;
use super::cost::{Asking, Graph, Part};

/// Bytes of text that a keyword looks at in the time that it takes for a value.
const TEXT_BYTES_PER_LOOK: u64 = 16;
/// States of a regular expression that a byte is held against in the time that a
/// keyword takes.
const STATES_PER_STEP: u64 = 4;

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
        let most = |own: fn(&Asking) -> u64| Most::of(&graph, &leading, own);
        Self { keywords: most(|asking| asking.keywords), states: most(|asking| asking.states) }
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

/// What looks at one value at the most, in keywords or in states.
struct Most<'a> {
    graph: &'a Graph,
    leading: &'a BTreeSet<usize>,
    own: fn(&Asking) -> u64,
    loads: HashMap<usize, u64>,
    parts: HashMap<usize, BTreeMap<(Part, String), u64>>,
}

impl<'a> Most<'a> {
    fn of(graph: &'a Graph, leading: &'a BTreeSet<usize>, own: fn(&Asking) -> u64) -> u64 {
        let (loads, parts) = (HashMap::new(), HashMap::new());
        Most { graph, leading, own, loads, parts }.most(0)
    }

    /// Of a schema's value and its names, or of any part of it.
    fn most(&mut self, schema: usize) -> u64 {
        // What leads back meets itself again in parts: all of it counts.
        if self.leading.contains(&schema) {
            return self.graph.sum(schema, self.own, &mut BTreeSet::new(), &mut HashMap::new());
        }
        let parts = self.parts(schema);
        let of = |wanted: Part| {
            parts.iter().filter(move |((part, _), _)| *part == wanted).map(|(_, sum)| *sum)
        };
        let any = |one: Part, all: Part| {
            let all = of(all).fold(0, u64::saturating_add);
            all.saturating_add(of(one).max().unwrap_or(0))
        };
        let names = of(Part::Names).fold(0, u64::saturating_add);
        let below = any(Part::Property, Part::Properties).max(any(Part::Item, Part::Items));
        self.load(schema).saturating_add(names).max(below)
    }

    /// Of the schemas that look at the same value.
    fn load(&mut self, schema: usize) -> u64 {
        if let Some(load) = self.loads.get(&schema) {
            return *load;
        }
        let Some(asking) = self.graph.0.get(schema) else { return 0 };
        let mut load = (self.own)(asking);
        for asked in asking.asked.iter().filter(|asked| asked.part.is_none()) {
            load = load.saturating_add(self.load(asked.schema));
        }
        let load = load.saturating_mul(if asking.again { 2 } else { 1 });
        self.loads.insert(schema, load);
        load
    }

    /// Of each part of the value.
    fn parts(&mut self, schema: usize) -> BTreeMap<(Part, String), u64> {
        if let Some(parts) = self.parts.get(&schema) {
            return parts.clone();
        }
        let mut parts = BTreeMap::new();
        let mut add = |part: (Part, String), most: u64| {
            let sum = parts.entry(part).or_insert(0_u64);
            *sum = sum.saturating_add(most);
        };
        let graph = self.graph;
        let again = graph.0.get(schema).is_some_and(|asking| asking.again);
        let times = if again { 2 } else { 1 };
        for asked in graph.asked(schema) {
            match &asked.part {
                // One for finding out whether it is asked.
                Some(part) => {
                    let most = self.most(asked.schema).saturating_add(1);
                    add(part.clone(), most.saturating_mul(times));
                }
                None => {
                    for (part, most) in self.parts(asked.schema) {
                        add(part, most.saturating_mul(times));
                    }
                }
            }
        }
        self.parts.insert(schema, parts.clone());
        parts
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
            both.keywords > beside.keywords && one.keywords == beside.keywords + 1,
            "{one:?} {beside:?} {both:?}"
        );
    }

    #[test]
    fn what_leads_back_counts_as_often_as_it_can_meet_itself() {
        let chain = json!({"properties": {"below": {"$ref": "#"}}, "pattern": "abc", "items": {"pattern": "de"}});
        assert_eq!(price(&chain).states, 5);
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
