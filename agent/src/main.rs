//! The program `kiops-agent`: its command line, and where its own words go. What it does is in the library.

use clap::{Parser, Subcommand};
use kiops_agent::pod::probe::{self, ProbeArguments};
use kiops_agent::run::Exit;
use kiops_agent::{checkout, daemon, pod, run};
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "kiops-agent",
    version,
    about = "Runs one attempt of one build and writes down everything that happens"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Checks out, builds and serves the log in this one process, apart from the session that started it
    Run {
        /// Folder with spec.json; the agent's lock and log are made there
        #[arg(long)]
        dir: PathBuf,
    },
    /// In a Pod: puts this program into a folder that containers of other images see
    Install { to: PathBuf },
    /// In a Pod: checks out and looks at the Dockerfile
    Checkout {
        /// Folder with spec.json
        #[arg(long)]
        dir: PathBuf,
    },
    /// In a Pod: runs BuildKit
    Build {
        /// Folder with spec.json
        #[arg(long)]
        dir: PathBuf,
    },
    /// In a Pod: serves the log on the loopback, and prints it
    Relay {
        /// Folder with spec.json
        #[arg(long)]
        dir: PathBuf,
        #[arg(long)]
        port: u16,
    },
    /// In a self-test, in the place of `build`: starts BuildKit, looks how it is kept apart and what it can do
    ProbeBuild(ProbeArguments),
    /// In a self-test, in the place of `checkout`: asks for Git, and listens so that another Pod can try to come in
    ProbeCheckout {
        #[arg(long)]
        port: u16,
    },
    /// In a self-test, from another Pod: ends well when it was let in
    ProbeVisit { address: SocketAddr },
    /// Ends the buildkitd that `run` has started
    DaemonStop {
        #[arg(long)]
        run_dir: PathBuf,
    },
}

fn main() -> ExitCode {
    // Git calls the agent for a credential, with its question as the only argument.
    if std::env::var_os(checkout::ASKED_FILE).is_some() {
        return match checkout::answer_git(&std::env::args().nth(1).unwrap_or_default()) {
            Some(answer) => {
                println!("{answer}");
                ExitCode::SUCCESS
            }
            None => ExitCode::FAILURE,
        };
    }
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Run { dir } => apart(dir).and_then(|()| logged(run::run(dir))),
        Command::Install { to } => pod::install(to),
        Command::Checkout { dir } => logged(pod::checkout(dir)),
        Command::Build { dir } => logged(pod::build(dir)),
        Command::Relay { dir, port } => {
            log();
            on_one_thread(pod::relay(dir, *port))
        }
        Command::ProbeBuild(arguments) => logged(probe::build(arguments)),
        Command::ProbeCheckout { port } => logged(probe::checkout(*port)),
        Command::ProbeVisit { address } => logged(probe::visit(*address)),
        Command::DaemonStop { run_dir } => with_runtime(async {
            daemon::stop(run_dir).await?;
            Ok(Exit::Success)
        }),
    };
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(error) => {
            eprintln!("kiops-agent: {error:#}");
            ExitCode::from(Exit::Unusable as u8)
        }
    }
}

/// With its own words on stderr, which in a Pod is the container's log.
fn logged<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    log();
    with_runtime(work)
}

fn with_runtime<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(work)
}

/// For who waits nearly all of the time, beside as many others as a node has builds.
fn on_one_thread<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// A session of its own, and no pipe to whoever started it: the agent outlives the server.
fn apart(dir: &Path) -> anyhow::Result<()> {
    // Refused to a process that leads its group, which is apart already.
    let _ = rustix::process::setsid();
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join(run::LOG_FILE))?;
    let null = OpenOptions::new().read(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&log)?;
    rustix::stdio::dup2_stderr(&log)?;
    Ok(())
}

fn log() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
}
