//! What checking data by a schema may cost.
//!
//! References make a schema as large as one likes in a few lines: each of twenty
//! definitions that refers twice to the next one asks a million questions. Ones
//! that lead back ask again at every level of the data. So references are written
//! out, and what leads back may do so once for each part of the data: then a value
//! is looked at a bounded number of times, however deep it lies.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

use super::{COST_MAX, SAME_VALUE_DEPTH_MAX, push_token};

/// Keywords whose schemas look at the same value, as one, a list or a map.
/// `dependencies` is of older drafts; the library that checks takes it in all.
const SAME: [&str; 10] = [
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentSchemas",
    "dependencies",
    "$ref",
];
/// Keywords whose schemas look at parts of it.
const PARTS: [(&str, Part); 9] = [
    ("properties", Part::Property),
    ("patternProperties", Part::Properties),
    ("additionalProperties", Part::Properties),
    ("unevaluatedProperties", Part::Properties),
    ("propertyNames", Part::Names),
    ("prefixItems", Part::Item),
    ("items", Part::Items),
    ("contains", Part::Items),
    ("unevaluatedItems", Part::Items),
];
/// How many keywords `uniqueItems` counts as: it compares whole items, and at each
/// level of the data it may stand around them again.
const UNIQUE_KEYWORDS: u64 = 16;
/// How many keywords `multipleOf` counts as: it computes with exact fractions.
const MULTIPLE_KEYWORDS: u64 = 32;

/// Keywords that ask their neighbours once more what they looked at.
const ASKING_AGAIN: [&str; 2] = ["unevaluatedProperties", "unevaluatedItems"];

/// Which parts of a value a schema looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The property of a name.
    Property,
    /// Properties of any name.
    Properties,
    /// The names themselves.
    Names,
    /// The item at a place.
    Item,
    /// Items at any place.
    Items,
}

/// A schema that another one asks.
#[derive(Debug)]
pub(super) struct Asked {
    /// Its number.
    pub(super) schema: usize,
    /// Which part it is asked about, and the name or place of it where there is
    /// one; nothing where it is asked about the same value.
    pub(super) part: Option<(Part, String)>,
}

/// What is counted of schemas.
#[derive(Clone, Copy)]
pub(super) struct Count {
    /// What a schema has of it.
    pub(super) own: fn(&Asking) -> u64,
    /// What finding out costs whether a schema is asked.
    pub(super) asked: u64,
    /// How often what neighbours looked at counts where it is asked once more.
    pub(super) again: u64,
}

/// Keywords that may be looked at.
pub(super) const COST: Count = Count { own: |asking| asking.keywords, asked: 1, again: 2 };

/// A schema that is asked from the root on, and what it asks.
#[derive(Debug, Default)]
pub(super) struct Asking {
    /// Its JSON pointer.
    place: String,
    pub(super) asked: Vec<Asked>,
    /// Keywords of its own.
    pub(super) keywords: u64,
    /// States of its own regular expressions.
    pub(super) states: u64,
    pub(super) again: bool,
}

/// Tells what speaks against the cost of a schema; its references are `#` or `#/…`.
pub(super) fn problems(schema: &Value) -> Vec<String> {
    let graph = match Graph::of(schema) {
        Ok(graph) => graph,
        Err(problem) => return vec![problem],
    };
    // Each step relies on what the one before found in order.
    match graph.depth() {
        None => return vec!["a reference leads back without going into the data".to_owned()],
        Some(depth) if depth > SAME_VALUE_DEPTH_MAX => {
            return vec![format!(
                "more than {SAME_VALUE_DEPTH_MAX} schemas ask each other about the same value"
            )];
        }
        Some(_) => {}
    }
    if graph.sum(0, COST, &mut BTreeSet::new(), &mut HashMap::new()) > COST_MAX {
        return vec![format!(
            "checking costs more than {COST_MAX} keywords with every reference written out"
        )];
    }
    graph.growing()
}

/// Numbers for schemas that are asked, in the order in which they are met.
#[derive(Default)]
struct Numbers {
    known: HashMap<String, usize>,
    places: Vec<String>,
}

impl Numbers {
    fn of(&mut self, place: String) -> usize {
        if let Some(number) = self.known.get(&place) {
            return *number;
        }
        let number = self.places.len();
        self.known.insert(place.clone(), number);
        self.places.push(place);
        number
    }
}

