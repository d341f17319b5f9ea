//! The control group that a build's steps run in: its limits before, its counters during the build.
//!
//! Knows both versions of the kernel's interface. Its path is fixed per service, because it is part of a step's cache key;
//! so counters go on from build to build and only differences mean anything.

use kiops_events::spec::CgroupSpec;
use rustix::event::{EventfdFlags, eventfd};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";
const PERIOD_US: u64 = 100_000;

/// A group's counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub cpu_us: u64,
    pub memory_bytes: u64,
    /// Anonymous, shared and kernel memory: what cannot be reclaimed.
    pub anon_bytes: u64,
    pub oom_kills: u64,
}

/// The group, with its limits written.
pub enum Group {
    V1 {
        cpuacct: PathBuf,
        memory: PathBuf,
        /// Version 1 counts a kill in the group that died of it, which may be gone then; but it rings a bell here.
        bell: Option<File>,
        rung: u64,
    },
    V2 {
        folder: PathBuf,
    },
}

impl Group {
    /// The container's, in which this process and all that it starts are; its limits are whoever made it's business.
    /// Only a container sees its own group where a machine has the root of all.
    pub fn of_container() -> Self {
        Self::of_container_at(Path::new(ROOT))
    }

    fn of_container_at(root: &Path) -> Self {
        if root.join("cgroup.controllers").exists() {
            return Self::V2 { folder: root.to_owned() };
        }
        let memory = root.join("memory");
        let bell = out_of_memory_bell(&memory).ok();
        Self::V1 { cpuacct: root.join("cpuacct"), memory, bell, rung: 0 }
    }

    /// Makes the group where it is not there yet and writes the limits.
    pub fn limit(spec: &CgroupSpec) -> io::Result<Self> {
        Self::limit_below(Path::new(ROOT), spec)
    }

    fn limit_below(root: &Path, spec: &CgroupSpec) -> io::Result<Self> {
        let path = spec.parent.trim_matches('/');
        if path.is_empty() || path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the group's path is not a plain one"));
        }
        if root.join("cgroup.controllers").exists() {
            Self::limit_v2(root, path, spec)
        } else {
            Self::limit_v1(root, path, spec)
        }
    }

    fn limit_v1(root: &Path, path: &str, spec: &CgroupSpec) -> io::Result<Self> {
        let controller = |name: &str| -> io::Result<PathBuf> {
            let mount = root.join(name);
            if !mount.is_dir() {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("no cgroup controller {name}")));
            }
            let folder = mount.join(path);
            std::fs::create_dir_all(&folder)?;
            Ok(folder)
        };
        let (cpu, memory, cpuacct) = (controller("cpu")?, controller("memory")?, controller("cpuacct")?);
        let quota = u64::from(spec.cpu_millicores) * PERIOD_US / 1000;
        put(&cpu.join("cpu.cfs_period_us"), PERIOD_US)?;
        put(&cpu.join("cpu.cfs_quota_us"), quota)?;
        // Without swap: a build that is out of memory is to say so, and not to become slow. The kernel wants memory never
        // above memory with swap: when both grow, the second goes first. Without swap accounting there is no second.
        let (limit, with_swap) = (memory.join("memory.limit_in_bytes"), memory.join("memory.memsw.limit_in_bytes"));
        if with_swap.exists() {
            let grew = put(&with_swap, spec.memory_bytes).is_ok();
            put(&limit, spec.memory_bytes)?;
            if !grew {
                put(&with_swap, spec.memory_bytes)?;
            }
        } else {
            put(&limit, spec.memory_bytes)?;
        }
        let bell = out_of_memory_bell(&memory).ok();
        Ok(Self::V1 { cpuacct, memory, bell, rung: 0 })
    }

    fn limit_v2(root: &Path, path: &str, spec: &CgroupSpec) -> io::Result<Self> {
        let mut folder = root.to_owned();
        for part in path.split('/') {
            // A group's children have the controllers that it hands down.
            std::fs::write(folder.join("cgroup.subtree_control"), "+cpu +memory")?;
            folder.push(part);
            std::fs::create_dir_all(&folder)?;
        }
        put(&folder.join("memory.max"), spec.memory_bytes)?;
        // A build that is out of memory is to say so, and not to become slow. Not there on a kernel without swap.
        if folder.join("memory.swap.max").exists() {
            put(&folder.join("memory.swap.max"), 0)?;
        }
        let quota = u64::from(spec.cpu_millicores) * PERIOD_US / 1000;
        std::fs::write(folder.join("cpu.max"), format!("{quota} {PERIOD_US}"))?;
        Ok(Self::V2 { folder })
    }

    /// The counters now; none where the kernel shows none.
    pub fn read(&mut self) -> Option<Counters> {
        match self {
            Self::V1 { cpuacct, memory, bell, rung } => {
                if let Some(bell) = bell {
                    let mut count = [0; 8];
                    // Not blocking: nothing to read means that it has not rung since.
                    if matches!(rustix::io::read(&*bell, &mut count), Ok(8)) {
                        *rung += u64::from_ne_bytes(count);
                    }
                }
                let stat = std::fs::read_to_string(memory.join("memory.stat")).ok()?;
                let kernel = number(&memory.join("memory.kmem.usage_in_bytes")).unwrap_or_default();
                let control = std::fs::read_to_string(memory.join("memory.oom_control")).unwrap_or_default();
                Some(Counters {
                    cpu_us: number(&cpuacct.join("cpuacct.usage"))? / 1000,
                    memory_bytes: number(&memory.join("memory.usage_in_bytes"))?,
                    anon_bytes: field(&stat, "total_rss")? + field(&stat, "total_shmem").unwrap_or_default() + kernel,
                    oom_kills: (*rung).max(field(&control, "oom_kill").unwrap_or_default()),
                })
            }
            Self::V2 { folder } => {
                let stat = std::fs::read_to_string(folder.join("memory.stat")).ok()?;
                let events = std::fs::read_to_string(folder.join("memory.events")).ok()?;
                let cpu = std::fs::read_to_string(folder.join("cpu.stat")).ok()?;
                let hard: u64 = ["anon", "shmem", "kernel"].iter().filter_map(|name| field(&stat, name)).sum();
                // Names and attributes of files that were touched: the kernel gives them up like its page cache.
                let soft = field(&stat, "slab_reclaimable").unwrap_or_default();
                Some(Counters {
                    cpu_us: field(&cpu, "usage_usec")?,
                    memory_bytes: number(&folder.join("memory.current"))?,
                    anon_bytes: hard.saturating_sub(soft),
                    oom_kills: field(&events, "oom_kill").unwrap_or_default(),
                })
            }
        }
    }
}

