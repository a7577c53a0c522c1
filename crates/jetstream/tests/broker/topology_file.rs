//! The description of the streams that operators read follows from the code.

use std::{env, fs, path::Path};

use fermata_jetstream::Topology;

#[test]
fn the_published_topology_is_what_the_program_applies() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nats/topology.json");
    let mut expected =
        serde_json::to_string_pretty(&Topology::default().streams()).expect("streams are JSON");
    expected.push('\n');

    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &expected).expect("written");
    }

    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "`nats/topology.json` is not current; run this test with UPDATE=1");
}