fn asking(
    schema: &Value,
    place: String,
    numbers: &mut Numbers,
    states_of: &dyn Fn(&str) -> u64,
) -> Asking {
    let Value::Object(members) = schema else {
        return Asking { place, ..Asking::default() };
    };
    let mut asking = Asking { keywords: 1, ..Asking::default() };
    for (name, member) in members {
        asking.keywords += match name.as_str() {
            // Whoever lies around a value looks at it as well.
            "uniqueItems" => UNIQUE_KEYWORDS,
            "multipleOf" => MULTIPLE_KEYWORDS,
            _ => member.as_array().map_or(1, |items| items.len() as u64 + 1),
        };
        asking.states = asking.states.saturating_add(match (name.as_str(), member) {
            ("pattern", Value::String(pattern)) => states_of(pattern),
            ("patternProperties", Value::Object(schemas)) => {
                schemas.keys().map(|pattern| states_of(pattern)).fold(0, u64::saturating_add)
            }
            _ => 0,
        });
        asking.again |= ASKING_AGAIN.contains(&name.as_str());
        let part = PARTS.iter().find(|(keyword, _)| keyword == name).map(|(_, part)| *part);
        if part.is_none() && !SAME.contains(&name.as_str()) {
            continue;
        }
        let mut at = place.clone();
        push_token(&mut at, name);
        let by_name = matches!(
            name.as_str(),
            "properties" | "patternProperties" | "dependentSchemas" | "dependencies"
        );
        match member {
            Value::String(reference) if name == "$ref" => {
                let schema = numbers.of(reference.trim_start_matches('#').to_owned());
                asking.asked.push(Asked { schema, part: None });
            }
            Value::Array(items) => {
                for index in (0..items.len()).map(|index| index.to_string()) {
                    asking.ask(&at, &index, part, numbers);
                }
            }
            Value::Object(schemas) if by_name => {
                for property in schemas.keys() {
                    asking.ask(&at, property, part, numbers);
                }
            }
            Value::Object(_) | Value::Bool(_) => {
                let part = part.map(|part| (part, String::new()));
                asking.asked.push(Asked { schema: numbers.of(at), part });
            }
            Value::Null | Value::Number(_) | Value::String(_) => {}
        }
    }
    asking.place = place;
    asking
}

impl Asking {
    fn ask(&mut self, at: &str, token: &str, part: Option<Part>, numbers: &mut Numbers) {
        let mut place = at.to_owned();
        push_token(&mut place, token);
        let named = |part| match part {
            Part::Property | Part::Item => (part, token.to_owned()),
            Part::Properties | Part::Names | Part::Items => (part, String::new()),
        };
        self.asked.push(Asked { schema: numbers.of(place), part: part.map(named) });
    }
}

/// Every schema that is asked, by its number; the root is the first.
pub(super) struct Graph(pub(super) Vec<Asking>);

/// How often parts of one value are handed to schemas that lead back.
type Handed = BTreeMap<(Part, String), u64>;

impl Graph {
    fn of(root: &Value) -> Result<Self, String> {
        Self::weighed(root, &|_| 0)
    }

    /// With the weight of regular expressions.
    pub(super) fn weighed(root: &Value, states_of: &dyn Fn(&str) -> u64) -> Result<Self, String> {
        let mut numbers = Numbers::default();
        numbers.of(String::new());
        let mut schemas = Vec::new();
        while let Some(place) = numbers.places.get(schemas.len()).cloned() {
            let Some(schema) = root.pointer(&place) else {
                return Err(format!("a `$ref` leads to `#{place}`, which is not there"));
            };
            schemas.push(asking(schema, place, &mut numbers, states_of));
        }
        Ok(Self(schemas))
    }

    pub(super) fn asked(&self, schema: usize) -> &[Asked] {
        self.0.get(schema).map_or(&[], |asking| &asking.asked)
    }

