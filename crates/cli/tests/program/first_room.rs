//! A first start that asks for more room than the broker has, and the start after it.

use fermata_jetstream::usage::stream_usages;

use crate::process::Running;
use crate::support::{Stage, program, run};

const GIB: u64 = 1 << 30;

#[tokio::test]
async fn a_first_start_that_asks_for_too_much_makes_nothing_and_the_next_one_goes_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let up = ["up", "--json", "--partitions", "1", "--data-dir", data.as_str()];

    let refused = run(&[&up[..], &["--stream-room", "1000TiB"]].concat()).await;

    assert_eq!(refused.code, 3, "{}{}", refused.stdout, refused.stderr);
    let parts =
        ["which is more than there is: the server has", "nothing was made", "`--stream-room "];
    for part in parts {
        assert!(refused.stderr.contains(part), "{part}: {}", refused.stderr);
    }
    let mut plain = Running::of(program(&up)).await;
    assert_eq!(plain.said["ready"], true, "{}", plain.said);
    plain.end().await;
}

#[tokio::test]
async fn what_was_made_before_the_broker_refused_is_removed_again() {
    let stage = Stage::bare_with_store(6 * GIB).await;
    let (url, data) = (stage.server.url(), stage.folder.path().join("data").display().to_string());
    let up = ["up", "--json", "--partitions", "1", "--nats-url", &url, "--data-dir", &data];

    // Nobody tells the limit of a broker that is another's.
    let refused = run(&[&up[..], &["--stream-room", "16GiB"]].concat()).await;

    assert_eq!(refused.code, 3, "{}{}", refused.stdout, refused.stderr);
    assert!(refused.stderr.contains("are removed again"), "{}", refused.stderr);
    let left = stream_usages(&stage.broker).await.expect("the streams");
    let left = left.into_iter().map(|usage| usage.name).collect::<Vec<_>>();
    assert_eq!(left, ["CONFIG"], "it says who the engine is, and takes next to nothing");
    let smaller = program(&[&up[..], &["--stream-room", "5GiB"]].concat());
    let mut smaller = Running::of(smaller).await;
    assert_eq!(smaller.said["ready"], true, "{}", smaller.said);
    smaller.end().await;
}
