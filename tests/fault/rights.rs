//! Where a machine does not give the rights that a test needs, it is told as not run. How that is taken
//! from those that passed is checked by `scripts/run_tests.py --self-test`.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// Who owns nothing and may do nothing.
const NOBODY: u32 = 65_534;

/// One test for each right that is asked for, and how it names itself.
const TESTS: [(&str, &str); 3] = [
    (
        "disk::a_full_disk_stops_effects_is_told_and_loses_nothing_accepted",
        "a full disk stops effects, is told, and loses nothing accepted",
    ),
    (
        "partition::a_server_that_is_cut_off_decides_nothing_and_is_not_believed",
        "a server that is cut off decides nothing and is not believed",
    ),
    (
        "power::a_power_cut_of_the_only_server_loses_nothing_acknowledged_where_all_is_synced",
        "a power cut of the only server loses nothing acknowledged",
    ),
];

fn opened(path: &Path, mode: u32) {
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).expect("permissions");
}

#[test]
fn tests_that_lack_their_rights_say_that_they_are_not_run_and_why() {
    let folder = tempfile::tempdir().expect("a folder");
    opened(folder.path(), 0o755);
    let notes = folder.path().join("notes");
    std::fs::create_dir(&notes).expect("a folder");
    opened(&notes, 0o777);
    // Where it stands, nobody else may be able to look.
    let (own, program) = (std::env::current_exe().expect("a program"), folder.path().join("fault"));
    std::fs::hard_link(&own, &program)
        .or_else(|_| std::fs::copy(&own, &program).map(drop))
        .expect("the same program");
    let mut tests = Command::new(&program);
    tests.args(["--exact", "--nocapture", "--test-threads=1"]).args(TESTS.map(|(test, _)| test));
    tests.env("FERMATA_NOT_RUN", &notes).current_dir(folder.path());
    if std::fs::metadata("/proc/self").expect("a process").uid() == 0 {
        tests.uid(NOBODY).gid(NOBODY);
    }

    let output = tests.output().expect("the tests run");

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let left = std::fs::read_dir(&notes).expect("a folder");
    let left =
        left.map(|note| std::fs::read_to_string(note.expect("a note").path()).expect("text"));
    let left: BTreeSet<String> = left.collect();
    assert_eq!(left.len(), TESTS.len(), "{left:?}\n{said}");
    for (_, name) in TESTS {
        let note = left.iter().find_map(|note| note.strip_prefix(&format!("{name}: ")));
        let reason = note.unwrap_or_else(|| panic!("no note of `{name}`: {left:?}"));
        assert!(!reason.trim().is_empty(), "{name}");
        assert!(said.contains(&format!("fault: NOT RUN: {name}: ")), "{said}");
    }
}
