//! `fermata up` and its broker: one of its own, which it keeps, or another's.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use fermata_jetstream::server::find_server_binary;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, getpgid, kill_process, kill_process_group};
use tempfile::TempDir;
use tokio::process::Command;

use crate::engine::{RunningEngine, event};
use crate::process::{LOOK_INTERVAL, Running};
use crate::support::{SOON, Stage, free_port, program, run};

const WORKFLOW: &str = "
workflow:
  name: one
  version: '1'
  tasks:
    - { id: a, noop: {} }
";
const STRATEGIES: &str = "
strategies:
  - { name: start, version: 1, tenant: '*', on: one.start, workflow: { name: one, version: '1' } }
";

/// The broker of the engine in `folder`.
fn broker(folder: &Path) -> Pid {
    let pid = std::fs::read_to_string(folder.join("nats/nats-server.pid")).expect("a broker");
    Pid::from_raw(pid.trim().parse().expect("a number")).expect("a process")
}

/// Kills it, as one that takes too much memory is killed, and waits until it is gone; it may be already, for it
/// ends with its engine.
async fn kill_broker(folder: &Path) {
    let broker = broker(folder);
    let killed = kill_process(broker, Signal::KILL);
    assert!(matches!(killed, Ok(()) | Err(Errno::SRCH)), "{killed:?}");
    let begun = Instant::now();
    while runs(broker) {
        assert!(begun.elapsed() < SOON, "process {broker:?} does not end");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Whether a process has not ended; one that has may be there until it is waited for.
fn runs(process: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero()));
    // The state stands behind the name, which may hold anything.
    let state = stat.as_ref().ok().and_then(|stat| stat.rsplit_once(") "));
    state.is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

async fn until_succeeded(engine: &RunningEngine, runs: usize) {
    let begun = Instant::now();
    loop {
        let listed = engine.run(&["runs", "list", "--status", "succeeded", "--json"]).await;
        if listed.code == 0 && listed.stdout.lines().count() == runs {
            return;
        }
        assert!(
            begun.elapsed() < SOON,
            "{}{}{}",
            listed.stdout,
            listed.stderr,
            engine.up.logs.all()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_is_started_again_and_the_engine_goes_on() {
    let engine = RunningEngine::start(&["--http", "127.0.0.1:0", "--partitions", "1"], &[]).await;
    engine.apply("workflow", WORKFLOW).await;
    engine.apply("strategy", STRATEGIES).await;
    engine.publish(&event(1, "one.start").to_string()).await;

    kill_broker(engine.folder.path()).await;
    engine.up.logs.until("the broker is back").await;
    engine.up.until("/ready", |answer| answer.status == 200).await;
    engine.publish(&event(2, "one.start").to_string()).await;

    until_succeeded(&engine, 2).await;
    let monitored = engine.run(&["doctor", "--json"]).await;
    let durability = monitored.json().into_iter().find(|check| check["name"] == "durability");
    assert_eq!(durability.expect("a check")["code"], "durability_process", "it answers again");
    let verified = engine.run(&["audit", "verify"]).await;
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
    engine.stop().await;
}

/// `fermata up` in `folder`, by a program that is the server unless the file `broken` is there.
async fn up(folder: &TempDir) -> Running {
    let (server, _) = find_server_binary().expect("a server; `make tools` gets it");
    let script = folder.path().join("server");
    let broken = folder.path().join("broken");
    let text = format!(
        "#!/bin/sh\n[ -e '{}' ] && [ \"$1\" != --version ] && exit 1\nexec '{}' \"$@\"\n",
        broken.display(),
        server.display()
    );
    std::fs::write(&script, text).expect("a file");
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).expect("a program");
    let mut command = program(&["up", "--json", "--partitions", "1", "--data-dir"]);
    Running::of(command.arg(folder.path().join("data")).env("FERMATA_NATS_SERVER", script)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_does_not_stay_ends_the_engine_with_what_to_do_and_all_is_there_afterwards() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let url_file = folder.path().join("data/fermata.url");
    let mut first = up(&folder).await;
    let publish = ["publish", "--tenant", "acme", "--type", "a", "--data", "{}"];
    let published = run(&[&["--data-dir", &data], &publish[..]].concat()).await;
    assert_eq!(published.code, 0, "{}", published.stderr);
    assert!(url_file.exists());

    std::fs::write(folder.path().join("broken"), "").expect("a file");
    kill_broker(&folder.path().join("data")).await;
    let ended = first.ended().await;

    let logs = first.logs.all();
    assert_eq!(ended, Some(3), "{logs}");
    let told = logs.lines().find(|line| line.contains("in vain")).expect(&logs);
    let told = serde_json::from_str::<serde_json::Value>(told).expect(told);
    let error = told["error"].as_str().expect("a text");
    assert!(error.contains("was started again 3 times within 10 min in vain"), "{error}");
    assert!(error.contains("nats/nats-server.log` says why"), "{error}");
    assert!(
        told["reasons"][0].as_str().is_some_and(|why| why.contains("before it was ready")),
        "{told}"
    );
    assert!(!url_file.exists(), "nothing tells of a broker that is gone");

    std::fs::remove_file(folder.path().join("broken")).expect("a file");
    let mut second = up(&folder).await;
    let published = run(&[&["--data-dir", &data, "--json"], &publish[..]].concat()).await;
    assert_eq!(published.json()[0]["sequence"], 2, "{}", published.stderr);
    second.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_from_the_terminal_ends_the_engine_before_its_broker() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = program(&["up", "--json", "--partitions", "1", "--data-dir"]);
    // A terminal sends it to the whole group of what runs in the foreground.
    let mut up = Running::of(command.arg(folder.path()).process_group(0)).await;

    let group = Pid::from_raw(i32::try_from(up.id()).expect("a number")).expect("a process");
    let of_broker = getpgid(Some(broker(folder.path()))).expect("a group");
    assert_ne!(of_broker, group, "what ends the engine would end its broker before");
    kill_process_group(group, Signal::INT).expect("a signal");
    let ended = up.ended().await;

    let logs = up.logs.all();
    assert_eq!(ended, Some(0), "{logs}");
    let (_, behind) = logs.split_once("asked to end").expect(&logs);
    assert!(!behind.contains("WARN") && !behind.contains("ERROR"), "{logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_find_the_broker_that_up_was_given_by_its_folder_which_has_no_password() {
    let stage = Stage::bare().await;
    let folder = stage.folder.path().join("data").display().to_string();
    let with_password = stage.server.url().replacen("//", "//ada:hunter2@", 1);
    let mut command = program(&["up", "--json", "--data-dir", &folder, "--partitions", "1"]);
    let mut up = Running::of(command.args(["--nats-url", &with_password])).await;

    let url_file = stage.folder.path().join("data/fermata.url");
    let told = std::fs::read_to_string(&url_file).expect("a file");
    let listed = run(&["runs", "list", "--data-dir", &folder]).await;
    up.end().await;

    assert_eq!(told.trim(), stage.server.url());
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    assert!(!url_file.exists(), "nothing tells of an engine that is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_engine_on_the_port_of_one_that_was_killed_is_not_taken_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let port = free_port().to_string();
    let killed = ["up", "--json", "--data-dir", &at("killed"), "--port", &port];
    let mut killed = Running::of(program(&killed)).await;
    let url = killed.said["nats_url"].as_str().expect("an address").to_owned();
    killed.signal(Signal::KILL);
    killed.ended().await;
    kill_broker(&folder.path().join("killed")).await;
    let other = ["up", "--json", "--data-dir", &at("other"), "--port", &port];
    let mut other = Running::of(program(&other)).await;

    let publish = ["publish", "--tenant", "acme", "--type", "a", "--data", "{}"];
    let published = run(&[&["--data-dir", &at("killed")], &publish[..]].concat()).await;
    let examined = run(&["doctor", "--json", "--data-dir", &at("killed")]).await;
    let named = run(&[&["--json", "--nats-url", &url], &publish[..]].concat()).await;

    assert_eq!(published.code, 3, "{}{}", published.stdout, published.stderr);
    assert!(published.stderr.contains("does not run any more"), "{}", published.stderr);
    let broker = examined.json().into_iter().find(|check| check["name"] == "broker");
    assert_eq!(broker.expect("a check")["code"], "other_engine");
    assert_eq!(named.json()[0]["sequence"], 1, "nothing was stored before: {}", named.stderr);
    other.end().await;
    let mut again = Running::of(program(&["up", "--json", "--data-dir", &at("killed")])).await;
    let listed = run(&["runs", "list", "--data-dir", &at("killed")]).await;
    assert_eq!(listed.code, 0, "{}", listed.stderr);
    again.end().await;
}

/// With the same key, it would be let in if it were started now.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_broker_has_another_engine_now_ends_and_does_nothing_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let port = free_port().to_string();
    let up = ["up", "--json", "--partitions", "1", "--data-dir", &at("first"), "--port", &port];
    let mut first = Running::of(program(&up)).await;
    let url = first.said["nats_url"].as_str().expect("an address").to_owned();
    let roles = ["--roles", "listener,matcher,builder,coordinator", "--audit-key"];
    let data = at("worker");
    let worker = ["worker", "--json", "--nats-url", &url, "--data-dir", &data];
    let key = at("first/audit.key");
    let start_worker = || program(&[&worker[..], &roles, &[&key]].concat());
    let mut worker = Running::of(start_worker()).await;
    first.signal(Signal::KILL);
    first.ended().await;
    kill_broker(&folder.path().join("first")).await;

    let second = ["--partitions", "1", "--port", &port, "--audit-key", &key];
    let second = RunningEngine::start(&second, &[]).await;
    let ended = worker.ended().await;
    second.apply("workflow", WORKFLOW).await;
    second.apply("strategy", STRATEGIES).await;
    second.publish(&event("a", "one.start").to_string()).await;
    until_succeeded(&second, 1).await;

    let said = worker.logs.all();
    assert_eq!(ended, Some(3), "{said}");
    assert!(said.contains("has another engine now (`fermata-"), "{said}");

    let refused = start_worker().output().await.expect("it starts");
    let told = String::from_utf8(refused.stderr).expect("text");
    assert_eq!(refused.status.code(), Some(3), "{told}");
    assert!(told.contains("has another engine now"), "{told}");
    std::fs::remove_file(at("worker/engine")).expect("the file that it names");
    let mut again = Running::of(start_worker()).await;
    again.end().await;
}

async fn started_with(server: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command: Command = program(arguments);
    let output = command.env("FERMATA_NATS_SERVER", server).output().await.expect("it starts");
    let told = [output.stdout, output.stderr].concat();
    (output.status.code().expect("a code"), String::from_utf8(told).expect("text"))
}

#[tokio::test]
async fn a_server_that_the_environment_names_and_that_cannot_be_used_is_named_with_the_variable() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let text = folder.path().join("no-program");
    std::fs::write(&text, "").expect("a file");

    for (server, why) in
        [(folder.path().join("nowhere"), "No such file"), (text, "Permission denied")]
    {
        let named = format!("`FERMATA_NATS_SERVER` names `{}`", server.display());

        let (code, told) = started_with(&server, &["up", "--data-dir", &data]).await;
        assert_eq!(code, 2, "{told}");
        assert!(told.contains(&named) && told.contains(why), "{told}");
        let (_, told) = started_with(&server, &["doctor", "--data-dir", &data]).await;
        assert!(told.contains(&named) && told.contains(why), "{told}");
    }
}
