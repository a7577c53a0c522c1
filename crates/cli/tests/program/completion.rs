//! `fermata completion`.

use std::process::Stdio;

use tokio::process::Command;

use crate::support::run;

/// What bash offers behind `words`, of which the last is being typed.
async fn offered_by_bash(words: &[&str]) -> String {
    let script = run(&["completion", "bash"]).await;
    assert_eq!(script.code, 0, "{}", script.stderr);
    let line = words.join(" ");
    let (last, before) = words.split_last().unwrap();
    let asked = format!(
        "{}\nCOMP_WORDS=({line})\nCOMP_CWORD={}\nCOMP_LINE='{line}'\nCOMP_POINT={}\n\
         _fermata fermata '{last}' '{}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        script.stdout,
        before.len(),
        line.len(),
        before.last().unwrap(),
    );
    // Longer than an argument may be.
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("asked.bash");
    std::fs::write(&file, asked).expect("a file");
    let mut bash = Command::new("bash");
    bash.args(["--norc", "--noprofile"]).arg(file).stdin(Stdio::null());
    let output = bash.output().await.expect("bash is there");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn bash_completes_commands_options_and_their_values() {
    let lines = |offered: &str| offered.lines().map(str::to_owned).collect::<Vec<_>>();

    assert_eq!(lines(&offered_by_bash(&["fermata", "run"]).await), ["runs"]);
    assert_eq!(lines(&offered_by_bash(&["fermata", "runs", "ex"]).await), ["explain"]);
    assert_eq!(lines(&offered_by_bash(&["fermata", "runs", "list", "--wo"]).await), ["--workflow"]);
    let statuses = offered_by_bash(&["fermata", "runs", "list", "--status", "t"]).await;
    assert_eq!(lines(&statuses), ["timed_out"]);
}

#[tokio::test]
async fn there_is_a_script_for_each_shell() {
    for (shell, beginning) in
        [("zsh", "#compdef fermata"), ("fish", "# Print"), ("powershell", "using namespace")]
    {
        let script = run(&["completion", shell]).await;

        assert_eq!(script.code, 0, "{}", script.stderr);
        assert!(script.stdout.trim_start().starts_with(beginning), "{shell}: {}", &script.stdout);
        assert!(script.stdout.contains("explain"), "{shell}");
    }
    assert_eq!(run(&["completion", "tcsh"]).await.code, 2);
}
