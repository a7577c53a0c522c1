//! What a command prints, for tests.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use crate::error::CliError;
use crate::output::Output;

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `print` prints for people, not on a terminal.
pub(crate) fn printed(print: impl FnOnce(&mut Output) -> Result<(), CliError>) -> String {
    let written = Shared::default();
    print(&mut Output::to_writer(written.clone(), false)).unwrap();
    let bytes = written.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}
