//! `fermata strategy explain`: what every strategy says about one event.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use fermata_core::event::{EVENT_DEPTH_MAX, Event, EventLimits, Subject, decode_message};
use fermata_core::identity::Tenant;
use fermata_core::json::told as told_json;
use fermata_core::partition::Definitions;
use fermata_core::strategy::{
    Chosen, Decision, Explained, Explanation, PatternPart, Standing, Strategy, StrategyDefinition,
    StrategySet, TENANT_ANY,
};
use fermata_definitions::did_you_mean;
use serde_json::{Value, json};

use super::super::definitions::{CheckArguments, read_text};
use super::check;
use super::retired::{self, Retired};
use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Tone, counted};

/// An event, for whoever wrote something else.
const EXAMPLE: &str =
    r#"{"specversion": "1.0", "id": "1", "source": "/test", "type": "job.done", "data": {}}"#;

/// What a strategy for every type is on.
const EVERY_TYPE: &str = ">";

/// Arguments of `fermata strategy explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainArguments {
    /// File with one event; `-` is standard input
    #[arg(value_name = "EVENT")]
    pub event: PathBuf,
    /// Strategies file to explain by, instead of the active strategies; may be repeated
    #[arg(long, value_name = "FILE")]
    pub strategies: Vec<PathBuf>,
    /// Whose event it is; default: the attribute `tenant` of the event
    #[arg(long)]
    pub tenant: Option<String>,
}

/// Explains one event by files, or by what is active.
///
/// # Errors
///
/// When a file cannot be read or holds no event, or the broker does not answer.
///
/// # Cancel safety
///
/// Can be dropped.
pub async fn run(
    arguments: ExplainArguments,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let text = read_event(&arguments.event)?;
    let head: Value = serde_json::from_str(&text).map_err(|error| {
        if error.to_string().starts_with("recursion limit") {
            let (file, line, column) = (arguments.event.display(), error.line(), error.column());
            return CliError::Usage(format!(
                "the event in `{file}` nests too deep at line {line} column {column}: an event nests at most \
                 {EVENT_DEPTH_MAX} levels; is a bracket left open? Make it flatter otherwise"
            ));
        }
        let why = told_json(&error, &text);
        CliError::Usage(format!(
            "the event in `{}` is no JSON: {why}; write it as `fermata publish` takes it, such as `{EXAMPLE}`",
            arguments.event.display()
        ))
    })?;
    let (tenant, kind) = head_of(&head, arguments.tenant.as_deref())?;
    let mut retired = Vec::new();
    let definitions = if arguments.strategies.is_empty() {
        let session = BrokerSession::open(global).await?;
        let active = session.active_definitions().await?;
        let definitions = definitions_of(&active)?;
        retired = taken_before(&definitions, (tenant, kind), &active, &session).await;
        definitions
    } else {
        let checked = check(&CheckArguments { files: arguments.strategies }, output)?;
        if !checked.problems.is_empty() {
            return checked.report("strategy", "strategies", output);
        }
        checked.sound
    };
    let mut notes: Vec<_> = retired.iter().map(|retired| retired.told(kind)).collect();
    if notes.is_empty() {
        notes.extend(unnamed_type(&definitions, tenant, kind));
    }
    let set = StrategySet::compile(definitions).map_err(|problems| {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        CliError::Usage(format!("the active strategies do not compile: {first}"))
    })?;
    let subject = Subject { tenant, kind };
    let limits = EventLimits::default();
    match decode_message(None, text.as_bytes(), subject, &limits).into_iter().next() {
        Some(Ok(event)) => {
            print(&event, &set.explain(&event), &retired, output)?;
            notes.iter().for_each(|text| output.note(text));
            Ok(ExitCode::Success)
        }
        Some(Err(rejected)) => {
            let (reason, detail) = (rejected.reason.as_str(), &rejected.detail);
            if output.is_json() {
                let rejected = json!({ "outcome": "rejected", "reason": reason, "detail": detail });
                output.json_line(&rejected)?;
            } else {
                let title = output.tone(Tone::Bad, "rejected");
                output
                    .line(&format!("{title}: no strategy sees the event: {detail} ({reason})"))?;
            }
            Ok(ExitCode::Findings)
        }
        None => Err(CliError::Usage("the file holds no event".to_owned())),
    }
}

/// That no strategy of the tenant is for this type but those for every type, and which type may be meant.
fn unnamed_type(definitions: &[StrategyDefinition], tenant: &str, kind: &str) -> Option<String> {
    let named: Vec<_> = of_tenant(definitions, tenant).filter(|on| *on != EVERY_TYPE).collect();
    if kind.is_empty() || named.iter().any(|on| covers(on, kind)) {
        return None;
    }
    let question = did_you_mean(kind, named);
    let hint = question.map(|question| format!("; {question}")).unwrap_or_default();
    Some(format!("no strategy names the type `{kind}`, only what is for every type sees it{hint}"))
}

