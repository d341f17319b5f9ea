//! Running other programs: none outlives the agent, none hangs it, all that they print is seen.

use crate::record::PhaseLog;
use crate::stop::{Stop, Why};
use kiops_events::trust;
use rustix::process::{Pid, Signal, getppid, kill_process_group, set_parent_process_death_signal};
use std::io;
use std::process::{ExitStatus, Output, Stdio};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

/// Variables of our own environment that programs get: how to reach the network through a proxy and whom to trust.
const PASSED_ON: [&str; 11] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "TZ",
];
/// Where Debian keeps runc, iptables and the like, and where an ordinary user's path does not look.
const SYSTEM_FOLDERS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment that every program gets, and nothing else of ours.
pub fn environment() -> Vec<(String, String)> {
    let path = match std::env::var("PATH") {
        Ok(path) if !path.is_empty() => format!("{path}:{SYSTEM_FOLDERS}"),
        _ => SYSTEM_FOLDERS.to_owned(),
    };
    let passed_on = PASSED_ON.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let of_git =
        trust::git_authorities(|name| std::env::var(name).ok()).map(|file| (trust::GIT_CA_INFO.to_owned(), file));
    [("PATH".to_owned(), path)].into_iter().chain(passed_on).chain(of_git).collect()
}

/// Has the kernel end the program when the agent dies, however it dies.
pub fn bind_to_our_life(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: only system calls between fork and exec; nothing allocates or locks.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The agent may have died before the kernel was told.
            match getppid() {
                Some(pid) if pid.as_raw_nonzero().get() as u32 == parent => Ok(()),
                _ => Err(io::ErrorKind::NotConnected.into()),
            }
        });
    }
}

/// How a program ended that was waited for.
pub enum Ended {
    By(ExitStatus),
    /// It was ended because the attempt stops.
    Stopped(Why),
}

/// Runs a program with all that it prints going to `log`.
pub async fn run_logged(mut command: Command, log: &mut PhaseLog, stop: &Stop) -> io::Result<Ended> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    bind_to_our_life(&mut command);
    let mut child = command.spawn()?;
    let group = child.id().and_then(|id| Pid::from_raw(id as i32));
    let Some(mut stderr) = child.stderr.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
    let mut buffer = vec![0; 64 * 1024];
    let why = loop {
        tokio::select! {
            got = stderr.read(&mut buffer) => match got? {
                0 => break None,
                got => log.push(&buffer[..got]),
            },
            why = stop.ordered() => break Some(why),
        }
    };
    log.end();
    if let Some(why) = why {
        end_group(&mut child, group).await;
        return Ok(Ended::Stopped(why));
    }
    tokio::select! {
        status = child.wait() => Ok(Ended::By(status?)),
        why = stop.ordered() => {
            end_group(&mut child, group).await;
            Ok(Ended::Stopped(why))
        }
    }
}

async fn end_group(child: &mut Child, group: Option<Pid>) {
    if let Some(group) = group {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait().await;
}

/// Runs a short program and gives back what it printed; one that takes longer than `limit` is ended.
pub async fn output_within(mut command: Command, limit: Duration) -> io::Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    bind_to_our_life(&mut command);
    match tokio::time::timeout(limit, command.output()).await {
        Ok(output) => output,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long")),
    }
}
