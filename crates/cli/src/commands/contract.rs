//! `fermata contract`: what the data of events adheres to.

mod suspected;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use fermata_actors::contracts::compile;
use fermata_core::command::{ContractEntry, ContractMode};
use fermata_core::contract::{
    DataSize, MESSAGE_STEPS_MAX, VERSION_RULE, incompatibilities, major_of,
};
use fermata_core::identity::{NotATenant, Tenant};
use fermata_core::json::{Json, told};
use fermata_core::partition::Definitions;
use fermata_definitions::{meant, nearest, suspected_keywords};
use serde_json::{Value, json};

use self::suspected::{Applied, suspected};
use super::definitions::{Asked, NewDefinitions, make_active, print_answer, read_text};
use super::known_tenants::{KnownTenants, tell_nothing};
use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Tone};

/// What to do with contracts.
#[derive(Debug, Subcommand)]
pub enum ContractCommand {
    /// Make a version of a contract active, or say what is done about breaches
    #[command(after_help = "\
A version never changes. The next one of the same major version has to take what the
newest took; what is incompatible is another major version (`v2` after `v1.3`).

Examples:
  fermata contract apply --tenant acme --type order.placed --version v1 order.schema.json
  fermata contract apply --tenant acme --mode enforce")]
    Apply(ApplyArguments),
    /// List the active contracts
    #[command(after_help = "Examples:\n  fermata contract list --tenant acme")]
    List(ListArguments),
    /// Show the schema of a contract
    #[command(after_help = "Examples:\n  fermata contract show --tenant acme --type order.placed")]
    Show(ShowArguments),
    /// Check a schema, and data against it, without a broker
    #[command(after_help = "\
Examples:
  fermata contract check order.schema.json
  fermata contract check order.schema.json --data order.json
  fermata contract check order-2.schema.json --after order.schema.json")]
    Check(CheckArguments),
}

/// Arguments of `fermata contract apply`.
#[derive(Debug, Clone, Args)]
pub struct ApplyArguments {
    /// File with the JSON Schema (2020-12) of the events' data
    #[arg(value_name = "FILE", requires_all = ["kind", "version"], required_unless_present = "mode")]
    pub file: Option<PathBuf>,
    /// Whose events they are
    #[arg(long, value_parser = tenant)]
    pub tenant: Tenant,
    /// Type of the events
    #[arg(long = "type", value_name = "TYPE", requires = "file")]
    pub kind: Option<String>,
    /// Name of the version, as the last segment or the fragment of `dataschema` names it
    #[arg(long, value_name = "NAME", requires = "file")]
    pub version: Option<String>,
    /// What is done about breaches, for all contracts of the tenant; `warn` until it is said
    #[arg(long, value_enum)]
    pub mode: Option<Mode>,
    /// Who asks, for the audit log; default: the user of the operating system
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
}

/// Reads the name of a tenant, where a type may have been typed.
fn tenant(text: &str) -> Result<Tenant, String> {
    text.parse().map_err(|error: NotATenant| match text.contains('.') {
        true => format!("{error}; types have dots: `--tenant acme --type order.placed`"),
        false => error.to_string(),
    })
}

/// What is done about breaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Nothing is checked
    Off,
    /// The event goes on, and its records say what was wrong
    Warn,
    /// The event is rejected, `contract_violation`
    Enforce,
}

impl From<Mode> for ContractMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Off => Self::Off,
            Mode::Warn => Self::Warn,
            Mode::Enforce => Self::Enforce,
        }
    }
}

/// Arguments of `fermata contract list`.
#[derive(Debug, Clone, Args)]
pub struct ListArguments {
    /// Only what is of this tenant
    #[arg(long)]
    pub tenant: Option<String>,
}

/// Arguments of `fermata contract show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArguments {
    /// Whose events they are
    #[arg(long)]
    pub tenant: String,
    /// Type of the events
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: String,
    /// Name of the version; default: the newest
    #[arg(long, value_name = "NAME")]
    pub version: Option<String>,
}

/// Arguments of `fermata contract check`.
#[derive(Debug, Clone, Args)]
pub struct CheckArguments {
    /// File with the JSON Schema
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// File with data to check against it; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// The version before, which this one has to be compatible with
    #[arg(long, value_name = "FILE")]
    pub after: Option<PathBuf>,
}

/// Does what was typed.
///
/// # Errors
///
/// When a file cannot be read, or broker or engine does not answer.
///
/// # Cancel safety
///
/// When `apply` is dropped, the contract may become active.
pub async fn run(
    command: ContractCommand,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    match command {
        ContractCommand::Apply(arguments) => apply(arguments, global, output).await,
        ContractCommand::List(arguments) => {
            let session = BrokerSession::open(global).await?;
            list(&arguments, &session, output).await
        }
        ContractCommand::Show(arguments) => {
            let session = BrokerSession::open(global).await?;
            show(&arguments, &session, output).await
        }
        ContractCommand::Check(arguments) => check(&arguments, output),
    }
}

