//! `fermata runs explain`: why a run is where it is, in sentences.

mod perhaps;

use std::time::{SystemTime, UNIX_EPOCH};

use fermata_core::plan::{Join, Plan, PlanNode};
use fermata_core::review::Resolution;
use fermata_jetstream::work_queue::{QueueStanding, queue_standings};
use serde_json::json;

use self::perhaps::perhaps_done;
use crate::broker_session::BrokerSession;
use crate::commands::doctor::{PartitionStanding, standing_of};
use crate::error::{CliError, ExitCode};
use crate::journal_view::{
    Failure, NodeStatus, NodeView, ResolvedCase, RunHistory, RunStatus, StartedAgain,
};
use crate::output::{Output, counted, excerpt, span_text, time_text};

/// Widest input or detail in a sentence, in characters; `fermata runs show --json` has all of it.
const CHARACTERS_MAX: usize = 200;

/// Names that one sentence lists; the rest is counted.
const NAMED_MAX: usize = 8;

/// Explains the run.
pub(super) async fn run(
    history: &RunHistory,
    session: &BrokerSession,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let store = session.definitions_store().await?;
    let plan = match store.get_blob(&history.plan).await? {
        Some(bytes) => Some(
            fermata_wire::plan::decode(&bytes)
                .map_err(CliError::unreadable(format!("the plan {}", history.plan)))?,
        ),
        None => None,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now_ms = u64::try_from(now).unwrap_or(u64::MAX);
    let around = Around::look(history, plan.as_ref(), session).await;
    let sentences = sentences(history, plan.as_ref(), &around, now_ms);
    if output.is_json() {
        let summary = &history.summary;
        output.json_line(&json!({
            "run": summary.id, "status": summary.status, "sentences": sentences,
        }))?;
    } else {
        sentences.iter().try_for_each(|sentence| output.line(sentence))?;
    }
    Ok(ExitCode::Success)
}

/// What a run depends on and its journal does not tell; what could not be learnt is not told.
#[derive(Debug, Default)]
struct Around {
    partition: Option<PartitionStanding>,
    queues: Option<Vec<QueueStanding>>,
}

impl Around {
    async fn look(history: &RunHistory, plan: Option<&Plan>, session: &BrokerSession) -> Self {
        let run = &history.summary;
        if run.status.has_ended() {
            return Self::default();
        }
        let partition = standing_of(session, &run.id.partition().to_string()).await.ok();
        let has_queue = plan.is_some_and(|plan| plan.nodes.iter().any(|node| node.queue.is_some()));
        let queues = if has_queue { queue_standings(session.broker()).await.ok() } else { None };
        Self { partition, queues }
    }
}

/// What is known of a run, at the time `now_ms`.
fn sentences(
    history: &RunHistory,
    plan: Option<&Plan>,
    around: &Around,
    now_ms: u64,
) -> Vec<String> {
    let told = Told { history, plan, around, now_ms };
    let mut sentences = vec![told.beginning()];
    sentences.extend(told.breach());
    sentences.extend(told.replayed());
    sentences.push(told.input());
    if history.summary.status.has_ended() {
        sentences.extend(told.ending());
    } else {
        sentences.extend(told.partition());
        sentences.extend(told.closing());
        sentences.extend(history.nodes.iter().filter_map(|node| told.node(node)));
        sentences.extend(told.waiting());
        sentences.extend(told.next());
    }
    if plan.is_none() {
        sentences.push(format!(
            "Its plan {} is not in the object store, so nothing can be said of tasks that have not \
             begun.",
            history.plan
        ));
    }
    sentences
}

struct Told<'h> {
    history: &'h RunHistory,
    plan: Option<&'h Plan>,
    around: &'h Around,
    now_ms: u64,
}

