//! What BuildKit keeps on a service's volume from one build to the next. It tidies up by itself a minute after a build,
//! when its Pod is gone: so room is made before a build needs it.

use crate::daemon::Daemon;
use crate::preflight::Plan;
use crate::process::{environment, output_within};
use crate::record::Recorder;
use kiops_events::spec::BuildkitSpec;
use rustix::fs::statvfs;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

const PRUNE_LIMIT: Duration = Duration::from_secs(120);
const MB: u64 = 1_000_000;

/// Bytes of the file system that holds the state.
#[derive(Clone, Copy, Debug)]
struct Room {
    total: u64,
    free: u64,
}

impl Room {
    fn of(folder: &Path) -> io::Result<Self> {
        let found = statvfs(folder)?;
        Ok(Self { total: found.f_blocks * found.f_frsize, free: found.f_bavail * found.f_frsize })
    }

    /// Less than a fifth is left.
    fn is_scarce(self) -> bool {
        self.free < self.total / 5
    }
}

/// Says what goes with a state that goes with its Pod, to whom it means something.
pub fn tell_what_is_lost(spec: &BuildkitSpec, plan: &Plan, recorder: &Recorder) {
    let dockerfile = std::fs::read_to_string(plan.dockerfile_folder.join(&plan.filename)).unwrap_or_default();
    if spec.state_goes && has_cache_mount(&dockerfile) {
        recorder.note("cache_mounts_empty", []);
    }
}

fn has_cache_mount(dockerfile: &str) -> bool {
    let mut mounts = dockerfile
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(|line| line.split("--mount=").skip(1));
    mounts.any(|mount| {
        mount.split_whitespace().next().is_some_and(|options| options.split(',').any(|o| o == "type=cache"))
    })
}

/// Takes from a state that leaves little room. First the layers, which come again from the registry; then the rest,
/// whatever was used longest ago.
pub async fn make_room(spec: &BuildkitSpec, daemon: &Daemon, recorder: &Recorder) {
    if let Err(error) = prune(spec, daemon, recorder).await {
        tracing::warn!(%error, "the state could not be made smaller");
    }
}

async fn prune(spec: &BuildkitSpec, daemon: &Daemon, recorder: &Recorder) -> io::Result<()> {
    let before = Room::of(&spec.state_dir)?;
    if !before.is_scarce() {
        return Ok(());
    }
    let keep_mb = (before.total / 2 / MB).to_string();
    for which in [&["--filter", "type==regular"][..], &["--all"]] {
        let mut command = Command::new(&spec.buildctl);
        let address = format!("unix://{}", daemon.socket().display());
        command.args(["--addr", &address, "prune", "--keep-storage", &keep_mb]).args(which);
        command.env_clear().envs(environment());
        let output = output_within(command, PRUNE_LIMIT).await?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let now = Room::of(&spec.state_dir)?;
        if !now.is_scarce() {
            break;
        }
    }
    let freed = Room::of(&spec.state_dir)?.free.saturating_sub(before.free);
    recorder
        .note("state_pruned", [("freed_bytes", freed.to_string()), ("free_bytes", (before.free + freed).to_string())]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scarce_is_less_than_a_fifth() {
        assert!(Room { total: 100, free: 19 }.is_scarce());
        assert!(!Room { total: 100, free: 20 }.is_scarce());
        assert!(!Room { total: 0, free: 0 }.is_scarce());
    }

    #[test]
    fn cache_mounts_are_seen_where_they_stand() {
        for with in [
            "FROM x\nRUN --mount=type=cache,target=/c make",
            "RUN --mount=target=/c,type=cache make",
            "RUN --mount=type=bind,target=/b --mount=type=cache,target=/c make",
            "RUN \\\n  --mount=type=cache,target=/c \\\n  make",
        ] {
            assert!(has_cache_mount(with), "{with}");
        }
        for without in [
            "",
            "FROM x",
            "RUN --mount=type=secret,id=a make",
            "# RUN --mount=type=cache,target=/c",
            "RUN echo type=cache",
        ] {
            assert!(!has_cache_mount(without), "{without}");
        }
    }
}
