//! The hand that moves the log. While there is one, the end is not brought into sight: the browser scrolls beside our
//! code, and what both did would be added up to a place that nobody wanted.

use crate::ui::browser;
use leptos::prelude::*;
use std::time::Duration;

/// How long after its last movement a hand is taken to be there still.
const STAYS_MS: f64 = 300.0;

#[derive(Clone, Copy)]
pub struct Hand {
    /// When it last moved.
    moved: StoredValue<Option<f64>>,
    /// A finger that lies on the log.
    down: StoredValue<bool>,
    /// Somebody waits for it to go.
    awaited: StoredValue<bool>,
}

impl Hand {
    pub fn new() -> Self {
        Self { moved: StoredValue::new(None), down: StoredValue::new(false), awaited: StoredValue::new(false) }
    }

    pub fn moves(self) {
        self.moved.set_value(Some(browser::monotonic_ms()));
    }

    pub fn finger(self, down: bool) {
        self.down.set_value(down);
        self.moves();
    }

    /// Whoever asks for another place by a click has taken the hand off the log.
    pub fn goes(self) {
        self.down.set_value(false);
        self.moved.set_value(None);
    }

    /// Runs `then` once the hand has gone, when there is one; not twice for two who wait.
    pub fn wait(self, then: impl FnOnce() + 'static) -> bool {
        let left = match self.down.try_get_value() {
            Some(true) => STAYS_MS,
            _ => match self.moved.try_get_value().flatten() {
                Some(at) => at + STAYS_MS - browser::monotonic_ms(),
                None => return false,
            },
        };
        if left <= 0.0 {
            return false;
        }
        if !self.awaited.get_value() {
            self.awaited.set_value(true);
            let then = move || {
                if self.awaited.try_set_value(false).is_none() {
                    then();
                }
            };
            set_timeout(then, Duration::from_millis(left.ceil() as u64));
        }
        true
    }
}
