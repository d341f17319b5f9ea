//! The container `relay`: serves the spool until the server has it, prints it for whoever looks at the container's log,
//! and has the last word where nobody else is left to say it. It outlives the build, whatever that died of.

use super::shared::{Life, Role, Shared};
use super::{begin, conclude, hold};
use crate::record::{Ending, Recorder};
use crate::relay::{Relay, Told, serve};
use crate::run::{self, Exit};
use crate::spool::{Follower, Writer, make};
use crate::stop::{Stop, Why};
use anyhow::Context;
use kiops_events::AgentEvent;
use kiops_events::rows::write_rows;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// The server has the spool's end by itself; this is for whoever died, and its process should cost nothing meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The log's reader is looked for as seldom as people notice.
const PRINT_EVERY: Duration = Duration::from_millis(200);
/// At the end, what is not printed by then is in the product's own log.
const PRINT_LIMIT: Duration = Duration::from_secs(2);

/// Listens on the Pod's loopback.
pub async fn relay(folder: &Path, port: u16) -> anyhow::Result<Exit> {
    let (spec, redactor) = begin(folder)?;
    let key = std::fs::read(&spec.files.key).context("the relay's key cannot be read")?;
    let shared = Shared::of(&spec)?;
    let stop = Stop::default();
    stop.at_signals()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.context("the relay cannot listen")?;
    let clock = make(&spec.files.spool).context("the spool cannot be made")?;
    let printing = tokio::task::spawn_blocking({
        let spool = spec.files.spool.clone();
        move || print(&spool)
    });
    let relay = Arc::new(Relay {
        spool: spec.files.spool.clone(),
        build: spec.build.clone(),
        attempt: spec.attempt,
        key,
        clock,
        told: Told::default(),
    });
    let serving = tokio::spawn(serve(relay.clone(), listener));
    let mut spool = Follower::open(&spec.files.spool)?;
    // A build that has not begun does not begin any more while this is held.
    let mut instead = None;
    let last = loop {
        let standing = spool.look(|_| ())?;
        if standing.ended.is_some() {
            break standing.last_seq;
        }
        let Some((ending, lock)) = over(&shared, stop.why())? else {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = stop.ordered(), if stop.why().is_none() => {}
            }
            continue;
        };
        instead = instead.or(lock);
        // Seen dead after the look: its last word may stand there now.
        if spool.look(|_| ())?.ended.is_none() {
            let writer = Writer::open(&spec.files.spool).context("the spool cannot be opened")?;
            let recorder = Recorder::new(writer, spec.attempt, u64::MAX, redactor.clone(), Stop::default());
            conclude(&recorder, &ending, hold(&spec)).await?;
        }
    };
    run::wait_for_server(&relay, last, &stop, hold(&spec)).await;
    serving.abort();
    drop(instead);
    let _ = tokio::time::timeout(PRINT_LIMIT, printing).await;
    Ok(Exit::Success)
}

/// How the attempt ended where nobody is left to say so; with the build's place, where it had not begun.
fn over(shared: &Shared, told: Option<Why>) -> io::Result<Option<(Ending, Option<File>)>> {
    let (checkout, build) = (shared.life(Role::Checkout), shared.life(Role::Build));
    let cut_off = || match told {
        Some(why) => Ending::stopped(why),
        None => Ending::infrastructure("agent", "the agent was cut off"),
    };
    Ok(match (checkout, build) {
        (_, Life::Dead) => Some((cut_off(), None)),
        (Life::Dead, _) if shared.plan()?.is_none() => Some((cut_off(), None)),
        // Told to stop, and nobody is at work: nobody shall be any more.
        (Life::NotYet | Life::Dead, Life::NotYet) if told.is_some() => {
            let lock = shared.take(Role::Build)?;
            lock.map(|lock| (Ending::stopped(Why::Terminated), Some(lock)))
        }
        _ => None,
    })
}

/// What `kubectl logs` shows: BuildKit's own form, until the result.
fn print(spool: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout());
    let mut spool = Follower::open(spool)?;
    loop {
        let mut written = Ok(());
        let standing = spool.look(|payload| {
            if let Ok(event) = serde_json::from_slice::<AgentEvent>(payload)
                && written.is_ok()
            {
                write_rows(&event.kind, |row| {
                    if written.is_ok() {
                        written = writeln!(out, "{}", row.to_text());
                    }
                });
            }
        })?;
        written.and_then(|()| out.flush())?;
        if standing.ended.is_some() {
            return Ok(());
        }
        std::thread::sleep(PRINT_EVERY);
    }
}