/// What the strategies are on that see the events of a tenant.
fn of_tenant<'d>(
    definitions: &'d [StrategyDefinition],
    tenant: &str,
) -> impl Iterator<Item = &'d str> {
    let ours = definitions.iter().filter(move |of| of.tenant == tenant || of.tenant == TENANT_ANY);
    ours.map(|of| of.on.as_str())
}

/// The retired strategies that took events like this one, where none that is active names their type.
async fn taken_before(
    definitions: &[StrategyDefinition],
    (tenant, kind): (&str, &str),
    active: &Definitions,
    session: &BrokerSession,
) -> Vec<Retired> {
    let seen: Vec<_> = of_tenant(definitions, tenant).filter(|on| covers(on, kind)).collect();
    if kind.is_empty() || seen.iter().any(|on| *on != EVERY_TYPE) {
        return Vec::new();
    }
    // Beside an active strategy for every type, a retired one of these is missed by nobody.
    let took = |on: &str| covers(on, kind) && (on != EVERY_TYPE || seen.is_empty());
    // A hint is worth no failure.
    retired::that_took(tenant, active, session, took).await.unwrap_or_default()
}

/// Whether a pattern of types (`*` one token, `>` the rest) covers one.
fn covers(pattern: &str, kind: &str) -> bool {
    let mut tokens = kind.split('.');
    for part in pattern.split('.') {
        match (part, tokens.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (part, Some(token)) if part == token => {}
            (_, Some(_)) => return false,
        }
    }
    tokens.next().is_none()
}

fn read_event(path: &Path) -> Result<String, CliError> {
    if path.as_os_str() != "-" {
        return read_text(path);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(CliError::io("read standard input"))?;
    Ok(text)
}

/// Tenant and type, by which an event is found.
fn head_of<'e>(event: &'e Value, tenant: Option<&'e str>) -> Result<(&'e str, &'e str), CliError> {
    let usage = |text: &str| CliError::Usage(text.to_owned());
    let Value::Object(event) = event else {
        return Err(usage("an event is a JSON object; one event can be explained at a time"));
    };
    let text = |name: &str| event.get(name).and_then(Value::as_str);
    let tenant = tenant
        .or_else(|| text("tenant"))
        .ok_or_else(|| usage("nothing says whose event it is; name the tenant with `--tenant`"))?;
    if tenant.parse::<Tenant>().is_err() {
        return Err(CliError::Usage(format!("`{tenant}` is no name of a tenant")));
    }
    // An event without a type is refused when it is decoded, which says so better.
    Ok((tenant, text("type").unwrap_or_default()))
}

fn definitions_of(active: &Definitions) -> Result<Vec<StrategyDefinition>, CliError> {
    let read = |entry: &fermata_core::command::StrategyEntry| {
        serde_json::from_str(entry.definition.as_str())
            .map_err(|source| CliError::Json { what: format!("strategy `{}`", entry.name), source })
    };
    active.strategies.values().map(read).collect()
}

fn print(
    event: &Event<'_>,
    explanation: &Explanation<'_>,
    retired: &[Retired],
    output: &mut Output,
) -> Result<(), CliError> {
    if output.is_json() {
        return output.json_line(&to_json(explanation, retired));
    }
    let (id, kind, tenant) = (&event.id, &event.kind, event.tenant);
    let title = output.tone(Tone::Strong, &format!("event `{id}`"));
    output
        .line(&format!("{title} of type `{kind}` and tenant `{tenant}`: {}", told(explanation)))?;
    for candidate in &explanation.candidates {
        let tone =
            if candidate.standing == Standing::DoesNotMatch { Tone::Faint } else { Tone::Good };
        let name = output.tone(tone, candidate.strategy.name());
        output.line(&format!("\n{name} {}.", standing(candidate, explanation)))?;
        for part in &candidate.parts {
            output.line(&format!("  {} {}", mark(part.holds, output), sentence(part)))?;
        }
        if let (Some(when), Some(outcome)) =
            (&candidate.strategy.definition().when, &candidate.condition)
        {
            let holds = *outcome == Ok(true);
            let says = match outcome {
                Ok(true) => "holds".to_owned(),
                Ok(false) => "does not hold".to_owned(),
                Err(error) => format!("cannot be evaluated and counts as false: {error}"),
            };
            output.line(&format!("  {} when `{when}`: {says}", mark(holds, output)))?;
        }
    }
    if explanation.omitted > 0 {
        let more = counted(explanation.omitted, "more does", "more do");
        output.line(&format!("\n{more} not match."))?;
    }
    Ok(())
}

fn mark(holds: bool, output: &Output) -> String {
    if holds { output.tone(Tone::Good, "yes") } else { output.tone(Tone::Bad, "no ") }
}

fn sentence(part: &PatternPart) -> String {
    let PatternPart { path, wanted, found, .. } = part;
    if path.ends_with("$or") {
        return format!("{path} must hold in {wanted}, and holds in {found}");
    }
    format!("{path} is {found} and must be {wanted}")
}

