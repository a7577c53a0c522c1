//! The engine under measurement: a process of its own, told by lines on its standard input what
//! the bench wants to know, and ended by their end.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use fermata_actors::lease_keeper::preferred;
use fermata_actors::task_worker::ServedQueues;
use fermata_actors::{Engine, EngineConfig, Role};
use fermata_audit::Signer;
use fermata_core::identity::PartitionId;
use fermata_core::partition::KEYS_MAX_DEFAULT;
use fermata_executors::{ExecutorsConfig, PluginTarget};
use fermata_jetstream::Topology;
use fermata_partition::snapshot::SnapshotPolicy;
use fermata_wire::replay::ReplayKeys;
use miette::{IntoDiagnostic as _, WrapErr as _, miette};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines, Stdin};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::arguments::EngineArguments;
use crate::process_usage::{Memory, cpu_time, memory};

/// Every role, but for the projector where nobody asks for it: the read model follows the journals
/// when there is time, and would be measured with what is measured.
fn roles(read_model: bool) -> BTreeSet<Role> {
    Role::ALL.into_iter().filter(|role| read_model || *role != Role::Projector).collect()
}

/// Name of the plugin that workflows call.
pub const PLUGIN: &str = "hold";

/// What is logged where nothing else is asked for. That runs fail is told again and again in cases that
/// make thousands of them fail, and nobody who waits for figures has a use for it.
const LOG: &str = "warn,fermata_actors::coordinator::effects=error";

/// How long the engine may take to answer a line; a restart replays its journals meanwhile.
const LINE_LIMIT: Duration = Duration::from_secs(60);

/// How often it is asked whether the partitions are owned.
const STATUS_INTERVAL: Duration = Duration::from_millis(10);

/// Signs the checkpoints of measured engines; the key is nobody's secret.
pub fn signer() -> miette::Result<Signer> {
    Signer::from_seed("fermata-bench", [7; 32]).into_diagnostic()
}

/// The process's part: runs an engine until standard input ends.
pub async fn run(arguments: EngineArguments) -> miette::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(LOG));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let roles = roles(arguments.read_model);
    let engine = Engine::start(config(arguments, roles, ServedQueues::default())?)
        .await
        .into_diagnostic()
        .wrap_err("the engine does not start")?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = next_line(&mut lines).await? {
        println!("{}", answer(&engine, &line).await?);
    }
    engine.shut_down().await;
    Ok(())
}

/// What an engine with these roles and queues is started with.
pub fn config(
    arguments: EngineArguments,
    roles: BTreeSet<Role>,
    queues: ServedQueues,
) -> miette::Result<EngineConfig> {
    let mut executors = ExecutorsConfig::default();
    if let Some(url) = arguments.plugin_url {
        executors
            .http
            .plugins
            .insert(PLUGIN.to_owned(), PluginTarget { url, ..PluginTarget::default() });
    }
    Ok(EngineConfig {
        nats_url: arguments.nats_url,
        monitor_url: None,
        worker: arguments.worker,
        roles,
        topology: Topology {
            partitions: arguments.partitions,
            replicas: arguments.replicas,
            ..Topology::default()
        },
        executors,
        signer: signer()?,
        engine: "bench".to_owned(),
        read_model_dir: arguments.data_dir.join("read-model"),
        belongs_to: None,
        checkpoint_dir: arguments.data_dir,
        snapshots: SnapshotPolicy::default(),
        replay_keys: ReplayKeys::default(),
        queues,
        keys_max: KEYS_MAX_DEFAULT,
    })
}

async fn next_line(lines: &mut Lines<BufReader<Stdin>>) -> miette::Result<Option<String>> {
    lines.next_line().await.into_diagnostic()
}

