//! A program of ours that stays: `fermata worker` or `fermata up`, its endpoints and its end.

use std::borrow::BorrowMut;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use crate::logs::Logs;
use crate::support::{SOON, Stage, program};

/// How often something is looked at again.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running program; it is killed with its value.
pub struct Running {
    child: Child,
    pub logs: Logs,
    /// Held, because a program that cannot print ends.
    _printed: Lines<BufReader<ChildStdout>>,
    /// The first line that it printed.
    pub said: Value,
}

/// What an endpoint answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }

    /// The codes of the reasons that a process is not ready for.
    pub fn reasons(&self) -> Vec<String> {
        let reasons = self.json()["reasons"].as_array().cloned().unwrap_or_default();
        reasons.iter().map(|reason| reason["code"].as_str().expect("a code").to_owned()).collect()
    }
}

impl Running {
    /// Starts a worker at the broker of `stage`; it keeps its files in `folder` beside those of the broker.
    pub async fn worker(stage: &Stage, folder: &str, roles: &str, arguments: &[&str]) -> Self {
        let mut command = program(&["worker", "--json", "--roles", roles]);
        command.arg("--nats-url").arg(stage.server.url());
        command.arg("--data-dir").arg(stage.folder.path().join(folder));
        Self::of(command.args(arguments)).await
    }

    /// Starts it, and waits for the first line that it prints.
    pub async fn of(mut command: impl BorrowMut<Command>) -> Self {
        let mut child = command.borrow_mut().spawn().expect("the program starts");
        let logs = Logs::of(child.stderr.take().expect("a pipe"));
        let mut printed = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let line = tokio::time::timeout(SOON, printed.next_line()).await.expect("in time");
        let line = line.expect("text").unwrap_or_else(|| panic!("it ended\n{}", logs.all()));
        let said = serde_json::from_str(&line).expect(&line);
        Self { child, logs, _printed: printed, said }
    }

    /// Number of the process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Asks one of its endpoints.
    pub async fn get(&self, path: &str) -> Answer {
        let url = self.said["http_url"].as_str().expect("endpoints");
        get(url, path).await
    }

    /// Asks until the answer is `enough`.
    pub async fn until(&self, path: &str, enough: impl Fn(&Answer) -> bool) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = self.get(path).await;
            if enough(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < SOON, "last: {answer:?}\n{}", self.logs.all());
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        kill_process(pid.expect("a running process"), signal).expect("a signal");
    }

    /// Asks it to end, and waits until it has; all must have gone well.
    pub async fn end(&mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.ended().await, Some(0), "{}", self.logs.all());
    }

    /// Waits until it has ended and all that it logged is there; its exit code, nothing when a signal ended it.
    pub async fn ended(&mut self) -> Option<i32> {
        let ended = tokio::time::timeout(SOON, self.child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("not in time\n{}", self.logs.all()));
        self.logs.until_read().await;
        ended.expect("a status").code()
    }
}

/// Asks `url` for `path`.
pub async fn get(url: &str, path: &str) -> Answer {
    asked(url, &format!("GET {path}"), "", "").await
}

/// Posts `body` with `headers`, each with its line end.
pub async fn post(url: &str, path: &str, headers: &str, body: &str) -> Answer {
    asked(url, &format!("POST {path}"), headers, body).await
}

async fn asked(url: &str, what: &str, headers: &str, body: &str) -> Answer {
    let address = url.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let length = body.len();
    let request = format!(
        "{what} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\
         {headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(SOON, read).await.expect("in time").expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect(head);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
