//! Plugins and programs that tasks call and no worker that would run them was started with.

use fermata_core::plan::{Executable, Plan, Work};
use fermata_definitions::did_you_mean;
use fermata_jetstream::leases::Leases;

use crate::broker_session::BrokerSession;
use crate::commands::doctor::workers::{WorkerStatus, ask_all};
use crate::error::CliError;

/// Role of the workers that run the tasks of no queue.
const COORDINATOR: &str = "coordinator";

/// What a task calls, and how a worker comes to know it.
struct Called<'w> {
    /// The settings in which workers tell what they know.
    list: &'static str,
    what: &'static str,
    name: &'w str,
    /// What to start a worker with that is to know it.
    with: String,
}

impl<'w> Called<'w> {
    fn of(work: &'w Work) -> Option<Self> {
        match work {
            Work::Http { plugin: name, .. } => {
                let with = format!("`--plugin {name}=<address>`");
                Some(Self { list: "http.plugins", what: "plugin", name, with })
            }
            Work::Command { name, .. } => {
                let with = format!("a `--config` that has `commands.programs.{name}`");
                Some(Self { list: "commands.programs", what: "program", name, with })
            }
            Work::Noop
            | Work::Transform { .. }
            | Work::Delay(_)
            | Work::Emit { .. }
            | Work::Nats { .. }
            | Work::Wait { .. } => None,
        }
    }
}

/// A call that none of those who would make it knows.
pub(crate) struct UnknownCall {
    /// Which task calls what.
    pub(crate) call: String,
    /// What may have been meant.
    pub(crate) meant: Option<String>,
    /// What to start a worker with that is to know it.
    pub(crate) with: String,
}

impl UnknownCall {
    fn of_all_workers(&self) -> String {
        let Self { call, meant, with } = self;
        let hint = meant.clone().unwrap_or_else(|| format!("start them with {with}"));
        format!("{call}, which no worker that would run it knows; {hint}")
    }
}

/// What is told of calls that no worker could make now, as far as workers tell what they were started with.
///
/// # Errors
///
/// When the broker does not answer.
///
/// # Cancel safety
///
/// Can be dropped.
pub(super) async fn unknown(
    session: &BrokerSession,
    executables: &[Executable],
) -> Result<Vec<String>, CliError> {
    let nodes = executables.iter().flat_map(|executable| &executable.plan().nodes);
    if nodes.filter_map(|node| Called::of(&node.work)).next().is_none() {
        return Ok(Vec::new());
    }
    let leases = Leases::open(session.broker()).await?;
    let statuses = ask_all(session, &leases.live_workers().await?).await?;
    Ok(executables.iter().flat_map(|executable| told(executable.plan(), &statuses)).collect())
}

/// What is told of calls in `plan` that none of these workers could make.
pub(in crate::commands) fn told(plan: &Plan, statuses: &[WorkerStatus]) -> Vec<String> {
    judge(plan, statuses).map(|unknown| unknown.of_all_workers()).collect()
}

/// The calls in `plan` that none of these workers could make.
pub(crate) fn judge<'p>(
    plan: &'p Plan,
    statuses: &'p [WorkerStatus],
) -> impl Iterator<Item = UnknownCall> + 'p {
    // Older workers do not tell what they were started with, and may know it.
    let is_told = statuses.iter().all(|status| status.incarnation.is_some());
    let nodes = plan.nodes.iter().filter(move |_| is_told);
    nodes.filter_map(move |node| {
        let Called { list, what, name, with } = Called::of(&node.work)?;
        let runs = |status: &&WorkerStatus| match &node.queue {
            Some(queue) => status.queues.iter().any(|served| **served == **queue),
            None => status.roles.iter().any(|role| role == COORDINATOR),
        };
        let who: Vec<_> = statuses.iter().filter(runs).collect();
        let setting = format!("{list}.{name}");
        // One digest under the name of the list stands for more than are named.
        let knows = |status: &&WorkerStatus| {
            status.settings.contains_key(list) || status.settings.contains_key(&setting)
        };
        if who.is_empty() || who.iter().any(knows) {
            return None;
        }
        let settings = who.iter().flat_map(|status| status.settings.keys());
        let known = settings.filter_map(|setting| setting.strip_prefix(list)?.strip_prefix('.'));
        let (task, workflow) = (&node.id, &plan.workflow);
        Some(UnknownCall {
            call: format!("task `{task}` of workflow `{workflow}` calls the {what} `{name}`"),
            meant: did_you_mean(name, known),
            with,
        })
    })
}

#[cfg(test)]
mod tests {
    use fermata_definitions::{Limits, read_workflow};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn worker(role: &str, queues: &[&str], settings: serde_json::Value) -> WorkerStatus {
        WorkerStatus {
            incarnation: Some(Uuid::nil()),
            roles: vec![role.to_owned()],
            queues: queues.iter().map(ToString::to_string).collect(),
            settings: serde_json::from_value(settings).unwrap(),
            ..WorkerStatus::default()
        }
    }

    fn told_of(task: &str, statuses: &[WorkerStatus]) -> String {
        let text = format!("workflow:\n  name: w\n  version: '1'\n  tasks:\n    - {task}\n");
        let executable = read_workflow(&text, None, &Limits::default()).expect(&text);
        told(executable.plan(), statuses).join("\n")
    }

    const CALL: &str = "{ id: a, http: { plugin: reprots, path: /x } }";

    #[test]
    fn a_plugin_that_no_worker_knows_is_told_with_the_one_that_may_be_meant() {
        let workers = [worker("coordinator", &[], json!({ "http.plugins.reports": "d" }))];

        let slip = told_of(CALL, &workers);
        let start = "task `a` of workflow `w` calls the plugin `reprots`, which no worker that would run it knows; ";
        assert_eq!(slip, format!("{start}did you mean `reports`?"));
        let none = told_of(CALL, &[worker("coordinator", &[], json!({}))]);
        assert_eq!(none, format!("{start}start them with `--plugin reprots=<address>`"));
        let known = worker("coordinator", &[], json!({ "http.plugins.reprots": "d" }));
        assert_eq!(told_of(CALL, &[known, workers[0].clone()]), "");
    }

    #[test]
    fn what_is_not_known_of_workers_speaks_against_nothing() {
        assert_eq!(told_of(CALL, &[]), "", "nobody lives");
        let matcher = worker("matcher", &[], json!({}));
        assert_eq!(told_of(CALL, &[matcher]), "", "nobody runs tasks");
        let many = worker("coordinator", &[], json!({ "http.plugins": "d" }));
        assert_eq!(told_of(CALL, &[many]), "", "more than are named");
        assert_eq!(told_of(CALL, &[WorkerStatus::default()]), "", "an older one");
        // A task of a queue is run by whoever serves that.
        let queued = CALL.replace("id: a,", "id: a, queue: gpu,");
        let gpu = worker("", &["gpu"], json!({ "http.plugins.reprots": "d" }));
        assert_eq!(told_of(&queued, &[gpu, worker("coordinator", &[], json!({}))]), "");
    }
}
