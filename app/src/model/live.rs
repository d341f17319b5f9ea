//! What a page that watches a build receives: a snapshot, then patches; and the windows of a log it asks for.

use super::BuildDetail;
use kiops_events::patch::ViewPatch;
use kiops_events::{BuildView, Row};
use serde::{Deserialize, Serialize};

/// Rows of the log's end that travel with the stream; everything else is asked for by range.
pub const TAIL_ROWS: u64 = 400;
/// The most rows one range request gives.
pub const MAX_RANGE_ROWS: u64 = 2_000;

/// One message of the live stream. Its SSE id is the view's `pos`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LiveMessage {
    Snapshot(Box<LiveSnapshot>),
    Patch(Box<LivePatch>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveSnapshot {
    /// Server clock: elapsed time in the browser does not depend on its own.
    pub now_ms: i64,
    /// The agent's clock (milliseconds since it began) at `now_ms`, while it runs.
    pub agent_now_ms: Option<i64>,
    pub build: BuildDetail,
    pub view: BuildView,
    /// The log's last rows.
    pub tail: RowsPage,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LivePatch {
    pub now_ms: i64,
    pub agent_now_ms: Option<i64>,
    /// Sent when it changed.
    pub build: Option<BuildDetail>,
    pub view: ViewPatch,
    /// The log's last rows that are new, at most [`TAIL_ROWS`]; a gap before them is fetched when somebody looks there.
    pub tail: Option<RowsPage>,
}

/// Consecutive rows of a log.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RowsPage {
    /// Index of the first row here, from 0.
    pub first: u64,
    pub rows: Vec<Row>,
    /// Rows of the whole log at this moment.
    pub total: u64,
}

/// Where a search found something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchHit {
    pub row: u64,
}
