//! The rows of a log: what a reader sees, one after the other, in order of arrival.
//!
//! Every event stands for a fixed number of rows that can be computed from the event alone. So a row's index is stable,
//! any window can be written without what came before it, and nobody has to hold a whole log.

use crate::event::{AgentEnd, EventKind, Interval, LineText, Outcome, Phase, Place};
use serde::{Deserialize, Serialize};

/// How a row is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// `#5 [builder 3/4] RUN npm ci`
    Header,
    /// A line that a step or a phase wrote.
    Line,
    /// `#7 pushing layers 4.2s done`
    Transfer,
    /// `#5 DONE 2.1s`
    Done,
    /// `#5 CACHED`
    Cached,
    /// `#5 ERROR: …`
    Error,
    /// `#5 CANCELED`
    Canceled,
    Warning,
    /// A phase's heading or a note of the product's own.
    Note,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub kind: RowKind,
    /// The step or phase it belongs to; none for notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Number of the line within its place; none for rows that are derived and not lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Milliseconds since the place's latest start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u32>,
    /// Text without the `#N` and the seconds.
    pub text: String,
    /// The line was cut for its length and goes on in the next.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Length of the whole text where only its beginning is here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole_bytes: Option<u64>,
}

/// How many rows an event stands for.
pub fn row_count(kind: &EventKind) -> u64 {
    match kind {
        EventKind::Lines(lines) => lines.count(),
        EventKind::StepStarted { .. }
        | EventKind::StepEnded { .. }
        | EventKind::Warning { .. }
        | EventKind::Note { .. }
        | EventKind::PhaseEntered { .. } => 1,
        EventKind::Transfer { done_ms, .. } => u64::from(done_ms.is_some()),
        EventKind::Result(r) => u64::from(r.end != AgentEnd::Success),
        EventKind::StepAnnounced { .. } | EventKind::Usage { .. } | EventKind::Unknown => 0,
    }
}

/// Hands each of an event's rows to `out`, in order; as many as [`row_count`] says.
pub fn write_rows(kind: &EventKind, mut out: impl FnMut(Row)) {
    let plain =
        |kind, place, text: String| Row { kind, place, line: None, at_ms: None, text, cut: false, whole_bytes: None };
    match kind {
        EventKind::Lines(lines) => write_lines(lines, out),
        EventKind::StepStarted { step, name, .. } => {
            out(plain(RowKind::Header, Some(Place::Step(*step)), one_line(name)))
        }
        EventKind::StepEnded { step, outcome, error, intervals } => {
            let place = Some(Place::Step(*step));
            out(match outcome {
                Outcome::Done => plain(RowKind::Done, place, format!("DONE {}", seconds(busy_ms(intervals)))),
                Outcome::Cached => plain(RowKind::Cached, place, "CACHED".into()),
                Outcome::Canceled => plain(RowKind::Canceled, place, "CANCELED".into()),
                Outcome::Error => {
                    plain(RowKind::Error, place, format!("ERROR: {}", one_line(error.as_deref().unwrap_or_default())))
                }
            });
        }
        EventKind::Warning { step, short, .. } => {
            out(plain(RowKind::Warning, step.map(Place::Step), format!("WARN: {}", one_line(short))));
        }
        EventKind::Transfer { step, id, done_ms: Some(ms), .. } => {
            out(plain(
                RowKind::Transfer,
                Some(Place::Step(*step)),
                format!("{} {} done", one_line(id), seconds(i64::from(*ms))),
            ));
        }
        EventKind::Note { code, args } => {
            let args = args.iter().map(|(k, v)| format!(" {k}={v}")).collect::<String>();
            out(plain(RowKind::Note, None, one_line(&format!("{code}{args}"))));
        }
        EventKind::PhaseEntered { phase } => {
            out(plain(RowKind::Note, Some(Place::Phase(*phase)), format!("phase {}", phase_name(*phase))));
        }
        EventKind::Result(r) if r.end != AgentEnd::Success => {
            let code = r.code.clone().or_else(|| r.exit_code.map(|c| format!("exit code {c}"))).unwrap_or_default();
            let end = match r.end {
                AgentEnd::Success | AgentEnd::Failure => "failed",
                AgentEnd::Infrastructure => "interrupted",
                AgentEnd::TimeLimit => "time limit reached",
                AgentEnd::Terminated => "terminated",
            };
            out(plain(RowKind::Error, None, one_line(format!("{end} {code}").trim_end())));
        }
        EventKind::Transfer { .. }
        | EventKind::Result(_)
        | EventKind::StepAnnounced { .. }
        | EventKind::Usage { .. }
        | EventKind::Unknown => {}
    }
}

