//! Documents that were made to hurt: the program refuses them with a message
//! (or takes them, where they are only long), in little time and memory.

use tempfile::TempDir;
use tokio::process::Command;

/// All the memory that the program gets, KiB of address space: more than it
/// could ever use of it.
const MEMORY_KIB: u32 = 256 * 1_024;

/// Seconds of processor time that the program gets. Alone on a machine each document takes less
/// than one; two threads of one core slow each other down.
const SECONDS: u32 = 4;

const TASK: &str = "workflow:\n  name: a\n  version: '1'\n  tasks:\n    - id: x\n      noop: {}\n";

fn documents() -> Vec<(&'static str, String)> {
    let laughs = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
        let list = vec![format!("*a{}", level - 1); 9].join(",");
        format!("{text}a{level}: &a{level} [{list}]\n")
    });
    let generated = (0..400_000).map(|n| format!("    - {{ id: n{n}, noop: {{}} }}\n"));
    vec![
        ("laughs", laughs),
        ("flow depth", "[".repeat(10_000)),
        ("flow depth, closed", "[".repeat(10_000) + &"]".repeat(10_000)),
        ("map depth", "{a: ".repeat(10_000) + &"}".repeat(10_000)),
        ("block depth", (0..10_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect()),
        ("dashes", "- ".repeat(10_000)),
        ("10 MB of text", format!("{TASK}  description: '{}'\n", "x".repeat(10 << 20))),
        ("10 MB of tasks", TASK.to_owned() + &generated.collect::<String>()),
        ("10 MB of keys", (0..900_000).map(|n| format!("k{n}: 1\n")).collect()),
        ("10 MB of quotes", "\"".repeat(10 << 20)),
        ("a key of 10 MB", format!("{TASK}{}: 1\n", "k".repeat(10 << 20))),
        ("doubled", format!("{TASK}  name: b\n")),
        ("long number", format!("workflow: {}\n", "9".repeat(200_000))),
        ("long expression", format!("{TASK}      when: '{}1'\n", "1 + ".repeat(20_000))),
        ("deep expression", format!("{TASK}      when: '{}'\n", "(".repeat(10_000))),
        ("no text", "\u{0}".repeat(1_000)),
    ]
}

#[tokio::test]
async fn hostile_documents_are_judged_in_little_time_and_memory() {
    let folder = TempDir::new().unwrap();
    for (name, text) in documents() {
        let path = folder.path().join("document.yaml");
        std::fs::write(&path, &text).unwrap();
        for command in [["workflow", "check"], ["strategy", "test"]] {
            let ended = Command::new("sh")
                .arg("-c")
                .arg(format!("ulimit -v {MEMORY_KIB} && ulimit -t {SECONDS} && exec \"$@\""))
                .arg("sh")
                .arg(env!("CARGO_BIN_EXE_fermata"))
                .args(command)
                .arg(&path)
                // Each arena of the allocator would reserve as much as a quarter of it.
                .env("MALLOC_ARENA_MAX", "1")
                .env("NO_COLOR", "1")
                .output()
                .await
                .unwrap();
            let told = [&ended.stdout[..], &ended.stderr].concat();
            let told = String::from_utf8_lossy(&told);

            let what = format!("`{name}` to `{}`: {told:.2000}", command.join(" "));
            let sound = name == "10 MB of text" && command[0] == "workflow";
            let expected = if sound { 0..=0 } else { 1..=2 };
            let code = ended.status.code().expect(&what);
            assert!(expected.contains(&code), "{code}, {what}");
            assert!(!told.contains("panicked") && !told.is_empty(), "{what}");
            assert!(told.len() < 100_000, "{} bytes, {what}", told.len());
        }
    }
}
