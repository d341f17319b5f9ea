//! The KIOPS Build server. [`run`] is the one way to start it; tests give it port 0.
//!
//! Rights are checked in `accounts`, `services` and `builds`, behind the traits of `kiops_app::backend`, and only there.
//! What never enters: views.

pub mod accounts;
mod audit;
pub mod builds;
pub mod check;
pub mod cli;
mod clock;
pub mod config;
pub mod diagnosis;
pub mod disk;
pub mod folder;
pub mod git;
pub mod http;
pub mod outgoing;
pub mod problems;
pub mod program;
pub mod registry;
pub mod runner;
pub mod secrets;
mod serve;
pub mod services;
pub mod store;
mod sync_points;
pub mod telemetry;

pub use serve::run;
