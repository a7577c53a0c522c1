//! Servers, sink and a user's connection, and what must hold when all is healed.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use fermata_core::identity::{PartitionId, SourcePosition};
use fermata_core::record::{Body, Kind};
use fermata_jetstream::definitions_store::DefinitionsStore;
use fermata_jetstream::topology::journal_stream;
use fermata_jetstream::{
    Broker, ConnectOptions, Durability, Publisher, PublisherOptions, StreamReader,
};
use fermata_tests::cluster::the_same_on_all;
use fermata_tests::invariants::{
    invariant_each_attempt_was_ordered, invariant_each_effect_has_one_outcome,
    invariant_each_effect_is_committed_once, invariant_each_event_has_one_outcome,
    invariant_each_run_ends_once, invariant_epochs_rise, invariant_no_key_starts_twice, source_of,
};
use fermata_tests::journal::{Entry, JournalWatch, count, tally};
use fermata_tests::snapshots::Snapshots;
use fermata_tests::{Sink, TestEngine, audit, definitions};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::ground::Ground;
use crate::load::{Published, STRATEGIES, WORKFLOWS, is_http};
use crate::process::{EngineProcess, Surroundings, log_of};

/// Data partitions.
pub const PARTITIONS: u16 = 4;

/// How long everything may take to come to its end when nothing disturbs it any
/// more: what a killed worker held comes again after 30 s, the broker's wait
/// for an acknowledgement; the rest is for a loaded machine.
const HEAL_LIMIT: Duration = Duration::from_secs(120);

/// How long all faults together may take unless `FAULT_SECONDS` says otherwise.
const SECONDS_DEFAULT: u64 = 180;

/// Tests among which that time is shared, two running at once; those with several servers run alone.
const TESTS_IN_A_ROW: u64 = 16;

/// A journal with so much more than two segments is purged, where snapshots come often.
const JOURNAL_BYTES_PURGED: usize = 50_000;

/// Lines of a log that are shown when a test fails.
const LOG_LINES_MAX: usize = 60;

pub struct Scene {
    pub name: &'static str,
    seed: u64,
    begun: Instant,
    pub dice: StdRng,
    pub ground: Ground,
    pub broker: Broker,
    pub sink: Sink,
    pub publisher: Publisher,
    pub reader: StreamReader,
    /// How often engines that are started from now on take snapshots.
    pub snapshots: Snapshots,
    store: DefinitionsStore,
}

/// How many of a hundred runs must succeed where nobody cancels any.
const SUCCEEDED_PERCENT_MIN: usize = 99;

/// What the journals say about how it went.
pub struct Healed {
    /// Every record of every partition.
    pub records: Vec<Entry>,
    /// The longest time without an append to a data partition's journal while events came.
    pub journal_pause: Duration,
}

impl Scene {
    /// One server with definitions, and no engine running.
    pub async fn set(name: &'static str) -> Self {
        Self::set_on(name, Ground::alone(Durability::Process).await).await
    }

    /// Servers with definitions, and no engine running.
    pub async fn set_on(name: &'static str, ground: Ground) -> Self {
        Self::set_at(name, ground, Ipv4Addr::LOCALHOST.into()).await
    }

    /// The same with a sink at this address.
    pub async fn set_at(name: &'static str, ground: Ground, sink: IpAddr) -> Self {
        let seed = std::env::var("FAULT_SEED").ok().map_or_else(rand::random, |seed| {
            seed.parse().expect("`FAULT_SEED` is a whole number")
        });
        println!("fault: {name}: FAULT_SEED={seed}");
        let sink = Sink::start_at(sink).await;
        let (partitions, replicas) = (PARTITIONS, ground.replicas());
        let engine = TestEngine { partitions, replicas, ..TestEngine::at(ground.url()) };
        let engine = engine.named("w-a").start(ground.folder()).await;
        engine.ready().await;
        definitions::apply_yaml(&engine, &WORKFLOWS, STRATEGIES).await;
        engine.shut_down().await;
        let broker = Broker::connect(&ground.url(), ConnectOptions::default()).await;
        let broker = broker.expect("a connection");
        let publisher = Publisher::new(&broker, PublisherOptions::default()).await;
        Self {
            name,
            seed,
            begun: Instant::now(),
            dice: StdRng::seed_from_u64(seed),
            publisher: publisher.expect("a publisher"),
            reader: StreamReader::new(&broker),
            snapshots: Snapshots::Often,
            store: DefinitionsStore::open(&broker).await.expect("definitions"),
            ground,
            broker,
            sink,
        }
    }

    /// Starts a worker in a process of its own.
    pub fn engine(&self, worker: &str) -> EngineProcess {
        self.engine_at(&self.ground.url(), worker)
    }

    /// The same, connected to the server of this address first.
    pub fn engine_at(&self, url: &str, worker: &str) -> EngineProcess {
        self.engine_in(url, worker, &Surroundings::default())
    }

