use std::collections::BTreeSet;
use std::time::Instant;

use super::*;
use crate::operated::{Identity, Obstacle, Replay, ReplayRequest};
use crate::problem::{Problem, ReceiptProblem, ReplayProblem};
use crate::receipts::RECEIPT_REQUESTS_MAX;
use crate::replay::{BODY_BYTES_MAX, REPLAYS_AT_ONCE_MAX};

struct Subject(Vec<Obstacle>);

impl Operated for Subject {
    fn identity(&self) -> Identity {
        Identity { worker: "w".to_owned(), version: "1.2.3", since: Instant::now() }
    }

    async fn obstacles(&self) -> Vec<Obstacle> {
        self.0.clone()
    }

    fn switched_off(&self) -> Vec<&'static str> {
        vec!["orchestration"]
    }

    async fn metrics(&self) -> Result<String, String> {
        std::future::pending().await
    }

    async fn receipts(
        &self,
        partition: &str,
        records: BTreeSet<u64>,
    ) -> Result<Vec<String>, Problem> {
        match partition {
            "slow" => std::future::pending().await,
            "0" => Ok(records.iter().map(|record| format!("{{\"index\":{record}}}")).collect()),
            other => {
                let detail = format!("there is no partition `{other}`");
                Err(Problem::receipts(ReceiptProblem::NotFound, detail))
            }
        }
    }

    fn verify_replay(&self, request: &ReplayRequest) -> Result<(), Problem> {
        match &*request.body {
            b"forged" => {
                let detail = "no secret fits".to_owned();
                Err(Problem::replay(ReplayProblem::NotSigned, detail))
            }
            _ => Ok(()),
        }
    }

    async fn replay(&self, request: ReplayRequest) -> Result<Vec<Replay>, Problem> {
        if &*request.body == b"slow" {
            std::future::pending::<()>().await;
        }
        if request.body.is_empty() {
            let detail = "no broker".to_owned();
            return Err(Problem::replay(ReplayProblem::Unavailable, detail));
        }
        Ok(request.headers.into_iter().filter(|(name, _)| name == "webhook-id").fold(
            Vec::new(),
            |mut replays, (_, id)| {
                let tenant = String::from_utf8_lossy(&request.body).into_owned();
                replays.push(Replay { event: id, tenant, replay: "r".to_owned(), sequence: 7 });
                replays
            },
        ))
    }
}

/// Longest that a test waits for something that must happen, and that nothing here takes.
const AMPLE: Duration = Duration::from_secs(60);

/// A server that hurries nobody.
async fn start(obstacles: Vec<Obstacle>) -> SocketAddr {
    start_with(obstacles, TimeLimits { head: AMPLE, answer: AMPLE, connection: AMPLE }).await
}

async fn start_with(obstacles: Vec<Obstacle>, limits: TimeLimits) -> SocketAddr {
    let server = Server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let server = server.with_limits(limits);
    let address = server.address();
    tokio::spawn(server.run(Arc::new(Subject(obstacles))));
    address
}

async fn talk(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    talk(address, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await
}

#[tokio::test]
async fn receipts_are_lines_and_a_question_that_has_none_is_a_problem() {
    let address = start(Vec::new()).await;

    let receipts = get(address, "/audit/0/receipts?record=3&record=1").await;
    let unknown = get(address, "/audit/9/receipts?record=3").await;
    let unnamed = get(address, "/audit/0/receipts").await;
    let unreadable = get(address, "/audit/%ff/receipts?record=1").await;

    assert!(receipts.starts_with("HTTP/1.1 200 "), "{receipts}");
    assert!(receipts.contains("content-type: application/x-ndjson\r\n"), "{receipts}");
    assert!(receipts.ends_with("\r\n\r\n{\"index\":1}\n{\"index\":3}\n"), "{receipts}");
    assert!(unknown.starts_with("HTTP/1.1 404 "), "{unknown}");
    assert!(unknown.contains("there is no partition `9`"), "{unknown}");
    for malformed in [unnamed, unreadable] {
        assert!(malformed.starts_with("HTTP/1.1 400 "), "{malformed}");
        assert!(malformed.contains("application/problem+json"), "{malformed}");
    }
}

#[tokio::test]
async fn more_who_ask_for_receipts_than_there_is_room_for_are_told_to_come_again() {
    let address = start(Vec::new()).await;
    let request = b"GET /audit/slow/receipts?record=0 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut waiting = Vec::new();
    for _ in 0..RECEIPT_REQUESTS_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        waiting.push(stream);
    }

    // Those before may not have been read yet.
    let busy = loop {
        let answer = get(address, "/audit/0/receipts?record=0").await;
        if !answer.starts_with("HTTP/1.1 200 ") {
            break answer;
        }
    };

    assert!(busy.starts_with("HTTP/1.1 429 "), "{busy}");
    assert!(busy.contains("retry-after: 2\r\n"), "{busy}");
    drop(waiting);
}

