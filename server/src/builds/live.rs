//! Live views: who watches a build gets a snapshot, then what changed, merged to a few messages a second however fast
//! the log grows.
//!
//! A watcher subscribes first and reads the store afterwards, so there is no moment between the two that it could miss.
//! What is published is what is committed already. While nobody watches, publishing costs a look at a counter.

use super::Inner;
use super::read::{self, LastRows};
use crate::clock::now_ms;
use futures::Stream;
use kiops_app::error::Result;
use kiops_app::model::*;
use kiops_events::patch::ViewPatch;
use kiops_events::rows::{row_count, write_rows};
use kiops_events::{BuildView, EventKind};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Between two messages of one stream: as often as eyes follow.
const EVERY: Duration = Duration::from_millis(50);
/// After a message with so many rows nobody reads along, and the page has enough to draw.
const FLOOD_ROWS: usize = 50;
const EVERY_IN_FLOOD: Duration = Duration::from_millis(100);
/// What happens together should be told together, but a first change must not wait long.
const TOGETHER: Duration = Duration::from_millis(5);
/// A build that no task of this server follows (queued, or run by another server) is looked at this often.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// One channel a build that somebody follows or watches.
#[derive(Default)]
pub(super) struct Hub {
    channels: Mutex<HashMap<BuildId, Weak<Channel>>>,
}

impl Hub {
    pub fn channel(&self, id: &BuildId) -> Arc<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(channel) = channels.get(id).and_then(Weak::upgrade) {
            return channel;
        }
        channels.retain(|_, channel| channel.strong_count() > 0);
        let channel = Arc::new(Channel::default());
        channels.insert(id.clone(), Arc::downgrade(&channel));
        channel
    }

    /// The build's row has changed.
    pub fn touch(&self, id: &BuildId) {
        let channel = self.channels.lock().unwrap_or_else(|e| e.into_inner()).get(id).and_then(Weak::upgrade);
        if let Some(channel) = channel {
            channel.touch();
        }
    }

    /// Something changed that is shown with every waiting build.
    pub fn touch_all(&self) {
        let channels: Vec<_> = {
            let channels = self.channels.lock().unwrap_or_else(|e| e.into_inner());
            channels.values().filter_map(Weak::upgrade).collect()
        };
        channels.iter().for_each(|channel| channel.touch());
    }
}

/// Where one build's changes are announced.
#[derive(Default)]
pub(super) struct Channel {
    changed: watch::Sender<u64>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was published last; none while nobody watches or follows.
    view: Option<Arc<BuildView>>,
    tail: Tail,
    /// Counts changes of the build's row.
    row_version: u64,
    /// The server's clock at the agent's zero.
    agent_zero_ms: Option<i64>,
}

/// The log's end as it was published.
#[derive(Default)]
struct Tail {
    /// The first row that was published since somebody watches.
    begin_row: u64,
    end_row: u64,
    last: LastRows,
}

impl Tail {
    fn push(&mut self, first_row: u64, events: &[EventKind]) {
        if self.end_row != first_row {
            // Somebody watches again after a while: what was in between is read from the store.
            *self = Self { begin_row: first_row, end_row: first_row, ..Self::default() };
        }
        let counts: Vec<u64> = events.iter().map(row_count).collect();
        let mut at = first_row;
        self.end_row += counts.iter().sum::<u64>();
        let wanted = self.end_row.saturating_sub(TAIL_ROWS);
        for (event, count) in events.iter().zip(counts) {
            // Of a flood only the end is written.
            if at + count > wanted && count > 0 {
                write_rows(event, |row| {
                    if at >= wanted {
                        self.last.push(at, row);
                    }
                    at += 1;
                });
            } else {
                at += count;
            }
        }
    }

    /// The rows of `[from, total)`, or of as many of the last of them as a message may hold; none when they are not at
    /// hand.
    fn rows(&self, from: u64, total: u64) -> Option<RowsPage> {
        if self.end_row < total || from < self.begin_row {
            return None;
        }
        let first = self.last.first.max(from).min(total);
        let skip = first.saturating_sub(self.last.first) as usize;
        // What was published meanwhile belongs to the next message.
        let rows = self.last.rows.iter().skip(skip).take((total - first) as usize).cloned().collect();
        Some(RowsPage { first, rows, total })
    }
}

impl Channel {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub fn is_watched(&self) -> bool {
        self.changed.receiver_count() > 0
    }

    /// Committed events and what they lead to. `first_row` is the row of the first of them. Call it only while somebody
    /// watches; whoever comes later reads the store.
    pub fn publish(&self, view: &BuildView, first_row: u64, events: Vec<EventKind>) {
        {
            let mut state = self.state();
            state.tail.push(first_row, &events);
            state.view = Some(Arc::new(view.clone()));
        }
        self.changed.send_modify(|n| *n += 1);
    }

    /// Nobody watches: keeps nothing.
    pub fn forget(&self) {
        let mut state = self.state();
        if state.view.is_some() {
            (state.view, state.tail) = (None, Tail::default());
        }
    }

