//! Documents that were made to hurt: the program refuses them with a message
//! (or takes them, where they are only long), in little time and memory.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

/// The most that the program may have resident, KiB.
const MEMORY_KIB: u64 = 256 * 1_024;

/// Seconds of processor time that the program may take, in the best of [`TRIES`]: threads that
/// share a core with others' slow each other down.
const SECONDS: f64 = 1.0;

const TRIES: usize = 4;

/// Runs its arguments and tells, on its last line, what they took: address space that is only
/// reserved is no memory, so no limit of the shell would do.
const MEASURED: &str = "
import json, resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
ended = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
taken = resource.getrusage(resource.RUSAGE_CHILDREN)
sys.stdout.buffer.write(ended.stdout)
print()
print(json.dumps({'code': ended.returncode, 'seconds': taken.ru_utime + taken.ru_stime, 'kib': taken.ru_maxrss}))
";

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
        ("10 MB of values", format!("- [{}]\n", "1, ".repeat(90_000)).repeat(38)),
        ("10 MB of quotes", "\"".repeat(10 << 20)),
        ("a key of 10 MB", format!("{TASK}{}: 1\n", "k".repeat(10 << 20))),
        ("doubled", format!("{TASK}  name: b\n")),
        ("long number", format!("workflow: {}\n", "9".repeat(200_000))),
        ("long expression", format!("{TASK}      when: '{}1'\n", "1 + ".repeat(20_000))),
        ("deep expression", format!("{TASK}      when: '{}'\n", "(".repeat(10_000))),
        ("no text", "\u{0}".repeat(1_000)),
    ]
}

/// What the program says of a document, and what it took.
async fn judged(command: [&str; 2], document: &Path) -> (String, Value) {
    let ended = Command::new("python3")
        .args(["-c", MEASURED, env!("CARGO_BIN_EXE_fermata")])
        .args(command)
        .arg(document)
        .env("NO_COLOR", "1")
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    let (told, taken) = told.trim_end().rsplit_once('\n').expect("what it took");
    (told.to_owned(), serde_json::from_str(taken).expect(told))
}

#[tokio::test]
async fn hostile_documents_are_judged_in_little_time_and_memory() {
    let folder = TempDir::new().unwrap();
    for (name, text) in documents() {
        let path = folder.path().join("document.yaml");
        std::fs::write(&path, &text).unwrap();
        for command in [["workflow", "check"], ["strategy", "test"]] {
            let (mut told, mut taken) = judged(command, &path).await;
            for _ in 1..TRIES {
                if taken["seconds"].as_f64().is_some_and(|seconds| seconds < SECONDS) {
                    break;
                }
                (told, taken) = judged(command, &path).await;
            }

            let what = format!("`{name}` to `{}`: {told:.2000}", command.join(" "));
            let sound = name == "10 MB of text" && command[0] == "workflow";
            let expected = if sound { 0..=0_i64 } else { 1..=2 };
            let code = taken["code"].as_i64().expect(&what);
            assert!(expected.contains(&code), "{code}, {what}");
            assert!(!told.contains("panicked") && !told.trim().is_empty(), "{what}");
            assert!(taken["seconds"].as_f64().expect(&what) < SECONDS, "{taken}, {what}");
            assert!(taken["kib"].as_u64().expect(&what) < MEMORY_KIB, "{taken}, {what}");
            assert!(told.len() < 100_000, "{} bytes, {what}", told.len());
        }
    }
}
