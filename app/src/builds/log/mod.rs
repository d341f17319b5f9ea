//! The log: a window over rows that are asked for when somebody looks there. The page never holds the whole of it.

mod ansi;
mod cache;
mod row;
pub use row::note_sentence;
mod window;

use super::api::{get_rows, search_log};
use crate::locales::{t, tf};
use crate::model::{BuildId, MAX_RANGE_ROWS, RowsPage};
use crate::ui::{browser, format, icon};
use cache::Cache;
use kiops_events::view::NoteView;
use leptos::ev;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos::wasm_bindgen::JsCast;
use leptos::wasm_bindgen::closure::Closure;
use send_wrapper::SendWrapper;
use std::time::Duration;
use window::Geometry;

/// Rows that the server writes into the page: a screenful and some.
#[cfg_attr(not(feature = "ssr"), allow(dead_code))]
pub const FIRST_ROWS: u64 = 120;
/// Height of a row while lines are not wrapped; the style sheet says the same.
const ROW_PX: f64 = 20.0;
/// What the server and the first drawing take for the height of the view.
const GUESSED_VIEW_PX: f64 = 900.0;
/// Rows fetched before and after what is in sight.
const AROUND: u64 = 200;
/// A log up to here is copied whole.
const COPY_WHOLE_ROWS: u64 = 20_000;

const WRAP: &str = "kiops.log.wrap";
const TIMES: &str = "kiops.log.times";

#[derive(Clone, Copy)]
pub struct Log {
    id: StoredValue<BuildId>,
    cache: StoredValue<Cache>,
    /// Counts up when rows have come.
    news: RwSignal<u32>,
    total: RwSignal<u64>,
    top: RwSignal<f64>,
    view_px: RwSignal<f64>,
    follow: RwSignal<bool>,
    /// The row that a link or a step led to.
    target: RwSignal<Option<u64>>,
    /// Where the scroll bar stood when we last looked or put it there.
    scroll: StoredValue<f64>,
    fetching: StoredValue<bool>,
    scroller: NodeRef<leptos::html::Div>,
}

impl Log {
    /// `row`: the one to show first; else the end.
    pub fn new(id: BuildId, page: RowsPage, row: Option<u64>) -> Self {
        let total = page.total;
        let mut cache = Cache::default();
        cache.put(page);
        let log = Self {
            id: StoredValue::new(id),
            cache: StoredValue::new(cache),
            news: RwSignal::new(0),
            total: RwSignal::new(total),
            top: RwSignal::new(0.0),
            view_px: RwSignal::new(GUESSED_VIEW_PX),
            follow: RwSignal::new(row.is_none()),
            target: RwSignal::new(row),
            scroll: StoredValue::new(0.0),
            fetching: StoredValue::new(false),
            scroller: NodeRef::new(),
        };
        let geometry = log.geometry_untracked();
        log.top.set(row.map_or(geometry.max_top(), |row| geometry.top_for(row)));
        log
    }

    fn geometry(self) -> Geometry {
        Geometry { total: self.total.get(), row_px: ROW_PX, view_px: self.view_px.get() }
    }

    fn geometry_untracked(self) -> Geometry {
        Geometry { total: self.total.get_untracked(), row_px: ROW_PX, view_px: self.view_px.get_untracked() }
    }

    /// Rows that came with the stream, and how many there are now.
    pub fn extend(self, page: Option<RowsPage>, total: u64) {
        if let Some(page) = page {
            self.cache.update_value(|cache| cache.put(page));
            self.news.update(|n| *n += 1);
        }
        if self.total.get_untracked() != total {
            self.total.set(total);
        }
        self.settle();
    }

    /// Shows a row and marks it.
    pub fn go_to(self, row: u64) {
        self.follow.set(false);
        self.target.set(Some(row));
        self.top.set(self.geometry_untracked().top_for(row));
        self.place();
    }

    /// Keeps the end in sight while following; keeps the bar true otherwise.
    fn settle(self) {
        let geometry = self.geometry_untracked();
        if self.follow.get_untracked() {
            let top = geometry.max_top();
            if self.top.get_untracked() != top {
                self.top.set(top);
            }
            self.place();
        } else if geometry.drifted(self.top.get_untracked(), self.scroll.get_value()) {
            self.place();
        }
    }

