//! Watches the free space of the data folder. When it runs low new builds are refused and the server stays up: a full
//! disk would take the logs of running builds with it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
    needed: u64,
    free: AtomicU64,
}

impl Disk {
    /// Looks once, so that the first answer is true.
    pub fn new(folder: &Path, needed: u64) -> Self {
        let disk = Self { folder: folder.to_owned(), needed, free: AtomicU64::new(u64::MAX) };
        disk.look();
        disk
    }

    pub fn free_bytes(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    pub fn needed_bytes(&self) -> u64 {
        self.needed
    }

    pub fn is_low(&self) -> bool {
        self.free_bytes() < self.needed
    }

    /// Until the server ends; says in the log when the state changes.
    pub async fn watch(&self, shutdown: CancellationToken) {
        let mut was_low = false;
        loop {
            self.look();
            if self.is_low() != was_low {
                was_low = !was_low;
                let (free, needed) = (self.free_bytes(), self.needed);
                if was_low {
                    tracing::warn!(free, needed, "the data folder's disk is nearly full: new builds are refused");
                } else {
                    tracing::info!(free, needed, "the data folder's disk has room again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn look(&self) {
        // A folder that cannot be asked is not a full one; whoever writes there will hear of it.
        if let Ok(found) = rustix::fs::statvfs(&self.folder) {
            self.free.store(found.f_bavail.saturating_mul(found.f_frsize), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_is_less_than_needed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Disk::new(folder.path(), 0).is_low());
        assert!(Disk::new(folder.path(), u64::MAX).is_low());
        assert!(Disk::new(folder.path(), 0).free_bytes() > 0);
    }
}
