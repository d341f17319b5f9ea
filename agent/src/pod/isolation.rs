//! Whose ids this container really has. Kubernetes leaves out what it does not know: a Pod that asked for a user namespace
//! and got none is the node's root.

use crate::record::Ending;
use kiops_events::probe::{IdRange, root_of};
use kiops_events::spec::BuildkitSpec;

/// The ids of a process, as its parent namespace sees them.
pub fn ids(process: &str) -> Vec<IdRange> {
    IdRange::parse(&std::fs::read_to_string(format!("/proc/{process}/uid_map")).unwrap_or_default())
}

/// No build is worth being the node's root by mistake.
pub fn required(spec: &BuildkitSpec) -> Result<(), Ending> {
    let own = ids("self");
    let apart = root_of(&own).is_some_and(|root| root > 0);
    if apart || !spec.in_user_namespace {
        return Ok(());
    }
    Err(Ending::infrastructure("isolation_ignored", format!("the container's ids are {own:?}")))
}
