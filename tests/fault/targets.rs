//! Servers, workers and a plugin that faults befall, and how each fault begins and ends.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use fermata_jetstream::Durability;
use fermata_tests::clocks::{SteppedClock, c_compiler};
use fermata_tests::networks::Networks;
use fermata_tests::rights::{network_namespaces, part_not_run};
use rand::RngExt as _;

use crate::disturbances::{Disturbance, Disturbed};
use crate::faults::{Fault, Line, Means};
use crate::ground::Ground;
use crate::load::Past;
use crate::process::{EngineProcess, Surroundings, log_of};
use crate::scene::Scene;

/// What an engine logs that ends in its start: there was no broker to be found, or none that
/// answered.
const ENDED_IN_START: [&str; 2] =
    ["the engine starts: Connect(", "the engine starts: Topology(Api"];

/// How often workers may be started in vain in one test: there is no broker for seconds at a time.
const STARTS_IN_VAIN_MAX: u32 = 40;

/// Pause between two tries to start a worker that found no broker.
const START_PAUSE: Duration = Duration::from_millis(500);

/// Names of the workers.
const NAMES: [&str; 4] = ["w-a", "w-b", "w-c", "w-d"];

/// A worker and what it is to be.
struct Worker {
    name: &'static str,
    surroundings: Surroundings,
    clock: Option<SteppedClock>,
    process: Option<EngineProcess>,
    /// Whether it was asked to end.
    is_leaving: bool,
    is_wanted: bool,
    /// How long its log was when it was started.
    log_bytes: usize,
}

/// A scene that faults befall. What is declared first ends first.
pub struct Targets {
    disturbances: Vec<Disturbance>,
    workers: Vec<Worker>,
    pub scene: Scene,
    networks: Option<Networks>,
    pub means: Means,
    pub disturbed: Disturbed,
    /// How often a worker was started again that had found no broker.
    pub started_in_vain: u32,
}

impl Targets {
    /// So many servers and workers, which run; `test` is told without what it is run, if the machine
    /// does not give the rights.
    pub async fn set(name: &'static str, test: &str, servers: usize, workers: usize) -> Self {
        let networks = network_namespaces().map_err(|reason| {
            part_not_run(test, "lines that are cut", &reason);
        });
        let clocks = c_compiler().map_err(|reason| {
            part_not_run(test, "clocks that are set", &reason);
        });
        let small = |count: usize| u8::try_from(count).expect("few");
        let networks = networks.ok().map(|()| Networks::new(small(servers), small(workers + 1)));
        let ground = match (&networks, servers) {
            (None, 1) => Ground::alone(Durability::Process).await,
            (None, _) => Ground::cluster(Durability::Process).await,
            (Some(networks), 1) => {
                Ground::alone_at(Durability::Process, networks.place_alone()).await
            }
            (Some(networks), _) => Ground::cluster_at(Durability::Process, networks.places()).await,
        };
        let outside = networks.as_ref().map(Networks::outside);
        let outside = outside.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let scene = Scene::set_at(name, ground, outside).await;
        let means =
            Means { servers, workers, networks: networks.is_some(), clocks: clocks.is_ok() };
        let worker = |index: usize| {
            let clock = means.clocks.then(SteppedClock::new);
            let variables = clock.as_ref().map(SteppedClock::variables).unwrap_or_default();
            let network = networks.as_ref().map(|it| it.launcher(it.of_worker(small(index))));
            Worker {
                name: NAMES[index],
                surroundings: Surroundings { launcher: network.unwrap_or_default(), variables },
                clock,
                process: None,
                is_leaving: false,
                is_wanted: index < workers,
                log_bytes: 0,
            }
        };
        let mut targets = Self {
            disturbances: Vec::new(),
            workers: (0..=workers).map(worker).collect(),
            scene,
            networks,
            means,
            disturbed: Disturbed::default(),
            started_in_vain: 0,
        };
        (0..workers).for_each(|worker| targets.start(worker));
        targets
    }

