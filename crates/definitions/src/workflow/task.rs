//! One task of a workflow document.

use fermata_core::plan::{Join, RetryPolicy, TIMEOUT_MS_DEFAULT, Work};

use crate::duration;
use crate::fields::{Keys, Reader};
use crate::tree::{Located, Tree};

use super::{retry, work};

pub(crate) const TASK: Keys = Keys {
    known: &[
        "id",
        "depends_on",
        "when",
        "join",
        "timeout",
        "retry",
        "retry_policy",
        "http",
        "transform",
        "noop",
        "delay",
        "emit",
        "nats",
        "command",
        "wait",
        "queue",
    ],
    later: &[
        ("compensate", "undo by a task of its own with a `when`"),
        ("agent", "call the agent as a plugin with `http`"),
        ("parallel", "tasks that do not depend on each other run in parallel already"),
        ("approval", "ask through a plugin with `http` and `completion: callback`"),
        ("map", "make a task per item"),
        ("loop", "make a task per round"),
        ("timer", "use `delay`"),
        ("wait_for", "use `wait`"),
        ("workflow", "start the other workflow by an event and a strategy"),
        ("llm", "call a plugin with `http`"),
        ("capabilities", "name the plugin in `http`"),
        ("resources", "leave it out"),
        ("deadline", "use `timeout`"),
        ("hooks", "use tasks before and after"),
        ("loop_until", "make a task per round"),
    ],
};
/// One task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskDocument {
    /// Unique within the workflow.
    pub id: String,
    /// Ids of the tasks that this one waits for.
    pub depends_on: Vec<String>,
    /// Which of them must have ended.
    pub join: Join,
    /// CEL: whether the task runs at all.
    pub when: Option<String>,
    /// What it does.
    pub work: Work,
    /// Time limit of one attempt, in milliseconds.
    pub timeout_ms: u64,
    /// When a failed attempt is made again.
    pub retry: RetryPolicy,
    /// The named queue whose workers run it; none where the engine's own do.
    pub queue: Option<String>,
}

impl TaskDocument {
    /// A task with the defaults of the language: no dependencies, no guard,
    /// one attempt.
    #[must_use]
    pub fn new(id: impl Into<String>, work: Work) -> Self {
        Self {
            id: id.into(),
            depends_on: Vec::new(),
            join: Join::All,
            when: None,
            work,
            timeout_ms: TIMEOUT_MS_DEFAULT,
            retry: RetryPolicy::none(),
            queue: None,
        }
    }

    /// The same task, waiting for `tasks`.
    #[must_use]
    pub fn after<I: Into<String>>(mut self, tasks: impl IntoIterator<Item = I>) -> Self {
        self.depends_on.extend(tasks.into_iter().map(Into::into));
        self
    }
}

/// Reads one task. What cannot be read has been reported and is replaced by
/// what the rest can be checked with.
pub(super) fn read(reader: &mut Reader, path: &str, located: &Located) -> TaskDocument {
    let nothing = TaskDocument::new("", Work::Noop);
    let Some(fields) = reader.mapping(path, located, &TASK) else { return nothing };
    let id = fields.require(reader, "id", Reader::text).unwrap_or_default();
    let depends_on = fields.read(reader, "depends_on", |reader, path, located| {
        let items = reader.list(path, located)?.iter().enumerate();
        let ids = items.filter_map(|(at, item)| reader.text(&format!("{path}[{at}]"), item));
        Some(ids.collect())
    });
    let work = work::read(reader, &fields);
    let timeout_ms = match &work {
        Some(Work::Wait { .. }) => Some(work::wait_timeout(reader, &fields)),
        _ => fields.read(reader, "timeout", duration::milliseconds),
    };
    let work = work.unwrap_or(Work::Noop);
    let retry = retry::read(reader, &fields, &work);
    TaskDocument {
        id,
        depends_on: depends_on.unwrap_or_default(),
        join: fields.read(reader, "join", join).unwrap_or_default(),
        when: fields.read(reader, "when", Reader::expression),
        work,
        timeout_ms: timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT),
        retry,
        queue: fields.read(reader, "queue", Reader::text),
    }
}

fn join(reader: &mut Reader, path: &str, located: &Located) -> Option<Join> {
    match &located.value {
        Tree::Text(text) if text == "all" => Some(Join::All),
        Tree::Text(text) if text == "any" => Some(Join::Any),
        Tree::Map(entries) if entries.iter().any(|entry| entry.key == "n") => {
            let hint = "use `all` or `any`";
            reader.problems.add_with_hint(located.start, path, "`n` has no effect yet", hint);
            None
        }
        Tree::Null
        | Tree::Bool(_)
        | Tree::Number(_)
        | Tree::Text(_)
        | Tree::List(_)
        | Tree::Map(_) => {
            reader.problems.add(located.start, path, "expected `all` or `any`");
            None
        }
    }
}
