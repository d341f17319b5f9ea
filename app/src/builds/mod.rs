//! Builds: the dialog with its four tabs, the live view, the log.

pub mod api;
mod dialog;
mod found;
mod help;
mod history;
mod live;
mod log;
mod refs;
mod result;
mod run;
mod settings;
mod start;
mod steps;
mod stream;

pub use dialog::BuildDialog;
#[cfg(feature = "ssr")]
pub use live::OneMoment;

use crate::locales::{t, tf};
use crate::model::{BuildHead, BuildStatus};
use crate::ui::badge;
use leptos::prelude::*;

/// A build's commit, as a link where its page is known.
pub fn commit_text(build: &BuildHead) -> AnyView {
    let commit = build.short_commit().to_owned();
    match build.commit_url.clone() {
        Some(url) => {
            view! { <a class="link over" href=url target="_blank" rel="noopener external"><code>{commit}</code></a> }
                .into_any()
        }
        None => view! { <code>{commit}</code> }.into_any(),
    }
}

/// A build's state as colour, icon and word.
pub fn status_badge(build: &BuildHead) -> AnyView {
    if build.cancelling() {
        return badge("neutral", "cancelled", t("status.cancelling"));
    }
    match build.status {
        BuildStatus::Queued => {
            let text = match build.queue_position {
                Some(n) => tf("status.queued_at", &[("n", &n.to_string())]),
                None => t("status.queued"),
            };
            badge("neutral", "queued", text)
        }
        BuildStatus::Starting | BuildStatus::CheckingOut | BuildStatus::Building | BuildStatus::Pushing => {
            badge("running", "running", t("status.in_progress"))
        }
        BuildStatus::Success => badge("success", "check", t("status.success")),
        BuildStatus::Failure => badge("failure", "failure", t("status.failure")),
        BuildStatus::Cancelled => badge("neutral", "cancelled", t("status.cancelled")),
    }
}

/// `main`, or `v1.2` of `refs/tags/v1.2`.
pub fn ref_text(name: &str) -> &str {
    name.strip_prefix("refs/tags/").unwrap_or(name)
}
