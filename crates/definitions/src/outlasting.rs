//! Limits of tasks that the run's own limit ends first.
//!
//! Such a workflow is sound, and may be meant: a run that has taken long already has less left for its last tasks in
//! any case. It is told, for mostly `fault_tolerance.run_timeout` was forgotten.

use fermata_core::plan::{Plan, TIMEOUT_MS_DEFAULT, WAIT_TIMEOUT_MS_DEFAULT, as_written};

/// Most that is told of one workflow.
const TOLD_MAX: usize = 20;

/// What is told for people of every task whose `timeout` is longer than the run may take; not of those that say
/// nothing of it.
#[must_use]
pub fn outlasting_timeouts(plan: &Plan) -> Vec<String> {
    let outlasts = |timeout_ms: u64| {
        timeout_ms > plan.run_timeout_ms
            && ![TIMEOUT_MS_DEFAULT, WAIT_TIMEOUT_MS_DEFAULT].contains(&timeout_ms)
    };
    let run = as_written(plan.run_timeout_ms);
    let nodes = plan.nodes.iter().filter(|node| outlasts(node.timeout_ms));
    let told = nodes.take(TOLD_MAX).map(|node| {
        format!(
            "the `timeout` of task `{}` is {}, and the run may take {run} (`fault_tolerance.run_timeout`)",
            node.id,
            as_written(node.timeout_ms)
        )
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Limits;
    use crate::workflow::read_workflow;

    fn told(run: &str, tasks: &str) -> Vec<String> {
        let text = format!("workflow:\n  name: w\n  version: '1'\n{run}  tasks:\n    - {tasks}\n");
        outlasting_timeouts(read_workflow(&text, None, &Limits::default()).expect(&text).plan())
    }

    #[test]
    fn a_limit_that_the_runs_own_ends_first_is_told() {
        let slow = "{ id: a, http: { plugin: p, path: / }, timeout: 3d }";

        assert_eq!(
            told("", slow),
            [
                "the `timeout` of task `a` is 3d, and the run may take 24h (`fault_tolerance.run_timeout`)"
            ]
        );
        assert_eq!(told("  fault_tolerance: { run_timeout: 4d }\n", slow), Vec::<String>::new());
        // What nobody wrote is no slip.
        let short = "  fault_tolerance: { run_timeout: 1s }\n";
        assert_eq!(told(short, "{ id: a, http: { plugin: p, path: / } }"), Vec::<String>::new());
    }
}
