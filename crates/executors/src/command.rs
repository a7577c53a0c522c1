//! Programs of the allow-list: no shell, no environment but the configured one,
//! a folder and a process group of their own, a bound on everything.

mod process;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::ChildStdin;

use self::process::Process;
use crate::config::{BODY_BYTES_MAX, ConfigError, Problems, check_limits};
use crate::effect::{CommandCall, EffectOutcome, EffectRequest, FailureClass};
use crate::fair_turns::FairTurns;
use crate::traceparent;

/// 16: programs take memory and processors that the engine does not bound.
const PROCESSES_MAX: usize = 16;
/// 5 s: time to write a state down after SIGTERM, before SIGKILL.
const KILL_AFTER_MS: u64 = 5_000;
/// What is kept of the standard error, its end, in bytes: what fits a failure's
/// text together with the words around it.
const STDERR_BYTES_KEPT: usize = 384;
/// `EX_TEMPFAIL` of `sysexits.h`.
const TRY_AGAIN_STATUS: i32 = 75;

/// Settings of programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommandConfig {
    /// The allow-list: programs by the name that workflows use. Empty by default.
    pub programs: BTreeMap<String, Program>,
    /// Programs that run at a time; an attempt beyond them waits within its own
    /// time limit.
    pub processes_max: usize,
    /// Longest standard output in bytes; a program that writes more is killed
    /// (`response_too_large`).
    pub stdout_bytes_max: usize,
    /// Time between SIGTERM and SIGKILL, in milliseconds.
    pub kill_after_ms: u64,
}

impl Default for CommandConfig {
    fn default() -> Self {
        Self {
            programs: BTreeMap::new(),
            processes_max: PROCESSES_MAX,
            stdout_bytes_max: BODY_BYTES_MAX,
            kill_after_ms: KILL_AFTER_MS,
        }
    }
}

/// A program and what it is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Program {
    /// Absolute path of the file. Required.
    pub path: PathBuf,
    /// Variables of its environment. It has these, those of `inherit`, and
    /// `FERMATA_IDEMPOTENCY_KEY`, `FERMATA_ATTEMPT` and `TRACEPARENT`; no others.
    pub environment: BTreeMap<String, String>,
    /// Variables that it inherits from the engine, where they are set.
    pub inherit: Vec<String>,
    /// What its standard output is.
    pub output: CommandOutput,
}

/// What a program's standard output is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandOutput {
    /// JSON; nothing is `null`.
    #[default]
    Json,
    /// UTF-8 text.
    Text,
}

/// Why an attempt failed, before it is told as an outcome.
struct Failure {
    class: FailureClass,
    detail: String,
}

impl Failure {
    fn new(class: FailureClass, detail: impl Into<String>) -> Self {
        Self { class, detail: detail.into() }
    }
}

/// Runs programs.
#[derive(Debug)]
pub(crate) struct CommandExecutor {
    config: CommandConfig,
    processes: FairTurns,
}

/// What a program left behind.
struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

impl CommandExecutor {
    /// Checks the configuration; tells in the log of programs that are not there.
    ///
    /// # Errors
    /// Returns a [`ConfigError`] with all that is wrong.
    pub(crate) fn new(config: &CommandConfig) -> Result<Self, ConfigError> {
        let mut problems = Problems::default();
        problems.take(check_limits([
            ("commands.processes_max", config.processes_max),
            ("commands.stdout_bytes_max", config.stdout_bytes_max),
        ]));
        for (name, program) in &config.programs {
            if !program.path.is_absolute() {
                let problem = "has no absolute `path`; nothing is looked up in a search path";
                let (program, problem) = (name.clone(), problem.to_owned());
                problems.add(ConfigError::Program { program, problem });
                continue;
            }
            // A disk may be mounted later, and other processes of the configuration run no programs.
            if let Some(problem) = problem_of(&program.path) {
                tracing::warn!(
                    program = name,
                    "`commands.programs` {problem}; until that is mended, tasks that call it fail"
                );
            }
        }
        problems.refuse()?;
        let processes = FairTurns::new(config.processes_max);
        Ok(Self { config: config.clone(), processes })
    }

