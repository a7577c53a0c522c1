//! The read model against its model in memory, after reopening and on damaged files.

mod damage;
mod laws;
mod support;
