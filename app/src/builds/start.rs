//! Starting a build from anywhere in the dialog, and going to it.

use super::api::BeginBuild;
use crate::model::{BuildId, LiveSnapshot, ServiceId};
use crate::ui::Post;
use leptos::prelude::*;
use leptos_router::NavigateOptions;
use leptos_router::hooks::use_navigate;

/// What the start's answer told of the new build, until its view is drawn from it: asking again would only take longer.
#[derive(Clone, Copy)]
pub struct AtHand(StoredValue<Option<LiveSnapshot>>);

impl AtHand {
    /// For all tabs of a dialog.
    pub fn provide() {
        provide_context(Self(StoredValue::new(None)));
    }

    /// Given once: what comes later is not in it.
    pub fn take(id: &BuildId) -> Option<LiveSnapshot> {
        let Self(kept) = use_context()?;
        kept.try_update_value(Option::take)?.filter(|snapshot| snapshot.build.head.id == *id)
    }
}

/// A form's way to a new build. `started` is told of it before the page goes there.
pub fn start_of(service: ServiceId, started: impl Fn() + Send + Sync + 'static) -> Post {
    let navigate = use_navigate();
    let at_hand = use_context::<AtHand>();
    Post::to::<BeginBuild>(move |begun| {
        if let Some(AtHand(kept)) = at_hand {
            kept.try_set_value(begun.live.map(|live| *live));
        }
        started();
        navigate(&format!("/services/edit/{service}?build=run&id={}", begun.id), NavigateOptions::default());
    })
}
