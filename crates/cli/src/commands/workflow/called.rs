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
    mend: String,
}

impl<'w> Called<'w> {
    fn of(work: &'w Work) -> Option<Self> {
        match work {
            Work::Http { plugin: name, .. } => {
                let mend = format!("start them with `--plugin {name}=<address>`");
                Some(Self { list: "http.plugins", what: "plugin", name, mend })
            }
            Work::Command { name, .. } => {
                let mend = format!("name it in `commands.programs.{name}` of their `--config`");
                Some(Self { list: "commands.programs", what: "program", name, mend })
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
    Ok(executables.iter().flat_map(|executable| judge(executable.plan(), &statuses)).collect())
}

/// What is told of calls in `plan` that none of these workers could make.
pub(in crate::commands) fn judge(plan: &Plan, statuses: &[WorkerStatus]) -> Vec<String> {
    // Older workers do not tell what they were started with, and may know it.
    if statuses.iter().any(|status| status.incarnation.is_none()) {
        return Vec::new();
    }
    let mut told = Vec::new();
    for node in &plan.nodes {
        let Some(Called { list, what, name, mend }) = Called::of(&node.work) else { continue };
        let runs = |status: &&WorkerStatus| match &node.queue {
            Some(queue) => status.queues.iter().any(|served| **served == **queue),
            None => status.roles.iter().any(|role| role == COORDINATOR),
        };
        let mut known = Vec::new();
        // One digest under the name of the list stands for more than are named.
        let mut is_known = !statuses.iter().any(|status| runs(&status));
        for status in statuses.iter().filter(runs) {
            is_known |= status.settings.contains_key(list);
            known.extend(status.settings.keys().filter_map(|setting| {
                setting.strip_prefix(list).and_then(|rest| rest.strip_prefix('.'))
            }));
        }
        if is_known || known.contains(&name) {
            continue;
        }
        let hint = did_you_mean(name, known).unwrap_or(mend);
        told.push(format!(
            "task `{}` of workflow `{}` calls the {what} `{name}`, which no worker that would run it knows; {hint}",
            node.id, plan.workflow
        ));
    }
    told
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

    fn told(task: &str, statuses: &[WorkerStatus]) -> String {
        let text = format!("workflow:\n  name: w\n  version: '1'\n  tasks:\n    - {task}\n");
        let executable = read_workflow(&text, None, &Limits::default()).expect(&text);
        judge(executable.plan(), statuses).join("\n")
    }

    const CALL: &str = "{ id: a, http: { plugin: reprots, path: /x } }";

    #[test]
    fn a_plugin_that_no_worker_knows_is_told_with_the_one_that_may_be_meant() {
        let workers = [worker("coordinator", &[], json!({ "http.plugins.reports": "d" }))];

        let slip = told(CALL, &workers);
        let start = "task `a` of workflow `w` calls the plugin `reprots`, which no worker that would run it knows; ";
        assert_eq!(slip, format!("{start}did you mean `reports`?"));
        let none = told(CALL, &[worker("coordinator", &[], json!({}))]);
        assert_eq!(none, format!("{start}start them with `--plugin reprots=<address>`"));
        let known = worker("coordinator", &[], json!({ "http.plugins.reprots": "d" }));
        assert_eq!(told(CALL, &[known, workers[0].clone()]), "");
    }

    #[test]
    fn what_is_not_known_of_workers_speaks_against_nothing() {
        assert_eq!(told(CALL, &[]), "", "nobody lives");
        let matcher = worker("matcher", &[], json!({}));
        assert_eq!(told(CALL, &[matcher]), "", "nobody runs tasks");
        let many = worker("coordinator", &[], json!({ "http.plugins": "d" }));
        assert_eq!(told(CALL, &[many]), "", "more than are named");
        assert_eq!(told(CALL, &[WorkerStatus::default()]), "", "an older one");
        // A task of a queue is run by whoever serves that.
        let queued = CALL.replace("id: a,", "id: a, queue: gpu,");
        let gpu = worker("", &["gpu"], json!({ "http.plugins.reprots": "d" }));
        assert_eq!(told(&queued, &[gpu, worker("coordinator", &[], json!({}))]), "");
    }
}
