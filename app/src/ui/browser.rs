//! What only a browser can do, in one place, so that the rest compiles and runs on both sides. On the server each of
//! these does nothing.

use leptos::ev;
use leptos::prelude::*;
use leptos::wasm_bindgen::JsCast;
use std::time::Duration;
use web_sys::{Element, HtmlElement, Storage, Window};

/// The window, where there is one.
pub fn browser() -> Option<Window> {
    if cfg!(feature = "hydrate") { web_sys::window() } else { None }
}

pub fn by_id(id: &str) -> Option<HtmlElement> {
    browser()?.document()?.get_element_by_id(id)?.dyn_into().ok()
}

/// Milliseconds that only grow, for measuring: not a time of day.
pub fn monotonic_ms() -> f64 {
    browser().and_then(|w| w.performance()).map(|p| p.now()).unwrap_or_default()
}

fn storage() -> Option<Storage> {
    browser()?.local_storage().ok()?
}

pub fn stored(key: &str) -> Option<String> {
    storage()?.get_item(key).ok()?
}

pub fn store(key: &str, value: &str) {
    if let Some(storage) = storage() {
        let _ = storage.set_item(key, value);
    }
}

/// Sets a cookie for a year; an empty value takes it away.
pub fn set_cookie(name: &str, value: &str) {
    let age = if value.is_empty() { 0 } else { 31_536_000 };
    if let Some(document) =
        browser().and_then(|w| w.document()).and_then(|d| d.dyn_into::<web_sys::HtmlDocument>().ok())
    {
        let _ = document.set_cookie(&format!("{name}={value}; Max-Age={age}; Path=/; SameSite=Lax"));
    }
}

pub fn root_element() -> Option<Element> {
    browser()?.document()?.document_element()
}

/// The page's address: its path, and what stands behind it from the `?` on.
pub fn path_and_query() -> (String, String) {
    let part = |of: fn(&web_sys::Location) -> Result<String, leptos::wasm_bindgen::JsValue>| {
        browser().and_then(|window| of(&window.location()).ok()).unwrap_or_default()
    };
    (part(web_sys::Location::pathname), part(web_sys::Location::search))
}

/// Acts once the next frame is on the screen: not as soon as it is drawn, which would take its last steps the processor.
pub fn after_paint(act: impl FnOnce() + 'static) {
    if browser().is_some() {
        request_animation_frame(move || set_timeout(act, Duration::from_millis(40)));
    }
}

pub fn reload() {
    if let Some(window) = browser() {
        let _ = window.location().reload();
    }
}

pub fn page_hidden() -> bool {
    browser().and_then(|w| w.document()).is_some_and(|d| d.hidden())
}

/// Acts whenever somebody looks at the page again, as long as the owner lives.
pub fn when_shown(act: impl Fn() + 'static) {
    if browser().is_none() {
        return;
    }
    let hear = window_event_listener_untyped("visibilitychange", move |_| {
        if !page_hidden() {
            act();
        }
    });
    on_cleanup(move || hear.remove());
}

/// What has the focus; the document's body stands for nothing.
pub fn focused() -> Option<HtmlElement> {
    let document = browser()?.document()?;
    let element: HtmlElement = document.active_element()?.dyn_into().ok()?;
    (element.tag_name() != "BODY").then_some(element)
}

/// Moves the focus once what was just written is on the page: to the first element that `selector` finds.
pub fn focus_soon(selector: &'static str) {
    if browser().is_none() {
        return;
    }
    set_timeout(
        move || {
            let found = browser().and_then(|w| w.document()).and_then(|d| d.query_selector(selector).ok().flatten());
            if let Some(element) = found.and_then(|e| e.dyn_into::<HtmlElement>().ok()) {
                let _ = element.focus();
            }
        },
        Duration::ZERO,
    );
}

