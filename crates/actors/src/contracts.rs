//! Contracts, compiled once per content, and what events are checked against them.
//!
//! Nothing is fetched: a schema that refers beyond itself was refused when it was
//! applied, and is refused here again by a compiler without a network. Regular
//! expressions run on an engine whose time is linear in the text. A check cannot be
//! interrupted, so its cost is told before it: what costs more than a message may is
//! not checked, and what costs more than little is not checked on the runtime's threads.

mod compiled;
mod stored;

use std::collections::HashMap;
use std::sync::Arc;

use fermata_core::command::{ContractEntry, ContractMode};
use fermata_core::contract::{
    CONTRACT_PATTERNS_MAX, DataSize, MESSAGE_STEPS_MAX, patterns_of, version_of,
};
use fermata_core::digest::Digest;
use fermata_core::effect::bounded_detail;
use fermata_core::event::{DATAREF_ATTRIBUTE, Event, PayloadReference};
use fermata_core::partition::Definitions;
use serde_json::Value;

pub use self::compiled::{Contract, compile};
pub use self::stored::{STORED_BYTES_MAX, StoredCheck};

/// Steps that one batch of a listener may take on the threads of the runtime, some
/// milliseconds: more than most batches need. The rest is checked on threads of its own.
const STEPS_AT_ONCE_MAX: u64 = 200_000;

/// Longest text about one event, in bytes; the rest is counted.
const DETAIL_BYTES_MAX: usize = 480;

/// Reason code of an event whose data breaks its contract.
const VIOLATION: &str = "contract_violation";

/// Reason code of an event whose data cannot be looked at.
const UNCHECKED: &str = "contract_unchecked";

/// Reason code of an event whose check would cost more than one may.
const TOO_COSTLY: &str = "contract_too_costly";

/// The contracts of all tenants.
#[derive(Debug, Default)]
pub struct Contracts {
    tenants: HashMap<Arc<str>, OfTenant>,
    /// What is compiled, by the digest of the schema's text: a version never changes,
    /// so most of it is there again after definitions have changed.
    compiled: HashMap<Digest, Compiled>,
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
    contracts: HashMap<Arc<str>, Compiled>,
}

/// A contract, or why there is none.
type Compiled = Result<Arc<Contract>, Arc<str>>;

/// What a contract says against an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Breach {
    /// The event goes on, and its records say this.
    Warn(String),
    /// The event is refused: a reason code, and what is wrong.
    Refuse(&'static str, String),
}

/// What is known of an event's data.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing speaks against it.
    Sound,
    /// This does.
    Breach(Breach),
    /// It has to be checked aside.
    Later(Check),
    /// Its data is in the store of payloads, and has to be checked when it was read.
    Stored(StoredCheck, PayloadReference),
}

/// A check that is to be done where it holds nobody up.
#[derive(Debug)]
pub struct Check {
    mode: ContractMode,
    version: Arc<str>,
    contract: Arc<Contract>,
    data: String,
}

impl Check {
    /// What the contract says against the data. It may take a second.
    #[must_use]
    pub fn breach(&self) -> Option<Breach> {
        let detail = self.contract.detail(&self.version, &self.data)?;
        breach(self.mode, VIOLATION, detail)
    }
}

/// How many steps may still be taken.
#[derive(Debug, Clone, Copy)]
pub struct Steps {
    /// On the threads of the runtime.
    at_once: u64,
    /// By the events of the message that is looked at.
    of_message: u64,
}

impl Default for Steps {
    fn default() -> Self {
        Self { at_once: STEPS_AT_ONCE_MAX, of_message: MESSAGE_STEPS_MAX }
    }
}

impl Steps {
    /// The events of another message are looked at.
    pub fn next_message(&mut self) {
        self.of_message = MESSAGE_STEPS_MAX;
    }
}

fn breach(mode: ContractMode, reason: &'static str, detail: String) -> Option<Breach> {
    match mode {
        ContractMode::Off => None,
        ContractMode::Warn => Some(Breach::Warn(detail)),
        ContractMode::Enforce => Some(Breach::Refuse(reason, detail)),
    }
}

impl Contracts {
    /// What is active now. What was compiled before is taken over. A contract that
    /// cannot be compiled refuses what it would have to check, where the tenant's mode
    /// is to enforce; one of a tenant whose mode is off is not compiled.
    ///
    /// Thousands of contracts take seconds: not to be called on a thread of the runtime.
    #[must_use]
    pub fn renewed(&self, definitions: &Definitions) -> Self {
        let mut contracts = Self::default();
        let mut patterns = 0;
        for ContractEntry { tenant, kind, version, schema } in &definitions.contracts {
            let mode = definitions.contract_mode(tenant.as_str());
            if mode == ContractMode::Off {
                continue;
            }
            let digest = Digest::of(schema.as_str().as_bytes());
            let known = contracts.compiled.get(&digest).cloned();
            let compiled = known.unwrap_or_else(|| {
                patterns += patterns_of(&schema.parse());
                let compiled = if patterns > CONTRACT_PATTERNS_MAX {
                    Err(Arc::from(format!("the contracts before it have {CONTRACT_PATTERNS_MAX} regular expressions already")))
                } else {
                    self.compiled.get(&digest).cloned().unwrap_or_else(|| {
                        let compiled = compile(schema.as_str()).map(Arc::new);
                        compiled.map_err(|problems| problems.join("; ").into())
                    })
                };
                if let Err(problem) = &compiled {
                    tracing::error!(%tenant, kind = &**kind, version = &**version, problem = &**problem, "a contract cannot be used");
                }
                contracts.compiled.insert(digest, compiled.clone());
                compiled
            });
            let types = &mut contracts
                .tenants
                .entry(tenant.as_str().into())
                .or_insert_with(|| OfTenant { mode, types: HashMap::new() })
                .types;
            let versions = types.entry(kind.clone()).or_insert_with(|| {
                let newest = definitions.newest_contract(tenant.as_str(), kind);
                let newest = newest.map_or(version, |newest| &newest.version).clone();
                Versions { newest, contracts: HashMap::new() }
            });
            versions.contracts.insert(version.clone(), compiled);
        }
        contracts
    }