    /// Names of the workers that are always wanted.
    pub fn names(&self) -> &'static [&'static str] {
        &NAMES[..self.means.workers]
    }

    /// Begins a fault; `past` is what can be published again.
    pub async fn begin(&mut self, fault: Fault, past: &Past) {
        let publisher = self.scene.publisher.clone();
        match fault {
            Fault::WorkerKilled(worker) => {
                let is_running = self.is_running(worker);
                let process = self.workers[worker].process.take();
                if let Some(process) = process.filter(|_| is_running) {
                    process.kill().await;
                }
            }
            Fault::WorkerStopped(worker) => self.process(worker).pause(),
            Fault::WorkerLeaves(worker) => self.ask_to_leave(worker),
            Fault::WorkerJoins(worker) => self.start(worker),
            Fault::WorkerCut(worker, line) => self.cut(self.network_of_worker(worker), line),
            Fault::ClockSet(worker, seconds) => self.clock(worker).step(seconds),
            Fault::ServerKilled(server) => {
                self.scene.ground.servers[server].kill().await.expect("a killed server");
            }
            Fault::ServerStopped(server) => self.scene.ground.pause(server),
            Fault::ServerApart(server) => self.networks().cut_off(network(server)),
            Fault::ServerCut(server, line) => self.cut(network(server), line),
            Fault::Plugin(mood) => self.scene.sink.in_mood(Some(mood)),
            Fault::Garbage => {
                let seed = self.scene.dice.random();
                self.disturbances.push(Disturbance::garbage(publisher, seed));
            }
            Fault::Repeats => {
                let seed = self.scene.dice.random();
                self.disturbances.push(Disturbance::repeats(publisher, past.clone(), seed));
            }
            Fault::Cancels => {
                let (seed, watches) = (self.scene.dice.random(), self.scene.watches());
                let reader = self.scene.reader.clone();
                self.disturbances.push(Disturbance::cancels(publisher, reader, watches, seed));
            }
        }
    }

    /// Ends it. Waits for nothing that another fault may hold up; [`Self::settle`] does.
    pub async fn end(&mut self, fault: Fault) {
        match fault {
            Fault::WorkerKilled(worker) => self.start(worker),
            Fault::WorkerStopped(worker) => self.process(worker).resume(),
            Fault::WorkerLeaves(worker) => {
                let leaving = self.workers[worker].process.as_mut();
                if !leaving.expect("a worker that leaves").is_running() {
                    self.comes_back(worker).await;
                }
            }
            Fault::WorkerJoins(worker) => self.ask_to_leave(worker),
            Fault::WorkerCut(worker, _) => self.networks().mend(self.network_of_worker(worker)),
            Fault::ClockSet(worker, _) => self.clock(worker).step(0),
            Fault::ServerKilled(server) => {
                let server = &mut self.scene.ground.servers[server];
                server.restart().await.expect("a server that starts again");
            }
            Fault::ServerStopped(server) => self.scene.ground.resume(server),
            Fault::ServerApart(server) => self.networks().join_again(network(server)),
            Fault::ServerCut(server, _) => self.networks().mend(network(server)),
            Fault::Plugin(_) => self.scene.sink.in_mood(None),
            Fault::Garbage | Fault::Repeats | Fault::Cancels => {
                let disturbances = self.disturbances.iter();
                disturbances.filter(|one| one.fault == fault).for_each(Disturbance::stop);
            }
        }
    }

    /// Waits, when no fault is left, until the workers are those that are wanted and nobody disturbs.
    pub async fn settle(&mut self) {
        for disturbance in self.disturbances.drain(..) {
            self.disturbed = self.disturbed.and(disturbance.stopped().await);
        }
        for worker in 0..self.workers.len() {
            if self.workers[worker].is_leaving {
                self.comes_back(worker).await;
            }
            while self.workers[worker].is_wanted && !self.is_running(worker) {
                // Whatever starts programs starts it again, as the broker is there now.
                self.started_in_vain += 1;
                assert!(self.started_in_vain < STARTS_IN_VAIN_MAX, "no worker starts any more");
                tokio::time::sleep(START_PAUSE).await;
                self.start(worker);
            }
        }
    }

    /// Kills every worker, of which none may have ended by itself.
    pub async fn kill_workers(&mut self) {
        for worker in &mut self.workers {
            if let Some(process) = worker.process.take() {
                process.kill().await;
            }
        }
    }

    fn start(&mut self, index: usize) {
        // Each meets another server first.
        let mut urls =
            self.scene.ground.servers.iter().map(|server| server.url()).collect::<Vec<_>>();
        let first = index % urls.len();
        urls.rotate_left(first);
        let worker = &mut self.workers[index];
        worker.log_bytes = std::fs::read(log_of(self.scene.ground.folder(), worker.name))
            .map_or(0, |log| log.len());
        worker.is_leaving = false;
        let process = self.scene.engine_in(&urls.join(","), worker.name, &worker.surroundings);
        worker.process = Some(process);
    }

    fn ask_to_leave(&mut self, worker: usize) {
        if self.is_running(worker) {
            self.process(worker).ask_to_leave();
        }
        self.workers[worker].is_leaving = true;
    }

    /// Waits until one that leaves has left, and starts it again if it is wanted.
    async fn comes_back(&mut self, worker: usize) {
        let process = self.workers[worker].process.take().expect("a worker that leaves");
        let ended = process.left().await;
        let in_order = ended.success() || self.ended_in_start(worker);
        assert!(in_order, "worker {worker} failed as it left: {ended}");
        self.workers[worker].is_leaving = false;
        if self.workers[worker].is_wanted {
            self.start(worker);
        }
    }

    /// Whether a worker runs. It may have ended in its start, without a broker, and never else.
    fn is_running(&mut self, worker: usize) -> bool {
        let is_running = self.process(worker).is_running();
        assert!(is_running || self.ended_in_start(worker), "worker {worker} has ended by itself");
        is_running
    }

    fn ended_in_start(&self, worker: usize) -> bool {
        let worker = &self.workers[worker];
        let log = std::fs::read(log_of(self.scene.ground.folder(), worker.name));
        let log = log.expect("a log");
        let log = String::from_utf8_lossy(&log[worker.log_bytes..]);
        ENDED_IN_START.iter().any(|ended| log.contains(ended))
    }

    fn process(&mut self, worker: usize) -> &mut EngineProcess {
        self.workers[worker].process.as_mut().expect("a running worker")
    }

    fn clock(&self, worker: usize) -> &SteppedClock {
        self.workers[worker].clock.as_ref().expect("a clock that can be set")
    }

    fn networks(&self) -> &Networks {
        self.networks.as_ref().expect("networks")
    }

    fn network_of_worker(&self, worker: usize) -> u8 {
        self.networks().of_worker(network(worker))
    }

    fn cut(&self, network: u8, line: Line) {
        match line {
            Line::Deaf => self.networks().deafen(network),
            Line::Mute => self.networks().mute(network),
        }
    }
}

fn network(index: usize) -> u8 {
    u8::try_from(index).expect("few")
}