    /// The same in surroundings that are not the usual ones.
    pub fn engine_in(&self, url: &str, worker: &str, surroundings: &Surroundings) -> EngineProcess {
        let (folder, sink) = (self.ground.folder(), self.sink.url());
        let engine = (PARTITIONS, self.snapshots);
        EngineProcess::start(url, worker, folder, sink, engine, surroundings)
    }

    /// Whether there is time for another round; the first few are always made.
    pub fn has_time(&self, rounds: u32) -> bool {
        let seconds = std::env::var("FAULT_SECONDS").ok().map_or(SECONDS_DEFAULT, |seconds| {
            seconds.parse().expect("`FAULT_SECONDS` is a whole number")
        });
        rounds < 3 || self.begun.elapsed() < Duration::from_secs(seconds / TESTS_IN_A_ROW)
    }

    /// The same where a round is long: one is always made.
    pub fn has_time_for_one_more(&self, rounds: u32) -> bool {
        rounds < 1 || self.has_time(rounds.max(3))
    }

    /// Every partition's journal from its beginning.
    pub fn watches(&self) -> Vec<JournalWatch> {
        let data = (0..PARTITIONS).map(PartitionId);
        data.chain([PartitionId::CONTROL]).map(JournalWatch::new).collect()
    }

    /// The worker that took each partition over last, by partition, control last.
    pub async fn owners(&self, watches: &mut [JournalWatch]) -> Vec<String> {
        let mut owners = Vec::new();
        for watch in watches {
            let _ = watch.read(&self.reader).await;
            let owner = watch.records.iter().rev().find_map(|(_, record)| match &record.body {
                Body::PartitionOwned(owned) => Some(owned.worker.to_string()),
                _ => None,
            });
            owners.push(owner.unwrap_or_default());
        }
        owners
    }

    /// Waits until all is quiet with an engine that runs, and checks everything.
    pub async fn heal_and_check(&self, published: &Published, rounds: u32) -> Healed {
        self.heal_and_check_runs(published, rounds, SUCCEEDED_PERCENT_MIN).await
    }

    /// The same where so many of a hundred runs must succeed.
    pub async fn heal_and_check_runs(
        &self,
        published: &Published,
        rounds: u32,
        succeeded_percent_min: usize,
    ) -> Healed {
        let (healing, mut watches) = (Instant::now(), self.watches());
        let last = self.quiet(&mut watches).await;
        let purged = self.purged(&watches).await;
        let watches = self.read_anew(watches).await;
        let records = watches.iter().flat_map(|watch| watch.records.clone()).collect::<Vec<_>>();
        let (healed, checking) = (healing.elapsed(), Instant::now());
        self.check_events(published, last, &records).await;
        let effects = self.sink.effects();
        assert_eq!(invariant_no_key_starts_twice(&records), [""; 0]);
        assert_eq!(invariant_each_run_ends_once(&records), [""; 0]);
        assert_eq!(invariant_each_effect_has_one_outcome(&records), [""; 0]);
        assert_eq!(invariant_each_effect_is_committed_once(&records, &effects, is_http), [""; 0]);
        assert_eq!(invariant_each_attempt_was_ordered(&records, &effects), [""; 0]);
        for watch in &watches {
            assert_eq!(invariant_epochs_rise(&watch.records), [""; 0]);
            let fold = watch.fold(&self.store).await;
            assert_eq!(fold.partition().runs().count(), 0);
        }
        for partition in (0..PARTITIONS).map(PartitionId).chain([PartitionId::CONTROL]) {
            audit::complete(&self.reader, partition, HEAL_LIMIT).await;
        }
        self.check_replicas().await;
        let runs = count(&records, Kind::RunStarted);
        let succeeded = count(&records, Kind::RunSucceeded);
        assert!(
            runs > 0 && succeeded * 100 >= runs * succeeded_percent_min,
            "{succeeded} of {runs} runs succeeded"
        );
        let journal_pause = longest_pause(&watches, published);
        let attempts = effects.values().map(|effect| effect.attempts.len()).sum::<usize>();
        println!(
            "fault: {}: seed {}: {rounds} rounds, {last} events ({} published again), {runs} runs \
             ({succeeded} succeeded), {} effects in {attempts} attempts, {} late outcomes, {} \
             takeovers, {purged} messages of journals purged, longest pause {:.1} s for publishers and {:.1} s in a journal, \
             healed in {:.1} s, checked in {:.1} s, {:.1} s in all",
            self.name,
            self.seed,
            published.repeated,
            effects.len(),
            count(&records, Kind::EffectLate),
            count(&records, Kind::PartitionOwned),
            published.longest_pause.as_secs_f64(),
            journal_pause.as_secs_f64(),
            healed.as_secs_f64(),
            checking.elapsed().as_secs_f64(),
            self.begun.elapsed().as_secs_f64(),
        );
        Healed { records, journal_pause }
    }

