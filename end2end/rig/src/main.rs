//! The rig as a program: prints one line of JSON when everything is up, stays until its standard
//! input closes or it gets SIGTERM or SIGINT, and takes everything down with it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use kiops_rig::demo::Demo;
use kiops_rig::serve::Rig;
use kiops_rig::{Furnished, Login};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Real parts for tests and for the demo.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Rooms,
}

#[derive(Subcommand)]
enum Rooms {
    /// A registry and a Git server with the sample repository "hello", kept in one folder.
    Demo {
        /// Where everything is kept from run to run.
        #[arg(long)]
        dir: PathBuf,
        /// Where a new folder's servers begin to look for a free port.
        #[arg(long, default_value_t = 5000)]
        first_port: u16,
        /// The agent for builds in Pods: a cluster of one node is started for them.
        #[arg(long)]
        cluster_agent: Option<PathBuf>,
    },
    /// A cluster of one node by itself, furnished for builds in Pods.
    Cluster {
        /// The agent's program.
        #[arg(long)]
        agent: PathBuf,
    },
    /// A mirror with base images, a registry, a proxy that can break it, a Git server; then obeys
    /// one JSON command a line (see end2end/rig/README.md).
    Serve {
        /// USER:PASSWORD that the registry asks for.
        #[arg(long)]
        registry_login: Option<String>,
        /// The token that the Git server asks for.
        #[arg(long)]
        git_token: Option<String>,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut input = Input::open()?;
    match Arguments::parse().command {
        Rooms::Cluster { agent } => {
            let furnished = Furnished::start(&agent, &[]).await?.with_storage().await?;
            print(&furnished.addresses())?;
            while input.next().await.is_some() {}
        }
        Rooms::Demo { dir, first_port, cluster_agent } => {
            let demo = Demo::start(&dir, first_port, cluster_agent.as_deref()).await?;
            print(&demo.addresses())?;
            while input.next().await.is_some() {}
        }
        Rooms::Serve { registry_login, git_token } => {
            let login = registry_login.as_deref().map(login).transpose()?;
            let mut rig = Rig::start(login, git_token).await?;
            print(&rig.addresses())?;
            while let Some(line) = input.next().await {
                print(&rig.obey(&line).await)?;
            }
        }
    }
    // A read of standard input cannot be interrupted, and the runtime would wait for it.
    std::process::exit(0)
}

fn login(text: &str) -> Result<Login> {
    let (user, password) = text.split_once(':').context("--registry-login is USER:PASSWORD")?;
    ensure!(!user.is_empty() && !password.is_empty(), "--registry-login is USER:PASSWORD");
    Ok(Login { user: user.to_owned(), password: password.to_owned() })
}

fn print(line: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

struct Input {
    lines: Lines<BufReader<Stdin>>,
    terminate: Signal,
    interrupt: Signal,
}

impl Input {
    fn open() -> Result<Self> {
        Ok(Self {
            lines: BufReader::new(tokio::io::stdin()).lines(),
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// None when it is time to go.
    async fn next(&mut self) -> Option<String> {
        tokio::select! {
            line = self.lines.next_line() => line.ok().flatten(),
            _ = self.terminate.recv() => None,
            _ = self.interrupt.recv() => None,
        }
    }
}
