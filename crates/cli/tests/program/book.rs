//! README.md and the pages below `docs/` as their reader would follow them: every command is
//! typed as it stands there, and what is shown is what comes.
//!
//! A comment before a block says what it is for: `<!-- runs -->` once, `<!-- looks -->` again
//! until it shows what the block shows, `<!-- stays -->` until the end or until `<!-- killed -->`,
//! which is `kill -9` and the same command once more, `<!-- file: NAME -->`
//! is written, `<!-- shown by: COMMAND -->` is what that prints, and `<!-- not run: WHY -->`.
//! A long id that is shown stands for the one that was printed: it can be typed further below.

mod coverage;
mod page;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use self::page::{Ids, Typed, blocks, is_shown, typed};
use crate::logs::Logs;
use crate::support::{SOON, free_port};

pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The pages whose commands are typed, each by a test of its own: they run side by side.
const PAGES: [&str; 11] = [
    "README.md",
    "docs/clients.md",
    "docs/events.md",
    "docs/nodes.md",
    "docs/operations.md",
    "docs/quick-start.md",
    "docs/read-model.md",
    "docs/strategies.md",
    "docs/waiting.md",
    "docs/wire-format.md",
    "docs/workflows.md",
];

/// Pages whose every line is held against the program's arguments, elsewhere.
const PARSED: [&str; 1] = ["docs/cli.md"];

/// The ports in the text, of the plugin and of the engine's endpoints; the test takes free ones
/// in their place.
const PORTS: [&str; 2] = ["9000", "9464"];

/// Languages whose blocks a reader would type or save.
const TO_BE_MARKED: [&str; 6] = ["console", "python", "sh", "bash", "js", "go"];

/// A copy of what a reader has after `make build`, and a shell in it.
struct Clone {
    folder: TempDir,
    path: String,
    ports: [String; 2],
    /// What stands for the ids on the page that were shown so far.
    ids: Ids,
    staying: Vec<Staying>,
}

/// A command that stays until the end.
struct Staying {
    command: String,
    child: Child,
    logs: Logs,
    /// Held, because a program that cannot print ends.
    _printed: Lines<BufReader<ChildStdout>>,
}

impl Clone {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = PathBuf::from(ROOT);
        let ports = PORTS.map(|_| free_port().to_string());
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin).expect("a folder");
        link(Path::new(env!("CARGO_BIN_EXE_fermata")), &bin.join("fermata"));
        let tools = std::env::var_os("FERMATA_TOOLS_DIR");
        let tools = tools.map_or_else(|| root.join("target/tools"), PathBuf::from);
        let python = tools.join("venv/bin");
        assert!(
            python.join("python3").exists(),
            "`{}` is empty; run `make tools`",
            python.display()
        );
        let system = std::env::var("PATH").expect("a PATH");
        let path = format!("{}:{}:{system}", bin.display(), python.display());
        let clone = Self { folder, path, ports, ids: Ids::new(), staying: Vec::new() };
        for one in std::fs::read_dir(root.join("examples")).expect("examples") {
            let one = one.expect("an example").path();
            let name = one.file_name().and_then(|name| name.to_str()).expect("a name");
            let text = std::fs::read_to_string(&one).expect("text");
            clone.write(&format!("examples/{name}"), &text);
        }
        clone
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.folder.path().join(name);
        std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        std::fs::write(file, self.here(text)).expect("a file");
    }

    /// `text` with the ports and ids that are here in the place of those on the page.
    fn here(&self, text: &str) -> String {
        let ports = PORTS.iter().zip(&self.ports);
        let text =
            ports.fold(text.to_owned(), |text, (written, taken)| text.replace(written, taken));
        let ids = self.ids.iter();
        ids.fold(text, |text, (written, found)| text.replace(written, found))
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("bash");
        // Not a child of the shell but in its place, so that it ends with the test.
        shell.args(["-euo", "pipefail", "-c", &self.here(command)]);
        shell.current_dir(self.folder.path()).env("PATH", &self.path).env("NO_COLOR", "1");
        shell.env_remove("FERMATA_NATS_URL").env_remove("FERMATA_LOG");
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        shell
    }

    fn engine(&self) -> Option<&Staying> {
        self.staying.iter().find(|staying| staying.command.starts_with("fermata up"))
    }

    /// Runs a command to its end and gives what it printed.
    async fn run(&self, command: &str) -> String {
        let output = tokio::time::timeout(SOON, self.shell(command).output()).await;
        let output = output.unwrap_or_else(|_| panic!("`{command}` does not end"));
        let output = output.expect("a shell");
        let (printed, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "`{command}`: {}\n{printed}{errors}", output.status);
        printed.into_owned()
    }

    async fn runs(&mut self, typed: &Typed, again: bool) {
        let begun = Instant::now();
        loop {
            let printed = self.run(&typed.command).await;
            if let Some(engine) = self.engine() {
                engine.logs.until_applied(&printed).await;
            }
            if typed.shown.is_empty() {
                return;
            }
            if let Some(ids) = is_shown(&typed.shown, &printed) {
                self.ids.extend(ids);
                return;
            }
            let (command, shown) = (&typed.command, typed.shown.join("\n"));
            let over = !again || begun.elapsed() > SOON;
            assert!(!over, "`{command}` is to show\n{shown}\nand shows\n{printed}");
        }
    }

    /// Starts a command that stays, and waits until it has printed what is shown.
    async fn stays(&mut self, typed: &Typed) {
        let command = format!("exec {}", typed.command);
        let mut child = self.shell(&command).spawn().expect("a shell");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let logs = Logs::of(child.stderr.take().expect("a pipe"));
        let mut printed = String::new();
        while is_shown(&typed.shown, &printed).is_none() {
            let line = tokio::time::timeout(SOON, lines.next_line()).await;
            let line =
                line.unwrap_or_else(|_| panic!("`{}` prints only\n{printed}", typed.command));
            let line = line
                .expect("text")
                .unwrap_or_else(|| panic!("`{}` ended\n{printed}", typed.command));
            printed.push_str(&line);
            printed.push('\n');
        }
        let command = typed.command.clone();
        self.staying.push(Staying { command, child, logs, _printed: lines });
    }

    /// Kills what was started by `command`, and stays until now.
    async fn kill(&mut self, command: &str) {
        let started = self.staying.iter().position(|staying| staying.command == command);
        let mut started = self.staying.remove(started.expect("it was started"));
        started.child.kill().await.expect("a process");
    }
}

