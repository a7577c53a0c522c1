//! A plan as a graph for Graphviz (<https://graphviz.org/doc/info/lang.html>).

use std::collections::HashSet;

use fermata_core::plan::analysis::analyse;
use fermata_core::plan::{Join, Plan, PlanNode};

use super::plan_view::does;

/// The plan in the language `dot`; the critical path is red and bold.
pub(super) fn dot(plan: &Plan) -> String {
    let analysis = analyse(plan);
    let critical: HashSet<_> = analysis.critical_path.iter().copied().collect();
    let steps: HashSet<_> =
        analysis.critical_path.iter().zip(analysis.critical_path.iter().skip(1)).collect();
    let title = quoted(&format!("{} {}", plan.workflow, plan.workflow_version));
    let mut lines = vec![
        format!("digraph {title} {{"),
        "  rankdir=LR;".to_owned(),
        format!("  label={title};"),
        "  node [shape=box, style=rounded];".to_owned(),
    ];
    for (index, node) in (0..).zip(&plan.nodes) {
        let mark = if critical.contains(&index) { ", color=red, penwidth=2" } else { "" };
        lines.push(format!("  {} [label={}{mark}];", quoted(&node.id), quoted(&label(node))));
    }
    for (index, node) in (0..).zip(&plan.nodes) {
        for before in &node.predecessors {
            let Some(from) = plan.nodes.get(*before as usize) else { continue };
            let mut marks = Vec::new();
            if steps.contains(&(before, &index)) {
                marks.push("color=red, penwidth=2");
            }
            if node.join == Join::Any {
                marks.push("style=dashed");
            }
            let marks = match marks.is_empty() {
                true => String::new(),
                false => format!(" [{}]", marks.join(", ")),
            };
            lines.push(format!("  {} -> {}{marks};", quoted(&from.id), quoted(&node.id)));
        }
    }
    lines.push("}".to_owned());
    lines.join("\n")
}

fn label(node: &PlanNode) -> String {
    let mut label = format!("{}\n{}", node.id, does(&node.work));
    if let Some(when) = &node.when {
        label.push_str(&format!("\nwhen {when}"));
    }
    label
}

/// A quoted identifier: in it a backslash escapes, and a line break is written `\n`.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            other if other.is_control() => quoted.push(' '),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use fermata_definitions::{Limits, read_workflow};

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    enum Token {
        Word(String),
        Text(String),
        Sign(char),
        Arrow,
    }

    /// The tokens of the language that a graph without ports, subgraphs and HTML has.
    fn tokens(text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            match character {
                '"' => {
                    let mut inside = String::new();
                    loop {
                        match rest.next().expect("a closing quote") {
                            '"' => break,
                            '\\' => match rest.next().expect("an escaped character") {
                                'n' => inside.push('\n'),
                                other => inside.push(other),
                            },
                            other => inside.push(other),
                        }
                    }
                    tokens.push(Token::Text(inside));
                }
                '-' => {
                    assert_eq!(rest.next(), Some('>'), "an edge of a directed graph");
                    tokens.push(Token::Arrow);
                }
                '{' | '}' | '[' | ']' | ';' | ',' | '=' => tokens.push(Token::Sign(character)),
                _ if character.is_whitespace() => {}
                _ => {
                    assert!(character.is_ascii_alphanumeric(), "{character:?} begins no token");
                    let mut word = character.to_string();
                    while let Some(next) = rest.next_if(char::is_ascii_alphanumeric) {
                        word.push(next);
                    }
                    tokens.push(Token::Word(word));
                }
            }
        }
        tokens
    }

    type Attributes = Vec<(String, String)>;

    #[derive(Debug, Default)]
    struct Graph {
        nodes: Vec<(String, Attributes)>,
        edges: Vec<(String, String, Attributes)>,
    }

    /// `digraph ID { (ID = ID | ID attributes? | ID -> ID attributes?) ; … }`
    fn parse(text: &str) -> Graph {
        let mut tokens = tokens(text).into_iter().peekable();
        let mut graph = Graph::default();
        let id = |token: Option<Token>| match token {
            Some(Token::Word(word) | Token::Text(word)) => word,
            other => panic!("{other:?} is no identifier"),
        };
        assert_eq!(id(tokens.next()), "digraph");
        id(tokens.next());
        assert_eq!(tokens.next(), Some(Token::Sign('{')));
        while tokens.peek() != Some(&Token::Sign('}')) {
            let first = id(tokens.next());
            let mut to = None;
            if tokens.next_if_eq(&Token::Sign('=')).is_some() {
                id(tokens.next());
                assert_eq!(tokens.next(), Some(Token::Sign(';')));
                continue;
            }
            if tokens.next_if_eq(&Token::Arrow).is_some() {
                to = Some(id(tokens.next()));
            }
            let mut attributes = Vec::new();
            if tokens.next_if_eq(&Token::Sign('[')).is_some() {
                while tokens.next_if_eq(&Token::Sign(']')).is_none() {
                    let name = id(tokens.next());
                    assert_eq!(tokens.next(), Some(Token::Sign('=')));
                    attributes.push((name, id(tokens.next())));
                    tokens.next_if_eq(&Token::Sign(','));
                }
            }
            assert_eq!(tokens.next(), Some(Token::Sign(';')));
            match to {
                Some(to) => graph.edges.push((first, to, attributes)),
                None if first == "node" => {}
                None => graph.nodes.push((first, attributes)),
            }
        }
        tokens.next();
        assert_eq!(tokens.next(), None, "nothing follows the graph");
        graph
    }

    const WORKFLOW: &str = r#"
workflow:
  name: quotes
  version: '1.0'
  input: { type: object }
  tasks:
    - { id: a, noop: {}, timeout: 10s }
    - { id: node, depends_on: [a], noop: {}, timeout: 1s }
    - { id: digraph, depends_on: [a], noop: {}, timeout: 60s, when: "input.x == \"a\\\\b\"" }
    - { id: z, depends_on: [node, digraph], noop: {} }
"#;

    #[test]
    fn every_task_and_dependency_is_in_the_graph_and_the_critical_path_is_marked() {
        let executable = read_workflow(WORKFLOW, None, &Limits::default()).unwrap();

        let graph = parse(&dot(executable.plan()));

        let names: Vec<_> = graph.nodes.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(graph.edges.len(), 4);
        let red = |attributes: &[(String, String)]| {
            attributes.contains(&("color".to_owned(), "red".to_owned()))
        };
        let path: Vec<_> = graph.nodes.iter().filter(|(_, marks)| red(marks)).collect();
        let path: Vec<_> = path.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(path, ["a", "digraph", "z"]);
        assert_eq!(graph.edges.iter().filter(|(_, _, marks)| red(marks)).count(), 2);
        assert!(names.contains(&"digraph"));
        let label = &graph.nodes.iter().find(|(name, _)| name == "digraph").unwrap().1[0].1;
        assert!(label.ends_with(r#"when input.x == "a\\b""#), "{label}");
    }
}
