//! What nobody knows of a run that has ended: whether the effects of some of its nodes happened.

use super::listed;
use crate::journal_view::{NodeStatus, NodeView, RunHistory};

/// Says of which nodes it is not known whether whoever they asked has acted.
pub(super) fn perhaps_done(history: &RunHistory) -> Vec<String> {
    let unknown = history.nodes.iter().filter(|node| node.status == NodeStatus::Unknown);
    let unknown = unknown.map(name).collect::<Vec<_>>();
    let failed = history.nodes.iter().filter(|node| node.status == NodeStatus::Failed);
    let failed = failed.filter(|node| may_have_acted(history, node)).map(name).collect::<Vec<_>>();
    let mut sentences = Vec::new();
    if !unknown.is_empty() {
        sentences.push(format!(
            "The outcome of {} is unknown: nobody waits for it any more, and what was called may have acted, or be at \
             it still. Ask there before it is done again.",
            listed(&unknown)
        ));
    }
    if !failed.is_empty() {
        sentences.push(format!(
            "How {} failed does not tell whether what was called acted: it may have, or be at it still.",
            listed(&failed)
        ));
    }
    sentences
}

fn name(node: &NodeView) -> String {
    format!("`{}`", node.id)
}

/// Whether an attempt of a node failed in a way that does not tell; a wait has no attempts.
fn may_have_acted(history: &RunHistory, node: &NodeView) -> bool {
    let of_node = history.timeline.iter().filter(|entry| entry.node.as_ref() == Some(&node.id));
    let mut attempts = of_node.filter(|entry| entry.attempt.is_some());
    attempts.any(|entry| entry.what.class.is_some_and(|class| class.may_have_acted()))
}
