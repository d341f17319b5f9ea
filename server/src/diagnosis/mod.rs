//! Why a build failed, as a group, a stable code, arguments, the lines that show it, and what can be done.
//!
//! A pure function over what is known when a build ends. Two things keep it honest: texts are looked for only where they
//! mean something (a step's own output explains that step and nothing else; what a push says is looked for in the push),
//! and whatever is not recognised says so instead of guessing. What never enters: sentences for people.

mod classes;
mod rules;

pub use rules::may_explain;

use kiops_app::model::{Diagnosis, Evidence};
use kiops_events::{Phase, Place};
use std::collections::BTreeMap;

/// A line of the log with its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    pub place: Place,
    pub line: u64,
    /// Row in the whole log.
    pub row: u64,
    pub text: String,
}

/// The step that failed.
#[derive(Clone, Debug, Default)]
pub struct FailedStep {
    pub number: u32,
    pub name: String,
    pub error: String,
    /// Its last lines, in order.
    pub lines: Vec<LogLine>,
}

/// How the attempt ended, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum End {
    #[default]
    Failed,
    TimeLimit,
    Infrastructure,
}

/// All that is known about a failed attempt.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    pub attempt: u32,
    pub end: End,
    /// Class that the agent (or whoever ended the build) saw itself.
    pub code: Option<String>,
    pub arguments: BTreeMap<String, String>,
    /// The phase it came to.
    pub phase: Option<Phase>,
    /// Steps that ended with an error, in order: which of them counts is decided here.
    pub failed_steps: Vec<FailedStep>,
    /// What buildctl printed beside its progress.
    pub trailing: Vec<LogLine>,
    /// The last lines of the phase that the agent's own class is about.
    pub phase_lines: Vec<LogLine>,
    pub oom_kills: u32,
}

/// How sure a rule is.
const CERTAIN: f32 = 0.95;
const LIKELY: f32 = 0.7;
const UNSURE: f32 = 0.3;
const MAX_EVIDENCE: usize = 3;
const MAX_EVIDENCE_BYTES: usize = 400;

/// What a rule found.
#[derive(Debug, PartialEq)]
struct Finding {
    code: &'static str,
    confidence: f32,
    /// The text (lower case) that it was known by; its lines are the evidence.
    sign: Option<&'static str>,
}

pub fn diagnose(failure: &Failure) -> Diagnosis {
    let step = rules::step_that_counts(failure);
    let (code, confidence, sign) = match (&failure.code, failure.end) {
        (Some(code), _) => (code.as_str(), CERTAIN, None),
        (None, End::TimeLimit) => ("timeout", CERTAIN, None),
        (None, _) => {
            let found = rules::classify(failure, step);
            (found.code, found.confidence, found.sign)
        }
    };
    let group = classes::group(code, failure.phase, failure.end);
    let mut arguments = rules::arguments(code, failure, step);
    arguments.extend(failure.arguments.clone());
    Diagnosis {
        group: group.to_owned(),
        code: code.to_owned(),
        arguments,
        confidence,
        evidence: evidence(failure, step, code, sign),
        message: String::new(),
        actions: classes::actions(code, group).iter().map(|a| (*a).to_owned()).collect(),
    }
}

/// The lines that show it: those with the sign, else the last ones of whatever failed.
fn evidence(failure: &Failure, step: Option<&FailedStep>, code: &str, sign: Option<&str>) -> Vec<Evidence> {
    let own = step.filter(|_| !classes::is_before_the_build(code)).map_or(&[][..], |s| &s.lines[..]);
    let phase = if failure.code.is_some() { &failure.phase_lines[..] } else { &[] };
    let places = [own, &failure.trailing[..], phase];
    if let Some(sign) = sign {
        let holds = |l: &&LogLine| l.text.to_lowercase().contains(sign);
        for lines in places {
            let signed: Vec<_> = lines.iter().filter(holds).take(MAX_EVIDENCE).collect();
            if !signed.is_empty() {
                return signed.into_iter().map(|l| address(failure, l)).collect();
            }
        }
    }
    // The agent's own class is about its phase, not about a step.
    let order = if failure.code.is_some() { [phase, own, &failure.trailing[..]] } else { places };
    for lines in order {
        let last: Vec<_> = lines.iter().rev().filter(|l| !l.text.trim().is_empty()).take(MAX_EVIDENCE).collect();
        if !last.is_empty() {
            return last.into_iter().rev().map(|l| address(failure, l)).collect();
        }
    }
    Vec::new()
}

fn address(failure: &Failure, line: &LogLine) -> Evidence {
    let (step, phase) = match line.place {
        Place::Step(n) => (Some(n), None),
        Place::Phase(p) => (None, Some(kiops_events::rows::phase_name(p).to_owned())),
    };
    let mut end = line.text.len().min(MAX_EVIDENCE_BYTES);
    while !line.text.is_char_boundary(end) {
        end -= 1;
    }
    Evidence {
        attempt: failure.attempt,
        step,
        phase,
        line: line.line,
        row: line.row,
        text: line.text[..end].to_owned(),
    }
}

#[cfg(test)]
mod tests;
