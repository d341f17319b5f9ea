//! What the diagnosis looks at: the ends of what the failed steps, buildctl and the last phase wrote, read backwards
//! from the log's end so that its length does not matter.

use super::follow::{Driver, Leave};
use crate::diagnosis::{FailedStep, Failure, LogLine, may_explain};
use kiops_events::view::{Marker, StepView};
use kiops_events::{EventKind, Phase, Place};

/// Lines of each place: a compiler's last error stands within them.
const LINES: usize = 60;
/// A row may be 64 KiB long: what is held at once stays small.
const WINDOW_ROWS: u64 = 200;
/// Further back nothing is looked for: parallel steps rarely write as much after a failed one.
const WINDOWS: u64 = 60;
/// Failed steps that are looked at; the others failed with them.
const STEPS: usize = 4;

/// The lines that were found of one place, the last one first.
struct Found {
    place: Place,
    lines: Vec<LogLine>,
}

pub(super) async fn gather(driver: &Driver) -> Result<Failure, Leave> {
    let view = &driver.progress.view;
    let attempt = driver.row.attempt;
    // The others may be many, and would take its place among the last ones.
    let explains = |s: &&StepView| may_explain(&s.name, s.error.as_deref().unwrap_or_default());
    let failed: Vec<_> = view.steps.iter().filter(|s| s.marker == Marker::Error).filter(explains).collect();
    let failed = &failed[failed.len().saturating_sub(STEPS)..];
    let buildctl = Place::Phase(Phase::Buildctl);
    let mut places = vec![buildctl];
    places.extend(failed.iter().map(|s| Place::Step(s.number)));
    places.extend(view.phase.map(Place::Phase).filter(|p| *p != buildctl));
    let mut found: Vec<Found> = places.into_iter().map(|place| Found { place, lines: Vec::new() }).collect();

    let mut end = view.rows;
    for _ in 0..WINDOWS {
        if end == 0 || found.iter().all(|f| f.lines.len() >= LINES) {
            break;
        }
        let first = end.saturating_sub(WINDOW_ROWS);
        let events = driver.stored(first, end - first).await?;
        for (row, event_attempt, kind) in events.iter().rev() {
            let EventKind::Lines(lines) = kind else { continue };
            let wanted = found.iter_mut().find(|f| f.place == lines.place && f.lines.len() < LINES);
            let Some(found) = wanted.filter(|_| *event_attempt == attempt) else { continue };
            let numbered: Vec<(u64, &str)> = (0u64..).zip(lines.lines()).collect();
            for (i, text) in numbered.into_iter().rev().filter(|(i, _)| (first..end).contains(&(row + i))) {
                found.lines.push(LogLine {
                    place: lines.place,
                    line: lines.first + i,
                    row: row + i,
                    text: text.to_owned(),
                });
            }
        }
        end = first;
    }

    let mut take = |place: Place| {
        let mut lines = found.iter_mut().find(|f| f.place == place).map(|f| std::mem::take(&mut f.lines));
        if let Some(lines) = &mut lines {
            lines.reverse();
        }
        lines.unwrap_or_default()
    };
    let trailing = take(buildctl);
    let failed_steps = failed
        .iter()
        .map(|step| FailedStep {
            number: step.number,
            name: step.name.clone(),
            error: step.error.clone().unwrap_or_default(),
            lines: take(Place::Step(step.number)),
        })
        .collect();
    let phase_lines = view.phase.map(|phase| take(Place::Phase(phase))).unwrap_or_default();
    Ok(Failure {
        attempt,
        phase: view.phase,
        failed_steps,
        trailing,
        phase_lines,
        oom_kills: view.oom_kills,
        ..Failure::default()
    })
}
