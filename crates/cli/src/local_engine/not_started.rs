//! Why an engine did not start, and what to do about it.

use std::path::Path;

use fermata_actors::EngineError;
use fermata_jetstream::topology::TopologyError;

use super::whose::replaced_in;
use crate::error::CliError;
use crate::stream_room::told_shortage;

pub(super) fn not_started(data_dir: &Path, error: EngineError) -> CliError {
    if matches!(error, EngineError::OtherKey { .. }) {
        return CliError::Usage(format!(
            "{error}: copy `audit.key` from the data folder of the engine and name it with \
             `--audit-key`"
        ));
    }
    let is_given = matches!(
        error,
        EngineError::Executors(_) | EngineError::WorkerName { .. } | EngineError::QueueName { .. }
    );
    if is_given {
        return CliError::Usage(error.to_string());
    }
    if let EngineError::Connect(error) = error {
        return CliError::Connect(error);
    }
    if let EngineError::Topology(TopologyError::NotAllFit(shortage)) = error {
        return CliError::NoRoom(told_shortage(&shortage));
    }
    if let EngineError::Topology(error) = error {
        return CliError::Topology(error);
    }
    if let EngineError::Replaced(error) = error {
        return replaced_in(data_dir, error);
    }
    CliError::Failed { action: "starting the engine".to_owned(), source: Box::new(error) }
}