    /// An agent has said what time it is.
    pub fn set_clock(&self, agent_zero_ms: i64) {
        self.state().agent_zero_ms = Some(agent_zero_ms);
    }

    pub fn touch(&self) {
        self.state().row_version += 1;
        self.changed.send_modify(|n| *n += 1);
    }
}

/// What a page shows before (or without) a stream.
pub(super) async fn snapshot(inner: &Inner, org: &OrgId, id: &BuildId) -> Result<LiveSnapshot> {
    let channel = inner.hub.channel(id);
    let (row, view) = read::row_and_view(inner, org, id).await?;
    let tail = read::last_rows(inner, id, 0, view.rows).await?;
    let now_ms = now_ms();
    let agent_zero_ms = channel.state().agent_zero_ms;
    let build = read::detail_of(inner, row, &view, now_ms).await?;
    let agent_now_ms = agent_zero_ms.filter(|_| !build.head.status.is_final()).map(|zero| now_ms - zero);
    Ok(LiveSnapshot { now_ms, agent_now_ms, build, view, tail })
}

/// What one watcher has been sent.
struct Sent {
    view: Arc<BuildView>,
    head: BuildHead,
    row_version: u64,
    flood: bool,
    at: Instant,
}

struct Watcher {
    inner: Arc<Inner>,
    org: OrgId,
    id: BuildId,
    channel: Arc<Channel>,
    changed: watch::Receiver<u64>,
    sent: Option<Sent>,
    over: bool,
}

impl super::Builds {
    /// A snapshot, then patches until the build is over. Whoever lost the connection asks again and gets a snapshot,
    /// which replaces what it knew: no hole, no repeat. An error comes first or not at all.
    pub async fn watch(
        &self,
        caller: &kiops_app::backend::Caller,
        id: &BuildId,
    ) -> Result<impl Stream<Item = LiveMessage> + Send + use<>> {
        let inner = self.inner.clone();
        let channel = inner.hub.channel(id);
        let changed = channel.subscribe();
        let mut watcher =
            Watcher { inner, org: caller.org_id.clone(), id: id.clone(), channel, changed, sent: None, over: false };
        let first = watcher.first().await?;
        Ok(futures::stream::unfold((watcher, Some(first)), |(mut watcher, first)| async move {
            let message = match first {
                Some(first) => first,
                None => watcher.next().await?,
            };
            Some((message, (watcher, None)))
        }))
    }
}

impl Watcher {
    async fn first(&mut self) -> Result<LiveMessage> {
        self.changed.borrow_and_update();
        let row_version = self.channel.state().row_version;
        let snapshot = snapshot(&self.inner, &self.org, &self.id).await?;
        self.over = snapshot.build.head.status.is_final();
        self.sent = Some(Sent {
            view: Arc::new(snapshot.view.clone()),
            head: snapshot.build.head.clone(),
            row_version,
            flood: false,
            at: Instant::now(),
        });
        Ok(LiveMessage::Snapshot(Box::new(snapshot)))
    }

    async fn next(&mut self) -> Option<LiveMessage> {
        loop {
            if self.over {
                return None;
            }
            let looked = tokio::select! {
                changed = self.changed.changed() => {
                    changed.ok()?;
                    false
                }
                () = tokio::time::sleep(LOOK_EVERY) => true,
                // The connection is closed so that the browser asks the next server.
                () = self.inner.stopping.cancelled() => return None,
            };
            let sent = self.sent.as_ref()?;
            let next = sent.at + if sent.flood { EVERY_IN_FLOOD } else { EVERY };
            tokio::time::sleep_until(next.max(Instant::now() + TOGETHER)).await;
            match self.patch(looked).await {
                Ok(Some(patch)) => return Some(LiveMessage::Patch(Box::new(patch))),
                Ok(None) => {}
                Err(problem) => {
                    // Ended, not answered with half of it: the browser asks again.
                    tracing::warn!(build = %self.id, code = problem.code, "a live stream ended early");
                    return None;
                }
            }
        }
    }