fn write_lines(lines: &LineText, mut out: impl FnMut(Row)) {
    for (i, text) in lines.lines().enumerate() {
        out(Row {
            kind: RowKind::Line,
            place: Some(lines.place),
            line: Some(lines.first + i as u64),
            at_ms: Some(lines.at_ms),
            text: text.to_owned(),
            cut: lines.cut.contains(&(i as u32)),
            whole_bytes: None,
        });
    }
}

impl Row {
    /// Keeps the text's first `most` bytes, and remembers how many there were.
    pub fn shorten(&mut self, most: usize) {
        if self.text.len() <= most {
            return;
        }
        let whole = self.text.len() as u64;
        self.text.truncate(self.text.floor_char_boundary(most));
        self.text.shrink_to_fit();
        self.whole_bytes.get_or_insert(whole);
    }

    /// The row as plain text, in BuildKit's `#N` form; without a line end.
    pub fn to_text(&self) -> String {
        match (self.place, self.kind) {
            (Some(Place::Step(n)), RowKind::Line) => {
                format!("#{n} {} {}", line_seconds(self.at_ms.unwrap_or_default()), self.text)
            }
            (Some(Place::Step(n)), _) => format!("#{n} {}", self.text),
            (_, RowKind::Line) => self.text.clone(),
            (_, RowKind::Note) => format!("--- {}", self.text),
            (_, _) => self.text.clone(),
        }
    }
}

pub fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Preflight => "preflight",
        Phase::Checkout => "checkout",
        Phase::Daemon => "daemon",
        Phase::Build => "build",
        Phase::Push => "push",
        Phase::Buildctl => "buildctl",
    }
}

/// Milliseconds of work in possibly overlapping intervals.
pub fn busy_ms(intervals: &[Interval]) -> i64 {
    let mut sorted: Vec<Interval> = intervals.to_vec();
    sorted.sort_by_key(|i| i.start_ms);
    let mut total = 0;
    let mut end = i64::MIN;
    for i in sorted {
        let start = i.start_ms.max(end);
        total += (i.end_ms - start).max(0);
        end = end.max(i.end_ms);
    }
    total
}

/// `24.8s`: one decimal, as BuildKit closes a step.
pub fn seconds(ms: i64) -> String {
    let tenths = (ms.max(0) + 50) / 100;
    format!("{}.{}s", tenths / 10, tenths % 10)
}

/// Seconds before a log line, in BuildKit's width: `0.412`, `21.90`, `131.7`.
pub fn line_seconds(ms: u32) -> String {
    let (s, frac) = (ms / 1000, ms % 1000);
    match ms {
        0..10_000 => format!("{s}.{frac:03}"),
        10_000..100_000 => format!("{s}.{:02}", frac / 10),
        _ => format!("{s}.{}", frac / 100),
    }
}

