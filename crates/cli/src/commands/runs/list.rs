//! `fermata runs list`: asked of a projector where one runs, else read from the journals.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use fermata_core::identity::{PartitionId, Tenant};
use fermata_definitions::did_you_mean;
use fermata_jetstream::core_messages::{CoreMessageError, CoreMessages};
use fermata_jetstream::topology::journal_stream;
use fermata_jetstream::{Bytes, StreamReader};
use fermata_store::query::PAGE_RUNS_MAX;
use fermata_store::question::{
    Answer, AtLeast, NoAnswer, NoAnswerCode, RUNS_SUBJECT, RunsAnswer, RunsQuestion,
};
use fermata_store::{Cursor, RunPage, RunQuery};
use serde_json::json;

use super::moment::moment;
use super::run_view::print_runs;
use crate::arguments::at_least_one;
use crate::broker_session::BrokerSession;
use crate::commands::known_tenants::{KnownTenants, tell_nothing};
use crate::error::{CliError, ExitCode};
use crate::journal_view::{RunList, RunStatus};
use crate::output::{Output, time_text};

/// How many runs are listed when nothing else is said: a screenful.
const LIMIT_DEFAULT: usize = 50;

/// How long a projector may take: it waits up to 2 s for what has just been journaled.
const ASK_LIMIT: Duration = Duration::from_secs(5);

/// How old a list may be where the projector has not come as far as the journals; older, the
/// journals are read. It rests for others up to an age of 10 s.
const STALE_MAX: Duration = Duration::from_secs(60);

/// Arguments of `fermata runs list`.
#[derive(Debug, Clone, Args)]
pub struct ListArguments {
    /// Only what is of this tenant
    #[arg(long)]
    pub tenant: Option<Tenant>,
    /// Only runs that stand here
    #[arg(long, value_parser = status())]
    pub status: Option<RunStatus>,
    /// Only runs of this workflow
    #[arg(long, value_name = "NAME")]
    pub workflow: Option<String>,
    /// Only runs that started then or later: a date as in RFC 3339, or how long ago (`30m`, `2h`, `7d`)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<u64>,
    /// Only runs that started before then, likewise
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<u64>,
    /// At most so many
    #[arg(long, default_value_t = LIMIT_DEFAULT, value_name = "N", value_parser = at_least_one)]
    pub limit: usize,
    /// Go on behind this place, with which the list before ended
    #[arg(long, value_name = "CURSOR")]
    pub cursor: Option<Cursor>,
}

fn status() -> impl TypedValueParser<Value = RunStatus> {
    PossibleValuesParser::new(RunStatus::ALL.map(RunStatus::as_str))
        .try_map(|text| text.parse::<RunStatus>())
}

impl ListArguments {
    fn query(&self) -> RunQuery {
        RunQuery {
            tenant: self.tenant.clone(),
            workflow: self.workflow.as_deref().map(Into::into),
            status: self.status,
            since_ms: self.since,
            until_ms: self.until,
            limit: self.limit,
            after: self.cursor,
        }
    }
}

/// Why the projector's answer is not used.
enum NotAnswered {
    /// For people.
    Because(String),
    /// The model does not know what was asked for yet.
    Behind(String),
    /// The command fails.
    Failed(CliError),
}

/// Lists runs.
pub(super) async fn run(
    arguments: &ListArguments,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let partitions = session.engine_config().await?.partitions;
    let query = arguments.query();
    let page = match ask(&query, partitions, session, output).await {
        Ok(page) => page,
        Err(NotAnswered::Failed(error)) => return Err(error),
        Err(NotAnswered::Because(reason) | NotAnswered::Behind(reason)) => {
            output.note(&format!("{reason}; the journals are read instead"));
            read(&query, partitions, session, output).await?
        }
    };
    if page.runs.is_empty() && arguments.cursor.is_none() {
        let of_tenant = nothing_of_tenant(&query, partitions, session, output).await?;
        let told = match of_tenant {
            None => nothing_of_workflow(&query, session).await,
            told => told,
        };
        if let Some(text) = told {
            tell_nothing(&text, output)?;
            return Ok(ExitCode::Success);
        }
    }
    print_runs(&page.runs, output)?;
    if let Some(next) = page.next {
        if output.is_json() {
            output.json_line(&json!({ "next": next }))?;
        } else {
            output.line(&format!("there are more; `--cursor {next}` goes on"))?;
        }
    }
    Ok(ExitCode::Success)
}

