//! The server's edge on real parts: a real listener, the real store, a real Git host. One program, because linking the
//! server takes longer than testing it.

mod accounts;
mod builds;
#[path = "../builds_rig/mod.rs"]
mod builds_rig;
mod check;
mod client;
mod git;
mod pages;
mod processes;
mod refusals;
mod secrets;
mod services;
mod start;
mod support;