    /// What the contract of its type says against an event; nothing where the
    /// tenant has none for it, which costs a look into a map that is mostly empty.
    /// Takes the check's steps from `steps`.
    #[must_use]
    pub fn check(&self, event: &Event<'_>, steps: &mut Steps) -> Verdict {
        let versions = self.tenants.get(event.tenant).and_then(|tenant| {
            let versions = tenant.types.get(&*event.kind)?;
            Some((tenant.mode, versions))
        });
        let Some((mode, versions)) = versions else { return Verdict::Sound };
        let found = |reason, detail: Option<String>| {
            let breach = detail.and_then(|detail| breach(mode, reason, detail));
            breach.map_or(Verdict::Sound, Verdict::Breach)
        };
        let (version, contract) = match versions.of(event) {
            Ok(of) => of,
            Err(detail) => return found(VIOLATION, Some(detail)),
        };
        let data = match (event.data, &event.data_base64) {
            (Some(data), _) => data.get(),
            (None, Some(_)) => {
                let detail = "the data is binary, the contract is about JSON";
                return found(VIOLATION, Some(format!("version `{version}`: {detail}")));
            }
            (None, None) => match event.payload() {
                // The listener refuses it for that.
                Err(_) => return Verdict::Sound,
                Ok(Some(reference)) if event.declares_json() => {
                    let (version, contract) = (version.clone(), contract.clone());
                    return Verdict::Stored(StoredCheck { mode, version, contract }, reference);
                }
                Ok(Some(_)) => {
                    let detail = "the stored data is not JSON, the contract is about JSON";
                    return found(VIOLATION, Some(format!("version `{version}`: {detail}")));
                }
                Ok(None) if refers_to_data(event) => {
                    let detail = "`dataref` leads to where it is not read; put the data into \
                                  the event or into the store of payloads";
                    let detail = format!("version `{version}`: not checked: {detail}");
                    return found(UNCHECKED, Some(detail));
                }
                Ok(None) => "null",
            },
        };
        let cost = contract.price().steps(DataSize::of(data));
        if cost > steps.of_message {
            return found(TOO_COSTLY, Some(too_costly(version, cost, steps.of_message)));
        }
        steps.of_message -= cost;
        if cost > steps.at_once {
            let (version, contract) = (version.clone(), contract.clone());
            return Verdict::Later(Check { mode, version, contract, data: data.to_owned() });
        }
        steps.at_once -= cost;
        found(VIOLATION, contract.detail(version, data))
    }
}

/// What is said of an event that is not checked.
fn too_costly(version: &str, cost: u64, left: u64) -> String {
    let room = if left == MESSAGE_STEPS_MAX {
        "send less data, or make the contract simpler".to_owned()
    } else {
        format!("{left} are left by the events before it in its message: send it by itself")
    };
    format!(
        "version `{version}`: not checked: it may take {cost} steps, more than the \
         {MESSAGE_STEPS_MAX} of one message; {room}"
    )
}

impl Versions {
    /// The contract by which an event is checked, or why there is none.
    fn of(&self, event: &Event<'_>) -> Result<(&Arc<str>, &Arc<Contract>), String> {
        let named = match &event.dataschema {
            None => &*self.newest,
            Some(uri) => version_of(uri).ok_or(
                "`dataschema` names no version: its last segment or fragment has to be one",
            )?,
        };
        match self.contracts.get_key_value(named) {
            None => Err(format!("there is no version `{named}` of the contract of this type")),
            Some((_, Err(problem))) => {
                Err(format!("version `{named}` of the contract cannot be used: {problem}"))
            }
            Some((version, Ok(contract))) => Ok((version, contract)),
        }
    }
}

/// Whether its data is somewhere else, where an absolute URI says. Any other `dataref` is no reason not to look at the data that is not there.
fn refers_to_data(event: &Event<'_>) -> bool {
    let reference = event.extensions.iter().find(|(name, _)| name == DATAREF_ATTRIBUTE);
    let uri = reference.and_then(|(_, value)| serde_json::from_str::<String>(value.get()).ok());
    uri.is_some_and(|uri| uri.split_once("://").is_some_and(|(_, place)| !place.is_empty()))
}

impl Contract {
    /// What speaks against data, for people.
    fn detail(&self, version: &str, data: &str) -> Option<String> {
        let parsed: Value = match serde_json::from_str(data) {
            Ok(data) => data,
            Err(error) => {
                return Some(format!("version `{version}`: the data cannot be read: {error}"));
            }
        };
        if self.is_valid(&parsed) {
            return None;
        }
        Some(within(&format!("version `{version}`"), &self.problems(&parsed, data)))
    }
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
mod stored_tests;
#[cfg(test)]
mod tests;
