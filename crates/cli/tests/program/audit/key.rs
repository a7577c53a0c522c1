//! `fermata audit key`.

use serde_json::Value;

use super::write_log;
use crate::support::{ENGINE, Stage, run, signer};

#[tokio::test]
async fn the_public_key_is_told_by_the_broker_and_by_the_private_key_and_checks_what_was_signed() {
    let stage = Stage::new().await;
    write_log(&stage, |_, _| {}).await;
    let data = stage.folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let private = signer().to_private_text();
    std::fs::write(data.join("audit.key"), format!("{private}\n")).unwrap();
    let (data, file) = (data.display().to_string(), data.join("audit.key").display().to_string());

    let told = stage.run(&["audit", "key"]).await;
    let of_folder = run(&["audit", "key", "--data-dir", &data, "--audit-key"]).await;
    let of_file = run(&["audit", "key", "--json", "--audit-key", &file]).await;
    let as_json = stage.run(&["audit", "key", "--json"]).await;

    assert_eq!((told.code, &told.stdout), (0, &format!("{}\n", signer().vkey())));
    assert!(told.stderr.contains("engine's configuration in the broker"), "{}", told.stderr);
    assert_eq!((&of_folder.stdout, &*of_folder.stderr), (&told.stdout, ""));
    assert_eq!(of_file.json()[0]["vkey"], signer().vkey());
    assert_eq!(
        (&of_file.json()[0]["engine"], &of_file.json()[0]["from"]),
        (&Value::Null, &file.into())
    );
    assert_eq!(as_json.json()[0]["engine"], ENGINE);
    assert!(!of_file.stdout.contains(private.rsplit('+').next().unwrap()), "{}", of_file.stdout);

    let vkey = told.stdout.trim();
    let verified = stage.run(&["audit", "verify", "--vkey", vkey]).await;
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
}

#[tokio::test]
async fn without_a_private_key_it_says_where_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other").display().to_string();
    std::fs::write(&file, signer().vkey()).unwrap();

    let refused = run(&["audit", "key", "--audit-key", &file]).await;

    assert_eq!(refused.code, 2, "{}", refused.stdout);
    assert!(refused.stderr.contains("in its data folder, `audit.key`"), "{}", refused.stderr);
}
