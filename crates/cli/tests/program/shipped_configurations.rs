//! The configurations of nats-server that are shipped in `nats/`, and the chapter on clusters that is
//! followed with three of them: files and commands as written, but for addresses and folders.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::book::ROOT;
use crate::engine::event;
use crate::process::{Running, get};
use crate::support::{Ended, SOON, free_port, program, run};

const WORKFLOW: &str = "
workflow:
  name: shipped
  version: '1'
  tasks:
    - { id: only, noop: {} }
";
const STRATEGIES: &str = "
strategies:
  - { name: s, version: 1, tenant: '*', on: shipped.start, workflow: { name: shipped, version: '1' } }
";

/// Events of each half of a test.
const EVENTS: usize = 20;

/// How a command ends that got no answer in time, as where nobody leads a stream.
const NOT_LED: i32 = 3;

/// Servers from shipped files, with ports and folders of their own; they end with the value.
struct Servers {
    folder: TempDir,
    running: Vec<Child>,
    /// What stands in files and pages, and what is there in its place.
    here: Vec<(String, String)>,
}

impl Servers {
    async fn start(files: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let numbers = files.len();
        let mut here = Vec::new();
        // Clients, routes and monitors, each counted up from server to server.
        for first in [4222, 6222, 8222] {
            for number in 0..numbers {
                here.push((format!(":{}\"", first + number), format!(":{}\"", free_port())));
            }
        }
        let store = |name: &str| format!("\"{}", folder.path().join(name).display());
        here.push(("\"./data".to_owned(), store("data")));
        here.push(("\"/var/lib/fermata".to_owned(), store("durable")));
        let mut servers = Self { folder, running: Vec::new(), here };
        for file in files {
            servers.spawn(file);
        }
        for number in 0..numbers {
            servers.until_well(number).await;
        }
        servers
    }

