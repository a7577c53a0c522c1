//! `query`: lists of runs out of the read model, without a broker.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use fermata_core::command::EventReference;
use fermata_core::digest::Digest;
use fermata_core::identity::{
    JournalTime, PartitionId, RunId, SourcePosition, StreamPosition, Tenant,
};
use fermata_core::json::Json;
use fermata_core::plan::FailureClass;
use fermata_core::record::{Body, EndReason, Record, RunFailed, RunStarted, RunSucceeded};
use fermata_store::{
    FrameChanges, Origin, ReadModel, RunIndex, RunQuery, RunStatus, StoreLimits, StreamOrigin,
};
use fermata_wire::journal::{FrameBuilder, FrameHead};
use miette::{IntoDiagnostic as _, ensure};
use uuid::Uuid;

use crate::figures::{Figures, Times, count};
use crate::process_usage::memory;
use crate::setup::progress;

/// Runs of one journal message, about what a busy partition writes.
const RUNS_PER_FRAME: u64 = 100;

/// Tenants and workflows; a workflow is any tenant's.
const TENANTS: u64 = 20;
const WORKFLOWS: u64 = 50;

/// Of so many runs one fails; of this one's successors one stays open.
const FAILS_OF: u64 = 50;
const STAYS_OF: u64 = 997;

/// Lists measured for each filter.
const LISTS: u64 = 400;

/// What a list may take, 19 of 20 times.
pub(super) const P95_MS_MAX: f64 = 50.0;

/// Runs of a page: a screenful, as `fermata runs list` asks for.
pub(super) const PAGE_RUNS: usize = 50;

/// When the first run begins, in milliseconds since 1970; one begins each millisecond.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// Which runs are asked for; the number tells one question from the next.
type Filter = fn(u64, u64) -> RunQuery;

const FILTERS: [(&str, Filter); 9] = [
    ("query_all", |_, _| RunQuery::default()),
    ("query_tenant", |number, _| RunQuery { tenant: tenant(number).ok(), ..RunQuery::default() }),
    ("query_workflow", |number, _| RunQuery {
        workflow: Some(workflow(number)),
        ..RunQuery::default()
    }),
    ("query_succeeded", |_, _| of_status(RunStatus::Succeeded)),
    ("query_failed", |_, _| of_status(RunStatus::Failed)),
    ("query_running", |_, _| of_status(RunStatus::Running)),
    // None stands there.
    ("query_cancelled", |_, _| of_status(RunStatus::Cancelled)),
    ("query_tenant_workflow_status", |number, _| RunQuery {
        tenant: tenant(number).ok(),
        workflow: Some(workflow(number / TENANTS)),
        ..of_status(if number.is_multiple_of(2) { RunStatus::Failed } else { RunStatus::Succeeded })
    }),
    ("query_time", |number, n| {
        let since = BEGIN_MS + number * (n / LISTS).max(1);
        RunQuery { since_ms: Some(since), until_ms: Some(since + 10_000), ..RunQuery::default() }
    }),
];

/// Loads `n` runs and lists some of them by each filter.
pub fn run(n: u64) -> miette::Result<Vec<Figures>> {
    let folder = tempfile::tempdir().into_diagnostic()?;
    let stream = StreamOrigin {
        partition: PartitionId(0),
        stream: "JOURNAL_0".to_owned(),
        created: "now".to_owned(),
    };
    let origin = Origin { engine: "bench".to_owned(), streams: vec![stream] };
    let opened = ReadModel::open(folder.path(), &origin, StoreLimits::default());
    let mut model = opened.into_diagnostic()?.model;
    let begun = Instant::now();
    load(&mut model, n)?;
    let rss_mib =
        memory(std::process::id()).ok().map(|memory| count(memory.peak_bytes) / 1_048_576.0);
    let bytes = model.size_bytes().into_diagnostic()?;
    let load = Figures { rss_mib, ..Figures::of("query_load", n, begun.elapsed()) };
    let mut measured = vec![load.note(format!("{bytes} bytes on disk"))];
    ensure!(model.runs() == n, "{} of {n} runs are held", model.runs());
    for (case, filter) in FILTERS {
        measured.push(measure(&mut model, case, filter, n)?);
    }
    let begun = Instant::now();
    model.close().into_diagnostic()?;
    let closed = begun.elapsed();
    let opened = ReadModel::open(folder.path(), &origin, StoreLimits::default());
    ensure!(opened.into_diagnostic()?.rebuild.is_none(), "what was closed is not used again");
    let both = begun.elapsed();
    measured.push(
        Figures::of("query_reopen", n, both)
            .note(format!("closed in {closed:?}, the rest to open")),
    );
    Ok(measured)
}

