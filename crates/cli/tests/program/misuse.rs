//! What was typed wrong, or asked of a broker that is not whole: told with what to do instead.

use fermata_wire::dead::DeadLetter;
use serde_json::Value;

use crate::support::{Ended, Stage, run};

/// The error that stands alone on standard error, as programs read it.
fn error(ended: &Ended) -> Value {
    assert_eq!(ended.stdout, "", "{}", ended.stderr);
    let value: Value = serde_json::from_str(&ended.stderr).expect(&ended.stderr);
    assert_eq!(value["exit_code"], ended.code);
    value
}

#[tokio::test]
async fn what_is_wrong_with_arguments_is_json_for_programs() {
    let slip = error(&run(&["runs", "list", "--limt", "3", "--json"]).await);
    let nothing = error(&run(&["--json", "strategy"]).await);
    let refused = error(&run(&["--json", "runs", "show", "x"]).await);
    let people = run(&["runs", "list", "--limt", "3"]).await;

    assert!(slip["error"].as_str().is_some_and(|text| text.contains("'--limit'")), "{slip}");
    assert_eq!(nothing["error"], "a command is missing; `--help` in its place lists them");
    assert_eq!((&refused["exit_code"], &refused["reasons"]), (&2.into(), &Value::Array(vec![])));
    assert_eq!(people.code, 2);
    assert!(people.stderr.contains("\nUsage: fermata runs list"), "{}", people.stderr);
}

