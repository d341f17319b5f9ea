//! Badge, icon, time, copy button, notice.

use super::{browser, format};
use crate::locales::t;
use leptos::prelude::*;

/// An icon is a mask in the style sheet: no bytes of the page's program, and no flicker.
pub fn icon(name: &'static str) -> AnyView {
    view! { <span class=format!("icon icon-{name}") aria-hidden="true"></span> }.into_any()
}

/// A state as colour, icon and word.
pub fn badge(tone: &'static str, icon_name: &'static str, text: String) -> AnyView {
    view! { <span class=format!("badge tone-{tone}")>{icon(icon_name)} {text}</span> }.into_any()
}

/// A moment, told from now; the exact one on hover.
pub fn when(at_ms: i64, now_ms: i64) -> AnyView {
    view! {
        <time datetime=format::iso(at_ms) title=format::moment(at_ms)>
            {format::ago(at_ms, now_ms)}
        </time>
    }
    .into_any()
}

/// A box that says something beside its form.
pub fn notice(tone: &'static str, icon_name: &'static str, text: String) -> AnyView {
    view! { <p class=format!("notice tone-{tone}")>{icon(icon_name)} <span>{text}</span></p> }.into_any()
}

/// Copies a text and says for a moment that it did.
#[component]
pub fn CopyButton(
    /// The accessible name.
    #[prop(into)]
    label: String,
    #[prop(into)] text: Signal<String>,
) -> impl IntoView {
    let state = RwSignal::new(None::<bool>);
    let copy = move |_| {
        browser::copy(text.get_untracked(), move |done| {
            state.try_set(Some(done));
            set_timeout(
                move || {
                    state.try_set(None);
                },
                std::time::Duration::from_secs(2),
            );
        });
    };
    let title = label.clone();
    view! {
        <button type="button" class="icon-button" title=title on:click=copy>
            {move || icon(if state.get() == Some(true) { "check" } else { "copy" })}
            <span class="offscreen">{label}</span>
            <span class="offscreen" role="status">
                {move || match state.get() {
                    Some(true) => t("copy.done"),
                    Some(false) => t("copy.failed"),
                    None => String::new(),
                }}
            </span>
        </button>
    }
    .into_any()
}

/// A switch: a checkbox that says so.
#[component]
pub fn Switch(
    name: &'static str,
    #[prop(into)] label: String,
    #[prop(into, optional)] hint: String,
    checked: bool,
    #[prop(optional)] disabled: bool,
) -> impl IntoView {
    let hint_id = format!("{name}-hint");
    let described = (!hint.is_empty()).then(|| hint_id.clone());
    view! {
        <div class="switch-field">
            <label class="switch">
                <input
                    type="checkbox"
                    role="switch"
                    name=name
                    value="true"
                    checked=checked
                    disabled=disabled
                    aria-describedby=described
                />
                <span>{label}</span>
            </label>
            {(!hint.is_empty()).then(|| view! { <p class="hint" id=hint_id>{hint}</p> })}
        </div>
    }
    .into_any()
}

/// A card that is a radio.
pub fn radio_card(
    name: &'static str,
    value: &'static str,
    label: String,
    hint: String,
    checked: bool,
    disabled: bool,
) -> AnyView {
    let hint_id = format!("{name}-{value}-hint");
    view! {
        <label class="radio-card" class:off=disabled>
            <input
                type="radio"
                name=name
                value=value
                checked=checked
                disabled=disabled
                aria-label=label.clone()
                aria-describedby=hint_id.clone()
            />
            <span class="radio-title">{label}</span>
            <span class="radio-hint" id=hint_id>{hint}</span>
        </label>
    }
    .into_any()
}