/// A row is one line: names and errors of BuildKit may hold several.
fn one_line(text: &str) -> String {
    if text.contains(['\n', '\r']) {
        text.split(['\n', '\r']).map(str::trim).filter(|p| !p.is_empty()).collect::<Vec<_>>().join(" ")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn texts(kind: &EventKind) -> Vec<String> {
        let mut out = Vec::new();
        write_rows(kind, |r| out.push(r.to_text()));
        assert_eq!(out.len() as u64, row_count(kind), "count and rows disagree for {kind:?}");
        out
    }

    fn ended(step: u32, outcome: Outcome, ms: i64) -> EventKind {
        EventKind::StepEnded { step, outcome, error: None, intervals: vec![Interval { start_ms: 0, end_ms: ms }] }
    }

    fn started(step: u32, name: &str) -> EventKind {
        EventKind::StepStarted {
            step,
            digest: String::new(),
            name: name.into(),
            stage: None,
            index: None,
            total: None,
            start_ms: 0,
        }
    }

    #[test]
    fn the_guides_seven_steps_are_written_as_in_the_guide() {
        let events = [
            started(1, "[internal] load build definition from Dockerfile"),
            ended(1, Outcome::Done, 100),
            started(2, "[internal] load .dockerignore"),
            ended(2, Outcome::Done, 10),
            started(3, "[builder 1/4] FROM docker.io/library/node:20-alpine"),
            ended(3, Outcome::Done, 1300),
            started(4, "[builder 2/4] COPY package*.json ./"),
            ended(4, Outcome::Cached, 0),
            started(5, "[builder 3/4] RUN npm ci"),
            ended(5, Outcome::Done, 24_800),
            started(6, "[builder 4/4] RUN npm run build"),
            ended(6, Outcome::Done, 12_100),
            started(7, "exporting to image"),
            EventKind::Transfer { step: 7, id: "pushing layers".into(), current: 0, total: 0, done_ms: Some(4200) },
            ended(7, Outcome::Done, 5100),
        ];
        let text = events.iter().flat_map(texts).collect::<Vec<_>>();
        assert_eq!(
            text,
            [
                "#1 [internal] load build definition from Dockerfile",
                "#1 DONE 0.1s",
                "#2 [internal] load .dockerignore",
                "#2 DONE 0.0s",
                "#3 [builder 1/4] FROM docker.io/library/node:20-alpine",
                "#3 DONE 1.3s",
                "#4 [builder 2/4] COPY package*.json ./",
                "#4 CACHED",
                "#5 [builder 3/4] RUN npm ci",
                "#5 DONE 24.8s",
                "#6 [builder 4/4] RUN npm run build",
                "#6 DONE 12.1s",
                "#7 exporting to image",
                "#7 pushing layers 4.2s done",
                "#7 DONE 5.1s",
            ]
        );
    }

    #[test]
    fn lines_carry_number_and_seconds() {
        let kind = EventKind::Lines(LineText {
            place: Place::Step(5),
            first: 118,
            at_ms: 21_905,
            text: "a\n\nb".into(),
            cut: vec![2],
        });
        assert_eq!(texts(&kind), ["#5 21.90 a", "#5 21.90 ", "#5 21.90 b"]);
        let mut rows = Vec::new();
        write_rows(&kind, |r| rows.push(r));
        assert_eq!((rows[2].line, rows[2].cut, rows[1].cut), (Some(120), true, false));
    }

    #[test]
    fn a_long_row_is_shortened_between_letters_and_knows_its_length() {
        let place = Place::Phase(Phase::Buildctl);
        let mut row = None;
        write_rows(
            &EventKind::Lines(LineText { place, first: 1, at_ms: 0, text: "가나다".into(), cut: vec![] }),
            |r| row = Some(r),
        );
        let mut row = row.unwrap();
        row.shorten(9);
        assert_eq!((row.text.as_str(), row.whole_bytes), ("가나다", None));
        row.shorten(5);
        assert_eq!((row.text.as_str(), row.whole_bytes), ("가", Some(9)));
        row.shorten(1);
        assert_eq!((row.text.as_str(), row.whole_bytes), ("", Some(9)));
        assert_eq!(serde_json::from_str::<Row>(&serde_json::to_string(&row).unwrap()).unwrap(), row);
    }

    #[test]
    fn every_kind_writes_as_many_rows_as_it_counts() {
        for kind in [
            EventKind::Note { code: "queued".into(), args: BTreeMap::from([("position".into(), "2".into())]) },
            EventKind::Transfer { step: 1, id: "x".into(), current: 1, total: 2, done_ms: None },
            EventKind::Warning { step: None, short: "two\nlines".into(), detail: vec![], url: None },
            EventKind::PhaseEntered { phase: Phase::Checkout },
            EventKind::StepEnded { step: 1, outcome: Outcome::Error, error: Some("a\nb".into()), intervals: vec![] },
            EventKind::Unknown,
        ] {
            for text in texts(&kind) {
                assert!(!text.contains('\n'));
            }
        }
    }

    #[test]
    fn overlapping_work_is_counted_once() {
        let i = |start_ms, end_ms| Interval { start_ms, end_ms };
        assert_eq!(busy_ms(&[i(0, 10), i(5, 15), i(20, 30)]), 25);
        assert_eq!(busy_ms(&[i(0, 30), i(5, 15)]), 30);
        assert_eq!(busy_ms(&[]), 0);
    }

    #[test]
    fn seconds_have_buildkits_widths() {
        assert_eq!(
            (line_seconds(412), line_seconds(21_905), line_seconds(131_777)),
            ("0.412".into(), "21.90".into(), "131.7".into())
        );
        assert_eq!(
            (seconds(0), seconds(49), seconds(50), seconds(24_849)),
            ("0.0s".into(), "0.0s".into(), "0.1s".into(), "24.8s".into())
        );
    }
}
