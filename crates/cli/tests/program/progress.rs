//! A terminal shows how far a long work is, and nothing else does.

use std::process::Stdio;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::audit::write_log;
use crate::replay::{DRAFT, activate};
use crate::runs::{run_of, started};
use crate::support::{SOON, Stage, program};

/// Gives a program a terminal, and prints what it shows there.
const TERMINAL: &str = "
import os, pty, sys
sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))
";

/// The program on a terminal, not started.
fn on_terminal(command: &[&str], url: &str) -> Command {
    let typed = program(&[]);
    let mut terminal = Command::new("python3");
    terminal.args(["-c", TERMINAL]).arg(typed.as_std().get_program());
    terminal.args(command).args(["--nats-url", url]);
    terminal.env_remove("FERMATA_NATS_URL").env("TERM", "xterm").stdin(Stdio::null());
    terminal.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    terminal
}

/// What the program shows on a terminal.
async fn shown_on_terminal(command: &[&str], url: &str) -> String {
    let shown = tokio::time::timeout(SOON, on_terminal(command, url).output());
    let shown = shown.await.expect("in time");
    let shown = shown.expect("a python3 with a pseudo terminal");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success(), "{text}{}", String::from_utf8_lossy(&shown.stderr));
    text
}

/// A line with an event.
fn line(id: u64) -> String {
    format!("{{\"specversion\":\"1.0\",\"id\":\"{id}\",\"source\":\"/t\",\"type\":\"other\"}}\n")
}

/// Types so many events, each once those before it are counted on the terminal.
async fn type_events(events: u64, url: &str) {
    let publish = ["publish", "--tenant", "acme", "--max-in-flight", "1", "-"];
    let mut terminal = on_terminal(&publish, url).stdin(Stdio::piped()).spawn().expect("python3");
    let mut typed = terminal.stdin.take().expect("a pipe");
    let mut shown = terminal.stdout.take().expect("a pipe");
    let mut text = Vec::new();
    let typing = async {
        for id in 0..events {
            typed.write_all(line(id).as_bytes()).await.expect("typed");
            let counted = format!(" {} events stored", id + 1);
            while !String::from_utf8_lossy(&text).contains(&counted) {
                let read = shown.read_buf(&mut text).await.expect("a terminal");
                assert!(read > 0, "it ended");
            }
        }
        // Ctrl-D ends what is typed.
        typed.write_all(&[4]).await.expect("typed");
        shown.read_to_end(&mut text).await.expect("a terminal");
        terminal.wait().await.expect("a status")
    };
    let ended = tokio::time::timeout(SOON, typing).await;
    let text = String::from_utf8_lossy(&text);
    let ended = ended.unwrap_or_else(|_| panic!("not in time: {text:?}"));
    assert!(ended.success(), "{text}");
}

#[tokio::test]
async fn reading_a_journal_is_shown_on_a_terminal_and_only_there() {
    let stage = Stage::new().await;
    stage.journal(0, 0, &[started(run_of("one"))]).await;
    let (run, url) = (run_of("one").to_string(), stage.server.url());

    for (command, counted) in [
        (["runs", "show", run.as_str()].as_slice(), "records read"),
        (&["runs", "explain", run.as_str()], "records read"),
        (&["review", "list"], "records read"),
        (&["dead", "list"], "messages read"),
    ] {
        let text = shown_on_terminal(command, &url).await;
        assert!(text.contains(counted), "{command:?} shows no sign of life: {text:?}");

        let piped = stage.run(command).await;
        assert_eq!((piped.code, piped.stderr.as_str()), (0, ""), "{command:?}");
    }
}

#[tokio::test]
async fn an_upload_is_shown_in_the_units_in_which_sizes_are_told() {
    let stage = Stage::new().await;
    let file = stage.folder.path().join("scan.bin").display().to_string();
    std::fs::write(&file, vec![7; 3 << 20]).unwrap();

    let publish = ["publish", "--tenant", "acme", "--type", "scan.stored", "--data-file", &file];
    let text = shown_on_terminal(&publish, &stage.server.url()).await;

    assert!(text.contains("/3.00 MiB of data stored"), "{text:?}");
}

#[tokio::test]
async fn what_is_published_compared_and_verified_is_counted_on_a_terminal_and_only_there() {
    let stage = Stage::new().await;
    write_log(&stage, |_, _| {}).await;
    activate(&stage).await;
    let path = |name: &str| stage.folder.path().join(name).display().to_string();
    let (events, draft) = (path("events.ndjson"), path("draft.yaml"));
    std::fs::write(&events, (0..6).map(line).collect::<String>()).unwrap();
    std::fs::write(&draft, DRAFT).unwrap();
    let url = stage.server.url();

    type_events(6, &url).await;
    let piped = stage.run(&["publish", "--tenant", "acme", &events]).await;
    assert_eq!((piped.code, piped.stderr.as_str()), (0, ""));
    for (command, counted) in [
        (["events", "replay", "--against", &draft].as_slice(), "12/12 event messages"),
        (&["audit", "verify"], "4/4 messages read"),
    ] {
        let text = shown_on_terminal(command, &url).await;
        assert!(text.contains(counted), "{command:?} does not show {counted:?}: {text:?}");

        let piped = stage.run(command).await;
        assert_eq!((piped.code, piped.stderr.as_str()), (0, ""), "{command:?}");
    }
}
