//! `fermata complete`: the outcome of a call that was accepted earlier.

use clap::{ArgGroup, Args};
use fermata_core::json::told;
use fermata_executors::unverified_claim;
use fermata_jetstream::Bytes;
use fermata_jetstream::core_messages::{CoreMessageError, CoreMessages};
use fermata_wire::subjects;
use serde_json::{Value, json};

use crate::arguments::GlobalArguments;
use crate::broker_session::{ANSWER_LIMIT, BrokerSession};
use crate::error::{CliError, ExitCode};
use crate::output::Output;

/// Arguments of `fermata complete`.
#[derive(Debug, Clone, Args)]
// The first outcome counts for ever, so none is taken for granted.
#[command(group(ArgGroup::new("outcome").required(true).args(["output", "fail"])))]
#[command(after_help = "\
Examples:
  fermata complete TOKEN --output '{\"approved\": true}'
  fermata complete TOKEN --output null
  fermata complete TOKEN --fail 'declined by ada'")]
pub struct CompleteArguments {
    /// Token of the call, as the callee got it in `fermata-callback-token`
    #[arg(value_name = "TOKEN")]
    pub token: String,
    /// What the task answers; `null` for nothing
    #[arg(long, value_name = "JSON")]
    pub output: Option<String>,
    /// The call failed; why, for people
    #[arg(long, value_name = "TEXT")]
    pub fail: Option<String>,
}

/// Completes the call and waits until that is recorded.
///
/// # Errors
///
/// When the token or output cannot be read, or no engine answers.
///
/// # Cancel safety
///
/// When dropped, the call may be completed.
pub async fn run(
    arguments: CompleteArguments,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let claim = unverified_claim(&arguments.token)
        .filter(|claim| claim.tenant.parse::<fermata_core::identity::Tenant>().is_ok())
        .ok_or_else(|| CliError::Usage("the token is none: it was cut or changed".to_owned()))?;
    let outcome = outcome_of(&arguments)?;
    let session = BrokerSession::open(global).await?;
    let core = CoreMessages::new(session.broker());
    let subject = subjects::callbacks(&claim.tenant);
    let asked = core.request(&subject, Bytes::from(outcome.to_string()), ANSWER_LIMIT).await;
    let answer = match asked {
        Ok(answer) => answer,
        Err(CoreMessageError::NoResponders { .. }) => return Err(CliError::NoEngine),
        Err(CoreMessageError::NoAnswer { limit, .. }) => {
            return Err(CliError::NoAnswer {
                seconds: limit.as_secs(),
                what_now: "complete it again: only the first outcome counts".to_owned(),
            });
        }
        Err(error) => return Err(error.into()),
    };
    let answer: Value = serde_json::from_slice(&answer.payload)
        .map_err(|source| CliError::Json { what: "the engine's answer".to_owned(), source })?;
    let word = answer.get("answer").and_then(Value::as_str).unwrap_or("unreadable");
    if output.is_json() {
        output.json_line(&json!({ "effect": claim.effect, "answer": word }))?;
    } else {
        let detail = answer.get("detail").and_then(Value::as_str).unwrap_or(word);
        output.line(match word {
            "completed" => "completed",
            "late" => {
                "it has an outcome already, or its run has ended; this one is recorded as late"
            }
            _ => detail,
        })?;
    }
    Ok(if word == "completed" { ExitCode::Success } else { ExitCode::Findings })
}

fn outcome_of(arguments: &CompleteArguments) -> Result<Value, CliError> {
    let token = &arguments.token;
    if let Some(failed) = &arguments.fail {
        return Ok(json!({ "token": token, "failed": failed }));
    }
    let text = arguments.output.as_deref().unwrap_or("null");
    let output: Value = serde_json::from_str(text).map_err(|error| {
        CliError::Usage(format!("`--output` is no JSON: {}", told(&error, text)))
    })?;
    Ok(json!({ "token": token, "output": output }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;

    use super::*;

    #[derive(Debug, Parser)]
    struct Typed {
        #[command(flatten)]
        arguments: CompleteArguments,
    }

    #[test]
    fn nothing_is_completed_without_an_outcome_or_with_two() {
        let typed = |more: &[&str]| {
            let typed = Typed::try_parse_from([&["complete", "token"], more].concat());
            typed.map(|typed| outcome_of(&typed.arguments).unwrap())
        };

        let refused = typed(&[]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::MissingRequiredArgument);
        assert!(refused.to_string().contains("--output <JSON>|--fail <TEXT>"), "{refused}");
        let both = typed(&["--output", "1", "--fail", "no"]).unwrap_err();
        assert_eq!(both.kind(), ErrorKind::ArgumentConflict);
        let nothing = json!({ "token": "token", "output": null });
        assert_eq!(typed(&["--output", "null"]).unwrap(), nothing);
        assert!(typed(&["--fail", "no"]).is_ok());
    }
}
