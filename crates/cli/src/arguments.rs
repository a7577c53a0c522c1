//! What can be typed. The arguments of a command stand in the command's file.

use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::commands::{
    audit, complete, completion, contract, dead, demo, doctor, events, flags, publish, review,
    runs, schema, strategy, up, worker, workflow,
};
use crate::error::EXIT_CODES_HELP;
use crate::telemetry::TelemetryOptions;

/// Where a local engine keeps its data when nothing else is said.
pub const DATA_DIR_DEFAULT: &str = "./.fermata";

/// Name of the file in the data folder in which a running local engine tells
/// where its broker listens.
pub const URL_FILE: &str = "fermata.url";

/// Name of the file in the data folder in which the name of the engine stands whose folder it is. It
/// stays when the engine ends.
pub const ENGINE_FILE: &str = "engine";

/// Reads how many of something are wanted; none is no list.
///
/// # Errors
///
/// What to write instead.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    let wanted = text.parse().ok().filter(|count| *count > 0);
    wanted.ok_or_else(|| "write a number from 1".to_owned())
}

/// Turns business events into governed, audited workflow runs on NATS JetStream.
#[derive(Debug, Parser)]
#[command(name = "fermata", version, after_help = EXIT_CODES_HELP, max_term_width = 100)]
pub struct Arguments {
    /// What every command takes.
    #[command(flatten)]
    pub global: GlobalArguments,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct GlobalArguments {
    /// Print JSON, one value per line, for programs
    #[arg(long, global = true)]
    pub json: bool,
    /// Address of the broker, such as nats://127.0.0.1:4222; default: that of the local engine
    #[arg(long, global = true, env = "FERMATA_NATS_URL", value_name = "URL")]
    pub nats_url: Option<String>,
    /// Folder of the local engine; default: ./.fermata
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// How log lines look
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,
}

impl GlobalArguments {
    /// The data folder, the default one when none is named.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.data_dir.as_deref().unwrap_or(Path::new(DATA_DIR_DEFAULT))
    }

    /// The file in which a running local engine tells where its broker listens.
    #[must_use]
    pub fn url_file(&self) -> PathBuf {
        self.data_dir().join(URL_FILE)
    }

    /// The file that names the engine of the data folder.
    #[must_use]
    pub fn engine_file(&self) -> PathBuf {
        self.data_dir().join(ENGINE_FILE)
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the engine, and a broker of its own unless one is named
    Up(up::UpArguments),
    /// Start some of the engine's roles on a broker that is there
    Worker(worker::WorkerArguments),
    /// Show everything at work: a broker, the engine, a plugin server, and some 200 events
    Demo(demo::DemoArguments),
    /// Publish business events
    Publish(publish::PublishArguments),
    /// Check, apply and list strategies: which event starts which workflow
    #[command(subcommand)]
    Strategy(strategy::StrategyCommand),
    /// Check, apply, list and plan workflows
    #[command(subcommand)]
    Workflow(workflow::WorkflowCommand),
    /// Check, apply and list contracts: what the data of events adheres to
    #[command(subcommand)]
    Contract(contract::ContractCommand),
    /// List, show, explain, watch and cancel runs
    #[command(subcommand)]
    Runs(runs::RunsCommand),
    /// List, show and replay dead letters: input that could not be used
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Verify, follow, prove and export the audit log
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Check that everything is in order, and say what to do where it is not
    Doctor(doctor::DoctorArguments),
    /// Write the JSON Schemas of workflows and strategies
    Schema(schema::SchemaArguments),
    /// Look at the events that came: what would other strategies make of them?
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Write a script that completes this program's commands in a shell
    Completion(completion::CompletionArguments),
    /// Complete a call that ends by callback
    Complete(complete::CompleteArguments),
    /// List and set feature flags: parts of the engine that can be switched off
    #[command(subcommand)]
    Flags(flags::FlagsCommand),
    /// List, show and resolve review cases: what a person has to look at
    #[command(subcommand)]
    Review(review::ReviewCommand),
}

impl Arguments {
    /// What the telemetry is to be for this command: a program that stays tells what it
    /// does, one that answers and goes only what is wrong.
    #[must_use]
    pub fn telemetry(&self) -> TelemetryOptions {
        let engine = if let Command::Up(up) = &self.command {
            Some(&up.engine)
        } else if let Command::Worker(worker) = &self.command {
            Some(&worker.engine)
        } else {
            None
        };
        TelemetryOptions {
            // What libraries tell while all is well says nothing to whoever runs an engine.
            filter_default: if engine.is_some() { "warn,fermata=info" } else { "warn" },
            format: self.global.log_format,
            scraped: engine.is_some_and(|engine| engine.http.is_some()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        fn check(command: &clap::Command, path: &str) {
            if command.has_subcommands() {
                for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
                    check(inner, &format!("{path} {}", inner.get_name()));
                }
                return;
            }
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(path), "`{path}` shows no example of itself");
        }
        check(&Arguments::command(), "fermata");
    }

