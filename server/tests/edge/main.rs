//! The server's edge on real parts: a real listener, the real store, a real Git host. One program, because linking the
//! server takes longer than testing it.

mod accounts;
mod builds;
mod client;
mod git;
mod pages;
mod refusals;
mod services;
mod start;
mod support;
