//! A broker that cannot be reached, and one that cannot be started: told with why and what to do.

use std::net::TcpListener;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Stage, free_port, run};

/// The one check that fails.
fn broker_check(stdout: &str) -> Value {
    let checks = stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
    checks.into_iter().find(|check| check["name"] == "broker").expect(stdout)
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_in_a_sentence_with_what_to_do() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();

    let ended = run(&["up", "--data-dir", &data, "--port", &port, "--partitions", "1"]).await;

    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{}", ended.stderr);
    assert!(lines[0].starts_with(&format!("error: port {port} is held by another program")));
    let instead = format!("`--nats-url nats://127.0.0.1:{port}`");
    for part in ["another `fermata up`", "another port with `--port`", &instead] {
        assert!(lines[0].contains(part), "{part}: {}", ended.stderr);
    }
    assert!(lines[1].contains("its log is `") && lines[1].contains("nats-server.log`"));
}

#[tokio::test]
async fn an_address_for_http_that_is_taken_is_told_before_anything_is_started() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let port = holder.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();

    let up = run(&["up", "--data-dir", &data, "--http", &address]).await;
    // No broker is there: that is not come to.
    let broker = ["--nats-url", "nats://127.0.0.1:1", "--data-dir", &data];
    let worker = ["worker", "--roles", "matcher", "--http", &address];
    let worker = run(&[&worker[..], &broker].concat()).await;
    let elsewhere = run(&["up", "--data-dir", &data, "--http", "203.0.113.7:9464"]).await;

    for ended in [&up, &worker] {
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        let held = format!("`{address}` (`--http`): port {port} of 127.0.0.1 is held by another");
        for told in [&*held, "`--http 127.0.0.1:0` takes a port that is free"] {
            assert!(ended.stderr.contains(told), "{told}: {}", ended.stderr);
        }
    }
    let told = "this machine has no address 203.0.113.7";
    assert!(elsewhere.code == 2 && elsewhere.stderr.contains(told), "{}", elsewhere.stderr);
    assert!(!folder.path().join("data/nats").exists());
}

#[tokio::test]
async fn a_named_address_of_this_machine_where_nobody_listens_is_told_at_once_with_the_cause_once()
{
    let url = format!("nats://127.0.0.1:{}", free_port());
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    std::fs::write(folder.path().join("fermata.url"), format!("{url}\n")).unwrap();

    let named = run(&["runs", "list", "--nats-url", &url]).await;
    let of_programs = run(&["runs", "list", "--json", "--nats-url", &url]).await;
    // The engine of the folder may be starting its broker again.
    let of_folder = run(&["runs", "list", "--data-dir", &data]).await;

    assert_eq!((named.code, of_programs.code, of_folder.code), (3, 3, 3), "{}", named.stderr);
    assert!(named.stderr.contains(&format!("nobody listens at `{url}`")), "{}", named.stderr);
    let told: Value = serde_json::from_str(&of_programs.stderr).unwrap();
    assert_eq!(told["reasons"].as_array().map(Vec::len), Some(2), "{told}");
    for ended in [&named, &of_programs, &of_folder] {
        assert_eq!(ended.stderr.matches("Connection refused").count(), 1, "{}", ended.stderr);
    }
    assert!(of_folder.stderr.contains("within 3s"), "{}", of_folder.stderr);
}

#[tokio::test]
async fn a_broker_that_is_stopped_is_told_as_silent_and_no_second_engine_is_advised() {
    let stage = Stage::new().await;
    let pid = Pid::from_raw(i32::try_from(stage.server.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();

    let examined = stage.run(&["doctor", "--json"]).await;
    let listed = stage.run(&["runs", "list"]).await;
    kill_process(pid, Signal::CONT).unwrap();

    assert_eq!((examined.code, listed.code), (1, 3), "{}{}", examined.stdout, listed.stderr);
    let check = broker_check(&examined.stdout);
    assert_eq!(check["code"], "broker_silent", "{check}");
    assert!(check["found"].as_str().unwrap().contains("did not answer within"), "{check}");
    for told in [check["hint"].as_str().unwrap(), &listed.stderr] {
        assert!(told.contains("its process may be stopped"), "{told}");
        assert!(!told.contains("fermata up"), "{told}");
    }
    // No clock is judged of a broker that does not answer.
    assert!(!examined.stdout.contains("clock_skew"), "{}", examined.stdout);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told_with_what_the_name_service_said() {
    let examined =
        run(&["doctor", "--json", "--nats-url", "nats://no-such-host.invalid:4222"]).await;

    assert_eq!(examined.code, 1, "{}", examined.stderr);
    let check = broker_check(&examined.stdout);
    let found = check["found"].as_str().unwrap();
    assert!(found.contains("no-such-host.invalid:4222` was not resolved"), "{check}");
    assert!(found.contains("failed to lookup address information"), "{check}");
    assert!(
        check["hint"].as_str().unwrap().contains("correct the name in `--nats-url`"),
        "{check}"
    );
}
