//! Making definitions active, in one command or in several.

use std::time::Duration;

use fermata_core::command::{Command, DefineCommand};
use fermata_core::identity::PartitionId;
use fermata_core::partition::Definitions;
use serde::{Deserialize, Serialize};

use super::NewDefinitions;
use crate::arguments::GlobalArguments;
use crate::broker_session::{ANSWER_LIMIT, BrokerSession, asking_user, random_id};
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Tone};

/// Problems that are told of what is checked here, as the engine tells of one command.
const PROBLEMS_MAX: usize = 50;

/// How often what is active is read at most before it speaks against anything: what was applied a moment
/// ago is not projected yet. What is the same after a pause is what it is.
const READS_MAX: u32 = 4;

/// Pause before it is read again.
const AGAIN_AFTER: Duration = Duration::from_millis(700);

/// The engine's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Revision of the active definitions.
    pub revision: u64,
    /// Why nothing was applied, or nothing more; empty when all was.
    pub problems: Vec<String>,
    /// Where one command was not enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
    /// How much of what was asked for was so before; absent where the engine does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchanged: Option<usize>,
    /// How much of it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<usize>,
    /// What is active all the same, and probably not meant so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// How many commands it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// Those that were applied.
    pub applied: usize,
    /// All.
    pub of: usize,
}

