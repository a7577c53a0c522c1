//! What can be said about what a node does.

use super::super::PlanProblem;
use super::{is_name, shortened};
use crate::plan::{Delay, NodeIndex, PATH_BYTES_MAX, PLUGIN_BYTES_MAX, Plan, Work};

pub(super) fn check(work: &Work, plan: &Plan, index: NodeIndex, problems: &mut Vec<PlanProblem>) {
    let mut about =
        |field, message: String| problems.push(PlanProblem::new(Some(index), field, message));
    match work {
        Work::Noop | Work::Transform { .. } | Work::Delay(Delay::Until(_)) => {}
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
        Work::Delay(Delay::Milliseconds(milliseconds)) => {
            if *milliseconds >= plan.run_timeout_ms {
                about(
                    "delay",
                    format!(
                        "a delay of {milliseconds} ms outlasts the run, which may take {} ms \
                         (`fault_tolerance.run_timeout`)",
                        plan.run_timeout_ms
                    ),
                );
            }
        }
    }
}

fn is_path(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#');
    text.len() <= PATH_BYTES_MAX
        && text.starts_with('/')
        && !text.starts_with("//")
        && text.bytes().all(allowed)
        && text.split(['/', '?']).all(|segment| segment != "..")
}
