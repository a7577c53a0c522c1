//! The log lines of a running program, as they come.

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::ChildStderr;
use tokio::sync::watch;

use crate::support::SOON;

/// What the program has logged so far.
pub struct Logs(watch::Receiver<String>);

impl Logs {
    /// Reads what comes from here on.
    pub fn of(stderr: ChildStderr) -> Self {
        let (sender, receiver) = watch::channel(String::new());
        let mut lines = BufReader::new(stderr).lines();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                sender.send_modify(|all| {
                    all.push_str(&line);
                    all.push('\n');
                });
            }
        });
        Self(receiver)
    }

    /// Waits until `text` is among it.
    pub async fn until(&self, text: &str) {
        let mut logs = self.0.clone();
        let waited = logs.wait_for(|logs| logs.contains(text));
        let waited = tokio::time::timeout(SOON, waited).await.map(|logs| logs.is_ok());
        assert_eq!(waited, Ok(true), "`{text}` is not in\n{}", self.all());
    }

    /// Waits until the engine works by the definitions that an `apply` answered with in
    /// `printed`: what is published before may be decided by older ones.
    pub async fn until_applied(&self, printed: &str) {
        let Some((_, revision)) = printed.split_once("definitions are at revision ") else {
            return;
        };
        let revision = format!("definitions are active revision={}\n", revision.trim());
        self.until(&revision).await;
    }

    /// Waits until all is read that an ended program said.
    pub async fn until_read(&self) {
        let mut logs = self.0.clone();
        // It comes to its end when nobody can write any more.
        let read = tokio::time::timeout(SOON, logs.wait_for(|_| false)).await;
        assert_eq!(read.map(|more| more.is_ok()), Ok(false), "{}", self.all());
    }

    /// Everything so far.
    pub fn all(&self) -> String {
        self.0.borrow().clone()
    }
}
