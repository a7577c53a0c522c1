//! `fermata audit key`: the public key that everything signed is checked with.

use std::path::{Path, PathBuf};

use clap::Args;
use fermata_audit::{Signer, Verifier};
use serde_json::json;

use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::error::{CliError, ExitCode};
use crate::local_engine::AUDIT_KEY_FILE;
use crate::output::{Output, hex};

/// Arguments of `fermata audit key`.
#[derive(Debug, Clone, Args)]
pub struct KeyArguments {
    /// Take it from this file with the private key, without a broker; without a name from audit.key in the data folder
    #[arg(long, num_args = 0..=1, value_name = "FILE")]
    pub audit_key: Option<Option<PathBuf>>,
}

/// Prints the public key, as the broker or as the private key says.
pub(super) async fn run(
    arguments: &KeyArguments,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let (verifier, engine, from) = match &arguments.audit_key {
        Some(file) => {
            let file = file.clone().unwrap_or_else(|| global.data_dir().join(AUDIT_KEY_FILE));
            (of_file(&file)?, None, file.display().to_string())
        }
        None => {
            let config = BrokerSession::open(global).await?.engine_config().await?;
            let from = "the engine's configuration in the broker".to_owned();
            (Verifier::parse(&config.audit_vkey)?, Some(config.engine), from)
        }
    };
    if output.is_json() {
        let (vkey, name, key_id) = (verifier.vkey(), verifier.name(), hex(&verifier.key_id()));
        output.json_line(&json!({
            "vkey": vkey, "name": name, "key_id": key_id, "engine": engine, "from": from,
        }))?;
        return Ok(ExitCode::Success);
    }
    // Alone on its line, so that a shell can put it where a key is wanted.
    output.line(&verifier.vkey())?;
    if engine.is_some() {
        output.note(&format!(
            "this is what {from} says; whoever checks others compares it with what their `audit.key` says \
             (`fermata audit key --audit-key`)"
        ));
    }
    Ok(ExitCode::Success)
}

/// The public half of the private key in a file.
fn of_file(file: &Path) -> Result<Verifier, CliError> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(CliError::io(format!("read `{name}`")))?;
    let signer = Signer::parse(text.trim()).map_err(|error| {
        CliError::Usage(format!(
            "`{name}` holds no private audit key: {error}; `fermata up` has one in its data folder, `{AUDIT_KEY_FILE}`"
        ))
    })?;
    Ok(signer.verifier())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_tells_its_public_half_and_something_else_is_refused_without_being_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(AUDIT_KEY_FILE);
        let signer = Signer::from_seed("test", [3; 32]).unwrap();

        std::fs::write(&file, format!("{}\n", signer.to_private_text())).unwrap();
        assert_eq!(of_file(&file).unwrap().vkey(), signer.vkey());

        std::fs::write(&file, "PRIVATE+KEY+not-quite").unwrap();
        let refused = of_file(&file).unwrap_err().to_string();
        assert!(refused.contains("holds no private audit key"), "{refused}");
        assert!(!refused.contains("not-quite"), "{refused}");
    }
}
