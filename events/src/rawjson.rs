//! Reading BuildKit's `--progress=rawjson`: from what buildctl writes to its stderr to the events of a build.
//!
//! One JSON object a line, each a piece of news about steps ("vertexes"), sub-tasks ("statuses"), output ("logs") and
//! warnings; everything else that buildctl prints (the error at the end, the Dockerfile's lines around it) is plain text
//! between and after. Pure: what it must know of time is given to it.
//!
//! What the records do not say by themselves, and this module knows:
//! - A record of a step replaces the one before it, but one without `started` never replaces one with it.
//! - A step may work several times, often with less than a millisecond between. An end is therefore held back a moment:
//!   a step that goes on at once has not ended.
//! - `cached` may come late. It is taken back when a later step needs the layers and they are fetched and unpacked; nothing
//!   of the step runs then, so it stays cached here. Steps of one progress group are shown as one step.
//! - Output comes in pieces that end anywhere, in two streams whose pieces are woven together.
//! - What happened in one moment comes as one record, unless it holds more than 1 MiB of output. Then the first record has
//!   all the news and the first of the output, others follow with the rest, and an empty one closes the row: the news of a
//!   step's end must wait for them. Each of these repeats the warnings.

use crate::event::{EventKind, Interval, Outcome, Phase, Place};
use crate::lines::LineCutter;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// How long an end is held back for the step to go on.
const HOLD_END_MS: i64 = 100;
/// A transfer is told of at most this often; its end always.
const TRANSFER_EVERY_MS: i64 = 500;
/// Lines that came further apart than this get separate events, each with its time.
const LINES_APART_MS: u32 = 200;
/// A record with more output than this goes on in the next.
const SPLIT_BYTES: usize = 1024 * 1024;
/// The rest of a record that goes on is waited for this long, should the closing one not come.
const REST_WITHIN_MS: i64 = 2000;
/// A record longer than this is no record.
const MAX_RECORD_BYTES: usize = 64 * 1024 * 1024;
/// A step's name holds its whole command, which may be a program of any length.
const MAX_NAME_BYTES: usize = 16 * 1024;
const MAX_ERROR_BYTES: usize = 64 * 1024;
const MAX_ID_BYTES: usize = 1024;
const MAX_WARNING_BYTES: usize = 16 * 1024;

/// What output passes before it is cut into lines: the agent's redaction. Each stream of a step has its own.
pub trait Filter: Send {
    /// Appends what may be seen of `bytes` to `out`; may keep a part until more has come.
    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>);
    /// Appends what was kept: the stream has ended. Should more come after all, it begins anew.
    fn end(&mut self, out: &mut Vec<u8>);
}

/// Lets everything through.
#[derive(Debug, Default)]
pub struct NoFilter;

impl Filter for NoFilter {
    fn pass(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(bytes);
    }
    fn end(&mut self, _: &mut Vec<u8>) {}
}

pub type MakeFilter = Box<dyn Fn() -> Box<dyn Filter> + Send>;

/// Turns buildctl's stderr into events. Feed it bytes as they come, [`tick`](Self::tick) it now and then,
/// [`finish`](Self::finish) it at the end.
pub struct Converter {
    /// Wall clock at the agent's offset zero: BuildKit's times become offsets by it.
    base_ns: i64,
    make_filter: MakeFilter,
    /// A line of input that has not ended.
    input: Vec<u8>,
    /// The beginning of the line was plain text and has been taken: so is the rest of it.
    within_text: bool,
    steps: Vec<Step>,
    by_digest: HashMap<String, usize>,
    by_group: HashMap<String, usize>,
    numbered: u32,
    /// Ends that are held back, oldest first.
    held: Vec<Held>,
    /// News of a record whose output goes on in the next ones.
    unfinished: Option<Unfinished>,
    warned: HashSet<u64>,
    /// The step whose lines are waiting to become an event.
    open_lines: Option<usize>,
    push_entered: bool,
    plain: LineCutter,
    plain_filter: Box<dyn Filter>,
    plain_since_ms: Option<i64>,
    record: u64,
    /// Reused between records.
    decoded: Vec<u8>,
    passed: Vec<u8>,
}