/// Stores the plans, asks the control partition, and waits for its answer; what is too large for
/// one command is checked as a whole and part by part, and then asked for in several commands, one
/// after the other.
///
/// # Errors
///
/// When the broker or the engine does not answer.
///
/// # Cancel safety
///
/// When dropped, the definitions may become active.
pub async fn make_active(
    new: NewDefinitions,
    by: Option<String>,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<Answer, CliError> {
    let session = BrokerSession::open(global).await?;
    let store = session.definitions_store().await?;
    for (digest, bytes) in &new.plans {
        store.put_blob(digest, bytes).await?;
    }
    let NewDefinitions { strategies, workflows, contracts, contract_modes, retire, .. } = new;
    let by = by.unwrap_or_else(asking_user);
    let whole = DefineCommand {
        by,
        strategies,
        workflows,
        contracts,
        contract_modes,
        retire,
        ..DefineCommand::default()
    };
    let asked = whole.asked();
    let mut parts = whole.clone().parts();
    let mut answer = match parts.pop() {
        Some(only) if parts.is_empty() => ask(&session, only).await,
        last => {
            parts.extend(last);
            apply_parts(&session, whole, parts, output).await
        }
    }?;
    answer.changed = answer.unchanged.map(|unchanged| asked.saturating_sub(unchanged));
    Ok(answer)
}

async fn apply_parts(
    session: &BrokerSession,
    whole: DefineCommand,
    parts: Vec<DefineCommand>,
    output: &mut Output,
) -> Result<Answer, CliError> {
    let of = parts.len();
    let (mut revision, problems) = check(session, &whole, &parts).await?;
    if !problems.is_empty() {
        let parts = Some(Parts { applied: 0, of });
        return Ok(Answer { revision, problems, parts, ..Answer::default() });
    }
    output.note(&format!(
        "this is more than one command may have: it is sent in {of}, and each is active once it \
         is applied"
    ));
    let bar = output.progress(u64::try_from(of).unwrap_or(u64::MAX), "commands applied");
    let mut unchanged = Some(0);
    for (applied, part) in parts.into_iter().enumerate() {
        let told = Parts { applied, of };
        match ask(session, part).await {
            Ok(answer) if answer.problems.is_empty() => {
                revision = answer.revision;
                unchanged = unchanged.zip(answer.unchanged).map(|(before, here)| before + here);
            }
            Ok(answer) => return Ok(Answer { parts: Some(told), ..answer }),
            Err(error) => {
                output.note(&format!(
                    "{applied} of {of} commands were applied and stay active; do the same again"
                ));
                return Err(error);
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let parts = Some(Parts { applied: of, of });
    Ok(Answer { revision, parts, unchanged, ..Answer::default() })
}

/// What is active once it is at `revision`, or after a while: what was applied a moment ago is not projected yet.
///
/// # Errors
///
/// When it cannot be read.
///
/// # Cancel safety
///
/// Can be dropped.
pub async fn active_at(session: &BrokerSession, revision: u64) -> Result<Definitions, CliError> {
    let mut active = session.active_definitions().await?;
    for _ in 1..READS_MAX {
        if active.revision >= revision {
            break;
        }
        tokio::time::sleep(AGAIN_AFTER).await;
        active = session.active_definitions().await?;
    }
    Ok(active)
}

/// What speaks against what is to be sent in parts, with the revision that was looked at.
async fn check(
    session: &BrokerSession,
    whole: &DefineCommand,
    parts: &[DefineCommand],
) -> Result<(u64, Vec<String>), CliError> {
    let (mut reads, mut before) = (1, None);
    loop {
        let active = session.active_definitions().await?;
        let is_settled = before == Some(active.revision) || reads >= READS_MAX;
        let mut problems = problems_of(&active, whole, parts);
        if !problems.is_empty() && !is_settled {
            tokio::time::sleep(AGAIN_AFTER).await;
            (reads, before) = (reads + 1, Some(active.revision));
            continue;
        }
        let beyond = problems.len().saturating_sub(PROBLEMS_MAX);
        problems.truncate(PROBLEMS_MAX);
        if beyond > 0 {
            problems.push(format!("and {beyond} more"));
        }
        return Ok((active.revision, problems));
    }
}

/// What speaks against all parts together or, where nothing does, against the first of them that
/// would be refused once those before it are active.
fn problems_of(
    active: &Definitions,
    whole: &DefineCommand,
    parts: &[DefineCommand],
) -> Vec<String> {
    let problems = active.problems_of_all(whole);
    if !problems.is_empty() {
        return problems;
    }
    let Some((at, problems)) = active.refused_part(parts) else { return Vec::new() };
    let (part, of) = (at + 1, parts.len());
    let advice = format!(
        "command {part} of {of} would be refused, though all {of} together are sound: what a later \
         one replaces counts until then. Apply what becomes smaller first, in a file of its own, or \
         retire what is not needed before"
    );
    let told = problems.iter().map(|problem| format!("command {part} of {of}: {problem}"));
    std::iter::once(advice).chain(told).collect()
}

async fn ask(session: &BrokerSession, command: DefineCommand) -> Result<Answer, CliError> {
    let define = |reply_to| {
        let (id, reply_to) = (random_id(), Some(reply_to));
        Command::Define(DefineCommand { id, reply_to, ..command })
    };
    let answer = session.ask_partition(PartitionId::CONTROL, ANSWER_LIMIT, define).await?;
    serde_json::from_value(answer)
        .map_err(|source| CliError::Json { what: "the engine's answer".to_owned(), source })
}

/// What the engine was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// To make something active.
    Apply,
    /// To take something out of use.
    Retire,
}

impl Asked {
    fn done(self) -> &'static str {
        match self {
            Self::Apply => "applied",
            Self::Retire => "retired",
        }
    }

    /// That so much was done to `what`, of which so much was done before: the word for it, and the rest.
    fn told(self, what: &str, answer: &Answer) -> (&'static str, String) {
        match (self, answer.unchanged.unwrap_or(0), answer.changed) {
            (_, 0, _) | (_, _, None) => (self.done(), what.to_owned()),
            (Self::Apply, _, Some(0)) => ("unchanged", format!("{what}, active as before")),
            (Self::Retire, _, Some(0)) => ("unchanged", format!("{what}, retired already")),
            (Self::Apply, before, _) => ("applied", format!("{what}, {before} of them unchanged")),
            (Self::Retire, before, _) => {
                ("retired", format!("{what}, {before} of them retired already"))
            }
        }
    }
}

/// Tells the engine's answer.
///
/// # Errors
///
/// When it cannot be written.
pub fn print_answer(
    asked: Asked,
    answer: &Answer,
    what: &str,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let done = asked.done();
    let code = if answer.problems.is_empty() { ExitCode::Success } else { ExitCode::Findings };
    if output.is_json() {
        output.json_line(answer)?;
    } else if answer.problems.is_empty() {
        let (word, what) = asked.told(what, answer);
        let title = output.tone(Tone::Good, word);
        let commands = match answer.parts {
            Some(parts) => format!(" in {} commands", parts.of),
            None => String::new(),
        };
        let revision = answer.revision;
        output
            .line(&format!("{title}: {what}{commands}; definitions are at revision {revision}"))?;
        answer.warnings.iter().for_each(|warning| output.note(warning));
    } else {
        for problem in &answer.problems {
            let title = output.tone(Tone::Bad, "refused");
            output.line(&format!("{title}: {problem}"))?;
        }
        let revision = answer.revision;
        output.line(&match answer.parts {
            Some(Parts { applied, of }) if applied > 0 => format!(
                "{applied} of {of} commands were {done} before that and stay active, at revision \
                 {revision}; do the same again once nothing speaks against it: what is active is \
                 left as it is"
            ),
            Some(_) | None => format!("nothing was {done}; revision {revision} stays active"),
        })?;
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use fermata_core::command::StrategyEntry;
    use fermata_core::json::Json;

    use super::*;

    fn entry(at: usize, data: &str) -> StrategyEntry {
        let name = format!("s{at}");
        let definition = serde_json::json!({
            "name": name, "version": 1, "tenant": "*", "on": "shop.placed", "priority": 10,
            "weight": 1, "fan_out": false,
            "match": { "data": { "shop": [format!("{at}-{data}")] } }, "action": "ignore",
        });
        StrategyEntry { name: name.into(), version: 1, definition: Json::from_value(&definition) }
    }

    #[test]
    fn a_part_that_would_be_refused_after_those_before_it_is_named_before_anything_is_sent() {
        let few = DefineCommand { strategies: vec![entry(0, "x")], ..DefineCommand::default() };
        let mut again = few.clone();
        again.strategies = vec![entry(0, "y")];
        let active = Definitions::default();

        // Parts of which the second changes what the first one made, which no whole would.
        let told = problems_of(&active, &few, &[few.clone(), again]);

        assert!(told.len() == 2 && told[0].starts_with("command 2 of 2 would be"), "{told:?}");
        assert!(told[0].contains("becomes smaller first"), "{told:?}");
        assert!(told[1].starts_with("command 2 of 2: strategy `s0` version 1 is"), "{told:?}");
        assert_eq!(problems_of(&active, &few, &[few.clone(), few.clone()]), Vec::<String>::new());
    }

    #[test]
    fn what_was_so_before_is_not_told_as_done() {
        let told = |asked: Asked, unchanged, changed| {
            let answer = Answer { revision: 3, unchanged, changed, ..Answer::default() };
            let (word, rest) = asked.told("3 strategies", &answer);
            format!("{word}: {rest}")
        };

        let all = told(Asked::Apply, Some(3), Some(0));
        assert_eq!(all, "unchanged: 3 strategies, active as before");
        let some = told(Asked::Apply, Some(1), Some(2));
        assert_eq!(some, "applied: 3 strategies, 1 of them unchanged");
        let all = told(Asked::Retire, Some(3), Some(0));
        assert_eq!(all, "unchanged: 3 strategies, retired already");
        let some = told(Asked::Retire, Some(2), Some(1));
        assert_eq!(some, "retired: 3 strategies, 2 of them retired already");
        // Of an older engine nobody knows.
        assert_eq!(told(Asked::Apply, None, None), "applied: 3 strategies");
        assert_eq!(told(Asked::Retire, Some(0), Some(3)), "retired: 3 strategies");
    }
}
