//! Parts of pages without business words: fields, badges, icons, times, copying.

pub mod browser;
mod clock;
mod combo;
mod dialog;
mod form;
pub mod format;
mod parts;
mod post;
pub mod query;

pub use clock::{ServerClock, repeat};
pub use combo::{Choice, Combo, choice_of};
pub use dialog::PageDialog;
pub use form::*;
pub use parts::*;
pub use post::{Post, PostForm};
