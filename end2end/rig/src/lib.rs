//! Real parts for tests and for the demo: a registry, a Git server, a Postgres, BuildKit's programs.
//!
//! Each part is an object: made by `start`, stopped and cleaned up when dropped, and gone even if
//! the process that made it is killed. What must not enter: product code, and imitations of
//! programs that can run here for real. The one double, of a cluster for hundreds of Pods, says so in
//! its name; it alone knows the agent, whose spool it writes.

mod base_image;
mod buildkit;
mod cluster;
pub mod demo;
mod faults;
mod git;
mod home;
mod kube_double;
mod line;
mod postgres;
mod process;
mod registry;
pub mod serve;
mod tls;

pub use buildkit::{BuildkitBins, buildkit_bins};
pub use cluster::{Cluster, Furnished, Image, Part};
pub use faults::{Fault, FaultyRegistry, On};
pub use git::{GitFault, GitOptions, GitServer, Repo};
pub use home::free_port;
pub use kube_double::KubeDouble;
pub use line::Line;
pub use postgres::Postgres;
pub use registry::{Login, Manifest, Registry, RegistryOptions};
pub use tls::{Authority, TlsDoor};
