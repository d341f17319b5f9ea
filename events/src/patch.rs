//! The difference between two views of one build: what a live page is sent, at most a few times a second, however many
//! events lie between.

use crate::event::{AgentResult, Phase};
use crate::view::{BuildView, NoteView, StepView, UsageSample, WarningView};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ViewPatch {
    pub pos: u64,
    pub attempt: u32,
    pub rows: u64,
    pub log_lines: u64,
    pub phase: Option<Phase>,
    /// How many steps there are now: fewer than before after a new attempt began.
    pub step_count: u32,
    /// Steps that are new or changed, with their index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<(u32, StepView)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announced: Option<Vec<(String, String)>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Tail<UsageSample>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnings: Option<Tail<WarningView>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notes: Option<Tail<NoteView>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub phase_lines: BTreeMap<String, u64>,
    pub first_error_row: Option<u64>,
    pub peak_anon_bytes: u64,
    pub peak_memory_bytes: u64,
    pub peak_disk_bytes: u64,
    pub peak_cpu_millicores: u32,
    pub oom_kills: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<AgentResult>,
}

/// A list that mostly grows at its end: keep the first `keep`, then add these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tail<T> {
    pub keep: u32,
    pub add: Vec<T>,
}

impl<T: Clone + PartialEq> Tail<T> {
    fn between(old: &[T], new: &[T]) -> Option<Self> {
        let keep = old.iter().zip(new).take_while(|(a, b)| a == b).count();
        (keep < old.len() || keep < new.len()).then(|| Self { keep: keep as u32, add: new[keep..].to_vec() })
    }

    fn apply(self, list: &mut Vec<T>) {
        list.truncate(self.keep as usize);
        list.extend(self.add);
    }
}

impl ViewPatch {
    /// What turns `old` into `new`.
    pub fn between(old: &BuildView, new: &BuildView) -> Self {
        Self {
            pos: new.pos,
            attempt: new.attempt,
            rows: new.rows,
            log_lines: new.log_lines,
            phase: new.phase,
            step_count: new.steps.len() as u32,
            steps: (0u32..)
                .zip(&new.steps)
                .filter(|(i, step)| old.steps.get(*i as usize) != Some(*step))
                .map(|(i, step)| (i, step.clone()))
                .collect(),
            announced: (old.announced != new.announced).then(|| new.announced.clone()),
            usage: Tail::between(&old.usage, &new.usage),
            warnings: Tail::between(&old.warnings, &new.warnings),
            notes: Tail::between(&old.notes, &new.notes),
            phase_lines: new.phase_lines.clone(),
            first_error_row: new.first_error_row,
            peak_anon_bytes: new.peak_anon_bytes,
            peak_memory_bytes: new.peak_memory_bytes,
            peak_disk_bytes: new.peak_disk_bytes,
            peak_cpu_millicores: new.peak_cpu_millicores,
            oom_kills: new.oom_kills,
            result: new.result.clone(),
        }
    }
}

impl BuildView {
    /// Takes a patch in; one that is not newer changes nothing.
    pub fn apply_patch(&mut self, patch: ViewPatch) {
        if patch.pos < self.pos {
            return;
        }
        self.pos = patch.pos;
        self.attempt = patch.attempt;
        self.rows = patch.rows;
        self.log_lines = patch.log_lines;
        self.phase = patch.phase;
        self.steps.truncate(patch.step_count as usize);
        for (i, step) in patch.steps {
            match self.steps.get_mut(i as usize) {
                Some(known) => *known = step,
                None => self.steps.push(step),
            }
        }
        if let Some(announced) = patch.announced {
            self.announced = announced;
        }
        if let Some(usage) = patch.usage {
            usage.apply(&mut self.usage);
        }
        if let Some(warnings) = patch.warnings {
            warnings.apply(&mut self.warnings);
        }
        if let Some(notes) = patch.notes {
            notes.apply(&mut self.notes);
        }
        self.phase_lines = patch.phase_lines;
        self.first_error_row = patch.first_error_row;
        self.peak_anon_bytes = patch.peak_anon_bytes;
        self.peak_memory_bytes = patch.peak_memory_bytes;
        self.peak_disk_bytes = patch.peak_disk_bytes;
        self.peak_cpu_millicores = patch.peak_cpu_millicores;
        self.oom_kills = patch.oom_kills;
        self.result = patch.result;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventKind, LineText, Outcome, Place};

    fn story() -> Vec<(u32, EventKind)> {
        let start = |step| EventKind::StepStarted {
            step,
            digest: format!("d{step}"),
            name: format!("step {step}"),
            stage: None,
            index: None,
            total: None,
            start_ms: 1,
        };
        let end = |step| EventKind::StepEnded { step, outcome: Outcome::Done, error: None, intervals: vec![] };
        let usage = EventKind::Usage { cpu_millicores: 5, memory_bytes: 6, anon_bytes: 7, disk_bytes: 8, oom_kills: 0 };
        vec![
            (1, EventKind::StepAnnounced { digest: "d1".into(), name: "step 1".into() }),
            (1, start(1)),
            (
                1,
                EventKind::Lines(LineText {
                    place: Place::Step(1),
                    first: 1,
                    at_ms: 1,
                    text: "a\nb".into(),
                    cut: vec![],
                }),
            ),
            (1, usage.clone()),
            (1, end(1)),
            (1, start(2)),
            (2, EventKind::Note { code: "retried".into(), args: BTreeMap::new() }),
            (2, start(1)),
            (2, usage),
            (2, end(1)),
        ]
    }

    #[test]
    fn any_two_moments_are_one_patch_apart() {
        let mut moments = vec![BuildView::default()];
        for (i, (attempt, kind)) in story().iter().enumerate() {
            let mut next = moments.last().cloned().unwrap_or_default();
            next.apply(i as u64 + 1, *attempt, 0, kind);
            moments.push(next);
        }
        for (i, old) in moments.iter().enumerate() {
            for new in &moments[i..] {
                let patch = ViewPatch::between(old, new);
                let sent: ViewPatch = serde_json::from_str(&serde_json::to_string(&patch).unwrap()).unwrap();
                let mut view = old.clone();
                view.apply_patch(sent);
                assert_eq!(&view, new);
            }
        }
    }

    #[test]
    fn an_older_patch_changes_nothing() {
        let mut view = BuildView { pos: 9, rows: 4, ..BuildView::default() };
        view.apply_patch(ViewPatch { pos: 3, ..ViewPatch::default() });
        assert_eq!((view.pos, view.rows), (9, 4));
    }
}
