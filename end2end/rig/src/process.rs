//! Child processes that never outlive their owner.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};

use crate::home::at_home;

/// A server in a process group of its own. Dropped: the whole group is stopped and waited for.
/// If this process is killed, the kernel sends the same signal.
pub(crate) struct Daemon {
    child: Child,
    stop: Signal,
}

impl Daemon {
    /// `stop` is the signal that ends this server at once and cleanly; its output goes to `log`.
    pub async fn start(mut command: Command, stop: Signal, log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("a log at {}", log.display()))?;
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out).process_group(0);
        let parent = std::process::id();
        // SAFETY: only system calls between fork and exec, nothing that allocates or locks.
        unsafe {
            command.pre_exec(move || {
                set_parent_process_death_signal(Some(stop))?;
                // The parent may have died before the kernel was told.
                if rustix::process::getppid().is_none_or(|pid| pid.as_raw_nonzero().get() as u32 != parent) {
                    return Err(std::io::ErrorKind::NotConnected.into());
                }
                Ok(())
            });
        }
        let program = command.get_program().to_owned();
        let child = at_home(async move { Ok(command.spawn()?) })
            .await
            .with_context(|| format!("{} could not be started", program.display()))?;
        Ok(Self { child, stop })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, when it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits until `ready` says so; fails with the end of the log when the server ends before.
    pub async fn wait_until(&mut self, log: &Path, mut ready: impl AsyncFnMut() -> bool) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(20);
        let start = Instant::now();
        while !ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}:\n{}", std::fs::read_to_string(log)?);
            }
            if start.elapsed() > PATIENCE {
                bail!("it was not ready after {PATIENCE:?}:\n{}", std::fs::read_to_string(log)?);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        let _ = kill_process_group(group, self.stop);
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Runs a program to its end and gives back what it printed.
pub(crate) async fn output(command: Command) -> Result<String> {
    let name = command.get_program().display().to_string();
    let output = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("{name} could not be started"))?;
    if !output.status.success() {
        bail!("{name} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
