//! `plan`: from a document to a checked plan and its analysis.

use std::hint::black_box;
use std::time::{Duration, Instant};

use fermata_core::plan::Work;
use fermata_core::plan::analysis::analyse;
use fermata_definitions::{TaskDocument, WorkflowDocument, build};

use super::workflows::document;
use crate::definitions::told;
use crate::figures::{Figures, Times, count};
use crate::setup::progress;

/// Nodes of one layer.
const WIDTH: u64 = 10;

/// Nodes built in all rounds together, about.
const NODES_BUILT: u64 = 1_000_000;

/// Builds plans of `n` nodes in layers of [`WIDTH`], each waiting for two of the layer before.
pub fn run(n: u64) -> miette::Result<Figures> {
    let rounds = (NODES_BUILT / n).clamp(5, 200);
    let bar = progress("plan", rounds);
    let layered = layered(n);
    let mut times = Vec::new();
    for _ in 0..rounds {
        let document = layered.clone();
        let begun = Instant::now();
        let executable = build(document).map_err(|problems| told(&problems))?;
        let analysis = analyse(executable.plan());
        times.push(begun.elapsed());
        black_box((executable, analysis));
        bar.inc(1);
    }
    let total = times.iter().sum::<Duration>();
    let median_ms = Times::of(times.clone()).percentile_ms(50).unwrap_or_default();
    Ok(Figures {
        per_s: Some(count(n) * 1e3 / median_ms.max(1e-6)),
        ..Figures::of("plan", n, total).with_times(times)
    })
}

fn layered(n: u64) -> WorkflowDocument {
    let id = |number: u64| format!("node-{number}");
    let tasks = (0..n).map(|number| {
        let layer = number - number % WIDTH;
        let before = layer.checked_sub(WIDTH);
        let depends_on = before.map_or_else(Vec::new, |first| {
            [number % WIDTH, (number + 1) % WIDTH].map(|place| id(first + place)).to_vec()
        });
        TaskDocument { depends_on, ..TaskDocument::new(id(number), Work::Noop) }
    });
    document("layered", tasks.collect())
}
