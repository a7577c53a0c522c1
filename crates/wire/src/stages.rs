//! Frames between intake stages that run in different processes.