impl Told<'_> {
    fn beginning(&self) -> String {
        let RunHistory { summary: run, strategy_version, .. } = self.history;
        format!(
            "Run {} of tenant `{}` began at {}: strategy `{}` (version {strategy_version}) chose \
             workflow `{}` {} for event `{}` of type `{}` from `{}`.",
            run.id,
            run.tenant,
            time_text(run.started_ms),
            run.strategy,
            run.workflow,
            run.workflow_version,
            run.event_id,
            run.event_type,
            run.event_source,
        )
    }

    fn breach(&self) -> Option<String> {
        let breach = self.history.breach.as_deref()?;
        Some(format!("The event breaks its contract, which only warns: {breach}."))
    }

    fn replayed(&self) -> Option<String> {
        let replayed = self.history.replayed.as_deref()?;
        let who = replayed.by.as_ref().map(|by| format!(" because `{by}` asked for it"));
        let why = replayed.reason.as_ref().map(|reason| format!(": {reason}"));
        Some(format!(
            "The event was decided once more{}{}.",
            who.unwrap_or_default(),
            why.unwrap_or_default()
        ))
    }

    fn input(&self) -> String {
        let input = excerpt(&self.history.input.to_string(), CHARACTERS_MAX);
        format!("The strategy started it with {input}.")
    }

    fn ending(&self) -> Vec<String> {
        let run = &self.history.summary;
        let at = time_text(run.ended_ms.unwrap_or_default());
        let after = span_text(run.duration_ms().unwrap_or_default());
        let (attempts, retries) = (run.attempts, run.retries);
        let how = match run.status {
            RunStatus::Succeeded => "It succeeded",
            RunStatus::Failed => "It failed",
            RunStatus::Cancelled => "It was cancelled",
            RunStatus::TimedOut => "It ran into its time limit",
            RunStatus::Quarantined => "It was quarantined",
            RunStatus::Running | RunStatus::Closing => "It has not ended",
        };
        let mut sentences = vec![format!(
            "{how} at {at}, after {after}, {} and {}.",
            counted(attempts, "attempt", "attempts"),
            counted(retries, "retry", "retries"),
        )];
        sentences.extend(self.reason());
        sentences.extend(self.last_failure());
        sentences.extend(self.resolved());
        sentences.extend(self.history.started_again.iter().map(started_again));
        let perhaps = perhaps_done(self.history);
        sentences.push(match perhaps.is_empty() {
            true => "Nothing more will happen.".to_owned(),
            false => "The run starts nothing more.".to_owned(),
        });
        sentences.extend(perhaps);
        sentences
    }

    /// What was decided about its case.
    fn resolved(&self) -> Option<String> {
        let ResolvedCase { case, resolution, by, reason, time_ms, .. } =
            self.history.resolved.as_ref()?;
        let reason = excerpt(reason, CHARACTERS_MAX);
        let is_started = self.history.started_again.iter().any(|again| again.by_case);
        let open = match resolution {
            Resolution::Retry | Resolution::Route { .. } if !is_started => {
                " That has started nothing, or not yet."
            }
            Resolution::Retry | Resolution::Route { .. } | Resolution::Close => "",
        };
        Some(format!(
            "Its case {case} was resolved by `{by}` at {} ({}): {reason}.{open}",
            time_text(*time_ms),
            resolution.as_str(),
        ))
    }

    /// What the record that ended or closes the run says.
    fn reason(&self) -> Option<String> {
        let timeline = self.history.timeline.iter().rev();
        let mut endings = timeline.filter(|entry| entry.kind.starts_with("run."));
        let last = endings.find(|entry| entry.kind != "run.started")?;
        let (_, reason) = last.what.text.split_once(": ")?;
        let detail = last.what.detail.as_deref().filter(|detail| !detail.is_empty());
        let detail = detail.map(|detail| format!(" ({})", excerpt(detail, CHARACTERS_MAX)));
        Some(format!("The reason: {reason}{}.", detail.unwrap_or_default()))
    }

    fn last_failure(&self) -> Option<String> {
        let failed = self.history.nodes.iter();
        let failed = failed.filter_map(|node| node.failure.as_ref().map(|failure| (node, failure)));
        // Without a class nobody knows whether it is one.
        let failed = failed.filter(|(_, failure)| failure.class.is_some());
        let (node, failure) = failed.max_by_key(|(_, failure)| failure.time_ms)?;
        Some(format!("The last failure was of `{}`: {}.", node.id, said(failure)))
    }

    fn closing(&self) -> Vec<String> {
        if self.history.summary.status != RunStatus::Closing {
            return vec!["It is running.".to_owned()];
        }
        let mut sentences = vec![
            "It is closing: nothing new is started, what is under way is given up, and it ends when all of that \
             is recorded; who was called may act all the same."
                .to_owned(),
        ];
        sentences.extend(self.reason());
        sentences
    }

    /// What keeps its partition, and so everything of it, from going on.
    fn partition(&self) -> Option<String> {
        let partition = self.history.summary.id.partition();
        match self.around.partition.as_ref()? {
            PartitionStanding::Ownerless => Some(format!(
                "No worker holds its partition {partition}, so nothing happens until one does: \
                 start a worker with the role coordinator."
            )),
            PartitionStanding::Halted { worker, reason } => Some(format!(
                "Its partition {partition} is halted at worker `{worker}`, so nothing happens \
                 until that is repaired: {reason}. `fermata doctor` says what to do."
            )),
            PartitionStanding::Owned => None,
        }
    }

    /// Where an attempt is that was put into a queue.
    fn queued(&self, planned: Option<&PlanNode>) -> Option<String> {
        let queue = planned?.queue.as_deref()?;
        let standings = self.around.queues.as_ref()?;
        Some(match standings.iter().find(|standing| standing.queue == queue) {
            Some(standing) if standing.is_served => format!(
                " Its queue `{queue}` is served; {} in it, {} under way.",
                counted(standing.waiting, "task waits", "tasks wait"),
                standing.under_way
            ),
            Some(standing) => format!(
                " No worker serves its queue `{queue}`, in which {}: start one with \
                 `fermata worker --queues {queue}`.",
                counted(standing.waiting, "task waits", "tasks wait")
            ),
            None => format!(
                " Its queue `{queue}` has no tasks: a worker has just ended this one, or it is \
                 held back until there is room."
            ),
        })
    }

    /// What a node that has begun waits for.
    fn node(&self, node: &NodeView) -> Option<String> {
        let id = &node.id;
        let planned = self.planned(id);
        let most = planned.map(|planned| format!(" of at most {}", planned.retry.max_attempts));
        let most = most.unwrap_or_default();
        match node.status {
            NodeStatus::Running => {
                let since = span_text(self.now_ms.saturating_sub(node.last_ms));
                let limit = planned.map(|planned| {
                    format!("; an attempt may take {}", span_text(planned.timeout_ms))
                });
                Some(format!(
                    "`{id}` waits for the outcome of attempt {}{most}, which was ordered at {}, \
                     {since} ago{}.{}",
                    node.attempts,
                    time_text(node.last_ms),
                    limit.unwrap_or_default(),
                    self.queued(planned).unwrap_or_default(),
                ))
            }
            NodeStatus::Backoff => {
                let when = self.until(node);
                let failure = node.failure.as_ref().map(|failure| format!(": {}", said(failure)));
                Some(format!(
                    "`{id}` waits to be tried again: attempt {}{most} is due at {}, {when}. The \
                     attempt before failed{}.",
                    node.attempts.saturating_add(1),
                    time_text(node.due_ms.unwrap_or_default()),
                    failure.unwrap_or_default(),
                ))
            }
            NodeStatus::Unknown => Some(format!(
                "Nobody can tell whether the effect of `{id}` happened, so it is not tried again; \
                 a person decides."
            )),
            NodeStatus::Failed => {
                let failure = node.failure.as_ref().map(said).unwrap_or_default();
                Some(format!("`{id}` failed for good: {failure}."))
            }
            NodeStatus::Delayed => Some(format!(
                "`{id}` is a delay; it ends at {}, {}.",
                time_text(node.due_ms.unwrap_or_default()),
                self.until(node)
            )),
            NodeStatus::Accepted => Some(format!(
                "`{id}` was accepted at {} and waits for its callback until {}, {}.",
                time_text(node.last_ms),
                time_text(node.due_ms.unwrap_or_default()),
                self.until(node)
            )),
            NodeStatus::Waiting => {
                let event = node.event.as_ref().map(|event| {
                    let correlation = excerpt(&event.correlation, CHARACTERS_MAX);
                    format!(" of type `{}` with the correlation key `{correlation}`", event.kind)
                });
                Some(format!(
                    "`{id}` waits for an event{} until {}, {}.",
                    event.unwrap_or_default(),
                    time_text(node.due_ms.unwrap_or_default()),
                    self.until(node)
                ))
            }
            NodeStatus::Succeeded | NodeStatus::Skipped => None,
        }
    }

    /// How long it is until something of `node` is due.
    fn until(&self, node: &NodeView) -> String {
        match node.due_ms.unwrap_or_default().checked_sub(self.now_ms) {
            Some(left) => format!("in {}", span_text(left)),
            None => "which has passed".to_owned(),
        }
    }

    /// Which tasks have not begun, and what they wait for.
    fn waiting(&self) -> Vec<String> {
        let Some(plan) = self.plan else { return Vec::new() };
        let waiting: Vec<_> =
            plan.nodes.iter().filter(|node| self.view(&node.id).is_none()).collect();
        let mut sentences: Vec<_> =
            waiting.iter().take(NAMED_MAX).map(|node| self.awaited(plan, node)).collect();
        if let Some(more @ 1..) = waiting.len().checked_sub(NAMED_MAX) {
            sentences.push(format!("{more} more tasks have not begun."));
        }
        sentences
    }

    fn awaited(&self, plan: &Plan, node: &PlanNode) -> String {
        let open = node.predecessors.iter().filter_map(|index| plan.nodes.get(*index as usize));
        let open = open.filter(|before| !self.has_ended(&before.id));
        let open: Vec<_> = open.map(|before| format!("`{}`", before.id)).collect();
        let id = &node.id;
        match (open.len(), node.join) {
            (0, _) => match node.queue.as_deref() {
                None => format!(
                    "`{id}` is ready and waits to be ordered, within its partition's bound of \
                     attempts under way."
                ),
                Some(queue) => format!(
                    "`{id}` is ready and waits to be put into the queue `{queue}`, within the \
                     bound of attempts that wait in it.{}",
                    self.queued(Some(node)).unwrap_or_default()
                ),
            },
            (1, _) => format!("`{id}` waits for {}.", listed(&open)),
            (_, Join::All) => format!("`{id}` waits for all of {}.", listed(&open)),
            (_, Join::Any) => format!("`{id}` waits for one of {}.", listed(&open)),
        }
    }

    fn next(&self) -> Vec<String> {
        let under_way = self.history.nodes.iter();
        let under_way = under_way.filter(|node| node.status.is_under_way());
        let mut sentences = Vec::new();
        if self.history.summary.status == RunStatus::Running {
            for node in under_way.take(NAMED_MAX) {
                sentences.extend(self.when_it_succeeds(node));
            }
        }
        let deadline = self.history.deadline_ms;
        sentences.push(match deadline.checked_sub(self.now_ms) {
            Some(left) => format!(
                "If it has not ended at {}, in {}, it is timed out.",
                time_text(deadline),
                span_text(left)
            ),
            None => format!(
                "Its time limit passed at {}; its partition ends it as soon as it is owned.",
                time_text(deadline)
            ),
        });
        sentences
    }

    fn when_it_succeeds(&self, node: &NodeView) -> Option<String> {
        let plan = self.plan?;
        let planned = self.planned(&node.id)?;
        let after = planned.successors.iter().filter_map(|index| plan.nodes.get(*index as usize));
        let freed = after.filter(|after| {
            let others = after.predecessors.iter();
            let others = others.filter_map(|index| plan.nodes.get(*index as usize));
            let mut open = others.filter(|other| other.id != node.id && !self.has_ended(&other.id));
            after.join == Join::Any || open.next().is_none()
        });
        let freed: Vec<_> = freed.map(|after| format!("`{}`", after.id)).collect();
        let attempts = planned.retry.max_attempts;
        // What is decided without an attempt is not tried again.
        let fails = if node.attempts == 0 || node.attempts >= attempts {
            "if it fails, the run fails".to_owned()
        } else {
            format!("if it fails, it may be tried again up to attempt {attempts}")
        };
        Some(match (freed.as_slice(), planned.successors.is_empty()) {
            ([], true) => format!("Nothing comes after `{}`; {fails}.", node.id),
            ([], false) => {
                format!("What comes after `{}` waits for others, too; {fails}.", node.id)
            }
            (freed, _) => {
                format!("When `{}` succeeds, {} can begin; {fails}.", node.id, listed(freed))
            }
        })
    }

    fn planned(&self, id: &str) -> Option<&PlanNode> {
        self.plan?.nodes.iter().find(|node| &*node.id == id)
    }

    fn view(&self, id: &str) -> Option<&NodeView> {
        self.history.nodes.iter().find(|node| &*node.id == id)
    }

    fn has_ended(&self, id: &str) -> bool {
        let ended = [NodeStatus::Succeeded, NodeStatus::Skipped];
        self.view(id).is_some_and(|node| ended.contains(&node.status))
    }
}

/// What its event started since.
fn started_again(again: &StartedAgain) -> String {
    let StartedAgain { runs, time_ms, by_case } = again;
    let runs = runs.iter().map(ToString::to_string).collect::<Vec<_>>();
    format!(
        "{} its event was decided once more, and started {} {} at {}: new, from the beginning.",
        if *by_case { "For that" } else { "By a replay" },
        if runs.len() == 1 { "run" } else { "runs" },
        listed(&runs),
        time_text(*time_ms)
    )
}

fn said(failure: &Failure) -> String {
    let class = failure.class.map(|class| class.to_string());
    let detail = Some(excerpt(&failure.detail, CHARACTERS_MAX)).filter(|detail| !detail.is_empty());
    let why: Vec<_> = class.into_iter().chain(detail).collect();
    format!("{} at {}", why.join(": "), time_text(failure.time_ms))
}

fn listed(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(NAMED_MAX).map(String::as_str).collect();
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests;
