//! One contract, ready to be asked.

use fermata_core::contract::{DataSize, PROBLEMS_MAX, Price, STATES_MAX, read_schema};
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use regex_automata::nfa::thompson;
use serde_json::Value;

/// Bytes that one compiled regular expression may take, and as much again for what
/// it remembers of a search. Default 256 KiB: several times what `\p{L}` needs, of
/// which two do not fit into 64 KiB.
const PATTERN_SIZE_MAX: usize = 256 * 1024;

/// Largest data of which every problem is told, in bytes of JSON: all problems of
/// larger data may be a hundred thousand, and the first one says enough.
const DETAILED_BYTES_MAX: usize = 16 * 1024;

/// Costliest check of which every problem is told, in steps: each branch of an `anyOf` that fails
/// is a problem that is made and mostly thrown away, which takes up to 1.5 µs where a step takes
/// some 30 ns.
const DETAILED_STEPS_MAX: u64 = 200_000;

/// A compiled schema, and what it costs to ask it.
#[derive(Debug)]
pub struct Contract {
    validator: Validator,
    price: Price,
}

/// Compiles a schema.
///
/// # Errors
///
/// What is wrong with it, for people.
pub fn compile(text: &str) -> Result<Contract, Vec<String>> {
    let schema = read_schema(text)?;
    let validator = jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(
            PatternOptions::regex().size_limit(PATTERN_SIZE_MAX).dfa_size_limit(PATTERN_SIZE_MAX),
        )
        .should_validate_formats(false)
        .build(&schema)
        .map_err(|error| vec![format!("{}: {error}", pointer(error.instance_path().as_str()))])?;
    let price = Price::of(&schema, &states_of);
    if price.states > STATES_MAX {
        let states = price.states;
        return Err(vec![format!(
            "regular expressions with {states} states may look at one text, at most {STATES_MAX}"
        )]);
    }
    Ok(Contract { validator, price })
}

/// How many states a regular expression has. One that cannot be told has as many as
/// are allowed: the compiler of schemas has taken it.
fn states_of(pattern: &str) -> u64 {
    let translated = jsonschema_regex::to_rust_regex(pattern);
    let config = thompson::Config::new().nfa_size_limit(Some(PATTERN_SIZE_MAX));
    let built = translated
        .ok()
        .and_then(|pattern| thompson::NFA::compiler().configure(config).build(&pattern).ok());
    built.map_or(STATES_MAX, |nfa| nfa.states().len() as u64)
}

impl Contract {
    /// What asking it costs.
    #[must_use]
    pub fn price(&self) -> Price {
        self.price
    }

    /// Whether data adheres to it.
    #[must_use]
    pub fn is_valid(&self, data: &Value) -> bool {
        self.validator.is_valid(data)
    }

    /// What is wrong with `data`, which is this as JSON, each with the place as a JSON
    /// pointer; of data that has more than `DETAILED_BYTES_MAX` bytes, or takes more than
    /// `DETAILED_STEPS_MAX`, the first problem only.
    #[must_use]
    pub fn problems(&self, data: &Value, json: &str) -> Vec<String> {
        // The data itself stays out of records and letters' texts.
        let told = |error: ValidationError<'_>| {
            format!("{}: {}", pointer(error.instance_path().as_str()), error.masked())
        };
        let is_costly = || self.price.steps(DataSize::of(json)) > DETAILED_STEPS_MAX;
        if json.len() > DETAILED_BYTES_MAX || is_costly() {
            return self.validator.validate(data).err().map(told).into_iter().collect();
        }
        let mut errors = self.validator.iter_errors(data);
        let mut problems: Vec<String> = errors.by_ref().take(PROBLEMS_MAX).map(told).collect();
        let rest = errors.count();
        if rest > 0 {
            problems.push(format!("and {rest} more"));
        }
        problems
    }
}

fn pointer(place: &str) -> &str {
    if place.is_empty() { "/" } else { place }
}