    /// How many schemas ask each other about the same value at the most; nothing
    /// when they do so in a circle.
    fn depth(&self) -> Option<usize> {
        let same = |asked: &&Asked| asked.part.is_none();
        let mut depths: Vec<Option<usize>> = vec![None; self.0.len()];
        let mut depth = 0;
        // Round after round those whose asked ones are all known: written so
        // because a chain of schemas may be longer than the stack.
        loop {
            let mut known = Vec::new();
            for (schema, _) in depths.iter().enumerate().filter(|(_, depth)| depth.is_none()) {
                let asked = self.asked(schema).iter().filter(same);
                let below = asked.map(|asked| depths.get(asked.schema).copied().flatten());
                if let Some(below) = below.collect::<Option<Vec<_>>>() {
                    known.push((schema, below.into_iter().max().unwrap_or(0) + 1));
                }
            }
            if known.is_empty() {
                return depths.iter().all(Option::is_some).then_some(depth);
            }
            for (schema, found) in known {
                depth = depth.max(found);
                if let Some(slot) = depths.get_mut(schema) {
                    *slot = Some(found);
                }
            }
            if depth > SAME_VALUE_DEPTH_MAX {
                return Some(depth);
            }
        }
    }

    /// What all schemas from one on have of their own, references written out; what
    /// is under way already leads back and counts when it is looked at again, in a
    /// part of the data.
    pub(super) fn sum(
        &self,
        schema: usize,
        count: Count,
        under_way: &mut BTreeSet<usize>,
        known: &mut HashMap<usize, u64>,
    ) -> u64 {
        if let Some(sum) = known.get(&schema) {
            return *sum;
        }
        let Some(asking) = self.0.get(schema) else { return 0 };
        if !under_way.insert(schema) {
            return count.asked;
        }
        let mut sum = (count.own)(asking);
        for asked in &asking.asked {
            sum = sum.saturating_add(self.sum(asked.schema, count, under_way, known));
        }
        under_way.remove(&schema);
        let sum = sum.saturating_mul(if asking.again { count.again } else { 1 });
        known.insert(schema, sum);
        sum
    }

    /// Which schemas lead to one that leads back to itself, and which of those lie
    /// between such: what never ends forwards, and neither backwards.
    pub(super) fn leading_back(&self) -> (BTreeSet<usize>, BTreeSet<usize>) {
        let all: BTreeSet<usize> = (0..self.0.len()).collect();
        let edges = |schema: &usize| {
            let schema = *schema;
            self.asked(schema).iter().map(move |asked| (schema, asked.schema))
        };
        let leading = never_ending(&all, all.iter().flat_map(edges));
        let within = leading.iter().flat_map(edges).filter(|(_, to)| leading.contains(to));
        let between = never_ending(&leading, within.map(|(from, to)| (to, from)));
        (leading, between)
    }

    /// Schemas that lead back to themselves more than once for a part of the data.
    fn growing(&self) -> Vec<String> {
        let (leading, between) = self.leading_back();
        let mut known = HashMap::new();
        let mut problems = Vec::new();
        for schema in &between {
            let Some(asking) = self.0.get(*schema) else { continue };
            let shown = if asking.place.is_empty() { "/" } else { &asking.place };
            if asking.again {
                problems.push(format!(
                    "{shown}: `unevaluated…` does not go with a reference that leads back"
                ));
            }
            if is_handed_twice(&self.handed(*schema, &leading, &mut known)) {
                problems.push(format!(
                    "{shown}: references lead back more than once for the same part of the data"
                ));
            }
        }
        problems.truncate(super::PROBLEMS_MAX);
        problems
    }

    fn handed(
        &self,
        schema: usize,
        leading: &BTreeSet<usize>,
        known: &mut HashMap<usize, Handed>,
    ) -> Handed {
        if let Some(handed) = known.get(&schema) {
            return handed.clone();
        }
        let mut handed = Handed::new();
        for asked in self.asked(schema) {
            match &asked.part {
                Some(part) if leading.contains(&asked.schema) => {
                    *handed.entry(part.clone()).or_default() += 1;
                }
                Some(_) => {}
                None => {
                    for (part, times) in self.handed(asked.schema, leading, known) {
                        let sum = handed.entry(part).or_default();
                        *sum = sum.saturating_add(times);
                    }
                }
            }
        }
        known.insert(schema, handed.clone());
        handed
    }
}