fn link(target: &Path, name: &Path) {
    std::os::unix::fs::symlink(target, name).expect("a link");
}

fn read(page: &str) -> String {
    let path = Path::new(ROOT).join(page);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("`{}`: {error}", path.display()))
}

/// Does what `page` says, in a folder of its own.
async fn follow(page: &str) {
    let mut clone = Clone::new();
    for block in blocks(&read(page)) {
        match block.mark.split_once(": ").unwrap_or((&block.mark, "")) {
            ("runs", _) => {
                for typed in typed(&block.lines) {
                    clone.runs(&typed, false).await;
                }
            }
            ("looks", _) => {
                for typed in typed(&block.lines) {
                    clone.runs(&typed, true).await;
                }
            }
            ("stays", _) => {
                for typed in typed(&block.lines) {
                    clone.stays(&typed).await;
                }
            }
            ("killed", _) => {
                for typed in typed(&block.lines) {
                    clone.kill(&typed.command).await;
                    clone.stays(&typed).await;
                }
            }
            ("file", name) => {
                // The comment that names it is not shown to a reader.
                let is_named = block.before.contains(&format!("`{name}`"));
                assert!(is_named, "`{name}` is not named before its block: {}", block.before);
                clone.write(name, &block.lines.join("\n"));
            }
            ("shown by", command) => {
                let typed = Typed { command: command.to_owned(), shown: block.lines };
                clone.runs(&typed, false).await;
            }
            ("not run", why) => assert!(!why.is_empty(), "a block is not run for no reason"),
            (mark, _) => {
                assert_eq!(mark, "", "an unknown mark");
                let language = &*block.language;
                assert!(!TO_BE_MARKED.contains(&language), "an unmarked block: {:#?}", block.lines);
            }
        }
    }
    assert!(clone.engine().is_some(), "no engine was started");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_readme_says_works_and_shows_what_it_shows() {
    follow("README.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_quick_start_says_works_and_shows_what_it_shows() {
    follow("docs/quick-start.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_clients_works_and_shows_what_it_shows() {
    follow("docs/clients.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_events_works_and_shows_what_it_shows() {
    follow("docs/events.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_nodes_works_and_shows_what_it_shows() {
    follow("docs/nodes.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_operations_works_and_shows_what_it_shows() {
    follow("docs/operations.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_the_read_model_works_and_shows_what_it_shows() {
    follow("docs/read-model.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_strategies_works_and_shows_what_it_shows() {
    follow("docs/strategies.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_workflows_works_and_shows_what_it_shows() {
    follow("docs/workflows.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_waiting_works_and_shows_what_it_shows() {
    follow("docs/waiting.md").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_bytes_works_and_shows_what_it_shows() {
    follow("docs/wire-format.md").await;
}

/// A page with commands that is not followed would say what nobody has seen.
#[test]
fn every_page_with_commands_is_followed() {
    let docs = std::fs::read_dir(Path::new(ROOT).join("docs")).expect("a folder");
    let names = docs.map(|page| page.expect("a page").file_name().into_string().expect("UTF-8"));
    let pages = names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}"));
    let known = PAGES.into_iter().chain(PARSED).collect::<Vec<_>>();
    for page in pages.filter(|page| !known.contains(&page.as_str())) {
        for block in blocks(&read(&page)) {
            let language = &*block.language;
            let is_left_out = block.mark.starts_with("not run: ");
            assert!(
                is_left_out || !TO_BE_MARKED.contains(&language),
                "`{page}` has commands, and no test follows it: {:#?}",
                block.lines
            );
        }
    }
}

/// A link that leads nowhere sends its reader away.
#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut pages = vec!["README.md".to_owned(), "ARCHITECTURE.md".to_owned()];
    for folder in ["docs", "docs/adr"] {
        for page in std::fs::read_dir(Path::new(ROOT).join(folder)).expect("a folder") {
            let name = page.expect("a page").file_name().into_string().expect("UTF-8");
            if name.ends_with(".md") {
                pages.push(format!("{folder}/{name}"));
            }
        }
    }
    let mut links = 0;
    for page in &pages {
        let text = read(page);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')) {
            let file = target.0.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.contains(char::is_whitespace) {
                continue;
            }
            let folder = Path::new(ROOT).join(page);
            let found = folder.parent().expect("a folder").join(file);
            assert!(found.exists(), "`{page}` links to `{file}`, which is not there");
            links += 1;
        }
    }
    assert!(links > 40, "only {links} links were found");
}