    fn spawn(&mut self, file: &str) {
        let shipped = std::fs::read_to_string(Path::new(ROOT).join("nats").join(file));
        let shipped = shipped.expect("a shipped file");
        let text = self
            .here
            .iter()
            .fold(shipped.clone(), |text, (there, here)| text.replace(there.as_str(), here));
        assert_ne!(text, shipped, "{file}");
        let path = self.path(file);
        std::fs::write(&path, text).expect("a file");
        let (binary, _) = fermata_jetstream::server::find_server_binary().expect("a nats-server");
        let mut server = Command::new(binary);
        server.arg("-c").arg(&path).arg("-l").arg(path.with_extension("log"));
        server.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        self.running.push(server.spawn().expect("a server"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The port that is there in the place of `written`.
    fn port(&self, written: usize) -> &str {
        let there = format!(":{written}\"");
        let (_, here) = self.here.iter().find(|(from, _)| *from == there).expect("a port");
        here.trim_matches([':', '"'])
    }

    fn url(&self, number: usize) -> String {
        format!("nats://127.0.0.1:{}", self.port(4222 + number))
    }

    fn monitor_url(&self, number: usize) -> String {
        format!("http://127.0.0.1:{}", self.port(8222 + number))
    }

    /// Waits until a server says that it is ready.
    async fn until_well(&self, number: usize) {
        let begun = Instant::now();
        let url = self.monitor_url(number);
        let address = url.trim_start_matches("http://");
        while tokio::net::TcpStream::connect(address).await.is_err()
            || get(&url, "/healthz").await.status != 200
        {
            assert!(begun.elapsed() < SOON, "server {number} is not ready");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    async fn run(&self, arguments: &[&str]) -> Ended {
        let urls = (0..self.running.len()).map(|number| self.url(number)).collect::<Vec<_>>();
        run(&[&["--nats-url", &urls.join(",")][..], arguments].concat()).await
    }

    async fn must(&self, arguments: &[&str]) -> Ended {
        let ended = self.run(arguments).await;
        assert_eq!(ended.code, 0, "{arguments:?}: {}{}", ended.stdout, ended.stderr);
        ended
    }

    /// Waits until each of `engines` works by them: whoever takes an event in decides by those that it has.
    async fn define(&self, engines: &[&Running]) {
        for (command, yaml) in [("workflow", WORKFLOW), ("strategy", STRATEGIES)] {
            let file = self.path(&format!("{command}.yaml"));
            std::fs::write(&file, yaml).expect("a file");
            let applied = self.must(&[command, "apply", &file.display().to_string()]).await;
            for engine in engines {
                engine.logs.until_applied(&applied.stdout).await;
            }
        }
    }

    /// Publishes so many events, numbered from `first`; again when servers took longer to elect who leads
    /// their stream than the command waits. Of an event that is stored twice nothing starts twice.
    async fn publish(&self, first: usize) {
        let events = (first..first + EVENTS).map(|id| event(id, "shipped.start"));
        let file = self.path("events.json");
        std::fs::write(&file, Value::from_iter(events).to_string()).expect("a file");
        let (begun, file) = (Instant::now(), file.display().to_string());
        let published = loop {
            let published = self.run(&["publish", &file]).await;
            if published.code != NOT_LED || begun.elapsed() > SOON {
                break published;
            }
        };
        assert_eq!(published.code, 0, "{}{}", published.stdout, published.stderr);
    }

    /// Waits until so many runs have succeeded. While servers elect who leads a journal, none are listed.
    async fn until_succeeded(&self, runs: usize) {
        let begun = Instant::now();
        loop {
            let listed = ["runs", "list", "--status", "succeeded", "--limit", "1000", "--json"];
            let listed = self.run(&listed).await;
            let found = listed.json().iter().filter(|line| line.get("id").is_some()).count();
            assert!(found <= runs, "{found} of {runs} runs");
            if listed.code == 0 && found == runs {
                return;
            }
            assert!(begun.elapsed() < SOON, "{found} of {runs} runs\n{}", listed.stderr);
        }
    }

    /// The check `name` of `fermata doctor`, asked of every server.
    async fn health(&self, name: &str) -> Vec<Value> {
        let urls = (0..self.running.len()).map(|number| self.monitor_url(number));
        let urls = urls.collect::<Vec<_>>().join(",");
        let examined = self.run(&["doctor", "--json", "--monitor-url", &urls]).await;
        let checks = examined.json();
        checks.into_iter().filter(|check| check["name"] == name).collect()
    }

    /// A command of the chapter: its addresses and folders are those here.
    fn typed(&self, line: &str) -> Command {
        let mut line = line.to_owned();
        for (number, host) in ["a", "b", "c"].into_iter().enumerate() {
            line = line.replace(&format!("nats://{host}:4222"), &self.url(number));
        }
        let folder = self.folder.path().display();
        line = line.replace("/etc/fermata", &format!("{folder}"));
        line = line.replace("/var/lib", &format!("{folder}"));
        let words = line.split_whitespace().collect::<Vec<_>>();
        let [name, arguments @ ..] = words.as_slice() else { panic!("no command: {line}") };
        assert_eq!(*name, "fermata");
        let mut command = program(arguments);
        command.arg("--json");
        // Without it the program keeps its files in the folder where it is called.
        command.current_dir(self.folder.path());
        command
    }
}

/// The commands of a chapter, in their order, each on one line.
fn commands(page: &str) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new(ROOT).join(page)).expect("a page");
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.map(|block| block.replace("\\\n", " ").trim().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chapter_on_clusters_leads_to_one_that_goes_on_without_one_of_its_servers() {
    let files = ["cluster-1.conf", "cluster-2.conf", "cluster-3.conf"];
    let mut servers = Servers::start(&files).await;
    std::fs::write(servers.path("config.json"), "{}").expect("a file");
    let commands = commands("docs/operations-cluster.md");
    let [up, worker] = commands.as_slice() else { panic!("other commands: {commands:?}") };

    let first = Running::of(servers.typed(up)).await;
    // The copy that the chapter wants.
    std::fs::copy(servers.path("fermata/audit.key"), servers.path("audit.key")).expect("a key");
    let mut second = servers.typed(worker);
    second.args(["--http", "127.0.0.1:0"]);
    let second = Running::of(second).await;
    second.until("/metrics", |answer| answer.body.contains(",state=\"owning\"} 1\n")).await;
    servers.define(&[&first, &second]).await;
    servers.publish(0).await;
    servers.until_succeeded(EVENTS).await;
    let healths = async |name| {
        let checks = servers.health(name).await;
        checks.iter().map(|check| check["health"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(healths("durability").await, ["ok"; 3]);
    assert_eq!(healths("streams").await, ["ok"]);

    servers.running[0].kill().await.expect("a process");
    servers.publish(EVENTS).await;
    servers.until_succeeded(2 * EVENTS).await;
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_works_with_each_shipped_configuration_of_one_server() {
    for (file, durability) in [("dev.conf", "warn"), ("durable.conf", "ok")] {
        let servers = Servers::start(&[file]).await;
        let mut up = program(&["up", "--json", "--partitions", "1", "--nats-url", &servers.url(0)]);
        let mut up = Running::of(up.arg("--data-dir").arg(servers.path("engine"))).await;
        servers.define(&[&up]).await;
        servers.publish(0).await;
        servers.until_succeeded(EVENTS).await;

        let found = servers.health("durability").await;
        assert_eq!(found.len(), 1, "{file}: {found:?}");
        assert_eq!(found[0]["health"], durability, "{file}: {}", found[0]);
        up.end().await;
    }
}

/// What a configuration of nats-server is told about, whatever stands between: the words of its
/// lines, without comments, as small letters.
fn told(text: &str) -> Vec<String> {
    let without_comment = |line: &str| {
        let end = [line.find('#'), line.find("//")].into_iter().flatten().min();
        line.get(..end.unwrap_or(line.len())).unwrap_or_default().to_lowercase()
    };
    // An address has two strokes too.
    let lines = text.lines().map(|line| without_comment(&line.replace("://", ":")));
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = |line: String| {
        let words = line.split(|letter| !is_part(letter)).map(str::to_owned);
        words.collect::<Vec<_>>()
    };
    lines.flat_map(words).collect()
}

/// Ways in that nobody here needs, and a file that could hold one.
const NOT_SHIPPED: [&str; 7] =
    ["websocket", "ws", "mqtt", "leafnodes", "leaf", "no_auth_user", "include"];

#[test]
fn no_shipped_configuration_opens_another_way_in() {
    let found = |text: &str| {
        let told = told(text);
        NOT_SHIPPED.into_iter().filter(|name| told.iter().any(|word| word == name)).count()
    };
    for opened in [
        "websocket { port: 8080 }",
        "jetstream: {}\nMQTT{port:1883}",
        "url: \"nats://a\"; leafnodes = {}",
        "\"no_auth_user\": guest",
        "include ./more.conf",
    ] {
        assert_eq!(found(opened), 1, "{opened}");
    }
    assert_eq!(found("# without websocket\nport: 4222 // nor mqtt"), 0);

    let mut files = 0;
    for file in std::fs::read_dir(Path::new(ROOT).join("nats")).expect("a folder") {
        let path = file.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            let text = std::fs::read_to_string(&path).expect("text");
            assert_eq!(found(&text), 0, "{}", path.display());
            files += 1;
        }
    }
    assert!(files >= 5, "{files} files");
}