fn measure(
    model: &mut ReadModel,
    case: &'static str,
    filter: Filter,
    n: u64,
) -> miette::Result<Figures> {
    let mut times = Vec::new();
    let mut found = 0;
    let whole = Instant::now();
    for number in 0..LISTS {
        let mut query = RunQuery { limit: PAGE_RUNS, ..filter(number, n) };
        // Half of the questions go on from the page before.
        for _ in 0..2 {
            let begun = Instant::now();
            let page = model.list(&query).into_diagnostic()?;
            times.push(begun.elapsed());
            ensure!(page.runs.iter().all(|run| query.takes(run)), "{case}: the wrong runs");
            found += page.runs.len();
            let Some(next) = black_box(page).next else { break };
            query.after = Some(next);
        }
    }
    let elapsed = whole.elapsed();
    let lists = u64::try_from(times.len()).unwrap_or(u64::MAX);
    let p95 = Times::of(times.clone()).percentile_ms(95).unwrap_or_default();
    ensure!(p95 < P95_MS_MAX, "{case}: p95 is {p95:.1} ms of {P95_MS_MAX} ms");
    let figures = Figures::of(case, lists, elapsed).with_times(times);
    Ok(figures.note(format!("p95 {p95:.3} ms, {found} runs listed out of {n}")))
}

fn load(model: &mut ReadModel, n: u64) -> miette::Result<()> {
    let bar = progress("query", n);
    let mut sequence = 0;
    let mut apply = |records: &[(u64, Record)]| -> miette::Result<()> {
        sequence += 1;
        let payload = frame(records).into_diagnostic()?;
        let changes = FrameChanges::read(PartitionId(0), sequence, &payload).into_diagnostic()?;
        model.apply(&changes).into_diagnostic()?;
        Ok(())
    };
    for first in (0..n).step_by(usize::try_from(RUNS_PER_FRAME).unwrap_or(100)) {
        let runs = first..(first + RUNS_PER_FRAME).min(n);
        let started = runs.clone().map(started).collect::<miette::Result<Vec<_>>>()?;
        apply(&started)?;
        let ended = runs.clone().filter(|number| !number.is_multiple_of(STAYS_OF)).map(ended);
        apply(&ended.collect::<miette::Result<Vec<_>>>()?)?;
        bar.inc(runs.end - runs.start);
    }
    bar.finish_and_clear();
    Ok(())
}

fn frame(records: &[(u64, Record)]) -> Result<Vec<u8>, fermata_wire::WireError> {
    let mut builder = FrameBuilder::default();
    let first = records.first().map_or(0, |(number, _)| *number);
    let time = JournalTime(BEGIN_MS + first);
    for (number, record) in records {
        builder.push(record, *number, time, [9; 16])?;
    }
    let head = FrameHead {
        epoch: 1,
        incarnation: Uuid::from_u128(1),
        number: 0,
        time,
        position: StreamPosition::default(),
        floor: 0,
    };
    builder.finish(&head, first)
}

fn tenant(number: u64) -> miette::Result<Tenant> {
    format!("tenant-{}", number % TENANTS).parse().into_diagnostic()
}

fn workflow(number: u64) -> Arc<str> {
    format!("workflow-{}", number % WORKFLOWS).into()
}

fn of_status(status: RunStatus) -> RunQuery {
    RunQuery { status: Some(status), ..RunQuery::default() }
}

fn run_of(number: u64) -> miette::Result<(Tenant, RunId)> {
    let tenant = tenant(number)?;
    let source = SourcePosition { sequence: number, index: 0 };
    let run = RunId::new(PartitionId(0), &tenant, u128::from(number), source, "strategy", None);
    Ok((tenant, run))
}

fn started(number: u64) -> miette::Result<(u64, Record)> {
    let (tenant, run) = run_of(number)?;
    let body = RunStarted {
        event: EventReference {
            tenant: tenant.clone(),
            id: format!("event-{number}").into(),
            source: "/bench/source".into(),
            kind: "plugin.job.completed".into(),
            traceparent: None,
            hops: 0,
            breach: None,
            replayed: None,
        },
        strategy: "strategy".into(),
        strategy_version: 1,
        workflow: workflow(number / TENANTS),
        workflow_version: "1.0".into(),
        plan: Digest([7; 32]),
        input: Json::null(),
        deadline: JournalTime(u64::MAX),
    };
    Ok((number, Record::of_run(&tenant, run, Body::from(body))))
}

fn ended(number: u64) -> miette::Result<(u64, Record)> {
    let (tenant, run) = run_of(number)?;
    let body: Body = if number.is_multiple_of(FAILS_OF) {
        let (class, detail) = (FailureClass::Http5xx, "status 500".to_owned());
        RunFailed { reason: EndReason::Failed { node: "fetch".into(), class, detail } }.into()
    } else {
        RunSucceeded {}.into()
    };
    Ok((number, Record::of_run(&tenant, run, body)))
}
