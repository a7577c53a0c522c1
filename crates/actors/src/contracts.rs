//! Contracts, compiled once per change of definitions, and what events are
//! checked against them.
//!
//! Nothing is fetched: a schema that refers beyond itself was refused when it was
//! applied, and is refused here again by a compiler without a network. Regular
//! expressions run on an engine whose time is linear in the text.

use std::collections::HashMap;
use std::sync::Arc;

use fermata_core::command::{ContractEntry, ContractMode};
use fermata_core::contract::{PROBLEMS_MAX, major_of, read_schema, version_of};
use fermata_core::effect::bounded_detail;
use fermata_core::event::{DATAREF_ATTRIBUTE, Event};
use fermata_core::partition::Definitions;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;

/// Bytes that one compiled regular expression may take.
const PATTERN_SIZE_MAX: usize = 1024 * 1024;

/// Longest text about one event, in bytes; the rest is counted.
const DETAIL_BYTES_MAX: usize = 480;

/// Largest data of which every problem is told, in bytes of JSON: all problems of
/// larger data may be a hundred thousand, and the first one says enough.
const DETAILED_BYTES_MAX: usize = 16 * 1024;

/// The contracts of all tenants.
#[derive(Debug, Default)]
pub struct Contracts {
    tenants: HashMap<Arc<str>, OfTenant>,
}

#[derive(Debug)]
struct OfTenant {
    mode: ContractMode,
    types: HashMap<Arc<str>, Versions>,
}

/// By version, and which is the newest.
#[derive(Debug)]
struct Versions {
    newest: Arc<str>,
    validators: HashMap<Arc<str>, Compiled>,
}

/// A validator, or why there is none.
type Compiled = Result<Arc<Validator>, String>;

/// What a contract says against an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Breach {
    /// The event goes on, and its records say this.
    Warn(String),
    /// The event is refused.
    Refuse(String),
}

/// Compiles a schema.
///
/// # Errors
///
/// What is wrong with it, for people.
pub fn compile(text: &str) -> Result<Validator, Vec<String>> {
    let schema = read_schema(text)?;
    jsonschema::options()
        .with_draft(Draft::Draft202012)
        .with_pattern_options(
            PatternOptions::regex().size_limit(PATTERN_SIZE_MAX).dfa_size_limit(PATTERN_SIZE_MAX),
        )
        .should_validate_formats(false)
        .build(&schema)
        .map_err(|error| vec![format!("{}: {error}", pointer(error.instance_path().as_str()))])
}

/// What is wrong with `data`, each with the place as a JSON pointer; of data
/// that has more than `DETAILED_BYTES_MAX` bytes as JSON the first problem only.
#[must_use]
pub fn problems(validator: &Validator, data: &Value, bytes: usize) -> Vec<String> {
    // The data itself stays out of records and letters' texts.
    let told = |error: ValidationError<'_>| {
        format!("{}: {}", pointer(error.instance_path().as_str()), error.masked())
    };
    if bytes > DETAILED_BYTES_MAX {
        return validator.validate(data).err().map(told).into_iter().collect();
    }
    let mut errors = validator.iter_errors(data);
    let mut problems: Vec<String> = errors.by_ref().take(PROBLEMS_MAX).map(told).collect();
    let rest = errors.count();
    if rest > 0 {
        problems.push(format!("and {rest} more"));
    }
    problems
}

fn pointer(place: &str) -> &str {
    if place.is_empty() { "/" } else { place }
}

