//! An export is verified by a program that is not ours: a Python script with
//! nothing but its standard library.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};

    use fermata_audit::{
        Checkpoint, Signer, Tree, commitment, export_checkpoint, export_entry, export_first_line,
        leaf_hash,
    };

    const ORIGIN: &str = "example.org/audit/0";
    const CHECKPOINT_SIZES: [u64; 4] = [0, 1, 7, 13];
    const ENTRIES: u64 = 15;

    fn script() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/verify_audit.py")
    }

    fn signer() -> Signer {
        Signer::from_seed("example.org/audit", [3; 32]).unwrap()
    }

    fn header(index: u64) -> Vec<u8> {
        format!("header {index} \u{fc}").into_bytes()
    }

    fn entry(index: u64, header: &[u8]) -> String {
        let commitment = commitment(&[9; 16], &index.to_be_bytes());
        export_entry(index, header, &commitment, &leaf_hash(header, &commitment))
    }

    /// A sound export, line by line.
    fn export() -> Vec<String> {
        let signer = signer();
        let mut lines = vec![export_first_line(ORIGIN, &signer.vkey())];
        let mut tree = Tree::new();
        for index in 0..=ENTRIES {
            if CHECKPOINT_SIZES.contains(&index) {
                let checkpoint = Checkpoint::new(ORIGIN, tree.size(), tree.root(), index).unwrap();
                lines.push(export_checkpoint(&checkpoint.sign(&signer)));
            }
            if index < ENTRIES {
                let commitment = commitment(&[9; 16], &index.to_be_bytes());
                tree.push(leaf_hash(&header(index), &commitment));
                lines.push(entry(index, &header(index)));
            }
        }
        lines
    }

    fn verify(name: &str, lines: &[String], arguments: &[&str]) -> (Option<i32>, String) {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.ndjson"));
        fs::write(&path, lines.concat()).unwrap();
        let Output { status, stdout, stderr } =
            Command::new("python3").arg(script()).arg(&path).args(arguments).output().unwrap();
        let printed = String::from_utf8(stdout).unwrap();
        (status.code(), printed + &String::from_utf8(stderr).unwrap())
    }

    /// Place of entry `index` among the lines.
    fn line_of(lines: &[String], index: u64) -> usize {
        let start = format!("{{\"index\":{index},");
        lines.iter().position(|line| line.starts_with(&start)).unwrap()
    }

    #[test]
    fn a_sound_export_verifies() {
        let (code, printed) = verify("sound", &export(), &["--vkey", &signer().vkey()]);

        assert_eq!(code, Some(0), "{printed}");
        assert!(
            printed.starts_with("entries 15, checkpoints 4, sound to 13, not signed yet 2, root "),
            "{printed}"
        );
        assert!(printed.ends_with("findings 0\n"), "{printed}");
    }

    #[test]
    fn each_tamper_is_found_at_its_index() {
        type Tamper = fn(&mut Vec<String>);
        let cases: [(&str, Tamper, &str); 8] = [
            (
                "header",
                |lines| flip(lines, 9, "\"header\":\"68", "\"header\":\"69"),
                "entry 9: leaf",
            ),
            (
                "leaf",
                |lines| {
                    let place = line_of(lines, 4);
                    let last = lines[place].rfind('"').unwrap();
                    let other = if lines[place].as_bytes()[last - 1] == b'0' { "1" } else { "0" };
                    lines[place].replace_range(last - 1..last, other);
                },
                "entry 4: leaf",
            ),
            (
                "rewritten",
                |lines| {
                    let place = line_of(lines, 9);
                    lines[place] = entry(9, b"other");
                },
                "root differs at size 13; something in entries 7 to 12",
            ),
            (
                "dropped",
                |lines| {
                    lines.remove(line_of(lines, 3));
                },
                "entry 3: missing",
            ),
            (
                "inserted",
                |lines| lines.insert(line_of(lines, 5), entry(4, b"other")),
                "entry 4: added or reordered",
            ),
            (
                "swapped",
                |lines| {
                    let (one, other) = (line_of(lines, 9), line_of(lines, 10));
                    lines.swap(one, other);
                },
                "entry 9: added or reordered",
            ),
            (
                "truncated",
                |lines| {
                    let (from, to) = (line_of(lines, 11), line_of(lines, 13));
                    lines.drain(from..to - 1);
                    lines.truncate(lines.len() - 2);
                },
                "covers 13 entries but stands after 11",
            ),
            (
                "origin",
                |lines| lines[0] = export_first_line("example.org/audit/1", &signer().vkey()),
                "no checkpoint: nothing is signed",
            ),
        ];
        for (name, tamper, finding) in cases {
            let mut lines = export();
            tamper(&mut lines);
            assert_ne!(lines, export(), "{name} changed nothing");

            let (code, printed) = verify(name, &lines, &[]);

            assert_eq!(code, Some(1), "{name}: {printed}");
            assert!(printed.contains(finding), "{name}: {printed}");
        }
    }

    /// Replaces text in the line of entry `index` or, if it is not there, in the
    /// checkpoint before it.
    fn flip(lines: &mut [String], index: u64, from: &str, to: &str) {
        let place = line_of(lines, index);
        let place = if lines[place].contains(from) { place } else { place - 1 };
        lines[place] = lines[place].replacen(from, to, 1);
    }

    #[test]
    fn an_export_signed_by_another_key_is_refused() {
        let stranger = Signer::from_seed("example.org/audit", [4; 32]).unwrap();

        let (code, printed) = verify("stranger", &export(), &["--vkey", &stranger.vkey()]);

        assert_eq!(code, Some(1), "{printed}");
        assert!(printed.contains("no signature is by the known key"), "{printed}");
        assert!(printed.contains("no checkpoint: nothing is signed"), "{printed}");
    }

    #[test]
    fn what_anyone_can_put_among_the_checkpoints_is_a_notice() {
        let mut lines = export();
        flip(&mut lines, 7, "journal 7", "journal 6");
        let last = lines.iter().rfind(|line| line.starts_with("{\"checkpoint")).unwrap().clone();
        lines.extend([last, export_checkpoint("garbage")]);

        let (code, printed) = verify("notices", &lines, &[]);

        assert_eq!(code, Some(0), "{printed}");
        for notice in [
            "notice: checkpoint 3 after entry 6: the signature of example.org/audit does not verify",
            "notice: checkpoint 5: repeats the one of size 13",
            "notice: checkpoint 6 after entry 14: the note is not text, blank line, signatures",
        ] {
            assert!(printed.contains(notice), "{printed}");
        }
        assert!(printed.ends_with("notices 3, findings 0\n"), "{printed}");
    }

    #[test]
    fn a_checkpoint_that_contradicts_a_signed_one_is_a_finding() {
        let mut lines = export();
        let root = Tree::new().root();
        let forked = Checkpoint::new(ORIGIN, 13, root, 13).unwrap().sign(&signer());
        lines.push(export_checkpoint(&forked));

        let (code, printed) = verify("forked", &lines, &[]);

        assert_eq!(code, Some(1), "{printed}");
        assert!(printed.contains("checkpoint 5: contradicts another of size 13"), "{printed}");
    }

    /// What somebody kept: the checkpoint of the first `size` entries, `changed` among them.
    fn kept(name: &str, size: u64, changed: Option<u64>, signer: &Signer) -> String {
        let mut tree = Tree::new();
        for index in 0..size {
            let text = if changed == Some(index) { b"other".to_vec() } else { header(index) };
            tree.push(leaf_hash(&text, &commitment(&[9; 16], &index.to_be_bytes())));
        }
        let note = Checkpoint::new(ORIGIN, size, tree.root(), size).unwrap().sign(signer);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.note"));
        fs::write(&path, note).unwrap();
        path.display().to_string()
    }

    #[test]
    fn an_export_goes_on_from_what_was_kept_and_from_no_other_history() {
        let stranger = Signer::from_seed("example.org/audit", [4; 32]).unwrap();
        for (name, size, changed, signer, finding) in [
            ("kept-5", 5, None, signer(), None),
            ("kept-all", ENTRIES, None, signer(), None),
            ("kept-changed", 5, Some(2), signer(), Some("root differs at size 5")),
            ("kept-longer", 16, None, signer(), Some("covers 16 entries, the log ends after 15")),
            ("kept-stranger", 5, None, stranger, Some("no signature is by the known key")),
        ] {
            let note = kept(name, size, changed, &signer);

            let (code, printed) = verify(name, &export(), &["--checkpoint", &note]);

            assert_eq!(code, Some(finding.map_or(0, |_| 1)), "{name}: {printed}");
            assert!(finding.is_none_or(|finding| printed.contains(finding)), "{name}: {printed}");
        }
    }

    #[test]
    fn what_is_no_export_is_unreadable() {
        let mut broken = export();
        broken[3] = "{\"index\":\n".to_owned();
        let mut repeated = export();
        repeated[2] = repeated[2].replacen("\"index\":0", "\"index\":0,\"index\":0", 1);
        for (name, lines) in [
            ("empty", vec![]),
            ("other", vec!["{}\n".to_owned()]),
            ("broken", broken),
            ("repeated", repeated),
        ] {
            let (code, printed) = verify(name, &lines, &[]);

            assert_eq!(code, Some(2), "{name}: {printed}");
            assert!(printed.starts_with("unreadable: "), "{name}: {printed}");
        }
    }
}
