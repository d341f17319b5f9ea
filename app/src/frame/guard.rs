//! Nobody loses edits by a click: leaving a form that was changed asks first.

use crate::locales::t;
use leptos::ev;
use leptos::prelude::*;
use leptos::wasm_bindgen::JsCast;
use leptos_router::NavigateOptions;
use leptos_router::hooks::use_navigate;
use send_wrapper::SendWrapper;
use web_sys::{Element, HtmlAnchorElement, HtmlDialogElement};

/// Set while a form holds edits that are not saved.
#[derive(Clone, Copy)]
pub struct Unsaved(pub RwSignal<bool>);

impl Unsaved {
    /// The page's, or one that nobody watches.
    pub fn here() -> Self {
        use_context().unwrap_or_else(|| Self(RwSignal::new(false)))
    }
}

#[component]
pub fn Guard() -> impl IntoView {
    let Unsaved(unsaved) = Unsaved::here();
    let target = RwSignal::new(None::<String>);
    let dialog = NodeRef::<leptos::html::Dialog>::new();
    let navigate = SendWrapper::new(use_navigate());

    Effect::new(move |_| {
        // Before the router sees the click.
        let clicks = document();
        let hear =
            leptos::wasm_bindgen::closure::Closure::<dyn Fn(ev::MouseEvent)>::new(move |event: ev::MouseEvent| {
                if !unsaved.try_get_untracked().unwrap_or(false)
                    || event.meta_key()
                    || event.ctrl_key()
                    || event.shift_key()
                {
                    return;
                }
                let link = event
                    .target()
                    .and_then(|t| t.dyn_into::<Element>().ok())
                    .and_then(|e| e.closest("a[href]").ok().flatten())
                    .and_then(|e| e.dyn_into::<HtmlAnchorElement>().ok());
                if let Some(link) = link.filter(|a| a.target().is_empty() && !a.has_attribute("download")) {
                    event.prevent_default();
                    event.stop_propagation();
                    target.set(Some(format!("{}{}{}", link.pathname(), link.search(), link.hash())));
                    if let Some(dialog) = dialog.get_untracked() {
                        let dialog: &HtmlDialogElement = &dialog;
                        let _ = dialog.show_modal();
                    }
                }
            });
        let _ = clicks.add_event_listener_with_callback_and_bool("click", hear.as_ref().unchecked_ref(), true);
        let hear = SendWrapper::new(hear);
        on_cleanup(move || {
            let document = document();
            let _ = document.remove_event_listener_with_callback_and_bool("click", hear.as_ref().unchecked_ref(), true);
        });
        let leaving = window_event_listener(ev::beforeunload, move |event| {
            if unsaved.try_get_untracked().unwrap_or(false) {
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
        close();
        unsaved.set(false);
        if let Some(path) = target.get_untracked() {
            navigate(&path, NavigateOptions::default());
        }
    };
    view! {
        <dialog class="ask" node_ref=dialog aria-labelledby="ask-title">
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
