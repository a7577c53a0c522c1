//! Secrets that a running engine is given, and where they must not be: in no log, in no stream, in
//! no file of the engine, in nothing that commands and endpoints say, in nothing that is exported.

mod canary;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::{Broker, ConnectOptions};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::Notify;

use crate::engine::event;
use crate::process::{Running, get};
use crate::support::{Ended, SOON, free_port, program};

use canary::{Canary, files, found, where_in};

const PASSWORD: &str = "canary-Pa55word-of-the-broker";
const WRONG_PASSWORD: &str = "canary-Pa55word-that-is-wrong";
const HOOK: &str = "canary-token-in-the-path-of-a-hook";
const ENVIRONMENT: &str = "canary-in-the-environment-of-a-program";
const INHERITED: &str = "canary-inherited-by-a-program";
/// What is signed with; each stands in its place as `whsec_` and base64.
const LEDGER: &[u8] = b"canary: signs calls of runs 0123";
const LEDGER_OLD: &[u8] = b"canary: signed calls before 4567";
const PAGER: &[u8] = b"canary: signs escalations 890abc";
const REPLAY: &[u8] = b"canary: signs replays, defghijkl";
const SHORT: &[u8] = b"canary: too short";

/// No secret: what is looked for as they are, to know that it would be found.
const MARK: &str = "no-secret-at-all-1";

