//! What a plan looks like from above: layers, critical path, complexity.

use petgraph::graph::{DiGraph, NodeIndex as GraphIndex};
use petgraph::visit::EdgeRef as _;

use super::{Delay, NodeIndex, Plan, PlanNode, Work};

/// Version of [`Complexity`]'s features, weights and half-values.
pub const COMPLEXITY_WEIGHTS_VERSION: u16 = 1;

/// The shape of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// Nodes by the longest way from a root, each layer ascending: the nodes of one layer
    /// may run at the same time.
    pub layers: Vec<Vec<NodeIndex>>,
    /// The way from a root to a leaf that may take longest.
    pub critical_path: Vec<NodeIndex>,
    /// How long it may take in milliseconds: the sum of its nodes' time limits
    /// of one attempt, for want of measured durations.
    pub critical_path_ms: u64,
    /// Nodes in the widest layer.
    pub width_max: usize,
    /// How involved the plan is.
    pub complexity: Complexity,
}

/// A score in 0..1 with everything that it was computed from: the sum over
/// the features of weight · (1 − 2^(−value ÷ half)). A feature at its half
/// value contributes half of its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Complexity {
    /// From 0 (trivial) to just under 1.
    pub score: f64,
    /// [`COMPLEXITY_WEIGHTS_VERSION`].
    pub weights_version: u16,
    /// The features, in the order of their weights' table.
    pub features: Vec<Feature>,
}

/// One feature of [`Complexity`].
#[derive(Debug, Clone, PartialEq)]
pub struct Feature {
    /// What was counted.
    pub name: &'static str,
    /// How many.
    pub value: f64,
    /// Its share of the score; all weights sum to 1.
    pub weight: f64,
    /// The value that contributes half of the weight.
    pub half: f64,
}

/// Looks at a sound plan (one that [`Executable`](super::Executable) took) in
/// time linear in nodes and edges. Edges that lead nowhere are ignored.
#[must_use]
pub fn analyse(plan: &Plan) -> Analysis {
    let graph = graph_of(plan);
    let depths = depths(&graph);
    let layers = layers(&depths);
    let (critical_path, critical_path_ms) = critical_path(plan, &graph);
    let width_max = layers.iter().map(Vec::len).max().unwrap_or(0);
    let complexity = complexity(plan, &graph, layers.len(), width_max);
    Analysis { layers, critical_path, critical_path_ms, width_max, complexity }
}

/// How long an attempt may take: a delay takes as long as it says.
fn longest_ms(node: &PlanNode) -> u64 {
    if let Work::Delay(Delay::Milliseconds(length)) = &node.work {
        *length
    } else {
        node.timeout_ms
    }
}

/// The plan as a graph: node weights are times, indices are the plan's.
fn graph_of(plan: &Plan) -> DiGraph<u64, (), NodeIndex> {
    let edges = plan.nodes.iter().map(|node| node.predecessors.len()).sum();
    let mut graph = DiGraph::with_capacity(plan.nodes.len(), edges);
    for node in &plan.nodes {
        graph.add_node(longest_ms(node));
    }
    for (node, index) in plan.nodes.iter().zip(0..) {
        for predecessor in node.predecessors.iter().filter(|predecessor| **predecessor < index) {
            graph.add_edge(GraphIndex::from(*predecessor), GraphIndex::from(index), ());
        }
    }
    graph
}

/// The number of nodes before each node on its longest way from a root. The
/// plan's order is topological, so one pass suffices.
fn depths(graph: &DiGraph<u64, (), NodeIndex>) -> Vec<usize> {
    let mut depths = vec![0_usize; graph.node_count()];
    for index in graph.node_indices() {
        let depth = before(graph, index)
            .filter_map(|predecessor| depths.get(predecessor.index()).map(|depth| depth + 1))
            .max();
        if let Some(place) = depths.get_mut(index.index()) {
            *place = depth.unwrap_or(0);
        }
    }
    depths
}

fn before(
    graph: &DiGraph<u64, (), NodeIndex>,
    index: GraphIndex<NodeIndex>,
) -> impl Iterator<Item = GraphIndex<NodeIndex>> + '_ {
    graph.edges_directed(index, petgraph::Direction::Incoming).map(|edge| edge.source())
}

fn layers(depths: &[usize]) -> Vec<Vec<NodeIndex>> {
    let mut layers = vec![Vec::new(); depths.iter().max().map_or(0, |deepest| deepest + 1)];
    for (depth, index) in depths.iter().zip(0..) {
        if let Some(layer) = layers.get_mut(*depth) {
            layer.push(index);
        }
    }
    layers
}

