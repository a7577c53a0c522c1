//! `GET /audit/{partition}/receipts?record=…`: proofs that the audit log holds these records.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use crate::operated::Operated;
use crate::problem::{Problem, ReceiptProblem};

/// Where receipts are.
pub const RECEIPTS_PATH: &str = "/audit/{partition}/receipts";

/// Requests for receipts at once; each reads the broker, and the first one a whole log.
pub const RECEIPT_REQUESTS_MAX: usize = 4;

/// Media type of the answer: a receipt a line.
const NDJSON: &str = "application/x-ndjson";

pub(crate) fn routes<O: Operated>() -> Router<Arc<O>> {
    let places = Arc::new(Semaphore::new(RECEIPT_REQUESTS_MAX));
    Router::new().route(
        RECEIPTS_PATH,
        get(
            move |State(operated): State<Arc<O>>,
                  partition: Result<Path<String>, PathRejection>,
                  RawQuery(query): RawQuery| async move {
                let query = query.as_deref().unwrap_or_default();
                let answered = match partition {
                    Ok(Path(partition)) => answer(&*operated, &places, &partition, query).await,
                    Err(error) => {
                        Err(Problem::receipts(ReceiptProblem::Malformed, error.body_text()))
                    }
                };
                answered.unwrap_or_else(Problem::into_response)
            },
        ),
    )
}

async fn answer<O: Operated>(
    operated: &O,
    places: &Semaphore,
    partition: &str,
    query: &str,
) -> Result<Response, Problem> {
    let records = records(query)?;
    let Ok(_place) = places.try_acquire() else {
        let detail = format!("{RECEIPT_REQUESTS_MAX} requests are under way, ask again");
        return Err(Problem::receipts(ReceiptProblem::Busy, detail));
    };
    let receipts = operated.receipts(partition, records).await?;
    let lines: String = receipts.into_iter().map(|receipt| receipt + "\n").collect();
    Ok(([(CONTENT_TYPE, NDJSON)], lines).into_response())
}

/// The records that a query asks for: `record=<index>`, once or several times.
fn records(query: &str) -> Result<BTreeSet<u64>, Problem> {
    let malformed = |detail: String| Problem::receipts(ReceiptProblem::Malformed, detail);
    let mut records = BTreeSet::new();
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let index = part.strip_prefix("record=").and_then(|index| index.parse().ok());
        records.insert(index.ok_or_else(|| {
            malformed(format!("`{part}` is not `record=` and the index of a record"))
        })?);
    }
    if records.is_empty() {
        return Err(malformed(
            "name the records: `?record=17&record=18`; an index is what entries of the audit feed \
             and `fermata audit tail` show"
                .to_owned(),
        ));
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_asked_for_by_their_index() {
        assert_eq!(records("record=18&record=17&record=18"), Ok(BTreeSet::from([17, 18])));
    }

    #[test]
    fn a_query_that_is_something_else_is_told_what_it_should_be() {
        for query in
            ["", "run=7", "record=", "record=-1", "record=1&x", "record=18446744073709551616"]
        {
            let problem = records(query).expect_err(query);

            assert_eq!(problem.status, 400, "{query}: {problem:?}");
            assert!(problem.detail.contains("record="), "{query}: {problem:?}");
        }
    }
}
