//! One task a running build: it starts the attempt unless it is started, talks to its relay, and stores what comes. Each
//! batch is one transaction with the new place in the spool; then it is published; then it is acknowledged. A task that
//! dies, or whose server dies, goes on from what is stored.

mod place;

use super::live::Channel;
use super::profile;
use super::redact::Redactor;
use super::spec::{self, Secrets};
use super::{Inner, finish, read};
use crate::clock::now_ms;
use crate::runner::relay::{self, BATCH_BYTES, Conversation, Peer, Received, RelayError};
use crate::runner::{Grade, RelayIo, RunState, RunnerError, Situation};
use crate::store::{Append, BuildRow, BuildSnapshot, LogEntry, Progress, StoreError};
use crate::sync_points::Point;
use kiops_app::model::BuildStatus;
use kiops_events::chain::Chain;
use kiops_events::event::{AgentEnd, AgentResult};
use kiops_events::rows::row_count;
use kiops_events::{EventKind, Phase};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

/// A stream of single lines is stored in steps of this, so that a build that mutters does not keep the disk busy.
const COMMIT_EVERY: Duration = Duration::from_millis(20);
/// The agent needs this from being told to stop to its last word: buildctl has 20 s of it.
const STOP_PATIENCE: Duration = Duration::from_secs(45);
/// What an attempt may take beyond its time limit, which its agent keeps itself.
const OVERDUE: Duration = Duration::from_secs(60);
/// A relay that cannot be reached is not told to stop: whoever cancels is answered after this, and it ends when it is
/// released.
const STOP_UNREACHABLE: Duration = Duration::from_secs(3);
/// A relay that was told to stop and says nothing for so long is asked anew: one that lives answers at once, where the
/// silence of a node that has died would last until the connection is given up.
const STOP_SILENCE: Duration = Duration::from_millis(1500);
/// How often an attempt's place is asked what keeps the relay away.
const ASK_PLACE_EVERY: Duration = Duration::from_secs(1);
/// What could not be told to stop is told again.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// A relay that serves what a dead agent left sends it at once. When nothing comes any more, nothing will.
const SPOOL_PATIENCE: Duration = Duration::from_secs(3);
/// A relay that answers and makes no sense is asked this often.
const NONSENSE_LIMIT: u32 = 10;
const START_TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_millis(500);
const STORE_WAIT: Duration = Duration::from_secs(1);
/// What cannot be read so often, although the database answers, never can.
const UNREADABLE_LIMIT: u32 = 10;

/// What the task is told from outside.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Control {
    /// Somebody asked to cancel the build.
    pub cancel: bool,
    /// The lease is another server's.
    pub lost: bool,
}

/// How an attempt came to its end, before anybody says what that means.
#[derive(Debug)]
pub(super) enum Ending {
    /// The agent's own last word.
    Result(AgentResult),
    /// It was to be cancelled before it was started.
    NeverStarted,
    /// Nothing is left of it, or it died without a last word.
    Vanished,
    /// Something befell it in its place; with its own last word, where it had one.
    Befell { situation: Situation, result: Option<AgentResult> },
    /// It did not stop when it should have.
    Overdue,
    /// It cannot be started, or talked to, as things are.
    Refused { code: String, detail: String },
}

/// Why the task ends without having finished its build.
pub(super) enum Leave {
    /// The server stops, or the build is another server's now.
    Quietly,
    /// Taken up again after a while, from what is stored.
    Store(StoreError),
}

impl From<StoreError> for Leave {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Self::Quietly,
            error => Self::Store(error),
        }
    }
}

pub(super) async fn drive(inner: Arc<Inner>, mut row: BuildRow, control: watch::Receiver<Control>) {
    let mut unreadable = 0;
    loop {
        let driven = match Driver::take_up(inner.clone(), row.clone(), control.clone()).await {
            Ok(driver) => {
                unreadable = 0;
                driver.run().await
            }
            Err(leave) => {
                unreadable += 1;
                Err(leave)
            }
        };
        match driven {
            Ok(()) => return,
            Err(Leave::Quietly) => {
                tracing::debug!(build = %row.id, "a build is let go of");
                return;
            }
            Err(Leave::Store(error)) => {
                tracing::error!(build = %row.id, %error, "a build's log could not be stored; it is taken up again");
                tokio::select! {
                    () = sleep(STORE_WAIT) => {}
                    () = inner.stopping.cancelled() => return,
                }
                // The attempt may have changed; the lease is still this row's.
                match inner.store.build(&row.org_id, &row.id).await {
                    Ok(fresh) if fresh.status.is_final() || fresh.lease_epoch != row.lease_epoch => return,
                    Ok(fresh) => {
                        row = fresh;
                        if unreadable >= UNREADABLE_LIMIT && finish::give_up(&inner, &row).await {
                            return;
                        }
                    }
                    Err(error) => {
                        // It is the database that does not answer: no reason to give anything up.
                        unreadable = 0;
                        tracing::error!(build = %row.id, %error, "a build could not be read");
                    }
                }
            }
        }
    }
}

