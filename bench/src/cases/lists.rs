//! `lists`: `fermata runs list` among `n` runs of a running engine, which takes 200 more a second
//! meanwhile.
//!
//! | line | is |
//! |---|---|
//! | `lists_load` | the runs, until the read model knows them all |
//! | `lists_asked` | what the command does: the ends of all journals, then the question to the read model |
//! | `lists_typed` | the command itself, from the start of its process to its end; where the program stands beside this one |

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fermata_core::identity::PartitionId;
use fermata_jetstream::topology::journal_stream;
use fermata_store::question::{
    Answer, AtLeast, NoAnswerCode, RUNS_SUBJECT, RunsAnswer, RunsQuestion,
};
use fermata_store::{RunQuery, RunStatus};
use miette::{IntoDiagnostic as _, ensure, miette};
use tokio::process::Command;

use super::intake::BATCH_EVENTS;
use super::query::{P95_MS_MAX, PAGE_RUNS};
use super::workflows::one_noop;
use crate::arguments::BenchArguments;
use crate::audit_progress::AuditProgress;
use crate::definitions::starts;
use crate::events::{Events, publish_these};
use crate::figures::{Figures, Times};
use crate::flood::Flood;
use crate::setup::{Setup, progress};

const KIND: &str = "bench.listed";
const WORKFLOW: &str = "one-noop";

/// Records of one run: the event's, the run's two, and two of its node.
const RECORDS_PER_RUN: u64 = 5;

const TENANTS: u64 = 20;

/// Events a second while it is asked: what an engine must take.
const BESIDE_PER_S: u64 = 200;

/// Questions of each kind.
const ASKED: u64 = 200;
const TYPED: u64 = 40;

/// How long the read model may be behind when the last run has ended.
const CAUGHT_UP_WITHIN: Duration = Duration::from_secs(600);

/// Pause before it is asked again.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// How long one question may take before it counts as not answered.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// What is asked; the number tells one question from the next.
type Filter = fn(u64) -> miette::Result<RunQuery>;

const FILTERS: [Filter; 5] = [
    |_| Ok(RunQuery::default()),
    |number| {
        Ok(RunQuery {
            tenant: Some(tenant(number).parse().into_diagnostic()?),
            ..RunQuery::default()
        })
    },
    |number| {
        let tenant = Some(tenant(number).parse().into_diagnostic()?);
        Ok(RunQuery { tenant, status: Some(RunStatus::Succeeded), ..RunQuery::default() })
    },
    // None stands there.
    |_| Ok(RunQuery { status: Some(RunStatus::Failed), ..RunQuery::default() }),
    |_| {
        let workflow = Some(WORKFLOW.into());
        let since = SystemTime::now() - Duration::from_secs(60);
        let since_ms = since.duration_since(UNIX_EPOCH).into_diagnostic()?.as_millis();
        let since_ms = Some(u64::try_from(since_ms).into_diagnostic()?);
        Ok(RunQuery { workflow, since_ms, ..RunQuery::default() })
    },
];

/// Lists of one kind.
struct Lists {
    figures: Figures,
    p95_ms: f64,
}

impl Lists {
    fn of(case: &'static str, times: Vec<Duration>, elapsed: Duration, note: String) -> Self {
        let lists = u64::try_from(times.len()).unwrap_or(u64::MAX);
        let p95_ms = Times::of(times.clone()).percentile_ms(95).unwrap_or(f64::MAX);
        let figures = Figures::of(case, lists, elapsed).with_times(times);
        Self { figures: figures.note(format!("p95 {p95_ms:.2} ms; {note}")), p95_ms }
    }
}

/// Starts `n` runs, and asks for some of them.
pub async fn run(arguments: &BenchArguments, n: u64) -> miette::Result<Vec<Figures>> {
    let bar = progress("lists", n);
    let arguments = BenchArguments { read_model: true, ..arguments.clone() };
    let workflows = vec![one_noop(WORKFLOW)?];
    let setup = Setup::start(&arguments, workflows, &starts(KIND, WORKFLOW), None).await?;
    let client = &setup.broker.client;
    let audit = AuditProgress::from_now(client, setup.partitions).await?;
    let before = setup.usage()?;

    let begun = Instant::now();
    for tenant_number in 0..TENANTS {
        let numbers = n * tenant_number / TENANTS..n * (tenant_number + 1) / TENANTS;
        let events = Events::by(&tenant(tenant_number), KIND);
        publish_these(&client.publisher, &events, numbers, BATCH_EVENTS, &bar).await?;
    }
    audit.reached(n * RECORDS_PER_RUN, &bar, RECORDS_PER_RUN).await?;
    caught_up(&setup).await?;
    let load = setup.measured(Figures::of("lists_load", n, begun.elapsed()), before, n)?;

    let events = Events::by("beside", KIND);
    let subject = fermata_jetstream::Subject::from(events.subject());
    let beside = Flood::start(client.publisher.clone(), BESIDE_PER_S, move |number| {
        (subject.clone(), events.one(number))
    });
    let mut lists = vec![asked(&setup).await?];
    if let Some(program) = program()? {
        lists.push(typed(&setup, &program).await?);
    }
    let beside = beside.end().await?;
    let (events, seconds) = (beside.sequences.len(), beside.elapsed.as_secs_f64());
    let mut measured =
        vec![load.note(format!("{events} more runs within {seconds:.1} s while it was asked"))];
    for Lists { figures, p95_ms } in lists {
        let case = figures.case;
        // Of sizes of a moment the first question is one of the slowest twentieth.
        ensure!(
            arguments.smoke || p95_ms < P95_MS_MAX,
            "{case}: p95 is {p95_ms:.1} ms of {P95_MS_MAX} ms"
        );
        measured.push(figures);
    }
    Ok(measured)
}

