//! Slows down whoever guesses passwords: each name has a few attempts, which come back one by one. Names nobody has are
//! counted too, or the refusal would tell which exist.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Attempts in a row.
const BURST: u32 = 10;
/// After them one attempt in this time.
const BACK_AFTER: Duration = Duration::from_secs(15);
/// Names that are remembered: guessing names must not fill the memory.
const MOST_NAMES: usize = 4_096;

#[derive(Default)]
pub struct Attempts(Mutex<HashMap<String, Bucket>>);

#[derive(Clone, Copy)]
struct Bucket {
    used: u32,
    since: Instant,
}

impl Bucket {
    /// Gives back what has come back by now.
    fn refill(&mut self, now: Instant) {
        let back = (now.saturating_duration_since(self.since).as_secs() / BACK_AFTER.as_secs()) as u32;
        if back > 0 {
            self.used = self.used.saturating_sub(back);
            self.since += BACK_AFTER * back;
        }
    }
}

impl Attempts {
    /// Takes one attempt, or says how long to wait for the next.
    pub fn admit(&self, name: &str, now: Instant) -> Result<(), Duration> {
        let name = key_of(name);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST_NAMES {
            buckets.retain(|_, bucket| {
                bucket.refill(now);
                bucket.used > 0
            });
        }
        // Still full: somebody guesses names. They share one bucket then.
        let key = if buckets.len() >= MOST_NAMES && !buckets.contains_key(&name) { String::new() } else { name };
        let bucket = buckets.entry(key).or_insert(Bucket { used: 0, since: now });
        if bucket.used == 0 {
            bucket.since = now;
        }
        bucket.refill(now);
        if bucket.used >= BURST {
            return Err(BACK_AFTER.saturating_sub(now.saturating_duration_since(bucket.since)));
        }
        bucket.used += 1;
        Ok(())
    }

    /// After a success the name starts anew.
    pub fn forgive(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key_of(name));
    }
}

fn key_of(name: &str) -> String {
    name.chars().take(64).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_attempts_then_one_by_one() {
        let attempts = Attempts::default();
        let start = Instant::now();
        for _ in 0..BURST {
            assert!(attempts.admit("admin", start).is_ok());
        }
        assert!(attempts.admit("Admin", start).unwrap_err() <= BACK_AFTER);
        assert!(attempts.admit("other", start).is_ok(), "another name is not held up");
        let later = start + BACK_AFTER;
        assert!(attempts.admit("admin", later).is_ok());
        assert!(attempts.admit("admin", later).is_err());
        assert!(attempts.admit("admin", later + BACK_AFTER * 3).is_ok());
        attempts.forgive("ADMIN");
        for _ in 0..BURST {
            assert!(attempts.admit("admin", later).is_ok());
        }
    }

    #[test]
    fn names_do_not_fill_the_memory() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for i in 0..MOST_NAMES + 100 {
            let _ = attempts.admit(&format!("user-{i}"), now);
        }
        assert!(attempts.0.lock().unwrap().len() <= MOST_NAMES + 1);
        assert!(attempts.admit("one-more", now).is_err(), "strangers share one bucket");
        assert!(attempts.admit("user-1", now).is_ok(), "who is known has their own");
    }
}
