//! `fermata events replay`: what a draft of strategies would have made of the events that came.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::Args;
use fermata_core::event::parse_subject;
use fermata_core::identity::{SourcePosition, Tenant};
use fermata_core::partition::Definitions;
use fermata_core::strategy::{Action, StrategyDefinition, StrategySet};
use fermata_definitions::{Limits, read_strategies};
use fermata_jetstream::StreamReader;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::topology::EVENTS_STREAM;

use super::super::definitions::{Holds, check_files};
use super::super::runs::moment;
use super::comparison::{Comparison, Difference};
use crate::arguments::GlobalArguments;
use crate::arrived::for_each_event;
use crate::broker_session::BrokerSession;
use crate::error::{CliError, ExitCode};
use crate::journal_view::RefusedByContract;
use crate::output::{Output, RECORDS_READ, counted, time_text};

/// How many messages are taken from the stream at a time.
const BATCH_MESSAGES: usize = 512;

/// Samples of each strategy when nothing else is said.
const SAMPLES_DEFAULT: usize = 3;

/// Strategies of a draft that are named where they start what is not there.
const MISSING_NAMED_MAX: usize = 5;

/// Arguments of `fermata events replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArguments {
    /// Strategies file of the draft; may be repeated
    #[arg(long, required = true, value_name = "FILE")]
    pub against: Vec<PathBuf>,
    /// Only events stored then or later: a date as in RFC 3339, or how long ago (`30m`, `2h`, `7d`)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<u64>,
    /// Only events stored before then, likewise
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<u64>,
    /// Only what is of this tenant
    #[arg(long)]
    pub tenant: Option<Tenant>,
    /// Samples of each strategy
    #[arg(long, default_value_t = SAMPLES_DEFAULT, value_name = "N")]
    pub samples: usize,
}

/// Compares.
pub(super) async fn run(
    arguments: &ReplayArguments,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let checked = check_files(&arguments.against, Holds::Strategies, output, |text, name| {
        read_strategies(text, Some(name), &Limits::GENERATED)
    })?;
    if !checked.problems.is_empty() {
        return checked.report("strategy", "strategies", output);
    }
    let session = BrokerSession::open(global).await?;
    let definitions = session.active_definitions().await?;
    check_workflows(&checked.sound, &definitions)?;
    let active = strategies(&definitions)?;
    let draft = with(active.clone(), checked.sound);
    let now = compile(active.into_values().collect(), "active strategies")?;
    let draft = compile(draft.into_values().collect(), "active strategies with the draft")?;
    let comparison = read(arguments, &session, &now, &draft, output).await?;
    print(&comparison, output)?;
    Ok(if comparison.differs() { ExitCode::Findings } else { ExitCode::Success })
}

