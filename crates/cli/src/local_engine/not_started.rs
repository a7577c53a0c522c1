//! Why an engine did not start, and what to do about it.

use std::path::Path;

use fermata_actors::EngineError;
use fermata_jetstream::topology::TopologyError;

use super::whose::{engine_of, replaced_in};
use crate::error::CliError;
use crate::stream_room::told_shortage;

pub(super) fn not_started(data_dir: &Path, error: EngineError) -> CliError {
    if matches!(error, EngineError::OtherKey { .. }) {
        // Another engine than the folder's is told before its key is looked at.
        if engine_of(data_dir).is_ok_and(|engine| engine.is_some()) {
            return CliError::Usage(format!(
                "{error}: this data folder worked for this engine before, with its key: bring the file back \
                 from where it was copied to, as `audit.key` in this folder, or name it with `--audit-key`; \
                 without a copy see *What to back up* in docs/operations.md"
            ));
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::ENGINE_FILE;

    #[test]
    fn a_key_that_is_gone_from_the_folder_of_its_engine_is_not_to_be_copied_from_there() {
        let folder = tempfile::tempdir().unwrap();
        let told = || {
            let error = EngineError::OtherKey { own: "a".to_owned(), agreed: "b".to_owned() };
            not_started(folder.path(), error).to_string()
        };

        assert!(told().contains("from the data folder of the engine"), "{}", told());
        std::fs::write(folder.path().join(ENGINE_FILE), "fermata-1\n").unwrap();
        let own = told();
        assert!(own.contains("this data folder worked for this engine before"), "{own}");
    }
}
