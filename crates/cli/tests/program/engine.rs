//! `fermata up` in a folder of its own, and the other commands beside it.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::logs::Logs;
use crate::support::{Ended, SOON, program, run};

/// A running engine with a broker of its own; both end with the value.
pub struct RunningEngine {
    pub folder: TempDir,
    child: Child,
    logs: Logs,
    /// Held, because a program that cannot print ends.
    _printed: Lines<BufReader<ChildStdout>>,
}

impl RunningEngine {
    /// Starts it with `arguments` and environment `variables`, and waits until it is ready.
    pub async fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = program(&["up", "--json", "--durability", "process", "--data-dir"]);
        command.arg(folder.path()).args(arguments).envs(variables.iter().copied());
        let mut child = command.spawn().expect("the program starts");
        let logs = Logs::of(child.stderr.take().expect("a pipe"));
        let mut printed = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let line = tokio::time::timeout(SOON, printed.next_line()).await.expect("ready in time");
        let line = line.expect("text").unwrap_or_else(|| panic!("not ready\n{}", logs.all()));
        let said = serde_json::from_str::<Value>(&line).expect(&line);
        assert_eq!(said["ready"], true, "{line}");
        Self { folder, child, logs, _printed: printed }
    }

    /// Runs another command against it.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let folder = self.folder.path().display().to_string();
        let mut all = vec!["--data-dir", folder.as_str()];
        all.extend(arguments);
        run(&all).await
    }

    /// Makes the document `yaml` active; `command` is `workflow` or `strategy`.
    pub async fn apply(&self, command: &str, yaml: &str) {
        let file = self.file(&format!("{command}.yaml"), yaml);
        let applied = self.run(&[command, "apply", &file]).await;
        assert_eq!(applied.code, 0, "{}{}", applied.stdout, applied.stderr);
        self.logs.until_applied(&applied.stdout).await;
    }

    /// Publishes one event, given as JSON.
    pub async fn publish(&self, event: &str) {
        let file = self.file("event.json", event);
        let published = self.run(&["publish", &file]).await;
        assert_eq!(published.code, 0, "{}{}", published.stdout, published.stderr);
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(mut self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        kill_process(pid.expect("a running process"), Signal::TERM).expect("a signal");
        let ended = tokio::time::timeout(SOON, self.child.wait()).await.expect("it ends in time");
        assert_eq!(ended.expect("a status").code(), Some(0), "{}", self.logs.all());
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}