#[tokio::test]
async fn what_is_missing_or_is_no_id_is_told_in_our_words() {
    let prove = run(&["audit", "prove"]).await;
    let show = run(&["review", "show", "nonsense"]).await;
    let close = ["review", "resolve", "nonsense", "--close", "--reason", "x"];
    let resolve = run(&close).await;

    assert_eq!((prove.code, show.code, resolve.code), (2, 2, 2));
    assert!(prove.stderr.contains("<--run <ID>|--partition <P>>"), "{}", prove.stderr);
    for ended in [show, resolve] {
        let told = "expected the id of a case, as `fermata review list` shows it";
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn an_event_to_explain_that_is_no_json_is_told_with_one_that_is() {
    let folder = tempfile::tempdir().unwrap();
    let event = folder.path().join("event.json").display().to_string();
    std::fs::write(&event, "{'id': 7}").unwrap();

    let explained = run(&["strategy", "explain", &event, "--tenant", "acme", "--json"]).await;

    assert_eq!(explained.code, 2, "{}", explained.stderr);
    let error = error(&explained);
    let told = error["error"].as_str().unwrap();
    for part in [
        &*event,
        "is no JSON: expected a key in double quotes, found `'` at line 1 column 2",
        "such as `{\"specversion\": \"1.0\"",
    ] {
        assert!(told.contains(part), "{told}");
    }
}

#[tokio::test]
async fn an_event_to_explain_that_nests_too_deep_is_told_with_the_limit_and_where() {
    let folder = tempfile::tempdir().unwrap();
    let event = folder.path().join("event.json").display().to_string();
    std::fs::write(&event, format!("{{\"data\": {}{}}}", "[".repeat(200), "]".repeat(200)))
        .unwrap();

    let explained = run(&["strategy", "explain", &event, "--tenant", "acme"]).await;

    assert_eq!(explained.code, 2, "{}", explained.stderr);
    let told = "nests too deep at line 1 column 136: an event nests at most 64 levels";
    assert!(explained.stderr.contains(told), "{}", explained.stderr);
}

#[tokio::test]
async fn a_stream_that_is_gone_is_told_with_who_says_more() {
    let stage = Stage::new().await;
    for stream in ["DEAD", "AUDIT_0", "JOURNAL_0"] {
        stage.delete_stream(stream).await;
    }

    for (stream, command) in [
        ("DEAD", &["dead", "list"][..]),
        ("DEAD", &["dead", "show", "1.0"]),
        ("JOURNAL_0", &["runs", "list"]),
        ("JOURNAL_0", &["review", "list"]),
    ] {
        let ended = stage.run(command).await;

        assert_eq!(ended.code, 3, "{command:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(&format!("stream `{stream}`")), "{}", ended.stderr);
        assert!(ended.stderr.contains("`fermata doctor`"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_list_narrowed_to_what_does_not_exist_says_so() {
    let stage = Stage::new().await;
    let letter = DeadLetter {
        id: "7.0".to_owned(),
        tenant: "acme".to_owned(),
        stage: "janitor".to_owned(),
        reason: "too_dusty".to_owned(),
        detail: "filed by a newer version".to_owned(),
        subject: "fermata.events.acme.a".to_owned(),
        original: b"{"[..].into(),
        time_ms: 1_700_000_000_000,
        headers: Vec::new(),
        attempts: None,
        trace: None,
    };
    let subject = "fermata.dead.acme.janitor".to_owned();
    let payload = letter.encode().unwrap().into();
    stage.publisher.publish(subject, None, payload).await.await.sequence().expect("stored");

    for (command, told) in [
        (["dead", "list", "--stage", "listner"], "did you mean `listener`?"),
        (["dead", "list", "--reason", "not_jsn"], "did you mean `not_json`?"),
        (["dead", "list", "--reason", "forged"], "near are replay_forged; docs/reason-codes.md"),
        (["dead", "list", "--reason", "cold"], "docs/reason-codes.md"),
        (["review", "list", "--reason", "cold"], "known are unmatched, run_failed"),
    ] {
        let ended = stage.run(&command).await;
        assert_eq!(ended.code, 2, "{command:?}: {}{}", ended.stdout, ended.stderr);
        assert!(ended.stderr.contains(told), "{}", ended.stderr);
        // It is the only answer: that there are none is another one.
        assert_eq!(ended.stdout, "", "{command:?}");
    }
    // What is there can be asked for, whatever this version knows; what is known may be absent.
    for command in [
        ["dead", "list", "--stage", "janitor"],
        ["dead", "list", "--reason", "too_dusty"],
        ["dead", "list", "--stage", "builder"],
    ] {
        let ended = stage.run(&command).await;
        assert_eq!(ended.code, 0, "{command:?}: {}", ended.stderr);
    }
}

#[tokio::test]
async fn a_file_that_is_no_json_and_data_that_is_none_are_told_with_the_place_and_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.txt").display().to_string();
    std::fs::write(&file, "{\n oops").unwrap();

    let published = run(&["publish", "--tenant", "acme", &file]).await;
    let data = ["publish", "--tenant", "acme", "--type", "a", "--data", "{amount: 12}", "--json"];
    let data = run(&data).await;
    let schema = folder.path().join("schema.json").display().to_string();
    std::fs::write(&schema, "{\"title\": \"a\", \"title\": \"b\"}").unwrap();
    let checked = run(&["contract", "check", &schema]).await;
    let apply =
        ["contract", "apply", "--tenant", "order.placed", "--type", "acme", "--version", "v1"];
    let swapped = run(&[&apply[..], &[&schema]].concat()).await;

    assert_eq!((published.code, data.code, checked.code, swapped.code), (1, 2, 1, 2));
    for part in [&*file, "at line 2 column 2", "`--data-file FILE", "(not_json)"] {
        assert!(published.stdout.contains(part), "{}", published.stdout);
    }
    let told = error(&data)["error"].as_str().unwrap().to_owned();
    assert!(
        told.starts_with("`--data` is no JSON: expected a key in double quotes, found `amount` at line 1 column 2"),
        "{told}"
    );
    assert!(told.contains("as in `--data '{\"amount\": 12}'`"), "{told}");
    assert!(
        checked.stdout.contains("`title` is there twice at line 1 column"),
        "{}",
        checked.stdout
    );
    let told = "types have dots: `--tenant acme --type order.placed`";
    assert!(swapped.stderr.contains(told), "{}", swapped.stderr);
}