async fn apply(
    arguments: ApplyArguments,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let mut contracts = Vec::new();
    let mut warnings = Vec::new();
    if let (Some(file), Some(kind), Some(version)) =
        (&arguments.file, &arguments.kind, &arguments.version)
    {
        if major_of(version).is_none() {
            return Err(CliError::Usage(VERSION_RULE.to_owned()));
        }
        let text = read_text(file)?;
        if let Err(found) = compile(&text) {
            return refused(&found, output);
        }
        let schema = parsed(&text, file)?;
        warnings.extend(suspected_keywords(&schema));
        contracts.push(ContractEntry {
            tenant: arguments.tenant.clone(),
            kind: kind.as_str().into(),
            version: version.as_str().into(),
            schema: Json::from_value(&schema),
        });
    }
    let mode_of = format!("the mode of tenant `{}`", arguments.tenant);
    let what = match (contracts.first(), arguments.mode) {
        (Some(ContractEntry { kind, version, .. }), None) => {
            format!("contract `{kind}` version `{version}`")
        }
        (Some(ContractEntry { kind, version, .. }), Some(_)) => {
            format!("contract `{kind}` version `{version}` and {mode_of}")
        }
        (None, _) => mode_of,
    };
    let mode = arguments.mode.map(|mode| (arguments.tenant.as_str().into(), mode.into()));
    let contract_modes = mode.into_iter().collect::<BTreeMap<_, _>>();
    let contract = contracts.first().cloned();
    let new = NewDefinitions { contracts, contract_modes, ..NewDefinitions::default() };
    let mut answer = make_active(new, arguments.by, global, output).await?;
    if answer.problems.is_empty() {
        let (tenant, contract) = (arguments.tenant.as_str(), contract.as_ref());
        // What is active is told whether it can be read or not.
        if let Ok(session) = BrokerSession::open(global).await {
            let found = suspected(&session, answer.revision, Applied { tenant, contract }).await;
            warnings.extend(found.unwrap_or_default());
        }
        answer.warnings = warnings;
    }
    print_answer(Asked::Apply, &answer, &what, output)
}

/// The JSON that a file holds.
fn parsed(text: &str, file: &Path) -> Result<Value, CliError> {
    serde_json::from_str(text).map_err(|error| {
        CliError::Usage(format!("`{}` is no JSON: {}", file.display(), told(&error, text)))
    })
}

fn refused(found: &[String], output: &mut Output) -> Result<ExitCode, CliError> {
    if output.is_json() {
        output.json_line(&json!({ "problems": found }))?;
    } else {
        for problem in found {
            let title = output.tone(Tone::Bad, "refused");
            output.line(&format!("{title}: {problem}"))?;
        }
    }
    Ok(ExitCode::Findings)
}

fn mode_text(mode: ContractMode) -> &'static str {
    match mode {
        ContractMode::Off => "off",
        ContractMode::Warn => "warn",
        ContractMode::Enforce => "enforce",
    }
}

async fn list(
    arguments: &ListArguments,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let active = session.active_definitions().await?;
    let takes = |entry: &&ContractEntry| {
        arguments.tenant.as_ref().is_none_or(|tenant| entry.tenant.as_str() == tenant)
    };
    let found: Vec<_> = active.contracts.iter().filter(takes).collect();
    // What is done about breaches can be said before there is a contract to break.
    let has_contract = |tenant: &str| found.iter().any(|entry| entry.tenant.as_str() == tenant);
    let alone = active.contract_modes.iter().filter(|(tenant, _)| {
        arguments.tenant.as_ref().is_none_or(|wanted| ***tenant == **wanted)
            && !has_contract(tenant)
    });
    let alone: Vec<_> = alone.collect();
    if found.is_empty() && alone.is_empty() {
        let known = KnownTenants::of(&active);
        if let Some(text) = known.nothing_of(arguments.tenant.as_deref(), "contracts") {
            tell_nothing(&text, output)?;
            return Ok(ExitCode::Success);
        }
    }
    if output.is_json() {
        for (tenant, mode) in alone {
            output.json_line(&json!({
                "tenant": tenant, "type": null, "version": null, "mode": mode_text(*mode), "bytes": 0,
            }))?;
        }
        for entry in found {
            output.json_line(&json!({
                "tenant": entry.tenant.as_str(), "type": entry.kind, "version": entry.version,
                "mode": mode_text(active.contract_mode(entry.tenant.as_str())),
                "bytes": entry.schema.as_str().len(),
            }))?;
        }
        return Ok(ExitCode::Success);
    }
    let row = |entry: &ContractEntry| {
        vec![
            entry.tenant.to_string(),
            entry.kind.to_string(),
            entry.version.to_string(),
            mode_text(active.contract_mode(entry.tenant.as_str())).to_owned(),
            entry.schema.as_str().len().to_string(),
        ]
    };
    let columns = ["TENANT", "TYPE", "VERSION", "MODE", "BYTES"];
    let when_empty = "no contracts are active; apply some with `fermata contract apply`";
    let none = || "-".to_owned();
    let mode_alone = |(tenant, mode): (&Arc<str>, &ContractMode)| {
        vec![tenant.to_string(), none(), none(), mode_text(*mode).to_owned(), none()]
    };
    let rows = found.into_iter().map(row).chain(alone.into_iter().map(mode_alone));
    output.table(&columns, rows.collect(), when_empty)?;
    Ok(ExitCode::Success)
}