/// Waits until the read model knows what the journals hold now.
async fn caught_up(setup: &Setup) -> miette::Result<()> {
    let begun = Instant::now();
    let at_least = ends(setup).await?;
    while ask(setup, RunQuery { limit: 1, ..RunQuery::default() }, at_least.clone())
        .await?
        .is_none()
    {
        ensure!(begun.elapsed() < CAUGHT_UP_WITHIN, "the read model does not catch up");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

/// Asks as the command does.
async fn asked(setup: &Setup) -> miette::Result<Lists> {
    let (begun, mut times, mut found, mut again) = (Instant::now(), Vec::new(), 0, 0_u64);
    for number in 0..ASKED {
        for filter in FILTERS {
            let query = RunQuery { limit: PAGE_RUNS, ..filter(number)? };
            let asked = Instant::now();
            let at_least = ends(setup).await?;
            let answer = match ask(setup, query.clone(), at_least).await? {
                Some(answer) => answer,
                None => {
                    again += 1;
                    let answer = ask(setup, query.clone(), Vec::new()).await?;
                    answer.ok_or_else(|| miette!("the read model is behind of nothing"))?
                }
            };
            times.push(asked.elapsed());
            ensure!(answer.page.runs.iter().all(|run| query.takes(run)), "the wrong runs");
            found += answer.page.runs.len();
        }
    }
    let note = format!("{found} runs listed; {again} times the read model was behind");
    Ok(Lists::of("lists_asked", times, begun.elapsed(), note))
}

/// Types the command.
async fn typed(setup: &Setup, program: &Path) -> miette::Result<Lists> {
    let (begun, mut times) = (Instant::now(), Vec::new());
    for number in 0..TYPED {
        let tenant = tenant(number);
        for filter in [&[][..], &["--tenant", &tenant], &["--status", "succeeded"]] {
            let mut command = Command::new(program);
            command.args(["runs", "list", "--json", "--limit", &PAGE_RUNS.to_string()]);
            command.args(filter).env("FERMATA_NATS_URL", setup.broker.url());
            let asked = Instant::now();
            let output = command.output().await.into_diagnostic()?;
            times.push(asked.elapsed());
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "{filter:?}: {said}");
            ensure!(!said.contains("journals are read"), "{filter:?}: {said}");
            ensure!(!output.stdout.is_empty(), "{filter:?}: nothing was listed");
        }
    }
    let note = "from the start of each process to its end".to_owned();
    Ok(Lists::of("lists_typed", times, begun.elapsed(), note))
}

/// The program, if it was built beside this one.
fn program() -> miette::Result<Option<PathBuf>> {
    let own = std::env::current_exe().into_diagnostic()?;
    let program = own.with_file_name("fermata");
    Ok(program.is_file().then_some(program))
}

async fn ends(setup: &Setup) -> miette::Result<Vec<AtLeast>> {
    let mut ends = Vec::new();
    for partition in (0..setup.partitions).map(PartitionId) {
        let state = setup.broker.client.reader.stream_state(&journal_stream(partition)).await;
        ends.push(AtLeast { partition, sequence: state.into_diagnostic()?.last_sequence });
    }
    Ok(ends)
}

/// One question; nothing when the read model has not come that far.
async fn ask(
    setup: &Setup,
    query: RunQuery,
    at_least: Vec<AtLeast>,
) -> miette::Result<Option<RunsAnswer>> {
    let question = serde_json::to_vec(&RunsQuestion { query, at_least }).into_diagnostic()?;
    let core = &setup.broker.client.core;
    let answer = core.request(RUNS_SUBJECT, Bytes::from(question), ANSWER_LIMIT).await;
    match serde_json::from_slice(&answer.into_diagnostic()?.payload).into_diagnostic()? {
        Answer::Ok(answer) => Ok(Some(answer)),
        Answer::Error(refused) if refused.code == NoAnswerCode::Behind => Ok(None),
        Answer::Error(refused) => Err(miette!("{}", refused.detail)),
    }
}

fn tenant(number: u64) -> String {
    format!("tenant-{}", number % TENANTS)
}