/// Schemas from which edges can be followed for ever.
fn never_ending(
    schemas: &BTreeSet<usize>,
    edges: impl Iterator<Item = (usize, usize)>,
) -> BTreeSet<usize> {
    let mut from: HashMap<usize, usize> = HashMap::new();
    let mut into: HashMap<usize, Vec<usize>> = HashMap::new();
    for (begin, end) in edges {
        *from.entry(begin).or_default() += 1;
        into.entry(end).or_default().push(begin);
    }
    let mut ends: Vec<usize> =
        schemas.iter().copied().filter(|schema| !from.contains_key(schema)).collect();
    let mut rest = schemas.clone();
    while let Some(end) = ends.pop() {
        rest.remove(&end);
        for begin in into.get(&end).into_iter().flatten() {
            if let Some(left) = from.get_mut(begin) {
                *left -= 1;
                if *left == 0 {
                    ends.push(*begin);
                }
            }
        }
    }
    rest
}

fn is_handed_twice(handed: &Handed) -> bool {
    let of = |wanted: Part| {
        handed.iter().filter(move |((part, _), _)| *part == wanted).map(|(_, times)| *times)
    };
    let any = |one: Part, all: Part| {
        let all = of(all).fold(0, u64::saturating_add);
        all.saturating_add(of(one).max().unwrap_or(0)) > 1
    };
    any(Part::Property, Part::Properties) || any(Part::Item, Part::Items)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    /// Each definition refers `times` to the next one.
    fn doubling(depth: usize, keyword: &str) -> Value {
        let mut definitions = Map::new();
        for at in 0..depth {
            let next = json!({ "$ref": format!("#/$defs/d{}", at + 1) });
            let both = json!([next, next]);
            definitions.insert(format!("d{at}"), json!({ keyword: both }));
        }
        definitions.insert(format!("d{depth}"), json!({"type": "string"}));
        json!({ "$ref": "#/$defs/d0", "$defs": definitions })
    }

    #[test]
    fn dependencies_of_older_drafts_count_like_those_of_newer_ones() {
        for keyword in ["dependencies", "dependentSchemas"] {
            let circle = json!({ keyword: { "a": { "$ref": "#" } } });
            assert!(problems(&circle)[0].contains("without going into the data"), "{circle}");
        }
        assert_eq!(problems(&json!({"dependencies": {"a": ["b"]}})), Vec::<String>::new());
    }

    #[test]
    fn references_that_double_are_counted_written_out() {
        assert_eq!(problems(&doubling(5, "allOf")), Vec::<String>::new());
        assert!(problems(&doubling(40, "prefixItems"))[0].contains("checking costs more"));
    }

    #[test]
    fn what_leads_back_has_to_go_into_the_data() {
        for circle in [
            json!({"$ref": "#"}),
            json!({"allOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"not": {"$ref": "#"}}}}),
            json!({
                "if": {"$ref": "#/$defs/a"},
                "$defs": {"a": {"then": {"$ref": "#/$defs/b"}}, "b": {"else": {"$ref": "#/$defs/a"}}},
            }),
        ] {
            assert!(problems(&circle)[0].contains("without going into the data"), "{circle}");
        }
        assert!(problems(&doubling(16, "not"))[0].contains("about the same value"));
        assert!(problems(&json!({"$ref": "#/$defs/none"}))[0].contains("not there"));
    }

    #[test]
    fn what_leads_back_does_so_once_for_each_part_of_the_data() {
        let once = [
            json!({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}}),
            json!({"items": {"$ref": "#"}, "additionalProperties": {"$ref": "#"}}),
            json!({"oneOf": [{"type": "string"}, {"items": {"$ref": "#"}}]}),
            json!({"prefixItems": [{"$ref": "#"}, {"$ref": "#"}]}),
        ];
        for schema in once {
            assert_eq!(problems(&schema), Vec::<String>::new(), "{schema}");
        }
        let item = json!({"items": {"$ref": "#"}});
        let twice = [
            json!({ "oneOf": [item, item] }),
            json!({"items": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}),
            json!({"items": {"$ref": "#"}, "contains": {"$ref": "#"}}),
            json!({"properties": {"a": {"$ref": "#"}}, "patternProperties": {"b": {"$ref": "#"}}}),
            json!({"items": {"$ref": "#"}, "unevaluatedProperties": false}),
            json!({
                "items": {"allOf": [{"$ref": "#"}, {"$ref": "#/$defs/a"}]},
                "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}},
            }),
        ];
        for schema in twice {
            assert!(!problems(&schema).is_empty(), "{schema}");
        }
    }
}
