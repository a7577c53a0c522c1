//! The workflows that cases run.

use fermata_core::plan::{Completion, Executable, RetryPolicy, Work};
use fermata_definitions::{TaskDocument, WorkflowDocument, build};

use crate::definitions::told;
use crate::engine_process::PLUGIN;

/// How long an attempt of `hold` may take: longer than any case.
const HOLD_TIMEOUT_MS: u64 = 30 * 60 * 1_000;

/// Pause before the first repetition of a failed call, at most: shorter than a log that stands still
/// takes to count as at rest.
const RETRY_PAUSE_MS: u64 = 100;

/// How long a run may take.
const RUN_TIMEOUT_MS: u64 = 60 * 60 * 1_000;

/// A document of these tasks.
pub fn document(name: &str, tasks: Vec<TaskDocument>) -> WorkflowDocument {
    WorkflowDocument {
        name: name.to_owned(),
        version: "1".to_owned(),
        input: None,
        tasks,
        run_timeout_ms: RUN_TIMEOUT_MS,
    }
}

/// One `noop`.
pub fn one_noop(name: &str) -> miette::Result<Executable> {
    let tasks = vec![TaskDocument::new("a", Work::Noop)];
    build(document(name, tasks)).map_err(|problems| told(&problems))
}

/// Three `noop`s, one after the other.
pub fn three_noops(name: &str) -> miette::Result<Executable> {
    let after = |id: &str, before: Option<&str>| TaskDocument {
        depends_on: before.map(str::to_owned).into_iter().collect(),
        ..TaskDocument::new(id, Work::Noop)
    };
    let tasks = vec![after("a", None), after("b", Some("a")), after("c", Some("b"))];
    build(document(name, tasks)).map_err(|problems| told(&problems))
}

/// `width` `noop`s at the same time, and one that waits for all of them.
pub fn fanout(name: &str, width: u64) -> miette::Result<Executable> {
    let mut tasks = (0..width)
        .map(|number| TaskDocument::new(format!("part-{number}"), Work::Noop))
        .collect::<Vec<_>>();
    let depends_on = tasks.iter().map(|task| task.id.clone()).collect();
    tasks.push(TaskDocument { depends_on, ..TaskDocument::new("join", Work::Noop) });
    build(document(name, tasks)).map_err(|problems| told(&problems))
}

/// One call of the plugin that keeps its callers waiting.
pub fn held(name: &str) -> miette::Result<Executable> {
    call(name, "hold", |task| TaskDocument { timeout_ms: HOLD_TIMEOUT_MS, ..task })
}

/// One call of the plugin that is answered at once.
pub fn answered(name: &str) -> miette::Result<Executable> {
    call(name, "answer", |task| task)
}

/// One call of the plugin that fails, made three times.
pub fn refused(name: &str) -> miette::Result<Executable> {
    let retry = RetryPolicy {
        max_attempts: 3,
        initial_ms: RETRY_PAUSE_MS,
        ..RetryPolicy::exponential_backoff()
    };
    call(name, "fail", |task| TaskDocument { retry, ..task })
}

/// A call for the workers of `queue`.
pub fn queued(name: &str, queue: &str) -> miette::Result<Executable> {
    let queue = Some(queue.to_owned());
    call(name, "answer", |task| TaskDocument { queue, ..task })
}

/// A value that cannot be computed from any event of ours.
pub fn uncomputable(name: &str) -> miette::Result<Executable> {
    let work = Work::Transform { value: "input.nothing.of.the.kind".to_owned() };
    let tasks = vec![TaskDocument::new("compute", work)];
    build(document(name, tasks)).map_err(|problems| told(&problems))
}

/// One call of the plugin.
fn call(
    name: &str,
    path: &str,
    change: impl FnOnce(TaskDocument) -> TaskDocument,
) -> miette::Result<Executable> {
    let work = Work::Http {
        plugin: PLUGIN.to_owned(),
        path: format!("/{path}"),
        body: "{}".to_owned(),
        idempotent: true,
        completion: Completion::Answer,
    };
    let task = change(TaskDocument::new(path, work));
    build(document(name, vec![task])).map_err(|problems| told(&problems))
}
