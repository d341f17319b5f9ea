//! What a page that watches a build receives: a snapshot, then patches; and the windows of a log it asks for.

use super::BuildDetail;
use kiops_events::patch::ViewPatch;
use kiops_events::{BuildView, Row};
use serde::{Deserialize, Serialize};

/// Rows of the log's end that travel with the stream; everything else is asked for by range.
pub const TAIL_ROWS: u64 = 400;
/// A message holds fewer of them where they are long: of 64 KiB lines nobody reads 400 ten times a second.
pub const TAIL_BYTES: usize = 128 * 1024;
/// The most rows one range request gives, and how long they may be together.
pub const MAX_RANGE_ROWS: u64 = 2_000;
pub const MAX_RANGE_BYTES: usize = 1024 * 1024;
/// What a page is given of one row unless it asks for the whole of it.
pub const ROW_BYTES: usize = 4 * 1024;

/// One message of the live stream. Its SSE id is the view's `pos`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LiveMessage {
    Snapshot(Box<LiveSnapshot>),
    Patch(Box<LivePatch>),
}

impl LiveMessage {
    /// Looks at the type first and reads again: a derived reader would keep the whole message in a second form until it has
    /// come by the type.
    pub fn read(message: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "snake_case")]
        enum Type {
            Snapshot,
            Patch,
        }
        #[derive(Deserialize)]
        struct Head {
            r#type: Type,
        }
        Ok(match serde_json::from_slice::<Head>(message)?.r#type {
            Type::Snapshot => Self::Snapshot(serde_json::from_slice(message)?),
            Type::Patch => Self::Patch(serde_json::from_slice(message)?),
        })
    }
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
    /// The log's last rows that are new, as many as [`TAIL_ROWS`] and [`TAIL_BYTES`] let in; a gap before them is
    /// fetched when somebody looks there.
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

/// What a row takes of a budget: its text, and what is around it.
pub fn row_bytes(row: &Row) -> usize {
    row.text.len() + 64
}

impl RowsPage {
    /// Lets go of the rows furthest from `row` until the page holds at most `rows` rows and `bytes` bytes.
    pub fn keep_around(&mut self, row: u64, rows: usize, bytes: usize) {
        let Some(last) = self.rows.len().checked_sub(1) else { return };
        let middle = (row.saturating_sub(self.first) as usize).min(last);
        let (mut from, mut to) = (middle, middle + 1);
        let mut left = bytes.saturating_sub(row_bytes(&self.rows[middle]));
        let mut take = |row: &Row| {
            let bytes = row_bytes(row);
            let fits = bytes <= left;
            left -= if fits { bytes } else { 0 };
            fits
        };
        let (mut before, mut after) = (true, true);
        while (before || after) && to - from < rows {
            before = before && from > 0 && take(&self.rows[from - 1]);
            from -= usize::from(before);
            after = after && to - from < rows && to <= last && take(&self.rows[to]);
            to += usize::from(after);
        }
        self.rows.truncate(to);
        self.rows.drain(..from);
        self.first += from as u64;
    }
}

/// Where a search found something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SearchHit {
    pub row: u64,
    /// It lies behind the [`ROW_BYTES`] that pages are given: the row has to be asked for as a whole.
    #[serde(default)]
    pub beyond: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiops_events::RowKind;

    fn page(first: u64, lengths: &[usize]) -> RowsPage {
        let row = |n: &usize| Row {
            kind: RowKind::Line,
            place: None,
            line: None,
            at_ms: None,
            text: "x".repeat(*n),
            cut: false,
            whole_bytes: None,
        };
        RowsPage { first, rows: lengths.iter().map(row).collect(), total: 1_000 }
    }

    /// What a page reads in two passes is what the server wrote in one.
    #[test]
    fn messages_come_back_as_they_were_written() {
        let build = r#"{"id":"bld-abcdefghijklmnopqrst","service_id":"svc-abcdefghijklmnopqrst","number":7,
            "branch":"main","commit":"c0ffee","commit_url":null,"status":"building","attempt":1,"queued_at":5,
            "started_at":6,"finished_at":null,"cancel_requested_at":null,"queue_position":null,"queue_reason":null,
            "image_tag":null,"digest":null,"image_size_bytes":null,"profile":"auto","resolved_profile":"medium",
            "no_cache":false,"created_by":"admin","expected_duration_ms":null,"failure_code":null,
            "steps":[],"cached_steps":2,"log_verified":null,"log_removed_at":null,"diagnosis":null,"later":"unknown"}"#;
        let build: BuildDetail = serde_json::from_str(build).unwrap();
        assert_eq!((build.head.number, build.cached_steps), (7, 2));
        let snapshot = LiveSnapshot {
            now_ms: 9,
            agent_now_ms: Some(3),
            build: build.clone(),
            view: BuildView::default(),
            tail: page(4, &[3, 2]),
        };
        let patch =
            LivePatch { now_ms: 10, agent_now_ms: None, build: Some(build), view: ViewPatch::default(), tail: None };
        for message in [LiveMessage::Snapshot(Box::new(snapshot)), LiveMessage::Patch(Box::new(patch))] {
            let written = serde_json::to_vec(&message).unwrap();
            assert_eq!(LiveMessage::read(&written).unwrap(), message);
        }
        for strange in [r#"{"type":"hologram"}"#, r#"{"now_ms":1}"#, r#"{"type":"patch"}"#, "[]", ""] {
            assert!(LiveMessage::read(strange.as_bytes()).is_err(), "{strange}");
        }
    }

    #[test]
    fn a_page_keeps_what_is_near() {
        for (around, rows, bytes, kept) in [
            (5, 3, 10_000, (4, 3)),
            (5, 4, 10_000, (3, 4)),
            (0, 3, 10_000, (0, 3)),
            (9, 3, 10_000, (7, 3)),
            (99, 3, 10_000, (7, 3)),
            (5, 99, 10_000, (0, 10)),
            // 164 bytes each.
            (5, 99, 500, (4, 3)),
            (9, 99, 500, (7, 3)),
            // The one that is meant is always there.
            (5, 99, 10, (5, 1)),
            (5, 0, 10_000, (5, 1)),
        ] {
            let mut page = page(0, &[100; 10]);
            page.keep_around(around, rows, bytes);
            assert_eq!((page.first, page.rows.len()), kept, "{around} {rows} {bytes}");
        }
        let mut far = page(500, &[10, 9_000, 10, 10]);
        far.keep_around(502, 10, 1_000);
        assert_eq!((far.first, far.rows.len()), (502, 2));
        RowsPage::default().keep_around(3, 1, 1);
    }
}
