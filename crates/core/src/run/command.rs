//! Programs that runs start.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Run;
use super::step::{Refusal, within_limit};
use crate::effect::AttemptWork;
use crate::json::Json;
use crate::plan::NodeIndex;

/// Most arguments of a program.
pub const ARGUMENTS_MAX: usize = 256;

impl Run {
    /// Arguments and input of a program, as the first attempt records them and
    /// all attempts use them.
    pub(super) fn invocation(&self, index: NodeIndex) -> Result<Json, Refusal> {
        let about_args = |detail: String| Refusal::expression("args", &detail);
        let evaluated = self.second_value(index).map_err(about_args)?;
        let list = if evaluated.is_null() {
            Some(&[][..])
        } else {
            evaluated.as_array().map(Vec::as_slice)
        };
        let Some(args) = list.filter(|args| args.len() <= ARGUMENTS_MAX) else {
            let detail = format!("expected a list of at most {ARGUMENTS_MAX} texts");
            return Err(about_args(detail));
        };
        // A program would see such a text cut short.
        let is_argument = |arg: &Value| arg.as_str().is_some_and(|text| !text.contains('\0'));
        if let Some(at) = args.iter().position(|arg| !is_argument(arg)) {
            return Err(about_args(format!("argument {at} is no text without a NUL")));
        }
        let stdin = self.value(index).map_err(|detail| Refusal::expression("stdin", &detail))?;
        let input = Json::from_value(&json!({ "args": args, "stdin": stdin.parse() }));
        within_limit(input).map_err(|detail| Refusal::expression("stdin", &detail))
    }

    /// The program call that `input` stands for.
    pub(super) fn invoking(name: &str, input: &Json) -> AttemptWork {
        let input = input.parse();
        let texts = |args: &Vec<Value>| {
            args.iter().filter_map(|arg| arg.as_str().map(str::to_owned)).collect()
        };
        let args = input.get("args").and_then(Value::as_array).map(texts).unwrap_or_default();
        let stdin = Json::from_value(input.get("stdin").unwrap_or(&Value::Null));
        AttemptWork::Command { name: Arc::from(name), args, stdin }
    }
}
