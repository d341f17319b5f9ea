//! A build as people and scripts see it.

use super::{BuildId, Profile, ServiceId};
use kiops_events::Marker;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Where a build stands. One spelling in SQL, JSON and Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildStatus {
    Queued,
    Starting,
    CheckingOut,
    Building,
    Pushing,
    Success,
    Failure,
    Cancelled,
}

impl BuildStatus {
    pub const ALL: [Self; 8] = [
        Self::Queued,
        Self::Starting,
        Self::CheckingOut,
        Self::Building,
        Self::Pushing,
        Self::Success,
        Self::Failure,
        Self::Cancelled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::CheckingOut => "checking_out",
            Self::Building => "building",
            Self::Pushing => "pushing",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == text)
    }

    pub fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Cancelled)
    }

    /// Later states have a higher rank: a late message cannot move a build backwards.
    pub fn rank(self) -> u8 {
        match self {
            Self::Queued => 10,
            Self::Starting => 20,
            Self::CheckingOut => 30,
            Self::Building => 40,
            Self::Pushing => 50,
            Self::Success | Self::Failure | Self::Cancelled => 100,
        }
    }
}

/// What a person asks for when starting a build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartBuild {
    /// A branch or, with `refs/tags/` in front, a tag.
    pub branch: String,
    /// The head that was seen beside the branch, or a chosen commit: exactly it is built.
    #[serde(default)]
    pub commit: Option<String>,
    /// Two starts with the same key are one build.
    #[serde(default)]
    pub request_key: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    pub id: BuildId,
    pub number: i64,
}

/// A build, whole but for its log.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BuildDetail {
    #[serde(flatten)]
    pub head: BuildHead,
    pub steps: Vec<StepSummary>,
    pub cached_steps: u32,
    /// Whether the stored log has the count and the hash that the agent stated; none while it runs.
    pub log_verified: Option<bool>,
    /// When the log had grown too old to be kept: what is left of it is a note that says so.
    pub log_removed_at: Option<i64>,
    pub diagnosis: Option<Diagnosis>,
}

impl BuildDetail {
    /// Whether rows of the log can be pointed at: what is left of one that has been removed has other rows.
    pub fn rows_stand(&self) -> bool {
        self.log_removed_at.is_none()
    }
}

/// Its head and the rest are read from the same text one after the other: a derived reader would keep everything in a second
/// form to sort it out. Reads JSON only.
impl<'de> Deserialize<'de> for BuildDetail {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Rest {
            steps: Vec<StepSummary>,
            cached_steps: u32,
            log_verified: Option<bool>,
            log_removed_at: Option<i64>,
            diagnosis: Option<Diagnosis>,
        }
        fn part<T: DeserializeOwned, E: Error>(text: &RawValue) -> Result<T, E> {
            serde_json::from_slice(text.get().as_bytes()).map_err(E::custom)
        }
        let text = Box::<RawValue>::deserialize(deserializer)?;
        let Rest { steps, cached_steps, log_verified, log_removed_at, diagnosis } = part(&text)?;
        Ok(Self { head: part(&text)?, steps, cached_steps, log_verified, log_removed_at, diagnosis })
    }
}

/// What a line of the history and the header of the live view need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildHead {
    pub id: BuildId,
    pub service_id: ServiceId,
    pub number: i64,
    /// Branch, or `refs/tags/…`.
    pub branch: String,
    /// Full commit hash.
    pub commit: String,
    /// Page of the commit at its Git host, where one is known.
    pub commit_url: Option<String>,
    pub status: BuildStatus,
    pub attempt: u32,
    /// UTC milliseconds, like all times here.
    pub queued_at: i64,
    pub started_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub cancel_requested_at: Option<i64>,
    /// Place in the queue, from 1; only while queued.
    pub queue_position: Option<u32>,
    /// Why it waits, as a code: `service_busy`, `limit`, `paused`, `disk`; only while queued.
    pub queue_reason: Option<String>,
    /// When it may begin, where that can be told from earlier builds; only while queued.
    #[serde(default)]
    pub expected_start_at: Option<i64>,
    /// Full path of the image with its tag; set when it was pushed.
    pub image_tag: Option<String>,
    pub digest: Option<String>,
    /// Sum of the manifest's compressed sizes.
    pub image_size_bytes: Option<i64>,
    /// As asked for.
    pub profile: Profile,
    /// What `auto` was resolved to, once its turn has come.
    pub resolved_profile: Option<Profile>,
    #[serde(default)]
    pub profile_reason: Option<ProfileReason>,
    pub no_cache: bool,
    pub created_by: String,
    /// From this service's earlier builds.
    pub expected_duration_ms: Option<i64>,
    /// Class of a failure, for lists; the whole is [`BuildDetail::diagnosis`].
    pub failure_code: Option<String>,
}

impl BuildHead {
    /// From start to completion, not from queueing. `now_ms` is the server's clock.
    pub fn duration_ms(&self, now_ms: i64) -> Option<i64> {
        self.started_at.map(|start| (self.finished_at.unwrap_or(now_ms) - start).max(0))
    }

    pub fn short_commit(&self) -> &str {
        self.commit.get(..7).unwrap_or(&self.commit)
    }

    pub fn cancelling(&self) -> bool {
        self.cancel_requested_at.is_some() && !self.status.is_final()
    }
}

/// Why a build has its size, as a code: its sentence is that of the note `profile_` and the code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProfileReason {
    /// `chosen`, `no_history`, `measured`, `after_oom`, `larger`.
    pub code: String,
    pub arguments: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepSummary {
    pub number: u32,
    pub name: String,
    pub marker: Marker,
    pub duration_ms: Option<i64>,
}

/// Why a build failed and what to do, as codes: the sentence is made where the language is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diagnosis {
    pub group: String,
    pub code: String,
    pub arguments: BTreeMap<String, String>,
    /// 0 to 1.
    pub confidence: f32,
    pub evidence: Vec<Evidence>,
    /// The sentence in the reader's language; filled in at the edge.
    #[serde(default)]
    pub message: String,
    /// Codes of what the product can do about it: `registry_settings`, `source_settings`, `build_settings`, `rebuild`.
    pub actions: Vec<String>,
}

impl Diagnosis {
    /// Which of its class' sentences says what to do: where a larger size may help, and where there is none, it is
    /// another one.
    pub fn advice(arguments: &BTreeMap<String, String>) -> &'static str {
        ["larger", "largest"].into_iter().find(|name| arguments.contains_key(*name)).unwrap_or("do")
    }
}

/// A line's address: it can be linked and jumped to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    pub attempt: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    pub line: u64,
    /// Row in the whole log.
    pub row: u64,
    pub text: String,
}

/// Which builds the history shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryQuery {
    #[serde(default)]
    pub status: Option<StatusFilter>,
    #[serde(default)]
    pub branch: Option<String>,
    /// Builds with a smaller number than this one.
    #[serde(default)]
    pub before: Option<i64>,
    /// Builds with a greater number than this one, for the way back.
    #[serde(default)]
    pub after: Option<i64>,
    #[serde(default)]
    pub limit: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatusFilter {
    Success,
    Failure,
    /// Includes queued builds.
    InProgress,
    Cancelled,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryPage {
    /// Newest first.
    pub builds: Vec<BuildHead>,
    pub has_older: bool,
    pub has_newer: bool,
    /// Server clock, for builds that still run.
    pub now_ms: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_one_spelling() {
        for status in BuildStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
            assert_eq!(BuildStatus::parse(status.as_str()), Some(status));
        }
        assert_eq!(BuildStatus::parse("done"), None);
    }
}
