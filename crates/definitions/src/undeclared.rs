//! Fields of the input that a workflow mentions and does not declare.
//!
//! No declaration is closed: a strategy may pass more than the workflow's `input` names, so a name that is not
//! declared may be one that comes. It may be a slip as well, so it is told and not refused.

use std::collections::BTreeSet;

use fermata_core::plan::{Executable, NodeIndex, Plan};
use serde_json::Value;

use crate::build::shown;
use crate::spelling;

/// Most that is told of one workflow.
const TOLD_MAX: usize = 20;

/// What is told for people of every `input.<name>` that the workflow's `input` declares nothing of, where it
/// declares anything; each with the task and the field that mention it.
#[must_use]
pub fn undeclared_inputs(executable: &Executable) -> Vec<String> {
    let plan = executable.plan();
    let declared = declared(plan);
    if declared.is_empty() {
        return Vec::new();
    }
    let mut told = Vec::new();
    for (node, at) in plan.nodes.iter().zip(0..) {
        for (field, name) in mentioned(executable, at) {
            if declared.contains(&name) {
                continue;
            }
            let hint = spelling::hint(&name, declared.iter().map(String::as_str));
            let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            told.push(format!(
                "`{field}` of task `{}` mentions `input.{}`, which the workflow's `input` does not declare{hint}",
                node.id,
                shown(&name)
            ));
        }
    }
    let more = told.len().saturating_sub(TOLD_MAX);
    told.truncate(TOLD_MAX);
    if more > 0 {
        told.push(format!("{more} more mention what the workflow's `input` does not declare"));
    }
    told
}

/// The names that `properties` and `required` have.
fn declared(plan: &Plan) -> BTreeSet<String> {
    let Some(schema) = plan.input_schema.as_ref().map(fermata_core::json::Json::parse) else {
        return BTreeSet::new();
    };
    let properties = schema.get("properties").and_then(Value::as_object).into_iter();
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let required = required.filter_map(Value::as_str).map(str::to_owned);
    properties.flat_map(|properties| properties.keys().cloned()).chain(required).collect()
}

/// The fields of a task that mention parts of the input, with their names.
fn mentioned(executable: &Executable, at: NodeIndex) -> Vec<(&'static str, String)> {
    let Some(work) = executable.node(at).map(|node| &node.work) else { return Vec::new() };
    let guard = executable.guard(at).map(|guard| ("when", guard));
    let value = executable.value(at).map(|value| (work.value_field(), value));
    let second = work.second_value().map(|(field, _)| field).zip(executable.second_value(at));
    let expressions = guard.into_iter().chain(value).chain(second);
    let names = expressions.flat_map(|(field, expression)| {
        expression.references().inputs.iter().map(move |name| (field, name.clone()))
    });
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Limits;
    use crate::workflow::read_workflow;

    fn told(input: &str, tasks: &str) -> Vec<String> {
        let text =
            format!("workflow:\n  name: w\n  version: '1'\n{input}  tasks:\n    - {tasks}\n");
        undeclared_inputs(&read_workflow(&text, None, &Limits::default()).expect(&text))
    }

    const DECLARED: &str = "  input: { required: [order], properties: { n: { type: integer } } }\n";

    #[test]
    fn a_field_that_is_not_declared_is_told_with_the_nearest_that_is() {
        let slip = told(DECLARED, "{ id: a, when: 'input.order == 1', transform: 'input.nn + 1' }");
        let expected = "`transform` of task `a` mentions `input.nn`, which the workflow's `input` does not \
                        declare; did you mean `n`?";
        assert_eq!(slip, [expected]);
        let far = told(DECLARED, "{ id: a, when: \"input['elsewhere'] == 1\", noop: {} }");
        assert!(far[0].ends_with("`input` does not declare"), "{far:?}");
    }

    #[test]
    fn where_nothing_is_declared_everything_may_come() {
        assert_eq!(told("", "{ id: a, transform: input.nn }"), Vec::<String>::new());
        let all = "{ id: a, transform: '[input, input.n, input.order]' }";
        assert_eq!(told(DECLARED, all), Vec::<String>::new());
        assert_eq!(told("  input: { type: object }\n", all), Vec::<String>::new());
    }
}
