//! The long fault tests against a real broker.
