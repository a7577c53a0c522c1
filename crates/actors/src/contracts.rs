//! Contracts, compiled once per change of definitions, and what events are
//! checked against them.
//!
//! Nothing is fetched: a schema that refers beyond itself was refused when it was
//! applied, and is refused here again by a compiler without a network. Regular
//! expressions run on an engine whose time is linear in the text.

use std::collections::HashMap;
use std::sync::Arc;

use fermata_core::command::{ContractEntry, ContractMode};
use fermata_core::contract::{PROBLEMS_MAX, read_schema, version_of};
use fermata_core::event::Event;
use fermata_core::partition::Definitions;
use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::Value;

/// Bytes that one compiled regular expression may take.
const PATTERN_SIZE_MAX: usize = 1024 * 1024;

/// Longest text about one event, in bytes; the rest is counted.
const DETAIL_BYTES_MAX: usize = 480;

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

/// What is wrong with data, each with the place as a JSON pointer.
#[must_use]
pub fn problems(validator: &Validator, data: &Value) -> Vec<String> {
    let mut errors = validator.iter_errors(data);
    let mut told: Vec<String> = errors
        .by_ref()
        .take(PROBLEMS_MAX)
        // The data itself stays out of records and letters' texts.
        .map(|error| format!("{}: {}", pointer(error.instance_path().as_str()), error.masked()))
        .collect();
    let rest = errors.count();
    if rest > 0 {
        told.push(format!("and {rest} more"));
    }
    told
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
            // Contracts stand in the order in which they were applied.
            versions.newest = version.clone();
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
            (None, None) if event.extensions.iter().any(|(name, _)| name == "dataref") => {
                return None;
            }
            (None, None) => Ok(Value::Null),
        };
        let data: Value = match data {
            Ok(data) => data,
            Err(error) => {
                return Some(format!("version `{named}`: the data cannot be read: {error}"));
            }
        };
        if validator.is_valid(&data) {
            return None;
        }
        Some(within(&format!("version `{named}`"), &problems(validator, &data)))
    }
}

/// As many problems as fit; the rest is counted.
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
    text
}

#[cfg(test)]
mod tests {
    use fermata_core::event::{EventLimits, Subject, decode_message};
    use fermata_core::json::Json;
    use serde_json::json;

    use super::*;

    fn definitions(mode: ContractMode, schemas: &[(&str, Value)]) -> Definitions {
        let entry = |(version, schema): &(&str, Value)| ContractEntry {
            tenant: "acme".parse().unwrap(),
            kind: "order.placed".into(),
            version: (*version).into(),
            schema: Json::from_value(schema),
        };
        Definitions {
            contracts: schemas.iter().map(entry).collect(),
            contract_modes: [("acme".into(), mode)].into(),
            ..Definitions::default()
        }
    }

    fn check(contracts: &Contracts, dataschema: Option<&str>, data: Value) -> Option<Breach> {
        let mut event = json!({
            "specversion": "1.0", "id": "1", "source": "/s", "type": "order.placed", "data": data,
        });
        if let Some(uri) = dataschema {
            event["dataschema"] = uri.into();
        }
        let text = event.to_string();
        let subject = Subject { tenant: "acme", kind: "order.placed" };
        let mut decoded = decode_message(None, text.as_bytes(), subject, &EventLimits::default());
        contracts.check(&decoded.remove(0).unwrap())
    }

    fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["amount"],
            "properties": {"amount": {"type": "integer"}, "note": {"pattern": "^[a-z]+$"}},
        })
    }

    #[test]
    fn a_breach_names_every_place_and_no_value() {
        let contracts = Contracts::new(&definitions(ContractMode::Enforce, &[("v1", schema())]));

        assert_eq!(check(&contracts, None, json!({"amount": 1})), None);
        let Some(Breach::Refuse(detail)) =
            check(&contracts, None, json!({"amount": "secret-1", "note": "SECRET-2"}))
        else {
            panic!()
        };
        assert!(detail.starts_with("version `v1`: ") && detail.contains("/amount: "), "{detail}");
        assert!(
            detail.contains("/note: ") && !detail.to_lowercase().contains("secret"),
            "{detail}"
        );
        assert!(detail.len() < 600);
    }

    #[test]
    fn an_event_is_checked_by_the_version_it_names_or_the_newest() {
        let older = json!({"required": ["old"]});
        let versions = [("v1", older), ("v2", schema())];
        let contracts = Contracts::new(&definitions(ContractMode::Warn, &versions));
        let uri = |version: &str| format!("https://acme.example/order/{version}");

        assert_eq!(check(&contracts, None, json!({"amount": 1})), None);
        assert_eq!(check(&contracts, Some(&uri("v1")), json!({"old": 1})), None);
        for (schema, data) in
            [(None, json!({"old": 1})), (Some("v1"), json!({"amount": 1})), (Some("v9"), json!({}))]
        {
            let breach = check(&contracts, schema.map(uri).as_deref(), data);
            assert!(matches!(breach, Some(Breach::Warn(_))), "{breach:?}");
        }
    }

    #[test]
    fn a_tenant_that_is_off_or_has_none_is_not_looked_at() {
        let off = Contracts::new(&definitions(ContractMode::Off, &[("v1", schema())]));
        assert!(off.tenants.is_empty());
        assert_eq!(check(&off, None, json!(1)), None);
    }

    #[test]
    fn a_pattern_of_exponential_time_is_linear_or_refused() {
        let nested = json!({"type": "string", "pattern": "^(a+)+$"}).to_string();
        let validator = compile(&nested).unwrap();
        assert!(!validator.is_valid(&json!(format!("{}!", "a".repeat(100_000)))));
        for refused in ["(?=a)b", "(a)\\1", "(a{1000}){1000}{1000}"] {
            assert!(compile(&json!({ "pattern": refused }).to_string()).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_contract_that_cannot_be_compiled_refuses_what_it_would_check() {
        let broken = [("v1", json!({"$ref": "#/$defs/none"}))];
        let contracts = Contracts::new(&definitions(ContractMode::Enforce, &broken));
        assert!(matches!(check(&contracts, None, json!({})), Some(Breach::Refuse(_))));
    }
}
