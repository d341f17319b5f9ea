//! What pages and scripts ask for: a build, a history, windows and streams of a log. Nothing here changes anything, and
//! nothing ever holds a whole log.

use super::{Builds, Inner};
use crate::clock::now_ms;
use crate::problems::{internal, of_store};
use crate::store::{BuildRow, LogEntry, StoreError};
use bytes::Bytes;
use futures::Stream;
use kiops_app::backend::{AsShown, Caller};
use kiops_app::error::{Problem, Result};
use kiops_app::model::*;
use kiops_events::rows::write_rows;
use kiops_events::view::StepView;
use kiops_events::{BuildView, EventKind, Row};
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

pub const DEFAULT_PAGE: u32 = 20;
pub const MAX_PAGE: u32 = 100;
/// Who stands further back in a service's queue is not told when it may begin.
const MOST_AHEAD: u32 = 20;
/// Payload read from the store at once while a log is streamed.
const STREAM_BYTES: u64 = 512 * 1024;
pub const MAX_SEARCH_BYTES: usize = 200;
/// A follower that was not told looks itself.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// A stored entry's event. One of a kind that is not known, or that cannot be read, is skipped like any newer one.
pub(super) fn kind_of(entry: &LogEntry) -> EventKind {
    serde_json::from_slice(&entry.payload).unwrap_or(EventKind::Unknown)
}

/// The row first, the view after it: so the view is never older than the state that the row names.
pub(super) async fn row_and_view(inner: &Inner, org: &OrgId, id: &BuildId) -> Result<(BuildRow, BuildView)> {
    let row = inner.store.build(org, id).await.map_err(|e| of_store("build", e))?;
    let progress = inner.store.progress(id).await.map_err(|e| of_store("build", e))?;
    Ok((row, progress.view))
}

pub(super) async fn detail(inner: &Inner, org: &OrgId, id: &BuildId) -> Result<BuildDetail> {
    let (row, view) = row_and_view(inner, org, id).await?;
    detail_of(inner, row, &view, now_ms()).await
}

pub(super) async fn detail_of(inner: &Inner, row: BuildRow, view: &BuildView, now_ms: i64) -> Result<BuildDetail> {
    let (log_verified, log_removed_at, diagnosis) = (row.log_verified, row.log_removed_at, row.diagnosis.clone());
    let zero_ms = row.started_at.unwrap_or(now_ms);
    let head = whole_head(inner, row).await.map_err(|e| of_store("build", e))?;
    let step = |step: &StepView| StepSummary {
        number: step.number,
        name: step.name.clone(),
        marker: step.marker,
        // For a running step as near as the start of the build is to that of its agent.
        duration_ms: step.duration_ms(now_ms - zero_ms),
    };
    Ok(BuildDetail {
        head,
        steps: view.steps.iter().map(step).collect(),
        cached_steps: view.cached_steps(),
        log_verified,
        log_removed_at,
        diagnosis,
    })
}

/// A build's line without what only a waiting one has. `expected_duration_ms` is the service's.
pub fn head(row: BuildRow, expected_duration_ms: Option<i64>) -> BuildHead {
    let auto = row.snapshot.settings.profile == Profile::Auto;
    BuildHead {
        commit_url: commit_url(&row.snapshot.git_url, &row.commit),
        id: row.id,
        service_id: row.service_id,
        number: row.number,
        branch: row.branch,
        commit: row.commit,
        status: row.status,
        attempt: row.attempt,
        queued_at: row.queued_at,
        started_at: row.started_at,
        finished_at: row.finished_at,
        cancel_requested_at: row.cancel_requested_at,
        queue_position: None,
        queue_reason: None,
        expected_start_at: None,
        image_tag: row.image_tag,
        digest: row.digest,
        image_size_bytes: row.image_size_bytes,
        profile: row.snapshot.settings.profile,
        resolved_profile: Some(row.snapshot.resolved_profile).filter(|resolved| auto && *resolved != Profile::Auto),
        profile_reason: row.snapshot.profile_reason,
        no_cache: row.snapshot.settings.no_cache,
        created_by: row.created_by_name,
        expected_duration_ms,
        failure_code: row.failure_code,
    }
}

