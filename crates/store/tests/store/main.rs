//! The read model against its model in memory, after reopening and on damaged files.

#[cfg(test)]
mod damage;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod support;