/// Gives the focus back to what had it. What lies behind a dialog takes none until the dialog is gone, which may be a frame
/// or more after whoever closed it; once anything else has the focus, that was somebody's wish.
pub fn focus_back(element: HtmlElement) {
    const TRIES: u32 = 30;
    fn again(element: HtmlElement, left: u32) {
        let _ = element.focus();
        if left > 0 && element.is_connected() && focused().is_none() {
            set_timeout(move || again(element, left - 1), Duration::from_millis(16));
        }
    }
    again(element, TRIES);
}

/// A link that reads as a button answers to the space bar too.
pub fn press_on_space(event: ev::KeyboardEvent) {
    if event.key() == " " {
        event.prevent_default();
        click_target(event.target());
    }
}

/// Puts text on the clipboard. `done` learns whether it worked: a page without https may not use the clipboard and
/// falls back to the old command.
pub fn copy(text: String, done: impl FnOnce(bool) + 'static) {
    leptos::task::spawn_local(async move {
        done(copy_now(&text).await);
    });
}

async fn copy_now(text: &str) -> bool {
    #[cfg(feature = "hydrate")]
    {
        let Some(window) = browser() else { return false };
        if window.is_secure_context() {
            let promise = window.navigator().clipboard().write_text(text);
            if leptos::__reexports::wasm_bindgen_futures::JsFuture::from(promise).await.is_ok() {
                return true;
            }
        }
        copy_by_command(text).unwrap_or(false)
    }
    #[cfg(not(feature = "hydrate"))]
    {
        let _ = text;
        false
    }
}

#[cfg(feature = "hydrate")]
fn copy_by_command(text: &str) -> Option<bool> {
    let document = browser()?.document()?;
    let area: web_sys::HtmlTextAreaElement = document.create_element("textarea").ok()?.dyn_into().ok()?;
    area.set_value(text);
    area.set_class_name("offscreen");
    // Inside an open dialog everything else cannot be focused.
    let home =
        document.active_element().and_then(|e| e.parent_element()).or_else(|| document.body().map(Into::into))?;
    home.append_child(&area).ok()?;
    area.select();
    let document: web_sys::HtmlDocument = document.dyn_into().ok()?;
    let done = document.exec_command("copy").ok();
    area.remove();
    done
}

/// True once the page's program runs: what is shown before is what the server wrote.
pub fn hydrated() -> ReadSignal<bool> {
    let (value, set) = signal(false);
    Effect::new(move |_| set.set(true));
    value
}

/// What the inputs of a form hold now.
pub struct FormValues(Option<web_sys::FormData>);

impl FormValues {
    /// Of the form that an element stands in.
    pub fn around(target: Option<web_sys::EventTarget>) -> Self {
        Self(
            target
                .and_then(|t| t.dyn_into::<Element>().ok())
                .and_then(|e| e.closest("form").ok().flatten())
                .and_then(|e| e.dyn_into::<web_sys::HtmlFormElement>().ok())
                .and_then(|form| web_sys::FormData::new_with_form(&form).ok()),
        )
    }

    pub fn get(&self, name: &str) -> String {
        self.0.as_ref().and_then(|data| data.get(name).as_string()).unwrap_or_default()
    }
}

pub fn click_target(target: Option<web_sys::EventTarget>) {
    if let Some(element) = target.and_then(|t| t.dyn_into::<HtmlElement>().ok()) {
        element.click();
    }
}

/// What is selected, if the selection lies in an element that `selector` finds.
pub fn selection_within(selector: &str) -> String {
    let Some(selection) = browser().and_then(|w| w.get_selection().ok().flatten()) else { return String::new() };
    let inside = selection
        .anchor_node()
        .and_then(|n| n.parent_element())
        .is_some_and(|e| e.closest(selector).ok().flatten().is_some());
    if inside { String::from(selection.to_string()) } else { String::new() }
}

pub async fn fetch_text(url: &str) -> Option<String> {
    #[cfg(feature = "hydrate")]
    {
        let response = gloo_net::http::Request::get(url).send().await.ok()?;
        if response.ok() { response.text().await.ok() } else { None }
    }
    #[cfg(not(feature = "hydrate"))]
    {
        let _ = url;
        None
    }
}