struct Held {
    step: usize,
    due_ms: i64,
}

struct Unfinished {
    touched: Vec<usize>,
    statuses: Vec<Status>,
    due_ms: i64,
}

/// News of a sub-task.
struct Status {
    digest: String,
    id: String,
    current: u64,
    total: u64,
    at_ns: i64,
    started_ns: Option<i64>,
    completed_ns: Option<i64>,
}

struct Step {
    digest: String,
    name: String,
    number: Option<u32>,
    members: HashMap<String, Member>,
    /// Start and, where it is over, end of each stretch of work, in nanoseconds since 1970.
    intervals: Vec<(i64, Option<i64>)>,
    /// The one interval is a guess: the step was heard of before its own record came.
    guessed: bool,
    /// A group all of whose members are weak so far: not shown.
    hidden: bool,
    told: Told,
    output: Option<Output>,
    transfers: HashMap<String, Transfer>,
    /// Number of the last record that held output or sub-tasks of it.
    busy_in: u64,
}

#[derive(Default)]
struct Member {
    started: bool,
    cached: bool,
    /// Its result was found in a cache: it will never be made.
    loaded: bool,
    error: Option<String>,
}

/// What has been told of a step so far.
#[derive(PartialEq)]
enum Told {
    Nothing,
    Running,
    Ended { outcome: Outcome, intervals: usize },
}

struct Output {
    lines: LineCutter,
    streams: [Box<dyn Filter>; 2],
}

struct Transfer {
    told_ms: i64,
    started_ns: Option<i64>,
    done: bool,
}

#[derive(Deserialize)]
struct Record<'a> {
    #[serde(borrow, default)]
    vertexes: Vec<VertexRecord<'a>>,
    #[serde(borrow, default)]
    statuses: Vec<StatusRecord<'a>>,
    #[serde(borrow, default)]
    logs: Vec<LogRecord<'a>>,
    #[serde(borrow, default)]
    warnings: Vec<WarningRecord<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VertexRecord<'a> {
    digest: &'a str,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(default)]
    started: Option<&'a str>,
    #[serde(default)]
    completed: Option<&'a str>,
    #[serde(default)]
    cached: bool,
    #[serde(borrow, default)]
    error: Cow<'a, str>,
    #[serde(borrow, default)]
    progress_group: Option<GroupRecord<'a>>,
}

#[derive(Deserialize)]
struct GroupRecord<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(default)]
    weak: bool,
}

#[derive(Deserialize)]
struct StatusRecord<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(default)]
    vertex: &'a str,
    #[serde(default)]
    total: i64,
    #[serde(default)]
    current: i64,
    #[serde(default)]
    timestamp: Option<&'a str>,
    #[serde(default)]
    started: Option<&'a str>,
    #[serde(default)]
    completed: Option<&'a str>,
}

#[derive(Deserialize)]
struct LogRecord<'a> {
    #[serde(default)]
    vertex: &'a str,
    #[serde(default)]
    stream: i64,
    #[serde(default)]
    data: &'a str,
    #[serde(default)]
    timestamp: Option<&'a str>,
}

#[derive(Deserialize)]
struct WarningRecord<'a> {
    #[serde(default)]
    vertex: &'a str,
    #[serde(default)]
    short: &'a str,
    #[serde(borrow, default)]
    detail: Vec<&'a str>,
    #[serde(borrow, default)]
    url: Cow<'a, str>,
}

impl Status {
    fn read(record: &StatusRecord<'_>) -> Option<Self> {
        Some(Self {
            digest: record.vertex.to_owned(),
            id: clip(&record.id, MAX_ID_BYTES),
            current: record.current.max(0) as u64,
            total: record.total.max(0) as u64,
            at_ns: record.timestamp.or(record.started).and_then(parse_time)?,
            started_ns: record.started.and_then(parse_time),
            completed_ns: record.completed.and_then(parse_time),
        })
    }
}

