//! What can happen in a build, and the pure functions over it.
//!
//! The agent writes [`AgentEvent`]s, the server numbers them into [`StoredEvent`]s, the browser folds them into a
//! [`BuildView`]. This crate is compiled into all three, so it holds no IO, no clock and no view code: what it needs to
//! know about time arrives as an argument.

pub mod event;
pub mod patch;
pub mod rows;
pub mod view;

#[cfg(feature = "native")]
pub mod address;
#[cfg(feature = "native")]
pub mod chain;
#[cfg(feature = "native")]
pub mod lines;
#[cfg(feature = "native")]
pub mod probe;
#[cfg(feature = "native")]
pub mod rawjson;
#[cfg(feature = "native")]
pub mod spec;
#[cfg(feature = "native")]
pub mod trust;
#[cfg(feature = "native")]
pub mod wire;

pub use event::{AgentEvent, EventKind, Interval, LineText, Outcome, Phase, Place, StoredEvent};
pub use rows::{Row, RowKind};
pub use view::{BuildView, Marker, StepView};
