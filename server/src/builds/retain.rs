//! Logs that have grown old go, in slices, so that nobody waits for them; the builds themselves stay, and say so.

use crate::store::{Retention, SharedStore};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_secs(3_600);
/// Between two slices: whoever else writes comes first.
const PAUSE: Duration = Duration::from_millis(20);

/// Until the server ends.
pub async fn run(store: SharedStore, retention: Retention, stopping: CancellationToken) {
    if retention.days == 0 {
        return;
    }
    loop {
        let mut builds = BTreeSet::new();
        loop {
            match store.remove_old_log(retention).await {
                Ok(Some(build)) => builds.insert(build),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!("old logs could not be removed: {error}");
                    break;
                }
            };
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stopping.cancelled() => return,
            }
        }
        if !builds.is_empty() {
            tracing::info!(builds = builds.len(), days = retention.days, "logs that had grown old are removed");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stopping.cancelled() => return,
        }
    }
}
