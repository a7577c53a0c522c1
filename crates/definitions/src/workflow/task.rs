//! One task of a workflow document.

use fermata_core::plan::{Join, RetryPolicy, TIMEOUT_MS_DEFAULT, WAIT_TIMEOUT_MS_DEFAULT, Work};

use crate::duration;
use crate::fields::{Fields, Keys, Reader};
use crate::tree::{Located, Tree};

use super::retry;

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
        "wait",
    ],
    later: &[
        ("compensate", "undo by a task of its own with a `when`"),
        ("emit", "publish through a plugin with `http`"),
        ("agent", "call the agent as a plugin with `http`"),
        ("parallel", "tasks that do not depend on each other run in parallel already"),
        ("approval", "ask through a plugin with `http`"),
        ("map", "make a task per item"),
        ("loop", "make a task per round"),
        ("timer", "wait in a plugin"),
        ("wait_for", "use `wait`"),
        ("workflow", "start the other workflow by an event and a strategy"),
        ("nats", "call a plugin with `http`"),
        ("llm", "call a plugin with `http`"),
        ("command", "call a plugin with `http`"),
        ("queue", "the engine's own workers run every task"),
        ("capabilities", "name the plugin in `http`"),
        ("resources", "leave it out"),
        ("deadline", "use `timeout`"),
        ("hooks", "use tasks before and after"),
        ("loop_until", "make a task per round"),
    ],
};
pub(crate) const HTTP: Keys = Keys {
    known: &["plugin", "path", "body", "idempotent"],
    later: &[
        ("headers", "put it into the body"),
        ("method", "every call is a POST"),
        ("url", "name the plugin; the engine's configuration says where it lives"),
    ],
};
const NOOP: Keys = Keys { known: &[], later: &[] };
pub(crate) const WAIT: Keys = Keys {
    known: &["event", "correlation", "timeout"],
    later: &[("match", "narrow the event's `type`; look at the data in a `when` behind the wait")],
};
const WORKS: [&str; 4] = ["http", "transform", "noop", "wait"];

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
    let work = work(reader, &fields);
    let timeout_ms = match &work {
        Some(Work::Wait { .. }) => Some(wait_timeout(reader, &fields)),
        _ => fields.read(reader, "timeout", duration::milliseconds),
    };
    TaskDocument {
        id,
        depends_on: depends_on.unwrap_or_default(),
        join: fields.read(reader, "join", join).unwrap_or_default(),
        when: fields.read(reader, "when", Reader::expression),
        work: work.unwrap_or(Work::Noop),
        timeout_ms: timeout_ms.unwrap_or(TIMEOUT_MS_DEFAULT),
        retry: retry::read(reader, &fields),
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

fn work(reader: &mut Reader, fields: &Fields<'_>) -> Option<Work> {
    let named: Vec<_> = WORKS.into_iter().filter(|name| fields.get(name).is_some()).collect();
    if let [_, second, ..] = named.as_slice()
        && let Some(entry) = fields.entry(second)
    {
        let message = format!("a task does one thing, this one has `{}`", named.join("` and `"));
        reader.problems.add(entry.key_start, &fields.path_to(second), message);
        return None;
    }
    let later = TASK.later.iter().any(|(name, _)| fields.get(name).is_some());
    if named.is_empty() && !later {
        reader.problems.add_with_hint(
            fields.start,
            &fields.path,
            "the task does nothing",
            "add `http`, `transform`, `wait` or `noop: {}`",
        );
    }
    let transform = fields.read(reader, "transform", |reader, path, located| {
        Some(Work::Transform { value: reader.expression(path, located)? })
    });
    let noop = fields.read(reader, "noop", |reader, path, located| {
        reader.mapping(path, located, &NOOP).map(|_| Work::Noop)
    });
    let wait = fields.read(reader, "wait", wait);
    transform.or(noop).or(wait).or_else(|| fields.read(reader, "http", http))
}

fn wait(reader: &mut Reader, path: &str, located: &Located) -> Option<Work> {
    let fields = reader.mapping(path, located, &WAIT)?;
    let event = fields.require(reader, "event", Reader::text);
    let correlation = fields.require(reader, "correlation", Reader::expression);
    Some(Work::Wait { event: event?, correlation: correlation? })
}

/// The time limit of a wait stands with it; one of an attempt has no meaning.
fn wait_timeout(reader: &mut Reader, fields: &Fields<'_>) -> u64 {
    for key in ["timeout", "retry", "retry_policy"] {
        if let Some(entry) = fields.entry(key) {
            let (path, hint) = (fields.path_to(key), "put `timeout` into `wait`");
            let message = format!("`{key}` has no effect on a task that waits");
            reader.problems.add_with_hint(entry.key_start, &path, message, hint);
        }
    }
    let timeout_ms = fields.read(reader, "wait", |reader, path, located| {
        // Its keys have been checked with the rest of it.
        let Tree::Map(entries) = &located.value else { return None };
        let timeout = entries.iter().find(|entry| entry.key == "timeout")?;
        duration::milliseconds(reader, &format!("{path}.timeout"), &timeout.value)
    });
    timeout_ms.unwrap_or(WAIT_TIMEOUT_MS_DEFAULT)
}

fn http(reader: &mut Reader, path: &str, located: &Located) -> Option<Work> {
    let fields = reader.mapping(path, located, &HTTP)?;
    let plugin = fields.require(reader, "plugin", Reader::text);
    let at = fields.read(reader, "path", Reader::text);
    let body = fields.read(reader, "body", Reader::expression);
    let idempotent = fields.read(reader, "idempotent", Reader::truth);
    let plugin = plugin?;
    Some(Work::Http {
        path: at.unwrap_or_else(|| format!("/plugin/runtime/{plugin}/execute")),
        plugin,
        body: body.unwrap_or_else(|| "input".to_owned()),
        idempotent: idempotent.unwrap_or(true),
    })
}