    /// Makes one attempt, within the request's time limit and the time that a
    /// program takes to end after SIGTERM.
    ///
    /// # Cancel safety
    /// Dropping the future ends the program with all of its group: SIGTERM at once,
    /// SIGKILL after `kill_after_ms`, or when the runtime ends.
    pub(crate) async fn execute(
        &self,
        request: &EffectRequest,
        call: &CommandCall,
    ) -> EffectOutcome {
        match self.attempt(request, call).await {
            Ok(output) => EffectOutcome::Succeeded { output },
            Err(Failure { class, detail }) => EffectOutcome::Failed { class, detail },
        }
    }

    async fn attempt(&self, request: &EffectRequest, call: &CommandCall) -> Result<Value, Failure> {
        let name = &call.name;
        let program = self.config.programs.get(name).ok_or_else(|| {
            let detail = format!("program `{name}` is not among `commands.programs`");
            Failure::new(FailureClass::NotAllowed, detail)
        })?;
        let deadline = tokio::time::Instant::now() + request.timeout;
        let late = || {
            let detail = format!("program `{name}` did not end within {:?}", request.timeout);
            Failure::new(FailureClass::Timeout, detail)
        };
        let turn = tokio::time::timeout_at(deadline, self.processes.turn(&request.tenant)).await;
        let _turn = turn.map_err(|_| late())?;
        let folder = tempfile::Builder::new().prefix("fermata-").tempdir();
        let folder = folder.map_err(|error| {
            Failure::new(FailureClass::ExitTemporary, format!("no folder to work in: {error}"))
        })?;
        let kill_after = Duration::from_millis(self.config.kill_after_ms);
        let command = self::command(program, request, call, folder.path());
        let mut process = Process::spawn(command, kill_after).map_err(|e| not_started(name, &e))?;
        let ran = tokio::time::timeout_at(deadline, self.run(&mut process, call)).await;
        let ended = match ran {
            Ok(Ok(ended)) => ended,
            Ok(Err(failure)) => {
                process.end().await;
                return Err(failure);
            }
            Err(_) => {
                process.end().await;
                return Err(late());
            }
        };
        output(name, program.output, &ended)
    }

    async fn run(&self, process: &mut Process, call: &CommandCall) -> Result<Ended, Failure> {
        let (stdin, stdout, stderr) = process.pipes();
        let input = call.stdin.to_string();
        let max = self.config.stdout_bytes_max;
        let written = write(stdin, input.as_bytes());
        let read = async {
            let read = read_up_to(stdout, max).await;
            read.ok_or_else(|| {
                let detail = format!(
                    "program `{}` writes more than `commands.stdout_bytes_max` ({max})",
                    call.name
                );
                Failure::new(FailureClass::ResponseTooLarge, detail)
            })
        };
        let told = async { Ok(read_tail(stderr, STDERR_BYTES_KEPT).await) };
        let status = async {
            let status = process.wait().await.map_err(|error| {
                Failure::new(FailureClass::ExitStatus, format!("could not be waited for: {error}"))
            });
            // What it has left running holds its pipes open.
            process.kill_group();
            status
        };
        let written = async {
            written.await;
            Ok(())
        };
        let ((), stdout, stderr, status) = tokio::try_join!(written, read, told, status)?;
        Ok(Ended { status, stdout, stderr })
    }
}

