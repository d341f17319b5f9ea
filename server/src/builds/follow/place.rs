//! What an attempt's place says of it while its relay is not heard: each thing once into the log, and the attempt's end
//! where it has lasted too long.

use super::{Driver, Ending, Leave};
use crate::runner::{Grade, RunnerError, Situation};
use kiops_events::view::NoteView;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Silence that lasts so long is worth a word.
const QUIET: Duration = Duration::from_secs(10);

impl Driver {
    /// Asks what keeps the relay away, which nobody has heard `since` then.
    pub(super) async fn ask_place(&mut self, since: Instant) -> Result<Option<Ending>, Leave> {
        let situation = match self.inner.runner.situation(&self.row.id, self.row.attempt).await {
            Ok(Some(situation)) => situation,
            // All is well there, and yet nothing comes: its node has died, or what lies between.
            Ok(None) if self.progress.seq > 0 && since.elapsed() >= QUIET => passing("relay_away", BTreeMap::new()),
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::debug!(build = %self.row.id, %error, "an attempt's place does not answer");
                if since.elapsed() < QUIET {
                    return Ok(None);
                }
                match error {
                    // It answers, and whoever puts that right need not hurry: what runs goes on.
                    RunnerError::Refused { code: code @ ("cluster_login" | "cluster_rights"), detail } => {
                        passing(code, BTreeMap::from([("message".to_owned(), detail)]))
                    }
                    error => away(error.to_string()),
                }
            }
        };
        self.waits(situation).await
    }

    /// Nothing can be started, because its place has not answered `since` then.
    pub(super) async fn does_not_answer(&mut self, reason: String, since: Instant) -> Result<Option<Ending>, Leave> {
        if since.elapsed() < QUIET {
            return Ok(None);
        }
        let grade = if since.elapsed() > self.inner.runner.absence() { Grade::TooLong } else { Grade::Passing };
        self.waits(Situation { grade, ..away(reason) }).await
    }

    /// Says what the attempt waits for, once; its end, when that has lasted too long.
    pub(super) async fn waits(&mut self, situation: Situation) -> Result<Option<Ending>, Leave> {
        match situation.grade {
            Grade::Passing => {
                // Once: what it says in detail changes from moment to moment.
                let (code, attempt) = (situation.code, self.row.attempt.to_string());
                let said = |n: &NoteView| n.code == code && n.args.get("attempt") == Some(&attempt);
                if !self.progress.view.notes.iter().any(said) {
                    let args = situation.args.into_iter().chain([("attempt".to_owned(), attempt)]).collect();
                    self.note(vec![(code, args)]).await?;
                }
                Ok(None)
            }
            Grade::TooLong => Ok(Some(Ending::Befell { situation, result: None })),
            // Its relay may still have something to say; when it has not, the connection will say so.
            Grade::Ended => Ok(None),
        }
    }
}

/// Its place cannot be asked. What is built there goes on meanwhile.
fn away(reason: String) -> Situation {
    passing("cluster_away", BTreeMap::from([("message".to_owned(), reason)]))
}

fn passing(code: &'static str, args: BTreeMap<String, String>) -> Situation {
    Situation { code, args, grade: Grade::Passing }
}