async fn answer(engine: &Engine, line: &str) -> miette::Result<u64> {
    match line.split_once(' ') {
        Some(("revision", wanted)) => {
            let wanted = wanted.parse::<u64>().into_diagnostic()?;
            let mut definitions = engine.ports().definitions.clone();
            let seen = definitions.wait_for(|snapshot| snapshot.revision >= wanted);
            Ok(seen.await.into_diagnostic()?.revision)
        }
        _ => {
            let status = engine.status().await;
            let owned = status.iter().filter(|status| status.state == "owning").count();
            u64::try_from(owned).into_diagnostic()
        }
    }
}

/// The bench's part: a running engine; killed with the value.
#[derive(Debug)]
pub struct EngineProcess {
    child: Child,
    pid: u32,
    questions: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// How to start it.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Address of the broker.
    pub nats_url: String,
    /// Data partitions.
    pub partitions: u16,
    /// Copies of each stream.
    pub replicas: usize,
    /// Name of the worker.
    pub worker: String,
    /// Folder for checkpoints.
    pub data_dir: Arc<Path>,
    /// Address of the plugin.
    pub plugin_url: Option<String>,
    /// Whether the read model is kept as well.
    pub read_model: bool,
}

impl EngineProcess {
    /// Starts it and does not wait.
    pub fn spawn(options: &EngineOptions) -> miette::Result<Self> {
        let program = std::env::current_exe().into_diagnostic()?;
        let mut command = Command::new(program);
        command
            .arg("engine")
            .args(["--nats-url", &options.nats_url])
            .args(["--partitions", &options.partitions.to_string()])
            .args(["--replicas", &options.replicas.to_string()])
            .args(["--worker", &options.worker])
            .arg("--data-dir")
            .arg(&*options.data_dir);
        if let Some(url) = &options.plugin_url {
            command.args(["--plugin-url", url]);
        }
        if options.read_model {
            command.arg("--read-model");
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .into_diagnostic()
            .wrap_err("could not start the engine's process")?;
        let (Some(pid), Some(questions), Some(answers)) =
            (child.id(), child.stdin.take(), child.stdout.take())
        else {
            return Err(miette!("the engine's process has no pipes"));
        };
        Ok(Self { child, pid, questions, answers: BufReader::new(answers).lines() })
    }

    async fn ask(&mut self, line: &str) -> miette::Result<u64> {
        let asked = async {
            self.questions.write_all(format!("{line}\n").as_bytes()).await.into_diagnostic()?;
            let answer = self.answers.next_line().await.into_diagnostic()?;
            answer
                .ok_or_else(|| miette!("the engine's process has ended"))?
                .parse()
                .into_diagnostic()
        };
        tokio::time::timeout(LINE_LIMIT, asked)
            .await
            .into_diagnostic()
            .wrap_err_with(|| format!("the engine does not answer `{line}`"))?
    }

    /// Waits until it has seen this revision of the definitions.
    pub async fn see_revision(&mut self, revision: u64) -> miette::Result<()> {
        self.ask(&format!("revision {revision}")).await.map(drop)
    }

    /// CPU time used so far.
    pub fn cpu_time(&self) -> miette::Result<Duration> {
        cpu_time(self.pid)
    }

    /// Resident memory.
    pub fn memory(&self) -> miette::Result<Memory> {
        memory(self.pid)
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub async fn kill(mut self) -> miette::Result<()> {
        self.child.kill().await.into_diagnostic()
    }
}

/// Waits until each engine owns as many partitions, the control partition included, as fall to it
/// among `workers`: before that the work is not shared as it will be.
pub async fn ready(
    engines: &mut [EngineProcess],
    workers: &[String],
    partitions: u16,
) -> miette::Result<()> {
    let all = (0..partitions).map(PartitionId).chain([PartitionId::CONTROL]);
    let owners = all.filter_map(|partition| preferred(workers, partition)).collect::<Vec<_>>();
    for (engine, worker) in engines.iter_mut().zip(workers) {
        let expected = owners.iter().filter(|owner| *owner == worker).count();
        let expected = u64::try_from(expected).into_diagnostic()?;
        while engine.ask("status").await? != expected {
            tokio::time::sleep(STATUS_INTERVAL).await;
        }
    }
    Ok(())
}
