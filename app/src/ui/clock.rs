//! The server's clock in the browser: elapsed time does not depend on the clock of whoever looks.

use super::browser::{browser, monotonic_ms};
use leptos::prelude::*;
use std::time::Duration;

#[derive(Clone, Copy)]
pub struct ServerClock {
    /// Server time, and our own monotonic time at that moment.
    base: StoredValue<(i64, f64)>,
    now: RwSignal<i64>,
}

impl ServerClock {
    pub fn new(now_ms: i64) -> Self {
        Self { base: StoredValue::new((now_ms, monotonic_ms())), now: RwSignal::new(now_ms) }
    }

    /// The server said what time it is.
    pub fn set(self, now_ms: i64) {
        self.base.set_value((now_ms, monotonic_ms()));
        self.now.set(now_ms);
    }

    /// The time now, without following it.
    pub fn read(self) -> i64 {
        let (server, own) = self.base.get_value();
        server + (monotonic_ms() - own) as i64
    }

    /// The time at the last tick.
    pub fn get(self) -> i64 {
        self.now.get()
    }

    /// Ticks while `running` says so.
    pub fn run(self, every: Duration, running: impl Fn() -> bool + Send + Sync + 'static) {
        repeat(every, running, move || {
            self.now.try_set(self.read());
        });
    }
}

/// Acts again and again while `running` says so and the owner lives.
pub fn repeat(
    every: Duration,
    running: impl Fn() -> bool + Send + Sync + 'static,
    act: impl Fn() + Clone + Send + Sync + 'static,
) {
    let handle = StoredValue::new(None::<IntervalHandle>);
    let stop = move || {
        if let Some(handle) = handle.try_update_value(Option::take).flatten() {
            handle.clear();
        }
    };
    Effect::new(move |_| {
        stop();
        if running() && browser().is_some() {
            handle.set_value(set_interval_with_handle(act.clone(), every).ok());
        }
    });
    on_cleanup(stop);
}