#[tokio::test]
async fn a_process_that_lives_and_is_ready_says_so() {
    let address = start(Vec::new()).await;

    let health = get(address, "/health").await;
    let ready = get(address, "/ready").await;

    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
    let identity = r#"{"status":"ok","worker":"w","version":"1.2.3","uptime_seconds":"#;
    let uptime = health.rsplit_once(identity).and_then(|(_, rest)| rest.strip_suffix('}'));
    assert!(uptime.is_some_and(|seconds| seconds.parse::<u64>().is_ok()), "{health}");
    assert!(ready.starts_with("HTTP/1.1 200 "), "{ready}");
    let body = r#"{"status":"ready","worker":"w","switched_off":["orchestration"]}"#;
    assert!(ready.ends_with(body), "{ready}");
}

#[tokio::test]
async fn what_keeps_a_process_from_being_ready_is_named_one_by_one() {
    let obstacle = |code, detail: &str| Obstacle { code, detail: detail.to_owned() };
    let address = start(vec![obstacle("a", "first"), obstacle("b", "second")]).await;

    let ready = get(address, "/ready").await;

    assert!(ready.starts_with("HTTP/1.1 503 "), "{ready}");
    assert!(ready.contains("content-type: application/problem+json"), "{ready}");
    let body = ready.split_once("\r\n\r\n").unwrap().1;
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        problem,
        serde_json::json!({
            "type": "urn:fermata:problem:not-ready",
            "title": "not ready",
            "status": 503,
            "detail": "first; second",
            "reasons": [{"code": "a", "detail": "first"}, {"code": "b", "detail": "second"}],
        })
    );
}

#[tokio::test]
async fn other_paths_and_methods_are_problems_too() {
    let address = start(Vec::new()).await;

    let elsewhere = get(address, "/other").await;
    let post = talk(address, b"POST /ready HTTP/1.1\r\nHost: a\r\n\r\n").await;

    assert!(elsewhere.starts_with("HTTP/1.1 404 "), "{elsewhere}");
    assert!(elsewhere.contains("urn:fermata:problem:not-found"), "{elsewhere}");
    assert!(post.starts_with("HTTP/1.1 405 "), "{post}");
    assert!(post.contains("allow: GET,HEAD"), "{post}");
}

async fn post(address: SocketAddr, headers: &str, body: &str) -> String {
    let length = body.len();
    let request = format!(
        "POST /internal/agent/events HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\
         {headers}\r\n{body}"
    );
    talk(address, request.as_bytes()).await
}