async fn whole_head(inner: &Inner, row: BuildRow) -> Result<BuildHead, StoreError> {
    let expected = match row.status.is_final() {
        true => None,
        false => inner.store.expected_duration_ms(&row.service_id).await?,
    };
    let org = row.org_id.clone();
    with_place(inner, &org, head(row, expected)).await
}

/// Fills in where a waiting build stands and what it waits for.
async fn with_place(inner: &Inner, org: &OrgId, mut head: BuildHead) -> Result<BuildHead, StoreError> {
    if head.status != BuildStatus::Queued {
        return Ok(head);
    }
    let Some(place) = inner.store.queue_place(&head.id).await? else { return Ok(head) };
    let state = inner.store.queue_state().await?;
    let reason = if state.paused {
        Some("paused")
    } else if inner.disk.is_low() {
        Some("disk")
    } else if place.service_busy {
        Some("service_busy")
    } else if state.running >= inner.config.builds_at_once {
        Some("limit")
    } else {
        None
    };
    head.queue_position = Some(place.position);
    head.queue_reason = reason.map(str::to_owned);
    if let (Some("service_busy"), Some(expected)) = (reason, head.expected_duration_ms) {
        let ahead = HistoryQuery {
            status: Some(StatusFilter::InProgress),
            before: Some(head.number),
            ..HistoryQuery::default()
        };
        let ahead = inner.store.history(org, &head.service_id, &ahead, MOST_AHEAD).await?;
        if ahead.len() <= MOST_AHEAD as usize {
            head.expected_start_at = expected_start(ahead.iter().map(|row| row.started_at), expected, now_ms());
        }
    }
    Ok(head)
}

/// When the builds ahead of one, of the same service, are done if each takes as long as usual. Nobody knows before one of
/// them has started, nor once that one takes longer than usual.
fn expected_start(ahead: impl Iterator<Item = Option<i64>>, expected_ms: i64, now_ms: i64) -> Option<i64> {
    let (started, waiting): (Vec<_>, Vec<_>) = ahead.partition(Option::is_some);
    let ends = started.into_iter().flatten().max()? + expected_ms;
    (ends > now_ms).then(|| ends + waiting.len() as i64 * expected_ms)
}

impl Builds {
    /// Lines of other features' pages: the rows they have read, as people see them.
    pub async fn heads(&self, rows: Vec<BuildRow>) -> Result<Vec<BuildHead>> {
        let mut heads = Vec::with_capacity(rows.len());
        for row in rows {
            heads.push(whole_head(&self.inner, row).await.map_err(|e| of_store("build", e))?);
        }
        Ok(heads)
    }
}

/// Page of a commit at hosts that are known to have one.
fn commit_url(git_url: &str, commit: &str) -> Option<String> {
    let base = git_url.trim_end_matches('/').trim_end_matches(".git");
    let (_, rest) = base.split_once("://")?;
    let host = rest.split(['/', ':']).next()?;
    let named = |name: &str| host.split('.').any(|label| label == name);
    if host == "github.com" || named("github") {
        Some(format!("{base}/commit/{commit}"))
    } else if named("gitlab") {
        Some(format!("{base}/-/commit/{commit}"))
    } else {
        None
    }
}

pub(super) async fn history(
    inner: &Inner,
    org: &OrgId,
    service: &ServiceId,
    query: HistoryQuery,
) -> Result<HistoryPage> {
    // Who asks for a strange service hears that it is not there, and not that it has no builds.
    inner.store.service(org, service).await.map_err(|e| of_store("service", e))?;
    let limit = query.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAGE);
    let mut rows = inner.store.history(org, service, &query, limit).await.map_err(|e| of_store("build", e))?;
    let further = rows.len() > limit as usize;
    let backwards = query.after.is_some();
    if further {
        // The one too many stands where the further page begins.
        if backwards {
            rows.remove(0);
        } else {
            rows.pop();
        }
    }
    let expected = match rows.iter().any(|row| !row.status.is_final()) {
        true => inner.store.expected_duration_ms(service).await.map_err(|e| of_store("build", e))?,
        false => None,
    };
    let mut builds = Vec::with_capacity(rows.len());
    for row in rows {
        let expected = expected.filter(|_| !row.status.is_final());
        builds.push(with_place(inner, org, head(row, expected)).await.map_err(|e| of_store("build", e))?);
    }
    let (has_older, has_newer) = if backwards {
        (query.after.is_some_and(|after| after > 0), further)
    } else {
        (further, query.before.is_some())
    };
    Ok(HistoryPage { builds, has_older, has_newer, now_ms: now_ms() })
}

