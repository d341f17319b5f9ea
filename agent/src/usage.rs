//! What a build uses, sampled while it runs. Reads counters and writes events; decides nothing.

use crate::cgroup::{Counters, Group};
use crate::record::Recorder;
use kiops_events::event::EventKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

const EVERY: Duration = Duration::from_secs(2);
/// A compiler's hunger comes and goes within a second: memory is looked at more often, and the most of it is told.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Samples one build's group.
pub struct Sampler {
    group: Group,
    state_dir: PathBuf,
    recorder: Recorder,
    begin: Counters,
    disk_begin: u64,
    last: (Instant, u64),
    /// The most since the last sample, with what can be reclaimed and without.
    memory_bytes: u64,
    anon_bytes: u64,
}

impl Sampler {
    /// None where nothing can be read.
    pub fn new(mut group: Group, state_dir: PathBuf, recorder: &Recorder) -> Option<Self> {
        let begin = group.read()?;
        let disk_begin = disk_used(&state_dir);
        let last = (Instant::now(), begin.cpu_us);
        Some(Self {
            group,
            state_dir,
            recorder: recorder.clone(),
            begin,
            disk_begin,
            last,
            memory_bytes: 0,
            anon_bytes: 0,
        })
    }

    /// Samples until the sender is dropped, and then once more: what a build died of lies in its last moments.
    pub async fn run(mut self, mut until: oneshot::Receiver<()>) {
        while tokio::time::timeout(LOOK_EVERY, &mut until).await.is_err() {
            match self.last.0.elapsed() < EVERY {
                true => self.look(),
                false => self.sample(),
            }
        }
        self.sample();
    }

    fn look(&mut self) {
        if let Some(now) = self.group.read() {
            self.memory_bytes = self.memory_bytes.max(now.memory_bytes);
            self.anon_bytes = self.anon_bytes.max(now.anon_bytes);
        }
    }

    fn sample(&mut self) {
        let Some(now) = self.group.read() else { return };
        let memory_bytes = std::mem::take(&mut self.memory_bytes).max(now.memory_bytes);
        let anon_bytes = std::mem::take(&mut self.anon_bytes).max(now.anon_bytes);
        let at = Instant::now();
        let (before, cpu_before) = std::mem::replace(&mut self.last, (at, now.cpu_us));
        let passed_us = at.duration_since(before).as_micros().max(1) as u64;
        let cpu_millicores = now.cpu_us.saturating_sub(cpu_before) * 1000 / passed_us;
        self.recorder.record(EventKind::Usage {
            cpu_millicores: cpu_millicores.min(u64::from(u32::MAX)) as u32,
            memory_bytes,
            anon_bytes,
            disk_bytes: disk_used(&self.state_dir).saturating_sub(self.disk_begin),
            oom_kills: now.oom_kills.saturating_sub(self.begin.oom_kills).min(u64::from(u32::MAX)) as u32,
        });
    }
}

/// Bytes in use on the file system that holds the state. Its growth is this build's and, where several run, theirs.
fn disk_used(state_dir: &std::path::Path) -> u64 {
    rustix::fs::statvfs(state_dir).map_or(0, |fs| (fs.f_blocks - fs.f_bfree) * fs.f_frsize)
}
