//! Rows become running builds: in order, one a service, as many at once as may be. Woken by starts and ends, and by a
//! clock in case something was missed.

use super::{Inner, follow, reconcile};
use crate::store::BuildRow;
use kiops_app::model::BuildId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What a stopping server gives its builds' tasks.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
const SWEEP_EVERY: Duration = Duration::from_secs(2);

pub(super) async fn run(inner: Arc<Inner>) {
    reconcile::take_up(&inner).await;
    let mut sweep_at = Instant::now() + SWEEP_EVERY;
    loop {
        claim_all(&inner).await;
        tokio::select! {
            () = inner.wake.notified() => {}
            () = sleep_until(sweep_at) => {
                reconcile::sweep(&inner).await;
                sweep_at = Instant::now() + SWEEP_EVERY;
            }
            () = inner.stopping.cancelled() => return,
        }
    }
}

async fn claim_all(inner: &Arc<Inner>) {
    // A full disk would take the log of the very build that filled it.
    while !inner.disk.is_low() && !inner.stopping.is_cancelled() {
        let config = &inner.config;
        let claimed = inner.store.claim(&config.owner, config.lease.as_millis() as i64, config.builds_at_once).await;
        match claimed {
            Ok(Some(row)) => {
                inner.sync.reach(crate::sync_points::Point::AfterClaim);
                tracing::info!(build = %row.id, service = %row.service_id, number = row.number, "a build begins");
                drive(inner, row);
                // Whoever waits stands one further.
                inner.hub.touch_all();
            }
            Ok(None) => return,
            Err(error) => {
                tracing::error!(%error, "the queue could not be asked");
                return;
            }
        }
    }
}

/// Gives a held build a task of its own, unless it has one.
pub(super) fn drive(inner: &Arc<Inner>, row: BuildRow) {
    let id = row.id.clone();
    let control = {
        let mut running = inner.running();
        if running.contains_key(&id) {
            return;
        }
        let (sender, receiver) =
            watch::channel(follow::Control { cancel: row.cancel_requested_at.is_some(), ..Default::default() });
        running.insert(id.clone(), sender);
        receiver
    };
    let task_inner = inner.clone();
    inner.tasks.spawn(async move {
        let entry = Running { inner: task_inner.clone(), id };
        let stopping = task_inner.stopping.clone();
        let too_long = async {
            stopping.cancelled().await;
            tokio::time::sleep(STOP_PATIENCE).await;
        };
        tokio::select! {
            () = follow::drive(task_inner, row, control) => {}
            // Whatever it waits for, a registry or a stubborn process: the next server does it again.
            () = too_long => {}
        }
        drop(entry);
    });
}

/// Takes the build out of the table however its task ends: one that panicked is driven again by the next sweep.
struct Running {
    inner: Arc<Inner>,
    id: BuildId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.inner.running().remove(&self.id);
        self.inner.wake.notify_one();
    }
}
