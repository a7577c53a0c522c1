//! A partition's log as a file for tools that are not ours.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use fermata_audit::{Hash, export_checkpoint, export_entry, export_first_line};
use fermata_core::identity::PartitionId;

use crate::error::CliError;

/// Writes entries in order and each checkpoint where the tree has its size.
#[derive(Debug)]
pub(super) struct Export {
    path: PathBuf,
    file: BufWriter<File>,
    entries: u64,
    /// Size and text of the checkpoints whose place has not come.
    waiting: VecDeque<(u64, String)>,
}

impl Export {
    pub(super) fn create(
        folder: &Path,
        partition: PartitionId,
        origin: &str,
        vkey: &str,
    ) -> Result<Self, CliError> {
        fs::create_dir_all(folder)
            .map_err(CliError::io(format!("create the folder `{}`", folder.display())))?;
        let path = folder.join(format!("{partition}.ndjson"));
        let file =
            File::create(&path).map_err(CliError::io(format!("create `{}`", path.display())))?;
        let mut export =
            Self { path, file: BufWriter::new(file), entries: 0, waiting: VecDeque::new() };
        export.write(&export_first_line(origin, vkey))?;
        Ok(export)
    }

    /// Takes a checkpoint over `size` entries, which the log's key signed.
    pub(super) fn checkpoint(&mut self, size: u64, note: &[u8]) -> Result<(), CliError> {
        // What was opened is text.
        let Ok(text) = std::str::from_utf8(note) else { return Ok(()) };
        let place = self.waiting.partition_point(|(other, _)| *other <= size);
        self.waiting.insert(place, (size, text.to_owned()));
        self.write_due(false)
    }

    pub(super) fn entry(
        &mut self,
        index: u64,
        header: &[u8],
        commitment: &[u8; 32],
        leaf: &Hash,
    ) -> Result<(), CliError> {
        self.write(&export_entry(index, header, commitment, leaf))?;
        self.entries += 1;
        self.write_due(false)
    }

    pub(super) fn finish(mut self) -> Result<(), CliError> {
        self.write_due(true)?;
        self.file.flush().map_err(CliError::io(format!("write `{}`", self.path.display())))
    }

    fn write_due(&mut self, all: bool) -> Result<(), CliError> {
        while let Some((_, text)) = {
            let entries = self.entries;
            self.waiting.pop_front_if(|(size, _)| all || *size <= entries)
        } {
            self.write(&export_checkpoint(&text))?;
        }
        Ok(())
    }

    fn write(&mut self, line: &str) -> Result<(), CliError> {
        self.file
            .write_all(line.as_bytes())
            .map_err(CliError::io(format!("write `{}`", self.path.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_stands_where_the_tree_has_its_size() {
        let folder = tempfile::tempdir().unwrap();
        let mut export =
            Export::create(folder.path(), PartitionId::CONTROL, "e/control", "k").unwrap();
        export.checkpoint(3, b"three").unwrap();
        export.checkpoint(2, b"two").unwrap();
        for index in 0..3 {
            export.entry(index, b"h", &[1; 32], &Hash([2; 32])).unwrap();
        }
        export.finish().unwrap();

        let text = fs::read_to_string(folder.path().join("control.ndjson")).unwrap();

        let kinds: Vec<_> = text.lines().map(|line| line.split('"').nth(1).unwrap()).collect();
        assert_eq!(kinds, ["format", "index", "index", "checkpoint", "index", "checkpoint"]);
        assert!(text.contains("{\"checkpoint\":\"two\"}\n{\"index\":2,"), "{text}");
    }
}