const WORKFLOW: &str = "
workflow:
  name: guarded
  version: '1'
  tasks:
    - { id: start, command: { name: report, args: \"['-c', 'test -n \\\"$GIVEN\\\" -a -n \\\"$INHERITED\\\" && echo 1']\" } }
    - { id: call, depends_on: [start], http: { plugin: ledger, path: /refuse, body: '{}' } }
";
/// A run of its own: where one call fails for good, another one of its run may not begin.
const RETRYING: &str = "
workflow:
  name: retrying
  version: '1'
  tasks:
    - id: again
      http: { plugin: ledger, path: /fail, body: '{}' }
      retry: { max_attempts: 2, initial: 10ms, on: [http_5xx] }
";
const ASKING: &str = "
workflow:
  name: asking
  version: '1'
  tasks:
    - { id: ask, nats: { subject: approvals.ask, completion: callback }, timeout: 1h }
";
const STRATEGIES: &str = "
strategies:
  - { name: s, version: 1, tenant: '*', on: guarded.start, workflow: { name: guarded, version: '1' } }
  - { name: r, version: 1, tenant: '*', on: guarded.again, workflow: { name: retrying, version: '1' } }
  - { name: a, version: 1, tenant: '*', on: guarded.ask, workflow: { name: asking, version: '1' } }
";

fn secret(bytes: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(bytes))
}

/// A broker that wants a password; it ends with the value.
struct Guarded {
    _server: Child,
    /// Its configuration holds the password, so it lies apart from its streams.
    _folder: TempDir,
    address: String,
}

impl Guarded {
    async fn start(store: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port();
        let (store, log) = (store.join("streams"), store.join("nats-server.log"));
        let config = format!(
            r#"
            listen: "127.0.0.1:{port}"
            debug: true
            log_file: "{}"
            jetstream {{ store_dir: "{}" }}
            authorization {{ users = [ {{ user: engine, password: "{PASSWORD}" }} ] }}"#,
            log.display(),
            store.display(),
        );
        let file = folder.path().join("server.conf");
        std::fs::write(&file, config).expect("a file");
        let (binary, _) = fermata_jetstream::server::find_server_binary().expect("a nats-server");
        let mut server = Command::new(binary);
        server.arg("-c").arg(&file).stderr(std::process::Stdio::null()).kill_on_drop(true);
        let server = server.spawn().expect("a server");
        Self { _server: server, _folder: folder, address: format!("127.0.0.1:{port}") }
    }

    fn url(&self, password: &str) -> String {
        format!("nats://engine:{password}@{}", self.address)
    }
}

/// What came to the plugin that is called, told and exported to.
#[derive(Clone, Default)]
struct Plugin {
    requests: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
    /// Told of each one.
    came: Arc<Notify>,
}

impl Plugin {
    /// Starts it on a free port, for as long as the test runs; its address.
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let plugin = self.clone();
        let router = Router::new().fallback(move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let plugin = plugin.clone();
            async move {
                let path = uri.path().to_owned();
                let status = match path.as_str() {
                    "/refuse" => StatusCode::UNPROCESSABLE_ENTITY,
                    "/v1/traces" | "/v1/metrics" => StatusCode::OK,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                plugin.all().push((path, headers, body));
                plugin.came.notify_one();
                status
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<(String, HeaderMap, Bytes)>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bodies that came to such paths, one behind the other.
    fn bodies(&self, is_such: impl Fn(&str) -> bool) -> Vec<u8> {
        let all = self.all();
        let such = all.iter().filter(|(path, ..)| is_such(path));
        such.flat_map(|(_, _, body)| body.to_vec()).collect()
    }

    /// Waits for a request to this path that is signed with so many secrets.
    async fn until_signed(&self, path: &str, secrets: usize) {
        let signed = async {
            while self.signed(path, secrets) == 0 {
                self.came.notified().await;
            }
        };
        let in_time = tokio::time::timeout(SOON, signed).await;
        in_time.unwrap_or_else(|_| panic!("{path} was not called with {secrets} signatures"));
    }

    /// How many requests came to this path that were signed with so many secrets.
    fn signed(&self, path: &str, secrets: usize) -> usize {
        let signatures = |headers: &HeaderMap| {
            let value = headers.get("webhook-signature").and_then(|value| value.to_str().ok());
            value.map_or(0, |value| value.split(' ').count())
        };
        let all = self.all();
        all.iter().filter(|(at, headers, _)| at == path && signatures(headers) == secrets).count()
    }
}

/// The engine's surroundings.
struct Stage {
    data: TempDir,
    /// Files that hold secrets.
    vault: TempDir,
    server: Guarded,
    plugin: Plugin,
    plugin_url: String,
}

impl Stage {
    async fn set() -> Self {
        let (data, vault) = (tempfile::tempdir(), tempfile::tempdir());
        let (data, vault) = (data.expect("a folder"), vault.expect("a folder"));
        let server = Guarded::start(data.path()).await;
        let plugin = Plugin::default();
        let plugin_url = plugin.start().await;
        let stage = Self { data, vault, server, plugin, plugin_url };
        // Bytes that stand nowhere else by chance.
        let mut seed = [0_u8; 32];
        for (byte, number) in seed.iter_mut().zip(11_u8..) {
            *byte = number.wrapping_mul(37);
        }
        let key = fermata_audit::Signer::from_seed("canary", seed).expect("a key");
        std::fs::write(stage.key_file(), key.to_private_text()).expect("a file");
        std::fs::write(stage.secret_file(), secret(LEDGER_OLD)).expect("a file");
        std::fs::write(stage.config_file(), stage.config().to_string()).expect("a file");
        stage
    }

    fn config(&self) -> serde_json::Value {
        json!({
            "http": { "plugins": {
                "ledger": { "url": self.plugin_url, "signing": { "secrets": [
                    { "env": "LEDGER_SECRET" }, { "file": self.secret_file() },
                ] } },
                "pager": { "url": self.plugin_url, "signing": { "secrets": [
                    { "env": "PAGER_SECRET" },
                ] } },
            } },
            "nats": { "subjects": ["approvals.ask"] },
            "commands": { "programs": { "report": {
                "path": "/bin/sh", "environment": { "GIVEN": ENVIRONMENT },
                "inherit": ["INHERITED"],
            } } },
            "webhooks": [
                { "plugin": "pager", "path": format!("/hooks/{HOOK}"), "give_up_after_ms": 500 },
            ],
        })
    }

    fn secret_file(&self) -> PathBuf {
        self.vault.path().join("ledger-old")
    }

    fn config_file(&self) -> PathBuf {
        self.vault.path().join("config.json")
    }

    fn key_file(&self) -> PathBuf {
        self.vault.path().join("audit.key")
    }

    /// The program with all secrets in its environment, and with everything logged.
    fn program(&self, arguments: &[&str], password: &str) -> Command {
        let mut command = program(arguments);
        command.env("FERMATA_NATS_URL", self.server.url(password)).env("FERMATA_LOG", "debug");
        command.arg("--data-dir").arg(self.data.path().join("engine"));
        command.env("FERMATA_REPLAY_SECRETS", secret(REPLAY)).env("INHERITED", INHERITED);
        command.env("LEDGER_SECRET", secret(LEDGER)).env("PAGER_SECRET", secret(PAGER));
        command
    }

    async fn up(&self) -> Running {
        let mut command = self.program(&["up", "--json", "--http", "127.0.0.1:0"], PASSWORD);
        command.arg("--config").arg(self.config_file()).arg("--audit-key").arg(self.key_file());
        command.args(["--partitions", "2"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &self.plugin_url);
        command.env("OTEL_METRIC_EXPORT_INTERVAL", "50").env("OTEL_BSP_SCHEDULE_DELAY", "50");
        Running::of(command).await
    }

    /// Runs another command to its end.
    async fn run(&self, arguments: &[&str]) -> Ended {
        ended(self.program(arguments, PASSWORD)).await
    }

    async fn must(&self, arguments: &[&str]) -> Ended {
        let ended = self.run(arguments).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        ended
    }

    async fn apply(&self, up: &Running, command: &str, yaml: &str) {
        let file = self.data.path().join(format!("{command}.yaml"));
        std::fs::write(&file, yaml).expect("a file");
        let applied = self.must(&[command, "apply", &file.display().to_string()]).await;
        up.logs.until_applied(&applied.stdout).await;
    }

    async fn publish(&self, events: &serde_json::Value) {
        let file = self.data.path().join("events.json");
        std::fs::write(&file, events.to_string()).expect("a file");
        self.must(&["publish", &file.display().to_string()]).await;
    }

    /// Every secret of the engine, and the token that it made.
    fn canaries(&self, token: &str) -> Vec<Canary> {
        let mut canaries = vec![
            Canary::of("password", PASSWORD.as_bytes()),
            Canary::of("wrong password", WRONG_PASSWORD.as_bytes()),
            Canary::of("path of a webhook", HOOK.as_bytes()),
            Canary::of("environment of a program", ENVIRONMENT.as_bytes()),
            Canary::of("what a program inherits", INHERITED.as_bytes()),
            Canary::of("callback token", token.as_bytes()),
        ];
        let signing = [
            ("ledger", LEDGER),
            ("ledger-old", LEDGER_OLD),
            ("pager", PAGER),
            ("replay", REPLAY),
            ("short", SHORT),
        ];
        canaries.extend(signing.map(|(name, bytes)| Canary::of(name, bytes)));
        let key = std::fs::read_to_string(self.key_file()).expect("a key");
        // `PRIVATE+KEY+name+hash+key`; the key itself, in base64, may have a plus as well.
        let key = key.trim().splitn(5, '+').nth(4).expect("a key");
        let seed = STANDARD.decode(key).expect("base64");
        // Its first byte tells the kind of key.
        canaries.push(Canary::of("audit key", &seed[1..]));
        canaries
    }
}

async fn ended(mut command: Command) -> Ended {
    let output = tokio::time::timeout(SOON, command.output()).await.expect("in time");
    let output = output.expect("the program starts");
    Ended {
        code: output.status.code().expect("the program was not killed"),
        stdout: String::from_utf8(output.stdout).expect("text"),
        stderr: String::from_utf8(output.stderr).expect("text"),
    }
}

/// Answers the questions of runs at `approvals.ask`, and hands on the first token.
async fn token(core: &CoreMessages) -> impl Future<Output = String> + use<> {
    let mut calls = core.subscribe("approvals.ask").await.expect("a subscription");
    let core = core.clone();
    async move {
        let call = tokio::time::timeout(SOON, calls.next()).await.expect("in time");
        let call = call.expect("a question");
        let headers = call.headers.expect("headers");
        let token = headers.get("fermata-callback-token").expect("a token").as_str().to_owned();
        let asker = call.reply.expect("somebody who waits");
        core.publish_core(asker, Bytes::from_static(b"")).await.expect("sent");
        token
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged_stored_exported_or_told() {
    let stage = Stage::set().await;
    // While the broker starts: a word too many about what is wrong would be said here.
    let mut told = Vec::new();
    let mut refused = stage.program(&["up", "--json"], PASSWORD);
    refused.arg("--config").arg(stage.config_file()).env("PAGER_SECRET", secret(SHORT));
    refused.arg("--audit-key").arg(stage.key_file()).args(["--partitions", "2"]);
    told.push(("a short secret".to_owned(), ended(refused).await));
    assert!(told[0].1.stderr.contains("PAGER_SECRET"), "{}", told[0].1.stderr);
    let mut up = stage.up().await;
    let wrong = ended(stage.program(&["doctor", "--json"], WRONG_PASSWORD)).await;
    assert_ne!(wrong.code, 0);
    told.push(("a wrong password".to_owned(), wrong));

    // Calls that fail, a program that fails, an escalation that nobody takes, dead letters, one of
    // them replayed, and a call that ends by callback.
    let connection = Broker::connect(&stage.server.url(PASSWORD), ConnectOptions::default()).await;
    // Kept: what is answered by it must still be sent.
    let connection = connection.expect("a connection");
    let asked = token(&CoreMessages::new(&connection)).await;
    stage.apply(&up, "workflow", WORKFLOW).await;
    stage.apply(&up, "workflow", RETRYING).await;
    stage.apply(&up, "workflow", ASKING).await;
    stage.apply(&up, "strategy", STRATEGIES).await;
    stage.publish(&event("ask-1", "guarded.ask")).await;
    let token = asked.await;
    let completed = stage.run(&["complete", &token, "--fail", "declined", "--json"]).await;
    assert!(completed.stdout.contains("completed"), "{}{}", completed.stdout, completed.stderr);
    stage.publish(&event("again-1", "guarded.again")).await;
    stage.publish(&event(MARK, "guarded.start")).await;
    let unusable = stage.data.path().join("unusable.json");
    std::fs::write(&unusable, "{\"specversion\": \"1.0\", \"id\": \"u-1\"}").expect("a file");
    let unusable = unusable.display().to_string();
    told.push((
        "publish".to_owned(),
        stage.run(&["publish", "--tenant", "acme", "--type", "guarded.odd", &unusable]).await,
    ));
    until_given_up(&stage).await;
    let shown = stage.must(&["dead", "list", "--json"]).await.json();
    let letter = shown[0]["id"].as_str().unwrap_or_else(|| panic!("{}", shown[0])).to_owned();

    // The secrets were used: that they are nowhere else means something only then.
    for (path, secrets) in [("/refuse", 2), ("/fail", 2), (&*format!("/hooks/{HOOK}"), 1)] {
        stage.plugin.until_signed(path, secrets).await;
    }

    let runs = stage.must(&["runs", "list", "--json"]).await.json();
    let run = runs
        .iter()
        .find(|run| run["workflow"].as_str().is_some_and(|name| name.contains("guarded")));
    let run = run.unwrap_or_else(|| panic!("{runs:?}"))["id"].as_str().expect("an id").to_owned();
    let shown = stage.must(&["runs", "show", &run, "--json"]).await;
    // By which it is known that the program had what it was given.
    let shown = &shown.json()[0];
    let start = shown["nodes"].as_array().into_iter().flatten().find(|node| node["id"] == "start");
    assert_eq!(start.map(|node| &node["status"]), Some(&"succeeded".into()), "{shown}");
    let cases = stage.must(&["review", "list", "--json"]).await.json();
    let case = cases[0]["case"].as_str().unwrap_or_else(|| panic!("{}", cases[0])).to_owned();
    for arguments in [
        &["dead", "replay", &letter, "--json"][..],
        &["dead", "list"],
        &["dead", "show", &letter, "--json"],
        &["runs", "list"],
        &["runs", "show", &run],
        &["runs", "show", &run, "--json"],
        &["runs", "explain", &run],
        &["runs", "explain", &run, "--json"],
        &["review", "show", &case, "--json"],
        &["workflow", "list", "--json"],
        &["strategy", "list", "--json"],
        &["flags", "list", "--json"],
        &["audit", "verify", "--json"],
        &["audit", "checkpoint"],
        &["doctor"],
        &["doctor", "--json", "--as-worker"],
    ] {
        told.push((arguments.join(" "), stage.run(arguments).await));
    }
    let url = up.said["http_url"].as_str().expect("endpoints").to_owned();
    let mut answers = vec![up.said.to_string()];
    for path in ["/health", "/ready", "/metrics"] {
        let answer = get(&url, path).await;
        answers.push(format!("{}\n{}", answer.head, answer.body));
    }
    up.end().await;

    let mut canaries = stage.canaries(&token);
    canaries.push(Canary::of("MARK", MARK.as_bytes()));
    canaries.push(Canary::of("MARK", run.as_bytes()));
    let mut places = vec![
        ("the log".to_owned(), up.logs.all().into_bytes()),
        ("the endpoints".to_owned(), answers.join("\n").into_bytes()),
    ];
    let outputs = told.into_iter().map(|(what, ended)| (what, ended.stdout + &ended.stderr));
    places.extend(outputs.map(|(what, said)| (what, said.into_bytes())));
    let exported = stage.plugin.bodies(|path| path.starts_with("/v1/"));
    assert!(!exported.is_empty(), "nothing was exported");
    places.push(("what was exported".to_owned(), exported));
    let sent = stage.plugin.bodies(|path| !path.starts_with("/v1/"));
    places.push(("what the plugin was sent".to_owned(), sent));
    for path in files(stage.data.path()) {
        match std::fs::read(&path) {
            Ok(bytes) => places.push((path.display().to_string(), bytes)),
            // The broker runs on, and may have put another one in its place.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    let mut marked = Vec::new();
    let mut wrong = Vec::new();
    for (place, bytes) in &places {
        for name in found(&canaries, bytes) {
            match name {
                "MARK" => marked.push(place.as_str()),
                _ => wrong.push(format!("{name} is in {place}")),
            }
        }
    }
    assert_eq!(wrong, [""; 0], "{}", where_in(&places, &canaries));
    // What is no secret is found where it must be: in streams, outputs and logs.
    for part in ["streams/", "runs show", "the log"] {
        assert!(marked.iter().any(|place| place.contains(part)), "{part}: {marked:?}");
    }
}

/// Waits until the webhook's message is given up.
async fn until_given_up(stage: &Stage) {
    let begun = Instant::now();
    loop {
        let listed = stage.must(&["dead", "list", "--json"]).await;
        if listed.stdout.contains("escalator") && listed.stdout.lines().count() > 1 {
            return;
        }
        assert!(begun.elapsed() < SOON, "{}", listed.stdout);
    }
}
