//! Builds in Pods of a real cluster: scheduler, kubelet, containerd, rootless BuildKit, under the server's own rights.

#[path = "../builds_rig/mod.rs"]
mod builds_rig;
mod check_needs_root;
#[path = "../kill_rig/mod.rs"]
mod kill_rig;
mod needs_root;
mod rig;
#[path = "../stories/mod.rs"]
mod stories;