fn critical_path(plan: &Plan, graph: &DiGraph<u64, (), NodeIndex>) -> (Vec<NodeIndex>, u64) {
    // The longest time until each node has ended, and the predecessor that it is due to.
    let mut ends: Vec<(u64, Option<GraphIndex<NodeIndex>>)> = Vec::with_capacity(plan.nodes.len());
    for index in graph.node_indices() {
        let own = graph.node_weight(index).copied().unwrap_or(0);
        let latest = before(graph, index)
            .filter_map(|predecessor| Some((ends.get(predecessor.index())?.0, predecessor)))
            // Of equal ones the first node, whatever the order of edges.
            .max_by_key(|(end, predecessor)| (*end, std::cmp::Reverse(*predecessor)));
        ends.push(match latest {
            Some((end, predecessor)) => (end.saturating_add(own), Some(predecessor)),
            None => (own, None),
        });
    }
    let last = graph.node_indices().max_by_key(|index| {
        (ends.get(index.index()).map(|(end, _)| *end), std::cmp::Reverse(*index))
    });
    let total = last.and_then(|last| ends.get(last.index())).map_or(0, |(end, _)| *end);
    let way =
        std::iter::successors(last, |index| ends.get(index.index()).and_then(|(_, due)| *due));
    let mut path: Vec<_> =
        way.map(|index| NodeIndex::try_from(index.index()).unwrap_or(NodeIndex::MAX)).collect();
    path.reverse();
    (path, total)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn complexity(
    plan: &Plan,
    graph: &DiGraph<u64, (), NodeIndex>,
    depth: usize,
    width: usize,
) -> Complexity {
    let mut plugins: Vec<&str> = Vec::new();
    let mut guards = 0_usize;
    let mut irreversible = 0_usize;
    for node in &plan.nodes {
        guards += usize::from(node.when.is_some());
        irreversible += usize::from(!node.work.is_repeatable());
        plugins.extend(node.work.system());
    }
    plugins.sort_unstable();
    plugins.dedup();
    let joins = graph
        .node_indices()
        .map(|index| before(graph, index).count().saturating_sub(1))
        .sum::<usize>();
    let feature =
        |name, value: usize, weight, half| Feature { name, value: value as f64, weight, half };
    let features = vec![
        feature("tasks", plan.nodes.len(), 0.20, 25.0),
        feature("depth", depth, 0.20, 10.0),
        feature("width", width, 0.15, 16.0),
        feature("joins", joins, 0.10, 20.0),
        feature("guards", guards, 0.10, 8.0),
        feature("systems", plugins.len(), 0.15, 5.0),
        feature("irreversible_calls", irreversible, 0.10, 2.0),
    ];
    let score = features
        .iter()
        .map(|feature| feature.weight * (1.0 - (-feature.value / feature.half).exp2()))
        .sum();
    Complexity { score, weights_version: COMPLEXITY_WEIGHTS_VERSION, features }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{noop_plan, noop_plan_of};

    #[test]
    fn a_diamond_has_three_layers_and_a_critical_path_along_its_slow_side() {
        let mut plan = noop_plan_of(&[&[], &[0], &[0], &[1, 2]]);
        plan.nodes[2].timeout_ms = 90_000;

        let analysis = analyse(&plan);

        assert_eq!(analysis.layers, [vec![0], vec![1, 2], vec![3]]);
        assert_eq!(analysis.critical_path, [0, 2, 3]);
        assert_eq!(analysis.critical_path_ms, 150_000);
        assert_eq!(analysis.width_max, 2);
    }

    #[test]
    fn complexity_grows_with_the_plan_and_stays_below_one() {
        let scores: Vec<_> =
            [1, 10, 100, 1_000].map(|size| analyse(&noop_plan(size)).complexity.score).into();

        assert!(scores.is_sorted_by(|one, two| one < two), "{scores:?}");
        assert!(scores.iter().all(|score| (0.0..1.0).contains(score)), "{scores:?}");
    }

    #[test]
    fn the_weights_sum_to_one() {
        let sum: f64 =
            analyse(&noop_plan(1)).complexity.features.iter().map(|feature| feature.weight).sum();

        assert!((sum - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_unsound_plan_is_looked_at_without_a_panic() {
        let mut plan = noop_plan_of(&[&[], &[0]]);
        plan.nodes[1].predecessors = vec![7, 1];
        plan.nodes[0].predecessors = vec![1];

        assert_eq!(analyse(&plan).layers, [vec![0, 1]]);
    }
}
