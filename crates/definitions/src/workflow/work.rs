//! What a task does: exactly one of the kinds of work.

use fermata_core::plan::{Completion, Delay, EventType, WAIT_TIMEOUT_MS_DEFAULT, Work};

use super::task::TASK;
use crate::duration;
use crate::fields::{Fields, Keys, Reader};
use crate::tree::{Located, Tree};

pub(crate) const HTTP: Keys = Keys {
    known: &["plugin", "path", "body", "idempotent", "completion"],
    later: &[
        ("headers", "put it into the body"),
        ("method", "every call is a POST"),
        ("url", "name the plugin; the engine's configuration says where it lives"),
    ],
};
const NOOP: Keys = Keys { known: &[], later: &[] };
const DELAY: Keys = Keys { known: &["until"], later: &[] };
const EMIT: Keys = Keys {
    known: &["type", "type_from", "data"],
    later: &[
        ("id", "leave it out: it is the effect key"),
        ("source", "leave it out: it is the workflow"),
        ("tenant", "leave it out: a run publishes for its own tenant"),
        ("subject", "put it into `data`"),
    ],
};
const NATS: Keys = Keys {
    known: &["subject", "body", "idempotent", "completion"],
    later: &[("headers", "put it into the body")],
};
const COMMAND: Keys = Keys {
    known: &["name", "args", "stdin", "idempotent"],
    later: &[
        ("path", "name the program; the engine's configuration says where it lies"),
        ("shell", "there is none: name a program and give its arguments as a list"),
        ("env", "the engine's configuration says what the program's environment holds"),
    ],
};
pub(crate) const WAIT: Keys = Keys {
    known: &["event", "correlation", "timeout"],
    later: &[("match", "narrow the event's `type`; look at the data in a `when` behind the wait")],
};
const WORKS: [&str; 8] = ["http", "transform", "noop", "delay", "emit", "nats", "command", "wait"];

pub(super) fn read(reader: &mut Reader, fields: &Fields<'_>) -> Option<Work> {
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
            "add one of `http`, `nats`, `command`, `emit`, `transform`, `delay`, `wait` or \
             `noop: {}`",
        );
    }
    let transform = fields.read(reader, "transform", |reader, path, located| {
        Some(Work::Transform { value: reader.expression(path, located)? })
    });
    let noop = fields.read(reader, "noop", |reader, path, located| {
        reader.mapping(path, located, &NOOP).map(|_| Work::Noop)
    });
    let delay = fields.read(reader, "delay", delay);
    let emit = fields.read(reader, "emit", emit);
    let nats = fields.read(reader, "nats", nats);
    let command = fields.read(reader, "command", command);
    let wait = fields.read(reader, "wait", wait);
    let local = transform.or(noop).or(delay).or(emit).or(wait);
    local.or(nats).or(command).or_else(|| fields.read(reader, "http", http))
}

fn http(reader: &mut Reader, path: &str, located: &Located) -> Option<Work> {
    let fields = reader.mapping(path, located, &HTTP)?;
    let plugin = fields.require(reader, "plugin", Reader::text);
    let at = fields.read(reader, "path", Reader::text);
    let body = fields.read(reader, "body", Reader::expression);
    let idempotent = fields.read(reader, "idempotent", Reader::truth);
    let completion = fields.read(reader, "completion", completion).unwrap_or_default();
    let plugin = plugin?;
    Some(Work::Http {
        completion,
        path: at.unwrap_or_else(|| format!("/plugin/runtime/{plugin}/execute")),
        plugin,
        body: body.unwrap_or_else(|| "input".to_owned()),
        idempotent: idempotent.unwrap_or(true),
    })
}

fn delay(reader: &mut Reader, path: &str, located: &Located) -> Option<Work> {
    if matches!(located.value, Tree::Map(_)) {
        let fields = reader.mapping(path, located, &DELAY)?;
        let until = fields.require(reader, "until", Reader::expression)?;
        return Some(Work::Delay(Delay::Until(until)));
    }
    let milliseconds = duration::milliseconds(reader, path, located)?;
    Some(Work::Delay(Delay::Milliseconds(milliseconds)))
}

fn emit(reader: &mut Reader, path: &str, located: &Located) -> Option<Work> {
    let fields = reader.mapping(path, located, &EMIT)?;
    let constant = fields.read(reader, "type", Reader::text).map(EventType::Constant);
    let computed = fields.read(reader, "type_from", Reader::expression).map(EventType::Computed);
    let data = fields.read(reader, "data", Reader::expression);
    match (fields.entry("type"), fields.entry("type_from")) {
        (Some(_), Some(entry)) => {
            let message = "`type` and `type_from` say the same thing";
            let path = fields.path_to("type_from");
            reader.problems.add_with_hint(entry.key_start, &path, message, "keep one of them");
        }
        (None, None) => reader.problems.add(fields.start, path, "`type` is missing"),
        (Some(_), None) | (None, Some(_)) => {}
    }
    let event_type = constant.or(computed)?;
    Some(Work::Emit { event_type, data: data.unwrap_or_else(|| "input".to_owned()) })
}

fn nats(reader: &mut Reader, path: &str, located: &Located) -> Option<Work> {
    let fields = reader.mapping(path, located, &NATS)?;
    let subject = fields.require(reader, "subject", Reader::text);
    let body = fields.read(reader, "body", Reader::expression);
    let idempotent = fields.read(reader, "idempotent", Reader::truth);
    let completion = fields.read(reader, "completion", completion).unwrap_or_default();
    Some(Work::Nats {
        completion,
        subject: subject?,
        body: body.unwrap_or_else(|| "input".to_owned()),
        idempotent: idempotent.unwrap_or(true),
    })
}

fn completion(reader: &mut Reader, path: &str, located: &Located) -> Option<Completion> {
    match &located.value {
        Tree::Text(text) if text == "answer" => Some(Completion::Answer),
        Tree::Text(text) if text == "callback" => Some(Completion::Callback),
        Tree::Null
        | Tree::Bool(_)
        | Tree::Number(_)
        | Tree::Text(_)
        | Tree::List(_)
        | Tree::Map(_) => {
            reader.problems.add(located.start, path, "expected `answer` or `callback`");
            None
        }
    }
}

fn command(reader: &mut Reader, path: &str, located: &Located) -> Option<Work> {
    let fields = reader.mapping(path, located, &COMMAND)?;
    let name = fields.require(reader, "name", Reader::text);
    let args = fields.read(reader, "args", Reader::expression);
    let stdin = fields.read(reader, "stdin", Reader::expression);
    let idempotent = fields.read(reader, "idempotent", Reader::truth);
    Some(Work::Command {
        name: name?,
        args,
        stdin: stdin.unwrap_or_else(|| "input".to_owned()),
        // A program seldom looks for a key: whoever wrote one that does says so.
        idempotent: idempotent.unwrap_or(false),
    })
}

fn wait(reader: &mut Reader, path: &str, located: &Located) -> Option<Work> {
    let fields = reader.mapping(path, located, &WAIT)?;
    let event = fields.require(reader, "event", Reader::text);
    let correlation = fields.require(reader, "correlation", Reader::expression);
    Some(Work::Wait { event: event?, correlation: correlation? })
}

/// The time limit of a wait stands with it; one of an attempt has no meaning.
pub(super) fn wait_timeout(reader: &mut Reader, fields: &Fields<'_>) -> u64 {
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

#[cfg(test)]
mod tests;
