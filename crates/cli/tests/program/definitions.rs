//! `fermata strategy` and `fermata workflow`.

use fermata_core::command::{Command, DefineCommand};
use fermata_core::partition::Definitions;
use fermata_jetstream::core_messages::CoreMessages;
use fermata_jetstream::definitions_store::DefinitionsStore;
use fermata_jetstream::reader::Holes;
use fermata_jetstream::{Broker, StreamReader};
use fermata_wire::commands::CommandFrame;

use crate::support::{Stage, run};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");

/// Answers the first command of the control partition, as an engine would.
pub async fn answer_define(broker: Broker, answer: &'static str) -> DefineCommand {
    let reader = StreamReader::new(&broker);
    let mut tail = reader.tail("COMMANDS_control", 1, Holes::Refused).await.unwrap();
    let message = tail.next_batch(1).await.unwrap().remove(0);
    let command = CommandFrame::decode(&message.payload).unwrap().commands.remove(0);
    let Command::Define(define) = command else { panic!("{command:?}") };
    let messages = CoreMessages::new(&broker);
    let to = define.reply_to.clone().unwrap().to_string();
    messages.publish_core(to, answer.into()).await.unwrap();
    messages.flush().await.unwrap();
    define
}

#[tokio::test]
async fn an_applied_workflow_has_its_plan_stored_before_the_engine_is_asked() {
    let stage = Stage::new().await;
    let answer = r#"{"revision":1,"problems":[]}"#;
    let engine = tokio::spawn(answer_define(stage.broker.clone(), answer));

    let file = format!("{EXAMPLES}/report.workflow.yaml");
    let applied = stage.run(&["workflow", "apply", &file, "--by", "alice"]).await;

    assert_eq!(applied.code, 0, "{}", applied.stderr);
    let define = engine.await.unwrap();
    assert_eq!((define.by.as_str(), define.workflows.len()), ("alice", 1));
    let plan = define.workflows[0].plan;
    let store = DefinitionsStore::open(&stage.broker).await.unwrap();
    let bytes = store.get_blob(&plan.to_string()).await.unwrap().unwrap();
    assert_eq!(fermata_core::digest::Digest::of(&bytes), plan);
}

#[tokio::test]
async fn what_the_engine_refuses_is_told() {
    let stage = Stage::new().await;
    let answer = r#"{"revision":4,"problems":["strategy `a` is older"]}"#;
    let engine = tokio::spawn(answer_define(stage.broker.clone(), answer));

    let file = format!("{EXAMPLES}/strategies.yaml");
    let refused = stage.run(&["strategy", "apply", &file]).await;

    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stdout.contains("strategy `a` is older"), "{}", refused.stdout);
    assert_eq!(engine.await.unwrap().strategies.len(), 3);
}

#[tokio::test]
async fn active_strategies_are_listed() {
    let stage = Stage::new().await;
    let answer = r#"{"revision":1,"problems":[]}"#;
    let engine = tokio::spawn(answer_define(stage.broker.clone(), answer));
    let file = format!("{EXAMPLES}/strategies.yaml");
    stage.run(&["strategy", "apply", &file]).await;
    let strategies = engine.await.unwrap().strategies;
    let strategies = strategies.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
    let active = Definitions { revision: 1, strategies, ..Definitions::default() };
    let bytes = fermata_wire::projection::Projection::of(&active).unwrap().message;
    let store = DefinitionsStore::open(&stage.broker).await.unwrap();
    store.put("active", bytes.into()).await.unwrap();

    let listed = stage.run(&["strategy", "list"]).await;

    assert_eq!(listed.code, 0, "{}", listed.stderr);
    assert!(listed.stdout.contains("report-on-completed-job"), "{}", listed.stdout);
    assert!(listed.stdout.contains("run job-report 1.0"), "{}", listed.stdout);
}

#[tokio::test]
async fn a_check_needs_no_broker_and_names_every_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.yaml").display().to_string();
    let text = "workflow:\n  name: w\n  version: \"1\"\n  agents: []\n  tasks:\n    - id: a\n      depends_on: [b]\n      noop: {}\n";
    std::fs::write(&path, text).unwrap();

    let checked = run(&["workflow", "check", &path]).await;

    assert_eq!(checked.code, 1, "{}", checked.stderr);
    assert!(checked.stdout.contains("broken.yaml:4:3 (workflow.agents)"), "{}", checked.stdout);
    assert!(checked.stdout.contains("broken.yaml:7:"), "{}", checked.stdout);
    let sound = run(&["workflow", "check", &format!("{EXAMPLES}/request.workflow.yaml")]).await;
    assert_eq!(sound.code, 0, "{}", sound.stdout);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_a_wrong_command_line() {
    assert_eq!(run(&["strategy", "check", "/nowhere.yaml"]).await.code, 2);
    assert_eq!(run(&["strategy", "bake"]).await.code, 2);
}

