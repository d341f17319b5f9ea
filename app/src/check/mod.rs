//! The self-test of the place where builds run.

mod api;
mod page;

pub use page::CheckPage;
