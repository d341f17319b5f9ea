//! The thin client: `kiops build start|watch|log|cancel` for scripts. It knows the JSON API and nothing of the server's
//! inside.
//!
//! Exit codes: 0 Success, 1 Failure, 2 Cancelled, 3 whatever kept it from finding out, with a sentence on standard error.

mod check;
mod client;
mod watch;

pub use check::{CheckArguments, run as check};

use clap::{Args, Subcommand};
use client::{Client, Trouble};
use kiops_app::model::{BuildDetail, BuildStatus, ServiceCard, StartBuild, Started};
use std::io::Write;
use std::process::ExitCode;

/// What kept a command from finding its answer.
const EXIT_TROUBLE: u8 = 3;

/// Asks a server that runs elsewhere: KIOPS_URL is its address, KIOPS_TOKEN a token of POST /api/v1/sessions.
#[derive(Clone, Debug, Subcommand)]
pub enum BuildCommand {
    /// Starts a build and prints its id
    Start(StartArgs),
    /// Prints a build's log as it grows; the exit code says how it ended
    Watch { id: String },
    /// Prints a build's whole log
    Log { id: String },
    /// Stops a build, queued or running
    Cancel { id: String },
}

#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// Name or id of the service
    #[arg(long)]
    service: String,
    /// Branch, or refs/tags/NAME
    #[arg(long)]
    branch: String,
    /// Full hash of the commit; without it the branch's head is built
    #[arg(long)]
    commit: Option<String>,
    /// A second start with the same key is the first one's build
    #[arg(long)]
    request_key: Option<String>,
    /// Print the log until the build is over
    #[arg(long)]
    watch: bool,
}

pub async fn run(command: BuildCommand) -> ExitCode {
    match carry_out(command).await {
        Ok(code) => code,
        Err(trouble) => {
            eprintln!("{trouble}");
            ExitCode::from(EXIT_TROUBLE)
        }
    }
}

async fn carry_out(command: BuildCommand) -> Result<ExitCode, Trouble> {
    let client = Client::from_env()?;
    match command {
        BuildCommand::Start(args) => {
            let service = service_id(&client, &args.service).await?;
            let start = StartBuild { branch: args.branch, commit: args.commit, request_key: args.request_key };
            let started: Started = client.post(&format!("services/{service}/builds"), &start).await?;
            if !args.watch {
                println!("{}", started.id);
                return Ok(ExitCode::SUCCESS);
            }
            eprintln!("build #{} is {}", started.number, started.id);
            watch::until_over(&client, started.id.as_str()).await.map(exit_code)
        }
        BuildCommand::Watch { id } => watch::until_over(&client, &path_part(&id)?).await.map(exit_code),
        BuildCommand::Log { id } => {
            let id = path_part(&id)?;
            let mut out = std::io::stdout();
            client.copy(&format!("builds/{id}/log"), |bytes| out.write_all(bytes)).await?;
            Ok(ExitCode::SUCCESS)
        }
        BuildCommand::Cancel { id } => {
            let id = path_part(&id)?;
            client.post_nothing(&format!("builds/{id}/cancel")).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn exit_code(build: BuildDetail) -> ExitCode {
    if let Some(diagnosis) = &build.diagnosis {
        eprintln!("{}", diagnosis.message);
    }
    match build.head.status {
        BuildStatus::Success => {
            eprintln!("Success: {}", build.head.image_tag.unwrap_or_default());
            ExitCode::SUCCESS
        }
        BuildStatus::Cancelled => {
            eprintln!("Cancelled");
            ExitCode::from(2)
        }
        _ => {
            eprintln!("Failure");
            ExitCode::from(1)
        }
    }
}

/// A service by its id or its name.
async fn service_id(client: &Client, wanted: &str) -> Result<String, Trouble> {
    let cards: Vec<ServiceCard> = client.get("services").await?;
    cards
        .into_iter()
        .find(|card| card.id.as_str() == wanted || card.name == wanted)
        .map(|card| card.id.into())
        .ok_or_else(|| {
            Trouble::Said(format!("There is no service named {wanted}; look at the services page for its name."))
        })
}

/// An id that came as an argument is a part of an address: anything but its letters would lead elsewhere.
fn path_part(id: &str) -> Result<String, Trouble> {
    if !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        Ok(id.to_owned())
    } else {
        Err(Trouble::Said(format!("{id:?} is no build's id; `kiops build start` prints one (bld-…).")))
    }
}
