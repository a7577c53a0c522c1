//! One process with all that it starts: a process group that ends as a whole.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// A process that leads a group of its own; dropped, the group ends.
#[derive(Debug)]
pub(super) struct Process {
    /// Taken out when it is left to a task that ends it.
    child: Option<Child>,
    group: Group,
    kill_after: Duration,
}

/// The group; dropped while it counts as running, it is killed.
#[derive(Debug)]
struct Group {
    id: Option<Pid>,
}

impl Group {
    /// A group that is gone has no one left to be told. Its number could only be
    /// another's if the system had used up all others meanwhile.
    fn signal(&self, signal: Signal) {
        if let Some(id) = self.id {
            let _ = kill_process_group(id, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

impl Process {
    /// Starts `command`, which must have been given a group of its own.
    pub(super) fn spawn(mut command: Command, kill_after: Duration) -> io::Result<Self> {
        let child = command.kill_on_drop(true).spawn()?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child: Some(child), group: Group { id }, kill_after })
    }

    /// Its pipes, once.
    pub(super) fn pipes(
        &mut self,
    ) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        let Some(child) = &mut self.child else { return (None, None, None) };
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    }

    /// Waits until it has ended.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.child {
            Some(child) => child.wait().await,
            None => Err(io::Error::other("it was left to be ended")),
        }
    }

    /// Kills what is left of its group.
    pub(super) fn kill_group(&self) {
        self.group.signal(Signal::KILL);
    }

    /// Ends it: SIGTERM, SIGKILL when that takes too long.
    pub(super) async fn end(mut self) {
        if let Some(child) = self.child.take() {
            let group = std::mem::replace(&mut self.group, Group { id: None });
            end(child, group, self.kill_after).await;
        }
    }
}

async fn end(mut child: Child, group: Group, kill_after: Duration) {
    group.signal(Signal::TERM);
    let _ = tokio::time::timeout(kill_after, child.wait()).await;
    group.signal(Signal::KILL);
    // A killed process ends; it must not stay behind as a zombie.
    let _ = child.wait().await;
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        let group = std::mem::replace(&mut self.group, Group { id: None });
        // Without a runtime, or in one that ends, the group's own end is to be killed.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(end(child, group, self.kill_after));
        }
    }
}
