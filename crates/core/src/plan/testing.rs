//! Plans for tests.

use super::{
    Join, NodeIndex, PLAN_VERSION, Plan, PlanNode, RUN_TIMEOUT_MS_DEFAULT, RetryPolicy,
    TIMEOUT_MS_DEFAULT, Work,
};

/// A plan of `noop`s whose `n`th node waits for the `n`th list.
pub(crate) fn noop_plan_of(predecessors: &[&[NodeIndex]]) -> Plan {
    let mut nodes: Vec<_> = predecessors
        .iter()
        .enumerate()
        .map(|(index, predecessors)| PlanNode {
            id: format!("n{index}").into(),
            predecessors: predecessors.to_vec(),
            successors: Vec::new(),
            join: Join::All,
            when: None,
            work: Work::Noop,
            timeout_ms: TIMEOUT_MS_DEFAULT,
            retry: RetryPolicy::none(),
            queue: None,
        })
        .collect();
    for (index, predecessors) in predecessors.iter().enumerate() {
        for predecessor in *predecessors {
            nodes[*predecessor as usize].successors.push(NodeIndex::try_from(index).unwrap());
        }
    }
    Plan {
        version: PLAN_VERSION,
        workflow: "test".into(),
        workflow_version: "1".into(),
        nodes,
        run_timeout_ms: RUN_TIMEOUT_MS_DEFAULT,
        input_schema: None,
    }
}

/// A plan of `size` noops, each waiting for up to two of those before it.
pub(crate) fn noop_plan(size: NodeIndex) -> Plan {
    let lists: Vec<Vec<NodeIndex>> = (0..size)
        .map(|index| match index {
            0 => vec![],
            1 => vec![0],
            _ => vec![index / 2, index - 1],
        })
        .map(|mut list| {
            list.dedup();
            list
        })
        .collect();
    noop_plan_of(&lists.iter().map(Vec::as_slice).collect::<Vec<_>>())
}