/// The end of a log that has `total` rows.
pub(super) async fn last_rows(inner: &Inner, id: &BuildId, first: u64, total: u64) -> Result<RowsPage> {
    let mut last = LastRows::default();
    let rows = visit_rows(inner, id, first.max(total.saturating_sub(TAIL_ROWS)), total, |at, row| {
        last.push(at, row);
        ControlFlow::Continue(())
    });
    rows.await.map_err(|e| of_store("build", e))?;
    Ok(RowsPage { first: if last.rows.is_empty() { total } else { last.first }, rows: last.rows.into(), total })
}

pub(super) async fn rows(inner: &Inner, org: &OrgId, id: &BuildId, first: u64, count: u64) -> Result<RowsPage> {
    let (_, view) = row_and_view(inner, org, id).await?;
    let first = first.min(view.rows);
    let end = first + count.min(MAX_RANGE_ROWS).min(view.rows - first);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let read = visit_rows(inner, id, first, end, |_, mut row| {
        row.shorten(ROW_BYTES);
        bytes += row_bytes(&row);
        rows.push(row);
        if bytes < MAX_RANGE_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    read.await.map_err(|e| of_store("build", e))?;
    Ok(RowsPage { first, rows, total: view.rows })
}

pub(super) async fn row(inner: &Inner, org: &OrgId, id: &BuildId, row: u64) -> Result<Row> {
    let (_, view) = row_and_view(inner, org, id).await?;
    let mut found = None;
    let end = row.saturating_add(1).min(view.rows);
    let read = visit_rows(inner, id, row, end, |_, row| {
        found = Some(row);
        ControlFlow::Break(())
    });
    read.await.map_err(|e| of_store("build", e))?;
    found.ok_or_else(Problem::not_found)
}

/// The last rows of a log, as many as one message may hold.
#[derive(Default)]
pub(super) struct LastRows {
    pub first: u64,
    pub rows: VecDeque<Row>,
    bytes: usize,
}

impl LastRows {
    /// The row at `at`; one that does not follow begins anew.
    pub fn push(&mut self, at: u64, mut row: Row) {
        if at != self.first + self.rows.len() as u64 || self.rows.is_empty() {
            *self = Self { first: at, ..Self::default() };
        }
        row.shorten(ROW_BYTES);
        self.bytes += row_bytes(&row);
        self.rows.push_back(row);
        while self.rows.len() > TAIL_ROWS as usize || (self.bytes > TAIL_BYTES && self.rows.len() > 1) {
            self.bytes -= self.rows.pop_front().as_ref().map_or(0, row_bytes);
            self.first += 1;
        }
    }
}

/// Shows the rows of `[first, end)`, as many of them as there are, until `see` has seen enough.
async fn visit_rows(
    inner: &Inner,
    id: &BuildId,
    first: u64,
    end: u64,
    mut see: impl FnMut(u64, Row) -> ControlFlow<()> + Send,
) -> Result<(), StoreError> {
    visit_entries(inner, id, first, end, |mut at, entry| {
        let mut flow = ControlFlow::Continue(());
        write_rows(&kind_of(entry), |row| {
            if (first..end).contains(&at) && flow.is_continue() {
                flow = see(at, row);
            }
            at += 1;
        });
        flow
    })
    .await
}

/// Shows every entry that has a row in `[first, end)` once, with its first row's number, until `see` has seen enough. The
/// log is read piece by piece: however long its lines are, memory holds one piece.
pub(super) async fn visit_entries(
    inner: &Inner,
    id: &BuildId,
    first: u64,
    end: u64,
    mut see: impl FnMut(u64, &LogEntry) -> ControlFlow<()> + Send,
) -> Result<(), StoreError> {
    let mut next = first;
    while next < end {
        let from = next;
        for piece in inner.store.log_by_row(id, from, end - from).await? {
            let mut at = piece.first_row;
            for entry in &piece.entries {
                let entry_end = at + entry.rows;
                if entry_end > next && at < end {
                    if see(at, entry).is_break() {
                        return Ok(());
                    }
                    next = entry_end.min(end);
                }
                at = entry_end;
            }
        }
        if next == from {
            break;
        }
    }
    Ok(())
}

pub(super) async fn search(
    inner: &Inner,
    org: &OrgId,
    id: &BuildId,
    text: &str,
    from: u64,
    shown: &AsShown,
) -> Result<Option<SearchHit>> {
    if text.len() > MAX_SEARCH_BYTES {
        return Err(Problem::invalid("too_long", "text"));
    }
    let wanted = text.to_lowercase();
    let (_, view) = row_and_view(inner, org, id).await?;
    let mut hit = None;
    if wanted.is_empty() {
        return Ok(hit);
    }
    let holds = |row: &Row| shown(row).to_lowercase().contains(&wanted);
    let read = visit_rows(inner, id, from, view.rows, |at, mut row| {
        if !holds(&row) {
            return ControlFlow::Continue(());
        }
        row.shorten(ROW_BYTES);
        hit = Some(SearchHit { row: at, beyond: row.whole_bytes.is_some() && !holds(&row) });
        ControlFlow::Break(())
    });
    read.await.map_err(|e| of_store("build", e))?;
    Ok(hit)
}

/// Where a stream through a log stands.
struct Cursor {
    inner: Arc<Inner>,
    org: OrgId,
    id: BuildId,
    pos: u64,
    /// Goes on when the stored log ends.
    follows: bool,
}

impl Cursor {
    /// The next entries, at least one; none when the log ends.
    async fn next(&mut self) -> Result<Option<Vec<LogEntry>>> {
        let channel = self.follows.then(|| self.inner.hub.channel(&self.id));
        let mut changed = channel.as_ref().map(|c| c.subscribe());
        loop {
            // Asked before the log is read: when it is over here, everything is stored.
            let over = match changed.as_mut() {
                Some(changed) => {
                    changed.borrow_and_update();
                    let row = self.inner.store.build(&self.org, &self.id).await.map_err(|e| of_store("build", e))?;
                    row.status.is_final()
                }
                None => true,
            };
            let pieces = self.inner.store.log_after(&self.id, self.pos, STREAM_BYTES);
            let pieces = pieces.await.map_err(|e| of_store("build", e))?;
            let entries: Vec<LogEntry> =
                pieces.into_iter().flat_map(|p| p.entries).filter(|e| e.pos > self.pos).collect();
            if let Some(last) = entries.last() {
                self.pos = last.pos;
                return Ok(Some(entries));
            }
            let Some(changed) = changed.as_mut().filter(|_| !over) else { return Ok(None) };
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.inner.stopping.cancelled() => return Ok(None),
            }
        }
    }

    fn stream(self, write: fn(&LogEntry, &mut Vec<u8>)) -> impl Stream<Item = Result<Bytes>> + Send + use<> {
        futures::stream::try_unfold(self, move |mut cursor| async move {
            let Some(entries) = cursor.next().await? else { return Ok(None) };
            let mut out = Vec::with_capacity(entries.iter().map(|e| e.payload.len() + 32).sum());
            entries.iter().for_each(|entry| write(entry, &mut out));
            Ok(Some((Bytes::from(out), cursor)))
        })
    }
}

impl Builds {
    /// The log as it is stored now, as text in `#N` form.
    pub async fn log_text(
        &self,
        caller: &Caller,
        id: &BuildId,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        Ok(self.cursor(caller, id, 0, false).await?.stream(write_text))
    }

    /// Stored events after `after`, one JSON object a line; goes on until the build is over.
    pub async fn events(
        &self,
        caller: &Caller,
        id: &BuildId,
        after: u64,
    ) -> Result<impl Stream<Item = Result<Bytes>> + Send + use<>> {
        Ok(self.cursor(caller, id, after, true).await?.stream(write_event))
    }

    async fn cursor(&self, caller: &Caller, id: &BuildId, pos: u64, follows: bool) -> Result<Cursor> {
        self.inner.store.build(&caller.org_id, id).await.map_err(|e| of_store("build", e))?;
        Ok(Cursor { inner: self.inner.clone(), org: caller.org_id.clone(), id: id.clone(), pos, follows })
    }

    /// The state of the queue, for the page about the installation.
    pub async fn queue_state(&self) -> Result<crate::store::QueueState> {
        self.inner.store.queue_state().await.map_err(|e| internal("the queue's state", e))
    }
}

fn write_text(entry: &LogEntry, out: &mut Vec<u8>) {
    if entry.rows > 0 {
        write_rows(&kind_of(entry), |row| {
            out.extend_from_slice(row.to_text().as_bytes());
            out.push(b'\n');
        });
    }
}

/// A [`kiops_events::StoredEvent`] without reading the payload: an agent's event holds its attempt and number already,
/// a note of the server's own holds neither.
fn write_event(entry: &LogEntry, out: &mut Vec<u8>) {
    let head = match entry.seq {
        0 => format!(r#"{{"pos":{},"attempt":{},"seq":0,"at":{},"#, entry.pos, entry.attempt, entry.at_ms),
        _ => format!(r#"{{"pos":{},"at":{},"#, entry.pos, entry.at_ms),
    };
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(entry.payload.get(1..).unwrap_or_default());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiops_events::{AgentEvent, LineText, Place, StoredEvent};

    #[test]
    fn pages_of_commits_where_they_are_known() {
        for (url, page) in [
            ("https://github.com/acme/orders.git", Some("https://github.com/acme/orders/commit/c0")),
            ("https://gitlab.example.com/a/b/c", Some("https://gitlab.example.com/a/b/c/-/commit/c0")),
            ("https://gitlab.com:8443/a/b.git/", Some("https://gitlab.com:8443/a/b/-/commit/c0")),
            ("https://git.example.com/a/b", None),
            ("http://127.0.0.1:5001/hello.git", None),
            ("https://evilgithub.com/a", None),
        ] {
            assert_eq!(commit_url(url, "c0").as_deref(), page, "{url}");
        }
    }

    #[test]
    fn a_waiting_build_starts_when_those_ahead_are_done() {
        for (ahead, expected) in [
            (vec![Some(1_000)], Some(61_000)),
            (vec![None, None, Some(1_000)], Some(181_000)),
            (vec![Some(-70_000)], None),
            (vec![None], None),
            (vec![], None),
        ] {
            assert_eq!(expected_start(ahead.iter().copied(), 60_000, 5_000), expected, "{ahead:?}");
        }
    }

    #[test]
    fn stored_events_are_written_as_they_are_read() {
        let note = EventKind::Note { code: "queued".into(), args: Default::default() };
        let place = Place::Step(3);
        let lines = EventKind::Lines(LineText { place, first: 1, at_ms: 2, text: "a\nb".into(), cut: vec![] });
        let event = AgentEvent { attempt: 2, seq: 8, offset_ms: 5, kind: lines.clone() };
        let entry = |pos, attempt, seq, rows, payload| LogEntry { pos, attempt, seq, at_ms: 77, rows, payload };
        let entries = [
            entry(1, 1, 0, 1, serde_json::to_vec(&note).unwrap()),
            entry(9, 2, 8, 2, serde_json::to_vec(&event).unwrap()),
        ];
        let mut out = Vec::new();
        entries.iter().for_each(|e| write_event(e, &mut out));
        let read: Vec<StoredEvent> =
            out.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect();
        let stored = |pos, attempt, seq, kind| StoredEvent { pos, attempt, seq, at_ms: 77, kind };
        assert_eq!(read, [stored(1, 1, 0, note), stored(9, 2, 8, lines)]);

        let mut out = Vec::new();
        entries.iter().for_each(|e| write_text(e, &mut out));
        assert_eq!(String::from_utf8(out).unwrap(), "--- queued\n#3 0.002 a\n#3 0.002 b\n");
    }
}
