//! Events that runs publish.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Run;
use super::step::{Refusal, within_limit};
use crate::effect::AttemptWork;
use crate::event::{HOPS_MAX, is_plain_type, no_plain_type};
use crate::json::Json;
use crate::plan::{EventType, FailureClass, NodeIndex};

impl Run {
    /// Type and data of the event, as the first attempt records them and all
    /// attempts publish them.
    pub(super) fn event(&self, index: NodeIndex, event_type: &EventType) -> Result<Json, Refusal> {
        if self.hops >= HOPS_MAX {
            let detail = format!(
                "the run was started by event {} of a chain of events of runs, the last one that \
                 may be; do these workflows start each other for ever?",
                self.hops
            );
            return Err(Refusal { class: FailureClass::TooManyHops, detail });
        }
        let kind = match event_type {
            EventType::Constant(kind) => Value::from(kind.as_str()),
            EventType::Computed(_) => self
                .second_value(index)
                .map_err(|detail| Refusal::expression("type_from", &detail))?,
        };
        let Some(text) = kind.as_str().filter(|kind| is_plain_type(kind)) else {
            let detail = no_plain_type(&kind.to_string());
            return Err(Refusal { class: FailureClass::Expression, detail });
        };
        let data = self.value(index).map_err(|detail| Refusal::expression("data", &detail))?;
        let event = Json::from_value(&json!({ "type": text, "data": data.parse() }));
        within_limit(event).map_err(|detail| Refusal::expression("data", &detail))
    }

    /// The event that `input` stands for.
    pub(super) fn emitting(&self, input: &Json) -> AttemptWork {
        let event = input.parse();
        let member = |name: &str| event.get(name).cloned().unwrap_or_default();
        AttemptWork::Emit {
            event_type: member("type").as_str().unwrap_or_default().into(),
            source: self.event_source(),
            data: Json::from_value(&member("data")),
            hops: self.hops.saturating_add(1),
        }
    }

    /// Where events of the run happen: its workflow.
    fn event_source(&self) -> Arc<str> {
        format!("/fermata/workflows/{}", self.executable.plan().workflow).into()
    }
}
