//! Processes that outlive the server: started apart from it, and known again by process id and start time.

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What of the server's own environment an agent needs: where programs and certificates are, and the way out.
const KEPT: [&str; 20] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "CURL_CA_BUNDLE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "RUST_LOG",
];

/// The kernel ends a killed process at once, but for one that waits for a disk.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

/// A process, such that a later one with the same number is not mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    pid: Pid,
    /// In clock ticks since the machine started.
    started: u64,
}

impl Who {
    /// What a process has written down of itself; none when it never came so far.
    pub fn read(file: &Path) -> Option<Self> {
        parse_stat(&std::fs::read_to_string(file).ok()?).map(|(who, _)| who)
    }

    pub fn is_alive(self) -> bool {
        matches!(self.look(), Look::Runs)
    }

    fn look(self) -> Look {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid.as_raw_nonzero()));
        match stat.ok().as_deref().and_then(parse_stat) {
            Some((who, state)) if who == self => {
                // A zombie only waits to be counted.
                if matches!(state, 'Z' | 'X') { Look::Over } else { Look::Runs }
            }
            Some(_) => Look::SomebodyElse,
            None => Look::Over,
        }
    }

    /// Sends the signal to this process and to no other.
    fn signal(self, signal: Signal) {
        // Opened first and looked at afterwards: what the descriptor names cannot become another process.
        let Ok(process) = pidfd_open(self.pid, PidfdFlags::empty()) else { return };
        if self.is_alive() {
            let _ = pidfd_send_signal(process.as_fd(), signal);
        }
    }

    pub fn terminate(self) {
        self.signal(Signal::TERM);
    }

    async fn over_within(self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.is_alive() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the process and whatever is left of its group.
    pub async fn stop(self, grace: Duration) {
        self.terminate();
        self.over_within(grace).await;
        self.kill();
        self.over_within(KILL_PATIENCE).await;
    }

    /// Kills the process and its group, without waiting for it.
    pub fn kill(self) {
        // The group's number stays taken as long as anybody is in it, so it can only be ours, unless its leader is
        // somebody else by now.
        if !matches!(self.look(), Look::SomebodyElse) {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

enum Look {
    Runs,
    Over,
    SomebodyElse,
}

/// Process, state. The second field is a name in brackets that may hold anything.
fn parse_stat(stat: &str) -> Option<(Who, char)> {
    let pid = stat.split(' ').next()?.parse().ok().and_then(Pid::from_raw)?;
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    let state = rest.next()?.chars().next()?;
    // The start time is field 22; the state was field 3.
    let started = rest.nth(18)?.parse().ok()?;
    Some((Who { pid, started }, state))
}

/// Starts `<program> run --dir <folder>` in a session of its own. Before it becomes that program, the new process
/// writes down who it is: a server that is killed here leaves either no process or one that can be found.
pub fn spawn_detached(program: &Path, folder: &Path, who: &Path, log: &Path) -> io::Result<()> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(log)?;
    // Opened here: after the fork nothing may allocate.
    let who = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(who)?;
    let mut command = Command::new(program);
    command.arg("run").arg("--dir").arg(folder).current_dir(folder);
    command.env_clear().envs(environment()).stdin(Stdio::null()).stderr(log.try_clone()?).stdout(log);
    // SAFETY: only system calls on the stack between fork and exec, nothing that allocates or locks.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            let own = rustix::fs::open(c"/proc/self/stat", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())?;
            let mut line = [0u8; 1024];
            let length = rustix::io::read(&own, &mut line)?;
            rustix::io::write(&who, &line[..length])?;
            Ok(())
        });
    }
    // Waited for by the runtime, which collects children that nobody holds any more.
    let child = tokio::process::Command::from(command).spawn()?;
    drop(child);
    Ok(())
}

fn environment() -> Vec<(&'static str, OsString)> {
    KEPT.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_its_number_and_its_start() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1 2 3";
        let (who, state) = parse_stat(stat).unwrap();
        assert_eq!((who.pid.as_raw_nonzero().get(), who.started, state), (42, 777, 'S'));
        for bad in ["", "42", "42 (x) S 1", "x (x) S 1 42 42 0 -1 1 1 0 0 0 0 0 0 0 20 0 1 0 777"] {
            assert!(parse_stat(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn one_self_is_alive_and_a_namesake_is_not() {
        let own = std::fs::read_to_string("/proc/self/stat").unwrap();
        let (who, _) = parse_stat(&own).unwrap();
        assert!(who.is_alive());
        assert!(!Who { started: who.started + 1, ..who }.is_alive());
    }
}
