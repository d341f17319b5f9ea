//! The KIOPS Build server. [`run`] is the one way to start it; tests give it port 0.
//!
//! Rights are checked in `accounts`, `services` and `builds`, behind the traits of `kiops_app::backend`, and only there.
//! What never enters: views.

pub mod builds;
pub mod diagnosis;
pub mod disk;
pub mod problems;
pub mod registry;
pub mod runner;
pub mod store;
