//! What a case runs on: a broker on an empty folder, engines, and a client.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fermata_actors::EngineConfig;
use fermata_actors::task_worker::ServedQueues;
use fermata_core::plan::Executable;
use fermata_jetstream::server::{Placement, cluster_url, loopback_places, start_cluster};
use fermata_jetstream::topology::{audit_stream, commands_stream, journal_stream};
use fermata_jetstream::{ManagedServer, ServerOptions, Topology};
use indicatif::{ProgressBar, ProgressStyle};
use miette::{IntoDiagnostic as _, WrapErr as _, miette};
use tempfile::TempDir;

use crate::arguments::{BenchArguments, EngineArguments};
use crate::client::Client;
use crate::definitions::{Applied, apply};
use crate::engine_process::{EngineOptions, EngineProcess, config, ready};
use crate::figures::{Figures, count};
use crate::process_usage::cpu_time;

/// How much the streams of a server may reserve.
const RESERVED_MAX: u64 = 64 << 30;

/// A broker of the case's own, one server or a cluster, and a client of it.
#[derive(Debug)]
pub struct BrokerSetup {
    /// The servers.
    pub servers: Vec<ManagedServer>,
    /// Connections of the bench process.
    pub client: Client,
    folder: TempDir,
}

impl BrokerSetup {
    /// Starts servers on empty folders.
    pub async fn start(arguments: &BenchArguments) -> miette::Result<Self> {
        let folder = tempfile::tempdir().into_diagnostic()?;
        let durability = arguments.durability.into();
        // The streams reserve more than a case ever fills, and more than a small disk has.
        let file_store_bytes = Some(RESERVED_MAX);
        let servers = if arguments.cluster {
            let places = loopback_places(arguments.servers()).into_diagnostic()?.into_iter();
            let places = places.map(|place| Placement { file_store_bytes, ..place }).collect();
            start_cluster(folder.path(), durability, places).await.into_diagnostic()?
        } else {
            let data_dir = folder.path().join("nats");
            let options = ServerOptions { data_dir, durability, port: None, monitor: false };
            let place = Placement { file_store_bytes, ..Placement::default() };
            vec![ManagedServer::start_at(options, place).await.into_diagnostic()?]
        };
        let client = Client::connect(&cluster_url(&servers)).await?;
        Ok(Self { servers, client, folder })
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        cluster_url(&self.servers)
    }

    /// CPU time of all servers so far.
    pub fn cpu_time(&self) -> miette::Result<Duration> {
        let times = self.servers.iter().map(|server| cpu_time(server.pid()));
        times.sum::<miette::Result<Duration>>().wrap_err("the broker is gone")
    }

    /// Makes the streams, where no engine does.
    pub async fn make_streams(&self, arguments: &BenchArguments) -> miette::Result<()> {
        let (partitions, replicas) = (arguments.partitions, arguments.servers());
        let topology = Topology { partitions, replicas, ..Topology::default() };
        topology.apply(&self.client.broker).await.into_diagnostic().map(drop)
    }
}

/// A broker with engines.
#[derive(Debug)]
pub struct Setup {
    /// The engines.
    pub engines: Vec<EngineProcess>,
    /// The broker.
    pub broker: BrokerSetup,
    /// What is active.
    pub applied: Applied,
    /// Data partitions.
    pub partitions: u16,
    options: Vec<EngineOptions>,
}

impl Setup {
    /// Starts a broker and engines, and applies definitions.
    pub async fn start(
        arguments: &BenchArguments,
        workflows: Vec<Executable>,
        strategies: &str,
        plugin_url: Option<String>,
    ) -> miette::Result<Self> {
        let broker = BrokerSetup::start(arguments).await?;
        let option = |worker: u16| EngineOptions {
            nats_url: broker.url(),
            partitions: arguments.partitions,
            replicas: arguments.servers(),
            worker: format!("bench-{worker}"),
            data_dir: Arc::<Path>::from(broker.folder.path().join(format!("engine-{worker}"))),
            plugin_url: plugin_url.clone(),
            read_model: arguments.read_model,
        };
        let options = (1..=arguments.engines()).map(option).collect::<Vec<_>>();
        let mut engines =
            options.iter().map(EngineProcess::spawn).collect::<miette::Result<Vec<_>>>()?;
        let workers = options.iter().map(|option| option.worker.clone()).collect::<Vec<_>>();
        ready(&mut engines, &workers, arguments.partitions).await?;
        let applied = apply(&broker.client, workflows, strategies).await?;
        for engine in &mut engines {
            engine.see_revision(applied.revision).await?;
        }
        Ok(Self { engines, broker, applied, partitions: arguments.partitions, options })
    }

