//! Lines of an export that tools which are not ours can verify offline.
//!
//! One JSON object per line: the first line, then an entry per leaf in order,
//! and each checkpoint at the place where the tree has its size. The format is
//! in `docs/audit-format.md`, section 5; `tests/python/verify_audit.py` reads it.

use std::fmt::Write as _;

use crate::hash::Hash;

/// Name and version of the export format.
pub const EXPORT_FORMAT: &str = "fermata-audit-export/1";

/// Writes the first line: the log's origin and the key its checkpoints are
/// signed with. Ends in newline, as every line here.
#[must_use]
pub fn export_first_line(origin: &str, vkey: &str) -> String {
    let (origin, vkey) = (json_string(origin), json_string(vkey));
    format!("{{\"format\":\"{EXPORT_FORMAT}\",\"origin\":{origin},\"vkey\":{vkey}}}\n")
}

/// Writes the line of one entry. `leaf` is as stored, not recomputed: the reader
/// recomputes it.
#[must_use]
pub fn export_entry(index: u64, header: &[u8], commitment: &[u8; 32], leaf: &Hash) -> String {
    let mut line = String::with_capacity(2 * header.len() + 192);
    // Writing to a String cannot fail.
    let _ = write!(line, "{{\"index\":{index},\"header\":\"");
    for byte in header {
        let _ = write!(line, "{byte:02x}");
    }
    let _ = writeln!(line, "\",\"commitment\":\"{}\",\"leaf\":\"{leaf}\"}}", Hash(*commitment));
    line
}

/// Writes the line of one checkpoint note.
#[must_use]
pub fn export_checkpoint(note: &str) -> String {
    format!("{{\"checkpoint\":{}}}\n", json_string(note))
}

/// Writes `text` as a JSON string (RFC 8259, section 7).
fn json_string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            control if control < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_frozen() {
        assert_eq!(
            export_first_line("log/0", "log+01020304+AQ=="),
            concat!(
                r#"{"format":"fermata-audit-export/1","origin":"log/0","vkey":"log+01020304+AQ=="}"#,
                "\n"
            )
        );
        assert_eq!(
            export_entry(7, b"\x00\xffh", &[1; 32], &Hash([2; 32])),
            format!(
                "{{\"index\":7,\"header\":\"00ff68\",\"commitment\":\"{}\",\"leaf\":\"{}\"}}\n",
                "01".repeat(32),
                "02".repeat(32)
            )
        );
        assert_eq!(
            export_checkpoint("a \"b\" \\\n\u{1}\n— log AQ==\n"),
            concat!(r#"{"checkpoint":"a \"b\" \\\n\u0001\n— log AQ==\n"}"#, "\n")
        );
    }
}