    /// Puts the scroll bar where the first row in sight belongs, once the box has its new height.
    fn place(self) {
        if browser::browser().is_none() {
            return;
        }
        request_animation_frame(move || {
            let Some(Some(scroller)) = self.scroller.try_get_untracked() else { return };
            let wanted = self.geometry_untracked().scroll_at(self.top.get_untracked());
            scroller.set_scroll_top(wanted.round() as i32);
            self.scroll.set_value(f64::from(scroller.scroll_top()));
        });
    }

    fn scrolled(self) {
        let Some(scroller) = self.scroller.get_untracked() else { return };
        let now = f64::from(scroller.scroll_top());
        let before = self.scroll.get_value();
        if (now - before).abs() < 1.0 {
            return;
        }
        self.scroll.set_value(now);
        let geometry = self.geometry_untracked();
        let top = geometry.moved(self.top.get_untracked(), before, now);
        self.top.set(top);
        let end = now > before && geometry.at_end(top);
        if self.follow.get_untracked() != end {
            self.follow.set(end);
        }
        if geometry.drifted(top, now) {
            set_timeout(
                move || {
                    let still = self.scroll.try_get_value() == Some(now);
                    if still {
                        self.place();
                    }
                },
                Duration::from_millis(150),
            );
        }
    }

    /// Asks for what is in sight and not known, one request at a time.
    fn fetch(self, first: u64, count: u64) {
        let missing = self.cache.with_value(|cache| cache.missing(first, count));
        if missing.is_none() || self.fetching.get_value() || browser::browser().is_none() {
            return;
        }
        let from = first.saturating_sub(AROUND);
        let upto = (first + count + AROUND).min(self.total.get_untracked());
        let Some((from, count)) = self.cache.with_value(|cache| cache.missing(from, upto - from)) else { return };
        self.fetching.set_value(true);
        let id = self.id.get_value();
        spawn_local(async move {
            let result = get_rows(id, from, count.min(MAX_RANGE_ROWS)).await;
            if self.fetching.try_set_value(false).is_some() {
                return;
            }
            match result {
                Ok(page) if !page.rows.is_empty() => {
                    self.cache.update_value(|cache| cache.put(page));
                    self.news.update(|n| *n += 1);
                }
                // Again in a while: the connection may be down.
                _ => set_timeout(
                    move || {
                        self.news.try_update(|n| *n += 1);
                    },
                    Duration::from_secs(2),
                ),
            }
        });
    }
}

#[component]
pub fn LogPanel(
    log: Log,
    /// Address of this build's view, for links to rows.
    #[prop(into)]
    here: String,
    notes: Signal<Vec<NoteView>>,
    first_error: Signal<Option<u64>>,
) -> impl IntoView {
    let (wrap, times) = (RwSignal::new(false), RwSignal::new(true));
    let mark = RwSignal::new(String::new());
    Effect::new(move |_| {
        if browser::stored(WRAP).as_deref() == Some("1") {
            wrap.set(true);
        }
        if browser::stored(TIMES).as_deref() == Some("0") {
            times.set(false);
        }
    });
    let window = Memo::new(move |_| log.geometry().rows(log.top.get()));
    let rows = Memo::new(move |_| {
        log.news.track();
        let (first, count) = window.get();
        log.cache.try_update_value(|cache| cache.window(first, count)).unwrap_or_default()
    });
    Effect::new(move |_| {
        log.news.track();
        let (first, count) = window.get();
        log.fetch(first, count);
    });
    watch_size(log);
    let here = StoredValue::new(here);
    let height = move || format!("--h:{}px", log.geometry().height().ceil());
    let shift = move || format!("--shift:{}px", -log.geometry().shift(log.top.get()).round());
    let at_end = move || log.geometry().at_end(log.top.get());
    view! {
        <section class="log" class:times=move || times.get()>
            <Toolbar log=log wrap=wrap times=times mark=mark first_error=first_error/>
            <div
                class="log-scroll"
                class:wrap=move || wrap.get()
                role="log"
                aria-live="off"
                aria-label=t("log.label")
                tabindex="0"
                node_ref=log.scroller
                on:scroll=move |_| log.scrolled()
            >
                <div class="log-space" style=height>
                    <div class="log-view" class:end=at_end>
                        <div class="log-rows" style=shift>
                            <For each=move || rows.get() key=|(row, content)| (*row, content.is_some()) let:item>
                                {row::view(item.0, item.1, log.target, here, notes, mark)}
                            </For>
                        </div>
                        {move || {
                            (log.total.get() == 0).then(|| view! { <p class="log-empty">{t("log.empty")}</p> })
                        }}
                    </div>
                </div>
            </div>
        </section>
    }
    .into_any()
}