    /// Kills every engine.
    pub async fn kill_engines(&mut self) -> miette::Result<()> {
        for engine in self.engines.drain(..) {
            engine.kill().await?;
        }
        Ok(())
    }

    /// Starts the engines again under their names.
    pub fn start_engines_again(&mut self) -> miette::Result<()> {
        self.engines =
            self.options.iter().map(EngineProcess::spawn).collect::<miette::Result<Vec<_>>>()?;
        Ok(())
    }

    /// What a worker is started with that owns nothing and serves `queue`.
    pub fn worker_of(&self, queue: &str) -> miette::Result<EngineConfig> {
        let options = self.options.first().ok_or_else(|| miette!("there is no engine"))?;
        let arguments = EngineArguments {
            nats_url: options.nats_url.clone(),
            partitions: options.partitions,
            replicas: options.replicas,
            worker: format!("bench-{queue}"),
            data_dir: options.data_dir.join(queue),
            plugin_url: options.plugin_url.clone(),
            read_model: false,
        };
        let queues = ServedQueues { names: vec![queue.to_owned()], ..ServedQueues::default() };
        config(arguments, BTreeSet::new(), queues)
    }

    /// How many messages the broker stored per 1,000 of `n`, by what they are for: the broker's price
    /// is per message, so this tells how well frames fill.
    pub async fn messages(&self, n: u64) -> miette::Result<String> {
        let mut told = Vec::new();
        for (name, stream) in [
            ("commands", commands_stream as fn(u16) -> String),
            ("journal", journal_stream),
            ("audit", audit_stream),
        ] {
            let mut messages = 0;
            for partition in 0..self.partitions {
                let state = self.broker.client.reader.stream_state(&stream(partition)).await;
                messages += state.into_diagnostic()?.messages;
            }
            told.push(format!("{name} {:.1}", count(messages) * 1e3 / count(n)));
        }
        Ok(format!("broker messages per 1,000: {}", told.join(", ")))
    }

    /// CPU time of engines and broker so far.
    pub fn usage(&self) -> miette::Result<Usage> {
        let engines = self.engines.iter().map(EngineProcess::cpu_time);
        Ok(Usage {
            engine: engines.sum::<miette::Result<Duration>>()?,
            broker: self.broker.cpu_time()?,
        })
    }

    /// Adds CPU time since `before` per `n`, and memory.
    pub fn measured(&self, figures: Figures, before: Usage, n: u64) -> miette::Result<Figures> {
        let after = self.usage()?;
        let mut peak_bytes = 0;
        for engine in &self.engines {
            peak_bytes += engine.memory()?.peak_bytes;
        }
        let per = |after: Duration, before: Duration| {
            Some(after.saturating_sub(before).as_secs_f64() * 1e6 / count(n))
        };
        Ok(Figures {
            cpu_us_engine: per(after.engine, before.engine),
            cpu_us_broker: per(after.broker, before.broker),
            rss_mib: Some(mebibytes(peak_bytes)),
            ..figures
        })
    }
}

/// CPU time.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Of all engines.
    pub engine: Duration,
    /// Of the broker.
    pub broker: Duration,
}

/// Bytes as MiB.
pub fn mebibytes(bytes: u64) -> f64 {
    count(bytes) / (1024.0 * 1024.0)
}

/// A bar on a terminal, nothing elsewhere.
pub fn progress(case: &'static str, n: u64) -> ProgressBar {
    let bar = ProgressBar::new(n).with_message(case);
    if let Ok(style) = ProgressStyle::with_template("{msg:14} {wide_bar} {pos}/{len} {elapsed}") {
        bar.set_style(style);
    }
    bar
}
