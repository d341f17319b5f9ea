//! The only way into the spool: numbering, redaction and the cap on a log's length happen here, for every event alike.

use crate::redact::{Redactor, Stream};
use crate::spool::{Clock, Standing, Writer};
use crate::stop::{Stop, Why};
use kiops_events::event::{AgentEnd, AgentResult, EventKind, LineText, Outcome, Phase, Place};
use kiops_events::lines::LineCutter;
use kiops_events::rawjson::Filter;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What phases may write beyond the cap, all together: the reason of a failure stands there.
const PHASES_RESERVE_BYTES: u64 = 1024 * 1024;
/// How much of what is left out is kept at hand, for when the step turns out to fail.
const TAIL_BYTES: usize = 64 * 1024;
/// How much of a phase's text is kept for looking at it afterwards.
const PHASE_TAIL_BYTES: usize = 16 * 1024;

/// How an attempt ended, as far as the agent can say.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    pub end: AgentEnd,
    pub exit_code: Option<i32>,
    pub digest: Option<String>,
    pub code: Option<String>,
    pub args: BTreeMap<String, String>,
}

impl Ending {
    pub fn of(end: AgentEnd) -> Self {
        Self { end, exit_code: None, digest: None, code: None, args: BTreeMap::new() }
    }

    pub fn coded<const N: usize>(end: AgentEnd, code: &str, args: [(&str, String); N]) -> Self {
        let args = args.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        Self { code: Some(code.to_owned()), args, ..Self::of(end) }
    }

    /// The build failed for a reason that the agent itself saw.
    pub fn failure<const N: usize>(code: &str, args: [(&str, String); N]) -> Self {
        Self::coded(AgentEnd::Failure, code, args)
    }

    /// Something around the build failed.
    pub fn infrastructure(code: &str, reason: impl ToString) -> Self {
        Self::coded(AgentEnd::Infrastructure, code, [("reason", reason.to_string())])
    }

    /// It was told to stop.
    pub fn stopped(why: Why) -> Self {
        match why {
            Why::TimeLimit => Self::coded(AgentEnd::TimeLimit, "timeout", []),
            Why::Terminated => Self::of(AgentEnd::Terminated),
            Why::Spool => Self::infrastructure("spool", "the spool takes no more events"),
            Why::DiskFull => Self::infrastructure("disk_full", "there is no room for the log"),
        }
    }

    /// The machine did not do what it should: `code`, unless it is the disk that is full.
    pub fn trouble(code: &str, what: impl Display, error: &io::Error) -> Self {
        Self::infrastructure(if is_full(error) { "disk_full" } else { code }, format!("{what}: {error}"))
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes events down. Cheap to clone; clones write into the same spool.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Mutex<Inner>>,
    clock: Clock,
    redactor: Redactor,
    stop: Stop,
}

struct Inner {
    writer: Writer,
    attempt: u32,
    cap: Cap,
    /// An event could not be written. The result is the only one that still may: after a hole nothing makes sense.
    broken: bool,
}

/// Keeps count of the log's length, and of what is left out beyond the cap.
struct Cap {
    step_bytes_left: u64,
    phase_bytes_left: u64,
    limit: u64,
    left_out_bytes: u64,
    left_out_lines: u64,
    tail: VecDeque<LineText>,
    tail_bytes: usize,
}

impl Recorder {
    pub fn new(writer: Writer, attempt: u32, log_cap_bytes: u64, redactor: Redactor, stop: Stop) -> Self {
        let clock = writer.clock();
        let cap = Cap {
            step_bytes_left: log_cap_bytes,
            phase_bytes_left: log_cap_bytes.saturating_add(PHASES_RESERVE_BYTES),
            limit: log_cap_bytes,
            left_out_bytes: 0,
            left_out_lines: 0,
            tail: VecDeque::new(),
            tail_bytes: 0,
        };
        Self { inner: Arc::new(Mutex::new(Inner { writer, attempt, cap, broken: false })), clock, redactor, stop }
    }

    pub fn clock(&self) -> Clock {
        self.clock
    }

    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    pub fn standing(&self) -> Standing {
        self.lock().writer.standing()
    }

    /// Writes an event down. Trouble with the spool stops the attempt; there is nothing else a caller could do about it.
    pub fn record(&self, mut kind: EventKind) {
        self.redactor.event(&mut kind);
        let mut inner = self.lock();
        if inner.broken {
            return;
        }
        if let Err(error) = inner.take(kind) {
            inner.broken = true;
            tracing::error!(%error, "the spool takes no more events");
            self.stop.order(if is_full(&error) { Why::DiskFull } else { Why::Spool });
        }
    }

    pub fn note<const N: usize>(&self, code: &str, args: [(&str, String); N]) {
        let args = args.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        self.record(EventKind::Note { code: code.to_owned(), args });
    }

    pub fn enter(&self, phase: Phase) {
        self.record(EventKind::PhaseEntered { phase });
    }