#[tokio::test]
async fn a_request_to_replay_is_handed_on_as_it_came_or_refused_as_a_problem() {
    let address = start(Vec::new()).await;

    let taken = post(address, "webhook-id: one\r\n", "body").await;
    let unavailable = post(address, "", "").await;
    let asked = get(address, "/internal/agent/events").await;
    let binary = post(address, "CE-Id: 1\r\n", "body").await;
    let text = post(address, "Content-Type: text/plain\r\n", "body").await;
    let declared = format!(
        "POST /internal/agent/events HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        BODY_BYTES_MAX + 1
    );
    let declared = talk(address, declared.as_bytes()).await;
    let chunk = "a".repeat(BODY_BYTES_MAX + 1);
    let chunked = format!(
        "POST /internal/agent/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         {:x}\r\n{chunk}\r\n0\r\n\r\n",
        chunk.len()
    );
    let chunked = talk(address, chunked.as_bytes()).await;

    assert!(taken.starts_with("HTTP/1.1 202 "), "{taken}");
    assert!(
        taken
            .ends_with(r#"{"events":[{"event":"one","tenant":"body","replay":"r","sequence":7}]}"#),
        "{taken}"
    );
    assert!(unavailable.starts_with("HTTP/1.1 503 "), "{unavailable}");
    assert!(unavailable.contains("retry-after: 2\r\n"), "{unavailable}");
    assert!(asked.starts_with("HTTP/1.1 405 ") && asked.contains("allow: POST"), "{asked}");
    for answer in [&binary, &text] {
        assert!(answer.starts_with("HTTP/1.1 415 "), "{answer}");
    }
    for answer in [&declared, &chunked] {
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    for answer in [&unavailable, &binary, &declared] {
        assert!(answer.contains("content-type: application/problem+json"), "{answer}");
    }
}

#[tokio::test]
async fn no_more_than_so_many_requests_to_replay_are_under_way() {
    let address = start(Vec::new()).await;
    let slow = b"POST /internal/agent/events HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nslow";
    let mut held = Vec::new();
    for _ in 0..REPLAYS_AT_ONCE_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(slow).await.unwrap();
        held.push(stream);
    }

    // The slow ones have their places when the first answer says so.
    let busy = async {
        loop {
            let answer = post(address, "", "body").await;
            if answer.starts_with("HTTP/1.1 429 ") {
                return answer;
            }
        }
    };
    let busy = tokio::time::timeout(AMPLE, busy).await.unwrap();
    let forged = post(address, "", "forged").await;
    drop(held);

    assert!(busy.contains("retry-after: 2\r\n"), "{busy}");
    assert!(forged.starts_with("HTTP/1.1 401 "), "{forged}");
}

#[tokio::test]
async fn whoever_sends_no_signed_request_takes_no_place_of_others() {
    let address = start(Vec::new()).await;
    let begun = b"POST /internal/agent/events HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..2 * REPLAYS_AT_ONCE_MAX {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(begun).await.unwrap();
        held.push(stream);
    }

    for _ in 0..50 {
        let answer = post(address, "", "body").await;
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    }
    drop(held);
}

#[tokio::test]
async fn too_large_a_head_is_refused() {
    let address = start(Vec::new()).await;

    let large = format!("GET /health HTTP/1.1\r\nA: {}\r\n\r\n", "a".repeat(HEAD_BYTES_MAX));
    let refused = talk(address, large.as_bytes()).await;

    assert!(!refused.starts_with("HTTP/1.1 200 "), "{refused}");
}

#[tokio::test]
async fn whoever_sends_nothing_is_let_go_and_whoever_asks_for_too_much_is_told() {
    let short = Duration::from_millis(50);
    let limits = TimeLimits { head: short, answer: short, ..TimeLimits::default() };
    let address = start_with(Vec::new(), limits).await;

    let silent = talk(address, b"GET /health").await;
    let slow = get(address, "/metrics").await;

    assert!(!silent.contains("200"), "{silent}");
    assert!(slow.starts_with("HTTP/1.1 504 "), "{slow}");
    assert!(slow.contains("`/metrics` took longer than 50ms"), "{slow}");
}

#[tokio::test]
async fn a_connection_lasts_no_longer_than_allowed() {
    let connection = Duration::from_millis(50);
    let limits = TimeLimits { connection, ..TimeLimits::default() };
    let address = start_with(Vec::new(), limits).await;

    let closed = tokio::time::timeout(AMPLE, get(address, "/metrics")).await;

    assert_eq!(closed.as_deref(), Ok(""));
}

#[tokio::test]
async fn no_more_than_so_many_connections_are_served_at_once() {
    let address = start(Vec::new()).await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(address).await.unwrap());
    }

    let waits = tokio::time::timeout(Duration::from_millis(300), get(address, "/health")).await;
    drop(silent);
    let served = get(address, "/health").await;

    assert!(waits.is_err());
    assert!(served.starts_with("HTTP/1.1 200 "), "{served}");
}