    /// How many messages are purged from journals. Where snapshots come often and there is enough
    /// to archive, some must be: they come in an idle engine too.
    async fn purged(&self, watches: &[JournalWatch]) -> u64 {
        let is_enough = |watch: &JournalWatch| {
            watch.messages.iter().map(|message| message.payload.len()).sum::<usize>()
                > JOURNAL_BYTES_PURGED
        };
        let expected = self.snapshots == Snapshots::Often && watches.iter().any(is_enough);
        let begun = Instant::now();
        loop {
            let mut purged = 0;
            for partition in (0..PARTITIONS).map(PartitionId).chain([PartitionId::CONTROL]) {
                let state = self.reader.stream_state(&journal_stream(partition)).await;
                purged += state.map_or(0, |state| state.first_sequence.saturating_sub(1));
            }
            if purged > 0 || !expected {
                return purged;
            }
            assert!(begun.elapsed() < HEAL_LIMIT, "no journal is purged");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Reads every journal from its beginning, which archives hold, and compares it with what was
    /// read of the stream before it was purged.
    async fn read_anew(&self, before: Vec<JournalWatch>) -> Vec<JournalWatch> {
        let mut anew = self.watches();
        for (anew, before) in anew.iter_mut().zip(before) {
            anew.read(&self.reader).await.expect("a journal");
            let of = |watch: &JournalWatch| {
                let messages = watch.messages.iter();
                messages
                    .map(|message| (message.sequence, message.payload.clone()))
                    .collect::<Vec<_>>()
            };
            let (anew, before) = (of(anew), of(&before));
            assert!(anew.starts_with(&before), "archived otherwise than it was");
        }
        anew
    }

    /// Every server of a cluster holds the same.
    async fn check_replicas(&self) {
        let servers = self.ground.names();
        if servers.len() < 2 {
            return;
        }
        let partitions = (0..PARTITIONS).map(PartitionId).chain([PartitionId::CONTROL]);
        let streams = partitions
            .flat_map(|partition| ["JOURNAL", "AUDIT"].map(|name| format!("{name}_{partition}")));
        for stream in streams.chain(["EVENTS".to_owned()]) {
            the_same_on_all(&self.broker, &stream, &servers).await;
        }
    }

    /// Waits until every event has its outcome, every run and every case its end;
    /// returns the last sequence of EVENTS.
    async fn quiet(&self, watches: &mut [JournalWatch]) -> u64 {
        let begun = Instant::now();
        loop {
            let mut records = Vec::new();
            for watch in watches.iter_mut() {
                let _ = watch.read(&self.reader).await;
                records.extend(watch.records.iter());
            }
            let last = self.reader.stream_state("EVENTS").await.map(|state| state.last_sequence);
            let decided = records.iter().filter_map(|(_, record)| source_of(&record.body));
            let decided = decided.collect::<BTreeSet<_>>().len() as u64;
            let of = |kind| records.iter().filter(|(header, _)| header.kind == kind).count();
            let ended = records.iter().filter(|(header, _)| header.kind.ends_run()).count();
            if last.as_ref().is_ok_and(|last| *last == decided)
                && ended == of(Kind::RunStarted)
                && of(Kind::CaseOpened) == of(Kind::CaseNotified)
                && of(Kind::CommandPoisoned) == of(Kind::DeadFiled)
            {
                return decided;
            }
            assert!(
                begun.elapsed() < HEAL_LIMIT,
                "{last:?} events, {decided} decided, {ended} runs ended; {:?}",
                tally(&records.into_iter().cloned().collect::<Vec<_>>())
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// What was acknowledged is there, byte by byte, and has exactly one outcome.
    async fn check_events(&self, published: &Published, last: u64, records: &[Entry]) {
        let all = (1..=last).map(|sequence| SourcePosition { sequence, index: 0 });
        assert_eq!(invariant_each_event_has_one_outcome(records, all), [""; 0]);
        let stored = audit::messages(&self.reader, "EVENTS").await;
        for (sequence, bytes) in &published.acknowledged {
            let at = usize::try_from(*sequence).expect("a small number") - 1;
            assert_eq!(stored[at].payload, bytes, "event {sequence} was acknowledged");
        }
    }
}

/// The longest time without an append to a data partition's journal while events came.
fn longest_pause(watches: &[JournalWatch], published: &Published) -> Duration {
    let of = |watch: &JournalWatch| {
        let times = watch.messages.iter().map(|message| message.broker_time_ns);
        let times = times.filter(|time| published.during_ns.contains(time)).collect::<Vec<_>>();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
    };
    let data = watches.iter().take(usize::from(PARTITIONS));
    Duration::from_nanos(data.map(of).max().unwrap_or(0).unsigned_abs())
}

impl Drop for Scene {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!("fault: {}: FAULT_SEED={}", self.name, self.seed);
        for worker in ["w-a", "w-b", "w-c", "w-d"] {
            show_end(&log_of(self.ground.folder(), worker));
        }
    }
}

fn show_end(log: &Path) {
    let Ok(text) = std::fs::read_to_string(log) else { return };
    let lines = text.lines().collect::<Vec<_>>();
    eprintln!("the end of {}:", log.display());
    for line in &lines[lines.len().saturating_sub(LOG_LINES_MAX)..] {
        eprintln!("  {line}");
    }
}
