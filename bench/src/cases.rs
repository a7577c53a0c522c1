//! The cases.

mod fanout;
mod intake;
mod latency;
mod lists;
mod matching;
mod memory;
mod neighbours;
mod plan;
mod query;
mod raw;
mod recovery;
mod runs;
mod snapshot;
mod week;
mod workflows;

use crate::arguments::{BenchArguments, Case};
use crate::figures::Figures;

/// Measures `case` at each of its sizes.
pub async fn run(case: Case, arguments: &BenchArguments) -> miette::Result<Vec<Figures>> {
    let mut measured = Vec::new();
    for n in arguments.sizes(case) {
        let figures = match case {
            Case::Match => {
                measured.extend(matching::run(n)?);
                continue;
            }
            Case::Query => {
                measured.extend(query::run(n)?);
                continue;
            }
            Case::Lists => {
                measured.extend(lists::run(arguments, n).await?);
                continue;
            }
            Case::Snapshot => {
                measured.extend(snapshot::run(n)?);
                continue;
            }
            Case::Neighbours => {
                measured.extend(neighbours::run(arguments, n).await?);
                continue;
            }
            Case::Week => {
                measured.extend(week::run(n, arguments.graph.as_deref())?);
                continue;
            }
            Case::Raw => raw::run(arguments, n).await?,
            Case::Intake => intake::run(arguments, n).await?,
            Case::IntakeBatch => intake::run_batch(arguments, n).await?,
            Case::Runs => runs::run(arguments, n).await?,
            Case::Latency => latency::run(arguments, n).await?,
            Case::Fanout => fanout::run(arguments, n).await?,
            Case::Plan => plan::run(n)?,
            Case::Recovery => recovery::run(arguments, n).await?,
            Case::Memory => memory::run(arguments, n).await?,
        };
        measured.push(figures);
    }
    for figures in &mut measured {
        (figures.workers, figures.servers) = (arguments.engines(), arguments.servers());
    }
    Ok(measured)
}
