//! What one process of an engine answers over HTTP to whoever operates it.
//!
//! | path | answers |
//! |---|---|
//! | `/health` | 200 while the process lives |
//! | `/ready` | 200 while all is well here; else 503, naming each obstacle |
//! | `/metrics` | the figures of this process, as Prometheus text |
//! | `/audit/{partition}/receipts` | proofs that the audit log holds the records which `?record=` names |
//! | `POST /internal/agent/events` | 202 when signed events are stored to be decided once more |
//!
//! What stands behind them is an [`Operated`]: this crate knows no engine. Every
//! resource of a connection is bounded, see [`server`].

mod in_flight;
pub mod operated;
pub mod problem;
pub mod receipts;
pub mod replay;
mod routes;
pub mod server;

pub use operated::{Identity, Obstacle, Operated, Replay, ReplayRequest};
pub use problem::{Problem, ReceiptProblem, ReplayProblem};
pub use server::Server;
