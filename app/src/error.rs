//! Errors that a person can meet: a situation as a code, never an inner error's text.
//!
//! Each code has a sentence that says what to do, under `problem.<code>` in `locales`. The sentence is written where the
//! reader's language is known: in the page, or at the edge of the JSON API.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub status: ProblemStatus,
    pub code: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// The input that it is about, as the API spells it (`registry_config.password`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
}

/// The HTTP status a problem answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemStatus {
    Invalid,
    Unauthenticated,
    Forbidden,
    NotFound,
    Conflict,
    TooLarge,
    TooMany,
    /// Something that the answer needs (a Git host, a registry) did not answer or refused.
    Upstream,
    Unavailable,
    Internal,
}

impl ProblemStatus {
    pub fn http(self) -> u16 {
        match self {
            Self::Invalid => 422,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::TooMany => 429,
            Self::Upstream => 502,
            Self::Unavailable => 503,
            Self::Internal => 500,
        }
    }
}

pub type Result<T, E = Problem> = std::result::Result<T, E>;

impl Problem {
    pub fn new(status: ProblemStatus, code: &str) -> Self {
        Self { status, code: code.to_owned(), args: BTreeMap::new(), field: None }
    }

    pub fn invalid(code: &str, field: &str) -> Self {
        Self::new(ProblemStatus::Invalid, code).at(field)
    }

    pub fn not_found() -> Self {
        Self::new(ProblemStatus::NotFound, "not_found")
    }

    pub fn conflict(code: &str) -> Self {
        Self::new(ProblemStatus::Conflict, code)
    }

    pub fn unauthenticated() -> Self {
        Self::new(ProblemStatus::Unauthenticated, "sign_in_needed")
    }

    /// An inner error: logged under this id by whoever makes the problem, never shown.
    pub fn internal(error_id: &str) -> Self {
        Self::new(ProblemStatus::Internal, "internal").with("error_id", error_id)
    }

    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.args.insert(name.to_owned(), value.to_string());
        self
    }

    pub fn at(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    /// As it is told to whoever sent the part `part` alone: inputs by their name in what was sent, none that are not in
    /// it.
    pub fn within(mut self, part: &str) -> Self {
        self.field = self.field.and_then(|field| Some(field.strip_prefix(part)?.strip_prefix('.')?.to_owned()));
        self
    }

    /// The same where these are the inputs that were sent.
    pub fn among(mut self, inputs: &[&str]) -> Self {
        self.field = self.field.filter(|field| inputs.contains(&field.as_str()));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)
    }
}

impl std::error::Error for Problem {}
