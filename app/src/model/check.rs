//! What a self-test of the place where builds run has found.

use super::RunnerKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    pub runner: RunnerKind,
    pub checked_at: i64,
    pub took_ms: i64,
    pub findings: Vec<Finding>,
}

/// One thing that was looked at, and what it turned out to be: a code with arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub name: String,
    pub outcome: CheckOutcome,
    pub code: String,
    pub args: BTreeMap<String, String>,
    /// In the reader's language, and so filled in where that is known: what `name` means, what was found, what to do.
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub advice: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckOutcome {
    Ok,
    /// Builds work, with less than they could have.
    Warning,
    Failed,
    /// It could not be looked at.
    Skipped,
}

impl CheckReport {
    pub fn has_failed(&self) -> bool {
        self.findings.iter().any(|finding| finding.outcome == CheckOutcome::Failed)
    }
}

impl Finding {
    pub fn new(outcome: CheckOutcome, name: &str, code: &str) -> Self {
        Self {
            name: name.to_owned(),
            outcome,
            code: code.to_owned(),
            args: BTreeMap::new(),
            title: String::new(),
            message: String::new(),
            advice: None,
        }
    }

    pub fn ok(name: &str, code: &str) -> Self {
        Self::new(CheckOutcome::Ok, name, code)
    }

    pub fn warning(name: &str, code: &str) -> Self {
        Self::new(CheckOutcome::Warning, name, code)
    }

    pub fn failed(name: &str, code: &str) -> Self {
        Self::new(CheckOutcome::Failed, name, code)
    }

    pub fn skipped(name: &str, code: &str) -> Self {
        Self::new(CheckOutcome::Skipped, name, code)
    }

    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.args.insert(name.to_owned(), value.to_string());
        self
    }
}
