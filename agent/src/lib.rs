//! The agent: runs one attempt of one build and writes down everything that happens.
//!
//! It checks the commit out, looks at the Dockerfile, sees to it that a buildkitd runs, runs buildctl, and keeps every
//! event in a spool from which its relay serves the server. It decides nothing about the build's place in the product:
//! no database, no rights, no retry.

pub mod buildctl;
pub mod cgroup;
pub mod checkout;
pub mod daemon;
mod first;
mod growth;
pub mod pod;
pub mod preflight;
pub mod process;
pub mod proxy;
pub mod record;
pub mod redact;
pub mod relay;
pub mod run;
pub mod secrets;
pub mod spool;
pub mod stop;
pub mod usage;

#[cfg(test)]
mod spec_for_tests;
