//! The events of a build, as the agent writes them and as everybody else sees them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The longest line that is kept in one piece, in bytes; a longer one goes on in the next line, marked.
pub const MAX_LINE_BYTES: usize = 64 * 1024;
/// The most log text one event carries, in bytes.
pub const MAX_LINES_EVENT_BYTES: usize = 256 * 1024;

/// One thing that happened, numbered by the agent: `seq` counts from 1 without holes within an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentEvent {
    pub attempt: u32,
    pub seq: u64,
    /// Monotonic milliseconds since the attempt's agent began; the server turns them into its own clock.
    #[serde(rename = "t")]
    pub offset_ms: i64,
    #[serde(flatten)]
    pub kind: EventKind,
}

/// An event as stored: `pos` is the order everybody but the agent sees, one sequence per build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoredEvent {
    pub pos: u64,
    pub attempt: u32,
    /// 0 for a note of the server's own.
    pub seq: u64,
    /// Server clock, UTC milliseconds. Spelled shorter in JSON, where lines have an `at_ms` of their own beside it.
    #[serde(rename = "at")]
    pub at_ms: i64,
    #[serde(flatten)]
    pub kind: EventKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Preflight,
    Checkout,
    Daemon,
    Build,
    Push,
    /// What buildctl prints beside its progress: Dockerfile errors exist only there.
    Buildctl,
}

/// Where a line belongs. Together with attempt and line number this is a line's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Step(u32),
    Phase(Phase),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Cached,
    Error,
    Canceled,
}

/// A stretch of work, in milliseconds since the agent began. A step may work more than once (export, then push).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    pub start_ms: i64,
    pub end_ms: i64,
}

/// Lines of one place that arrived together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineText {
    pub place: Place,
    /// Number of the first line within its place, from 1.
    pub first: u64,
    /// Milliseconds since the place's latest start.
    pub at_ms: u32,
    /// The lines, joined by `\n`; a line never holds one itself.
    pub text: String,
    /// Indices of the lines (from 0) that were cut for their length and go on in the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<u32>,
}

impl LineText {
    pub fn count(&self) -> u64 {
        self.text.bytes().filter(|b| *b == b'\n').count() as u64 + 1
    }

    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.text.split('\n')
    }
}

/// What happened. Texts that the product itself makes are codes with arguments, so that they can be read in any language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "k", rename_all = "snake_case")]
pub enum EventKind {
    PhaseEntered {
        phase: Phase,
    },
    Lines(LineText),
    /// BuildKit knows of this step but has not begun it: it has no number yet.
    StepAnnounced {
        digest: String,
        name: String,
    },
    /// Sent at the first start (which gives the step its number) and at each later one.
    StepStarted {
        step: u32,
        digest: String,
        name: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stage: Option<String>,
        /// `i` of `i/n` as BuildKit prints it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        index: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u32>,
        /// Milliseconds since the agent began.
        start_ms: i64,
    },
    /// Progress of a transfer or sub-task within a step; `total` is 0 where BuildKit does not know it.
    Transfer {
        step: u32,
        id: String,
        current: u64,
        total: u64,
        /// Set once: how long it took.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        done_ms: Option<u32>,
    },
    StepEnded {
        step: u32,
        outcome: Outcome,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        intervals: Vec<Interval>,
    },
    Warning {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<u32>,
        short: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        detail: Vec<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url: Option<String>,
    },
    /// What the build uses: of memory the most since the last of these events.
    Usage {
        cpu_millicores: u32,
        memory_bytes: u64,
        /// What of it cannot be reclaimed (anonymous, shared, kernel): what sizing looks at.
        anon_bytes: u64,
        disk_bytes: u64,
        oom_kills: u32,
    },
    Note {
        code: String,
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        args: BTreeMap<String, String>,
    },
    /// The agent's last word on its attempt.
    Result(AgentResult),
    /// A kind that a newer agent writes: kept as it came, skipped by the fold.
    #[serde(other)]
    Unknown,
}

/// How the agent's attempt ended, with count and hash of all events before this one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentResult {
    pub end: AgentEnd,
    /// buildctl's exit code, where it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Digest of the pushed manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Class of a failure that the agent itself saw (checkout, preflight, daemon, time limit), with its arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// Bytes of log that were left out by the cap.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out_bytes: u64,
    /// Whether a push may have begun: what may be retried depends on it.
    #[serde(default)]
    pub push_began: bool,
    pub count: u64,
    /// Lower-case hex of the hash chain over all payloads before this one.
    pub hash: String,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentEnd {
    Success,
    /// The build itself failed.
    Failure,
    /// Something around the build failed (daemon lost, spool trouble): may be retried.
    Infrastructure,
    TimeLimit,
    /// The agent was told to stop. Whether that means Cancelled is not the agent's to say.
    Terminated,
}
