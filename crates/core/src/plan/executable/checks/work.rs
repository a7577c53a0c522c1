//! What can be said about what a node does.

use super::super::PlanProblem;
use super::{is_name, shortened};
use crate::event::{is_plain_type, no_plain_type};
use crate::plan::{
    Delay, EventType, NodeIndex, PATH_BYTES_MAX, PLUGIN_BYTES_MAX, Plan, SUBJECT_BYTES_MAX, Work,
    as_written,
};
use crate::strategy::check_type_pattern;

pub(super) fn check(work: &Work, plan: &Plan, index: NodeIndex, problems: &mut Vec<PlanProblem>) {
    let mut about =
        |field, message: String| problems.push(PlanProblem::new(Some(index), field, message));
    match work {
        Work::Wait { event, .. } => {
            if let Err(problem) = check_type_pattern(event) {
                let event = shortened(event);
                about("wait.event", format!("`{event}` is no pattern of event types: {problem}"));
            }
        }
        Work::Noop
        | Work::Transform { .. }
        | Work::Delay(Delay::Until(_))
        | Work::Emit { event_type: EventType::Computed(_), .. } => {}
        Work::Emit { event_type: EventType::Constant(kind), .. } => {
            if !is_plain_type(kind) {
                about("emit.type", no_plain_type(kind));
            }
        }
        Work::Nats { subject, .. } => {
            if let Some(problem) = problem_of_subject(subject) {
                about("nats.subject", format!("`{}` {problem}", shortened(subject)));
            }
        }
        Work::Http { plugin, path, .. } => {
            if plugin.len() > PLUGIN_BYTES_MAX || !is_name(plugin) {
                about("http.plugin", format!("`{}` is no plugin name", shortened(plugin)));
            }
            if !is_path(path) {
                about(
                    "http.path",
                    format!(
                        "`{}` is no path; start with `/`, use visible ASCII without `\\`, `#` or \
                         `..`, at most {PATH_BYTES_MAX} bytes",
                        shortened(path)
                    ),
                );
            }
        }
        Work::Command { name, .. } => {
            if name.len() > PLUGIN_BYTES_MAX || !is_name(name) {
                about("command.name", format!("`{}` is no name of a program", shortened(name)));
            }
        }
        Work::Delay(Delay::Milliseconds(milliseconds)) => {
            if *milliseconds >= plan.run_timeout_ms {
                about(
                    "delay",
                    format!(
                        "a delay of {} outlasts the run, which may take {} \
                         (`fault_tolerance.run_timeout`)",
                        as_written(*milliseconds),
                        as_written(plan.run_timeout_ms)
                    ),
                );
            }
        }
    }
}

/// Why nothing may be asked under `subject`, whatever the configuration allows.
fn problem_of_subject(subject: &str) -> Option<String> {
    let plain = |token: &str| {
        !token.is_empty()
            && token.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'*' | b'>'))
    };
    if subject.len() > SUBJECT_BYTES_MAX || !subject.split('.').all(plain) {
        return Some(format!(
            "is no subject to ask; use tokens of visible ASCII parted by dots, without `*` and \
             `>`, at most {SUBJECT_BYTES_MAX} bytes"
        ));
    }
    let first = subject.split('.').next().unwrap_or_default();
    let own = first.starts_with('$') || first.starts_with('_') || first == "fermata";
    own.then(|| "is the broker's or the engine's own; ask a service's subject".to_owned())
}

fn is_path(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#');
    text.len() <= PATH_BYTES_MAX
        && text.starts_with('/')
        && !text.starts_with("//")
        && text.bytes().all(allowed)
        && text.split(['/', '?']).all(|segment| segment != "..")
}
