//! The workflow document.

mod retry;
mod task;
mod work;

use fermata_core::json::Json;
use fermata_core::plan::{Executable, RUN_TIMEOUT_MS_DEFAULT, input};

use crate::build::build_read;
use crate::duration;
use crate::fields::{Keys, Reader};
use crate::problem::{FoundProblems, Problems};
use crate::spelling;
use crate::tree::{Limits, Located};

pub use task::TaskDocument;

#[cfg(test)]
pub(crate) use retry::RETRY;
#[cfg(test)]
pub(crate) use task::TASK;
#[cfg(test)]
pub(crate) use work::{HTTP, WAIT};

/// The names that `orchestration_pattern` takes. It describes; execution
/// follows the graph.
pub const ORCHESTRATION_PATTERNS: [&str; 7] =
    ["supervisor", "hierarchical", "handoff", "swarm", "network", "custom", "pipeline"];

pub(crate) const DOCUMENT: Keys = Keys { known: &["workflow"], later: &[] };
pub(crate) const WORKFLOW: Keys = Keys {
    known: &[
        "name",
        "version",
        "orchestration_pattern",
        "description",
        "input",
        "tasks",
        "fault_tolerance",
    ],
    later: &[
        ("agents", "call the agents as plugins with `http`"),
        ("coordination", "order the tasks with `depends_on`"),
    ],
};
pub(crate) const FAULT_TOLERANCE: Keys = Keys {
    known: &["run_timeout"],
    later: &[
        ("circuit_breaker", "bound the calls with `timeout` and `retry` on each task"),
        ("saga_pattern", "undo by tasks of their own with a `when`"),
    ],
};

/// A workflow as its author wrote it, or as a program puts it together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowDocument {
    /// Name of the workflow.
    pub name: String,
    /// Version, as the author writes it.
    pub version: String,
    /// What a run's input must look like; see [`fermata_core::plan::input`].
    pub input: Option<Json>,
    /// The tasks, in any order.
    pub tasks: Vec<TaskDocument>,
    /// How long a run may take, in milliseconds.
    pub run_timeout_ms: u64,
}

/// Reads one workflow document and checks it in full.
///
/// # Errors
///
/// Everything that is wrong with the document, in its order.
pub fn read_workflow(
    source: &str,
    file: Option<&str>,
    limits: &Limits,
) -> Result<Executable, FoundProblems> {
    let mut problems = Problems::of_file(file);
    let Some(tree) = Located::parse(source, limits, &mut problems) else {
        return Err(problems.into_sorted());
    };
    let mut reader = Reader { problems };
    let document = document(&mut reader, &tree);
    let mut problems = reader.problems;
    let built = document.map(|(document, incomplete)| build_read(document, incomplete));
    match built {
        Some(Ok(executable)) if problems.is_empty() => Ok(executable),
        Some(Err(found)) => {
            problems.locate(found, &tree, source);
            Err(problems.into_sorted())
        }
        Some(Ok(_)) | None => Err(problems.into_sorted()),
    }
}

/// The document, and which of its tasks have problems of their own.
fn document(reader: &mut Reader, tree: &Located) -> Option<(WorkflowDocument, Vec<bool>)> {
    let outer = reader.mapping("", tree, &DOCUMENT)?;
    let fields = outer.require(reader, "workflow", |reader, path, located| {
        reader.mapping(path, located, &WORKFLOW)
    })?;
    let name = fields.require(reader, "name", Reader::text);
    let version = fields.require(reader, "version", Reader::text);
    fields.read(reader, "description", Reader::text);
    fields.read(reader, "orchestration_pattern", pattern);
    let input = fields.read(reader, "input", schema);
    let run_timeout_ms = fields.read(reader, "fault_tolerance", run_timeout);
    let tasks = fields.require(reader, "tasks", |reader, path, located| {
        let items = reader.list(path, located)?;
        let tasks = items.iter().enumerate().map(|(index, item)| {
            // A task that cannot be read stays in its place, so that the
            // others keep theirs and what mentions it is not undefined too.
            let before = reader.problems.count();
            let task = task::read(reader, &format!("{path}[{index}]"), item);
            (task, reader.problems.count() > before)
        });
        Some(tasks.unzip::<_, _, Vec<_>, Vec<_>>())
    });
    let (tasks, incomplete) = tasks?;
    let document = WorkflowDocument {
        // Problems have been reported already; stand-ins let the rest be checked.
        name: name.unwrap_or_else(|| "unnamed".to_owned()),
        version: version.unwrap_or_else(|| "0".to_owned()),
        input: input.flatten(),
        tasks,
        run_timeout_ms: run_timeout_ms.unwrap_or(RUN_TIMEOUT_MS_DEFAULT),
    };
    Some((document, incomplete))
}

fn pattern(reader: &mut Reader, path: &str, located: &Located) -> Option<()> {
    let name = reader.text(path, located)?;
    if !ORCHESTRATION_PATTERNS.contains(&name.as_str()) {
        let shown: String = name.chars().take(80).collect();
        let hint = spelling::hint(&name, ORCHESTRATION_PATTERNS)
            .unwrap_or_else(|| format!("one of {}", ORCHESTRATION_PATTERNS.join(", ")));
        let message = format!("`{shown}` is no orchestration pattern");
        reader.problems.add_with_hint(located.start, path, message, hint);
    }
    Some(())
}

/// Reads the schema of the input; `None` inside when it has been refused.
fn schema(reader: &mut Reader, path: &str, located: &Located) -> Option<Option<Json>> {
    let problems = input::check_schema(&located.to_json());
    for problem in &problems {
        // Paths of the check start with `input`, ours with where `input` stands.
        let inner = problem.path.strip_prefix("input").unwrap_or(&problem.path);
        let inner = inner.trim_start_matches('.');
        let start = located.find(inner).start;
        let path = crate::fields::join(path, inner);
        reader.problems.add(start, path.trim_end_matches('.'), problem.message.clone());
    }
    Some(problems.is_empty().then(|| Json::from(located)))
}

fn run_timeout(reader: &mut Reader, path: &str, located: &Located) -> Option<u64> {
    let fields = reader.mapping(path, located, &FAULT_TOLERANCE)?;
    fields.read(reader, "run_timeout", duration::milliseconds)
}