/// That no runs are known of the tenant, where that is so: the newest runs of all tenants and the active
/// definitions say which ones there are.
async fn nothing_of_tenant(
    query: &RunQuery,
    partitions: u16,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<Option<String>, CliError> {
    let Some(tenant) = &query.tenant else { return Ok(None) };
    let nothing = RunQuery { limit: 1, ..RunQuery::default() };
    let of_tenant = RunQuery { tenant: Some(tenant.clone()), ..nothing.clone() };
    let newest = RunQuery { limit: PAGE_RUNS_MAX, ..nothing };
    // A hint is worth no failure.
    let Ok(active) = session.active_definitions().await else { return Ok(None) };
    let mut known = KnownTenants::of(&active);
    let pages = match ask(&of_tenant, partitions, session, output).await {
        Ok(page) => {
            let Ok(newest) = ask(&newest, partitions, session, output).await else {
                return Ok(None);
            };
            vec![page, newest]
        }
        // The journals, which are read once: for other names it would be once more.
        Err(_) => match read(&of_tenant, partitions, session, output).await {
            Ok(page) => vec![page],
            Err(_) => return Ok(None),
        },
    };
    for page in pages {
        page.runs.iter().for_each(|run| known.see(run.tenant.as_str()));
    }
    Ok(known.nothing_of(Some(tenant.as_str()), "runs"))
}

/// That there is no such workflow, where that is so; a version of one stays active for ever.
async fn nothing_of_workflow(query: &RunQuery, session: &BrokerSession) -> Option<String> {
    let workflow = query.workflow.as_deref()?;
    // A hint is worth no failure.
    let active = session.active_definitions().await.ok()?;
    let known: BTreeSet<_> = active.workflows.iter().map(|entry| &*entry.name).collect();
    if known.contains(workflow) {
        return None;
    }
    let hint = did_you_mean(workflow, known)
        .unwrap_or_else(|| "`fermata workflow list` lists them".to_owned());
    Some(format!("there is no workflow `{workflow}`; {hint}"))
}

/// Asks a projector, page by page.
async fn ask(
    query: &RunQuery,
    partitions: u16,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<RunPage, NotAnswered> {
    let reader = StreamReader::new(session.broker());
    let mut at_least = Vec::new();
    for partition in (0..partitions).map(PartitionId) {
        let state = reader.stream_state(&journal_stream(partition)).await;
        let state = state.map_err(|error| NotAnswered::Failed(error.into()))?;
        at_least.push(AtLeast { partition, sequence: state.last_sequence });
    }
    let core = CoreMessages::new(session.broker());
    let mut told = false;
    let mut all = RunPage { runs: Vec::new(), next: query.after };
    loop {
        let left = query.limit.saturating_sub(all.runs.len());
        let page = RunQuery { limit: left.min(PAGE_RUNS_MAX), after: all.next, ..query.clone() };
        let question = RunsQuestion { query: page, at_least: at_least.clone() };
        let RunsAnswer { page, state } = match ask_once(&core, &question).await {
            Err(NotAnswered::Behind(_)) if !at_least.is_empty() => {
                // Where all processors are taken the read model falls behind, and that the
                // journals are read is the last thing to be wished for.
                at_least.clear();
                continue;
            }
            answer => answer?,
        };
        if at_least.is_empty() && !told {
            told = true;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let as_of = Duration::from_millis(state.as_of_ms.unwrap_or(u64::MAX));
            if now.saturating_sub(as_of) > STALE_MAX {
                let behind = state.behind;
                let detail = format!("the read model is {behind} journal messages behind");
                return Err(NotAnswered::Because(detail));
            }
            if let Some(as_of) = state.as_of_ms {
                let (as_of, behind) = (time_text(as_of), state.behind);
                output.note(&format!("as of {as_of}: {behind} journal messages are not read yet"));
            }
        }
        all.runs.extend(page.runs);
        all.next = page.next;
        if all.next.is_some() && all.runs.len() < query.limit {
            continue;
        }
        if let Some(until) = state.left_out_until_ms {
            let until = time_text(until);
            output.note(&format!("runs that started until {until} may be left out"));
        }
        return Ok(all);
    }
}

async fn ask_once(core: &CoreMessages, question: &RunsQuestion) -> Result<RunsAnswer, NotAnswered> {
    let json = |source| CliError::Json { what: "the projector's answer".to_owned(), source };
    let question =
        serde_json::to_vec(question).map_err(|error| NotAnswered::Failed(json(error)))?;
    let answer = match core.request(RUNS_SUBJECT, Bytes::from(question), ASK_LIMIT).await {
        Ok(answer) => answer,
        Err(CoreMessageError::NoResponders { .. } | CoreMessageError::NoAnswer { .. }) => {
            return Err(NotAnswered::Because("no projector answers".to_owned()));
        }
        Err(error) => return Err(NotAnswered::Failed(error.into())),
    };
    match serde_json::from_slice(&answer.payload) {
        Ok(Answer::Ok(answer)) => Ok(answer),
        Ok(Answer::Error(NoAnswer { code: NoAnswerCode::Behind, detail })) => {
            Err(NotAnswered::Behind(detail))
        }
        Ok(Answer::Error(refused)) => Err(NotAnswered::Because(refused.detail)),
        Err(error) => {
            Err(NotAnswered::Because(format!("the projector's answer cannot be read ({error})")))
        }
    }
}

/// Reads the journals.
async fn read(
    query: &RunQuery,
    partitions: u16,
    session: &BrokerSession,
    output: &Output,
) -> Result<RunPage, CliError> {
    let reader = StreamReader::new(session.broker());
    let mut messages = 0;
    for partition in (0..partitions).map(PartitionId) {
        messages += reader.stream_state(&journal_stream(partition)).await?.messages;
    }
    let bar = output.progress(messages, "journal messages");
    let partitions = (0..partitions).map(PartitionId);
    let runs = RunList::read(&reader, partitions, |read| bar.inc(read)).await?;
    bar.finish_and_clear();
    Ok(runs.page(query))
}