impl LogRecord<'_> {
    /// How many bytes of output it holds.
    fn bytes(&self) -> usize {
        let padding = self.data.bytes().rev().take_while(|b| *b == b'=').count();
        (self.data.len() / 4 * 3).saturating_sub(padding)
    }
}

impl Record<'_> {
    fn is_empty(&self) -> bool {
        self.vertexes.is_empty() && self.statuses.is_empty() && self.logs.is_empty() && self.warnings.is_empty()
    }
}

impl Converter {
    pub fn new(base_ns: i64, make_filter: MakeFilter) -> Self {
        let plain_filter = make_filter();
        Self {
            base_ns,
            make_filter,
            input: Vec::new(),
            within_text: false,
            steps: Vec::new(),
            by_digest: HashMap::new(),
            by_group: HashMap::new(),
            numbered: 0,
            held: Vec::new(),
            unfinished: None,
            warned: HashSet::new(),
            open_lines: None,
            push_entered: false,
            plain: LineCutter::new(Place::Phase(Phase::Buildctl)),
            plain_filter,
            plain_since_ms: None,
            record: 0,
            decoded: Vec::new(),
            passed: Vec::new(),
        }
    }

    /// Takes what buildctl has written, in pieces of any size. All that is known by then is in `out` afterwards, but for
    /// ends that are held back.
    pub fn feed(&mut self, mut bytes: &[u8], now_ms: i64, out: &mut Vec<EventKind>) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.input.is_empty() {
                self.line(line, now_ms, out);
            } else {
                let mut whole = std::mem::take(&mut self.input);
                whole.extend_from_slice(line);
                self.line(&whole, now_ms, out);
                whole.clear();
                self.input = whole;
            }
        }
        self.input.extend_from_slice(bytes);
        if self.input.len() > MAX_RECORD_BYTES || self.input.first().is_some_and(|b| self.within_text || *b != b'{') {
            let text = std::mem::take(&mut self.input);
            self.text(&text, now_ms, out);
            self.within_text = true;
        }
        self.hand_out_lines(out);
        self.plain.hand_out(out);
        self.tick(now_ms, out);
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn due_ms(&self) -> Option<i64> {
        let unfinished = self.unfinished.as_ref().map(|u| u.due_ms);
        self.held.first().map(|h| h.due_ms).into_iter().chain(unfinished).min()
    }

    /// Tells of the ends that have been held back long enough.
    pub fn tick(&mut self, now_ms: i64, out: &mut Vec<EventKind>) {
        if self.unfinished.as_ref().is_some_and(|u| u.due_ms <= now_ms) {
            self.close_record(now_ms, out);
        }
        while self.held.first().is_some_and(|h| h.due_ms <= now_ms) {
            let held = self.held.remove(0);
            self.tell_end(held.step, out);
        }
    }

    /// buildctl has closed its stderr. Steps that are still open were cut off with it.
    pub fn finish(&mut self, now_ms: i64, out: &mut Vec<EventKind>) {
        let rest = std::mem::take(&mut self.input);
        if !rest.is_empty() {
            self.line(&rest, now_ms, out);
        }
        self.close_record(now_ms, out);
        for held in std::mem::take(&mut self.held) {
            self.tell_end(held.step, out);
        }
        for index in 0..self.steps.len() {
            let at_ms = self.steps[index].at_ms(now_ms, self.base_ns);
            self.end_output(index, at_ms, out);
            let now_ns = self.base_ns.saturating_add(now_ms.saturating_mul(1_000_000));
            let step = &mut self.steps[index];
            if let (Some(number), true) = (step.number, step.is_running()) {
                for (start, end) in &mut step.intervals {
                    end.get_or_insert(now_ns.max(*start));
                }
                let step = &self.steps[index];
                let error = step.error().filter(|error| !is_cancel(error)).map(str::to_owned);
                let outcome = if error.is_some() { Outcome::Error } else { Outcome::Canceled };
                let intervals = step.intervals_ms(self.base_ns);
                out.push(EventKind::StepEnded { step: number, outcome, error, intervals });
            }
        }
        let mut passed = Vec::new();
        self.plain_filter.end(&mut passed);
        let at_ms = self.plain_at(now_ms);
        self.plain.push(&passed, at_ms, out);
        self.plain.end(at_ms, out);
    }

    /// One line of input, with its LF.
    fn line(&mut self, line: &[u8], now_ms: i64, out: &mut Vec<EventKind>) {
        let within_text = std::mem::take(&mut self.within_text);
        if within_text || line.first() != Some(&b'{') {
            return self.text(line, now_ms, out);
        }
        match serde_json::from_slice::<Record<'_>>(line) {
            // An object of something else's (a registry's error): text as well.
            Ok(record) if record.is_empty() && line.trim_ascii() != b"{}" => self.text(line, now_ms, out),
            Ok(record) => self.record(&record, now_ms, out),
            Err(_) => self.text(line, now_ms, out),
        }
    }

    fn text(&mut self, bytes: &[u8], now_ms: i64, out: &mut Vec<EventKind>) {
        self.hand_out_lines(out);
        let at_ms = self.plain_at(now_ms);
        let mut passed = std::mem::take(&mut self.passed);
        passed.clear();
        self.plain_filter.pass(bytes, &mut passed);
        self.plain.push(&passed, at_ms, out);
        self.passed = passed;
    }

    fn plain_at(&mut self, now_ms: i64) -> u32 {
        let since = *self.plain_since_ms.get_or_insert(now_ms);
        clamp_ms(now_ms - since)
    }

    fn record(&mut self, record: &Record<'_>, now_ms: i64, out: &mut Vec<EventKind>) {
        let has_news = !record.vertexes.is_empty() || !record.statuses.is_empty();
        if has_news || record.logs.is_empty() {
            self.close_record(now_ms, out);
        }
        let mut touched: Vec<usize> = Vec::new();
        for vertex in &record.vertexes {
            let step = self.take_vertex(vertex, out);
            if !touched.contains(&step) {
                touched.push(step);
            }
        }
        let statuses: Vec<Status> = record.statuses.iter().filter_map(Status::read).collect();
        let due_ms = now_ms + REST_WITHIN_MS;
        if let Some(unfinished) = &mut self.unfinished {
            unfinished.due_ms = due_ms;
            self.take_output(record, now_ms, out);
        } else if record.logs.iter().map(LogRecord::bytes).sum::<usize>() > SPLIT_BYTES {
            self.unfinished = Some(Unfinished { touched, statuses, due_ms });
            self.take_output(record, now_ms, out);
        } else {
            self.take_news(touched, &statuses, Some(record), now_ms, out);
        }
    }

    /// Tells the news that waited for the rest of their record's output.
    fn close_record(&mut self, now_ms: i64, out: &mut Vec<EventKind>) {
        if let Some(Unfinished { touched, statuses, .. }) = self.unfinished.take() {
            self.take_news(touched, &statuses, None, now_ms, out);
        }
    }

    fn take_news(
        &mut self,
        mut touched: Vec<usize>,
        statuses: &[Status],
        output: Option<&Record<'_>>,
        now_ms: i64,
        out: &mut Vec<EventKind>,
    ) {
        self.record += 1;
        let writing = output.iter().flat_map(|record| &record.logs).map(|log| log.vertex);
        for digest in statuses.iter().map(|s| s.digest.as_str()).chain(writing) {
            if let Some(step) = self.by_digest.get(digest) {
                self.steps[*step].busy_in = self.record;
            }
        }
        // Steps that go on come first: a new step's start is when held ends are told.
        touched.retain(|i| self.steps[*i].has_started() && !self.steps[*i].hidden);
        touched.sort_by_key(|i| (self.steps[*i].number.is_none(), self.steps[*i].last_start_ns()));
        for &step in &touched {
            self.tell_start(step, out);
            if self.steps[step].busy_in != self.record {
                self.hold_end(step, now_ms, out);
            }
        }
        for status in statuses {
            self.take_status(status, out);
        }
        if let Some(record) = output {
            self.take_output(record, now_ms, out);
        }
        for &step in &touched {
            if self.steps[step].busy_in == self.record {
                self.hold_end(step, now_ms, out);
            }
        }
    }

    fn take_output(&mut self, record: &Record<'_>, now_ms: i64, out: &mut Vec<EventKind>) {
        for log in &record.logs {
            self.take_log(log, now_ms, out);
        }
        for warning in &record.warnings {
            self.take_warning(warning, out);
        }
    }

    /// Finds or makes the step that a vertex belongs to, and takes its news in without telling of them.
    fn take_vertex(&mut self, vertex: &VertexRecord<'_>, out: &mut Vec<EventKind>) -> usize {
        let index = match (self.by_digest.get(vertex.digest), &vertex.progress_group) {
            (Some(index), _) => *index,
            (None, Some(group)) => {
                let index = match self.by_group.get(&*group.id) {
                    Some(index) => *index,
                    None => {
                        let index = self.new_step(&group.id, &group.name, true);
                        self.by_group.insert(group.id.clone().into_owned(), index);
                        index
                    }
                };
                self.by_digest.insert(vertex.digest.to_owned(), index);
                index
            }
            (None, None) => {
                let index = self.new_step(vertex.digest, &vertex.name, false);
                self.by_digest.insert(vertex.digest.to_owned(), index);
                if vertex.started.is_none() {
                    self.hand_out_lines(out);
                    let step = &self.steps[index];
                    out.push(EventKind::StepAnnounced { digest: step.digest.clone(), name: step.name.clone() });
                }
                index
            }
        };
        let step = &mut self.steps[index];
        let member = step.members.entry(vertex.digest.to_owned()).or_default();
        let Some(started) = vertex.started.and_then(parse_time) else {
            if !member.started && !vertex.error.is_empty() {
                member.error = Some(clip(&vertex.error, MAX_ERROR_BYTES));
            }
            return index;
        };
        member.started = true;
        let completed = vertex.completed.and_then(parse_time);
        member.loaded |= vertex.cached && completed.is_some() && vertex.error.is_empty();
        member.cached = vertex.cached || member.loaded;
        let error = (!vertex.error.is_empty()).then(|| clip(&vertex.error, MAX_ERROR_BYTES));
        // BuildKit may try again what has failed, and be cut off by the failure itself: that does not undo it.
        let undone = error.as_deref().map_or(completed.is_some(), |error| !is_cancel(error));
        if undone || member.error.as_deref().is_none_or(is_cancel) {
            member.error = error;
        }
        if vertex.progress_group.as_ref().is_none_or(|g| !g.weak) || member.error.is_some() {
            step.hidden = false;
        }
        if std::mem::take(&mut step.guessed) {
            step.intervals.clear();
        }
        match step.intervals.iter_mut().find(|(start, _)| *start == started) {
            Some(interval) => interval.1 = completed,
            None => {
                step.intervals.push((started, completed));
                step.intervals.sort_unstable();
            }
        }
        index
    }

    fn new_step(&mut self, digest: &str, name: &str, hidden: bool) -> usize {
        self.steps.push(Step {
            digest: digest.to_owned(),
            name: clip(name, MAX_NAME_BYTES),
            number: None,
            members: HashMap::new(),
            intervals: Vec::new(),
            guessed: false,
            hidden,
            told: Told::Nothing,
            output: None,
            transfers: HashMap::new(),
            busy_in: 0,
        });
        self.steps.len() - 1
    }

    /// Tells of a step's first start, or that it goes on after its end was told.
    fn tell_start(&mut self, index: usize, out: &mut Vec<EventKind>) {
        match self.steps[index].told {
            Told::Nothing => {
                // Before a new step begins to show, those that ended show it.
                for held in std::mem::take(&mut self.held) {
                    self.tell_end(held.step, out);
                }
                self.numbered += 1;
                self.steps[index].number = Some(self.numbered);
            }
            Told::Running => {
                if self.steps[index].is_running() {
                    self.held.retain(|h| h.step != index);
                }
                return;
            }
            Told::Ended { .. } if self.steps[index].is_running() => {}
            Told::Ended { .. } => return,
        }
        self.hand_out_lines(out);
        let step = &mut self.steps[index];
        step.told = Told::Running;
        let (stage, position) = split_name(&step.name);
        out.push(EventKind::StepStarted {
            step: step.number.unwrap_or_default(),
            digest: step.digest.clone(),
            name: step.name.clone(),
            stage: stage.map(str::to_owned),
            index: position.map(|p| p.0),
            total: position.map(|p| p.1),
            start_ms: offset_ms(step.last_start_ns(), self.base_ns),
        });
    }

    /// Begins to hold a step's end back, where it has ended and that was not told yet. A failure is told at once.
    fn hold_end(&mut self, index: usize, now_ms: i64, out: &mut Vec<EventKind>) {
        let step = &self.steps[index];
        if step.is_running() || self.held.iter().any(|h| h.step == index && step.error().is_none()) {
            return;
        }
        let now = Told::Ended { outcome: step.outcome(), intervals: step.intervals.len() };
        if step.told == now {
            return;
        }
        self.held.retain(|h| h.step != index);
        if step.error().is_some() {
            self.tell_end(index, out);
        } else {
            self.held.push(Held { step: index, due_ms: now_ms + HOLD_END_MS });
        }
    }

    fn tell_end(&mut self, index: usize, out: &mut Vec<EventKind>) {
        let at_ms = {
            let step = &self.steps[index];
            let start = step.last_start_ns();
            let end = step.intervals.iter().filter_map(|i| i.1).max().unwrap_or(start);
            clamp_ms((end - start) / 1_000_000)
        };
        self.end_output(index, at_ms, out);
        let step = &mut self.steps[index];
        let outcome = step.outcome();
        step.told = Told::Ended { outcome, intervals: step.intervals.len() };
        out.push(EventKind::StepEnded {
            step: step.number.unwrap_or_default(),
            outcome,
            error: step.error().map(str::to_owned),
            intervals: step.intervals_ms(self.base_ns),
        });
    }

    /// A step that writes or works without having been told of: it has begun, whatever its own record will say.
    fn begun(&mut self, digest: &str, at_ns: i64, out: &mut Vec<EventKind>) -> usize {
        let index = match self.by_digest.get(digest) {
            Some(index) => *index,
            None => {
                let index = self.new_step(digest, digest, false);
                self.by_digest.insert(digest.to_owned(), index);
                index
            }
        };
        let step = &mut self.steps[index];
        step.hidden = false;
        if !step.has_started() {
            step.intervals.push((at_ns, None));
            step.guessed = true;
        }
        if step.told == Told::Nothing {
            self.tell_start(index, out);
        }
        index
    }

    fn take_status(&mut self, status: &Status, out: &mut Vec<EventKind>) {
        let index = self.begun(&status.digest, status.at_ns, out);
        self.hand_out_lines(out);
        let id = &status.id;
        if !self.push_entered && (id.starts_with("pushing layers") || id.starts_with("pushing manifest")) {
            self.push_entered = true;
            out.push(EventKind::PhaseEntered { phase: Phase::Push });
        }
        let at_ms = offset_ms(status.at_ns, self.base_ns);
        let step = &mut self.steps[index];
        let wanted = match step.transfers.get(id) {
            None => true,
            // The same task may be done once more (a second tag is pushed): that begins anew.
            Some(known) if known.started_ns != status.started_ns => true,
            Some(known) if known.done => false,
            Some(known) => status.completed_ns.is_some() || at_ms - known.told_ms >= TRANSFER_EVERY_MS,
        };
        if !wanted {
            return;
        }
        let took = |end: i64| clamp_ms((end - status.started_ns.unwrap_or(end)) / 1_000_000);
        let done_ms = status.completed_ns.map(took);
        out.push(EventKind::Transfer {
            step: step.number.unwrap_or_default(),
            id: id.clone(),
            current: status.current,
            total: status.total,
            done_ms,
        });
        let transfer = Transfer { told_ms: at_ms, started_ns: status.started_ns, done: done_ms.is_some() };
        step.transfers.insert(id.clone(), transfer);
    }

    fn take_log(&mut self, log: &LogRecord<'_>, now_ms: i64, out: &mut Vec<EventKind>) {
        let at_ns = log
            .timestamp
            .and_then(parse_time)
            .unwrap_or_else(|| self.base_ns.saturating_add(now_ms.saturating_mul(1_000_000)));
        let index = match self.by_digest.get(log.vertex) {
            Some(index) if self.steps[*index].number.is_some() => *index,
            _ => self.begun(log.vertex, at_ns, out),
        };
        self.decoded.clear();
        if STANDARD.decode_vec(log.data, &mut self.decoded).is_err() {
            return;
        }
        if self.open_lines != Some(index) {
            self.hand_out_lines(out);
            self.open_lines = Some(index);
        }
        let step = &mut self.steps[index];
        let at_ms = clamp_ms((at_ns - step.last_start_ns()) / 1_000_000);
        let make = &self.make_filter;
        let output = step.output.get_or_insert_with(|| Output {
            lines: LineCutter::new(Place::Step(step.number.unwrap_or_default())),
            streams: [make(), make()],
        });
        if output.lines.waiting_since().is_some_and(|since| at_ms.saturating_sub(since) > LINES_APART_MS) {
            output.lines.hand_out(out);
        }
        self.passed.clear();
        output.streams[usize::from(log.stream == 2)].pass(&self.decoded, &mut self.passed);
        output.lines.push(&self.passed, at_ms, out);
    }

    fn take_warning(&mut self, warning: &WarningRecord<'_>, out: &mut Vec<EventKind>) {
        let mut hash = DefaultHasher::new();
        (warning.vertex, warning.short, &warning.detail, &warning.url).hash(&mut hash);
        if !self.warned.insert(hash.finish()) {
            return;
        }
        self.hand_out_lines(out);
        let text = |encoded: &str| {
            let bytes = STANDARD.decode(encoded).unwrap_or_default();
            clip(&String::from_utf8_lossy(&bytes), MAX_WARNING_BYTES)
        };
        out.push(EventKind::Warning {
            step: self.by_digest.get(warning.vertex).and_then(|i| self.steps[*i].number),
            short: text(warning.short),
            detail: warning.detail.iter().take(16).map(|d| text(d)).collect(),
            url: (!warning.url.is_empty()).then(|| clip(&warning.url, MAX_ID_BYTES)),
        });
    }

    /// Ends the lines of a step: what its filters kept, and the line without an end.
    fn end_output(&mut self, index: usize, at_ms: u32, out: &mut Vec<EventKind>) {
        self.hand_out_lines(out);
        let Some(output) = &mut self.steps[index].output else { return };
        let mut passed = std::mem::take(&mut self.passed);
        for stream in &mut output.streams {
            passed.clear();
            stream.end(&mut passed);
            output.lines.push(&passed, at_ms, out);
        }
        self.passed = passed;
        output.lines.end(at_ms, out);
    }

    fn hand_out_lines(&mut self, out: &mut Vec<EventKind>) {
        if let Some(output) = self.open_lines.take().and_then(|i| self.steps[i].output.as_mut()) {
            output.lines.hand_out(out);
        }
    }
}

