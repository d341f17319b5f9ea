//! The log: a window over rows that are asked for when somebody looks there. The page never holds the whole of it.

mod ansi;
mod block;
mod cache;
mod drawn;
mod hand;
mod row;
mod search;
mod toolbar;
mod window;

#[cfg(feature = "ssr")]
pub use row::as_shown;
pub use row::note_sentence;

use super::api::{get_row, get_rows};
use crate::model::{BuildId, MAX_RANGE_ROWS, RowsPage};
use crate::ui::{browser, sentence};
use block::Block;
use cache::Cache;
use drawn::{Drawn, mark_in};
use hand::Hand;
use kiops_events::Row;
use kiops_events::view::NoteView;
use leptos::ev;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos::wasm_bindgen::JsCast;
use leptos::wasm_bindgen::closure::Closure;
use send_wrapper::SendWrapper;
use std::sync::Arc;
use std::time::Duration;
use toolbar::Toolbar;
use window::Geometry;

/// Rows that the server writes into the page: a screenful and some, and not more of them than a page can carry.
#[cfg_attr(not(feature = "ssr"), allow(dead_code))]
pub const FIRST_ROWS: u64 = 120;
#[cfg_attr(not(feature = "ssr"), allow(dead_code))]
pub const FIRST_BYTES: usize = 96 * 1024;
/// Height of a row while lines are not wrapped; the style sheet says the same. Of a wrapped one it is the least.
const ROW_PX: f64 = 20.0;
/// What the server and the first drawing take for the height of the view.
const GUESSED_VIEW_PX: f64 = 900.0;
/// Rows fetched before and after what is in sight.
const AROUND: u64 = 200;

const WRAP: &str = "kiops.log.wrap";
const TIMES: &str = "kiops.log.times";

/// What stays in its place while wrapped rows around it come, go and change their heights.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Hold {
    /// The end of the log, at the lower edge.
    End,
    /// `part` of the row's height lies above a point `px` below the upper edge.
    Row { row: u64, part: f64, px: f64 },
}

#[derive(Clone, Copy)]
pub struct Log {
    id: StoredValue<BuildId>,
    cache: StoredValue<Cache>,
    /// Counts up when rows have come.
    news: RwSignal<u32>,
    total: RwSignal<u64>,
    /// The first row in sight, with its part that is already out of it.
    top: RwSignal<f64>,
    view_px: RwSignal<f64>,
    follow: RwSignal<bool>,
    wrap: RwSignal<bool>,
    /// While lines are wrapped: what is drawn, how high a row is on average, and what is held in its place.
    block: RwSignal<Block>,
    row_px: RwSignal<f64>,
    hold: StoredValue<Hold>,
    /// The row that a link or a step led to.
    target: RwSignal<Option<u64>>,
    /// What was searched for.
    mark: RwSignal<String>,
    /// What the log's own buttons have to say.
    said: RwSignal<String>,
    /// Where the scroll bar stood when we last looked or put it there.
    scroll: StoredValue<f64>,
    hand: Hand,
    fetching: StoredValue<bool>,
    /// Counts searches.
    asked: StoredValue<u32>,
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
            wrap: RwSignal::new(false),
            block: RwSignal::new(Block::default()),
            row_px: RwSignal::new(ROW_PX),
            hold: StoredValue::new(Hold::End),
            target: RwSignal::new(row),
            mark: RwSignal::new(String::new()),
            said: RwSignal::new(String::new()),
            scroll: StoredValue::new(0.0),
            hand: Hand::new(),
            fetching: StoredValue::new(false),
            asked: StoredValue::new(0),
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

    /// Shows a row and marks it, also when it is the one that was marked already.
    pub fn go_to(self, row: u64) {
        self.follow.set(false);
        self.target.set(Some(row));
        self.hand.goes();
        self.put_in_sight(row);
        self.place();
        self.into_view();
    }

    /// A link to a row leads there; the click on it may have done so already.
    pub fn lead_to(self, row: u64) {
        if self.target.get_untracked() != Some(row) {
            self.go_to(row);
        }
    }

    /// Marks a row that is in sight.
    fn point_at(self, row: u64) {
        self.follow.set(false);
        self.target.set(Some(row));
    }

