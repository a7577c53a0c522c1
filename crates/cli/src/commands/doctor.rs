//! `fermata doctor`: whether everything is in order, and what to do where it is not.

mod checks;

pub use checks::MONITOR_FILE;

use clap::Args;
use serde::Serialize;

use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Tone};

/// Arguments of `fermata doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Ends with 1 if a check fails.

Examples:
  fermata doctor
  fermata doctor --nats-url nats://broker:4222 --monitor-url http://broker:8222 --json")]
pub struct DoctorArguments {
    /// Monitoring address of the broker, such as http://127.0.0.1:8222; default: that of the local engine's broker
    #[arg(long, value_name = "URL")]
    pub monitor_url: Option<String>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// In order.
    Ok,
    /// To be looked at; nothing is broken.
    Warn,
    /// Broken.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// How it came out.
    pub health: Health,
    /// What was found.
    pub found: String,
    /// What to do about it; nothing where all is well.
    pub hint: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, health: Health::Ok, found: found.into(), hint: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, health: Health::Warn, found: found.into(), hint: Some(hint.into()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, health: Health::Fail, found: found.into(), hint: Some(hint.into()) }
    }

    /// A check that could not be made.
    fn failed(name: &'static str, error: &CliError) -> Self {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(reason) = source {
            text = format!("{text}: {reason}");
            source = reason.source();
        }
        Self::fail(name, text, "look into the broker's log, then try again")
    }
}

/// Makes every check that can be made, and tells.
///
/// # Errors
///
/// When it cannot be written.
///
/// # Cancel safety
///
/// Can be dropped.
pub async fn run(
    arguments: DoctorArguments,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let checks = examine(&arguments, global).await;
    print(&checks, output)?;
    let failed = checks.iter().any(|check| check.health == Health::Fail);
    Ok(if failed { ExitCode::Findings } else { ExitCode::Success })
}

async fn examine(arguments: &DoctorArguments, global: &GlobalArguments) -> Vec<Check> {
    let mut list = vec![
        Check::ok("program", format!("fermata {}", env!("CARGO_PKG_VERSION"))),
        checks::server_binary(),
    ];
    let session = match BrokerSession::open(global).await {
        Ok(session) => session,
        Err(error) => {
            list.push(checks::no_broker(&error));
            return list;
        }
    };
    list.push(checks::broker_version(&session));
    list.push(checks::durability(arguments.monitor_url.as_deref(), global).await);
    match session.engine_config().await {
        Ok(config) => {
            let engine =
                format!("engine `{}` with {} data partitions", config.engine, config.partitions);
            list.push(Check::ok("engine", engine));
            list.push(checks::streams(&session, &config).await);
            list.extend(checks::ownership(&session, &config).await);
            list.push(checks::clock(&session).await);
        }
        Err(CliError::NoEngine) => {
            let hint = "start one with `fermata up`";
            list.push(Check::fail("engine", "none was ever started on this broker", hint));
        }
        Err(error) => list.push(Check::failed("engine", &error)),
    }
    list
}

fn print(checks: &[Check], output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return checks.iter().try_for_each(|check| output.json_line(check));
    }
    let row = |check: &Check| {
        let (tone, word) = match check.health {
            Health::Ok => (Tone::Good, "ok"),
            Health::Warn => (Tone::Warning, "warn"),
            Health::Fail => (Tone::Bad, "FAIL"),
        };
        vec![check.name.to_owned(), output.tone(tone, word), check.found.clone()]
    };
    let rows = checks.iter().map(row).collect();
    output.table(&["CHECK", "STATE", "FOUND"], rows, "")?;
    let hints: Vec<_> =
        checks.iter().filter_map(|check| Some((check.name, check.hint.as_ref()?))).collect();
    if !hints.is_empty() {
        output.line("")?;
    }
    hints.into_iter().try_for_each(|(name, hint)| output.line(&format!("{name}: {hint}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::printed;

    #[test]
    fn what_is_broken_comes_with_a_hint() {
        let checks = [
            Check::ok("broker", "version 2.15.1"),
            Check::fail("workers", "none lives", "start one with `fermata up`"),
        ];

        insta::assert_snapshot!(printed(|output| print(&checks, output)), @r"
         CHECK    STATE  FOUND
         broker   ok     version 2.15.1
         workers  FAIL   none lives

        workers: start one with `fermata up`
        ");
    }
}
