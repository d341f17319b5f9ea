//! The fold from events to what a page shows of a build: steps, totals, usage. Without log text, so that it stays small
//! however long the log is. The server keeps one per running build, the browser folds the same events into its own.

use crate::event::{AgentEnd, AgentResult, EventKind, Interval, Outcome, Phase, Place};
use crate::rows::{busy_ms, row_count};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Usage samples a view keeps for drawing; older ones are thinned out, peaks are kept apart.
const MAX_SAMPLES: usize = 120;
/// Transfers a step shows at once; a base image has a few dozen layers at most.
const MAX_TRANSFERS: usize = 64;
/// Notes and announced steps a view keeps: a hostile build must not make the page heavy.
const MAX_NOTES: usize = 100;
const MAX_ANNOUNCED: usize = 500;
const MAX_WARNINGS: usize = 100;

/// A step's state. Spelled the same in JSON and in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Marker {
    Waiting,
    Running,
    Done,
    Cached,
    Error,
    Canceled,
}

impl From<Outcome> for Marker {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Cached => Self::Cached,
            Outcome::Error => Self::Error,
            Outcome::Canceled => Self::Canceled,
        }
    }
}

/// Whether the build goes on when this step fails: a cache that is not there yet is an error of every first build.
pub fn may_fail(step: &str) -> bool {
    step.starts_with("importing cache manifest") || step.starts_with("exporting cache to ")
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepView {
    pub number: u32,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u32>,
    pub marker: Marker,
    /// Milliseconds since the agent began.
    pub intervals: Vec<Interval>,
    /// Start of the stretch that is running now, on the same axis.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub lines: u64,
    /// Row of the step's header in the whole log.
    pub first_row: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transfers: Vec<TransferView>,
}

impl StepView {
    /// It ended the build, or would have.
    pub fn failed(&self) -> bool {
        self.marker == Marker::Error && !may_fail(&self.name)
    }

    /// Time worked so far, with the agent's clock at `now_ms`; none for a cached or waiting step.
    pub fn duration_ms(&self, now_ms: i64) -> Option<i64> {
        match self.marker {
            Marker::Waiting | Marker::Cached => None,
            Marker::Running => {
                let running = self.running_since_ms.map(|s| (now_ms - s).max(0)).unwrap_or_default();
                Some(busy_ms(&self.intervals) + running)
            }
            Marker::Done | Marker::Error | Marker::Canceled => Some(busy_ms(&self.intervals)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransferView {
    pub id: String,
    pub current: u64,
    pub total: u64,
    pub done: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageSample {
    pub t_ms: i64,
    pub cpu_millicores: u32,
    pub memory_bytes: u64,
    pub anon_bytes: u64,
    pub disk_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoteView {
    pub code: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    pub row: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarningView {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    pub short: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// Everything a page needs to know of a build's inside, but for the lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BuildView {
    /// `pos` of the last event folded in.
    pub pos: u64,
    pub attempt: u32,
    #[serde(default)]
    pub phase: Option<Phase>,
    pub steps: Vec<StepView>,
    /// Steps that BuildKit has announced and not begun, by digest.
    pub announced: Vec<(String, String)>,
    /// Rows of the whole log so far, over all attempts.
    pub rows: u64,
    pub log_lines: u64,
    /// Lines each phase has written in this attempt: addresses of theirs go on from here.
    #[serde(default)]
    pub phase_lines: BTreeMap<String, u64>,
    /// Row of the first ERROR in the log.
    #[serde(default)]
    pub first_error_row: Option<u64>,
    #[serde(default)]
    pub usage: Vec<UsageSample>,
    pub peak_anon_bytes: u64,
    pub peak_memory_bytes: u64,
    pub peak_disk_bytes: u64,
    pub peak_cpu_millicores: u32,
    pub oom_kills: u32,
    #[serde(default)]
    pub warnings: Vec<WarningView>,
    #[serde(default)]
    pub notes: Vec<NoteView>,
    #[serde(default)]
    pub result: Option<AgentResult>,
}

impl BuildView {
    /// Folds one event in. Events at or before `self.pos` are known already and change nothing, so a repeat is harmless.
    pub fn apply(&mut self, pos: u64, attempt: u32, offset_ms: i64, kind: &EventKind) {
        if pos <= self.pos {
            return;
        }
        self.pos = pos;
        if attempt > self.attempt {
            self.begin_attempt(attempt);
        }
        let row = self.rows;
        self.rows += row_count(kind);
        match kind {
            EventKind::PhaseEntered { phase } => self.phase = Some(*phase),
            EventKind::Lines(lines) => {
                let count = lines.count();
                self.log_lines += count;
                match lines.place {
                    Place::Step(n) => {
                        if let Some(step) = self.step_mut(n) {
                            step.lines += count;
                        }
                    }
                    Place::Phase(phase) => {
                        *self.phase_lines.entry(crate::rows::phase_name(phase).to_owned()).or_default() += count;
                    }
                }
            }
            EventKind::StepAnnounced { digest, name } => {
                if self.announced.len() < MAX_ANNOUNCED && !self.announced.iter().any(|(d, _)| d == digest) {
                    self.announced.push((digest.clone(), name.clone()));
                }
            }
            EventKind::StepStarted { step, digest, name, stage, index, total, start_ms } => {
                self.announced.retain(|(d, _)| d != digest);
                if let Some(known) = self.step_mut(*step) {
                    known.marker = Marker::Running;
                    known.running_since_ms = Some(*start_ms);
                } else {
                    self.steps.push(StepView {
                        number: *step,
                        name: name.clone(),
                        stage: stage.clone(),
                        index: *index,
                        total: *total,
                        marker: Marker::Running,
                        intervals: Vec::new(),
                        running_since_ms: Some(*start_ms),
                        error: None,
                        lines: 0,
                        first_row: row,
                        transfers: Vec::new(),
                    });
                }
            }
            EventKind::Transfer { step, id, current, total, done_ms } => {
                if let Some(step) = self.step_mut(*step) {
                    let now =
                        TransferView { id: id.clone(), current: *current, total: *total, done: done_ms.is_some() };
                    if let Some(known) = step.transfers.iter_mut().find(|t| t.id == *id) {
                        *known = now;
                    } else if step.transfers.len() < MAX_TRANSFERS {
                        step.transfers.push(now);
                    }
                }
            }
            EventKind::StepEnded { step, outcome, error, intervals } => {
                let counts = self.step_mut(*step).is_none_or(|step| !may_fail(&step.name));
                if *outcome == Outcome::Error && counts {
                    self.first_error_row.get_or_insert(row);
                }
                if let Some(step) = self.step_mut(*step) {
                    step.marker = (*outcome).into();
                    step.error = error.clone();
                    step.intervals = intervals.clone();
                    step.running_since_ms = None;
                    step.transfers.clear();
                }
            }
            EventKind::Warning { step, short, url, .. } => {
                if self.warnings.len() < MAX_WARNINGS {
                    self.warnings.push(WarningView { step: *step, short: short.clone(), url: url.clone() });
                }
            }
            EventKind::Usage { cpu_millicores, memory_bytes, anon_bytes, disk_bytes, oom_kills } => {
                self.peak_cpu_millicores = self.peak_cpu_millicores.max(*cpu_millicores);
                self.peak_memory_bytes = self.peak_memory_bytes.max(*memory_bytes);
                self.peak_anon_bytes = self.peak_anon_bytes.max(*anon_bytes);
                self.peak_disk_bytes = self.peak_disk_bytes.max(*disk_bytes);
                self.oom_kills = self.oom_kills.max(*oom_kills);
                if self.usage.len() >= MAX_SAMPLES {
                    let mut keep = false;
                    self.usage.retain(|_| {
                        keep = !keep;
                        keep
                    });
                }
                self.usage.push(UsageSample {
                    t_ms: offset_ms,
                    cpu_millicores: *cpu_millicores,
                    memory_bytes: *memory_bytes,
                    anon_bytes: *anon_bytes,
                    disk_bytes: *disk_bytes,
                });
            }
            EventKind::Note { code, args } => {
                if self.notes.len() < MAX_NOTES {
                    self.notes.push(NoteView { code: code.clone(), args: args.clone(), row });
                }
            }
            EventKind::Result(result) => {
                if result.end != AgentEnd::Success {
                    self.first_error_row.get_or_insert(row);
                }
                self.result = Some(result.clone());
            }
            EventKind::Unknown => {}
        }
    }

    /// A new attempt starts over; what happened before stays in the log and in the notes.
    fn begin_attempt(&mut self, attempt: u32) {
        self.attempt = attempt;
        self.phase = None;
        self.steps.clear();
        self.announced.clear();
        self.phase_lines.clear();
        self.usage.clear();
        self.oom_kills = 0;
        self.first_error_row = None;
        self.result = None;
    }

    fn step_mut(&mut self, number: u32) -> Option<&mut StepView> {
        // Steps are numbered in the order they start, so this is nearly always a direct hit.
        let guess = (number as usize).wrapping_sub(1);
        if self.steps.get(guess).is_some_and(|s| s.number == number) {
            return self.steps.get_mut(guess);
        }
        self.steps.iter_mut().find(|s| s.number == number)
    }

    pub fn cached_steps(&self) -> u32 {
        self.steps.iter().filter(|s| s.marker == Marker::Cached).count() as u32
    }

    pub fn failed_step(&self) -> Option<&StepView> {
        self.steps.iter().find(|step| step.failed())
    }

    /// What stays when the log itself is no longer kept: no row is left that anything could lead to.
    pub fn without_log(&mut self) {
        self.rows = 0;
        self.first_error_row = None;
        for step in &mut self.steps {
            step.first_row = 0;
            step.lines = 0;
        }
        // One more is to come, which says what became of the log, and its row is the first.
        self.notes.truncate(MAX_NOTES - 1);
        for note in &mut self.notes {
            note.row = u64::MAX;
        }
        self.phase_lines.clear();
    }

    /// Closes what still reads as running when a build ends without the agent having said so.
    pub fn close_open_steps(&mut self, now_ms: i64) {
        for step in &mut self.steps {
            if step.marker == Marker::Running {
                step.marker = Marker::Canceled;
                if let Some(start_ms) = step.running_since_ms.take() {
                    step.intervals.push(Interval { start_ms, end_ms: now_ms.max(start_ms) });
                }
            }
        }
        self.announced.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::LineText;

    #[test]
    fn without_its_log_a_view_leads_to_no_row_and_keeps_the_rest() {
        let mut view = BuildView::default();
        let lines = LineText { place: Place::Step(1), first: 1, at_ms: 5, text: "a\nb".into(), cut: vec![] };
        let ended =
            EventKind::StepEnded { step: 1, outcome: Outcome::Error, error: Some("x".into()), intervals: vec![] };
        let note = |code: &str| EventKind::Note { code: code.into(), args: BTreeMap::new() };
        for (pos, kind) in (1..).zip([note("queued"), start(1, 0), EventKind::Lines(lines), ended]) {
            view.apply(pos, 1, 0, &kind);
        }
        assert!(view.first_error_row.is_some() && view.rows > 3);
        view.without_log();
        assert_eq!((view.rows, view.first_error_row, view.pos), (0, None, 4));
        assert_eq!((view.steps[0].first_row, view.steps[0].lines, view.steps[0].marker), (0, 0, Marker::Error));
        view.apply(5, 1, 0, &note("log_removed"));
        let first: Vec<_> = view.notes.iter().filter(|n| n.row < view.rows).map(|n| (n.code.as_str(), n.row)).collect();
        assert_eq!((view.rows, first), (1, vec![("log_removed", 0)]));
        assert_eq!(view.notes[0].code, "queued");
    }

    fn start(step: u32, at: i64) -> EventKind {
        EventKind::StepStarted {
            step,
            digest: format!("sha256:{step}"),
            name: format!("step {step}"),
            stage: None,
            index: None,
            total: None,
            start_ms: at,
        }
    }

    fn end(step: u32, outcome: Outcome, intervals: &[(i64, i64)]) -> EventKind {
        EventKind::StepEnded {
            step,
            outcome,
            error: (outcome == Outcome::Error).then(|| "exit code: 1".to_owned()),
            intervals: intervals.iter().map(|(s, e)| Interval { start_ms: *s, end_ms: *e }).collect(),
        }
    }

    fn lines(step: u32, text: &str) -> EventKind {
        EventKind::Lines(LineText { place: Place::Step(step), first: 1, at_ms: 0, text: text.into(), cut: vec![] })
    }

    fn fold(events: &[EventKind]) -> BuildView {
        let mut view = BuildView::default();
        events.iter().enumerate().for_each(|(i, e)| view.apply(i as u64 + 1, 1, i as i64, e));
        view
    }

    #[test]
    fn a_step_goes_from_announced_to_running_to_its_outcome() {
        let announced = EventKind::StepAnnounced { digest: "sha256:1".into(), name: "step 1".into() };
        let view = fold(std::slice::from_ref(&announced));
        assert_eq!((view.announced.len(), view.steps.len()), (1, 0));
        let view = fold(&[announced, start(1, 100), lines(1, "a\nb"), end(1, Outcome::Done, &[(100, 300)])]);
        assert!(view.announced.is_empty());
        let step = &view.steps[0];
        assert_eq!((step.marker, step.lines, step.duration_ms(9999)), (Marker::Done, 2, Some(200)));
        assert_eq!((view.rows, view.log_lines, step.first_row), (4, 2, 0));
    }

    #[test]
    fn a_step_that_starts_again_adds_up() {
        let view = fold(&[start(1, 0), end(1, Outcome::Done, &[(0, 50)]), start(1, 80)]);
        assert_eq!(view.steps.len(), 1);
        assert_eq!(view.steps[0].marker, Marker::Running);
        assert_eq!(view.steps[0].duration_ms(100), Some(70));
    }

    #[test]
    fn repeats_change_nothing() {
        let events = [start(1, 0), lines(1, "x"), end(1, Outcome::Error, &[(0, 5)])];
        let mut view = fold(&events);
        let once = view.clone();
        events.iter().enumerate().for_each(|(i, e)| view.apply(i as u64 + 1, 1, 0, e));
        assert_eq!(view, once);
        assert_eq!(view.first_error_row, Some(2));
        assert_eq!(view.failed_step().map(|s| s.number), Some(1));
    }

    #[test]
    fn a_second_attempt_starts_over_but_rows_go_on() {
        let mut view = fold(&[start(1, 0), lines(1, "x\ny")]);
        view.apply(3, 2, 0, &start(1, 0));
        assert_eq!((view.attempt, view.steps.len(), view.steps[0].lines, view.steps[0].first_row), (2, 1, 0, 3));
    }

    #[test]
    fn samples_are_thinned_and_peaks_kept() {
        let mut view = BuildView::default();
        for i in 0..10_000u64 {
            let kind = EventKind::Usage {
                cpu_millicores: 1,
                memory_bytes: if i == 3 { 999 } else { 1 },
                anon_bytes: 1,
                disk_bytes: 1,
                oom_kills: 0,
            };
            view.apply(i + 1, 1, i as i64, &kind);
        }
        assert!(view.usage.len() <= MAX_SAMPLES);
        assert_eq!(view.peak_memory_bytes, 999);
    }

    #[test]
    fn an_interrupted_build_leaves_nothing_running() {
        let mut view = fold(&[start(1, 10)]);
        view.close_open_steps(30);
        assert_eq!((view.steps[0].marker, view.steps[0].duration_ms(0)), (Marker::Canceled, Some(20)));
    }

    #[test]
    fn kinds_of_a_newer_agent_are_skipped() {
        let newer: EventKind = serde_json::from_str(r#"{"k":"hologram","x":1}"#).unwrap();
        assert_eq!(newer, EventKind::Unknown);
        let view = fold(&[newer]);
        assert_eq!((view.pos, view.rows), (1, 0));
    }
}