/// Follows the height of the view, which the first drawing could only guess.
fn watch_size(log: Log) {
    Effect::new(move |_| {
        let Some(scroller) = log.scroller.get() else { return };
        let measure = move || {
            let Some(Some(scroller)) = log.scroller.try_get_untracked() else { return };
            let px = f64::from(scroller.client_height());
            if px > 0.0 && px != log.view_px.get_untracked() {
                let first_time = log.scroll.get_value() == 0.0;
                log.view_px.set(px);
                match log.target.get_untracked() {
                    Some(row) if first_time => {
                        log.top.set(log.geometry_untracked().top_for(row));
                        log.place();
                    }
                    _ => log.settle(),
                }
            }
        };
        measure();
        log.settle();
        let on_size = Closure::<dyn Fn()>::new(measure);
        if let Ok(observer) = web_sys::ResizeObserver::new(on_size.as_ref().unchecked_ref()) {
            observer.observe(&scroller);
            let held = SendWrapper::new((observer, on_size));
            on_cleanup(move || held.0.disconnect());
        }
    });
}

#[component]
fn Toolbar(
    log: Log,
    wrap: RwSignal<bool>,
    times: RwSignal<bool>,
    mark: RwSignal<String>,
    first_error: Signal<Option<u64>>,
) -> impl IntoView {
    let said = RwSignal::new(String::new());
    let hit = StoredValue::new(None::<u64>);
    let input = NodeRef::<leptos::html::Input>::new();
    let find = move |event: ev::SubmitEvent| {
        event.prevent_default();
        let text = input.get_untracked().map(|i| i.value()).unwrap_or_default();
        if text != mark.get_untracked() {
            hit.set_value(None);
            mark.set(text.clone());
        }
        if text.is_empty() {
            said.set(String::new());
            return;
        }
        let id = log.id.get_value();
        let from = hit.get_value().map_or(0, |row| row + 1);
        spawn_local(async move {
            let mut found = search_log(id.clone(), text.clone(), from).await;
            let mut again = false;
            if matches!(found, Ok(None)) && from > 0 {
                again = true;
                found = search_log(id, text, 0).await;
            }
            match found {
                Ok(Some(found)) => {
                    hit.set_value(Some(found.row));
                    log.go_to(found.row);
                    let row = format::count(found.row + 1);
                    let key = if again { "log.found_again" } else { "log.found" };
                    said.try_set(tf(key, &[("row", &row)]));
                }
                Ok(None) => drop(said.try_set(t("log.not_found"))),
                Err(problem) => drop(said.try_set(crate::ui::sentence(&problem))),
            }
        });
    };
    let toggle = |signal: RwSignal<bool>, key: &'static str| {
        move |_| {
            signal.update(|on| *on = !*on);
            if !key.is_empty() {
                browser::store(key, if signal.get_untracked() { "1" } else { "0" });
            }
        }
    };
    let follow = move |_| {
        log.follow.update(|on| *on = !*on);
        log.settle();
    };
    let copy = move |_| copy_log(log, said);
    let id = log.id.get_value();
    view! {
        <div class="log-bar">
            <form role="search" on:submit=find>
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
            {switch(t("log.wrap"), wrap, toggle(wrap, WRAP))}
            {switch(t("log.times"), times, toggle(times, TIMES))}
            <span class="log-said" role="status">{move || said.get()}</span>
            <button type="button" class="tool" on:click=copy>{icon("copy")} {t("log.copy")}</button>
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
fn copy_log(log: Log, said: RwSignal<String>) {
    let tell = move |key: &'static str| move |done: bool| drop(said.try_set(t(if done { key } else { "copy.failed" })));
    let selected = browser::selection_within(".log-rows");
    if !selected.is_empty() {
        browser::copy(selected, tell("log.copied_selection"));
    } else if log.total.get_untracked() <= COPY_WHOLE_ROWS {
        let id = log.id.get_value();
        spawn_local(async move {
            match browser::fetch_text(&format!("/builds/{id}/log")).await {
                Some(text) => browser::copy(text, tell("log.copied")),
                None => drop(said.try_set(t("copy.failed"))),
            }
        });
    } else {
        let (first, count) = log.geometry_untracked().rows(log.top.get_untracked());
        let rows = log.cache.try_update_value(|cache| cache.window(first, count)).unwrap_or_default();
        let text: Vec<String> = rows.into_iter().filter_map(|(_, r)| r).map(|r| ansi::plain(&r.to_text())).collect();
        browser::copy(text.join("\n"), tell("log.copied_part"));
    }
}
