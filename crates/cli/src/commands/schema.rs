//! `fermata schema`: the JSON Schemas of what people write, and the AsyncAPI document of what
//! programs send and receive.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::error::{CliError, ExitCode};
use crate::output::Output;

/// Arguments of `fermata schema`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  fermata schema --out schemas")]
pub struct SchemaArguments {
    /// Folder to write to; created when absent
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// Name of the file that says what programs beside Fermata send and receive.
const ASYNCAPI_FILE: &str = "asyncapi.yaml";

/// The document itself, written by hand; a test holds published messages against it.
const ASYNCAPI: &str = include_str!("schema/asyncapi.yaml");

/// The files that are written, by name, besides the AsyncAPI document.
#[must_use]
pub fn schemas() -> [(&'static str, Value); 2] {
    [
        ("strategies.schema.json", fermata_definitions::strategies_schema()),
        ("workflow.schema.json", fermata_definitions::workflow_schema()),
    ]
}

/// Writes the schemas.
///
/// # Errors
///
/// When a file cannot be written.
pub fn run(arguments: &SchemaArguments, output: &mut Output) -> Result<ExitCode, CliError> {
    let folder = &arguments.out;
    fs::create_dir_all(folder)
        .map_err(CliError::io(format!("create the folder `{}`", folder.display())))?;
    let mut files = vec![(ASYNCAPI_FILE, ASYNCAPI.to_owned())];
    for (name, schema) in schemas() {
        let text = serde_json::to_string_pretty(&schema)
            .map_err(|source| CliError::Json { what: format!("schema `{name}`"), source })?;
        files.push((name, text + "\n"));
    }
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).map_err(CliError::io(format!("write `{}`", path.display())))?;
        if output.is_json() {
            output.json_line(&json!({ "file": path }))?;
        } else {
            output.line(&format!("wrote {}", path.display()))?;
        }
    }
    Ok(ExitCode::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_are_written_every_time() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let arguments = SchemaArguments { out: folder.path().join(name) };
            run(&arguments, &mut Output::to_writer(std::io::sink(), false)).unwrap();
            fs::read(arguments.out.join("workflow.schema.json")).unwrap()
        };

        let first = write("a");

        assert!(first.len() > 1_000);
        assert_eq!(first, write("b"));
    }
}
