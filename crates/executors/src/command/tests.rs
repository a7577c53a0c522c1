use serde_json::json;

use super::*;
use crate::EffectKind;

const AMPLE: Duration = Duration::from_secs(30);

fn config(output: CommandOutput) -> CommandConfig {
    let environment = BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]);
    let program = Program {
        path: "/bin/sh".into(),
        environment,
        inherit: vec!["FERMATA_TEST_UNSET".to_owned()],
        output,
    };
    let programs = BTreeMap::from([("sh".to_owned(), program)]);
    CommandConfig {
        programs,
        kill_after_ms: 200,
        stdout_bytes_max: 4_096,
        ..CommandConfig::default()
    }
}

fn call(script: &str, timeout: Duration) -> (EffectRequest, CommandCall) {
    let args = vec!["-c".to_owned(), script.to_owned(), "sh".to_owned(), "a b; $X".to_owned()];
    let call = CommandCall { name: "sh".to_owned(), args, stdin: json!({ "n": 1 }) };
    let request = EffectRequest {
        tenant: "acme".into(),
        key: "run/node/1".to_owned(),
        attempt: 2,
        traceparent: None,
        timeout,
        callback: None,
        kind: EffectKind::Command(call.clone()),
    };
    (request, call)
}

async fn outcome_of(script: &str, output: CommandOutput, timeout: Duration) -> EffectOutcome {
    let executor = CommandExecutor::new(&config(output)).unwrap();
    let (request, call) = call(script, timeout);
    executor.execute(&request, &call).await
}

async fn class_of(script: &str, timeout: Duration) -> (FailureClass, String) {
    match outcome_of(script, CommandOutput::Json, timeout).await {
        EffectOutcome::Failed { class, detail } => (class, detail),
        EffectOutcome::Succeeded { output } => panic!("{output}"),
    }
}

#[tokio::test]
async fn a_program_reads_json_and_its_json_is_the_output() {
    let outcome = outcome_of("cat", CommandOutput::Json, AMPLE).await;
    assert_eq!(outcome, EffectOutcome::Succeeded { output: json!({ "n": 1 }) });

    let nothing = outcome_of("true", CommandOutput::Json, AMPLE).await;
    assert_eq!(nothing, EffectOutcome::Succeeded { output: Value::Null });
}

#[tokio::test]
async fn arguments_are_no_shell_text_and_the_environment_holds_what_is_configured() {
    let script =
        "echo \"$1|$GREETING|$HOME|$FERMATA_IDEMPOTENCY_KEY|$FERMATA_ATTEMPT\"; pwd; ls -A";

    let outcome = outcome_of(script, CommandOutput::Text, AMPLE).await;

    let EffectOutcome::Succeeded { output } = outcome else { panic!("{outcome:?}") };
    let lines = output.as_str().unwrap().lines().collect::<Vec<_>>();
    assert_eq!(lines[0], "a b; $X|hello||run/node/1|2");
    assert!(lines[1].contains("fermata-"), "{lines:?}");
    assert_eq!(lines.len(), 2, "an empty folder of its own: {lines:?}");
    assert!(!std::path::Path::new(lines[1]).exists(), "the folder goes with the attempt");
}

