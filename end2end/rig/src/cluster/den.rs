//! Namespaces in which a cluster's processes live and with which they end, and the control groups that their Pods get.
//!
//! Of the process namespace the kernel ends everything, also what has long outlived whoever started it (a shim and its
//! container outlive containerd), as soon as its first process ends; that one ends with the owner, killed or not. With the
//! last process of the mount namespace go all mounts and all network namespaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::process::Daemon;

const GROUPS: &str = "/sys/fs/cgroup";
const PREFIX: &str = "kiops-rig-";

/// The first process: it gives the namespace folders of its own where programs insist on the system's, and takes in the
/// processes that theirs have left behind.
const FIRST: &str = "mount --make-rshared / \
    && mkdir -p /run/netns /run/containerd \
    && mount -t tmpfs tmpfs /run/netns && mount -t tmpfs tmpfs /run/containerd && mount -t tmpfs tmpfs /var/log \
    && echo ready && while :; do sleep 3600 & wait $!; done";

pub(super) struct Den {
    holder: Option<Daemon>,
    /// The first process as this machine knows it.
    first: u32,
    group: String,
}

impl Den {
    pub async fn start(folder: &Path) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        sweep();
        let group = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let mut den = Self { holder: None, first: 0, group };
        for controller in controllers() {
            fs::create_dir_all(controller.join(&den.group))?;
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--", "bash", "-c", FIRST]);
        let log = folder.join("den.log");
        let holder = den.holder.insert(Daemon::start(command, Signal::KILL, &log).await?);
        let ready = async || fs::read_to_string(&log).is_ok_and(|text| text.contains("ready"));
        holder.wait_until(&log, ready).await.context("namespaces for a cluster")?;
        let pid = holder.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        den.first = children.split_whitespace().next().context("the namespaces have no first process")?.parse()?;
        Ok(den)
    }

    /// The same command, run in here.
    pub fn inside(&self, command: Command) -> Command {
        let mut around = Command::new("nsenter");
        around.args(["--target", &self.first.to_string(), "--mount", "--pid", "--"]);
        around.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => around.env(name, value),
                None => around.env_remove(name),
            };
        }
        around
    }

    /// The folders of its control groups.
    pub fn folders(&self) -> Vec<PathBuf> {
        controllers().into_iter().map(|controller| controller.join(&self.group)).collect()
    }

    /// For Pods, as kubelet names it.
    pub fn control_group(&self) -> String {
        format!("/{}", self.group)
    }
}

impl Drop for Den {
    fn drop(&mut self) {
        self.holder = None;
        // The kernel takes a moment to end all that was inside.
        for _ in 0..250 {
            let left = controllers().into_iter().filter(|controller| !remove(&controller.join(&self.group))).count();
            if left == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// One folder a controller in the first version of control groups, one for all in the second.
fn controllers() -> Vec<PathBuf> {
    let root = Path::new(GROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root.to_owned()];
    }
    let folders = fs::read_dir(root).into_iter().flatten().flatten();
    folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Removes a control group and those in it; true when it is gone.
fn remove(group: &Path) -> bool {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
    !group.exists()
}

/// Removes what killed processes have left: nothing lives in it any more.
fn sweep() {
    for controller in controllers() {
        for entry in fs::read_dir(&controller).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                remove(&entry.path());
            }
        }
    }
}