    /// The agent's last word. Nothing is written after it.
    pub fn finish(&self, ending: Ending) -> io::Result<()> {
        let mut inner = self.lock();
        if inner.writer.standing().ended.is_some() {
            return Ok(());
        }
        let (bytes, lines) = (inner.cap.left_out_bytes, inner.cap.left_out_lines);
        if bytes > 0 {
            let args = [("bytes", bytes), ("lines", lines)].map(|(k, v)| (k.to_owned(), v.to_string()));
            inner.write(&EventKind::Note { code: "log_left_out".into(), args: args.into() })?;
        }
        let chain = inner.writer.chain();
        let mut result = EventKind::Result(AgentResult {
            end: ending.end,
            exit_code: ending.exit_code,
            digest: ending.digest,
            code: ending.code,
            args: ending.args,
            left_out_bytes: bytes,
            push_began: inner.writer.standing().push_began,
            count: chain.count,
            hash: chain.hex(),
        });
        self.redactor.event(&mut result);
        inner.write(&result)
    }

    /// A panic while the lock was held leaves the writer whole: an event is in the file or it is not.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take(&mut self, kind: EventKind) -> io::Result<()> {
        if self.writer.standing().ended.is_some() {
            return Ok(());
        }
        match kind {
            EventKind::Lines(lines) => match self.cap.let_in(lines) {
                Verdict::Write(lines) => self.write(&EventKind::Lines(lines)),
                Verdict::LeftOut { first } => {
                    if !first {
                        return Ok(());
                    }
                    let args = BTreeMap::from([("limit_bytes".to_owned(), self.cap.limit.to_string())]);
                    self.write(&EventKind::Note { code: "log_capped".into(), args })
                }
            },
            EventKind::StepEnded { step, outcome: Outcome::Error | Outcome::Canceled, .. } => {
                for lines in self.cap.tail_of(Place::Step(step)) {
                    self.write(&EventKind::Lines(lines))?;
                }
                self.write(&kind)
            }
            kind => self.write(&kind),
        }
    }

    fn write(&mut self, kind: &EventKind) -> io::Result<()> {
        self.writer.append(self.attempt, kind)
    }
}

enum Verdict {
    Write(LineText),
    LeftOut { first: bool },
}

impl Cap {
    fn let_in(&mut self, lines: LineText) -> Verdict {
        let bytes = lines.text.len() as u64 + 1;
        let left = match lines.place {
            Place::Step(_) => &mut self.step_bytes_left,
            Place::Phase(_) => &mut self.phase_bytes_left,
        };
        if *left >= bytes {
            *left -= bytes;
            return Verdict::Write(lines);
        }
        // Once something was left out, nothing later slips through: what is missing is in one piece.
        *left = 0;
        let first = self.left_out_bytes == 0;
        self.left_out_bytes += bytes;
        self.left_out_lines += lines.count();
        self.tail_bytes += lines.text.len();
        self.tail.push_back(lines);
        while self.tail_bytes > TAIL_BYTES && self.tail.len() > 1 {
            self.tail_bytes -= self.tail.pop_front().map_or(0, |l| l.text.len());
        }
        Verdict::LeftOut { first }
    }

    /// Takes the last lines of a place out of what was left out.
    fn tail_of(&mut self, place: Place) -> VecDeque<LineText> {
        let all = std::mem::take(&mut self.tail);
        let (of_place, others): (VecDeque<LineText>, _) = all.into_iter().partition(|l| l.place == place);
        self.tail = others;
        for lines in &of_place {
            self.tail_bytes -= lines.text.len();
            self.left_out_bytes = self.left_out_bytes.saturating_sub(lines.text.len() as u64 + 1);
            self.left_out_lines = self.left_out_lines.saturating_sub(lines.count());
        }
        of_place
    }
}

/// What a phase's programs print, as lines of that phase.
pub struct PhaseLog {
    recorder: Recorder,
    lines: LineCutter,
    filter: Stream,
    since_ms: i64,
    tail: Vec<u8>,
}

