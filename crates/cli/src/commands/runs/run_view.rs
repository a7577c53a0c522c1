//! Runs as people look at them.

use serde_json::Value;

use crate::error::CliError;
use crate::journal_view::{NodeView, RunHistory, RunStatus, RunSummary, TimelineEntry};
use crate::output::{Output, Tone, excerpt, span_text, time_text};

/// Widest output of a node in the table, in characters; `--json` shows all of it.
const OUTPUT_CHARACTERS_MAX: usize = 60;

/// Widest detail of a failure in the timeline, in characters; likewise.
const DETAIL_CHARACTERS_MAX: usize = 120;

/// Prints runs, one per line.
///
/// # Errors
///
/// When it cannot be written.
pub fn print_runs(runs: &[RunSummary], output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return runs.iter().try_for_each(|run| output.json_line(run));
    }
    let row = |run: &RunSummary| {
        vec![
            run.id.to_string(),
            run.tenant.to_string(),
            format!("{} {}", run.workflow, run.workflow_version),
            output.tone(tone(run.status), run.status.as_str()),
            time_text(run.started_ms),
            run.duration_ms().map_or("-".to_owned(), span_text),
            run.attempts.to_string(),
            run.retries.to_string(),
        ]
    };
    let rows = runs.iter().map(row).collect();
    let columns = ["RUN", "TENANT", "WORKFLOW", "STATUS", "STARTED", "TOOK", "ATTEMPTS", "RETRIES"];
    output.table(&columns, rows, "no runs")
}

/// Prints everything about a run.
///
/// # Errors
///
/// When it cannot be written.
pub fn print_history(history: &RunHistory, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return output.json_line(history);
    }
    print_head(history, output)?;
    output.line("")?;
    let rows =
        history.nodes.iter().map(|node| node_row(node, history.summary.started_ms)).collect();
    let columns = ["TASK", "STATUS", "ATTEMPTS", "BEGAN", "TOOK", "OUTPUT"];
    output.table(&columns, rows, "no task has begun")?;
    output.line("")?;
    print_timeline(&history.timeline, output)
}

/// Prints what a run is, before anything of it.
pub(super) fn print_head(history: &RunHistory, output: &mut Output) -> Result<(), CliError> {
    let run = &history.summary;
    let id = output.tone(Tone::Strong, &run.id.to_string());
    let status = output.tone(tone(run.status), run.status.as_str());
    output.line(&format!("run       {id}"))?;
    output.line(&format!("status    {status}"))?;
    output.line(&format!("workflow  {} {}", run.workflow, run.workflow_version))?;
    output.line(&format!("tenant    {}", run.tenant))?;
    output.line(&format!("strategy  {}", run.strategy))?;
    output.line(&format!(
        "event     {} {} from {}",
        run.event_type, run.event_id, run.event_source
    ))?;
    if let Some(breach) = &history.breach {
        output.line(&format!("contract  {} {breach}", output.tone(Tone::Warning, "broken:")))?;
    }
    if let Some(replayed) = &history.replayed {
        let who = replayed.by.as_deref().unwrap_or("somebody");
        let why = replayed.reason.as_ref().map(|reason| format!(": {reason}"));
        output.line(&format!("replayed  by {who}{}", why.unwrap_or_default()))?;
    }
    let started = time_text(run.started_ms);
    match (run.ended_ms, run.duration_ms()) {
        (Some(ended), Some(took)) => output.line(&format!(
            "time      {started} to {} ({})",
            time_text(ended),
            span_text(took)
        )),
        _ => output.line(&format!("time      {started}, due {}", time_text(history.deadline_ms))),
    }
}

