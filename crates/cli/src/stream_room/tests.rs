use fermata_jetstream::StreamState;

use super::*;

/// The streams of an engine with 8 GiB, on a server that has `free_mib` more.
fn room(free_mib: Option<u64>) -> StreamRoom {
    let topology = Topology::default();
    let usage = |spec: fermata_jetstream::StreamSpec| StreamUsage {
        name: spec.name,
        state: StreamState::default(),
        bytes_max: u64::try_from(spec.max_bytes).ok(),
        replicas: 1,
    };
    let usages: Vec<_> =
        topology.clone().fitted_to(8 << 30).streams().into_iter().map(usage).collect();
    let reserved_bytes = usages.iter().filter_map(|usage| usage.bytes_max).sum();
    let store = free_mib.map(|free| StoreRoom {
        limited_by: LimitedBy::Server,
        bytes_max: reserved_bytes + (free << 20),
        reserved_bytes,
        copies: 1,
    });
    StreamRoom::of(topology, usages, store)
}

fn named<'r>(room: &'r StreamRoom, name: &str) -> &'r StreamUsage {
    room.usages.iter().find(|usage| usage.name == name).expect("a stream of ours")
}

fn advised(free_mib: Option<u64>, name: &str) -> String {
    let room = room(free_mib);
    room.told(&room.advice(&[named(&room, name)]))
}

#[test]
fn what_fills_is_doubled_where_there_is_room_for_that() {
    let doubled = advised(Some(30 << 10), "EVENTS");
    assert!(doubled.ends_with("`fermata doctor --repair room --stream-room 32GiB`"), "{doubled}");
    let unknown = advised(None, "EVENTS");
    assert!(unknown.contains("--stream-room 32GiB`, if the server has so much"), "{unknown}");
}

#[test]
fn no_more_is_advised_than_there_is() {
    let most = advised(Some(18 << 10), "EVENTS");
    assert!(most.contains("--stream-room 26GiB`, the most that fits: the server has 26"), "{most}");
    // Together each would have a trifle more.
    let alone = advised(Some(300), "EVENTS");
    let command = "--only EVENTS --to 685MiB`, the most that fits";
    assert!(alone.contains(command), "{alone}");
    let nothing = advised(Some(10), "EVENTS");
    assert!(nothing.contains("`max_file_store` in the `jetstream` block"), "{nothing}");
    assert!(!nothing.contains("--repair"), "{nothing}");
}

#[test]
fn one_stream_alone_gets_what_is_needed_or_nothing() {
    let room = room(Some(300));
    let payloads = named(&room, "OBJ_fermata-payloads");
    let now = payloads.bytes_max.expect("a limit");

    let alone = |needed| match room.alone(payloads, needed) {
        Advice::Alone { bytes, is_most, .. } => Some((bytes, is_most)),
        Advice::Together { .. } | Advice::Nothing => None,
    };

    assert_eq!(alone(0), Some((bytes(2 * now) / MIB * MIB, false)));
    let (given, is_most) = alone(now + (299 << 20)).expect("it fits");
    assert!(given >= bytes(now) + 299 * MIB && !is_most, "{given}");
    assert_eq!(alone(now + (301 << 20)), None);
}

#[test]
fn what_was_asked_for_is_refused_with_what_there_is_and_the_most_that_fits() {
    let room = room(Some(18 << 10));
    let refused = |added_mib: i64, only| {
        room.judge(added_mib * MIB, "`--stream-room 32GiB`", only).map_err(|why| why.to_string())
    };

    assert_eq!(refused(18 << 10, None), Ok(()));
    let why = refused(24 << 10, None).expect_err("more than there is");
    for part in [
        "`--stream-room 32GiB` needs 24.0 GiB more",
        "the server has 26.",
        "of which 8.0 GiB are reserved; the most that fits is `--stream-room 26GiB`",
        "nothing was changed",
    ] {
        assert!(why.contains(part), "{part}: {why}");
    }
    let why = refused(24 << 10, Some(named(&room, "EVENTS"))).expect_err("more than there is");
    assert!(why.contains("the most that fits is `--to 18817MiB`"), "{why}");
}

#[test]
fn without_a_limit_that_is_known_nothing_is_refused() {
    assert!(room(None).judge(i64::MAX, "all", None).is_ok());
}

#[test]
fn a_size_is_typed_in_the_largest_unit_that_is_whole() {
    let typed = [3 * GIB, 1_500 * MIB, MIB + 1].map(size_argument);

    assert_eq!(typed, ["3GiB", "1500MiB", "1048577"]);
}