#[tokio::test]
async fn a_file_for_another_command_is_told_with_that_command() {
    let strategies = format!("{EXAMPLES}/strategies.yaml");
    let workflow = format!("{EXAMPLES}/report.workflow.yaml");

    let of_strategies = run(&["workflow", "check", &strategies]).await;
    let of_workflow = run(&["strategy", "check", &workflow, "--json"]).await;
    let planned = run(&["workflow", "plan", &strategies]).await;

    let told = format!("`fermata strategy check {strategies}` checks it");
    for ended in [&of_strategies, &planned] {
        assert_eq!(ended.code, 1, "{}", ended.stderr);
        assert!(ended.stdout.contains("the file holds `strategies`, not `workflow`"));
        assert!(ended.stdout.contains(&told), "{}", ended.stdout);
    }
    let problems = of_workflow.json();
    assert_eq!((of_workflow.code, problems.len()), (1, 1), "{}", of_workflow.stdout);
    let hint = problems[0]["hint"].as_str().unwrap();
    assert!(hint.starts_with(&format!("`fermata workflow check {workflow}`")), "{hint}");
}

#[tokio::test]
async fn a_line_that_is_indented_wrongly_is_hinted_at() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("w.yaml").display().to_string();
    let right = std::fs::read_to_string(format!("{EXAMPLES}/report.workflow.yaml")).unwrap();
    let name = right.lines().find(|line| line.trim_start().starts_with("name: ")).unwrap();
    for (wrong, hint) in [
        (right.replacen(name, &format!("  {name}"), 1), "begins in column"),
        (right.replacen(name, &format!("\t{}", name.trim()), 1), "indented with a tab"),
        (right.replacen(name, &format!("{name}\n    more: 1"), 1), "indented further than"),
    ] {
        std::fs::write(&file, &wrong).unwrap();

        let checked = run(&["workflow", "check", &file]).await;

        assert_eq!(checked.code, 1, "{wrong}");
        assert!(checked.stdout.contains(hint), "{hint}: {}\n{wrong}", checked.stdout);
    }
}

#[tokio::test]
async fn problems_beyond_those_that_are_listed_are_counted_and_a_file_that_is_named_twice_is_read_once()
 {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let text = |more: &str| {
        let one = |at| {
            format!(
                "  - {{ name: s{at}, version: 1, tenant: acme, on: a, action: ignore{more} }}\n"
            )
        };
        format!("strategies:\n{}", (0..300).map(one).collect::<String>())
    };
    let (broken, sound) = (file("broken.yaml"), file("sound.yaml"));
    std::fs::write(&broken, text(", wieght: 1")).unwrap();
    std::fs::write(&sound, text("")).unwrap();
    std::fs::copy(&sound, file("copy.yaml")).unwrap();
    let again = format!("{}/./sound.yaml", folder.path().display());

    let checked = run(&["strategy", "check", &broken]).await;
    let of_programs = run(&["strategy", "check", &broken, "--json"]).await;
    let several = run(&["strategy", "check", &broken, &sound]).await;
    let twice = run(&["strategy", "check", &sound, &again]).await;
    let copied = run(&["strategy", "check", &sound, &file("copy.yaml")]).await;

    let told = "the first 200 of 300 problems";
    assert_eq!(checked.stdout.lines().last(), Some(told));
    assert_eq!((of_programs.code, of_programs.json().len()), (1, 200));
    assert!(of_programs.stderr.contains(told), "{}", of_programs.stderr);
    let of_each = "200 of 300 problems in 2 files, the first ones of each";
    assert_eq!(several.stdout.lines().last(), Some(of_each));
    assert_eq!((twice.code, twice.stdout.trim()), (0, "sound: 300 strategies in 1 file"));
    let told = format!("the file `{again}` is named twice, also as `{sound}`; it is read once");
    assert!(twice.stderr.contains(&told), "{}", twice.stderr);
    // The same names in two files are another matter.
    assert_eq!(copied.code, 1);
    assert!(!copied.stderr.contains("named twice"), "{}", copied.stderr);
    assert!(!copied.stdout.contains("<memory>"), "{}", copied.stdout);
}