    fn put_in_sight(self, row: u64) {
        let geometry = self.geometry_untracked();
        let top = geometry.top_for(row);
        self.hold.set_value(Hold::Row { row, part: 0.0, px: geometry.view_px / 3.0 });
        self.cover(top as u64);
        self.top.set(top);
    }

    /// Brings what was found in a row into sight: in a long line it stands far to the right, or far down a wrapped one.
    /// False while it is not drawn.
    fn show_mark(self, row: u64) -> bool {
        let Some(Some(scroller)) = self.scroller.try_get_untracked() else { return false };
        let Some((part, left, right)) = mark_in(&scroller, row) else { return false };
        let width = f64::from(scroller.client_width());
        if left < 0.0 || right > width {
            scroller.set_scroll_left(scroller.scroll_left() + (left - width / 3.0).round() as i32);
        }
        if self.wrap.get_untracked() {
            let px = self.view_px.get_untracked() / 3.0;
            self.hold.set_value(Hold::Row { row, part, px });
            self.place();
        }
        true
    }

    /// Keeps the end in sight while following; keeps the bar true otherwise.
    fn settle(self) {
        let geometry = self.geometry_untracked();
        if self.follow.get_untracked() {
            let top = geometry.max_top();
            self.hold.set_value(Hold::End);
            self.cover(top as u64);
            if self.top.get_untracked() != top {
                self.top.set(top);
            }
            self.place();
        } else if self.wrap.get_untracked() {
            self.cover(self.top.get_untracked() as u64);
            self.place();
        } else if geometry.drifted(self.top.get_untracked(), self.scroll.get_value()) {
            self.place();
        }
    }

    /// Wraps lines or not, and keeps what is in sight there.
    fn set_wrap(self, on: bool) {
        if on == self.wrap.get_untracked() {
            return;
        }
        let geometry = self.geometry_untracked();
        let top = self.top.get_untracked();
        if on {
            self.hold.set_value(match self.target.get_untracked() {
                _ if self.follow.get_untracked() => Hold::End,
                // Wrapped, fewer rows fit: the one that was asked for stays among them.
                Some(row) if (top..top + geometry.view_px / ROW_PX).contains(&(row as f64)) => {
                    Hold::Row { row, part: 0.0, px: ((row as f64 - top) * ROW_PX).min(geometry.view_px / 3.0) }
                }
                _ => Hold::Row { row: top as u64, part: top.fract(), px: 0.0 },
            });
            self.block.set(Block::around(top as u64, geometry.visible(), geometry.total));
        } else {
            self.top.set(match self.hold.get_value() {
                Hold::End => geometry.max_top(),
                Hold::Row { row, part, px } => (row as f64 + part - px / ROW_PX).clamp(0.0, geometry.max_top()),
            });
        }
        self.wrap.set(on);
        self.place();
    }

    /// Makes the block of drawn rows fit for a view that begins with `top`.
    fn cover(self, top: u64) {
        let (visible, total) = (self.geometry_untracked().visible(), self.total.get_untracked());
        if !self.wrap.get_untracked() || self.block.get_untracked().covers(top, visible, total) {
            return;
        }
        // What has been drawn tells how high the rest may be.
        if let Some(px) = self.drawn().and_then(|drawn| drawn.average_px()) {
            self.row_px.set(px.max(ROW_PX));
        }
        self.block.set(Block::around(top, visible, total));
    }

    /// The rows as they stand in the page now.
    fn drawn(self) -> Option<Drawn> {
        browser::browser()?;
        let scroller = self.scroller.try_get_untracked()??;
        Drawn::of(&scroller)
    }

    /// Puts the scroll bar where it belongs, once what is drawn has its new height.
    fn place(self) {
        if browser::browser().is_none() {
            return;
        }
        request_animation_frame(move || {
            let Some(Some(scroller)) = self.scroller.try_get_untracked() else { return };
            // Wrapped rows are held where a hand brings them; the end is not brought back against it.
            let held = self.wrap.get_untracked() && self.hold.get_value() != Hold::End;
            if !held && self.hand.wait(move || self.place()) {
                return;
            }
            let now = f64::from(scroller.scroll_top());
            let wanted = if self.wrap.get_untracked() {
                match self.hold.get_value() {
                    Hold::End => Some(f64::from(scroller.scroll_height() - scroller.client_height())),
                    Hold::Row { row, part, px } => {
                        self.drawn().and_then(|drawn| drawn.place_of(row, part)).map(|at| now + at - px)
                    }
                }
            } else {
                Some(self.geometry_untracked().scroll_at(self.top.get_untracked()))
            };
            // Where it stands already it is left alone: a hand may be on it, and a touch would stop it.
            if let Some(wanted) = wanted.filter(|wanted| (wanted - now).abs() >= 1.0) {
                scroller.set_scroll_top(wanted.round() as i32);
            }
            self.scroll.set_value(f64::from(scroller.scroll_top()));
        });
    }

