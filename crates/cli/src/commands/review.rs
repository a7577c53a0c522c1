//! `fermata review`: what a person has to look at.

mod resolve;

use clap::{Args, Subcommand};
use fermata_core::identity::{PartitionId, Tenant};
use fermata_jetstream::StreamReader;
use uuid::Uuid;

use crate::arguments::{GlobalArguments, at_least_one};
use crate::broker_session::BrokerSession;
use crate::commands::known_codes::{CASE_REASONS, check};
use crate::commands::known_tenants::KnownTenants;
use crate::error::{CliError, ExitCode};
use crate::journal_view::{Review, ReviewList, Sample};
use crate::output::{Output, RECORDS_READ, Tone, counted, excerpt, time_text};

pub use resolve::ResolveArguments;

/// How many reviews are listed when nothing else is said: a screenful.
const LIMIT_DEFAULT: usize = 50;

/// Widest detail of a sample, in characters; `--json` shows all of it.
const DETAIL_CHARACTERS_MAX: usize = 100;

/// What to do with reviews.
#[derive(Debug, Subcommand)]
pub enum ReviewCommand {
    /// List review cases, like ones of a minute together, the newest first
    #[command(
        after_help = "Examples:\n  fermata review list\n  fermata review list --tenant acme --reason unmatched --limit 10"
    )]
    List(ListArguments),
    /// Show a review case with all that is like it, and samples
    #[command(after_help = "Examples:\n  fermata review show 0003c0de-0000-8000-8000-000000000000")]
    Show(ShowArguments),
    /// Decide about a case and all that are like it: retry, route to a strategy, or close
    #[command(after_help = "\
Every open case that `fermata review show` puts together is resolved, or with `--run` those of some
runs alone, each by a record in its partition's journal that says who, what and why. The same again
changes nothing; something else is refused.

Examples:
  fermata review resolve 0003c0de-0000-8000-8000-000000000000 --retry --reason 'strategy mended'
  fermata review resolve 0003c0de-0000-8000-8000-000000000000 --route fallback --reason 'by hand'
  fermata review resolve 0003c0de-0000-8000-8000-000000000000 --close --reason 'a test of theirs'
  fermata review resolve 0003c0de-0000-8000-8000-000000000000 --retry \
    --run 0003c0de-0000-8000-8000-0000000000aa --reason 'its address is mended'")]
    Resolve(ResolveArguments),
}

/// Arguments of `fermata review list`.
#[derive(Debug, Clone, Args)]
pub struct ListArguments {
    /// Only what is of this tenant
    #[arg(long)]
    pub tenant: Option<Tenant>,
    /// Only cases of this reason: unmatched, run_failed, run_timed_out, run_quarantined
    #[arg(long, value_name = "CODE")]
    pub reason: Option<String>,
    /// At most so many
    #[arg(long, default_value_t = LIMIT_DEFAULT, value_name = "N", value_parser = at_least_one)]
    pub limit: usize,
    /// Also what is resolved
    #[arg(long)]
    pub all: bool,
}

impl ListArguments {
    fn takes(&self, review: &Review) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| review.tenant == *tenant)
            && self.reason.as_ref().is_none_or(|reason| *review.reason == **reason)
            && (self.all || review.is_open())
    }
}

/// Names one case.
#[derive(Debug, Clone, Args)]
pub struct ShowArguments {
    /// Id of a case, as messages and `fermata review list` show it
    #[arg(value_name = "CASE", value_parser = case_id)]
    pub case: Uuid,
}

/// Reads the id of a case.
fn case_id(text: &str) -> Result<Uuid, &'static str> {
    text.parse().map_err(|_| "expected the id of a case, as `fermata review list` shows it")
}

/// Does what was typed.
///
/// # Errors
///
/// When the broker or the engine does not answer, or there is no such case.
///
/// # Cancel safety
///
/// Can be dropped.
pub async fn run(
    command: ReviewCommand,
    global: &GlobalArguments,
    output: &mut Output,
) -> Result<ExitCode, CliError> {
    let session = BrokerSession::open(global).await?;
    let partitions = session.engine_config().await?.partitions;
    let partitions = (0..partitions).map(PartitionId).collect::<Vec<_>>();
    let reader = StreamReader::new(session.broker());
    match command {
        ReviewCommand::List(arguments) => {
            let progress = output.counter(RECORDS_READ);
            let reviews = ReviewList::read(&reader, partitions, &progress).await;
            progress.finish_and_clear();
            list(&arguments, reviews?, output)?;
        }
        ReviewCommand::Show(arguments) => {
            let case = arguments.case;
            let progress = output.counter(RECORDS_READ);
            let found = ReviewList::read_one(&reader, partitions, case, &progress).await;
            progress.finish_and_clear();
            show(&found?.ok_or_else(|| not_there(case))?, output)?;
        }
        ReviewCommand::Resolve(arguments) => {
            return resolve::resolve(arguments, &session, &partitions, output).await;
        }
    }
    Ok(ExitCode::Success)
}

