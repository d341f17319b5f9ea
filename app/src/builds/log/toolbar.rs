//! The buttons above the log.

use super::search::find;
use super::{Log, TIMES, WRAP, ansi};
use crate::locales::t;
use crate::ui::{browser, icon};
use leptos::ev;
use leptos::prelude::*;
use leptos::task::spawn_local;

/// A log up to here is copied whole; the server sends none that is longer.
const COPY_WHOLE_BYTES: usize = 4 * 1024 * 1024;

#[component]
pub fn Toolbar(log: Log, times: RwSignal<bool>, first_error: Signal<Option<u64>>) -> impl IntoView {
    let input = NodeRef::<leptos::html::Input>::new();
    let hit = StoredValue::new(None::<u64>);
    let submit = move |event: ev::SubmitEvent| {
        event.prevent_default();
        find(log, input.get_untracked().map(|i| i.value()).unwrap_or_default(), hit);
    };
    let toggle_wrap = move |_| {
        let on = !log.wrap.get_untracked();
        log.set_wrap(on);
        browser::store(WRAP, if on { "1" } else { "0" });
    };
    let toggle_times = move |_| {
        times.update(|on| *on = !*on);
        browser::store(TIMES, if times.get_untracked() { "1" } else { "0" });
        log.settle();
    };
    let follow = move |_| {
        log.follow.update(|on| *on = !*on);
        log.hand.goes();
        log.settle();
    };
    let id = log.id.get_value();
    view! {
        <div class="log-bar">
            <form role="search" on:submit=submit>
                <input
                    type="search"
                    node_ref=input
                    aria-label=t("log.search")
                    placeholder=t("log.search")
                    spellcheck="false"
                    autocomplete="off"
                />
            </form>
            <button
                type="button"
                class="tool"
                disabled=move || first_error.get().is_none()
                on:click=move |_| {
                    if let Some(row) = first_error.get_untracked() {
                        log.go_to(row);
                    }
                }
            >
                {icon("first")}
                {t("log.first_error")}
            </button>
            {switch(t("log.follow"), log.follow, follow)}
            {switch(t("log.wrap"), log.wrap, toggle_wrap)}
            {switch(t("log.times"), times, toggle_times)}
            <span class="log-said" role="status" title=move || log.said.get()>{move || log.said.get()}</span>
            <button type="button" class="tool" on:click=move |_| copy(log)>{icon("copy")} {t("log.copy")}</button>
            <a class="tool" href=format!("/builds/{id}/log?download=1") download rel="external">
                {icon("download")}
                {t("log.download")}
            </a>
        </div>
    }
    .into_any()
}

fn switch(label: String, on: RwSignal<bool>, act: impl Fn(ev::MouseEvent) + 'static) -> AnyView {
    view! {
        <button
            type="button"
            class="tool"
            role="switch"
            aria-checked=move || if on.get() { "true" } else { "false" }
            on:click=act
        >
            {label}
        </button>
    }
    .into_any()
}

/// Copies what is selected in the log, else the whole log where it is not too long, else what is in sight.
fn copy(log: Log) {
    let tell =
        move |key: &'static str| move |done: bool| drop(log.said.try_set(t(if done { key } else { "copy.failed" })));
    let selected = browser::selection_within(".log-rows");
    if !selected.is_empty() {
        browser::copy(selected, tell("log.copied_selection"));
        return;
    }
    let id = log.id.get_value();
    spawn_local(async move {
        match browser::fetch_text(&format!("/builds/{id}/log?most={COPY_WHOLE_BYTES}")).await {
            // A log begins with a note: without anything it was too long to be sent.
            Some(text) if text.is_empty() => browser::copy(in_sight(log), tell("log.copied_part")),
            Some(text) => browser::copy(text, tell("log.copied")),
            None => drop(log.said.try_set(t("copy.failed"))),
        }
    });
}

fn in_sight(log: Log) -> String {
    let rows = log.rows(log.in_sight());
    let text: Vec<String> = rows.into_iter().filter_map(|(_, row)| row).map(|row| row.to_text()).collect();
    text.iter().map(|text| ansi::plain(text)).collect::<Vec<_>>().join("\n")
}
