//! What the program is told.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fermata_jetstream::Durability;
use fermata_jetstream::topology::PARTITIONS_DEFAULT;

/// Measures the engine against the broker that it runs on
#[derive(Debug, Parser)]
#[command(name = "fermata-bench", args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  fermata-bench intake runs
  fermata-bench runs --durability power --n 20000 --json
  fermata-bench intake runs recovery --workers 1,2,4 --cluster
  fermata-bench week --graph bench/week.svg
  fermata-bench all --smoke")]
pub struct Arguments {
    /// What to do instead of measuring
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to measure
    #[command(flatten)]
    pub bench: BenchArguments,
}

/// What the program does when it is not measuring.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The engine under measurement; started by the program itself
    #[command(hide = true)]
    Engine(EngineArguments),
}

/// What to measure, and how.
#[derive(Debug, Clone, Args)]
pub struct BenchArguments {
    /// Cases, in order
    #[arg(value_enum, required = true)]
    pub cases: Vec<CaseChoice>,
    /// Size of each case: events, runs, nodes, or rounds of `latency`; each case has its own default
    #[arg(long)]
    pub n: Option<u64>,
    /// What an acknowledged message survives
    #[arg(long, value_enum, default_value_t = DurabilityChoice::Process)]
    pub durability: DurabilityChoice,
    /// Engine processes that share the partitions; several numbers are measured one after the other
    #[arg(
        long,
        default_value = "1",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..=16)
    )]
    pub workers: Vec<u16>,
    /// Three servers that hold a copy of every stream each, instead of one
    #[arg(long)]
    pub cluster: bool,
    /// Data partitions
    #[arg(long, default_value_t = PARTITIONS_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub partitions: u16,
    /// Keep the read model beside what is measured; `lists` always does
    #[arg(long)]
    pub read_model: bool,
    /// One line of JSON per measurement instead of a table
    #[arg(long)]
    pub json: bool,
    /// `week`: draw it into this file (SVG), with its samples (JSON) beside it
    #[arg(long, value_name = "FILE")]
    pub graph: Option<PathBuf>,
    /// Sizes of a moment, to see that the cases work; the figures mean nothing
    #[arg(long, conflicts_with = "n")]
    pub smoke: bool,
}

/// Servers in a cluster, each with a copy of every stream.
const CLUSTER_SERVERS: usize = 3;

impl BenchArguments {
    /// How many servers there are, and so copies of each stream.
    pub fn servers(&self) -> usize {
        if self.cluster { CLUSTER_SERVERS } else { 1 }
    }

    /// How many engine processes there are, once one number was chosen.
    pub fn engines(&self) -> u16 {
        self.workers.first().copied().unwrap_or(1)
    }

    /// The same arguments for each number of workers alone; once where `case` has no engine.
    pub fn for_each_number_of_workers(&self, case: Case) -> Vec<Self> {
        let numbers = self.workers.iter().take(if case.has_engines() { usize::MAX } else { 1 });
        numbers.map(|workers| Self { workers: vec![*workers], ..self.clone() }).collect()
    }
}

/// What the engine process is told.
#[derive(Debug, Clone, Args)]
pub struct EngineArguments {
    /// Address of the broker
    #[arg(long)]
    pub nats_url: String,
    /// Data partitions
    #[arg(long)]
    pub partitions: u16,
    /// Copies of each stream
    #[arg(long)]
    pub replicas: usize,
    /// Name of the worker
    #[arg(long)]
    pub worker: String,
    /// Folder for checkpoints
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Address of the plugin `hold`, if there is one
    #[arg(long)]
    pub plugin_url: Option<String>,
    /// Whether the read model is kept as well
    #[arg(long)]
    pub read_model: bool,
}

/// A case, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum CaseChoice {
    /// The broker's own limit: publish, store, consume, acknowledge
    Raw,
    /// Events in, one per message, matched to `action: ignore`, until they are audited
    Intake,
    /// The same with 100 events per message
    IntakeBatch,
    /// Events in until a run of three sequential `noop`s each is complete and audited
    Runs,
    /// 10 events a second, published until completed
    Latency,
    /// One run with 1,000 parallel `noop`s and a join
    Fanout,
    /// Building, checking and analysing plans
    Plan,
    /// Decoding an event and deciding by 10,000 strategies, without a broker
    Match,
    /// The engine is killed with 10,000 runs open, and started again
    Recovery,
    /// Memory of an engine with 100,000 runs open
    Memory,
    /// Lists of runs out of a read model of 1,000,000, without a broker
    Query,
    /// `fermata runs list` among 1,000,000 runs of an engine that takes more of them
    Lists,
    /// How long an owner stands still for a snapshot, without a broker
    Snapshot,
    /// Seven days of the load of `runs` in accelerated journal time, without a broker
    Week,
    /// What a noisy tenant and poison beside it cost a quiet one
    Neighbours,
    /// Each of these
    All,
}

/// One case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// See [`CaseChoice`].
    Raw,
    /// See [`CaseChoice`].
    Intake,
    /// See [`CaseChoice`].
    IntakeBatch,
    /// See [`CaseChoice`].
    Runs,
    /// See [`CaseChoice`].
    Latency,
    /// See [`CaseChoice`].
    Fanout,
    /// See [`CaseChoice`].
    Plan,
    /// See [`CaseChoice`].
    Match,
    /// See [`CaseChoice`].
    Recovery,
    /// See [`CaseChoice`].
    Memory,
    /// See [`CaseChoice`].
    Query,
    /// See [`CaseChoice`].
    Lists,
    /// See [`CaseChoice`].
    Snapshot,
    /// See [`CaseChoice`].
    Week,
    /// See [`CaseChoice`].
    Neighbours,
}