impl Contracts {
    /// Compiles what is active. A contract that cannot be compiled refuses what it
    /// would have to check, where the tenant's mode is to enforce.
    #[must_use]
    pub fn new(definitions: &Definitions) -> Self {
        let mut contracts = Self::default();
        for ContractEntry { tenant, kind, version, schema } in &definitions.contracts {
            let validator = compile(schema.as_str()).map(Arc::new);
            if let Err(problems) = &validator {
                tracing::error!(%tenant, kind = &**kind, version = &**version, ?problems, "a contract cannot be used");
            }
            let name: Arc<str> = tenant.as_str().into();
            let mode = definitions.contract_mode(tenant.as_str());
            let types = &mut contracts
                .tenants
                .entry(name)
                .or_insert_with(|| OfTenant { mode, types: HashMap::new() })
                .types;
            let versions = types.entry(kind.clone()).or_insert_with(|| Versions {
                newest: version.clone(),
                validators: HashMap::new(),
            });
            // They stand in the order in which they were applied; what mends an older
            // major version does not become the newest.
            if major_of(version) >= major_of(&versions.newest) {
                versions.newest = version.clone();
            }
            let validator = validator.map_err(|problems| problems.join("; "));
            versions.validators.insert(version.clone(), validator);
        }
        contracts.tenants.retain(|_, tenant| tenant.mode != ContractMode::Off);
        contracts
    }

    /// What the contract of its type says against an event; nothing where the
    /// tenant has none for it, which costs a look into a map that is mostly empty.
    #[must_use]
    pub fn check(&self, event: &Event<'_>) -> Option<Breach> {
        if self.tenants.is_empty() {
            return None;
        }
        let tenant = self.tenants.get(event.tenant)?;
        let versions = tenant.types.get(&*event.kind)?;
        let detail = versions.detail(event)?;
        match tenant.mode {
            ContractMode::Off => None,
            ContractMode::Warn => Some(Breach::Warn(detail)),
            ContractMode::Enforce => Some(Breach::Refuse(detail)),
        }
    }
}

impl Versions {
    fn detail(&self, event: &Event<'_>) -> Option<String> {
        let named =
            match &event.dataschema {
                None => &*self.newest,
                Some(uri) => match version_of(uri) {
                    Some(version) => version,
                    None => return Some(
                        "`dataschema` names no version: its last segment or fragment has to be one"
                            .to_owned(),
                    ),
                },
            };
        let validator = match self.validators.get(named) {
            None => {
                return Some(format!("there is no version `{named}` of the contract of this type"));
            }
            Some(Err(problem)) => {
                return Some(format!(
                    "version `{named}` of the contract cannot be used: {problem}"
                ));
            }
            Some(Ok(validator)) => validator,
        };
        let data = match (event.data, &event.data_base64) {
            (Some(data), _) => serde_json::from_str(data.get()),
            // Referred-to and binary data are not looked into.
            (None, Some(_)) => {
                return Some(format!(
                    "version `{named}`: the data is binary, the contract is about JSON"
                ));
            }
            (None, None) if refers_to_data(event) => return None,
            (None, None) => Ok(Value::Null),
        };
        let bytes = event.data.map_or(0, |data| data.get().len());
        let data: Value = match data {
            Ok(data) => data,
            Err(error) => {
                return Some(format!("version `{named}`: the data cannot be read: {error}"));
            }
        };
        if validator.is_valid(&data) {
            return None;
        }
        Some(within(&format!("version `{named}`"), &problems(validator, &data, bytes)))
    }
}

/// Whether its data is somewhere else: in the store of payloads, or where an absolute
/// URI says. Any other `dataref` is no reason not to look at the data that is not there.
fn refers_to_data(event: &Event<'_>) -> bool {
    let reference = event.extensions.iter().find(|(name, _)| name == DATAREF_ATTRIBUTE);
    let uri = reference.and_then(|(_, value)| serde_json::from_str::<String>(value.get()).ok());
    uri.is_some_and(|uri| uri.split_once("://").is_some_and(|(_, place)| !place.is_empty()))
}

/// As many problems as fit, each cut to what a record takes; the rest is counted.
fn within(head: &str, problems: &[String]) -> String {
    let mut text = head.to_owned();
    for (at, problem) in problems.iter().enumerate() {
        if at > 0 && text.len() + problem.len() > DETAIL_BYTES_MAX {
            text.push_str(&format!("; and {} more", problems.len() - at));
            break;
        }
        text.push_str(if at == 0 { ": " } else { "; " });
        text.push_str(problem);
    }
    bounded_detail(&text)
}

#[cfg(test)]
mod tests;
