//! The program against a real broker. Where a test says nothing else, the engine is
//! played by it: it writes the streams that an engine would have written, and answers
//! commands. The tests of telemetry and of README.md start the program's own engine.

#[cfg(test)]
mod audit;
#[cfg(test)]
mod bit_flips;
#[cfg(test)]
mod book;
#[cfg(test)]
mod collector;
#[cfg(test)]
mod completion;
#[cfg(test)]
mod dead_room;
#[cfg(test)]
mod definitions;
#[cfg(test)]
mod described;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod drift;
#[cfg(test)]
mod engine;
#[cfg(test)]
mod events;
#[cfg(test)]
mod first_room;
#[cfg(test)]
mod flags;
#[cfg(test)]
mod health;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod many_strategies;
#[cfg(test)]
mod meant;
#[cfg(test)]
mod misuse;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod own_broker;
#[cfg(test)]
mod payloads;
#[cfg(test)]
mod process;
#[cfg(test)]
mod progress;
#[cfg(test)]
mod questions;
#[cfg(test)]
mod read_model;
#[cfg(test)]
mod repair;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod replay_requests;
#[cfg(test)]
mod replayed_by;
#[cfg(test)]
mod resolve;
#[cfg(test)]
mod review;
#[cfg(test)]
mod room;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod schemas;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod shipped_configurations;
#[cfg(test)]
mod slips;
#[cfg(test)]
mod standstill;
#[cfg(test)]
mod started_since;
#[cfg(test)]
mod strategies;
#[cfg(test)]
mod support;
#[cfg(test)]
mod telemetry;
#[cfg(test)]
mod truncation;
#[cfg(test)]
mod unreachable;
#[cfg(test)]
mod window;
