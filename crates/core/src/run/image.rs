//! A run as it stands in a snapshot.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Node, Phase, Run};
use crate::digest::Digest;
use crate::identity::{JournalTime, RunId, Tenant};
use crate::json::Json;
use crate::plan::{Executable, NodeIndex};
use crate::record::EndReason;

/// A run as it stands in a snapshot: add optional fields, never change one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunImage {
    /// Its id.
    pub id: RunId,
    tenant: Tenant,
    /// Digest of the plan that it needs.
    pub plan: Digest,
    input: Json,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    traceparent: Option<Arc<str>>,
    deadline: JournalTime,
    /// Why it is closing, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closing: Option<EndReason>,
    /// In the order of the plan.
    nodes: Vec<Node>,
    /// In the order in which they are moved on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ready: Vec<NodeIndex>,
    not_ended: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    hops: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(hops: &u32) -> bool {
    *hops == 0
}

/// A run of a snapshot that is no run of its plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("run {run} of the snapshot has {found} nodes, its plan {planned}")]
pub struct NotThePlan {
    /// The run.
    pub run: RunId,
    /// Its nodes.
    pub found: usize,
    /// Nodes of the plan.
    pub planned: usize,
}

impl Run {
    /// What a snapshot holds of the run `id`.
    #[must_use]
    pub fn image(&self, id: RunId) -> RunImage {
        // Without `..`: what is added to a run must be added here, or said to
        // follow from the rest, or to matter to instruments only.
        let Self {
            tenant,
            plan,
            executable: _,
            input,
            traceparent,
            deadline,
            strategy: _,
            phase,
            nodes,
            ready,
            not_ended,
            running: _,
            awaiting: _,
            queued: _,
            hops,
        } = self;
        let closing = match phase {
            Phase::Open => None,
            Phase::Closing(reason) => Some((**reason).clone()),
        };
        RunImage {
            id,
            tenant: tenant.clone(),
            plan: *plan,
            input: input.clone(),
            traceparent: traceparent.clone(),
            deadline: *deadline,
            closing,
            nodes: nodes.to_vec(),
            ready: ready.iter().copied().collect(),
            not_ended: *not_ended,
            hops: *hops,
        }
    }

    /// The run of which `image` was made; `executable` is the plan that it names.
    ///
    /// # Errors
    ///
    /// [`NotThePlan`] if it has not the nodes of the plan.
    pub fn restore(image: RunImage, executable: Arc<Executable>) -> Result<Self, NotThePlan> {
        let (planned, found) = (executable.plan().nodes.len(), image.nodes.len());
        let known = |index: &NodeIndex| (*index as usize) < planned;
        if found != planned || !image.ready.iter().all(known) {
            return Err(NotThePlan { run: image.id, found, planned });
        }
        let running = image.nodes.iter().filter(|node| node.is_attempted());
        let queued = image.nodes.iter().filter(|node| matches!(node, Node::Queued { .. }));
        let awaiting = image.nodes.iter().filter(|node| matches!(node, Node::Awaiting { .. }));
        Ok(Self {
            running: u32::try_from(running.count()).unwrap_or(u32::MAX),
            awaiting: u32::try_from(awaiting.count()).unwrap_or(u32::MAX),
            queued: u32::try_from(queued.count()).unwrap_or(u32::MAX),
            tenant: image.tenant,
            plan: image.plan,
            executable,
            input: image.input,
            traceparent: image.traceparent,
            deadline: image.deadline,
            strategy: None,
            phase: image.closing.map_or(Phase::Open, |reason| Phase::Closing(Box::new(reason))),
            nodes: image.nodes.into(),
            ready: image.ready.into(),
            not_ended: image.not_ended,
            hops: image.hops,
        })
    }
}
