//! The wall clock of a process, stepped as somebody steps it who sets it: while the process runs,
//! and without a word to it. No other process notices.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::rights::{must_run, run, text};

/// What stands between a process and the clock.
const STEP: &str = include_str!("clocks/step.c");

/// A wall clock that can be stepped.
#[derive(Debug)]
pub struct SteppedClock {
    folder: TempDir,
}

/// Whether there is a compiler: what stands between a process and its clock is made of C.
///
/// # Errors
///
/// Why not.
pub fn c_compiler() -> Result<(), String> {
    run(&["cc", "--version"]).map(drop)
}

impl SteppedClock {
    /// One that goes right.
    ///
    /// # Panics
    ///
    /// When it cannot be built; see [`c_compiler`].
    #[must_use]
    pub fn new() -> Self {
        let clock = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let source = clock.folder.path().join("step.c");
        std::fs::write(&source, STEP).expect("a written file");
        let library = clock.library();
        must_run(&["cc", "-shared", "-fPIC", "-O1", "-o", text(&library), text(&source)]);
        clock.step(0);
        clock
    }

    /// Variables by which a process has this clock.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("LD_PRELOAD", self.library()), ("FERMATA_CLOCK_STEP", self.offset())]
    }

    /// Sets it so many seconds ahead of the right time, or behind it.
    ///
    /// # Panics
    ///
    /// When the file cannot be written.
    pub fn step(&self, seconds: i64) {
        // In place: processes have it mapped.
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(self.offset());
        file.expect("a file").write_all(&seconds.to_ne_bytes()).expect("a written file");
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("step.so")
    }

    fn offset(&self) -> PathBuf {
        self.folder.path().join("step")
    }
}

impl Default for SteppedClock {
    fn default() -> Self {
        Self::new()
    }
}