    /// Where the log lies below the fold of a small screen: scrolls there.
    fn into_view(self) {
        let Some(Some(scroller)) = self.scroller.try_get_untracked() else { return };
        let panel = |selector: &str| scroller.closest(selector).ok().flatten();
        let (Some(log), Some(around)) = (panel(".log"), panel(".run")) else { return };
        let (log, view) = (log.get_bounding_client_rect(), around.get_bounding_client_rect());
        if log.top() < view.top() - 1.0 || (log.bottom() > view.bottom() + 1.0 && log.top() > view.top() + 1.0) {
            around.set_scroll_top(around.scroll_top() + (log.top() - view.top()).round() as i32);
        }
    }

    /// A wheel or a key moves the log, upwards or down.
    fn moved_by_hand(self, up: bool) {
        self.hand.moves();
        let away = up && self.scroller.get_untracked().is_some_and(|scroller| scroller.scroll_top() > 0);
        // At once, and not when the bar has moved: by then the end may have been brought back.
        if away && self.follow.get_untracked() {
            self.follow.set(false);
        }
    }

    fn scrolled(self) {
        let Some(scroller) = self.scroller.get_untracked() else { return };
        let now = f64::from(scroller.scroll_top());
        let before = self.scroll.get_value();
        if (now - before).abs() < 1.0 {
            return;
        }
        self.scroll.set_value(now);
        let at_end =
            if self.wrap.get_untracked() { self.scrolled_wrapped() } else { self.scrolled_by_rows(before, now) };
        let follow = now > before && at_end;
        if self.follow.get_untracked() != follow {
            self.follow.set(follow);
        }
    }

    fn scrolled_by_rows(self, before: f64, now: f64) -> bool {
        let geometry = self.geometry_untracked();
        let top = geometry.moved(self.top.get_untracked(), before, now);
        self.top.set(top);
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
        geometry.at_end(top)
    }

    fn scrolled_wrapped(self) -> bool {
        let Some(drawn) = self.drawn() else { return false };
        let (block, total) = (self.block.get_untracked(), self.total.get_untracked());
        let (row, part) = drawn.top().unwrap_or_else(|above| {
            // Into the empty space, by the bar: what would be there is drawn.
            (block.guess(total, self.row_px.get_untracked(), above), 0.0)
        });
        let at_end = block.end() >= total && drawn.at_end();
        self.hold.set_value(if at_end { Hold::End } else { Hold::Row { row, part, px: 0.0 } });
        self.top.set(row as f64 + part);
        let before = self.block.get_untracked();
        self.cover(row);
        if self.block.get_untracked() != before {
            self.place();
        }
        at_end
    }

    /// First row and number of rows in sight.
    fn in_sight(self) -> (u64, u64) {
        let geometry = self.geometry_untracked();
        match self.wrap.get_untracked() {
            true => self.drawn().map_or((0, 0), |drawn| drawn.in_sight()),
            false => geometry.rows(self.top.get_untracked()),
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
                    if self.wrap.get_untracked() {
                        self.settle();
                    }
                }
                // Again in a while: the connection may be down.
                result => {
                    if let Err(problem) = result {
                        self.said.try_set(sentence(&problem));
                    }
                    set_timeout(
                        move || {
                            self.news.try_update(|n| *n += 1);
                        },
                        Duration::from_secs(2),
                    );
                }
            }
        });
    }

    /// Fetches all of a row of which only the beginning is here; whether it is here now.
    async fn whole(self, index: u64) -> bool {
        let Some(id) = self.id.try_get_value() else { return false };
        match get_row(id, index).await {
            Ok(row) => self.put_whole(index, row),
            Err(problem) => {
                self.said.try_set(sentence(&problem));
                false
            }
        }
    }

    fn put_whole(self, index: u64, row: Row) -> bool {
        let total = self.total.try_get_untracked().unwrap_or_default();
        let page = RowsPage { first: index, rows: vec![row], total };
        self.cache.try_update_value(|cache| cache.put(page));
        self.news.try_update(|n| *n += 1).is_some()
    }

    /// The rows of a window as far as they are known.
    fn rows(self, (first, count): (u64, u64)) -> Vec<(u64, Option<Arc<Row>>)> {
        self.cache.try_update_value(|cache| cache.window(first, count)).unwrap_or_default()
    }
}

