//! The branches and tags, as the Git host last said, and when it is asked again.

use crate::error::Problem;
use crate::model::{RefList, ServiceId};
use crate::services::api::list_refs;
use leptos::prelude::*;
use leptos::task::spawn_local;
use std::time::Duration;

/// Looks at the branches have this time between them.
const LOOK_AGAIN: Duration = Duration::from_secs(3);

/// It may be slow: no page waits for it.
#[derive(Clone, Copy)]
pub struct Refs {
    service: StoredValue<ServiceId>,
    pub list: RwSignal<Option<RefList>>,
    pub problem: RwSignal<Option<Problem>>,
    pub asking: RwSignal<bool>,
    /// It has just been asked: whoever wants to look waits for the next time.
    resting: StoredValue<bool>,
    wanted: StoredValue<bool>,
}

impl Refs {
    pub fn new(service: ServiceId) -> Self {
        Self {
            service: StoredValue::new(service),
            list: RwSignal::new(None),
            problem: RwSignal::new(None),
            asking: RwSignal::new(false),
            resting: StoredValue::new(false),
            wanted: StoredValue::new(false),
        }
    }

    /// Asks now, or soon where it has just been asked.
    pub fn look(self) {
        if self.resting.get_value() {
            self.wanted.set_value(true);
        } else {
            self.load();
        }
    }

    pub fn load(self) {
        if self.asking.get_untracked() {
            self.wanted.set_value(true);
            return;
        }
        self.asking.set(true);
        self.wanted.set_value(false);
        self.resting.set_value(true);
        set_timeout(move || self.rested(), LOOK_AGAIN);
        let service = self.service.get_value();
        spawn_local(async move {
            let result = list_refs(service).await;
            self.asking.try_set(false);
            match result {
                Ok(list) => {
                    self.problem.try_set(None);
                    self.list.try_set(Some(list));
                }
                Err(problem) => {
                    self.problem.try_set(Some(problem));
                }
            }
            self.again();
        });
    }

    fn rested(self) {
        self.resting.try_set_value(false);
        self.again();
    }

    /// Looks once more for whoever wanted to meanwhile. The form may be gone by now.
    fn again(self) {
        if self.wanted.try_get_value() == Some(true) && !self.resting.get_value() && !self.asking.get_untracked() {
            self.load();
        }
    }
}
