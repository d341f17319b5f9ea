//! What is known of a failed build, and how the rules read it.

use super::rules::Scope;
use kiops_events::event::{AgentResult, Phase, Place};
use std::collections::BTreeMap;

/// Everything a diagnosis is made from.
pub struct Facts<'a> {
    /// The agent's last word; none when it vanished.
    pub result: Option<&'a AgentResult>,
    pub failed_step: Option<FailedStep<'a>>,
    /// The last few hundred lines of the failed step and of the phases that have lines, in order of arrival.
    pub lines: &'a [TextLine],
    pub oom_kills: u32,
    /// What the sentence may name: `branch`, `commit`, `host`, `repository`, `profile`, `next_profile`.
    pub arguments: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug)]
pub struct FailedStep<'a> {
    pub number: u32,
    pub name: &'a str,
    pub error: &'a str,
}

/// A line of the log with its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextLine {
    pub attempt: u32,
    pub place: Place,
    pub line: u64,
    pub row: u64,
    pub text: String,
}

/// The kind of the step that failed, as far as rules care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepKind {
    Export,
    Run,
    Copy,
    Base,
    Other,
}

/// The facts' texts, in lower case, by where they came from.
pub(super) struct Reading {
    kind: Option<StepKind>,
    /// The failed step's error and buildctl's closing text.
    error: String,
    /// The same, as printed: arguments are cut out of it.
    printed: String,
    /// What the failed step itself printed, when it is a RUN.
    output: String,
    step: Option<u32>,
}

impl Reading {
    pub(super) fn of(facts: &Facts<'_>) -> Self {
        let kind = facts.failed_step.map(|s| step_kind(s.name));
        let step = facts.failed_step.map(|s| s.number);
        let mut printed = facts.failed_step.map(|s| s.error.to_owned()).unwrap_or_default();
        let mut output = String::new();
        for line in facts.lines {
            let into = match line.place {
                Place::Phase(Phase::Buildctl) => &mut printed,
                Place::Step(n) if Some(n) == step && kind == Some(StepKind::Run) => &mut output,
                Place::Step(_) | Place::Phase(_) => continue,
            };
            into.push('\n');
            into.push_str(&line.text);
        }
        Self { kind, error: printed.to_lowercase(), printed, output: output.to_lowercase(), step }
    }

    pub(super) fn applies(&self, scope: Scope) -> bool {
        match scope {
            Scope::Error | Scope::ErrorOrOutput => true,
            Scope::Output => self.kind == Some(StepKind::Run),
            Scope::Push => self.kind == Some(StepKind::Export) || self.error.contains("failed to push"),
            Scope::Base => self.kind == Some(StepKind::Base),
            Scope::Copy => matches!(self.kind, Some(StepKind::Copy) | Some(StepKind::Other) | None),
            Scope::Dockerfile => self.kind.is_none(),
        }
    }

    pub(super) fn contains(&self, scope: Scope, text: &str) -> bool {
        match scope {
            Scope::Output => self.output.contains(text),
            Scope::ErrorOrOutput => self.error.contains(text) || self.output.contains(text),
            Scope::Error | Scope::Push | Scope::Base | Scope::Copy | Scope::Dockerfile => self.error.contains(text),
        }
    }

    /// Exit code of the RUN step that failed.
    pub(super) fn exit_code(&self) -> Option<i32> {
        let rest = self.error.split("did not complete successfully: exit code: ").nth(1)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    /// The step ended the way a process ends that the kernel killed for memory.
    pub(super) fn was_killed(&self) -> bool {
        self.exit_code() == Some(137)
            || ["signal: killed", "cannot allocate memory", "resourceexhausted: process"]
                .iter()
                .any(|t| self.error.contains(t))
            || self.output.contains("killed")
    }

    /// The line that holds `text`: the step's own first, then what buildctl printed.
    pub(super) fn line_with<'l>(&self, lines: &'l [TextLine], text: &str) -> Option<&'l TextLine> {
        let holds = |l: &&TextLine| l.text.to_lowercase().contains(text);
        let of_step = |l: &&TextLine| self.step.is_some_and(|n| l.place == Place::Step(n));
        lines.iter().filter(of_step).find(holds).or_else(|| lines.iter().rev().find(holds))
    }

    /// The last line that says anything, the failed step's before others.
    pub(super) fn last_line<'l>(&self, lines: &'l [TextLine]) -> Option<&'l TextLine> {
        let says = |l: &&TextLine| !l.text.trim().is_empty();
        let of_step = |l: &&TextLine| self.step.is_some_and(|n| l.place == Place::Step(n));
        lines.iter().rev().filter(of_step).find(says).or_else(|| lines.iter().rev().find(says))
    }

    /// What a sentence about `code` names beside the common arguments.
    pub(super) fn arguments_for(&self, code: &str) -> BTreeMap<String, String> {
        let found = match code {
            "copy_missing" => self.quoted_path().map(|p| ("path", p)),
            "base_not_found" | "base_auth" | "rate_limited" | "platform" => {
                after(&self.printed, "failed to resolve source metadata for ")
                    .map(|rest| rest.split(": ").next().unwrap_or(rest))
                    .or_else(|| after(&self.printed, "load metadata for ").and_then(|r| r.split_whitespace().next()))
                    .map(|image| ("image", image.to_owned()))
            }
            "dns" => {
                after(&self.error, "lookup ").and_then(|r| r.split([' ', ':']).next()).map(|h| ("host", h.to_owned()))
            }
            "secret_missing" => {
                after(&self.error, "secret ").and_then(|r| r.split(':').next()).map(|s| ("id", s.to_owned()))
            }
            "dockerfile_syntax" => after(&self.error, "parse error on line ")
                .map(|r| r.chars().take_while(char::is_ascii_digit).collect::<String>())
                .filter(|n| !n.is_empty())
                .map(|n| ("line", n)),
            _ => None,
        };
        found.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// `"/package.json": not found`
    fn quoted_path(&self) -> Option<String> {
        let before = self.printed.split("\": not found").next().filter(|b| b.len() < self.printed.len())?;
        let path = before.rsplit('"').next()?;
        (!path.is_empty()).then(|| path.trim_start_matches('/').to_owned())
    }
}

fn after<'t>(text: &'t str, mark: &str) -> Option<&'t str> {
    text.split_once(mark).map(|(_, rest)| rest)
}

fn step_kind(name: &str) -> StepKind {
    if name.starts_with("exporting ") || name.contains("pushing ") {
        return StepKind::Export;
    }
    if name.starts_with("[internal] load metadata for") || name.starts_with("[auth]") {
        return StepKind::Base;
    }
    // `[builder 2/4] COPY …`: the instruction stands after the bracket.
    let instruction =
        name.split_once("] ").map_or(name, |(_, rest)| rest).split_whitespace().next().unwrap_or_default();
    match instruction {
        "RUN" => StepKind::Run,
        "COPY" | "ADD" => StepKind::Copy,
        "FROM" => StepKind::Base,
        _ => StepKind::Other,
    }
}
