//! Whatever died is found again: builds of a server that is no more, tasks that ended too early, attempts that nobody
//! has let go of. At the start, and every few seconds.

use super::{Inner, profile, queue};
use crate::clock::now_ms;
use crate::store::Adopt;
use kiops_app::model::BuildId;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A database that does not answer at the start is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the runner's place is looked through for what nobody needs.
const ORPHANS_EVERY: Duration = Duration::from_secs(60);

/// What an earlier server left: its running builds go on, its finished ones are released.
pub(super) async fn take_up(inner: &Arc<Inner>) {
    while !adopt(inner, Adopt::ExpiredAndOwn).await {
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = inner.stopping.cancelled() => return,
        }
    }
    // Beside the queue: killing a stubborn process takes its time, and nobody waits for it.
    let tidy = inner.clone();
    inner.tasks.spawn(async move {
        let mut tidied = tidy.releasing.lock().await;
        release_finished(&tidy).await;
        release_orphans(&tidy).await;
        forget_strangers(&tidy).await;
        *tidied = Instant::now();
    });
}

async fn adopt(inner: &Arc<Inner>, which: Adopt) -> bool {
    let config = &inner.config;
    match inner.store.adopt(&config.owner, config.lease.as_millis() as i64, which).await {
        Ok(rows) => {
            if !rows.is_empty() {
                inner.sync.reach(crate::sync_points::Point::DuringRecovery);
            }
            for row in rows {
                tracing::info!(build = %row.id, attempt = row.attempt, "a build of an earlier server goes on");
                queue::drive(inner, row);
            }
            true
        }
        Err(error) => {
            tracing::error!(%error, "running builds could not be taken over");
            false
        }
    }
}

pub(super) async fn sweep(inner: &Arc<Inner>) {
    let driven: HashSet<BuildId> = inner.running().keys().cloned().collect();
    match inner.store.renew(&inner.config.owner, inner.config.lease.as_millis() as i64).await {
        Ok(held) => {
            let ids: HashSet<&BuildId> = held.iter().map(|row| &row.id).collect();
            {
                let running = inner.running();
                // Taken over by another server, which will not wait for this one.
                for (_, control) in running.iter().filter(|(id, _)| driven.contains(*id) && !ids.contains(id)) {
                    control.send_if_modified(|c| !std::mem::replace(&mut c.lost, true));
                }
                for row in held.iter().filter(|row| row.cancel_requested_at.is_some()) {
                    if let Some(control) = running.get(&row.id) {
                        control.send_if_modified(|c| !std::mem::replace(&mut c.cancel, true));
                    }
                }
                // Time alone may have made them slow: their tasks look whether it has.
                let long = |started: i64| now_ms() - started >= profile::SLOWER_BY_MS;
                for row in held.iter().filter(|row| row.started_at.is_some_and(long)) {
                    if let Some(control) = running.get(&row.id) {
                        control.send_modify(|_| ());
                    }
                }
            }
            for row in held {
                queue::drive(inner, row);
            }
        }
        Err(error) => {
            // What seems to have run out may be one's own.
            tracing::warn!(%error, "leases could not be renewed");
            return;
        }
    }
    adopt(inner, Adopt::Expired).await;
    // Beside the queue: a stubborn process must not keep leases from being renewed.
    if let Ok(mut tidied) = inner.releasing.clone().try_lock_owned() {
        let inner = inner.clone();
        inner.tasks.clone().spawn(async move {
            release_finished(&inner).await;
            // An earlier attempt of a build that goes on may not have been released either.
            if tidied.elapsed() >= ORPHANS_EVERY {
                release_orphans(&inner).await;
                *tidied = Instant::now();
            }
        });
    }
}

async fn release_finished(inner: &Arc<Inner>) {
    let finished = match inner.store.unreleased().await {
        Ok(finished) => finished,
        Err(error) => {
            tracing::warn!(%error, "finished builds could not be listed");
            return;
        }
    };
    for (id, attempt) in finished {
        // Its own task is at it.
        if !inner.running().contains_key(&id) {
            release(inner, &id, attempt).await;
        }
    }
}

/// Lets an attempt of a finished build go; what fails is tried again by the next sweep.
pub(super) async fn release(inner: &Inner, id: &BuildId, attempt: u32) {
    if let Err(error) = inner.runner.release(id, attempt).await {
        tracing::warn!(build = %id, attempt, %error, "an attempt could not be released");
        return;
    }
    if let Err(error) = inner.store.mark_released(id).await {
        tracing::warn!(build = %id, %error, "a build could not be marked as released");
    }
}

/// What lies in the runner's place and belongs to no build that is open: left by a crash between two steps, or by a
/// database that was put back to an earlier day.
async fn release_orphans(inner: &Arc<Inner>) {
    let left = match inner.runner.list().await {
        Ok(left) => left,
        Err(error) => {
            tracing::warn!(%error, "the runner could not be asked what it holds");
            return;
        }
    };
    for (id, attempt) in left {
        let open = match inner.store.is_open(&id).await {
            // An earlier attempt of a running build has been stored to its end.
            Ok(true) => inner.store.progress(&id).await.map(|p| attempt >= p.attempt),
            closed => closed,
        };
        match open {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!(build = %id, attempt, "an orphaned attempt is removed");
                if let Err(error) = inner.runner.release(&id, attempt).await {
                    tracing::warn!(build = %id, attempt, %error, "an orphaned attempt could not be removed");
                }
            }
            Err(error) => tracing::warn!(build = %id, %error, "an attempt's build could not be looked up"),
        }
    }
}

/// What the runner keeps for services that are no more.
async fn forget_strangers(inner: &Inner) {
    let kept = match inner.runner.keeps_for().await {
        Ok(kept) => kept,
        Err(error) => {
            tracing::warn!(%error, "the runner could not be asked for whom it keeps something");
            return;
        }
    };
    for service in kept {
        match inner.store.has_service(&service).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!(%service, "what was kept for a service that is no more is removed");
                if let Err(error) = inner.runner.forget(&service).await {
                    tracing::warn!(%service, %error, "what was kept for a service could not be removed");
                }
            }
            Err(error) => tracing::warn!(%service, %error, "a service could not be looked up"),
        }
    }
}