    #[test]
    fn an_option_that_means_the_same_everywhere_is_told_in_the_same_words() {
        fn check(command: &clap::Command, path: &str) {
            for inner in command.get_subcommands() {
                check(inner, &format!("{path} {}", inner.get_name()));
            }
            for argument in command.get_arguments() {
                let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
                let values = argument.get_value_names().unwrap_or_default();
                let value = values.first().map(|value| value.as_str()).unwrap_or_default();
                let is_list = help.starts_with("Only ");
                let (begin, end) = match (argument.get_long(), value) {
                    (Some("by"), _) => ("Who asks", "default: the user of the operating system"),
                    (Some("reason"), "TEXT") if path.ends_with("replay") => ("Why; signed", ""),
                    (Some("reason"), "TEXT") => ("Why, for people and the audit log", ""),
                    (Some("reason"), _) => ("Only ", ""),
                    (Some("dry-run"), _) => ("Say what would be done, and do nothing", ""),
                    (Some("limit"), _) => ("At most so many", ""),
                    (Some("since"), _) => (
                        "Only ",
                        "then or later: a date as in RFC 3339, or how long ago (`30m`, `2h`, `7d`)",
                    ),
                    (Some("until"), _) => ("Only ", "before then, likewise"),
                    (Some("vkey"), _) => ("Key that ", ""),
                    (Some("tenant"), _) if path.ends_with("strategy list") => {
                        ("Only what sees the events of this tenant", "")
                    }
                    (Some("tenant"), _) if is_list => ("Only what is of this tenant", ""),
                    (Some("tenant"), _) => ("Whose event", ""),
                    _ => continue,
                };
                assert!(
                    help.starts_with(begin) && help.ends_with(end),
                    "{path} {argument}: {help}"
                );
            }
        }
        check(&Arguments::command(), "fermata");
    }

    /// The words of a line as a shell takes them; what is after a pipe or a comment is not ours.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut quote = None;
        for character in line.chars() {
            match (quote, character) {
                (Some(open), _) if open == character => quote = None,
                (None, '\'' | '"') => quote = Some(character),
                (None, '|' | '#' | '>' | ')') => break,
                (None, ' ') => words.push(String::new()),
                (Some(_) | None, _) => words.last_mut().unwrap().push(character),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn the_page_of_commands_has_every_command_and_each_of_its_lines_can_be_typed() {
        let page = include_str!("../../../docs/cli.md");
        let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split_once("```"));
        let lines = blocks.flat_map(|(block, _)| block.lines());
        let lines: Vec<_> = lines.map(|line| line.trim_start_matches("source <(")).collect();
        for line in &lines {
            let parsed = Arguments::try_parse_from(words(line));
            assert!(parsed.is_ok(), "`{line}`: {}", parsed.unwrap_err());
        }
        fn check(command: &clap::Command, path: &str, lines: &[&str]) {
            for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
                check(inner, &format!("{path} {}", inner.get_name()), lines);
            }
            let is_shown = lines.iter().any(|line| line.starts_with(path));
            assert!(command.has_subcommands() || is_shown, "docs/cli.md does not have `{path}`");
        }
        check(&Arguments::command(), "fermata", &lines);
    }

    #[test]
    fn a_list_of_nothing_is_not_asked_for() {
        for list in ["runs", "dead", "review"] {
            let with =
                |limit| Arguments::try_parse_from(["fermata", list, "list", "--limit", limit]);

            assert!(with("1").is_ok(), "{list}");
            for limit in ["0", "-1", "x", "99999999999999999999999"] {
                assert!(with(limit).is_err(), "{list} {limit}");
            }
        }
    }

    #[test]
    fn what_every_command_takes_can_stand_behind_the_command() {
        let arguments = Arguments::try_parse_from([
            "fermata",
            "runs",
            "list",
            "--json",
            "--nats-url",
            "nats://a",
        ])
        .unwrap();

        assert!(arguments.global.json);
        assert_eq!(arguments.global.nats_url.as_deref(), Some("nats://a"));
    }
}
