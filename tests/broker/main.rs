//! The engine against a real broker, one module per question. All are one
//! program: each more would be linked with the whole engine once more.

mod acknowledgement;
mod archives;
mod audit;
mod command_window;
mod commands;
mod contracts;
mod definition_sets;
mod events;
mod events_needed;
mod floor;
mod garbage;
mod hops;
mod key_hours;
mod lanes;
mod many_strategies;
mod matching;
mod neighbours;
mod nodes;
mod payloads;
mod plans;
mod python;
mod queues;
mod runner;
mod snapshots;
mod spine;
mod standstill;
mod wait;
mod webhooks;
mod workers;
