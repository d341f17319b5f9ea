//! When the spool has grown: told by the kernel where it can, else by looking.

use rustix::fs::inotify;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

/// So long a first line waits for others, so that a log at full speed is not sent line by line.
const GATHER: Duration = Duration::from_millis(5);
/// Where the kernel tells, in case that it did not.
const LOOK_ALL_THE_SAME: Duration = Duration::from_secs(1);
/// Where it does not: soon after the spool had grown, and more seldom while it has not.
const LOOK_AT_LEAST: Duration = Duration::from_millis(25);

/// Watches one file for one reader.
pub struct Growth {
    told: Option<AsyncFd<OwnedFd>>,
    look_after: Duration,
}

impl Growth {
    /// To be made before the reader's first look: what is written after that look is told.
    pub fn of(file: &Path) -> Self {
        // A user has so many watches (128, unless the machine says otherwise).
        Self { told: watch(file).ok(), look_after: GATHER }
    }

    /// The reader has found something.
    pub fn seen(&mut self) {
        self.look_after = GATHER;
    }

    /// Until there may be something to read; no longer than this.
    pub async fn within(&mut self, limit: Duration) {
        let Some(told) = &self.told else {
            sleep(self.look_after.min(limit)).await;
            self.look_after = (self.look_after * 2).min(LOOK_AT_LEAST);
            return;
        };
        if let Ok(Ok(mut ready)) = timeout(limit.min(LOOK_ALL_THE_SAME), told.readable()).await {
            sleep(GATHER).await;
            let mut events = [0; 4096];
            while rustix::io::read(told.get_ref(), &mut events).is_ok_and(|read| read > 0) {}
            ready.clear_ready();
        }
    }
}

fn watch(file: &Path) -> std::io::Result<AsyncFd<OwnedFd>> {
    let watches = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watches, file, inotify::WatchFlags::MODIFY)?;
    // SAFETY: the descriptor belongs to what is registered, and is closed with it.
    Ok(unsafe { AsyncFd::register_with_interest(watches, Interest::READABLE) }?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Instant;

    /// Both ways; the file grows while nobody waits, and while somebody does.
    #[tokio::test]
    async fn what_is_written_ends_the_wait() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let watched = Growth::of(file.path());
        assert!(watched.told.is_some());
        let looking = Growth { told: None, look_after: GATHER };
        for mut growth in [watched, looking] {
            let limit = Duration::from_secs(60);
            file.write_all(b"x").unwrap();
            growth.within(limit).await;
            growth.seen();
            let mut later = file.reopen().unwrap();
            let waits = tokio::spawn(async move {
                let since = Instant::now();
                growth.within(limit).await;
                (growth, since.elapsed())
            });
            later.write_all(b"y").unwrap();
            let (mut growth, took) = waits.await.unwrap();
            assert!(took < limit / 2, "{took:?}");
            // Nothing more comes.
            growth.within(Duration::from_millis(1)).await;
        }
    }
}
