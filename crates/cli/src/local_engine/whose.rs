//! Which engine a data folder works for.

use std::io;
use std::path::Path;

use fermata_actors::engine::EngineReplaced;

use crate::arguments::ENGINE_FILE;
use crate::error::CliError;

/// The engine that `data_dir` belongs to, once one ran there.
pub(super) fn engine_of(data_dir: &Path) -> Result<Option<String>, CliError> {
    let file = data_dir.join(ENGINE_FILE);
    match std::fs::read_to_string(&file) {
        Ok(kept) => Ok(Some(kept.trim().to_owned()).filter(|kept| !kept.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(CliError::io(format!("read `{}`", file.display()))(error)),
    }
}

/// What to say where the broker has another one.
pub(super) fn replaced_in(data_dir: &Path, replaced: EngineReplaced) -> CliError {
    let engine_file = data_dir.join(ENGINE_FILE).display().to_string();
    CliError::EngineReplaced { replaced, engine_file }
}