#[tokio::test]
async fn the_environment_holds_what_is_configured_and_inherited_and_nothing_else() {
    let program = Program {
        path: "/usr/bin/env".into(),
        environment: BTreeMap::from([("GREETING".to_owned(), "hello".to_owned())]),
        inherit: vec!["PATH".to_owned(), "FERMATA_TEST_UNSET".to_owned()],
        output: CommandOutput::Text,
    };
    let programs = BTreeMap::from([("env".to_owned(), program)]);
    let executor = CommandExecutor::new(&CommandConfig { programs, ..CommandConfig::default() });
    let (request, known) = call("", AMPLE);
    let env = CommandCall { name: "env".to_owned(), args: Vec::new(), ..known };

    let outcome = executor.unwrap().execute(&request, &env).await;

    let EffectOutcome::Succeeded { output } = outcome else { panic!("{outcome:?}") };
    let mut found = output.as_str().unwrap().lines().collect::<Vec<_>>();
    found.sort_unstable();
    let path = format!("PATH={}", std::env::var("PATH").unwrap());
    let expected =
        ["FERMATA_ATTEMPT=2", "FERMATA_IDEMPOTENCY_KEY=run/node/1", "GREETING=hello", &path];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn how_a_program_ends_gives_the_class_and_its_last_words_the_detail() {
    let (class, detail) = class_of("echo first >&2; echo 'no  luck' >&2; exit 3", AMPLE).await;
    assert_eq!(class, FailureClass::ExitStatus);
    assert_eq!(detail, "program `sh` ended with status 3: first no luck");

    assert_eq!(class_of("exit 75", AMPLE).await.0, FailureClass::ExitTemporary);
    assert_eq!(class_of("kill -9 $$", AMPLE).await.0, FailureClass::ExitStatus);
    assert_eq!(class_of("echo oops", AMPLE).await.0, FailureClass::ResponseNotJson);
    assert_eq!(class_of("yes", AMPLE).await.0, FailureClass::ResponseTooLarge);
    let (_, detail) = class_of("yes word | head -c 100000 >&2; exit 1", AMPLE).await;
    assert!(detail.len() < 512, "{}", detail.len());
}

#[tokio::test]
async fn only_programs_of_the_configuration_run() {
    let executor = CommandExecutor::new(&config(CommandOutput::Json)).unwrap();
    let (request, known) = call("true", AMPLE);
    let unknown = CommandCall { name: "/bin/sh".to_owned(), ..known };

    let outcome = executor.execute(&request, &unknown).await;

    assert!(matches!(outcome, EffectOutcome::Failed { class: FailureClass::NotAllowed, .. }));
    let relative = Program { path: "sh".into(), ..Program::default() };
    let programs = BTreeMap::from([("sh".to_owned(), relative)]);
    assert!(CommandExecutor::new(&CommandConfig { programs, ..CommandConfig::default() }).is_err());
}

/// Whether a process is there and has not ended.
fn runs(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// Waits until a file has a whole line, and gives it.
async fn line_of(file: &std::path::Path) -> String {
    loop {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        if text.ends_with('\n') {
            return text.trim().to_owned();
        }
        tokio::task::yield_now().await;
    }
}

async fn until_ended(pid: &str) {
    while runs(pid) {
        tokio::task::yield_now().await;
    }
}

/// The same, of the process whose id the file has or will have.
async fn until_process_in_ended(file: &std::path::Path) {
    let ended = async { until_ended(&line_of(file).await).await };
    tokio::time::timeout(AMPLE, ended).await.expect("in time");
}

#[tokio::test]
async fn a_program_that_takes_too_long_ends_with_its_whole_group_though_it_ignores_being_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    // A grandchild that holds the pipes and, as its parent does, ignores SIGTERM.
    let script = format!(
        "trap '' TERM; sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; wait",
        file.display()
    );

    // One that is ended before it has come as far as to ignore anything shows nothing.
    for limit in [300, 3_000, 30_000].map(Duration::from_millis) {
        let (class, _) = class_of(&script, limit).await;
        assert_eq!(class, FailureClass::Timeout);
        if file.exists() {
            break;
        }
    }

    until_process_in_ended(&file).await;
}

#[tokio::test]
async fn what_a_program_leaves_running_does_not_outlive_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! > {}; echo 1", file.display());

    let outcome = outcome_of(&script, CommandOutput::Json, AMPLE).await;

    assert_eq!(outcome, EffectOutcome::Succeeded { output: json!(1) });
    until_process_in_ended(&file).await;
}

#[tokio::test]
async fn a_dropped_attempt_ends_its_program_and_gives_the_turn_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000", file.display());
    let config = CommandConfig { processes_max: 1, ..config(CommandOutput::Json) };
    let executor = CommandExecutor::new(&config).unwrap();
    let (request, long) = call(&script, AMPLE);

    let pid = tokio::select! {
        outcome = executor.execute(&request, &long) => panic!("{outcome:?}"),
        pid = line_of(&file) => pid,
    };
    tokio::time::timeout(AMPLE, until_ended(&pid)).await.expect("in time");
    let (request, short) = call("true", AMPLE);
    let outcome = executor.execute(&request, &short).await;

    assert_eq!(outcome, EffectOutcome::Succeeded { output: Value::Null });
}

#[test]
fn a_runtime_that_ends_kills_what_still_runs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!(
        "trap '' TERM; echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 1; done",
        file.display()
    );
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (request, call) = call(&script, AMPLE);
    let executor = CommandExecutor::new(&CommandConfig {
        kill_after_ms: 3_600_000,
        ..config(CommandOutput::Json)
    });
    let executor = executor.unwrap();
    runtime.spawn(async move { executor.execute(&request, &call).await });
    let pid = runtime.block_on(line_of(&file));

    drop(runtime);

    while runs(&pid) {
        std::thread::yield_now();
    }
}

#[test]
fn a_program_without_an_absolute_path_is_refused_and_one_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    for (path, why) in [
        ("/no/such".into(), "names `/no/such`, which cannot be used: No such file"),
        (folder.path().to_owned(), "which is no file"),
        (plain, "which nobody may execute"),
    ] {
        let mut config = config(CommandOutput::Json);
        let problem = problem_of(&path).unwrap();
        config.programs.insert("report".to_owned(), Program { path, ..Program::default() });

        assert!(problem.contains(why), "{problem}");
        // Its disk may come later.
        assert!(CommandExecutor::new(&config).is_ok());
    }
    assert_eq!(problem_of(Path::new("/bin/sh")), None);
    let relative = Program { path: "sh".into(), ..Program::default() };
    let mut config = config(CommandOutput::Json);
    config.programs.insert("report".to_owned(), relative);
    let refused = CommandExecutor::new(&config).unwrap_err().to_string();
    assert!(refused.starts_with("`commands.programs.report` has no absolute `path`"), "{refused}");
}