/// Whether an error only says that something else ended the step.
fn is_cancel(error: &str) -> bool {
    error.ends_with("context canceled")
}

impl Step {
    fn has_started(&self) -> bool {
        !self.intervals.is_empty()
    }

    fn is_running(&self) -> bool {
        self.intervals.iter().any(|(_, end)| end.is_none())
    }

    fn last_start_ns(&self) -> i64 {
        self.intervals.last().map_or(0, |i| i.0)
    }

    fn at_ms(&self, now_ms: i64, base_ns: i64) -> u32 {
        clamp_ms(now_ms - offset_ms(self.last_start_ns(), base_ns))
    }

    /// Where several members have one, that which is not another's consequence.
    fn error(&self) -> Option<&str> {
        let mut errors = self.members.values().filter_map(|m| m.error.as_deref());
        let first = errors.next()?;
        Some(if is_cancel(first) { errors.find(|error| !is_cancel(error)).unwrap_or(first) } else { first })
    }

    fn outcome(&self) -> Outcome {
        match self.error() {
            Some(error) if is_cancel(error) => Outcome::Canceled,
            Some(_) => Outcome::Error,
            None if !self.members.is_empty() && self.members.values().all(|m| m.cached) => Outcome::Cached,
            None => Outcome::Done,
        }
    }