/// What is decided, in words.
fn told(explanation: &Explanation<'_>) -> String {
    match &explanation.decision {
        Decision::Start { chosen, .. } => {
            let started: Vec<_> = chosen.iter().map(started).collect();
            format!("starts {}", started.join(" and "))
        }
        Decision::Ignored { strategy, .. } => {
            format!("starts nothing, because `{}` ignores it", strategy.name())
        }
        Decision::Failed { strategy, detail } => {
            format!("is rejected, because `{}` should run and {detail}", strategy.name())
        }
        Decision::Unmatched { .. } if explanation.candidates.is_empty() => {
            "matches nothing: no strategy is for this tenant and type".to_owned()
        }
        Decision::Unmatched { .. } => "matches nothing, and goes to review".to_owned(),
    }
}

fn started(chosen: &Chosen<'_>) -> String {
    let strategy = chosen.strategy.name();
    let workflow = chosen.strategy.workflow();
    let workflow = workflow.map(|workflow| format!("`{} {}`", workflow.name, workflow.version));
    format!("{} for `{strategy}`", workflow.unwrap_or_default())
}

/// What becomes of a strategy, and why, in words.
pub fn standing(candidate: &Explained<'_>, explanation: &Explanation<'_>) -> String {
    let priority = candidate.strategy.definition().priority;
    let winner = explanation.winner.map(Strategy::name).unwrap_or_default();
    let drawn =
        |other: &&Explained<'_>| matches!(other.standing, Standing::Wins | Standing::LosesDraw);
    let equals = explanation.candidates.iter().filter(drawn).count();
    match candidate.standing {
        Standing::Wins if equals > 1 => {
            format!("wins: the draw by weight among {equals} of priority {priority} fell on it")
        }
        Standing::Wins => format!("wins: of those that match none has a priority above {priority}"),
        Standing::RunsBeside => "runs beside whatever wins, because it fans out".to_owned(),
        Standing::LosesDraw => {
            format!("matches, and the draw by weight among {equals} fell on `{winner}`")
        }
        Standing::Outranked => {
            let higher = explanation.winner.map_or(0, |winner| winner.definition().priority);
            format!("matches, and `{winner}` has the higher priority, {higher} over {priority}")
        }
        Standing::DoesNotMatch => format!("does not match: {}", objection(candidate)),
    }
}

/// Why a strategy does not match: the first thing that does not hold.
fn objection(candidate: &Explained<'_>) -> String {
    if !candidate.pattern_holds {
        let missed = candidate.parts.iter().find(|part| !part.holds && !part.path.contains("$or["));
        return missed.map_or_else(
            || "each part of its pattern holds, but for different elements of a list".to_owned(),
            sentence,
        );
    }
    match &candidate.condition {
        Some(Err(error)) => format!("its condition cannot be evaluated: {error}"),
        Some(Ok(_)) | None => "its condition does not hold".to_owned(),
    }
}

fn to_json(explanation: &Explanation<'_>, retired: &[Retired]) -> Value {
    let candidates = explanation.candidates.iter().map(|candidate| {
        let parts = candidate.parts.iter().map(|part| {
            let PatternPart { path, wanted, found, holds } = part;
            json!({ "path": path, "wanted": wanted, "found": found, "holds": holds })
        });
        let condition = candidate.condition.as_ref().map(|condition| match condition {
            Ok(holds) => json!({ "holds": holds }),
            Err(error) => json!({ "holds": false, "error": error }),
        });
        json!({
            "strategy": candidate.strategy.name(),
            "version": candidate.strategy.version(),
            "priority": candidate.strategy.definition().priority,
            "standing": match candidate.standing {
                Standing::Wins => "wins",
                Standing::RunsBeside => "runs_beside",
                Standing::LosesDraw => "loses_draw",
                Standing::Outranked => "outranked",
                Standing::DoesNotMatch => "does_not_match",
            },
            "reason": standing(candidate, explanation),
            "match": { "holds": candidate.pattern_holds, "parts": parts.collect::<Vec<_>>() },
            "when": condition,
        })
    });
    let started = match &explanation.decision {
        Decision::Start { chosen, .. } => {
            chosen.iter().map(|chosen| chosen.strategy.name()).collect()
        }
        Decision::Ignored { .. } | Decision::Unmatched { .. } | Decision::Failed { .. } => {
            Vec::new()
        }
    };
    json!({
        "outcome": outcome(&explanation.decision),
        "reason": told(explanation),
        "winner": explanation.winner.map(Strategy::name),
        "started": started,
        "candidates": candidates.collect::<Vec<_>>(),
        "omitted": explanation.omitted,
        "retired": retired,
    })
}

/// The word for a decision.
pub fn outcome(decision: &Decision<'_>) -> &'static str {
    match decision {
        Decision::Start { .. } => "start",
        Decision::Ignored { .. } => "ignored",
        Decision::Unmatched { .. } => "unmatched",
        Decision::Failed { .. } => "failed",
    }
}
