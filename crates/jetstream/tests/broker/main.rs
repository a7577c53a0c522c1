//! Everything that this crate promises, against a real nats-server.

#[cfg(test)]
mod asking;
#[cfg(test)]
mod consuming;
#[cfg(test)]
mod objects;
#[cfg(test)]
mod publishing;
#[cfg(test)]
mod reading;
#[cfg(test)]
mod server;
#[cfg(test)]
mod small_things;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tasks;
#[cfg(test)]
mod topology_file;