    async fn patch(&mut self, looked: bool) -> Result<Option<LivePatch>> {
        self.changed.borrow_and_update();
        let (published, row_version, agent_zero_ms) = {
            let state = self.channel.state();
            (state.view.clone(), state.row_version, state.agent_zero_ms)
        };
        let Some(sent) = &mut self.sent else { return Ok(None) };
        let row_changed = row_version != sent.row_version;
        let published = published.filter(|view| view.pos >= sent.view.pos);
        let (row, view) = if row_changed || (looked && published.is_none()) {
            let (row, stored) = read::row_and_view(&self.inner, &self.org, &self.id).await?;
            // Read after the row: it holds at least what had been published when the row changed.
            (Some(row), Arc::new(stored))
        } else {
            match published {
                Some(view) => (None, view),
                None => return Ok(None),
            }
        };
        let now_ms = now_ms();
        let build = match row {
            Some(row) => Some(read::detail_of(&self.inner, row, &view, now_ms).await?),
            None => None,
        };
        sent.row_version = row_version;
        // A waiting build's place and reason are in no event: they are found by looking.
        let build = build.filter(|build| build.head != sent.head || view.pos > sent.view.pos);
        if build.is_none() && view.pos <= sent.view.pos {
            return Ok(None);
        }
        let patch = ViewPatch::between(&sent.view, &view);
        let (from, total) = (sent.view.rows, view.rows);
        let at_hand = if total > from { self.channel.state().tail.rows(from, total) } else { None };
        let tail = match at_hand {
            None if total > from => Some(read::last_rows(&self.inner, &self.id, from, total).await?),
            at_hand => at_hand,
        };
        if let Some(build) = &build {
            self.over = build.head.status.is_final();
            sent.head = build.head.clone();
        }
        sent.view = view;
        sent.flood = tail.as_ref().is_some_and(|tail| tail.rows.len() > FLOOD_ROWS);
        sent.at = Instant::now();
        let agent_now_ms = agent_zero_ms.filter(|_| !self.over).map(|zero| now_ms - zero);
        Ok(Some(LivePatch { now_ms, agent_now_ms, build, view: patch, tail }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(code: &str) -> EventKind {
        EventKind::Note { code: code.into(), args: Default::default() }
    }

    fn lines(text: &str) -> EventKind {
        let place = kiops_events::Place::Step(1);
        EventKind::Lines(kiops_events::LineText { place, first: 1, at_ms: 0, text: text.into(), cut: vec![] })
    }

    /// First row, and the texts from there.
    fn texts(tail: &Tail, from: u64, total: u64) -> Option<(u64, Vec<String>)> {
        tail.rows(from, total).map(|page| (page.first, page.rows.into_iter().map(|r| r.text).collect()))
    }

    fn own(first: u64, texts: &[&str]) -> Option<(u64, Vec<String>)> {
        Some((first, texts.iter().map(|t| (*t).to_owned()).collect()))
    }

    #[test]
    fn a_tail_holds_enough_and_not_much_more() {
        let mut tail = Tail::default();
        tail.push(10, &[note("a"), lines("b\nc\nd"), EventKind::Unknown]);
        assert_eq!((tail.begin_row, tail.end_row), (10, 14));
        assert_eq!(texts(&tail, 10, 14), own(10, &["a", "b", "c", "d"]));
        assert_eq!(texts(&tail, 12, 14), own(12, &["c", "d"]));
        assert_eq!(texts(&tail, 12, 13), own(12, &["c"]), "what a view does not know yet");
        assert_eq!(texts(&tail, 14, 14), own(14, &[]));
        assert_eq!((texts(&tail, 9, 14), texts(&tail, 12, 15)), (None, None), "not at hand");
        let many = vec!["x"; 300].join("\n");
        for i in 0..10 {
            tail.push(14 + i * 300, &[lines(&many)]);
        }
        assert_eq!(tail.end_row, 14 + 3000);
        assert_eq!(tail.last.rows.len(), TAIL_ROWS as usize);
        let page = tail.rows(100, 3014).unwrap();
        assert_eq!((page.first, page.rows.len()), (3014 - TAIL_ROWS, TAIL_ROWS as usize));
        let flood = vec!["y"; 2 * TAIL_ROWS as usize].join("\n");
        tail.push(3014, &[lines(&flood), note("z")]);
        assert_eq!(tail.last.first + TAIL_ROWS, tail.end_row);
        assert_eq!(tail.last.rows.back().unwrap().text, "z");
        // After a gap it begins anew.
        tail.push(9000, &[note("z")]);
        assert_eq!((tail.begin_row, tail.end_row, tail.last.rows.len()), (9000, 9001, 1));
    }

    #[test]
    fn long_lines_make_a_tail_short() {
        let mut tail = Tail::default();
        let long = vec!["x".repeat(60_000); 100].join("\n");
        tail.push(0, &[lines(&long), note("end")]);
        let page = tail.rows(0, 101).unwrap();
        assert_eq!(page.first + page.rows.len() as u64, 101);
        assert!(page.rows.len() > 20 && page.rows.iter().map(row_bytes).sum::<usize>() <= TAIL_BYTES);
        assert_eq!((page.rows[0].text.len(), page.rows[0].whole_bytes), (ROW_BYTES, Some(60_000)));
    }

    #[test]
    fn a_channel_lives_as_long_as_somebody_needs_it() {
        let hub = Hub::default();
        let id = BuildId::from_random([1; ID_LETTERS]);
        let first = hub.channel(&id);
        assert!(Arc::ptr_eq(&first, &hub.channel(&id)));
        assert!(!first.is_watched());
        let watcher = first.changed.subscribe();
        assert!(first.is_watched());
        hub.touch(&id);
        assert!(watcher.has_changed().unwrap());
        drop(watcher);
        drop(first);
        hub.channel(&BuildId::from_random([2; ID_LETTERS]));
        assert_eq!(hub.channels.lock().unwrap().len(), 1);
    }
}
