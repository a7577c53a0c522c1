//! Programs: what they are given, what they answer, and that they end with their run.

use std::path::Path;

use fermata_core::plan::FailureClass;
use fermata_core::record::Kind;
use fermata_executors::{ExecutorsConfig, Program};
use fermata_tests::journal::count;
use serde_json::json;
use uuid::Uuid;

use super::scene::{LIMIT, Scene, failure_of, output_of};

/// A program of the configuration that is this script.
fn allow(executors: &mut ExecutorsConfig, folder: &Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, executable).expect("permissions");
    executors.commands.kill_after_ms = 200;
    let inherit = vec!["PATH".to_owned()];
    let program = Program { path, inherit, ..Program::default() };
    executors.commands.programs.insert(name.to_owned(), program);
}

/// Whether a process is there and has not ended; nobody may have asked yet how it did.
fn is_running(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_its_arguments_and_input_and_its_answer_is_the_output() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "read input; echo \"{\\\"args\\\": \\\"$*\\\", \\\"input\\\": $input, \\\"key\\\": \\\"$FERMATA_IDEMPOTENCY_KEY\\\"}\"";
    let scene = Scene::with_executors(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: run, command: { name: report, args: \"['--n', string(input.n)]\", stdin: \"{'n': input.n}\" } }
",
        |executors| allow(executors, folder.path(), "report", script),
    )
    .await;

    scene.publish(7).await;
    let (records, run) = scene.until_kind(Kind::RunSucceeded).await;

    let key = format!("{run}/run/1");
    let expected = json!({ "args": "--n 7", "input": { "n": 7 }, "key": key });
    assert_eq!(output_of(&records, run, "run"), Some(expected));
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_asks_to_be_run_again_is_and_another_failure_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "test \"$FERMATA_ATTEMPT\" = 1 && exit 75; echo 'no such report' >&2; exit 4";
    let scene = Scene::with_executors(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: run, command: { name: report }, retry: { max_attempts: 5, initial: 10ms } }
",
        |executors| allow(executors, folder.path(), "report", script),
    )
    .await;

    scene.publish(1).await;
    let (records, run) = scene.until_kind(Kind::RunFailed).await;

    assert_eq!(count(&records, Kind::NodeRetrying), 1);
    let (class, detail) = failure_of(&records, run).expect("a failure");
    assert_eq!(class, FailureClass::ExitStatus);
    assert_eq!(detail, "program `report` ended with status 4: no such report");
    scene.engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_ends_its_program_and_what_that_has_started() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("pids");
    // The child does not listen when it is asked to end.
    let child = "trap '' TERM; while :; do sleep 1; done";
    let script =
        format!("sh -c \"{child}\" & echo $$ $! > {0}.new; mv {0}.new {0}; wait", file.display());
    let scene = Scene::with_executors(
        "
workflow:
  name: under-test
  version: '1'
  tasks:
    - { id: run, timeout: 1h, command: { name: report } }
",
        |executors| allow(executors, folder.path(), "report", &script),
    )
    .await;
    scene.publish(1).await;
    let (_, run) = scene.until_kind(Kind::NodeDispatched).await;
    let started = async {
        while !file.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, started).await.expect("in time");
    let pids = std::fs::read_to_string(&file).expect("two numbers");
    let pids: Vec<&str> = pids.split_whitespace().collect();
    assert_eq!((pids.len(), pids.iter().filter(|pid| is_running(pid)).count()), (2, 2));

    assert_eq!(scene.cancel(run, Uuid::from_bytes(rand::random())).await, "closing");
    scene.until_kind(Kind::RunCancelled).await;

    let ended = async {
        while pids.iter().any(|pid| is_running(pid)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, ended).await.expect("both end in time");
    scene.engine.shut_down().await;
}
