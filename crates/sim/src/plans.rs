//! The workflows that simulated events start.

use std::sync::Arc;

use fermata_core::digest::Digest;
use fermata_core::plan::{
    Completion, Delay, Executable, FailureClass, Join, NodeIndex, PLAN_VERSION, Plan, PlanNode,
    RetryPolicy, Work,
};

use crate::trace::Broken;

/// The plans by number, each under the digest of its stored bytes.
pub(crate) fn all() -> Result<Vec<(Digest, Arc<Executable>)>, Broken> {
    let plans = [sequence(), branch(), calls(), short_lived(), delayed(), queued()];
    plans.into_iter().map(executable).chain([waiting()]).collect()
}

fn executable(plan: Plan) -> Result<(Digest, Arc<Executable>), Broken> {
    let broken = |detail: String| Broken::new("plans_are_sound", detail);
    let (digest, _) =
        fermata_wire::plan::encode(&plan).map_err(|error| broken(error.to_string()))?;
    let executable = Executable::new(plan).map_err(|problems| broken(format!("{problems:?}")))?;
    Ok((digest, Arc::new(executable)))
}

fn node(id: &str, predecessors: &[NodeIndex], work: Work) -> PlanNode {
    PlanNode {
        id: id.into(),
        predecessors: predecessors.to_vec(),
        successors: Vec::new(),
        join: Join::All,
        when: None,
        work,
        timeout_ms: 5_000,
        retry: RetryPolicy::none(),
        queue: None,
    }
}

fn call(idempotent: bool, path: &str) -> Work {
    Work::Http {
        plugin: "plugin".to_owned(),
        path: path.to_owned(),
        body: "{'n': input.n}".to_owned(),
        idempotent,
        completion: Completion::Answer,
    }
}

fn plan(workflow: &str, mut nodes: Vec<PlanNode>, run_timeout_ms: u64) -> Plan {
    let edges = (0..)
        .zip(&nodes)
        .flat_map(|(index, node)| node.predecessors.iter().map(move |from| (*from, index)))
        .collect::<Vec<_>>();
    for (from, to) in edges {
        if let Some(node) = nodes.get_mut(from as usize) {
            node.successors.push(to);
        }
    }
    Plan {
        version: PLAN_VERSION,
        workflow: workflow.into(),
        workflow_version: "1".into(),
        nodes,
        run_timeout_ms,
        input_schema: None,
    }
}

/// A run that waits for two events and goes on with the first; a wait that takes
/// too long fails it.
pub(crate) fn waiting() -> Result<(Digest, Arc<Executable>), Broken> {
    let wait = |id: &str, event: &str, timeout_ms: u64| PlanNode {
        timeout_ms,
        ..node(id, &[], Work::Wait { event: event.to_owned(), correlation: "input.key".to_owned() })
    };
    let nodes = vec![
        wait("paid", "order.paid", 15_000),
        wait("any", "order.>", 20_000),
        PlanNode { join: Join::Any, ..node("after", &[0, 1], Work::Noop) },
    ];
    executable(plan("waiting", nodes, 40_000))
}

/// Calls for the workers of two named queues: one that is made again, one that must
/// not be, and one in a run that ends while it is there, every now and then.
fn queued() -> Plan {
    let refused = RetryPolicy {
        max_attempts: 3,
        initial_ms: 100,
        factor_permille: 2_000,
        max_ms: 2_000,
        on: vec![FailureClass::Http5xx],
    };
    let queue = || Some("gpu".into());
    let nodes = vec![
        PlanNode {
            retry: RetryPolicy::exponential_backoff(),
            timeout_ms: 70_000,
            queue: queue(),
            ..node("fetch", &[], call(true, "/fetch"))
        },
        PlanNode {
            retry: refused,
            timeout_ms: 20_000,
            queue: queue(),
            ..node("pay", &[], call(false, "/pay"))
        },
        node("right", &[0], call(true, "/right")),
        PlanNode {
            timeout_ms: 50_000,
            queue: Some("mail".into()),
            ..node("slow", &[2], call(true, "/slow"))
        },
    ];
    plan("queued", nodes, 100_000)
}

const HOUR_MS: u64 = 3_600_000;

fn sequence() -> Plan {
    let nodes = vec![
        node("first", &[], Work::Noop),
        node("second", &[0], Work::Noop),
        node("third", &[1], Work::Noop),
    ];
    plan("sequence", nodes, HOUR_MS)
}

fn branch() -> Plan {
    let guarded = |id: &str, when: &str| PlanNode {
        when: Some(when.to_owned()),
        ..node(id, &[0], Work::Noop)
    };
    let nodes = vec![
        node("value", &[], Work::Transform { value: "{'large': input.n > 5}".to_owned() }),
        guarded("large", "tasks.value.output.large"),
        guarded("small", "!tasks.value.output.large"),
        PlanNode { join: Join::Any, ..node("join", &[1, 2], Work::Noop) },
    ];
    plan("branch", nodes, HOUR_MS)
}

/// A call that is made again, one that must not be, a fan-out and a join.
fn calls() -> Plan {
    // A non-idempotent call is made again only for a failure that says that
    // nothing was done.
    let refused = RetryPolicy {
        max_attempts: 3,
        initial_ms: 100,
        factor_permille: 2_000,
        max_ms: 2_000,
        on: vec![FailureClass::Http5xx],
    };
    let nodes = vec![
        PlanNode {
            retry: RetryPolicy::exponential_backoff(),
            ..node("fetch", &[], call(true, "/fetch"))
        },
        PlanNode { retry: refused, ..node("pay", &[0], call(false, "/pay")) },
        node("left", &[1], Work::Noop),
        node("middle", &[1], Work::Noop),
        node("right", &[1], call(true, "/right")),
        node("join", &[2, 3, 4], Work::Noop),
    ];
    plan("calls", nodes, HOUR_MS)
}

/// A run whose deadline passes while it is under way, every now and then.
fn short_lived() -> Plan {
    let nodes = vec![
        PlanNode {
            retry: RetryPolicy::exponential_backoff(),
            ..node("slow", &[], call(true, "/slow"))
        },
        node("after", &[0], Work::Noop),
        node("beside", &[], Work::Noop),
    ];
    plan("short-lived", nodes, 8_000)
}

/// Delays beside and behind calls: one with a length, one until a time that has
/// passed, one that now and then outlasts the run.
fn delayed() -> Plan {
    let callback = Work::Nats {
        subject: "approvals.ask".to_owned(),
        body: "1".to_owned(),
        idempotent: true,
        completion: Completion::Callback,
    };
    let delay = |milliseconds| Work::Delay(Delay::Milliseconds(milliseconds));
    let nodes = vec![
        node("pause", &[], delay(2_500)),
        node("past", &[], Work::Delay(Delay::Until("'1970-01-01T00:00:00Z'".to_owned()))),
        PlanNode {
            retry: RetryPolicy::exponential_backoff(),
            ..node("call", &[], call(true, "/slow"))
        },
        node("after", &[0, 1, 2], delay(9_000)),
        node("last", &[3], Work::Noop),
        // Nobody calls back: the wait ends with its time, in the run's or beyond it.
        PlanNode { timeout_ms: 12_000, ..node("callback", &[], callback) },
    ];
    plan("delayed", nodes, 15_000)
}