fn command(
    program: &Program,
    request: &EffectRequest,
    call: &CommandCall,
    folder: &std::path::Path,
) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(&program.path);
    command
        .args(&call.args)
        .current_dir(folder)
        .env_clear()
        .envs(program.inherit.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .envs(&program.environment)
        .env("FERMATA_IDEMPOTENCY_KEY", &request.key)
        .env("FERMATA_ATTEMPT", request.attempt.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    if let Some(trace) = request.traceparent.as_ref().filter(|t| traceparent::is_well_formed(t)) {
        command.env("TRACEPARENT", trace);
    }
    command
}

/// Writes what the program reads; one that does not read all of it is free to.
async fn write(stdin: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(input).await;
        let _ = stdin.shutdown().await;
    }
}

/// All of it; nothing when it is longer than `max`.
async fn read_up_to(source: Option<impl AsyncRead + Unpin>, max: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let Some(source) = source else { return Some(bytes) };
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    // A pipe that breaks has said what it had to say.
    let _ = source.take(limit).read_to_end(&mut bytes).await;
    (bytes.len() <= max).then_some(bytes)
}

/// The last `kept` bytes of it.
async fn read_tail(source: Option<impl AsyncRead + Unpin>, kept: usize) -> Vec<u8> {
    let mut tail = Vec::new();
    let Some(mut source) = source else { return tail };
    let mut chunk = [0_u8; 4_096];
    while let Ok(count) = source.read(&mut chunk).await {
        if count == 0 {
            break;
        }
        tail.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let surplus = tail.len().saturating_sub(kept);
        tail.drain(..surplus);
    }
    tail
}

fn output(name: &str, form: CommandOutput, ended: &Ended) -> Result<Value, Failure> {
    if !ended.status.success() {
        return Err(failed(name, ended));
    }
    let text = std::str::from_utf8(&ended.stdout);
    let not = |what: String| {
        let detail = format!("the output of program `{name}` is not {what}");
        Failure::new(FailureClass::ResponseNotJson, detail)
    };
    match form {
        CommandOutput::Text => {
            text.map(Value::from).map_err(|error| not(format!("UTF-8: {error}")))
        }
        CommandOutput::Json if ended.stdout.iter().all(u8::is_ascii_whitespace) => Ok(Value::Null),
        CommandOutput::Json => serde_json::from_slice(&ended.stdout).map_err(|error| {
            not(format!("JSON, at line {}, column {}", error.line(), error.column()))
        }),
    }
}

fn failed(name: &str, ended: &Ended) -> Failure {
    use std::os::unix::process::ExitStatusExt as _;
    let (class, how) = match (ended.status.code(), ended.status.signal()) {
        (Some(TRY_AGAIN_STATUS), _) => (FailureClass::ExitTemporary, "status 75".to_owned()),
        (Some(code), _) => (FailureClass::ExitStatus, format!("status {code}")),
        (None, Some(signal)) => (FailureClass::ExitStatus, format!("signal {signal}")),
        (None, None) => (FailureClass::ExitStatus, "no status".to_owned()),
    };
    let stderr = String::from_utf8_lossy(&ended.stderr);
    // One line: the text goes into journals and tables.
    let said = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = if said.is_empty() { said } else { format!(": {said}") };
    Failure::new(class, format!("program `{name}` ended with {how}{said}"))
}

/// Why no program can be started from `path`.
fn problem_of(path: &Path) -> Option<String> {
    let shown = path.display();
    match path.metadata() {
        Err(error) => Some(format!("names `{shown}`, which cannot be used: {error}")),
        Ok(found) if !found.is_file() => Some(format!("names `{shown}`, which is no file")),
        Ok(found) if found.permissions().mode() & 0o111 == 0 => {
            Some(format!("names `{shown}`, which nobody may execute; `chmod +x` allows it"))
        }
        Ok(_) => None,
    }
}

fn not_started(name: &str, error: &io::Error) -> Failure {
    let for_ever = matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
    );
    let class = if for_ever { FailureClass::NotAllowed } else { FailureClass::ExitTemporary };
    Failure::new(class, format!("program `{name}` could not be started: {error}"))
}

#[cfg(test)]
mod tests;