impl PhaseLog {
    pub fn new(recorder: &Recorder, phase: Phase) -> Self {
        Self {
            recorder: recorder.clone(),
            lines: LineCutter::new(Place::Phase(phase)),
            filter: recorder.redactor().stream(),
            since_ms: recorder.clock().now_ms(),
            tail: Vec::new(),
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let spare = self.tail.len().saturating_sub(PHASE_TAIL_BYTES);
        self.tail.drain(..spare);
        let (mut passed, mut out) = (Vec::new(), Vec::new());
        self.filter.pass(bytes, &mut passed);
        self.lines.push(&passed, self.at_ms(), &mut out);
        self.lines.hand_out(&mut out);
        out.into_iter().for_each(|e| self.recorder.record(e));
    }

    /// A program has ended: what it left without a line end is a line.
    pub fn end(&mut self) {
        let (mut passed, mut out) = (Vec::new(), Vec::new());
        self.filter.end(&mut passed);
        let at_ms = self.at_ms();
        self.lines.push(&passed, at_ms, &mut out);
        self.lines.end(at_ms, &mut out);
        out.into_iter().for_each(|e| self.recorder.record(e));
    }

    /// The last of what was printed since the last call, for finding out what went wrong. Not redacted: not to be shown.
    pub fn take_tail(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.tail)).into_owned()
    }

    fn at_ms(&self) -> u32 {
        (self.recorder.clock().now_ms() - self.since_ms).clamp(0, i64::from(u32::MAX)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Reader;
    use kiops_events::AgentEvent;
    use kiops_events::chain::Chain;

    fn events(path: &std::path::Path) -> Vec<AgentEvent> {
        let mut reader = Reader::open(path).unwrap();
        let mut out = Vec::new();
        while let Some(payload) = reader.record().unwrap() {
            out.push(serde_json::from_slice(payload).unwrap());
        }
        out
    }

    fn recorder(path: &std::path::Path, cap: u64) -> Recorder {
        let redactor = Redactor::new([&b"secret-value"[..]]);
        Recorder::new(Writer::open(path).unwrap(), 1, cap, redactor, Stop::default())
    }

    fn lines(place: Place, first: u64, text: &str) -> EventKind {
        EventKind::Lines(LineText { place, first, at_ms: 0, text: text.into(), cut: vec![] })
    }

    #[test]
    fn the_result_counts_and_hashes_what_came_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let recorder = recorder(&path, 1000);
        recorder.enter(Phase::Build);
        recorder.record(lines(Place::Step(1), 1, "a secret-value"));
        recorder.finish(Ending::of(AgentEnd::Success)).unwrap();
        recorder.note("late", []);
        recorder.finish(Ending::of(AgentEnd::Failure)).unwrap();

        let mut chain = Chain::default();
        let mut reader = Reader::open(&path).unwrap();
        for _ in 0..2 {
            chain.push(reader.record().unwrap().unwrap());
        }
        let events = events(&path);
        assert_eq!(events.len(), 3);
        assert_eq!(events[1].kind, lines(Place::Step(1), 1, "a ***"));
        let EventKind::Result(result) = &events[2].kind else { panic!("no result") };
        assert_eq!((result.end, result.count, &result.hash), (AgentEnd::Success, 2, &chain.hex()));
    }

    #[test]
    fn beyond_the_cap_a_log_is_left_out_but_for_the_end_of_a_failed_step() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let recorder = recorder(&path, 100);
        for i in 0..5000 {
            recorder.record(lines(Place::Step(1), i + 1, &format!("{i:031}")));
        }
        recorder.record(lines(Place::Step(2), 1, "another step's"));
        recorder.record(lines(Place::Phase(Phase::Buildctl), 1, "error: the reason"));
        let ended = |step, outcome| EventKind::StepEnded { step, outcome, error: None, intervals: vec![] };
        recorder.record(ended(1, Outcome::Error));
        recorder.record(ended(2, Outcome::Done));
        recorder.finish(Ending::of(AgentEnd::Failure)).unwrap();

        let events = events(&path);
        assert!(matches!(&events[3].kind, EventKind::Note { code, args }
            if code == "log_capped" && args["limit_bytes"] == "100"));
        assert_eq!(events[4].kind, lines(Place::Phase(Phase::Buildctl), 1, "error: the reason"));
        let kept: Vec<u64> = events[5..]
            .iter()
            .filter_map(|e| match &e.kind {
                EventKind::Lines(l) => Some((l.place, l.first)),
                _ => None,
            })
            .map(|(place, first)| {
                assert_eq!(place, Place::Step(1));
                first
            })
            .collect();
        assert_eq!(kept.last(), Some(&5000));
        assert!((2000..2200).contains(&kept.len()), "{}", kept.len());
        let left_out = 5000 - 3 - kept.len() as u64 + 1;
        let EventKind::Note { code, args } = &events[events.len() - 2].kind else { panic!("no note") };
        assert_eq!((code.as_str(), args["lines"].as_str()), ("log_left_out", left_out.to_string().as_str()));
        let EventKind::Result(result) = &events[events.len() - 1].kind else { panic!("no result") };
        assert_eq!(result.left_out_bytes.to_string(), args["bytes"]);
    }

    #[test]
    fn a_spool_that_takes_no_more_stops_the_attempt() {
        let folder = tempfile::tempdir().unwrap();
        let stop = Stop::default();
        let writer = Writer::open(&folder.path().join("spool")).unwrap();
        let recorder = Recorder::new(writer, 1, 1 << 30, Redactor::new([]), stop.clone());
        recorder.record(lines(Place::Step(1), 1, &"x".repeat(kiops_events::wire::MAX_FRAME_BYTES)));
        assert_eq!(stop.why(), Some(Why::Spool));
    }

    #[test]
    fn a_phases_log_is_cut_into_lines_and_its_end_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let recorder = recorder(&path, 1000);
        let mut log = PhaseLog::new(&recorder, Phase::Checkout);
        log.push(b"one\ntwo sec");
        log.push(b"ret-value\nthree");
        log.end();
        assert_eq!(log.take_tail(), "one\ntwo secret-value\nthree");
        let texts: Vec<String> = events(&path)
            .into_iter()
            .filter_map(|e| match e.kind {
                EventKind::Lines(l) => Some(l.text),
                _ => None,
            })
            .collect();
        assert_eq!(texts.join("\n"), "one\ntwo ***\nthree");
    }
}
