//! What a task does: exactly one of the kinds of work.

use fermata_core::plan::{Delay, Work};

use super::task::TASK;
use crate::duration;
use crate::fields::{Fields, Keys, Reader};
use crate::tree::{Located, Tree};

pub(crate) const HTTP: Keys = Keys {
    known: &["plugin", "path", "body", "idempotent"],
    later: &[
        ("headers", "put it into the body"),
        ("method", "every call is a POST"),
        ("url", "name the plugin; the engine's configuration says where it lives"),
    ],
};
const NOOP: Keys = Keys { known: &[], later: &[] };
const DELAY: Keys = Keys { known: &["until"], later: &[] };
const WORKS: [&str; 4] = ["http", "transform", "noop", "delay"];

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
            "add one of `http`, `transform`, `delay` or `noop: {}`",
        );
    }
    let transform = fields.read(reader, "transform", |reader, path, located| {
        Some(Work::Transform { value: reader.expression(path, located)? })
    });
    let noop = fields.read(reader, "noop", |reader, path, located| {
        reader.mapping(path, located, &NOOP).map(|_| Work::Noop)
    });
    let delay = fields.read(reader, "delay", delay);
    transform.or(noop).or(delay).or_else(|| fields.read(reader, "http", http))
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

fn delay(reader: &mut Reader, path: &str, located: &Located) -> Option<Work> {
    if matches!(located.value, Tree::Map(_)) {
        let fields = reader.mapping(path, located, &DELAY)?;
        let until = fields.require(reader, "until", Reader::expression)?;
        return Some(Work::Delay(Delay::Until(until)));
    }
    let milliseconds = duration::milliseconds(reader, path, located)?;
    Some(Work::Delay(Delay::Milliseconds(milliseconds)))
}
