//! The protocol of a partition over a broker that fails.

#[cfg(test)]
mod audit_log;
#[cfg(test)]
mod crashes;
#[cfg(test)]
mod owner;
#[cfg(test)]
mod relay;
#[cfg(test)]
mod seeds;
