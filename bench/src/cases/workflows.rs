//! The workflows that cases run.

use fermata_core::plan::{Completion, Executable, Work};
use fermata_definitions::{TaskDocument, WorkflowDocument, build};

use crate::definitions::told;
use crate::engine_process::PLUGIN;

/// How long an attempt of `hold` may take: longer than any case.
const HOLD_TIMEOUT_MS: u64 = 30 * 60 * 1_000;

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
    let work = Work::Http {
        plugin: PLUGIN.to_owned(),
        path: "/hold".to_owned(),
        body: "{}".to_owned(),
        idempotent: true,
        completion: Completion::Answer,
    };
    let task = TaskDocument { timeout_ms: HOLD_TIMEOUT_MS, ..TaskDocument::new("hold", work) };
    build(document(name, vec![task])).map_err(|problems| told(&problems))
}
