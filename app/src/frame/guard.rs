//! Nobody loses edits by a click or by the way back: leaving a form that was changed asks first.

use crate::locales::t;
use crate::ui::browser;
use leptos::ev;
use leptos::prelude::*;
use leptos::wasm_bindgen::closure::Closure;
use leptos::wasm_bindgen::{JsCast, JsValue};
use leptos_router::NavigateOptions;
use leptos_router::hooks::use_navigate;
use send_wrapper::SendWrapper;
use web_sys::{Element, HtmlAnchorElement, HtmlDialogElement, MouseEvent};

/// Set while a form holds edits that are not saved.
#[derive(Clone, Copy)]
pub struct Unsaved(pub RwSignal<bool>);

impl Unsaved {
    /// The page's, or one that nobody watches.
    pub fn here() -> Self {
        use_context().unwrap_or_else(|| Self(RwSignal::new(false)))
    }

    /// For a form: nothing is unsaved when it opens, and nothing any more when it goes.
    pub fn of_form() -> RwSignal<bool> {
        let Self(unsaved) = Self::here();
        unsaved.set(false);
        on_cleanup(move || {
            unsaved.try_set(false);
        });
        unsaved
    }
}

/// Where one was about to go.
#[derive(Clone)]
enum Way {
    To(String),
    /// One step in the browser's history.
    Back,
}

/// What is asked about just now.
#[derive(Clone, Copy)]
struct Asked(RwSignal<Option<Way>>);

/// For the whole page, before its router: at the window whoever comes first hears of the way back first, and then keeps
/// it from the router.
pub fn hear_the_way_back() {
    let (unsaved, asked) = (RwSignal::new(false), RwSignal::new(None));
    provide_context(Unsaved(unsaved));
    provide_context(Asked(asked));
    if browser::browser().is_none() {
        return;
    }
    // The form's address: the browser has changed it already when it says so.
    let home = StoredValue::new(String::new());
    Effect::new(move |_| {
        if unsaved.get()
            && let Ok(href) = window().location().href()
        {
            home.set_value(href);
        }
    });
    let hear = window_event_listener(ev::popstate, move |event| {
        let home = home.get_value();
        if unsaved.get_untracked() && window().location().href().is_ok_and(|here| here != home) {
            event.stop_immediate_propagation();
            // The page has not moved, so its address goes back to where it was, one step further on.
            if let Ok(history) = window().history() {
                let _ = history.push_state_with_url(&JsValue::NULL, "", Some(&home));
            }
            asked.set(Some(Way::Back));
        }
    });
    on_cleanup(move || hear.remove());
}

/// The link of this page that a click leads along.
fn link_of(event: &MouseEvent) -> Option<HtmlAnchorElement> {
    let element: Element = event.target()?.dyn_into().ok()?;
    let link: HtmlAnchorElement = element.closest("a[href]").ok()??.dyn_into().ok()?;
    let elsewhere = event.meta_key() || event.ctrl_key() || event.shift_key() || event.button() != 0;
    (!elsewhere && link.target().is_empty() && !link.has_attribute("download")).then_some(link)
}

#[component]
pub fn Guard() -> impl IntoView {
    let Unsaved(unsaved) = Unsaved::here();
    let asked = use_context().map_or_else(|| RwSignal::new(None), |Asked(asked)| asked);
    let dialog = NodeRef::<leptos::html::Dialog>::new();
    let navigate = SendWrapper::new(use_navigate());
    let edited = move || unsaved.try_get_untracked().unwrap_or(false);

    Effect::new(move |_| {
        if asked.with(Option::is_some)
            && let Some(dialog) = dialog.get()
        {
            let dialog: &HtmlDialogElement = &dialog;
            if !dialog.open() {
                let _ = dialog.show_modal();
            }
        }
    });
    Effect::new(move |_| {
        // Before the router sees the click.
        let hear = Closure::<dyn Fn(MouseEvent)>::new(move |event: MouseEvent| {
            if let Some(link) = link_of(&event).filter(|_| edited()) {
                event.prevent_default();
                event.stop_propagation();
                asked.set(Some(Way::To(format!("{}{}{}", link.pathname(), link.search(), link.hash()))));
            }
        });
        let clicks = document();
        let _ = clicks.add_event_listener_with_callback_and_bool("click", hear.as_ref().unchecked_ref(), true);
        let hear = SendWrapper::new(hear);
        on_cleanup(move || {
            let clicks = document();
            let _ = clicks.remove_event_listener_with_callback_and_bool("click", hear.as_ref().unchecked_ref(), true);
        });
        let leaving = window_event_listener(ev::beforeunload, move |event| {
            if edited() {
                event.prevent_default();
            }
        });
        on_cleanup(move || leaving.remove());
    });

    let close = move || {
        if let Some(dialog) = dialog.get_untracked() {
            dialog.close();
        }
    };
    let leave = move |_| {
        let way = asked.get_untracked();
        close();
        unsaved.set(false);
        match way {
            Some(Way::To(path)) => navigate(&path, NavigateOptions::default()),
            Some(Way::Back) => {
                let _ = window().history().and_then(|history| history.back());
            }
            None => {}
        }
    };
    view! {
        <dialog class="ask" node_ref=dialog aria-labelledby="ask-title" on:close=move |_| asked.set(None)>
            <h2 id="ask-title">{t("unsaved.title")}</h2>
            <p>{t("unsaved.text")}</p>
            <div class="actions">
                <button class="button" type="button" on:click=move |_| close()>{t("unsaved.stay")}</button>
                <button class="button danger" type="button" on:click=leave>{t("unsaved.leave")}</button>
            </div>
        </dialog>
    }
    .into_any()
}