    fn intervals_ms(&self, base_ns: i64) -> Vec<Interval> {
        let mut merged: Vec<Interval> = Vec::new();
        for (start, end) in &self.intervals {
            let start_ms = offset_ms(*start, base_ns);
            let end_ms = offset_ms(end.unwrap_or(*start), base_ns).max(start_ms);
            match merged.last_mut() {
                Some(last) if start_ms <= last.end_ms => last.end_ms = last.end_ms.max(end_ms),
                _ => merged.push(Interval { start_ms, end_ms }),
            }
        }
        merged
    }
}

/// Stage and `i/n` of `[builder 3/4] RUN npm ci`; neither for `[internal] …` and the like.
fn split_name(name: &str) -> (Option<&str>, Option<(u32, u32)>) {
    let Some(inner) = name.strip_prefix('[').and_then(|n| n.split_once(']')).map(|(i, _)| i.trim()) else {
        return (None, None);
    };
    let (stage, position) = inner.rsplit_once(' ').unwrap_or(("", inner));
    let Some(position) = position.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?))) else {
        return (None, None);
    };
    let stage = stage.trim();
    ((!stage.is_empty()).then_some(stage), Some(position))
}

fn offset_ms(ns: i64, base_ns: i64) -> i64 {
    ns.saturating_sub(base_ns) / 1_000_000
}