pub(super) struct Driver {
    pub inner: Arc<Inner>,
    pub row: BuildRow,
    pub progress: Progress,
    chain: Chain,
    pub secrets: Secrets,
    redactor: Redactor,
    pub channel: Arc<Channel>,
    control: watch::Receiver<Control>,
    conversation: Option<Conversation>,
    /// Reused from one append to the next.
    entries: Vec<LogEntry>,
    /// The server's clock at the agent's zero, as the last handshake stated it.
    agent_zero_ms: Option<i64>,
    last_at_ms: i64,
    said_slow: bool,
    begun: Instant,
    told_to_stop: Option<Instant>,
    /// Nobody shall be told of this batch before the next commit may happen.
    commit_from: Instant,
}

/// How a conversation ended.
enum Talk {
    Result(AgentResult),
    Broken(RelayError),
    SpoolEnds,
    Overdue,
    /// Its place says that it will not come to building.
    Over(Ending),
}

impl Driver {
    async fn take_up(inner: Arc<Inner>, row: BuildRow, control: watch::Receiver<Control>) -> Result<Self, Leave> {
        // As it stands now: between a sweep's list and this, another task may have finished it.
        let now = inner.store.build(&row.org_id, &row.id).await?;
        if now.status.is_final() || now.lease_epoch != row.lease_epoch {
            return Err(Leave::Quietly);
        }
        let row = now;
        let progress = inner.store.progress(&row.id).await?;
        let chain = chain_of(&progress)?;
        let secrets = open_secrets(&inner, &row).await?;
        let redactor = Redactor::new(secrets.texts(&row).iter().map(String::as_str));
        let said_slow = progress.view.notes.iter().any(|note| profile::SLOW_NOTES.contains(&note.code.as_str()));
        let channel = inner.hub.channel(&row.id);
        channel.touch();
        Ok(Self {
            inner,
            row,
            progress,
            chain,
            secrets,
            redactor,
            channel,
            control,
            conversation: None,
            entries: Vec::new(),
            agent_zero_ms: None,
            last_at_ms: 0,
            said_slow,
            begun: Instant::now(),
            told_to_stop: None,
            commit_from: Instant::now(),
        })
    }

    async fn run(mut self) -> Result<(), Leave> {
        loop {
            let ending = self.attempt().await?;
            let ending = self.explained(ending).await;
            self.inner.sync.reach(Point::AfterResultBeforeFinish);
            match finish::settle(&mut self, ending).await? {
                finish::Settled::Finished => {
                    self.inner.sync.reach(Point::AfterFinishBeforeRelease);
                    self.let_go().await;
                    super::reconcile::release(&self.inner, &self.row.id, self.row.attempt).await;
                    return Ok(());
                }
                finish::Settled::Again(row) => {
                    self.let_go().await;
                    if let Err(error) = self.inner.runner.release(&self.row.id, self.row.attempt).await {
                        // Removed as an orphan within a minute.
                        tracing::warn!(build = %self.row.id, %error, "an attempt could not be released");
                    }
                    self = Self::take_up(self.inner, *row, self.control).await?;
                }
            }
        }
    }

    /// Tells the relay that it is not needed any more: everything it had is committed.
    async fn let_go(&mut self) {
        if let Some(conversation) = self.conversation.take() {
            conversation.release().await;
        }
    }

