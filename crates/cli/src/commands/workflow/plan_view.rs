//! A plan as people look at it.

use fermata_core::plan::analysis::{Analysis, analyse};
use fermata_core::plan::{Delay, EventType, Join, NodeIndex, Plan, PlanNode, Work};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::output::{Output, Tone, counted, excerpt, span_text};

/// Widest text of a condition or list of dependencies in the table, in characters.
const CELL_CHARACTERS_MAX: usize = 48;

/// Prints layers, critical path and complexity.
pub(super) fn print(plan: &Plan, output: &mut Output) -> Result<(), CliError> {
    let analysis = analyse(plan);
    if output.is_json() {
        return output.json_line(&to_json(plan, &analysis));
    }
    let edges: usize = plan.nodes.iter().map(|node| node.predecessors.len()).sum();
    let title = output.tone(Tone::Strong, &format!("{} {}", plan.workflow, plan.workflow_version));
    output.line(&format!(
        "{title}: {}, {}, {}, at most {} at a time, run limit {}",
        counted(plan.nodes.len(), "task", "tasks"),
        counted(edges, "dependency", "dependencies"),
        counted(analysis.layers.len(), "layer", "layers"),
        analysis.width_max,
        span_text(plan.run_timeout_ms),
    ))?;
    output.line("")?;
    let columns = ["LAYER", "TASK", "DOES", "AFTER", "WHEN", "LIMIT", "ATTEMPTS"];
    output.table(&columns, rows(plan, &analysis), "")?;
    output.line("")?;
    let path: Vec<_> = analysis.critical_path.iter().map(|index| id(plan, *index)).collect();
    let limit = span_text(analysis.critical_path_ms);
    output.line(&format!("critical path: {} (limits sum to {limit})", path.join(" → ")))?;
    let features: Vec<_> = analysis
        .complexity
        .features
        .iter()
        .map(|feature| format!("{} {}", feature.name, feature.value))
        .collect();
    let score = analysis.complexity.score;
    output.line(&format!("complexity: {score:.3} of 1 ({})", features.join(", ")))
}

fn rows(plan: &Plan, analysis: &Analysis) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for (layer, indices) in analysis.layers.iter().enumerate() {
        for node in indices.iter().filter_map(|index| plan.nodes.get(*index as usize)) {
            rows.push(vec![
                (layer + 1).to_string(),
                node.id.to_string(),
                does(&node.work),
                excerpt(&after(plan, node), CELL_CHARACTERS_MAX),
                excerpt(node.when.as_deref().unwrap_or("-"), CELL_CHARACTERS_MAX),
                span_text(node.timeout_ms),
                node.retry.max_attempts.to_string(),
            ]);
        }
    }
    rows
}

pub(super) fn does(work: &Work) -> String {
    match work {
        Work::Noop => "nothing".to_owned(),
        Work::Transform { .. } => "transform".to_owned(),
        Work::Wait { event, .. } => format!("wait for {event}"),
        Work::Http { plugin, idempotent: true, .. } => format!("http {plugin}"),
        Work::Http { plugin, idempotent: false, .. } => format!("http {plugin}, once at most"),
        Work::Delay(Delay::Milliseconds(milliseconds)) => {
            format!("delay {}", span_text(*milliseconds))
        }
        Work::Emit { event_type: EventType::Constant(kind), .. } => format!("emit {kind}"),
        Work::Emit { event_type: EventType::Computed(kind), .. } => {
            format!("emit {}", excerpt(kind, CELL_CHARACTERS_MAX))
        }
        Work::Command { name, idempotent: true, .. } => format!("command {name}"),
        Work::Command { name, idempotent: false, .. } => format!("command {name}, once at most"),
        Work::Nats { subject, idempotent: true, .. } => format!("nats {subject}"),
        Work::Nats { subject, idempotent: false, .. } => format!("nats {subject}, once at most"),
        Work::Delay(Delay::Until(time)) => {
            format!("delay until {}", excerpt(time, CELL_CHARACTERS_MAX))
        }
    }
}

fn after(plan: &Plan, node: &PlanNode) -> String {
    let names: Vec<_> = node.predecessors.iter().map(|index| id(plan, *index)).collect();
    match (names.len(), node.join) {
        (0, _) => "-".to_owned(),
        (1, _) | (_, Join::All) => names.join(", "),
        (_, Join::Any) => format!("any of {}", names.join(", ")),
    }
}

fn id(plan: &Plan, index: NodeIndex) -> &str {
    plan.nodes.get(index as usize).map_or("?", |node| &node.id)
}

fn to_json(plan: &Plan, analysis: &Analysis) -> Value {
    let ids =
        |indices: &[NodeIndex]| indices.iter().map(|index| id(plan, *index)).collect::<Vec<_>>();
    let layers: Vec<_> = analysis.layers.iter().map(|layer| ids(layer)).collect();
    let features: serde_json::Map<_, _> = analysis
        .complexity
        .features
        .iter()
        .map(|feature| (feature.name.to_owned(), json!(feature.value)))
        .collect();
    json!({
        "workflow": plan.workflow,
        "version": plan.workflow_version,
        "tasks": plan.nodes.len(),
        "layers": layers,
        "width_max": analysis.width_max,
        "critical_path": ids(&analysis.critical_path),
        "critical_path_ms": analysis.critical_path_ms,
        "run_timeout_ms": plan.run_timeout_ms,
        "complexity": {
            "score": analysis.complexity.score,
            "weights_version": analysis.complexity.weights_version,
            "features": features,
        },
    })
}

#[cfg(test)]
mod tests {
    use fermata_definitions::{Limits, read_workflow};

    use super::*;
    use crate::commands::testing::printed;

    #[test]
    fn a_plan_is_shown_by_layers() {
        let source = include_str!("../../../../../examples/request.workflow.yaml");
        let executable = read_workflow(source, None, &Limits::default()).unwrap();

        insta::assert_snapshot!(printed(|output| print(executable.plan(), output)));
    }
}