async fn show(
    arguments: &ShowArguments,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let active = session.active_definitions().await?;
    let ShowArguments { tenant, kind, version } = arguments;
    let found = match version {
        None => active.newest_contract(tenant, kind),
        Some(version) => {
            active.contracts_of(tenant, kind).find(|entry| *entry.version == **version)
        }
    };
    let Some(entry) = found else {
        return Err(CliError::NotFound(no_contract(&active, arguments)));
    };
    if output.is_json() {
        output.json_line(entry)?;
    } else {
        let schema = entry.schema.parse();
        output.line(&format!("{schema:#}"))?;
    }
    Ok(ExitCode::Success)
}

/// That there is no such contract, and what may be meant.
fn no_contract(active: &Definitions, arguments: &ShowArguments) -> String {
    let ShowArguments { tenant, kind, version } = arguments;
    let is = |entry: &ContractEntry, tenant: &str, kind: &str| {
        entry.tenant.as_str() == tenant && *entry.kind == *kind
    };
    let of_tenant = active.contracts.iter().filter(|entry| entry.tenant.as_str() == tenant);
    let kinds = of_tenant.map(|entry| &*entry.kind);
    let hint = if active.contracts.iter().any(|entry| is(entry, kind, tenant)) {
        format!("did you mean `--tenant {kind} --type {tenant}`?")
    } else if let Some(version) =
        version.as_ref().filter(|_| active.newest_contract(tenant, kind).is_some())
    {
        let versions =
            active.contracts_of(tenant, kind).map(|entry| format!("`{}`", entry.version));
        let versions = versions.collect::<Vec<_>>().join(", ");
        format!("its versions are {versions}, and none is `{version}`")
    } else if let Some(question) =
        meant(nearest(kind, kinds).into_iter().map(|kind| format!("--type {kind}")))
    {
        question
    } else {
        "`fermata contract list` lists them".to_owned()
    };
    format!("there is no such contract of tenant `{tenant}` for the type `{kind}`; {hint}")
}

fn check(arguments: &CheckArguments, output: &mut Output) -> Result<ExitCode, CliError> {
    let text = read_text(&arguments.file)?;
    let contract = match compile(&text) {
        Ok(contract) => contract,
        Err(found) => return refused(&found, output),
    };
    let mut found = Vec::new();
    let new = parsed(&text, &arguments.file)?;
    suspected_keywords(&new).iter().for_each(|told| output.note(told));
    if let Some(before) = &arguments.after {
        let old = parsed(&read_text(before)?, before)?;
        found.extend(incompatibilities(&old, &new));
    }
    if let Some(file) = &arguments.data {
        let text = if file.as_os_str() == "-" {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(CliError::io("read standard input"))?;
            text
        } else {
            read_text(file)?
        };
        let data = parsed(&text, file)?;
        let steps = contract.price().steps(DataSize::of(&text));
        if steps > MESSAGE_STEPS_MAX {
            found.push(format!(
                "checking this data may take {steps} steps, an engine takes {MESSAGE_STEPS_MAX} for a message"
            ));
        } else {
            found.extend(contract.problems(&data, &text));
        }
    }
    if !found.is_empty() {
        return refused(&found, output);
    }
    if output.is_json() {
        output.json_line(&json!({ "problems": [] }))?;
    } else {
        output.line(&output.tone(Tone::Good, "sound"))?;
    }
    Ok(ExitCode::Success)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::printed;

    #[test]
    fn a_schema_data_and_a_successor_are_checked_without_a_broker() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, value: Value| {
            let path = folder.path().join(name);
            std::fs::write(&path, value.to_string()).unwrap();
            path
        };
        let old = file("old", json!({"type": "object", "properties": {"n": {"type": "integer"}}}));
        let new = file("new", json!({"type": "object", "required": ["n"]}));
        let remote = file("remote", json!({"$ref": "https://acme.example/a.json"}));
        let checked = |file: &PathBuf, data: Option<&PathBuf>, after: Option<&PathBuf>| {
            let (file, data, after) = (file.clone(), data.cloned(), after.cloned());
            printed(|output| check(&CheckArguments { file, data, after }, output).map(|_| ()))
        };

        assert_eq!(checked(&old, None, None), "sound\n");
        assert!(checked(&new, None, Some(&old)).contains("`required` names `n`"));
        let bad = file("bad", json!({"n": "x"}));
        assert!(checked(&old, Some(&bad), None).contains("/n: "));
        assert!(checked(&remote, None, None).contains("beyond the document"));
    }
}
