//! Why a build failed, as a code with arguments and the line that shows it.
//!
//! Pure: facts in, [`Diagnosis`] out. What the agent saw itself (checkout, preflight, daemon, time limit) is taken as it
//! says; everything else is read from the failed step's error, from what buildctl printed at its end, and, only when the
//! failed step is the one that printed it, from the step's own output. An application's own "401 Unauthorized" in a RUN
//! step is no registry trouble.

mod facts;
mod rules;

pub use facts::{Facts, FailedStep, TextLine};

use facts::Reading;
use kiops_app::model::{Diagnosis, Evidence};
use kiops_events::event::{AgentEnd, Place};
use kiops_events::rows::phase_name;
use rules::{RULES, Rule};
use std::collections::BTreeMap;

/// Explains a failed build. Always finds something to say: at worst that the log should be read.
pub fn diagnose(facts: &Facts<'_>) -> Diagnosis {
    let reading = Reading::of(facts);
    let mut arguments = facts.arguments.clone();
    if let Some(step) = &facts.failed_step {
        arguments.insert("step".into(), step.number.to_string());
        arguments.insert("name".into(), step.name.to_owned());
    }
    if let Some(code) = reading.exit_code() {
        arguments.insert("exit_code".into(), code.to_string());
    }
    if let Some(result) = facts.result {
        arguments.extend(result.args.clone());
        let own = match (result.end, result.code.as_deref()) {
            (AgentEnd::TimeLimit, _) => Some("timeout"),
            (_, Some(code)) => Some(code),
            (AgentEnd::Terminated, None) => Some("terminated"),
            (AgentEnd::Infrastructure, None) => Some("agent"),
            (AgentEnd::Success | AgentEnd::Failure, None) => None,
        };
        if let Some(code) = own {
            return finished(code, 1.0, arguments, reading.last_line(facts.lines));
        }
    } else {
        return finished("interrupted", 1.0, arguments, reading.last_line(facts.lines));
    }
    if facts.oom_kills > 0 && reading.was_killed() {
        return finished("oom", 1.0, arguments, reading.last_line(facts.lines));
    }
    match RULES.iter().find_map(|rule| matched(rule, &reading).map(|found| (rule, found))) {
        Some((rule, found)) => {
            arguments.extend(reading.arguments_for(rule.code));
            let line = reading.line_with(facts.lines, found).or_else(|| reading.last_line(facts.lines));
            finished(rule.code, rule.confidence, arguments, line)
        }
        None if reading.exit_code().is_some() => finished("run_failed", 0.8, arguments, reading.last_line(facts.lines)),
        None => finished("unknown", 0.0, arguments, reading.last_line(facts.lines)),
    }
}

/// The text of the rule that applies here, if it does.
fn matched(rule: &Rule, reading: &Reading) -> Option<&'static str> {
    reading
        .applies(rule.scope)
        .then(|| rule.any.iter().copied().find(|text| reading.contains(rule.scope, text)))
        .flatten()
}

fn finished(code: &str, confidence: f32, arguments: BTreeMap<String, String>, line: Option<&TextLine>) -> Diagnosis {
    Diagnosis {
        group: rules::group(code).to_owned(),
        code: code.to_owned(),
        arguments,
        confidence,
        evidence: line.map(evidence).into_iter().collect(),
        message: String::new(),
        actions: rules::actions(code).iter().map(|a| (*a).to_owned()).collect(),
    }
}

fn evidence(line: &TextLine) -> Evidence {
    let (step, phase) = match line.place {
        Place::Step(n) => (Some(n), None),
        Place::Phase(p) => (None, Some(phase_name(p).to_owned())),
    };
    /// A line may be 64 KiB; a page shows its beginning.
    const MAX_SHOWN: usize = 500;
    let text = line.text.char_indices().nth(MAX_SHOWN).map_or(line.text.as_str(), |(end, _)| &line.text[..end]);
    Evidence { attempt: line.attempt, step, phase, line: line.line, row: line.row, text: text.to_owned() }
}

#[cfg(test)]
mod tests;