/// A descriptor that counts how often the group ran out of memory.
fn out_of_memory_bell(memory: &Path) -> io::Result<File> {
    let bell = File::from(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    let control = File::open(memory.join("memory.oom_control"))?;
    let order = format!("{} {}", bell.as_raw_fd(), control.as_raw_fd());
    std::fs::write(memory.join("cgroup.event_control"), order)?;
    Ok(bell)
}

fn put(path: &Path, value: u64) -> io::Result<()> {
    std::fs::write(path, value.to_string()).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

fn number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(parent: &str) -> CgroupSpec {
        CgroupSpec { parent: parent.into(), cpu_millicores: 1500, memory_bytes: 4 << 30 }
    }

    #[test]
    fn version_two_gets_limits_all_the_way_down_and_is_read() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("cgroup.controllers"), "cpu memory").unwrap();
        let mut group = Group::limit_below(root.path(), &spec("kiops/svc")).unwrap();
        let folder = root.path().join("kiops/svc");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!((read("memory.max"), read("cpu.max")), ("4294967296".into(), "150000 100000".into()));
        assert!(root.path().join("kiops/cgroup.subtree_control").exists());
        assert_eq!(group.read(), None);
        std::fs::write(folder.join("memory.current"), "900\n").unwrap();
        std::fs::write(
            folder.join("memory.stat"),
            "anon 100\nfile 500\nkernel 30\nkernel_stack 9\nshmem 7\nslab_reclaimable 20\n",
        )
        .unwrap();
        std::fs::write(folder.join("memory.events"), "low 0\noom 3\noom_kill 2\n").unwrap();
        std::fs::write(folder.join("cpu.stat"), "usage_usec 1234\nuser_usec 1\n").unwrap();
        let wanted = Counters { cpu_us: 1234, memory_bytes: 900, anon_bytes: 117, oom_kills: 2 };
        assert_eq!(group.read(), Some(wanted));
    }

    #[test]
    fn version_one_has_a_folder_per_controller() {
        let root = tempfile::tempdir().unwrap();
        for controller in ["cpu", "memory", "cpuacct"] {
            std::fs::create_dir(root.path().join(controller)).unwrap();
        }
        let mut group = Group::limit_below(root.path(), &spec("/kiops/svc/")).unwrap();
        let memory = root.path().join("memory/kiops/svc");
        assert_eq!(std::fs::read_to_string(memory.join("memory.limit_in_bytes")).unwrap(), "4294967296");
        let cpu = root.path().join("cpu/kiops/svc");
        assert_eq!(std::fs::read_to_string(cpu.join("cpu.cfs_quota_us")).unwrap(), "150000");
        std::fs::write(memory.join("memory.stat"), "rss 1\ntotal_rss 50\ntotal_shmem 5\n").unwrap();
        std::fs::write(memory.join("memory.usage_in_bytes"), "70\n").unwrap();
        std::fs::write(root.path().join("cpuacct/kiops/svc/cpuacct.usage"), "5000000\n").unwrap();
        let wanted = Counters { cpu_us: 5000, memory_bytes: 70, anon_bytes: 55, oom_kills: 0 };
        assert_eq!(group.read(), Some(wanted));
    }

    #[test]
    fn a_container_reads_the_group_it_is_in() {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("cpuacct/cpuacct.usage", "7000\n"),
            ("memory/memory.usage_in_bytes", "70\n"),
            ("memory/memory.stat", "total_rss 50\n"),
            ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
        ] {
            std::fs::create_dir_all(root.path().join(file).parent().unwrap()).unwrap();
            std::fs::write(root.path().join(file), text).unwrap();
        }
        let wanted = Counters { cpu_us: 7, memory_bytes: 70, anon_bytes: 50, oom_kills: 3 };
        assert_eq!(Group::of_container_at(root.path()).read(), Some(wanted));
        std::fs::write(root.path().join("cgroup.controllers"), "").unwrap();
        assert!(matches!(Group::of_container_at(root.path()), Group::V2 { folder } if folder == root.path()));
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for bad in ["", "/", "../x", "a//b", "a/../../b"] {
            assert!(Group::limit_below(root.path(), &spec(bad)).is_err(), "{bad}");
        }
    }
}
