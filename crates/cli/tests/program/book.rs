//! README.md and the pages below `docs/` as their reader would follow them: every command is
//! typed as it stands there, and what is shown is what comes.
//!
//! A comment before a block says what it is for: `<!-- runs -->` once, `<!-- looks -->` again
//! until it shows what the block shows, `<!-- stays -->` until the end, `<!-- file: NAME -->`
//! is written, `<!-- shown by: COMMAND -->` is what that prints, and `<!-- not run: WHY -->`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::logs::Logs;
use crate::support::SOON;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The pages whose commands are typed, each by a test of its own: they run side by side.
const PAGES: [&str; 3] = ["README.md", "docs/clients.md", "docs/quick-start.md"];

/// Pages whose every line is held against the program's arguments, elsewhere.
const PARSED: [&str; 1] = ["docs/cli.md"];

/// The port of the plugin in the text; the test takes a free one in its place.
const PORT: &str = "9000";

/// Languages whose blocks a reader would type or save.
const TO_BE_MARKED: [&str; 4] = ["console", "python", "sh", "bash"];

/// A fenced block with the comment before it.
#[derive(Debug)]
struct Block {
    mark: String,
    language: String,
    lines: Vec<String>,
}

/// A command, and the lines that are shown below it.
#[derive(Debug, PartialEq)]
struct Typed {
    command: String,
    shown: Vec<String>,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut mark = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(comment) = line.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->"))
        {
            mark = comment.to_owned();
        } else if let Some(language) = line.strip_prefix("```") {
            let inside = lines.by_ref().take_while(|line| *line != "```").map(str::to_owned);
            let (mark, language) = (std::mem::take(&mut mark), language.to_owned());
            blocks.push(Block { mark, language, lines: inside.collect() });
        } else if !line.is_empty() {
            mark.clear();
        }
    }
    blocks
}

/// Reads a console block: lines after `$ `, continued after `\`, are typed.
fn typed(lines: &[String]) -> Vec<Typed> {
    let mut all: Vec<Typed> = Vec::new();
    let mut goes_on = false;
    for line in lines {
        let last = all.last_mut();
        match (line.strip_prefix("$ "), last) {
            (None, Some(last)) if goes_on => last.command.push_str(&format!("\n{line}")),
            (None, Some(last)) => last.shown.push(line.clone()),
            (Some(command), _) => {
                all.push(Typed { command: command.to_owned(), shown: Vec::new() })
            }
            (None, None) => panic!("a block begins with `{line}`, not with a command"),
        }
        goes_on = line.ends_with('\\') && all.last().is_some_and(|last| last.shown.is_empty());
    }
    all
}

/// Whether `printed` shows the lines `shown`: in order, without others between them but where
/// `…` stands.
fn is_shown(shown: &[String], printed: &str) -> bool {
    let printed = printed.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>();
    let mut at = 0;
    let mut may_skip = false;
    for line in shown.iter().filter(|line| !line.trim().is_empty()) {
        if line.trim() == "…" {
            may_skip = true;
            continue;
        }
        let Some(found) = printed[at..].iter().position(|printed| is_line(line, printed)) else {
            return false;
        };
        if found > 0 && !may_skip {
            return false;
        }
        (at, may_skip) = (at + found + 1, false);
    }
    may_skip || at == printed.len()
}

/// Whether two lines are the same but for what differs each time: ids, times, addresses.
/// Whole numbers must be the same.
fn is_line(shown: &str, printed: &str) -> bool {
    let (mut shown, mut printed) = (shown.split_whitespace(), printed.split_whitespace());
    loop {
        match (shown.next(), printed.next()) {
            (None, None) => return true,
            (Some("…"), _) => return true,
            (Some(shown), Some(printed)) if is_word(shown, printed) => {}
            _ => return false,
        }
    }
}

fn is_word(shown: &str, printed: &str) -> bool {
    let varies = |word: &str| {
        word.bytes().any(|byte| byte.is_ascii_digit())
            && !word.trim_end_matches(',').bytes().all(|byte| byte.is_ascii_digit())
    };
    shown == printed || (varies(shown) && varies(printed))
}

/// A copy of what a reader has after `make build`, and a shell in it.
struct Clone {
    folder: TempDir,
    path: String,
    port: String,
    staying: Vec<(Child, Logs, Lines<BufReader<ChildStdout>>)>,
}

impl Clone {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let root = PathBuf::from(ROOT);
        let port = free_port().to_string();
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
        let clone = Self { folder, path, port, staying: Vec::new() };
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
        std::fs::write(file, text.replace(PORT, &self.port)).expect("a file");
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("bash");
        // Not a child of the shell but in its place, so that it ends with the test.
        shell.args(["-euo", "pipefail", "-c", &command.replace(PORT, &self.port)]);
        shell.current_dir(self.folder.path()).env("PATH", &self.path).env("NO_COLOR", "1");
        shell.env_remove("FERMATA_NATS_URL").env_remove("FERMATA_LOG");
        shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        shell
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

    async fn runs(&self, typed: &Typed, again: bool) {
        let begun = Instant::now();
        loop {
            let printed = self.run(&typed.command).await;
            // The engine is what was started last.
            if let Some((_, logs, _)) = self.staying.last() {
                logs.until_applied(&printed).await;
            }
            if typed.shown.is_empty() || is_shown(&typed.shown, &printed) {
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
        while !is_shown(&typed.shown, &printed) {
            let line = tokio::time::timeout(SOON, lines.next_line()).await;
            let line =
                line.unwrap_or_else(|_| panic!("`{}` prints only\n{printed}", typed.command));
            let line = line
                .expect("text")
                .unwrap_or_else(|| panic!("`{}` ended\n{printed}", typed.command));
            printed.push_str(&line);
            printed.push('\n');
        }
        self.staying.push((child, logs, lines));
    }
}

/// A port that is free, and that the system gives to nobody who asks for any: it lies below
/// the range that these are taken from.
fn free_port() -> u16 {
    // Pages that are followed in one process begin to look at different places.
    static PAGE: AtomicU16 = AtomicU16::new(0);
    let page = PAGE.fetch_add(1_000, Ordering::Relaxed);
    let first = 10_000 + (std::process::id() as u16 % 10_000 + page) % 10_000;
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    (first..first + 10_000).find(is_free).expect("a free port")
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
            ("file", name) => clone.write(name, &block.lines.join("\n")),
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
    assert_eq!(clone.staying.len(), 2, "the plugin and the engine were started");
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

#[test]
fn what_is_typed_is_told_from_what_is_shown() {
    let lines = ["$ a --b \\", "    --c", "one", "$ d"].map(str::to_owned);

    let expected = [
        Typed { command: "a --b \\\n    --c".to_owned(), shown: vec!["one".to_owned()] },
        Typed { command: "d".to_owned(), shown: Vec::new() },
    ];
    assert_eq!(typed(&lines), expected);
}

#[test]
fn a_shown_line_that_is_not_printed_is_noticed() {
    let shown = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let printed = "a 1 took 3ms\nb of 7f-2\nc\n";

    for same in ["a 1 took 44ms\nb of 01-9\nc", "a 1 …\n…\nc", "…\nb of 7f-2\n…"] {
        assert!(is_shown(&shown(same), printed), "{same}");
    }
    for other in [
        "a 2 took 3ms\nb of 7f-2\nc",
        "a 1 took 3ms\nc",
        "a 1 took 3ms\n…\nb of it\nc",
        "…\nb of 7f-2",
    ] {
        assert!(!is_shown(&shown(other), printed), "{other}");
    }
}
