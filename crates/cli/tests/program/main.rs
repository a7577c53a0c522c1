//! The program against a real broker. The engine is played by the test: it
//! writes the streams that an engine would have written, and answers commands.

#[cfg(test)]
mod audit;
#[cfg(test)]
mod definitions;
#[cfg(test)]
mod events;
#[cfg(test)]
mod health;
#[cfg(test)]
mod runs;
#[cfg(test)]
mod strategies;
#[cfg(test)]
mod support;
