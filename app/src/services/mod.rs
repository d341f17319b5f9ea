//! Services: the cards, registering one, and the page of one with its pipeline and its settings.

mod add;
pub mod api;
mod detail;
mod fields;
mod forms;
mod list;

pub use add::AddService;
pub use detail::{DiskNotice, ServicePage, Shown, kind_name};
pub use list::ServicesPage;