    /// From wherever the attempt stands to its end.
    async fn attempt(&mut self) -> Result<Ending, Leave> {
        if let Some(result) = self.stored_result() {
            return Ok(Ending::Result(result));
        }
        let (id, attempt) = (self.row.id.clone(), self.row.attempt);
        let since = Instant::now();
        let mut tries = 0;
        loop {
            let problem = match self.inner.runner.state(&id, attempt).await {
                Ok(RunState::Alive | RunState::Ended) => break,
                // It has been heard: whoever cannot ask for it now asks its relay until it can.
                Err(error) if self.progress.seq > 0 => {
                    tracing::warn!(build = %id, attempt, %error, "an attempt's place does not say where it stands");
                    break;
                }
                Ok(RunState::Gone) if self.progress.seq > 0 => return Ok(Ending::Vanished),
                Ok(RunState::Gone) if self.control.borrow().cancel => return Ok(Ending::NeverStarted),
                Ok(RunState::Gone) => {
                    self.resolve_profile().await?;
                    match self.start().await {
                        Ok(()) => break,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            tries += 1;
            tracing::warn!(build = %id, attempt, error = %problem, "an attempt could not be started");
            match problem {
                RunnerError::Refused { code, detail } => return Ok(Ending::Refused { code: code.to_owned(), detail }),
                RunnerError::Waits(_) if self.control.borrow().cancel => return Ok(Ending::NeverStarted),
                RunnerError::Waits(mut situation) => {
                    // Where nothing in its place says since when.
                    if since.elapsed() > self.inner.runner.patience() {
                        situation.grade = Grade::TooLong;
                    }
                    if let Some(ending) = self.waits(situation).await? {
                        return Ok(ending);
                    }
                    self.pause(ASK_PLACE_EVERY).await?;
                }
                RunnerError::Unreachable(reason) => {
                    if let Some(ending) = self.does_not_answer(reason, since).await? {
                        return Ok(ending);
                    }
                    // It may have been started before: whoever cancels is answered, and it ends when it is released.
                    if self.control.borrow().cancel && since.elapsed() >= STOP_UNREACHABLE {
                        return Ok(Ending::Overdue);
                    }
                    self.pause(LONGEST_WAIT).await?;
                }
                problem if tries >= START_TRIES => {
                    return Ok(Ending::Refused { code: "runner".to_owned(), detail: format!("{problem:#}") });
                }
                _ => self.pause(LONGEST_WAIT * tries).await?,
            }
        }
        self.follow().await
    }

    /// An end that is nobody's own doing, with what its place knows of it.
    async fn explained(&self, ending: Ending) -> Ending {
        let result = match &ending {
            _ if self.told_to_stop.is_some() => return ending,
            Ending::Vanished => None,
            Ending::Result(r) if matches!(r.end, AgentEnd::Infrastructure | AgentEnd::Terminated) => Some(r.clone()),
            _ => return ending,
        };
        match self.inner.runner.aftermath(&self.row.id, self.row.attempt).await {
            Ok(Some(situation)) => Ending::Befell { situation, result },
            Ok(None) => ending,
            Err(error) => {
                tracing::warn!(build = %self.row.id, %error, "what ended an attempt is not known");
                ending
            }
        }
    }

    /// What `auto` means for this build: decided once, by what is known when its turn has come, and stored with the note
    /// that says so before the runner hears of it.
    async fn resolve_profile(&mut self) -> Result<(), Leave> {
        if !profile::is_open(&self.row.snapshot) {
            return Ok(());
        }
        let resolved =
            profile::resolve(&self.inner.config.profiles, &self.inner.store.appetite(&self.row.service_id).await?);
        let snapshot = resolved.within(&self.row.snapshot);
        self.note_with(vec![(&resolved.note(), resolved.reason.arguments)], Some(snapshot)).await?;
        self.channel.touch();
        Ok(())
    }

    async fn start(&self) -> Result<(), RunnerError> {
        let (config, view) = (&self.inner.config, &self.progress.view);
        let spec = spec::start_spec(&self.row, view, &self.secrets, config);
        self.inner.runner.start(spec).await
    }

    /// The attempt's last word, when it is stored already.
    fn stored_result(&self) -> Option<AgentResult> {
        let view = &self.progress.view;
        view.result.clone().filter(|_| view.attempt == self.row.attempt && self.progress.seq > 0)
    }

    /// Connects, and connects again, until the attempt has ended one way or another.
    async fn follow(&mut self) -> Result<Ending, Leave> {
        let (id, attempt) = (self.row.id.clone(), self.row.attempt);
        let peer = Peer { build: id.clone(), attempt, key: self.secrets.relay_key.clone() };
        let mut wait = FIRST_WAIT;
        let mut nonsense = 0;
        let mut unreachable_since: Option<Instant> = None;
        let mut ask_place = Instant::now() + ASK_PLACE_EVERY;
        loop {
            self.obey().await?;
            if Instant::now() >= self.deadline() || self.stops_in_vain(unreachable_since) {
                return Ok(Ending::Overdue);
            }
            // Whoever cancels does not wait for what does not answer.
            let until = self.told_to_stop.map(|told| told.max(unreachable_since.unwrap_or_else(Instant::now)));
            let until = until.map(|since| since + STOP_UNREACHABLE);
            match self.connect(until).await {
                Ok(io) => match self.open(io, &peer, until).await {
                    Ok(conversation) => {
                        unreachable_since = None;
                        // Asked after the handshake: only what is over now can have nothing more to say.
                        let state = self.inner.runner.state(&id, attempt).await;
                        let ended = matches!(state, Ok(RunState::Ended | RunState::Gone));
                        let before = self.progress.seq;
                        match self.converse(conversation, ended).await? {
                            Talk::Result(result) => return Ok(Ending::Result(result)),
                            Talk::SpoolEnds => return Ok(Ending::Vanished),
                            Talk::Overdue => return Ok(Ending::Overdue),
                            Talk::Over(ending) => return Ok(ending),
                            Talk::Broken(error) => {
                                tracing::info!(build = %id, attempt, %error, "the relay is asked again");
                                if self.progress.seq > before {
                                    (wait, nonsense) = (FIRST_WAIT, 0);
                                }
                                nonsense += u32::from(makes_no_sense(&error));
                                if matches!(error, RelayError::Silent) {
                                    unreachable_since = Some(Instant::now());
                                }
                            }
                        }
                    }
                    Err(error) => {
                        tracing::info!(build = %id, attempt, %error, "the relay gave no conversation");
                        nonsense += u32::from(makes_no_sense(&error));
                        unreachable_since.get_or_insert_with(Instant::now);
                    }
                },
                Err(RunnerError::Gone) => return Ok(Ending::Vanished),
                Err(RunnerError::Refused { code, detail }) => {
                    return Ok(Ending::Refused { code: code.to_owned(), detail });
                }
                Err(error) => {
                    tracing::debug!(build = %id, attempt, %error, "the relay is not reachable");
                    let since = *unreachable_since.get_or_insert_with(Instant::now);
                    if Instant::now() >= ask_place {
                        ask_place = Instant::now() + ASK_PLACE_EVERY;
                        if let Some(ending) = self.ask_place(since).await? {
                            return Ok(ending);
                        }
                    }
                }
            }
            if nonsense >= NONSENSE_LIMIT {
                let detail = "the relay does not keep to the protocol".to_owned();
                return Ok(Ending::Refused { code: "agent".to_owned(), detail });
            }
            self.pause(wait).await?;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn connect(&self, until: Option<Instant>) -> Result<Box<dyn RelayIo>, RunnerError> {
        let connecting = self.inner.runner.connect(&self.row.id, self.row.attempt);
        let Some(until) = until else { return connecting.await };
        let late = |_| RunnerError::Unreachable("no answer while the build is cancelled".to_owned());
        timeout_at(until, connecting).await.map_err(late)?
    }

    async fn open(
        &self,
        io: Box<dyn RelayIo>,
        peer: &Peer,
        until: Option<Instant>,
    ) -> Result<Conversation, RelayError> {
        let opening = relay::open(io, peer, self.progress.seq);
        let Some(until) = until else { return opening.await };
        timeout_at(until, opening).await.map_err(|_| RelayError::Silent)?
    }

    /// Whether this attempt has come as far as BuildKit.
    fn builds(&self) -> bool {
        let view = &self.progress.view;
        let phase = view.phase.filter(|_| view.attempt == self.row.attempt);
        matches!(phase, Some(Phase::Daemon | Phase::Build | Phase::Push | Phase::Buildctl))
    }

    /// Whether it was told to stop and nothing has been heard of it since: it may not run yet, or its place is away.
    fn stops_in_vain(&self, unreachable_since: Option<Instant>) -> bool {
        let (Some(told), Some(since)) = (self.told_to_stop, unreachable_since) else { return false };
        told.max(since).elapsed() >= STOP_UNREACHABLE
    }

    /// Stores what comes until the conversation ends. With `ended` the agent is no more and only its spool speaks.
    async fn converse(&mut self, mut conversation: Conversation, ended: bool) -> Result<Talk, Leave> {
        let agent_zero_ms = now_ms() - conversation.agent_now_ms;
        self.agent_zero_ms = Some(agent_zero_ms);
        self.channel.set_clock(agent_zero_ms);
        let mut heard = Instant::now();
        let mut ask_place = heard + ASK_PLACE_EVERY;
        let mut tell_again = heard + TELL_AGAIN;
        loop {
            let deadline = self.deadline();
            let mut control = self.control.clone();
            let untold = control.borrow().cancel && self.told_to_stop.is_none();
            let told = self.told_to_stop;
            tokio::select! {
                batch = conversation.next() => {
                    let batch = match batch {
                        Ok(batch) => batch,
                        Err(error) => return Ok(Talk::Broken(error)),
                    };
                    let bytes: usize = batch.iter().map(|r| r.payload.len()).sum();
                    let last = batch.last().map_or(self.progress.seq, |r| r.seq);
                    let result = self.store(batch).await?;
                    conversation.ack(last);
                    if let Some(result) = result {
                        self.conversation = Some(conversation);
                        return Ok(Talk::Result(result));
                    }
                    // What comes in the meantime is one batch. A log at full speed waits for nothing.
                    if bytes < BATCH_BYTES / 2 {
                        sleep_until(self.commit_from).await;
                    }
                    heard = Instant::now();
                }
                changed = control.changed() => {
                    if changed.is_err() {
                        return Err(Leave::Quietly);
                    }
                    self.obey().await?;
                    // Seen: the next change counts.
                    self.control = control;
                }
                () = sleep_until(tell_again), if untold => {
                    self.obey().await?;
                    tell_again = Instant::now() + TELL_AGAIN;
                }
                () = sleep_until(told.map_or(deadline, |told| told.max(heard) + STOP_SILENCE)), if told.is_some() && !ended => {
                    return Ok(Talk::Broken(RelayError::Silent));
                }
                () = self.inner.stopping.cancelled() => return Err(Leave::Quietly),
                // A part of the attempt may be kept from starting while another is heard already.
                () = sleep_until(ask_place), if !self.builds() => {
                    ask_place = Instant::now() + ASK_PLACE_EVERY;
                    if let Some(ending) = self.ask_place(heard).await? {
                        return Ok(Talk::Over(ending));
                    }
                }
                () = sleep_until(heard + SPOOL_PATIENCE), if ended => return Ok(Talk::SpoolEnds),
                () = sleep_until(deadline) => return Ok(Talk::Overdue),
            }
        }
    }

    /// One transaction: the events, the place after them, the state they lead to. Gives back the agent's last word.
    async fn store(&mut self, batch: Vec<Received>) -> Result<Option<AgentResult>, Leave> {
        let watched = self.channel.is_watched();
        let first_row = self.progress.view.rows;
        let mut events = Vec::new();
        let mut status = None;
        let mut checked_out = false;
        let mut result = None;
        for received in batch {
            let Received { seq, offset_ms, mut kind, mut payload } = received;
            match &kind {
                // Count and hash are over everything before the last word, so that is not taken in.
                EventKind::Result(r) => result = Some(r.clone()),
                _ => self.chain.push(&payload),
            }
            if let Some(masked) = self.redactor.payload(&payload) {
                payload = masked;
                kind = serde_json::from_slice(&payload).unwrap_or(EventKind::Unknown);
            }
            let entered = status_of(&kind);
            checked_out |= entered == Some(BuildStatus::CheckingOut);
            status = entered.or(status);
            self.take(seq, self.at_ms(offset_ms), offset_ms, &kind, payload);
            if watched {
                events.push(kind);
            }
        }
        self.commit(status, None).await?;
        if watched {
            self.channel.publish(&self.progress.view, first_row, events);
        } else {
            self.channel.forget();
            // Whoever began to watch during the commit has read the store before it: it looks again.
            if self.channel.is_watched() {
                self.channel.touch();
            }
        }
        // Also where the checkout was so quick that what follows is in the same batch.
        if checked_out {
            self.inner.sync.reach(Point::DuringCheckout);
        }
        self.inner.sync.reach(Point::MidAppend);
        Ok(result)
    }

    /// Puts one event behind what is there already, in memory.
    fn take(&mut self, seq: u64, at_ms: i64, offset_ms: i64, kind: &EventKind, payload: Vec<u8>) {
        let attempt = self.row.attempt;
        self.last_at_ms = at_ms;
        self.progress.pos += 1;
        self.progress.attempt = attempt;
        if seq > 0 {
            self.progress.seq = seq;
        }
        self.progress.view.apply(self.progress.pos, attempt, offset_ms, kind);
        self.entries.push(LogEntry { pos: self.progress.pos, attempt, seq, at_ms, rows: row_count(kind), payload });
    }

    async fn commit(&mut self, status: Option<BuildStatus>, snapshot: Option<BuildSnapshot>) -> Result<(), Leave> {
        self.progress.chain_count = self.chain.count;
        self.progress.chain_hash = self.chain.hex();
        // A late event cannot move a build backwards, nor can an earlier one that comes in the same batch.
        let status = status.filter(|s| s.rank() > self.row.status.rank());
        let append = Append {
            entries: std::mem::take(&mut self.entries),
            progress: std::mem::take(&mut self.progress),
            status,
            snapshot,
        };
        let stored = self.inner.store.append(&self.row.id, self.row.lease_epoch, &append).await;
        let Append { mut entries, progress, snapshot, .. } = append;
        entries.clear();
        self.entries = entries;
        self.progress = progress;
        stored?;
        if let Some(snapshot) = snapshot {
            self.row.snapshot = snapshot;
        }
        self.commit_from = Instant::now() + COMMIT_EVERY;
        if let Some(status) = status {
            self.row.status = status;
            self.channel.touch();
        }
        Ok(())
    }

    /// Appends notes of the server's own.
    pub async fn note(&mut self, notes: Vec<(&str, BTreeMap<String, String>)>) -> Result<(), Leave> {
        self.note_with(notes, None).await
    }

    /// The same, together with what they say of the build itself.
    async fn note_with(
        &mut self,
        notes: Vec<(&str, BTreeMap<String, String>)>,
        snapshot: Option<BuildSnapshot>,
    ) -> Result<(), Leave> {
        if notes.is_empty() {
            return Ok(());
        }
        let first_row = self.progress.view.rows;
        let mut events = Vec::new();
        for (code, args) in notes {
            let kind = EventKind::Note { code: code.to_owned(), args };
            let payload = serde_json::to_vec(&kind).map_err(|e| StoreError::Other(e.into()))?;
            let at_ms = now_ms().max(self.last_at_ms);
            let offset_ms = self.agent_zero_ms.map_or(0, |zero| at_ms - zero);
            self.take(0, at_ms, offset_ms, &kind, payload);
            events.push(kind);
        }
        self.commit(None, snapshot).await?;
        if self.channel.is_watched() {
            self.channel.publish(&self.progress.view, first_row, events);
        }
        Ok(())
    }

    /// The agent's time in the server's: never before what came before, never in the future.
    fn at_ms(&self, offset_ms: i64) -> i64 {
        let now = now_ms();
        self.agent_zero_ms.map_or(now, |zero| zero + offset_ms).min(now).max(self.last_at_ms)
    }

    /// The agent at this moment, on its own axis.
    pub fn agent_now_ms(&self) -> i64 {
        now_ms() - self.agent_zero_ms.or(self.row.started_at).unwrap_or_else(now_ms)
    }

    /// Does what the task was told.
    async fn obey(&mut self) -> Result<(), Leave> {
        if self.inner.stopping.is_cancelled() {
            return Err(Leave::Quietly);
        }
        let control = *self.control.borrow();
        if control.lost {
            return Err(Leave::Quietly);
        }
        if control.cancel && self.told_to_stop.is_none() {
            match self.inner.runner.cancel(&self.row.id, self.row.attempt).await {
                Ok(()) => self.told_to_stop = Some(Instant::now()),
                Err(error) => tracing::warn!(build = %self.row.id, %error, "an agent could not be told to stop"),
            }
        }
        self.say_if_slow().await
    }

    /// Says once that the build takes far longer than its service's others. Only what was heard counts, and only of the
    /// first attempt: what came before a later one is no slowness, nor is the wait for a place to build in.
    pub async fn say_if_slow(&mut self) -> Result<(), Leave> {
        let took_ms = self.agent_zero_ms.map_or(0, |zero| self.last_at_ms - zero);
        if self.said_slow || self.row.attempt > 1 || took_ms < profile::SLOWER_BY_MS || !self.builds() {
            return Ok(());
        }
        let usual_ms = self.inner.store.expected_duration_ms(&self.row.service_id).await?;
        let Some(usual_ms) = usual_ms.filter(|usual| profile::much_slower(took_ms, *usual)) else { return Ok(()) };
        self.said_slow = true;
        self.note(vec![profile::slow_note(&self.inner.config.profiles, &self.row.snapshot, took_ms, usual_ms)]).await
    }

    /// When waiting for the agent's last word ends.
    fn deadline(&self) -> Instant {
        if let Some(told) = self.told_to_stop {
            return told + STOP_PATIENCE;
        }
        // A server that was away first hears what there is, and only then finds that it took too long.
        let limit = Duration::from_secs(u64::from(self.row.snapshot.settings.time_limit_s)) + OVERDUE;
        let since = |then: i64| Duration::from_millis((now_ms() - then).max(0) as u64);
        let left = match (self.agent_zero_ms, self.row.attempt, self.row.started_at) {
            // As its agent counts: what it waited for before is not the build's.
            (Some(zero), ..) => limit.saturating_sub(since(zero)),
            (None, 1, Some(started)) => (limit + self.inner.runner.patience()).saturating_sub(since(started)),
            // Of a later attempt only the first one's start is known: its own time began when it was taken up.
            _ => (limit + self.inner.runner.patience()).saturating_sub(self.begun.elapsed()),
        };
        (Instant::now() + left).max(self.begun + OVERDUE / 2)
    }

    /// Waits, but not for what the task is told meanwhile.
    async fn pause(&mut self, time: Duration) -> Result<(), Leave> {
        tokio::select! {
            () = sleep(time) => Ok(()),
            () = self.inner.stopping.cancelled() => Err(Leave::Quietly),
            changed = self.control.changed() => changed.map_err(|_| Leave::Quietly),
        }
    }

    /// Whether what is stored is what the agent says it wrote.
    pub fn log_verified(&self, result: &AgentResult) -> bool {
        let verified = self.chain.count == result.count && self.chain.hex() == result.hash;
        if !verified {
            tracing::error!(build = %self.row.id, attempt = self.row.attempt, stored = self.chain.count,
                stated = result.count, "the stored log is not what the agent wrote");
        }
        verified
    }

    /// Rows `[first, first + count)` of the stored log, as events with their rows.
    pub async fn stored(&self, first: u64, count: u64) -> Result<Vec<(u64, u32, EventKind)>, StoreError> {
        let mut out = Vec::new();
        read::visit_entries(&self.inner, &self.row.id, first, first + count, |at, entry| {
            out.push((at, entry.attempt, read::kind_of(entry)));
            ControlFlow::Continue(())
        })
        .await?;
        Ok(out)
    }
}

fn chain_of(progress: &Progress) -> Result<Chain, StoreError> {
    Chain::from_parts(progress.chain_count, &progress.chain_hash)
        .ok_or_else(|| StoreError::Other(anyhow::anyhow!("a stored hash that is none")))
}

async fn open_secrets(inner: &Inner, row: &BuildRow) -> Result<Secrets, StoreError> {
    Ok(Secrets {
        relay_key: inner.relay_key(&row.id, row.attempt),
        git_token: inner.secret(row.snapshot.git_secret.as_ref()).await?,
        registry_password: inner.secret(row.snapshot.registry_secret.as_ref()).await?,
    })
}

/// The state that an event means, where it means one.
fn status_of(kind: &EventKind) -> Option<BuildStatus> {
    match kind {
        EventKind::PhaseEntered { phase: Phase::Checkout | Phase::Preflight } => Some(BuildStatus::CheckingOut),
        EventKind::PhaseEntered { phase: Phase::Build } => Some(BuildStatus::Building),
        EventKind::PhaseEntered { phase: Phase::Push } => Some(BuildStatus::Pushing),
        _ => None,
    }
}

/// Lost connections come and go; these come again.
fn makes_no_sense(error: &RelayError) -> bool {
    match error {
        RelayError::Broken(_) | RelayError::Silent => false,
        RelayError::NotProven
        | RelayError::Refused(_)
        | RelayError::Newer(_)
        | RelayError::Protocol(_)
        | RelayError::Gap { .. } => true,
    }
}
