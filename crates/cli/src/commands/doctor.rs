//! `fermata doctor`: whether everything is in order, and what to do where it is not.

mod alike;
mod calls;
mod checks;
mod load;
mod permissions;
mod queues;
mod repair;
mod roles;
mod room;
mod switched_off;
mod truncation;
pub(crate) mod workers;

pub use checks::MONITOR_FILE;
pub use repair::Repair;
pub(super) use workers::{PartitionStanding, standing_of};

use clap::Args;
use fermata_core::identity::PartitionId;
use serde::Serialize;
use serde_json::Value;

use crate::arguments::GlobalArguments;
use crate::broker_session::BrokerSession;
use crate::commands::up::{DurabilityArgument, stream_room, stream_size};
use crate::error::{CliError, ExitCode, in_one_line};
use crate::output::{Output, Tone, counted};
use crate::stream_room::stores;

/// Arguments of `fermata doctor`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Ends with 1 if a check fails.

Examples:
  fermata doctor
  fermata doctor --nats-url nats://broker:4222 --monitor-url http://broker:8222 --json
  fermata doctor --repair room --stream-room 40GiB --dry-run
  fermata doctor --repair room --only payloads --to 2GiB
  fermata doctor --repair orphaned-nodes --reason 'the machine is gone'
  fermata doctor --repair halted-partition --partition 3 --accept-truncation --reason 'power cut'")]
pub struct DoctorArguments {
    /// Monitoring address of the broker, such as http://127.0.0.1:8222, one for each server of a cluster; default: that of the local engine's broker
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub monitor_url: Vec<String>,
    /// What the broker must give: a broker that only survives a kill then fails
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub durability: Option<DurabilityArgument>,
    /// Also try what only a worker must be allowed; nothing is stored
    #[arg(long)]
    pub as_worker: bool,
    /// Repair this instead of looking around; recorded with who and why
    #[arg(long, value_enum, value_name = "WHAT", conflicts_with_all = ["durability", "as_worker"])]
    pub repair: Option<Repair>,
    /// Why, for people and the audit log
    #[arg(long, value_name = "TEXT", requires = "repair")]
    pub reason: Option<String>,
    /// Who asks, for the audit log; default: the user of the operating system
    #[arg(long, value_name = "NAME", requires = "repair")]
    pub by: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long, requires = "repair")]
    pub dry_run: bool,
    /// The halted partition to repair: a number, or `control`
    #[arg(long, value_name = "P", requires = "repair")]
    pub partition: Option<PartitionId>,
    /// How much of the broker's file store the streams take together; default: as much as doubles those that fill
    #[arg(long, value_parser = stream_room, requires = "repair", value_name = "SIZE")]
    pub stream_room: Option<u64>,
    /// Enlarge this stream alone: `payloads`, `EVENTS`, `AUDIT_3`
    #[arg(long, requires = "repair", conflicts_with = "stream_room", value_name = "STREAM")]
    pub only: Option<String>,
    /// How much that stream may hold; default: twice what it may now
    #[arg(long, value_parser = stream_size, requires = "only", value_name = "SIZE")]
    pub to: Option<u64>,
    /// Let the partition go on without the records that its journal lost; nobody gets them back
    #[arg(long, requires = "partition")]
    pub accept_truncation: bool,
    /// Do not ask
    #[arg(long, requires = "accept_truncation")]
    pub yes: bool,
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
    /// Not looked at: there is nobody to ask, which another check tells.
    Skipped,
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
    /// What kind of thing is wrong, for programs: stays the same over versions.
    pub code: Option<&'static str>,
    /// Each thing that is wrong, for programs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Value>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        let found = found.into();
        Self { name, health: Health::Ok, found, hint: None, code: None, details: Vec::new() }
    }

    fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    fn details<T: Into<Value>>(self, details: impl IntoIterator<Item = T>) -> Self {
        Self { details: details.into_iter().map(Into::into).collect(), ..self }
    }

    fn warn(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { health: Health::Warn, hint: Some(hint.into()), ..Self::ok(name, found) }
    }

    fn fail(name: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { health: Health::Fail, hint: Some(hint.into()), ..Self::ok(name, found) }
    }

    /// A check for which there is nobody to ask.
    fn skipped(name: &'static str, found: impl Into<String>) -> Self {
        Self { health: Health::Skipped, ..Self::ok(name, found) }
    }

    /// A check that could not be made.
    fn failed(name: &'static str, error: &CliError) -> Self {
        let hint = "look into the broker's log, then try again";
        Self::fail(name, in_one_line(error), hint).code("check_failed")
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
    if let Some(what) = arguments.repair {
        return repair::repair(&arguments, what, global, output).await;
    }
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
    let mut notices = session.broker().notices();
    list.push(checks::broker_version(&session));
    list.extend(checks::servers(arguments, global).await);
    match session.engine_config().await {
        Ok(config) => {
            let engine = format!(
                "engine `{}` with {}",
                config.engine,
                counted(config.partitions, "data partition", "data partitions")
            );
            list.push(Check::ok("engine", engine));
            list.push(checks::streams(&session, &config).await);
            // An endpoint that does not answer is told by its own check.
            let stores = stores(&session, global, &arguments.monitor_url).await;
            list.push(load::room(&session, &config, &stores.unwrap_or_default()).await);
            list.push(load::lag(&session).await);
            list.extend(switched_off::parts(&session).await);
            list.push(queues::served(&session).await);
            list.extend(queues::servable(&session).await);
            list.extend(checks::ownership(&session, &config).await);
            list.push(checks::clock(&session).await);
            permissions::probe(&session, arguments.as_worker).await;
        }
        Err(CliError::NoEngine) => {
            let hint = "start one with `fermata up`";
            let found = "none was ever started on this broker";
            list.push(Check::fail("engine", found, hint).code("no_engine"));
        }
        Err(error) => list.push(Check::failed("engine", &error)),
    }
    list.push(permissions::judge(&mut notices));
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
            Health::Skipped => (Tone::Faint, "skipped"),
        };
        vec![check.name.to_owned(), output.tone(tone, word), check.found.clone()]
    };
    let rows = checks.iter().map(row).collect();
    output.table(&["CHECK", "STATE", "FOUND"], rows, "")?;
    let hints: Vec<_> =
        checks.iter().filter_map(|check| Some((check, check.hint.as_ref()?))).collect();
    if !hints.is_empty() {
        output.line("")?;
    }
    hints.into_iter().try_for_each(|(check, hint)| {
        let code = check.code.map_or_else(String::new, |code| format!(" ({code})"));
        output.line(&format!("{}{code}: {hint}", check.name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::testing::printed;

    #[test]
    fn what_is_broken_comes_with_a_hint() {
        let checks = [
            Check::ok("broker", "version 2.15.1"),
            Check::fail("workers", "none lives", "start one with `fermata up`").code("no_worker"),
        ];

        insta::assert_snapshot!(printed(|output| print(&checks, output)), @r"
         CHECK    STATE  FOUND
         broker   ok     version 2.15.1
         workers  FAIL   none lives

        workers (no_worker): start one with `fermata up`
        ");
    }
}
