//! What a test needs that not every machine gives: it is not run there, and says so.
//!
//! A test cannot skip itself: one that returns counts as passed. So it leaves a note in the folder
//! that `FERMATA_NOT_RUN` names; `scripts/run_tests.py` takes it from the number of those that
//! passed and names it in the summary.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Runs a program to its end.
///
/// # Errors
///
/// What it said, when it failed or is not there.
pub fn run(words: &[&str]) -> Result<String, String> {
    let (program, arguments) = words.split_first().ok_or("nothing to run")?;
    let said = |error: &dyn std::fmt::Display| format!("`{}`: {error}", words.join(" "));
    let output = Command::new(program).args(arguments).output().map_err(|error| said(&error))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(said(&String::from_utf8_lossy(&output.stderr).trim()))
}

/// The same where a failure is one of the test.
///
/// # Panics
///
/// When it fails.
pub fn must_run(words: &[&str]) -> String {
    run(words).unwrap_or_else(|error| panic!("{error}"))
}

/// Says that `test` is not run here, and why.
///
/// # Panics
///
/// When the note cannot be left.
pub fn not_run(test: &str, reason: &str) {
    let reason = reason.lines().next().unwrap_or_default();
    println!("fault: NOT RUN: {test}: {reason}");
    leave_note(test, &format!("{test}: {reason}"));
}

/// Says that `test` is run here without `part`, and why.
///
/// # Panics
///
/// When the note cannot be left.
pub fn part_not_run(test: &str, part: &str, reason: &str) {
    let reason = reason.lines().next().unwrap_or_default();
    println!("fault: NOT RUN: {test}: {part}: {reason}");
    // The runner counts the test as one that was run.
    leave_note(&format!("part-{test}-{part}"), &format!("{test}: {part}: {reason}"));
}

fn leave_note(name: &str, text: &str) {
    let Some(folder) = std::env::var_os("FERMATA_NOT_RUN").map(PathBuf::from) else { return };
    let name = name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    std::fs::write(folder.join(name), format!("{text}\n")).expect("a note");
}

/// Networks have names by the process that made them: where several tests share one, as they do
/// without cargo-nextest, they take turns.
pub(crate) fn own_names() -> MutexGuard<'static, ()> {
    static NAMES: Mutex<()> = Mutex::new(());
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether this process may make network namespaces and join them.
///
/// # Errors
///
/// Why not.
pub fn network_namespaces() -> Result<(), String> {
    let _names = own_names();
    let process = std::process::id();
    let (name, bridge) = (format!("fermata-probe-{process}"), format!("fmp{process}"));
    run(&["ip", "netns", "add", &name])?;
    let joined = run(&["ip", "netns", "exec", &name, "true"])
        .and_then(|_| run(&["ip", "link", "add", &bridge, "type", "bridge"]))
        .and_then(|_| run(&["ip", "link", "del", &bridge]));
    run(&["ip", "netns", "del", &name])?;
    joined.map(drop)
}

/// Whether this process may mount what a file holds.
///
/// # Errors
///
/// Why not.
pub fn loop_mounts() -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (image, at) = (folder.path().join("image"), folder.path().join("at"));
    std::fs::create_dir(&at).map_err(|error| error.to_string())?;
    let (image, at) = (text(&image), text(&at));
    run(&["python3", "-c", "import fcntl"])?;
    run(&["truncate", "--size", "16M", image])?;
    run(&["mkfs.ext4", "-q", "-F", image])?;
    run(&["mount", "-o", "loop", image, at])?;
    run(&["umount", at]).map(drop)
}

/// Whether this process may mount a file system in memory.
///
/// # Errors
///
/// Why not.
pub fn memory_mounts() -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let at = text(folder.path());
    run(&["mount", "-t", "tmpfs", "-o", "size=1m", "fermata-probe", at])?;
    run(&["umount", at]).map(drop)
}

/// A path as a program is told it.
///
/// # Panics
///
/// When it is no Unicode.
#[must_use]
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of letters")
}
