//! The program `kiops`: its arguments, its runtime, its signals. `kiops serve` is what it does without arguments.

use crate::cli::{self, BuildCommand, CheckArguments};
use crate::config::{Config, SECRETS_HELP, Secrets};
use crate::{run, telemetry};
use anyhow::{Context, Result, anyhow};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// From a Git branch to a pushed container image
#[derive(Parser)]
#[command(name = "kiops", version, after_help = "Without a command: kiops serve. Its settings: kiops serve --help")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The server: pages, JSON API, and the queue of builds
    #[command(after_help = SECRETS_HELP)]
    Serve(Box<Config>),
    /// Tries out what builds need where they run, with the settings of `kiops serve`, and says what to do
    Check(Box<CheckArguments>),
    /// Starts, watches and cancels builds of a server that runs elsewhere (KIOPS_URL, KIOPS_TOKEN)
    #[command(subcommand)]
    Build(BuildCommand),
}

pub fn main() -> ExitCode {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    if serves_by_default(&args) {
        args.insert(1.min(args.len()), "serve".into());
    }
    match Arguments::parse_from(args).command {
        Command::Build(command) => match client_runtime() {
            Ok(runtime) => runtime.block_on(cli::run(command)),
            Err(error) => refused(&error),
        },
        Command::Check(arguments) => check(*arguments).unwrap_or_else(|error| refused(&error)),
        Command::Serve(config) => match serve(*config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => refused(&error),
        },
    }
}

/// No command, but perhaps settings.
fn serves_by_default(args: &[OsString]) -> bool {
    match args.get(1).and_then(|first| first.to_str()) {
        None => args.len() < 2,
        Some(first) => first.starts_with('-') && !matches!(first, "-h" | "--help" | "-V" | "--version"),
    }
}

fn refused(error: &anyhow::Error) -> ExitCode {
    eprintln!("kiops: {error:#}.");
    ExitCode::FAILURE
}

fn client_runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("The runtime cannot be started")
}

fn check(arguments: CheckArguments) -> Result<ExitCode> {
    forget_secrets();
    client_runtime()?.block_on(async {
        let stopping = CancellationToken::new();
        // What it has made is taken away all the same.
        tokio::spawn(on_signal(stopping.clone())?);
        cli::check(arguments, stopping).await
    })
}

fn serve(mut config: Config) -> Result<()> {
    config.secrets = Secrets::from_env().map_err(|sentence| anyhow!(sentence))?;
    forget_secrets();
    telemetry::start(&config.log, config.log_format).map_err(|sentence| anyhow!(sentence))?;
    // Builds run elsewhere; more threads would only hold more memory.
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, 4);
    let runtime = Builder::new_multi_thread().worker_threads(threads).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("{} cannot be listened on; KIOPS_LISTEN names another address", config.listen))?;
        let shutdown = CancellationToken::new();
        tokio::spawn(on_signal(shutdown.clone())?);
        run(config, listener, shutdown).await
    })
}

/// Children inherit the environment, and builds run what strangers wrote.
fn forget_secrets() {
    for name in ["KIOPS_DATABASE_URL", "KIOPS_SECRET_KEY", "KIOPS_ADMIN_PASSWORD"] {
        // SAFETY: the runtime is not started yet, so no other thread reads the environment.
        unsafe { std::env::remove_var(name) };
    }
}

fn on_signal(shutdown: CancellationToken) -> Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        shutdown.cancel();
        // Whoever asks twice is in a hurry.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_server_without_a_command() {
        let serves = |args: &[&str]| serves_by_default(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(serves(&["kiops"]) && serves(&["kiops", "--listen", "127.0.0.1:1"]));
        assert!(!serves(&["kiops", "serve"]) && !serves(&["kiops", "--help"]) && !serves(&["kiops", "-V"]));
        assert!(!serves(&["kiops", "build", "start"]));
    }
}
