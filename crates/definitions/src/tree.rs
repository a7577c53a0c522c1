//! A document as a tree whose values know where they stand.

use std::fmt;

use fermata_core::json::Json;
use fermata_core::plan::NODES_MAX;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::{Location, Spanned};

use crate::build::shown;
use crate::problem::Problems;

/// Deepest nesting of a document; the deepest that the language knows is 7,
/// the rest is room for schemas.
pub const DEPTH_MAX: usize = 64;

/// Most values of one list, and most keys of one mapping: as many as a workflow has tasks, and
/// longer lists of constants are refused with it. Counted while reading, so that a longer one
/// costs no more than this.
pub const ITEMS_MAX: usize = NODES_MAX;

/// How large a document may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest text in bytes.
    pub bytes_max: usize,
    /// Most values, keys included.
    pub values_max: usize,
}

impl Limits {
    /// For documents that people write: 256 KiB, 20,000 values.
    pub const WRITTEN: Self = Self { bytes_max: 256 * 1_024, values_max: 20_000 };
    /// For documents that programs write: 16 MiB, 900,000 values, enough for a hundred
    /// thousand tasks that wait for one other each. Keys count, and so do lists and
    /// mappings. More takes longer than a second to read.
    pub const GENERATED: Self = Self { bytes_max: 16 * 1_024 * 1_024, values_max: 900_000 };
}

impl Default for Limits {
    fn default() -> Self {
        Self::WRITTEN
    }
}

/// Line and column in characters, both from 1; zeros when there is no text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Place {
    fn of(location: Location) -> Self {
        let number = |number| u32::try_from(number).unwrap_or(u32::MAX);
        Self { line: number(location.line()), column: number(location.column()) }
    }
}

/// A value and where it starts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Located {
    pub(crate) start: Place,
    pub(crate) value: Tree,
}

/// The kinds of values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Located>),
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_start: Place,
    pub(crate) value: Located,
}

impl Located {
    /// Parses one document.
    pub(crate) fn parse(source: &str, limits: &Limits, problems: &mut Problems) -> Option<Self> {
        if source.len() > limits.bytes_max {
            let message = format!(
                "the document has {} bytes, at most {} are allowed",
                source.len(),
                limits.bytes_max
            );
            problems.add(Place::default(), "", message);
            return None;
        }
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_reader_input_bytes: Some(limits.bytes_max),
                max_events: limits.values_max.saturating_mul(2),
                max_nodes: limits.values_max,
                max_depth: DEPTH_MAX,
                max_aliases: 0,
                max_anchors: 0,
                max_merge_keys: 0,
                max_documents: 1,
                max_total_scalar_bytes: limits.bytes_max,
                flow_nesting_limit: DEPTH_MAX,
            },
            duplicate_keys: serde_saphyr::DuplicateKeyPolicy::Error,
            merge_keys: serde_saphyr::MergeKeyPolicy::Error,
            strict_booleans: true,
            with_snippet: false,
        };
        match serde_saphyr::from_str_with_options(source, options) {
            Ok(document) => Some(document),
            Err(error) => {
                let place = error.location().map(Place::of).unwrap_or_default();
                let message = message_of(&error);
                match message == too_deep() {
                    true => problems.add_with_hint(place, "", message, DEPTH_HINT),
                    false => problems.add(place, "", message),
                }
                None
            }
        }
    }

    /// The value at `path`, or the innermost one around it that exists.
    pub(crate) fn find(&self, path: &str) -> &Self {
        let mut found = self;
        for segment in path.split(['.', '[']) {
            let next = match &found.value {
                Tree::Map(entries) => {
                    entries.iter().find(|entry| entry.key == segment).map(|entry| &entry.value)
                }
                Tree::List(items) => {
                    segment.strip_suffix(']').and_then(|at| items.get(at.parse::<usize>().ok()?))
                }
                Tree::Null | Tree::Bool(_) | Tree::Number(_) | Tree::Text(_) => None,
            };
            match next {
                Some(next) => found = next,
                None => return found,
            }
        }
        found
    }

    /// The place of a line and column inside of this text value. Exact for
    /// plain and block texts; escapes in a quoted text move what follows them.
    pub(crate) fn inside(&self, source: &str, line: u32, column: u32) -> Place {
        let text = source.lines().nth(self.start.line.saturating_sub(1) as usize);
        let before = self.start.column.saturating_sub(1);
        let opening = text.and_then(|text| text.chars().nth(before as usize));
        let quoted = line == 1 && matches!(opening, Some('"' | '\''));
        // A block starts with its first line, whose indentation all share.
        Place {
            line: self.start.line.saturating_add(line - 1),
            column: before.saturating_add(column).saturating_add(u32::from(quoted)),
        }
    }

    /// The value without its places.
    pub(crate) fn to_json(&self) -> Value {
        match &self.value {
            Tree::Null => Value::Null,
            Tree::Bool(value) => Value::Bool(*value),
            Tree::Number(number) => Value::Number(number.clone()),
            Tree::Text(text) => Value::String(text.clone()),
            Tree::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Tree::Map(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
            ),
        }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            Tree::Null => "nothing",
            Tree::Bool(_) => "true or false",
            Tree::Number(_) => "a number",
            Tree::Text(_) => "a text",
            Tree::List(_) => "a list",
            Tree::Map(_) => "a mapping",
        }
    }
}

/// What to do about a document that nests too deep.
const DEPTH_HINT: &str = "is a bracket or a mapping left open? Make it flatter otherwise: nothing in it has to nest so deep";

fn too_deep() -> String {
    format!("the document nests deeper than {DEPTH_MAX} levels")
}

/// The parser's message on one line, of bounded length, without the place
/// that is told apart.
fn message_of(error: &serde_saphyr::Error) -> String {
    const CHARACTERS_MAX: usize = 200;
    use serde_saphyr::Error;
    let error = error.without_snippet();
    if let Error::DuplicateMappingKey { key: Some(key), .. } = error {
        return format!("`{}` is there twice", shown(key));
    }
    if let Error::Budget { .. } = error {
        let text = error.to_string().to_lowercase();
        if text.contains("alias") || text.contains("anchor") {
            return "anchors and aliases (`&a`, `*a`) are not allowed".to_owned();
        }
        if text.contains("depth") {
            return too_deep();
        }
        if text.contains("documents") {
            return "there is more than one YAML document (`---`); one file holds one".to_owned();
        }
    }
    let text = error.to_string();
    // Brackets in a line are counted by the scanner, which has a word of its own for it.
    if text.starts_with("recursion limit") {
        return too_deep();
    }
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(CHARACTERS_MAX).collect()
}

impl<'de> Deserialize<'de> for Located {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Tree>::deserialize(deserializer)?;
        Ok(Self { start: Place::of(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Tree, E> {
        Ok(Tree::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Tree, E> {
        Number::from_f64(number)
            .map(Tree::Number)
            .ok_or_else(|| E::custom("numbers must be finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
        Ok(Tree::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Tree, E> {
        Ok(Tree::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            if list.len() == ITEMS_MAX {
                return Err(serde::de::Error::custom(format!(
                    "a list has at most {ITEMS_MAX} values"
                )));
            }
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            if list.len() == ITEMS_MAX {
                return Err(serde::de::Error::custom(format!(
                    "a mapping has at most {ITEMS_MAX} keys"
                )));
            }
            let value = entries.next_value()?;
            list.push(Entry { key: key.value, key_start: Place::of(key.referenced), value });
        }
        Ok(Tree::Map(list))
    }
}

impl From<&Located> for Json {
    fn from(located: &Located) -> Self {
        Self::from_value(&located.to_json())
    }
}
