//! The read model of runs: what the journals say, laid out to be asked.
//!
//! ```text
//! journal message ─► FrameChanges (pure) ─► RunIndex::apply ─► newest runs ─► rows
//!                                              │                  └────┬─────────┘
//!                                           position     RunQuery ─► list, get
//! ```
//!
//! [`RunIndex`] has two implementations that give the same answers: [`MemoryIndex`], which is
//! the model that the tests compare with, and [`ReadModel`] in sled. Nothing is ever decided
//! from either: they are for people, are made from the journals alone, and are made again
//! whenever anything about them is in doubt. This is the only crate that uses sled.

pub mod folder;
pub mod frame;
mod guarded_db;
pub mod index;
pub mod memory;
pub mod query;
pub mod question;
mod rows;
pub mod run;
mod sled_index;
mod young;

pub use folder::{OpenError, Opened, ReadModel, Rebuild, StoreLimits};
pub use frame::{FrameChanges, RunChange};
pub use index::{Applied, Origin, Position, RunIndex, StoreError, StreamOrigin};
pub use memory::MemoryIndex;
pub use query::{Cursor, RunPage, RunQuery};
pub use run::{RunStatus, RunSummary};