fn not_there(case: Uuid) -> CliError {
    CliError::NotFound(format!("there is no case `{case}`; `fermata review list` lists them"))
}

fn list(
    arguments: &ListArguments,
    reviews: ReviewList,
    output: &mut Output,
) -> Result<(), CliError> {
    let caveats = reviews.caveats();
    let all = reviews.into_newest_first();
    let matching = all.iter().filter(|review| arguments.takes(review)).collect::<Vec<_>>();
    let is_there = |reason: &&String| all.iter().any(|review| *review.reason == *reason.as_str());
    let unseen = arguments.reason.as_ref().filter(|reason| !is_there(reason));
    if let Err(unknown) = check("reason of cases", unseen, &CASE_REASONS) {
        caveats.iter().for_each(|caveat| output.note(caveat));
        return Err(unknown);
    }
    let shown = matching.get(..arguments.limit).unwrap_or(&matching);
    let mut tenants = KnownTenants::default();
    all.iter().for_each(|review| tenants.see(review.tenant.as_str()));
    let nothing = tenants.nothing_of(arguments.tenant.as_ref().map(Tenant::as_str), "cases");
    if output.is_json() {
        nothing.iter().for_each(|text| output.note(text));
        shown.iter().try_for_each(|review| output.json_line(review))?;
        caveats.iter().for_each(|caveat| output.note(caveat));
        return Ok(());
    }
    let row = |review: &&Review| {
        vec![
            review.case.to_string(),
            review.tenant.to_string(),
            review.kind.to_string(),
            review.reason.to_string(),
            review.count.to_string(),
            time_text(review.opened_ms),
            if review.told { "yes" } else { "not yet" }.to_owned(),
            state_of(review),
        ]
    };
    let rows = shown.iter().map(row).collect();
    let columns = ["CASE", "TENANT", "TYPE", "REASON", "COUNT", "OPENED", "TOLD", "STATE"];
    output.table(&columns, rows, nothing.as_deref().unwrap_or("nothing is to be looked at"))?;
    if shown.len() < matching.len() {
        let (shown, all) = (shown.len(), matching.len());
        output.line(&format!("{shown} of {all} reviews; `--limit` shows more"))?;
    }
    caveats.iter().for_each(|caveat| output.note(caveat));
    Ok(())
}

/// Whether somebody has decided about it, in a word or two.
fn state_of(review: &Review) -> String {
    match (&review.resolved, review.is_open()) {
        (Some(resolved), false) => {
            format!("{} by {}", resolved.resolution.as_str(), resolved.by)
        }
        (Some(_), true) => {
            format!("{} of {} resolved", review.resolved_count, review.case_count)
        }
        (None, _) => "open".to_owned(),
    }
}

fn show(review: &Review, output: &mut Output) -> Result<(), CliError> {
    if output.is_json() {
        return output.json_line(review);
    }
    let case = output.tone(Tone::Strong, &review.case.to_string());
    output.line(&format!("case    {case}"))?;
    output.line(&format!("reason  {}, tier {}", review.reason, review.tier))?;
    output.line(&format!("tenant  {}", review.tenant))?;
    output.line(&format!("type    {}", review.kind))?;
    output.line(&format!("opened  {}", time_text(review.opened_ms)))?;
    let cases = counted(review.case_count, "case", "cases");
    output.line(&format!("count   {} in {cases}", review.count))?;
    output.line(&format!("state   {}", state_of(review)))?;
    if let Some(resolved) = &review.resolved {
        let (time, reason) = (time_text(resolved.time_ms), &resolved.reason);
        output.line(&format!("        at {time}: {reason}"))?;
    }
    output.line("")?;
    let row = |sample: &Sample| {
        let what = match (&sample.event, &sample.run) {
            (Some(event), _) => format!("event {event}"),
            (None, Some(run)) => format!("run {run}"),
            (None, None) => "-".to_owned(),
        };
        let detail = match sample.detail.is_null() {
            true => sample.near.join("; "),
            false => sample.detail.to_string(),
        };
        vec![what, excerpt(&detail, DETAIL_CHARACTERS_MAX)]
    };
    let rows = review.samples.iter().map(row).collect();
    output.table(&["SAMPLE", "DETAIL"], rows, "no samples")
}
