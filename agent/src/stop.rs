//! The one way an attempt is told to stop before its end: by its time limit, by a signal, or because nothing can be
//! written down any more. Everything that waits, waits for this too; what stopping means is each stage's own business.

use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    TimeLimit,
    /// Somebody asked. Whether that was a cancel is not known here.
    Terminated,
    /// The spool takes no more events.
    Spool,
    /// … because the disk is full.
    DiskFull,
}

#[derive(Clone)]
pub struct Stop(Arc<watch::Sender<Option<Why>>>);

impl Default for Stop {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Stop {
    /// The first order counts.
    pub fn order(&self, why: Why) {
        self.0.send_if_modified(|now| now.is_none() && now.replace(why).is_none());
    }

    pub fn why(&self) -> Option<Why> {
        *self.0.borrow()
    }

    /// Waits for the order, for ever if need be.
    pub async fn ordered(&self) -> Why {
        let mut seen = self.0.subscribe();
        // The sender lives as long as `self`, so the wait ends with an order.
        let why = seen.wait_for(Option::is_some).await.ok().and_then(|why| *why);
        match why {
            Some(why) => why,
            None => std::future::pending().await,
        }
    }

    /// Orders the stop when the time is over.
    pub fn after(&self, limit: Duration) {
        let stop = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            stop.order(Why::TimeLimit);
        });
    }

    /// Orders the stop at the first SIGTERM or SIGINT; from here on none of them ends this process by itself.
    pub fn at_signals(&self) -> std::io::Result<()> {
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let (stop, mut signals) = (self.clone(), signal(kind)?);
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    tracing::info!("asked to stop by a signal");
                    stop.order(Why::Terminated);
                }
            });
        }
        Ok(())
    }
}
