//! A Git process as it comes: nothing of this machine's or user's settings, no questions, no other protocols, bounded
//! time and output.

use super::address::Address;
use super::credential::Credential;
use kiops_events::trust;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// A hundred thousand refs are about 8 MB.
const MOST_OUTPUT: u64 = 32 << 20;
const MOST_ERRORS: u64 = 64 << 10;

/// What a company's network needs, and nothing else, is passed on.
const PASSED_ON: [&str; 12] = [
    "PATH",
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
    "TMPDIR",
];

pub(super) struct GitCommand {
    command: Command,
    input: String,
    /// Whom it asks.
    pub host: String,
}

pub(super) struct Capture {
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

pub(super) enum Broken {
    TooLong,
    TooMuch,
    Io(std::io::Error),
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl GitCommand {
    pub fn new(address: &Address, credential: &Credential) -> Self {
        let mut command = Command::new("git");
        command.env_clear();
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some(file) = trust::git_authorities(|name| std::env::var_os(name)) {
            command.env(trust::GIT_CA_INFO, file);
        }
        command
            .env("LC_ALL", "C")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_ALLOW_PROTOCOL", "http:https")
            .env("GIT_TERMINAL_PROMPT", "0")
            .current_dir("/")
            // Its helpers end with it.
            .process_group(0)
            .kill_on_drop(true);
        let mut git = Self { command, input: String::new(), host: address.host.clone() };
        git.set("http.followRedirects", "false");
        git.set("core.hooksPath", "/dev/null");
        git.set("gc.auto", "0");
        git.set("credential.helper", "");
        if let Some(helper) = credential.helper() {
            git.set("credential.helper", &helper);
        }
        if let Some(pin) = address.pin() {
            git.set("http.curloptResolve", &pin);
        }
        git
    }

    fn set(&mut self, name: &str, value: &str) {
        self.command.arg("-c").arg(format!("{name}={value}"));
    }

    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.command.arg(arg);
        self
    }

    pub fn args(&mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.command.args(args);
        self
    }

    pub fn env(&mut self, name: &str, value: impl AsRef<OsStr>) {
        self.command.env(name, value);
    }

    pub fn input(&mut self, text: String) {
        self.input = text;
    }

    pub async fn run(mut self, time: Duration) -> Result<Capture, Broken> {
        let stdin = if self.input.is_empty() { Stdio::null() } else { Stdio::piped() };
        let mut child = self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut group = Group(child.id());
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let work = async {
            let write = async {
                if let Some(mut pipe) = input {
                    // One that ends early says why on standard error.
                    let _ = pipe.write_all(self.input.as_bytes()).await;
                }
                Ok(())
            };
            let ((), stdout, stderr) = tokio::try_join!(write, read(output, MOST_OUTPUT), read(errors, MOST_ERRORS))?;
            Ok(Capture { success: child.wait().await?.success(), stdout, stderr })
        };
        let result = tokio::time::timeout(time, work).await.unwrap_or(Err(Broken::TooLong));
        if result.is_ok() {
            // It has ended, and its number may be somebody else's by now.
            group.0 = None;
        }
        result
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> Result<String, Broken> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(most + 1).read_to_end(&mut bytes).await?;
    }
    if bytes.len() as u64 > most {
        return Err(Broken::TooMuch);
    }
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// Ends Git's helpers too when the waiting is given up: `kill_on_drop` reaches only Git itself.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|id| Pid::from_raw(id as i32)) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}
