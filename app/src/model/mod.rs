//! The model: ids, states, settings with their validation, and what pages and the JSON API show. Shared by server and
//! browser, so it holds no IO and no secret that has been stored.

mod build;
mod check;
mod ids;
mod live;
mod profile;
mod registry;
mod service;
mod settings;
mod system;

pub use build::*;
pub use check::*;
pub use ids::*;
pub use live::*;
pub use profile::*;
pub use registry::*;
pub use service::*;
pub use settings::*;
pub use system::*;