/// Refuses a draft that could not be applied, since it starts workflows that nobody has.
fn check_workflows(draft: &[StrategyDefinition], active: &Definitions) -> Result<(), CliError> {
    let missing = draft.iter().filter_map(|definition| match &definition.action {
        Action::Run { workflow, .. } => {
            active.plan(&workflow.name, &workflow.version).is_none().then(|| {
                format!("`{}` starts `{} {}`", definition.name, workflow.name, workflow.version)
            })
        }
        Action::Ignore => None,
    });
    let missing = missing.collect::<Vec<_>>();
    if missing.is_empty() {
        return Ok(());
    }
    let named = missing.iter().take(MISSING_NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    let more = match missing.len().saturating_sub(MISSING_NAMED_MAX) {
        0 => String::new(),
        more => format!(", and {more} more like that"),
    };
    Err(CliError::Usage(format!(
        "the draft could not be applied: {named}{more}, and no such workflow is active; `fermata workflow list` has \
         those that are, `fermata workflow apply` makes one active"
    )))
}

fn strategies(active: &Definitions) -> Result<BTreeMap<String, StrategyDefinition>, CliError> {
    let read = |entry: &fermata_core::command::StrategyEntry| {
        serde_json::from_str::<StrategyDefinition>(entry.definition.as_str())
            .map(|definition| (definition.name.clone(), definition))
            .map_err(|source| CliError::Json { what: format!("strategy `{}`", entry.name), source })
    };
    active.strategies.values().map(read).collect()
}

/// What applying `draft` leads to.
fn with(
    mut active: BTreeMap<String, StrategyDefinition>,
    draft: Vec<StrategyDefinition>,
) -> BTreeMap<String, StrategyDefinition> {
    active.extend(draft.into_iter().map(|definition| (definition.name.clone(), definition)));
    active
}

fn compile(definitions: Vec<StrategyDefinition>, what: &str) -> Result<StrategySet, CliError> {
    StrategySet::compile(definitions).map_err(|problems| {
        let first = problems.first().map(ToString::to_string).unwrap_or_default();
        CliError::Usage(format!(
            "the {what} do not compile: {first}; `fermata strategy check` tells all problems"
        ))
    })
}

async fn read(
    arguments: &ReplayArguments,
    session: &BrokerSession,
    now: &StrategySet,
    draft: &StrategySet,
    output: &mut Output,
) -> Result<Comparison, CliError> {
    let reader = StreamReader::new(session.broker());
    let state = reader.stream_state(EVENTS_STREAM).await?;
    let since_ns = arguments.since.map_or(i64::MIN, nanoseconds);
    let until_ns = arguments.until.map_or(i64::MAX, nanoseconds);
    let oldest = first_since(&reader, state.first_sequence.max(1), state.last_sequence, since_ns);
    let oldest = oldest.await?;
    if let Some(message) = reader.read_one(EVENTS_STREAM, state.first_sequence.max(1)).await?
        && message.sequence > 1
        && message.broker_time_ns > since_ns
        && oldest == message.sequence
    {
        let from = u64::try_from(message.broker_time_ns / 1_000_000).unwrap_or(0);
        output.note(&format!(
            "events from before {} are not in EVENTS any more and are not looked at",
            time_text(from)
        ));
    }
    let sequences = oldest..=state.last_sequence;
    let refused = refused_by_contract(session, &reader, sequences, output).await?;
    let bar = output.progress(state.last_sequence.saturating_sub(oldest) + 1, "event messages");
    let mut comparison = Comparison::new(arguments.samples);
    let mut replay = reader.replay(EVENTS_STREAM, oldest, Holes::Allowed).await?;
    loop {
        let messages = replay.next_batch(BATCH_MESSAGES).await?;
        if messages.is_empty() {
            break;
        }
        for message in &messages {
            // Events that come meanwhile are for the next time.
            let is_later = message.sequence > state.last_sequence;
            if is_later || !(since_ns..until_ns).contains(&message.broker_time_ns) {
                continue;
            }
            let Ok(subject) = parse_subject(&message.subject) else {
                comparison.rejected += 1;
                continue;
            };
            if arguments.tenant.as_ref().is_some_and(|tenant| tenant.as_str() != subject.tenant) {
                continue;
            }
            let mut place = SourcePosition { sequence: message.sequence, index: 0 };
            for_each_event(message, subject, |event| {
                match event {
                    Ok(_) if refused.has(place) => comparison.refused += 1,
                    Ok(event) => comparison.add(message.sequence, &event, now, draft),
                    Err(_) => comparison.rejected += 1,
                }
                place.index += 1;
            });
        }
        bar.inc(messages.len() as u64);
        if replay.wanted() > state.last_sequence {
            break;
        }
    }
    bar.finish_and_clear();
    Ok(comparison)
}

async fn refused_by_contract(
    session: &BrokerSession,
    reader: &StreamReader,
    sequences: RangeInclusive<u64>,
    output: &Output,
) -> Result<RefusedByContract, CliError> {
    if sequences.is_empty() {
        return Ok(RefusedByContract::default());
    }
    let partitions = session.engine_config().await?.partitions;
    let progress = output.counter(RECORDS_READ);
    let refused = RefusedByContract::read(reader, partitions, sequences, &progress).await;
    progress.finish_and_clear();
    refused
}

fn nanoseconds(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000)
}

/// The first sequence from `first` to `last` that was stored at `since_ns` or later: times never
/// fall along a stream, so half of it is left out with each look.
async fn first_since(
    reader: &StreamReader,
    mut first: u64,
    last: u64,
    since_ns: i64,
) -> Result<u64, CliError> {
    let mut end = last.saturating_add(1).max(first);
    while first < end {
        let middle = first + (end - first) / 2;
        match reader.read_one(EVENTS_STREAM, middle).await? {
            Some(message) if message.broker_time_ns >= since_ns => end = middle,
            // One that is gone was older than what is there.
            Some(_) | None => first = middle + 1,
        }
    }
    Ok(first.min(last.max(1)))
}

fn print(comparison: &Comparison, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return output.json_line(comparison);
    }
    let Comparison { events, repeats, rejected, refused, unmatched_now, unmatched_draft, .. } =
        comparison;
    output.line(&format!(
        "{}, {} of them, {rejected} that cannot be read, {refused} that a contract refused; {unmatched_now} match \
         nothing now, {unmatched_draft} by the draft",
        counted(*events, "event", "events"),
        counted(*repeats, "repeat", "repeats"),
    ))?;
    output.line("")?;
    let row = |(name, difference): (&String, &Difference)| {
        let counts =
            [difference.same, difference.changed, difference.only_now, difference.only_draft];
        std::iter::once(name.clone()).chain(counts.map(|count| count.to_string())).collect()
    };
    let rows = comparison.strategies.iter().map(row).collect();
    let columns = ["STRATEGY", "SAME", "CHANGED", "ONLY NOW", "ONLY DRAFT"];
    output.table(&columns, rows, "no run would start, now or by the draft")?;
    for (name, difference) in &comparison.strategies {
        for sample in &difference.samples {
            let differs = match sample.differs {
                "changed" => "another run",
                "only_now" => "a run only now",
                _ => "a run only by the draft",
            };
            output.line(&format!(
                "{name}: {differs} for event `{}` of type `{}` (message {} of EVENTS)",
                sample.id, sample.kind, sample.sequence
            ))?;
        }
    }
    output.line(if comparison.differs() {
        "some runs would differ; nothing was started"
    } else {
        "no run would differ"
    })
}
