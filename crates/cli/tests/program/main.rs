//! The program against a real broker. The engine is played by the test: it
//! writes the streams that an engine would have written, and answers commands.

mod audit;
mod definitions;
mod events;
mod health;
mod runs;
mod support;
