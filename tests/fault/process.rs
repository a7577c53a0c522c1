//! An engine as a child process that can be killed and paused.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use fermata_tests::snapshots::Snapshots;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::load::QUEUE;

/// How long one may take to end in order.
const LEAVE_LIMIT: Duration = Duration::from_secs(60);

/// A running child; it is killed with its value.
pub struct EngineProcess {
    child: Child,
}

/// What a worker's process finds that is not as usual.
#[derive(Default)]
pub struct Surroundings {
    /// Program and arguments that start it and become it, such as `ip netns exec <name>`.
    pub launcher: Vec<String>,
    /// Variables of its environment.
    pub variables: Vec<(&'static str, PathBuf)>,
}

impl EngineProcess {
    /// Starts a worker; what it logs is added to a file in `folder`.
    pub fn start(
        url: &str,
        worker: &str,
        folder: &Path,
        sink_url: &str,
        (partitions, snapshots): (u16, Snapshots),
        surroundings: &Surroundings,
    ) -> Self {
        let log = File::options().create(true).append(true).open(log_of(folder, worker));
        let engine = env!("CARGO_BIN_EXE_fault_engine").to_owned();
        let words = surroundings.launcher.iter().chain([&engine]).collect::<Vec<_>>();
        let child = Command::new(words[0])
            .args(&words[1..])
            .args([url, worker])
            .arg(folder)
            .args([sink_url, &partitions.to_string(), QUEUE, &snapshots.to_string()])
            .envs(surroundings.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log.expect("a log file"))
            .kill_on_drop(true)
            .spawn();
        Self { child: child.expect("an engine process") }
    }

    /// Kills it, as a crash would, and waits until it is gone.
    pub async fn kill(mut self) {
        assert!(self.is_running(), "the engine has ended by itself");
        self.child.kill().await.expect("a killed process");
    }

    /// Asks it to end, and waits until it has given back what it owned.
    pub async fn leave(self) {
        self.ask_to_leave();
        let ended = self.left().await;
        assert!(ended.success(), "the engine failed: {ended}");
    }

    /// Asks it to end, and waits for nothing.
    pub fn ask_to_leave(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits until one that was asked to end has given back what it owned; how it ended.
    pub async fn left(mut self) -> ExitStatus {
        let ended = tokio::time::timeout(LEAVE_LIMIT, self.child.wait()).await;
        ended.expect("the engine does not end").expect("an exit status")
    }

    /// Stops it where it stands.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("a running process")
    }

    fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        kill_process(pid.expect("a running process"), signal).expect("a signal");
    }
}

/// Where the worker's log lies.
pub fn log_of(folder: &Path, worker: &str) -> PathBuf {
    folder.join(format!("{worker}.log"))
}