impl Case {
    const ALL: [Self; 15] = [
        Self::Raw,
        Self::Intake,
        Self::IntakeBatch,
        Self::Runs,
        Self::Latency,
        Self::Fanout,
        Self::Plan,
        Self::Match,
        Self::Recovery,
        Self::Memory,
        Self::Query,
        Self::Lists,
        Self::Snapshot,
        Self::Week,
        Self::Neighbours,
    ];

    /// The case as it is called on the command line and in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Intake => "intake",
            Self::IntakeBatch => "intake_batch",
            Self::Runs => "runs",
            Self::Latency => "latency",
            Self::Fanout => "fanout",
            Self::Plan => "plan",
            Self::Match => "match",
            Self::Recovery => "recovery",
            Self::Memory => "memory",
            Self::Query => "query",
            Self::Lists => "lists",
            Self::Snapshot => "snapshot",
            Self::Week => "week",
            Self::Neighbours => "neighbours",
        }
    }

    /// Whether it starts engines, so that their number matters.
    fn has_engines(self) -> bool {
        match self {
            Self::Raw | Self::Plan | Self::Match | Self::Query | Self::Snapshot | Self::Week => {
                false
            }
            Self::Intake
            | Self::IntakeBatch
            | Self::Runs
            | Self::Latency
            | Self::Fanout
            | Self::Recovery
            | Self::Memory
            | Self::Lists
            | Self::Neighbours => true,
        }
    }

    /// Sizes to measure, ascending: chosen so that a case takes 5 to 15 s on two cores, or with
    /// `smoke` about one; `neighbours`, which measures in turns, and `lists` take over a minute.
    pub fn sizes(self, durability: DurabilityChoice, smoke: bool) -> &'static [u64] {
        let power = durability == DurabilityChoice::Power;
        match (self, smoke) {
            (Self::Raw | Self::Intake, false) if power => &[3_000],
            (Self::Raw | Self::Intake, false) => &[300_000],
            (Self::Raw | Self::Intake, true) => &[2_000],
            (Self::IntakeBatch, false) if power => &[200_000],
            (Self::IntakeBatch, false) => &[1_000_000],
            (Self::IntakeBatch, true) => &[10_000],
            (Self::Runs, false) if power => &[100_000],
            (Self::Runs, false) => &[120_000],
            (Self::Runs, true) => &[500],
            (Self::Latency, false) => &[100],
            (Self::Latency, true) => &[5],
            (Self::Fanout, false) => &[1_000],
            (Self::Fanout, true) => &[100],
            (Self::Plan, false) => &[1_000, 10_000, 100_000],
            (Self::Plan, true) => &[1_000],
            (Self::Match, false) => &[10_000],
            (Self::Match, true) => &[100],
            (Self::Recovery, false) => &[10_000],
            (Self::Recovery, true) => &[200],
            (Self::Memory, false) => &[100_000],
            (Self::Memory, true) => &[500],
            (Self::Query, false) => &[1_000_000],
            (Self::Query, true) => &[2_000],
            (Self::Lists, false) => &[1_000_000],
            (Self::Lists, true) => &[500],
            (Self::Snapshot, false) => &[100_000],
            (Self::Snapshot, true) => &[1_000],
            (Self::Week, false) => &[700_000],
            (Self::Week, true) => &[7_000],
            (Self::Neighbours, false) => &[1_000],
            (Self::Neighbours, true) => &[20],
        }
    }
}

impl BenchArguments {
    /// The cases, `all` spelled out.
    pub fn chosen(&self) -> Vec<Case> {
        self.cases.iter().flat_map(|choice| choice.cases()).copied().collect()
    }

    /// The sizes of `case`.
    pub fn sizes(&self, case: Case) -> Vec<u64> {
        match self.n {
            Some(n) => vec![n.max(1)],
            None => case.sizes(self.durability, self.smoke).to_vec(),
        }
    }
}

impl CaseChoice {
    fn cases(self) -> &'static [Case] {
        match self {
            Self::Raw => &[Case::Raw],
            Self::Intake => &[Case::Intake],
            Self::IntakeBatch => &[Case::IntakeBatch],
            Self::Runs => &[Case::Runs],
            Self::Latency => &[Case::Latency],
            Self::Fanout => &[Case::Fanout],
            Self::Plan => &[Case::Plan],
            Self::Match => &[Case::Match],
            Self::Recovery => &[Case::Recovery],
            Self::Memory => &[Case::Memory],
            Self::Query => &[Case::Query],
            Self::Lists => &[Case::Lists],
            Self::Snapshot => &[Case::Snapshot],
            Self::Week => &[Case::Week],
            Self::Neighbours => &[Case::Neighbours],
            Self::All => &Case::ALL,
        }
    }
}

/// What an acknowledged message survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DurabilityChoice {
    /// A kill of every process
    Process,
    /// A power cut too: every message is synced to disk before it is acknowledged
    Power,
}

impl From<DurabilityChoice> for Durability {
    fn from(choice: DurabilityChoice) -> Self {
        match choice {
            DurabilityChoice::Process => Self::Process,
            DurabilityChoice::Power => Self::Power,
        }
    }
}
