//! `fermata strategy test`: the cases that stand beside strategies.

use fermata_core::event::{EventLimits, Subject, decode_message};
use fermata_core::strategy::{Decision, Explained, Standing, StrategyDefinition, StrategySet};
use fermata_definitions::{
    Expectation, Limits, StrategiesDocument, StrategyTest, read_strategies_document,
};
use serde_json::{Value, json};

use super::super::definitions::{CheckArguments, Checked, Holds, check_files};
use super::{across_files, explain};
use crate::error::{CliError, ExitCode};
use crate::output::{Output, Tone, counted};

/// A test with the file that it stands in.
type Placed = (String, StrategyTest);

/// What came of one test.
struct Outcome {
    /// What became of the event, in words.
    became: String,
    /// Why that is not what was expected; absent when it is.
    objection: Option<String>,
}

/// Runs every test of the files against all strategies of the files.
///
/// # Errors
///
/// When a file cannot be read, or no file holds a test.
pub fn run(arguments: &CheckArguments, output: &mut Output) -> Result<ExitCode, CliError> {
    let Checked { sound, problems, left_out, sources } =
        check_files(&arguments.files, Holds::Strategies, output, |text, name| {
            read_strategies_document(text, Some(name), &Limits::GENERATED)
                .map(|document| vec![(name.to_owned(), document)])
        })?;
    let mut definitions = Vec::new();
    let mut tests: Vec<Placed> = Vec::new();
    for (file, StrategiesDocument { strategies, tests: of_file }) in sound {
        definitions.extend(strategies);
        tests.extend(of_file.into_iter().map(|test| (file.clone(), test)));
    }
    let set = match StrategySet::compile(definitions.clone()) {
        Ok(set) if problems.is_empty() => set,
        outcome => {
            let mut checked = Checked { sound: definitions, problems, left_out, sources };
            if checked.problems.is_empty() {
                let found = outcome.err().unwrap_or_default();
                checked.add(found.iter().map(across_files).collect::<Vec<_>>());
            }
            return checked.report("strategy", "strategies", output);
        }
    };
    if tests.is_empty() {
        let text =
            "there are no tests in these files; write them under `tests`, beside `strategies`";
        return Err(CliError::Usage(text.to_owned()));
    }
    report(&tests, &definitions, &set, output)
}

fn report(
    tests: &[Placed],
    definitions: &[StrategyDefinition],
    set: &StrategySet,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let mut rows = Vec::new();
    let mut failed = 0_usize;
    for (file, test) in tests {
        let Outcome { became, objection } = judge(test, definitions, set);
        let expected = in_words(&test.expect);
        let passed = objection.is_none();
        failed += usize::from(!passed);
        if output.is_json() {
            output.json_line(&json!({
                "test": test.name, "file": file, "line": test.line, "passed": passed,
                "expected": expected, "became": became, "reason": objection,
            }))?;
            continue;
        }
        let result = if passed { (Tone::Good, "pass") } else { (Tone::Bad, "FAIL") };
        let told = objection.unwrap_or(became);
        rows.push(vec![output.tone(result.0, result.1), test.name.clone(), expected, told]);
    }
    let (passed, all) = (tests.len() - failed, tests.len());
    if output.is_json() {
        output.json_line(&json!({ "passed": passed, "failed": failed }))?;
    } else {
        output.table(&["", "TEST", "EXPECTED", "RESULT"], rows, "")?;
        output.line(&format!("{passed} of {} passed", counted(all, "test", "tests")))?;
    }
    Ok(if failed == 0 { ExitCode::Success } else { ExitCode::Findings })
}

fn judge(test: &StrategyTest, definitions: &[StrategyDefinition], set: &StrategySet) -> Outcome {
    let text = test.event.to_string();
    let kind = test.event.get("type").and_then(Value::as_str).unwrap_or_default();
    let subject = Subject { tenant: &test.tenant, kind };
    let decoded = decode_message(None, text.as_bytes(), subject, &EventLimits::default());
    let event = match decoded.into_iter().next() {
        Some(Ok(event)) => event,
        Some(Err(rejected)) => {
            let became = format!("rejected, {}: {}", rejected.reason.as_str(), rejected.detail);
            let objection = (test.expect != Expectation::Rejected).then(|| became.clone());
            return Outcome { became, objection };
        }
        None => return Outcome { became: "nothing".to_owned(), objection: Some(text) },
    };
    let explanation = set.explain(&event);
    let (became, mut objection) = compare(&test.expect, &explanation.decision);
    if let Some(objection) = &mut objection {
        for name in names(&test.expect) {
            let explained =
                explanation.candidates.iter().find(|candidate| candidate.strategy.name() == name);
            let takes = |one: &&Explained<'_>| {
                matches!(one.standing, Standing::Wins | Standing::RunsBeside)
            };
            let why = match explained {
                Some(explained) if takes(&explained) => continue,
                Some(explained) => explain::standing(explained, &explanation),
                None if definitions.iter().any(|definition| definition.name == name) => {
                    format!("is not for type `{kind}` of tenant `{}`", test.tenant)
                }
                None => "is in none of these files".to_owned(),
            };
            objection.push_str(&format!("; `{name}` {why}"));
        }
    }
    Outcome { became, objection }
}

/// What became of the event, and what speaks against it.
fn compare(expected: &Expectation, decision: &Decision<'_>) -> (String, Option<String>) {
    let (became, holds) = match decision {
        Decision::Start { chosen, .. } => {
            let mut started: Vec<_> = chosen.iter().map(|chosen| chosen.strategy.name()).collect();
            started.sort_unstable();
            let became = format!("start {}", started.join(", "));
            let Expectation::Start { strategies, variables } = expected else {
                return (became.clone(), Some(became));
            };
            let mut wanted: Vec<_> = strategies.iter().map(String::as_str).collect();
            wanted.sort_unstable();
            let found = chosen.first().map(|chosen| chosen.variables.parse());
            if let (true, Some(variables), Some(found)) = (started == wanted, variables, &found)
                && variables != found
            {
                let objection = format!("the variables are {found}, expected are {variables}");
                return (became, Some(objection));
            }
            (became, started == wanted)
        }
        Decision::Ignored { strategy, .. } => {
            let name = strategy.name();
            (format!("ignored {name}"), *expected == Expectation::Ignored(name.to_owned()))
        }
        Decision::Failed { strategy, detail } => {
            let name = strategy.name();
            let holds = *expected == Expectation::Failed(name.to_owned());
            (format!("failed {name}: {detail}"), holds)
        }
        Decision::Unmatched { .. } => ("unmatched".to_owned(), *expected == Expectation::Unmatched),
    };
    let objection = (!holds).then(|| became.clone());
    (became, objection)
}

fn names(expected: &Expectation) -> Vec<&str> {
    match expected {
        Expectation::Start { strategies, .. } => strategies.iter().map(String::as_str).collect(),
        Expectation::Ignored(name) | Expectation::Failed(name) => vec![name],
        Expectation::Unmatched | Expectation::Rejected => Vec::new(),
    }
}

fn in_words(expected: &Expectation) -> String {
    match expected {
        Expectation::Start { strategies, .. } => format!("start {}", strategies.join(", ")),
        Expectation::Ignored(name) => format!("ignored {name}"),
        Expectation::Failed(name) => format!("failed {name}"),
        Expectation::Unmatched => "unmatched".to_owned(),
        Expectation::Rejected => "rejected".to_owned(),
    }
}
