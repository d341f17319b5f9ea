//! The folder that the containers of a Pod share: who is at work, and the plan that goes from one to the other.
//!
//! Who works holds a lock for as long as it lives, and the kernel drops it whatever it dies of. A lock's file appears
//! locked, so one that is free is a dead man's.

use crate::first::first;
use crate::preflight::Plan;
use anyhow::Context;
use kiops_events::spec::AgentSpec;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::io;
use std::path::PathBuf;

pub struct Shared(PathBuf);

#[derive(Clone, Copy, Debug)]
pub enum Role {
    Checkout,
    Build,
}

impl Role {
    fn lock(self) -> &'static str {
        match self {
            Self::Checkout => "checkout.lock",
            Self::Build => "build.lock",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    NotYet,
    Alive,
    Dead,
}

impl Shared {
    pub fn of(spec: &AgentSpec) -> anyhow::Result<Self> {
        Ok(Self(spec.files.spool.parent().context("the spool has no folder")?.to_owned()))
    }

    /// The role, for as long as this process lives; none where somebody has had it.
    pub fn take(&self, role: Role) -> io::Result<Option<File>> {
        first(&self.0.join(role.lock()), |lock| Ok(flock(lock, FlockOperation::NonBlockingLockExclusive)?))
    }

    pub fn life(&self, role: Role) -> Life {
        match File::open(self.0.join(role.lock())) {
            Err(_) => Life::NotYet,
            Ok(lock) if flock(&lock, FlockOperation::NonBlockingLockShared).is_ok() => Life::Dead,
            Ok(_) => Life::Alive,
        }
    }

    /// In place at once: a plan that is half there would be read as none.
    pub fn leave_plan(&self, plan: &Plan) -> io::Result<()> {
        let new = self.0.join("plan.new");
        std::fs::write(&new, serde_json::to_vec(plan)?)?;
        std::fs::rename(new, self.0.join("plan.json"))
    }

    pub fn plan(&self) -> io::Result<Option<Plan>> {
        match std::fs::read(self.0.join("plan.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_had_once_and_its_holders_death_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared(folder.path().to_owned());
        assert_eq!(shared.life(Role::Build), Life::NotYet);
        let held = shared.take(Role::Build).unwrap().unwrap();
        assert_eq!((shared.life(Role::Build), shared.life(Role::Checkout)), (Life::Alive, Life::NotYet));
        assert!(shared.take(Role::Build).unwrap().is_none());
        drop(held);
        assert_eq!(shared.life(Role::Build), Life::Dead);
        assert!(shared.take(Role::Build).unwrap().is_none(), "nobody takes a dead man's place");
    }

    #[test]
    fn a_plan_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared(folder.path().to_owned());
        assert_eq!(shared.plan().unwrap(), None);
        let plan = Plan { context: "/w".into(), dockerfile_folder: "/w/x".into(), filename: "a/Dockerfile".into() };
        shared.leave_plan(&plan).unwrap();
        assert_eq!(shared.plan().unwrap(), Some(plan));
        std::fs::write(folder.path().join("plan.json"), "{").unwrap();
        assert!(shared.plan().is_err());
    }
}
