//! What a disk does that errs without a word: a bit of a stored message is another one.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rand::{Rng, RngExt as _};

/// Flips one bit amid what a stopped server stored of a stream, neither in its first messages nor
/// in its last; tells which.
///
/// # Panics
///
/// When nothing is stored there.
pub fn flip_a_bit(store: &Path, stream: &str, dice: &mut impl Rng) -> String {
    let path = blocks(store, stream)
        .into_iter()
        .max_by_key(|path| size(path))
        .unwrap_or_else(|| panic!("nothing of {stream} below {}", store.display()));
    let quarter = size(&path) / 4;
    assert!(quarter > 0, "{} is empty", path.display());
    let (offset, bit) = (dice.random_range(quarter..3 * quarter), dice.random_range(0..8_u8));
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    byte[0] ^= 1 << bit;
    file.write_all_at(&byte, offset).expect("a written byte");
    file.sync_all().expect("a synced file");
    format!("bit {bit} of byte {offset} of {} of {stream}'s", size(&path))
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// The files in which a server keeps a stream's messages.
fn blocks(store: &Path, stream: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "blk")
                && path.parent().and_then(Path::parent).is_some_and(|of| of.ends_with(stream))
            {
                found.push(path);
            }
        }
    }
    found
}
