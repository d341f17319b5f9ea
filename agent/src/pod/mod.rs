//! One attempt in a Pod, where three containers share the work.
//!
//! | container | does | has of the secrets |
//! |---|---|---|
//! | `checkout` | brings the commit, looks at the Dockerfile, leaves a plan | Git's |
//! | `build` | waits for the plan, runs BuildKit | the registry's |
//! | `relay` | serves the spool until the server has it; ends it for whoever died | the relay's key |
//!
//! They start at the same time: images are fetched and programs begin while the commit is on its way. The spool passes
//! from the checkout to the build with the plan; how they know of each other's life is [`shared`]'s business.

mod isolation;
pub mod probe;
mod relay;
pub mod shared;
mod state;

pub use relay::relay;

use crate::cgroup::Group;
use crate::preflight::Plan;
use crate::record::{Ending, Recorder};
use crate::redact::Redactor;
use crate::run::{self, Exit, Reserve, Workspace};
use crate::spool::{Follower, Writer, make};
use crate::stop::Stop;
use crate::{daemon, secrets};
use anyhow::Context;
use kiops_events::spec::AgentSpec;
use rustix::fs::Mode;
use shared::{Life, Role, Shared};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(10);
const CONCLUDE_AGAIN: Duration = Duration::from_secs(1);

/// Puts this program where a container of another image can run it.
pub fn install(to: &Path) -> anyhow::Result<Exit> {
    let own = std::env::current_exe().context("this program's own file")?;
    std::fs::copy(&own, to).with_context(|| format!("{} to {}", own.display(), to.display()))?;
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755))?;
    Ok(Exit::Success)
}

/// The container `checkout`.
pub async fn checkout(folder: &Path) -> anyhow::Result<Exit> {
    let (spec, redactor) = begin(folder)?;
    let shared = Shared::of(&spec)?;
    let Some(_lock) = shared.take(Role::Checkout)? else { return Ok(Exit::Taken) };
    let stop = Stop::default();
    stop.at_signals()?;
    let recorder = recorder(&spec, redactor, &stop)?;
    let prepared = {
        let (spec, recorder, stop) = (spec.clone(), recorder.clone(), stop.clone());
        run::guarded(async move { run::prepare(&spec, &Workspace::of(&spec), &recorder, &stop).await }).await
    };
    let left = prepared.and_then(|plan| {
        shared.leave_plan(&plan).map_err(|error| Ending::trouble("agent", "the plan cannot be left", &error))
    });
    match left {
        Ok(()) => Ok(Exit::Success),
        Err(ending) => conclude(&recorder, &ending, hold(&spec)).await,
    }
}

/// The container `build`.
pub async fn build(folder: &Path) -> anyhow::Result<Exit> {
    let (spec, redactor) = begin(folder)?;
    let shared = Shared::of(&spec)?;
    let Some(_lock) = shared.take(Role::Build)? else { return Ok(Exit::Taken) };
    let stop = Stop::default();
    stop.at_signals()?;
    let Some(plan) = wait_for_plan(&shared, &spec, &stop).await? else {
        // Whoever is left writes down why.
        return Ok(Exit::Infrastructure);
    };
    let reserve = Reserve::beside(&spec.files.spool);
    let recorder = recorder(&spec, redactor, &stop)?;
    let ending = {
        let (spec, recorder, stop) = (spec.clone(), recorder.clone(), stop.clone());
        let built = async move {
            isolation::required(&spec.buildkit)?;
            let kept = spec.buildkit.state_dir.exists();
            let daemon = daemon::ensure(&spec.buildkit, &recorder, &stop).await?;
            state::tell_what_is_lost(&spec.buildkit, &plan, &recorder);
            if kept {
                state::make_room(&spec.buildkit, &daemon, &recorder).await;
            }
            let group = Some(Group::of_container());
            run::build(&spec, &Workspace::of(&spec), &plan, &daemon, group, &recorder, &stop).await
        };
        run::guarded(built).await.unwrap_or_else(|ending| ending)
    };
    tracing::info!(?ending, "the attempt is over");
    drop(reserve);
    let exit = conclude(&recorder, &ending, hold(&spec)).await?;
    // What it keeps for the service's next build is whole when it ends in good order.
    if let Err(error) = daemon::stop(&spec.buildkit.run_dir).await {
        tracing::warn!(%error, "buildkitd was not stopped in good order");
    }
    Ok(exit)
}

/// None when there will be no plan, or nobody wants it any more.
async fn wait_for_plan(shared: &Shared, spec: &AgentSpec, stop: &Stop) -> anyhow::Result<Option<Plan>> {
    make(&spec.files.spool).context("the spool cannot be made")?;
    let mut spool = Follower::open(&spec.files.spool)?;
    loop {
        // Looked at first: what the dead have left is all that there will be.
        let checkout = shared.life(Role::Checkout);
        if let Some(plan) = shared.plan()? {
            return Ok(Some(plan));
        }
        if spool.look(|_| ())?.ended.is_some() || checkout == Life::Dead {
            return Ok(None);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            _ = stop.ordered() => return Ok(None),
        }
    }
}

fn begin(folder: &Path) -> anyhow::Result<(AgentSpec, Redactor)> {
    let spec = run::read_spec(folder)?;
    let redactor = Redactor::new(secrets::values(&spec.files)?.iter().map(Vec::as_slice));
    // Files of the checkout get into images with their modes.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    Ok((spec, redactor))
}

/// Writes into the spool from now on. The time limit counts from the attempt's beginning, whoever works on it.
fn recorder(spec: &AgentSpec, redactor: Redactor, stop: &Stop) -> anyhow::Result<Recorder> {
    let writer = Writer::open(&spec.files.spool).context("the spool cannot be opened")?;
    let spent = Duration::from_millis(writer.clock().now_ms().max(0) as u64);
    stop.after(Duration::from_secs(spec.limits.time_limit_s.into()).saturating_sub(spent));
    Ok(Recorder::new(writer, spec.attempt, spec.limits.log_cap_bytes, redactor, stop.clone()))
}

fn hold(spec: &AgentSpec) -> Duration {
    Duration::from_secs(spec.limits.hold_s.into())
}

/// Writes the result, again and again where there is no room for it.
async fn conclude(recorder: &Recorder, ending: &Ending, hold: Duration) -> anyhow::Result<Exit> {
    let since = Instant::now();
    loop {
        let Err(error) = recorder.finish(ending.clone()) else { return Ok(Exit::from(ending.end)) };
        tracing::error!(%error, "the result cannot be written; it is tried again");
        if since.elapsed() >= hold {
            return Err(error).context("the result cannot be written");
        }
        tokio::time::sleep(CONCLUDE_AGAIN).await;
    }
}
