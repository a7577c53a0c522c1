//! `fermata up` in a folder of its own, and the other commands beside it.

use fermata_jetstream::{Broker, ConnectOptions};
use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::process::Running;
use crate::support::{Ended, program, run};

/// An event of the tenant `acme` without data.
pub fn event(id: impl ToString, kind: &str) -> serde_json::Value {
    json!({
        "specversion": "1.0", "id": id.to_string(), "source": "/test", "type": kind,
        "tenant": "acme", "data": {},
    })
}

/// A running engine with a broker of its own; both end with the value.
pub struct RunningEngine {
    pub folder: TempDir,
    pub up: Running,
}

impl RunningEngine {
    /// Starts it with `arguments` and environment `variables`, and waits until it is ready.
    pub async fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let up = up(&folder, arguments, variables).await;
        Self { folder, up }
    }

    /// Ends it in order, and starts it again in its folder with `arguments`.
    pub async fn restart(&mut self, arguments: &[&str]) {
        self.up.end().await;
        self.up = up(&self.folder, arguments, &[]).await;
    }

    /// Kills it, and starts it again in its folder with `arguments`.
    pub async fn kill_and_restart(&mut self, arguments: &[&str]) {
        self.up.signal(Signal::KILL);
        self.up.ended().await;
        self.up = up(&self.folder, arguments, &[]).await;
    }

    /// A file beside what the engine keeps.
    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Runs another command against it.
    pub async fn run(&self, arguments: &[&str]) -> Ended {
        let folder = self.folder.path().display().to_string();
        let mut all = vec!["--data-dir", folder.as_str()];
        all.extend(arguments);
        run(&all).await
    }

    /// Runs another command that must go well; what it printed.
    pub async fn do_it(&self, arguments: &[&str]) -> String {
        let ended = self.run(arguments).await;
        assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
        ended.stdout
    }

    /// Runs a command that changes definitions, and waits until the engine works by them.
    pub async fn set(&self, arguments: &[&str]) -> String {
        let printed = self.do_it(arguments).await;
        self.up.logs.until_applied(&printed).await;
        printed
    }

    /// Makes the document `yaml` active; `command` is `workflow` or `strategy`.
    pub async fn apply(&self, command: &str, yaml: &str) {
        let file = self.file(&format!("{command}.yaml"), yaml);
        self.set(&[command, "apply", &file]).await;
    }

    /// Publishes one event, or an array of them, given as JSON.
    pub async fn publish(&self, events: &str) {
        let file = self.file("event.json", events);
        self.do_it(&["publish", &file]).await;
    }

    /// A connection to its broker.
    pub async fn broker(&self) -> Broker {
        let url = self.up.said["nats_url"].as_str().expect("an address");
        Broker::connect(url, ConnectOptions::default()).await.expect("a connection")
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(mut self) {
        self.up.end().await;
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }
}

async fn up(folder: &TempDir, arguments: &[&str], variables: &[(&str, &str)]) -> Running {
    let mut command = program(&["up", "--json", "--durability", "process", "--data-dir"]);
    command.arg(folder.path()).args(arguments).envs(variables.iter().copied());
    let up = Running::of(command).await;
    assert_eq!(up.said["ready"], true, "{}", up.said);
    up
}

#[tokio::test]
async fn what_cannot_be_started_is_told_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("plugins.yaml"), "http:\n  plugins: {}\n").expect("a file");
    let (config, data) = (path("plugins.yaml"), path("data"));

    let idle = run(&["worker", "--nats-url", "nats://127.0.0.1:9"]).await;
    let misread = run(&["up", "--data-dir", &data, "--config", &config]).await;

    assert_eq!((idle.code, misread.code), (2, 2), "{}{}", idle.stderr, misread.stderr);
    for option in ["`--roles`", "`--queues`"] {
        assert!(idle.stderr.contains(option), "{}", idle.stderr);
    }
    for told in [&*config, "is JSON (not YAML), such as `{\"http\": "] {
        assert!(misread.stderr.contains(told), "{}", misread.stderr);
    }
}
