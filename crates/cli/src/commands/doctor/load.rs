//! Whether anything runs full or falls behind.

use fermata_actors::figures::{LANES_STAGE, STAGES};
use fermata_actors::lanes::LANE_FRAME_EVENTS_MAX;
use fermata_jetstream::monitoring::Store;
use fermata_jetstream::progress::{SharedProgress, shared_progress, work_progress};
use fermata_jetstream::topology::WAITING_STREAM;
use fermata_jetstream::usage::StreamUsage;
use serde_json::json;

use super::Check;
use crate::broker_session::{BrokerSession, EngineConfig};
use crate::output::size_text;
use crate::stream_room::StreamRoom;

/// From where on a store or a stream is filling, percent.
const FILLING_PERCENT: u64 = 80;

/// From where on it refuses soon, percent.
const FULL_PERCENT: u64 = 98;

/// Messages behind which a stage lags: seconds of a worker's work.
const LAG_MESSAGES_MAX: u64 = 100_000;

/// Frames in lanes behind which they lag: as many events, where frames are full.
const LAG_LANE_FRAMES_MAX: u64 = LAG_MESSAGES_MAX / LANE_FRAME_EVENTS_MAX as u64;

fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

/// The server's store of streams.
pub(super) fn judge_store(store: &Store) -> Check {
    let (bytes, bytes_max) = (store.bytes, store.bytes_max);
    let used = percent(bytes, bytes_max);
    let found = format!("{used} % of the server's {} are used", size_text(bytes_max));
    let hint = "free some disk or raise `max_file_store`, then restart the server: freeing space alone does not heal it";
    match used {
        FULL_PERCENT.. => Check::fail("store", found, hint).code("store_full"),
        FILLING_PERCENT.. => Check::warn("store", found, hint).code("store_filling"),
        _ => Check::ok("store", found),
    }
}

/// How full the engine's own streams are.
pub(super) async fn room(
    session: &BrokerSession,
    config: &EngineConfig,
    stores: &[Store],
) -> Check {
    match StreamRoom::look(session, config, stores).await {
        Ok(room) => judge_room(&room),
        Err(error) => Check::failed("room", &error),
    }
}

fn used(usage: &StreamUsage) -> u64 {
    usage.bytes_max.map_or(0, |bytes_max| percent(usage.state.bytes, bytes_max))
}

/// The streams that fill, the fullest first.
pub(super) fn filling(usages: &[StreamUsage]) -> Vec<&StreamUsage> {
    let mut filling =
        usages.iter().filter(|usage| used(usage) >= FILLING_PERCENT).collect::<Vec<_>>();
    filling.sort_by_key(|usage| std::cmp::Reverse(used(usage)));
    filling
}

fn judge_room(room: &StreamRoom) -> Check {
    let usages = &room.usages;
    let filling = filling(usages);
    let Some(fullest) = filling.first() else {
        let most = usages.iter().map(used).max().unwrap_or(0);
        return Check::ok("room", format!("the fullest stream is filled to {most} %"));
    };
    let named = |usage: &&StreamUsage| format!("{} is filled to {} %", usage.name, used(usage));
    let found = filling.iter().map(named).collect::<Vec<_>>().join(", ");
    let details = filling.iter().map(|usage| {
        json!({ "stream": usage.name, "bytes": usage.state.bytes, "bytes_max": usage.bytes_max })
    });
    let hint = format!(
        "{}; docs/limits.md says what happens when a stream is full",
        room.told(&room.advice(&filling))
    );
    let check = match used(fullest) {
        FULL_PERCENT.. => Check::fail("room", found, hint).code("stream_full"),
        _ => Check::warn("room", found, hint).code("stream_filling"),
    };
    check.details(details)
}

pub(super) async fn lag(session: &BrokerSession) -> Check {
    let mut found = Vec::new();
    for (stage, stream, consumer) in STAGES {
        // A consumer that nobody made has no workers, which another check tells.
        if let Ok(progress) = shared_progress(session.broker(), stream, consumer).await {
            found.push((stage, progress));
        }
    }
    // An engine of a version that made no lanes has none.
    let lanes = work_progress(session.broker(), WAITING_STREAM).await.ok();
    judge_lag(&found, lanes.map(|progress| progress.left))
}