fn clamp_ms(ms: i64) -> u32 {
    ms.clamp(0, i64::from(u32::MAX)) as u32
}

/// The text up to `limit`, with a mark where something is missing; NUL replaced as in lines.
fn clip(text: &str, limit: usize) -> String {
    let mut kept = text[..text.floor_char_boundary(limit)].replace('\0', "\u{FFFD}");
    if kept.len() < text.len() && text.len() > limit {
        kept.push('…');
    }
    kept
}

/// Nanoseconds since 1970 of an RFC 3339 time with any number of decimals.
fn parse_time(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let number = |from: usize, to: usize| -> Option<i64> {
        bytes.get(from..to)?.iter().try_fold(0i64, |n, b| b.is_ascii_digit().then(|| n * 10 + i64::from(b - b'0')))
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if bytes[4] != b'-' || bytes[7] != b'-' || bytes[13] != b':' || bytes[16] != b':' {
        return None;
    }
    let mut at = 19;
    let mut ns = 0;
    if bytes.get(at) == Some(&b'.') {
        at += 1;
        let mut unit = 100_000_000;
        while let Some(digit) = bytes.get(at).filter(|b| b.is_ascii_digit()) {
            ns += i64::from(digit - b'0') * unit;
            unit /= 10;
            at += 1;
        }
    }
    let zone_s = match bytes.get(at)? {
        b'Z' | b'z' => 0,
        sign @ (b'+' | b'-') => {
            let seconds = number(at + 1, at + 3)? * 3600 + number(at + 4, at + 6)? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    // Days since 1970 by the count of days before a year that begins in March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 719_469;
    (((days * 24 + hour) * 60 + minute) * 60 + second - zone_s).checked_mul(1_000_000_000)?.checked_add(ns)
}
