//! Dialogs that are part of a page's address: the server writes them open, so they work before the page's program runs.
//! What lies behind is `inert`, which keeps the keyboard inside without a line of script.

use super::{browser, icon};
use crate::locales::t;
use leptos::ev;
use leptos::prelude::*;
use send_wrapper::SendWrapper;

#[component]
pub fn PageDialog(
    #[prop(into)] title: String,
    #[prop(into, optional)] subtitle: String,
    /// Where closing leads.
    #[prop(into)]
    close: Signal<String>,
    class: &'static str,
    children: Children,
) -> impl IntoView {
    let dialog = NodeRef::<leptos::html::Dialog>::new();
    let closer = NodeRef::<leptos::html::A>::new();
    Effect::new(move |_| {
        let before = browser::focused();
        if let Some(dialog) = dialog.get() {
            // What was focused inside already (by autofocus, or typed into before the program ran) stays so.
            if !dialog.matches(":focus-within").unwrap_or(false) {
                let _ = dialog.focus();
            }
        }
        let before = SendWrapper::new(before);
        on_cleanup(move || {
            let back = move || {
                // Whoever came by the address was nowhere before: the page's content is the next best place, unless
                // another dialog has come in this one's.
                let here = |e: &web_sys::HtmlElement| e.is_connected() && e.closest("dialog").ok().flatten().is_none();
                match before.take().filter(here) {
                    Some(before) => browser::focus_back(before),
                    None => browser::focus_soon("#main:not(:has(dialog.sheet))"),
                }
            };
            set_timeout(back, std::time::Duration::ZERO);
        });
    });
    let on_key = move |event: ev::KeyboardEvent| {
        if event.key() == "Escape" && !event.default_prevented() {
            event.prevent_default();
            // A click, so that whoever asks about unsaved edits hears of it.
            if let Some(closer) = closer.get_untracked() {
                closer.click();
            }
        }
    };
    view! {
        <div class="scrim"></div>
        <dialog
            open
            class=format!("sheet {class}")
            aria-modal="true"
            aria-labelledby="dialog-title"
            tabindex="-1"
            node_ref=dialog
            on:keydown=on_key
        >
            <header class="sheet-head">
                <h2 id="dialog-title">{title}</h2>
                <p class="sheet-sub">{subtitle}</p>
                <a class="icon-button" node_ref=closer href=move || close.get() aria-label=t("dialog.close") title=t("dialog.close")>
                    {icon("close")}
                </a>
            </header>
            {children()}
        </dialog>
    }
    .into_any()
}