fn judge_lag(stages: &[(&'static str, SharedProgress)], lanes: Option<u64>) -> Check {
    let text = |(stage, progress): &(&str, SharedProgress)| {
        format!("{stage} {} behind, {} held", progress.waiting, progress.unacknowledged)
    };
    let in_lanes = lanes.map(|frames| format!("{frames} frames in {LANES_STAGE}"));
    let found = stages.iter().map(text).chain(in_lanes).collect::<Vec<_>>().join("; ");
    if stages.iter().any(|(_, progress)| progress.waiting > LAG_MESSAGES_MAX) {
        let hint =
            "start more workers with the role of the stage that lags, or look into their logs";
        return Check::warn("lag", found, hint).code("consumer_lag");
    }
    if lanes.is_some_and(|frames| frames > LAG_LANE_FRAMES_MAX) {
        let hint = "tenants publish more than the engine gets done, and their events wait in WAITING: start more \
                    workers, or let them publish less";
        return Check::warn("lag", found, hint).code("consumer_lag");
    }
    Check::ok("lag", found)
}

#[cfg(test)]
mod tests {
    use fermata_jetstream::{StreamState, Topology};

    use super::*;
    use crate::commands::doctor::Health;

    fn usage(name: &str, bytes: u64, bytes_max: Option<u64>) -> StreamUsage {
        let state = StreamState { bytes, ..StreamState::default() };
        StreamUsage { name: name.to_owned(), state, bytes_max, replicas: 1 }
    }

    fn judged(usages: Vec<StreamUsage>) -> Check {
        judge_room(&StreamRoom::of(Topology::default(), usages, None))
    }

    #[test]
    fn a_stream_that_fills_is_warned_of_and_a_full_one_fails() {
        let fine = vec![usage("EVENTS", 79, Some(100)), usage("DEAD", 1 << 60, None)];
        assert_eq!(judged(fine).health, Health::Ok);
        let filling = judged(vec![usage("EVENTS", 80, Some(100)), usage("DEAD", 97, Some(100))]);
        assert_eq!(filling.code, Some("stream_filling"));
        assert_eq!(filling.found, "DEAD is filled to 97 %, EVENTS is filled to 80 %");
        assert_eq!(judged(vec![usage("DEAD", 98, Some(100))]).code, Some("stream_full"));
        // Streams of other programs are theirs.
        assert_eq!(judged(vec![usage("A", 98, Some(100))]).health, Health::Ok);
    }

    #[test]
    fn the_command_that_enlarges_what_fills_is_named_with_its_size() {
        let mebi = |mebi: u64| mebi << 20;
        let hint = |usages| judged(usages).hint.expect("a hint");

        let together = hint(vec![
            usage("EVENTS", mebi(1), Some(mebi(7_900))),
            usage("AUDIT_3", mebi(180), Some(mebi(200))),
        ]);
        assert!(
            together.contains("`fermata doctor --repair room --stream-room 16GiB`"),
            "{together}"
        );
        // Its size is none of those that are shared out.
        let leases = hint(vec![usage("KV_fermata-leases", mebi(15), Some(mebi(16)))]);
        assert!(leases.contains("--only KV_fermata-leases --to 32MiB`"), "{leases}");
    }

    #[test]
    fn a_store_that_fills_is_warned_of_and_a_full_one_fails() {
        let store = |bytes| Store {
            server_id: String::new(),
            is_sync_always: true,
            bytes,
            bytes_max: 1_000,
            reserved_bytes: 0,
        };

        assert_eq!(judge_store(&store(799)).health, Health::Ok);
        assert_eq!(judge_store(&store(800)).code, Some("store_filling"));
        assert_eq!(judge_store(&store(980)).code, Some("store_full"));
    }

    #[test]
    fn a_stage_that_lags_is_warned_of() {
        let progress = |waiting| SharedProgress {
            acknowledged_up_to: 0,
            unacknowledged: 3,
            redelivered: 0,
            waiting,
        };

        assert_eq!(judge_lag(&[("listener", progress(LAG_MESSAGES_MAX))], None).health, Health::Ok);
        let lags = judge_lag(&[("listener", progress(LAG_MESSAGES_MAX + 1))], None);
        assert_eq!(lags.code, Some("consumer_lag"));
        assert_eq!(lags.found, "listener 100001 behind, 3 held");
    }

    #[test]
    fn lanes_that_hold_much_are_warned_of() {
        let fine = judge_lag(&[], Some(LAG_LANE_FRAMES_MAX));
        assert_eq!((fine.health, fine.found.as_str()), (Health::Ok, "390 frames in lanes"));
        let lags = judge_lag(&[], Some(LAG_LANE_FRAMES_MAX + 1));
        assert_eq!((lags.health, lags.code), (Health::Warn, Some("consumer_lag")));
        assert_eq!(lags.found, "391 frames in lanes");
    }
}