/// Prints what happened, one thing per line.
pub(super) fn print_timeline(
    timeline: &[TimelineEntry],
    output: &mut Output,
) -> Result<(), CliError> {
    for entry in timeline {
        if output.is_json() {
            output.json_line(entry)?;
            continue;
        }
        let offset =
            output.tone(Tone::Faint, &format!("{:>9}", format!("+{}", span_text(entry.offset_ms))));
        let node = match (&entry.node, entry.attempt) {
            (Some(node), Some(attempt)) => format!("{node} #{attempt}"),
            (Some(node), None) => node.to_string(),
            (None, _) => String::new(),
        };
        let line = format!("{offset}  {node:<20}  {}", what(entry, output));
        output.line(line.trim_end())?;
    }
    Ok(())
}

fn what(entry: &TimelineEntry, output: &Output) -> String {
    let mut text = match entry.what.class {
        Some(_) => output.tone(Tone::Warning, &entry.what.text),
        None => entry.what.text.clone(),
    };
    let class = entry.what.class.map(|class| class.to_string());
    let detail = entry.what.detail.as_ref().map(|detail| excerpt(detail, DETAIL_CHARACTERS_MAX));
    let why: Vec<_> = class.into_iter().chain(detail).filter(|why| !why.is_empty()).collect();
    if !why.is_empty() {
        text.push_str(&format!(" ({})", why.join(": ")));
    }
    text
}

fn node_row(node: &NodeView, started_ms: u64) -> Vec<String> {
    let name = match node.activation {
        1 => node.id.to_string(),
        activation => format!("{} /{activation}", node.id),
    };
    let shown = |value: &Value| excerpt(&value.to_string(), OUTPUT_CHARACTERS_MAX);
    vec![
        name,
        node.status.as_str().to_owned(),
        node.attempts.to_string(),
        format!("+{}", span_text(node.first_ms.saturating_sub(started_ms))),
        span_text(node.last_ms.saturating_sub(node.first_ms)),
        node.output.as_ref().map_or("-".to_owned(), shown),
    ]
}

fn tone(status: RunStatus) -> Tone {
    match status {
        RunStatus::Running => Tone::Strong,
        RunStatus::Closing => Tone::Warning,
        RunStatus::Succeeded => Tone::Good,
        RunStatus::Failed | RunStatus::Cancelled | RunStatus::TimedOut | RunStatus::Quarantined => {
            Tone::Bad
        }
    }
}

#[cfg(test)]
mod tests {
    use fermata_core::record::Body;

    use super::*;
    use crate::commands::testing::printed;
    use crate::journal_view::testing::{Script, run_of};

    fn history() -> RunHistory {
        let run = run_of("a");
        let mut script = Script::default();
        let (header, record) = script.at(1_700_000_000_000).started(run);
        let mut history = RunHistory::begin(&header, &record).unwrap();
        for (header, record) in [
            script.dispatched(run, "fetch", 1),
            script.at(1_700_000_000_030).retrying(run, "fetch", 1, 1_700_000_000_150),
            script.at(1_700_000_000_150).dispatched(run, "fetch", 2),
            script.at(1_700_000_001_180).node_succeeded(run, "fetch", 2, "{\"n\":1}"),
            script.succeeded(run),
        ] {
            history.fold(&header, &record);
        }
        history
    }

    #[test]
    fn a_run_is_shown_with_its_tasks_and_its_timeline() {
        insta::assert_snapshot!(printed(|output| print_history(&history(), output)));
    }

    #[test]
    fn an_event_that_breaks_a_contract_which_only_warns_is_told_with_its_run() {
        let (header, mut record) = Script::default().started(run_of("a"));
        let Body::RunStarted(started) = &mut record.body else { panic!("{record:?}") };
        started.event.breach = Some("version `v1`: /iban: is missing".into());
        let history = RunHistory::begin(&header, &record).unwrap();

        let shown = printed(|output| print_history(&history, output));

        assert!(shown.contains("contract  broken: version `v1`: /iban: is missing\n"), "{shown}");
    }

    #[test]
    fn runs_are_listed_one_per_line() {
        insta::assert_snapshot!(printed(|output| print_runs(&[history().summary], output)));
    }
}
