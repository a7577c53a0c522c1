//! What must be nowhere, and looking for it in bytes.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What must be nowhere, in every form in which it could be there.
pub struct Canary {
    name: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Canary {
    pub fn of(name: &'static str, bytes: &[u8]) -> Self {
        let mut forms = vec![bytes.to_vec()];
        forms.push(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into());
        // In base64 it looks in three ways, by where it begins; without the ends, which depend on
        // what is around it.
        for before in 0..3 {
            let padded = [&vec![b'.'; before], bytes].concat();
            let text = STANDARD.encode(padded);
            forms.push(text.as_bytes()[4..text.len() - 4].to_vec());
        }
        Self { name, forms }
    }
}

/// The names of those that are among `bytes`.
pub fn found<'a>(canaries: &'a [Canary], bytes: &[u8]) -> Vec<&'a str> {
    let mut by_first: [Vec<(&'a str, &'a [u8])>; 256] = std::array::from_fn(|_| Vec::new());
    for canary in canaries {
        for form in &canary.forms {
            by_first[usize::from(form[0])].push((canary.name, form));
        }
    }
    let mut found = Vec::new();
    for (at, byte) in bytes.iter().enumerate() {
        for (name, form) in &by_first[usize::from(*byte)] {
            if bytes[at..].starts_with(form) && !found.contains(name) {
                found.push(*name);
            }
        }
    }
    found
}

pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("one"));
    let below = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(|entry| below(entry.path())).collect()
}

/// The lines that hold a secret, for whoever has to mend it.
pub fn where_in(places: &[(String, Vec<u8>)], canaries: &[Canary]) -> String {
    let secrets = |line: &[u8]| found(canaries, line).iter().any(|name| *name != "MARK");
    let mut lines = Vec::new();
    for (place, bytes) in places {
        let found = bytes.split(|byte| *byte == b'\n').filter(|line| secrets(line));
        let text = |line: &[u8]| String::from_utf8_lossy(&line[..line.len().min(600)]).into_owned();
        lines.extend(found.take(3).map(|line| format!("{place}: {}", text(line))));
    }
    lines.join("\n")
}
