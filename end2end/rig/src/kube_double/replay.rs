//! A recorded build, played again: what checkout and build would write into a Pod's spool.
//!
//! The recording is the spool of a real build that ended with success. Each of its events is written at the moment at
//! which it was written then, counted from the attempt's beginning, by the agent's own recorder under a new number; each
//! line of the log ends with the machine's clock at its writing, as ` @` and milliseconds since 1970. The result has the
//! recorded digest, and count and hash of what was written now. As in a Pod, the two roles are held by whoever is at
//! work.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use kiops_agent::pod::shared::{Role, Shared};
use kiops_agent::preflight::Plan;
use kiops_agent::record::{Ending, Recorder};
use kiops_agent::redact::Redactor;
use kiops_agent::spool::{Clock, Reader, Writer};
use kiops_agent::stop::Stop;
use kiops_events::event::{AgentEnd, EventKind, Phase};
use kiops_events::spec::AgentSpec;
use kiops_events::{AgentEvent, LineText};

pub struct Recording {
    events: Vec<AgentEvent>,
    end_ms: i64,
    ending: Ending,
}

impl Recording {
    pub fn read(spool: &Path) -> Result<Self> {
        let mut reader = Reader::open(spool)?;
        let mut events: Vec<AgentEvent> = Vec::new();
        while let Some(payload) = reader.record()? {
            events.push(serde_json::from_slice(payload)?);
        }
        let Some(AgentEvent { kind: EventKind::Result(result), offset_ms: end_ms, .. }) = events.pop() else {
            bail!("it ends without a result");
        };
        ensure!(result.end == AgentEnd::Success, "the build ended with {:?}", result.end);
        let ending = Ending { exit_code: result.exit_code, digest: result.digest, ..Ending::of(result.end) };
        Ok(Self { events, end_ms, ending })
    }

    /// Into the spool that this specification names.
    pub async fn play(&self, spec: &AgentSpec) -> Result<()> {
        let shared = Shared::of(spec)?;
        let mut checkout = Some(take(&shared, Role::Checkout)?);
        let _build = take(&shared, Role::Build)?;
        let stop = Stop::default();
        let redactor = Redactor::new(std::iter::empty());
        let writer = Writer::open(&spec.files.spool).context("the spool cannot be opened")?;
        let recorder = Recorder::new(writer, spec.attempt, spec.limits.log_cap_bytes, redactor, stop.clone());
        for event in &self.events {
            wait_until(recorder.clock(), event.offset_ms).await;
            if event.kind == (EventKind::PhaseEntered { phase: Phase::Daemon }) {
                // The checkout is done, and the build goes on.
                shared.leave_plan(&plan(spec))?;
                checkout = None;
            }
            recorder.record(stamped(&event.kind));
        }
        drop(checkout);
        wait_until(recorder.clock(), self.end_ms).await;
        ensure!(stop.why().is_none(), "the spool takes no more events");
        Ok(recorder.finish(self.ending.clone())?)
    }
}

fn take(shared: &Shared, role: Role) -> Result<File> {
    shared.take(role)?.with_context(|| format!("somebody else is this attempt's {role:?}"))
}

fn plan(spec: &AgentSpec) -> Plan {
    let workspace = spec.files.workspace.clone();
    Plan { context: workspace.clone(), dockerfile_folder: workspace, filename: "Dockerfile".into() }
}

async fn wait_until(clock: Clock, offset_ms: i64) {
    let left = offset_ms - clock.now_ms();
    if left > 0 {
        tokio::time::sleep(Duration::from_millis(left as u64)).await;
    }
}

fn stamped(kind: &EventKind) -> EventKind {
    let EventKind::Lines(lines) = kind else { return kind.clone() };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let text: Vec<String> = lines.lines().map(|line| format!("{line} @{now}")).collect();
    EventKind::Lines(LineText { text: text.join("\n"), ..lines.clone() })
}
