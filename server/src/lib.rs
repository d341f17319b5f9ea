//! The KIOPS Build server. [`run`] is the one way to start it; tests give it port 0.
//!
//! Rights are checked in `accounts`, `services` and `builds`, behind the traits of `kiops_app::backend`, and only there.
//! What never enters: views.

pub mod builds;
pub mod cli;
pub mod config;
pub mod diagnosis;
pub mod disk;
pub mod folder;
pub mod git;
pub mod outgoing;
pub mod problems;
pub mod registry;
pub mod runner;
pub mod secrets;
pub mod store;
pub mod telemetry;
