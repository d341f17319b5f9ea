//! A hook for tests only: with `KIOPS_FAULT_AT=<point>` or `<point>:<n>` in its environment the process kills itself,
//! as `kill -9` would, when it comes to that point (for the n-th time). So a test can stop a server at exactly the
//! moment that a random kill would need thousands of tries to hit. Without the variable this does nothing.

use std::sync::atomic::{AtomicU32, Ordering};

/// The moments at which a server that dies must lose nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A build is claimed and its agent not started.
    AfterClaim,
    /// Half of what makes an attempt is in its place.
    MidStart,
    /// The agent checks out.
    DuringCheckout,
    /// Events are committed and neither published nor acknowledged.
    MidAppend,
    /// The agent's result is stored and the build not finished.
    AfterResultBeforeFinish,
    /// The build is finished and its attempt not released.
    AfterFinishBeforeRelease,
    /// Builds of an earlier server are adopted and not taken up.
    DuringRecovery,
}

impl Point {
    const ALL: [Self; 7] = [
        Self::AfterClaim,
        Self::MidStart,
        Self::DuringCheckout,
        Self::MidAppend,
        Self::AfterResultBeforeFinish,
        Self::AfterFinishBeforeRelease,
        Self::DuringRecovery,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::AfterClaim => "after_claim",
            Self::MidStart => "mid_start",
            Self::DuringCheckout => "during_checkout",
            Self::MidAppend => "mid_append",
            Self::AfterResultBeforeFinish => "after_result_before_finish",
            Self::AfterFinishBeforeRelease => "after_finish_before_release",
            Self::DuringRecovery => "during_recovery",
        }
    }
}

#[derive(Debug, Default)]
pub struct SyncPoints {
    fault: Option<Point>,
    /// How many times it is still passed.
    left: AtomicU32,
}

impl SyncPoints {
    pub fn from_env() -> Self {
        std::env::var("KIOPS_FAULT_AT").ok().and_then(|at| Self::parse(&at)).unwrap_or_default()
    }

    fn parse(at: &str) -> Option<Self> {
        let (name, times) = match at.split_once(':') {
            Some((name, times)) => (name, times.parse::<u32>().ok().filter(|n| *n > 0)?),
            None => (at, 1),
        };
        let fault = Point::ALL.into_iter().find(|p| p.name() == name)?;
        Some(Self { fault: Some(fault), left: AtomicU32::new(times - 1) })
    }

    pub fn reach(&self, point: Point) {
        if self.fault == Some(point)
            && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err()
        {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_point_is_a_fault() {
        for bad in ["", "nowhere", "mid_append:", "mid_append:0", "mid_append:x"] {
            assert!(SyncPoints::parse(bad).is_none(), "{bad:?}");
        }
        let third = SyncPoints::parse("mid_append:3").unwrap();
        assert_eq!(third.fault, Some(Point::MidAppend));
        // Twice it is passed; another point is always passed.
        third.reach(Point::MidAppend);
        third.reach(Point::MidAppend);
        third.reach(Point::AfterClaim);
        assert_eq!(third.left.load(Ordering::Relaxed), 0);
        SyncPoints::default().reach(Point::DuringRecovery);
    }
}