/// Not one that opens the link elsewhere.
pub fn plain_click(event: &ev::MouseEvent) -> bool {
    event.button() == 0 && !event.ctrl_key() && !event.meta_key() && !event.shift_key() && !event.alt_key()
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
    let times = RwSignal::new(true);
    Effect::new(move |_| {
        if browser::stored(WRAP).as_deref() == Some("1") {
            log.set_wrap(true);
        }
        if browser::stored(TIMES).as_deref() == Some("0") {
            times.set(false);
        }
    });
    let window = Memo::new(move |_| {
        if log.wrap.get() {
            let block = log.block.get();
            (block.first, block.count.min(log.total.get().saturating_sub(block.first)))
        } else {
            log.geometry().rows(log.top.get())
        }
    });
    let rows = Memo::new(move |_| {
        log.news.track();
        log.rows(window.get())
    });
    Effect::new(move |_| {
        log.news.track();
        let (first, count) = window.get();
        log.fetch(first, count);
    });
    watch_size(log);
    let here = StoredValue::new(here);
    let space = move || {
        if log.wrap.get() {
            let (above, below) = log.block.get().space(log.total.get(), log.row_px.get());
            format!("--above:{}px;--below:{}px", above.round(), below.round())
        } else {
            format!("--h:{}px", log.geometry().height().ceil())
        }
    };
    let shift = move || format!("--shift:{}px", -log.geometry().shift(log.top.get()).round());
    let at_end = move || log.geometry().at_end(log.top.get());
    // A row is drawn anew when it has come, and when the whole of it has.
    let key = |(index, row): &(u64, Option<Arc<Row>>)| (*index, row.as_ref().map(|row| row.text.len()));
    view! {
        <section class="log" class:times=move || times.get()>
            <Toolbar log=log times=times first_error=first_error/>
            <div
                class="log-scroll"
                class:wrap=move || log.wrap.get()
                role="log"
                aria-live="off"
                aria-label=crate::locales::t("log.label")
                tabindex="0"
                node_ref=log.scroller
                on:scroll=move |_| log.scrolled()
                on:wheel=move |event| log.moved_by_hand(event.delta_y() < 0.0)
                on:keydown=move |event| {
                    if ["ArrowUp", "PageUp", "Home"].contains(&event.key().as_str()) {
                        log.moved_by_hand(true);
                    }
                }
                on:touchstart=move |_| log.hand.finger(true)
                on:touchend=move |_| log.hand.finger(false)
                on:touchcancel=move |_| log.hand.finger(false)
            >
                <div class="log-space" style=space>
                    <div class="log-view" class:end=at_end>
                        <div class="log-rows" style=shift>
                            <For each=move || rows.get() key=key let:item>
                                {row::view(item.0, item.1, log, here, notes)}
                            </For>
                        </div>
                        {move || {
                            (log.total.get() == 0)
                                .then(|| view! { <p class="log-empty">{crate::locales::t("log.empty")}</p> })
                        }}
                    </div>
                </div>
            </div>
        </section>
    }
    .into_any()
}

/// Follows the size of the view, whose height the first drawing could only guess.
fn watch_size(log: Log) {
    Effect::new(move |_| {
        let Some(scroller) = log.scroller.get() else { return };
        let width = StoredValue::new(0);
        let measure = move || {
            let Some(Some(scroller)) = log.scroller.try_get_untracked() else { return };
            let px = f64::from(scroller.client_height());
            // Wrapped rows have other heights in another width.
            let wider = width.try_get_value() != Some(scroller.client_width()) && log.wrap.get_untracked();
            width.try_set_value(scroller.client_width());
            if px <= 0.0 || (px == log.view_px.get_untracked() && !wider) {
                return;
            }
            let first_time = log.scroll.get_value() == 0.0;
            log.view_px.set(px);
            match log.target.get_untracked() {
                Some(row) if first_time => {
                    log.put_in_sight(row);
                    log.place();
                }
                _ => log.settle(),
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
