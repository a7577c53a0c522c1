//! What speaks against a command that is applied in parts.

use super::Definitions;
use crate::command::DefineCommand;

impl Definitions {
    /// Everything that speaks against `command`, however large it is, as if all of it became active
    /// at once.
    #[must_use]
    pub fn problems_of_all(&self, command: &DefineCommand) -> Vec<String> {
        self.problems_beside_size(command)
    }

    /// Which of `parts`, applied one after the other, is refused first, counted from 0, and what
    /// speaks against it. That all of them together could be active does not say that each can:
    /// what a later one replaces counts until then, in bytes and in what one event costs.
    #[must_use]
    pub fn refused_part(&self, parts: &[DefineCommand]) -> Option<(usize, Vec<String>)> {
        let mut then = self.clone();
        for (at, part) in parts.iter().enumerate() {
            let problems = then.problems(part);
            if !problems.is_empty() {
                return Some((at, problems));
            }
            let applied = then.applied(part);
            then.apply(&applied);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::command::{StrategyEntry, WorkflowEntry};
    use crate::digest::Digest;
    use crate::json::Json;
    use crate::partition::DEFINITIONS_BYTES_MAX;

    /// Strategies of one size or the other.
    fn entries(of: &str, version: u32, is_large: bool) -> Vec<StrategyEntry> {
        let entry = |at: usize| {
            let name = format!("{of}-{at}");
            let shop = "x".repeat(if is_large { 900 } else { 10 });
            let definition = json!({
                "name": name, "version": version, "tenant": "*", "on": "shop.placed",
                "priority": 10, "weight": 1, "fan_out": false,
                "match": { "data": { "shop": [format!("{shop}-{name}")] } }, "action": "ignore",
            });
            StrategyEntry { name: name.into(), version, definition: Json::from_value(&definition) }
        };
        (0..600).map(entry).collect()
    }

    /// Definitions that leave room for `left` bytes.
    fn filled(strategies: Vec<StrategyEntry>, left: usize) -> Definitions {
        let mut definitions = Definitions {
            strategies: strategies.into_iter().map(|new| (new.name.clone(), new)).collect(),
            ..Definitions::default()
        };
        let taken: usize = definitions.strategies.values().map(StrategyEntry::bytes).sum();
        let mut workflow =
            WorkflowEntry { name: "".into(), version: "1".into(), plan: Digest::of(b"a plan") };
        let room = DEFINITIONS_BYTES_MAX - left - taken - workflow.bytes();
        workflow.name = "w".repeat(room).into();
        definitions.workflows.push(workflow);
        definitions
    }

    #[test]
    fn a_part_has_room_only_for_what_earlier_ones_leave() {
        let before = [entries("a", 1, false), entries("b", 1, true)].concat();
        let active = filled(before, 10_000);
        let of = |strategies| DefineCommand { strategies, ..DefineCommand::default() };
        let grows_first = of([entries("a", 2, true), entries("b", 2, false)].concat());
        let shrinks_first = of([entries("b", 2, false), entries("a", 2, true)].concat());

        for whole in [&grows_first, &shrinks_first] {
            assert_eq!(active.problems_of_all(whole), Vec::<String>::new());
        }
        let parts = grows_first.parts();
        assert!(parts.len() > 1, "{} parts", parts.len());
        let (at, problems) = active.refused_part(&parts).expect("a part that is refused");
        let told = "all definitions together would have 17";
        assert!(at == 0 && problems[0].starts_with(told), "{at}: {problems:?}");
        let parts = shrinks_first.parts();
        assert!(parts.len() > 1, "{} parts", parts.len());
        assert_eq!(active.refused_part(&parts), None);
    }
}
