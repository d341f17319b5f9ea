//! A combobox that can be searched. Before the page's program runs it is an ordinary select with the same name.

use super::browser;
use leptos::ev;
use leptos::prelude::*;
use leptos::wasm_bindgen::JsCast;

/// Options shown at once; more are found by typing.
const SHOWN: usize = 100;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// What the form sends.
    pub value: String,
    pub label: String,
    /// What stands beside it.
    pub detail: String,
}

#[component]
pub fn Combo(
    id: &'static str,
    name: &'static str,
    #[prop(into)] label: String,
    choices: Signal<Vec<Choice>>,
    /// Label of the chosen one, or what was typed instead.
    chosen: RwSignal<String>,
    /// Something about all choices: still loading, could not be loaded.
    note: Signal<String>,
    /// Shown where typing finds nothing.
    #[prop(into)]
    nothing: String,
    error: Signal<Option<String>>,
) -> impl IntoView {
    let ready = browser::hydrated();
    let open = RwSignal::new(false);
    // What is typed to search; none while the chosen one is shown.
    let typed = RwSignal::new(None::<String>);
    let active = RwSignal::new(0usize);
    let current = move || choices.with(|list| list.iter().find(|c| chosen.with(|label| c.label == *label)).cloned());
    let value = move || current().map_or_else(|| chosen.get(), |c| c.value);
    let found = Memo::new(move |_| {
        let wanted = typed.get().unwrap_or_default().trim().to_lowercase();
        choices.with(|list| {
            list.iter()
                .filter(|c| {
                    wanted.is_empty() || c.label.to_lowercase().contains(&wanted) || c.value.starts_with(&wanted)
                })
                .take(SHOWN)
                .cloned()
                .collect::<Vec<_>>()
        })
    });
    let show = move || {
        if !open.get_untracked() {
            let at = found.with_untracked(|list| list.iter().position(|c| c.label == chosen.get_untracked()));
            active.set(at.unwrap_or_default());
            open.set(true);
        }
    };
    let choose = move |label: String| {
        chosen.set(label);
        typed.set(None);
        open.set(false);
    };
    let settle = move || {
        if let Some(text) = typed.get_untracked() {
            let text = text.trim().to_owned();
            let known = choices.with_untracked(|list| list.is_empty() || list.iter().any(|c| c.label == text));
            if known && !text.is_empty() {
                chosen.set(text);
            }
        }
        typed.set(None);
        open.set(false);
    };
    let on_key = move |event: ev::KeyboardEvent| {
        let count = found.with_untracked(Vec::len);
        let step = |by: usize| {
            event.prevent_default();
            if open.get_untracked() && count > 0 {
                active.update(|at| *at = (*at + by) % count);
                reveal(&format!("{id}-{}", active.get_untracked()));
            } else {
                show();
            }
        };
        match event.key().as_str() {
            "ArrowDown" => step(1),
            "ArrowUp" => step(count.saturating_sub(1)),
            "Enter" if open.get_untracked() => {
                event.prevent_default();
                match found.with_untracked(|list| list.get(active.get_untracked()).cloned()) {
                    Some(choice) => choose(choice.label),
                    None => settle(),
                }
            }
            "Escape" if open.get_untracked() => {
                event.prevent_default();
                typed.set(None);
                open.set(false);
            }
            "Tab" => settle(),
            _ => {}
        }
    };
    let error_id = format!("{id}-error");
    let select = move || {
        view! {
            <select id=id name=name>
                {choices
                    .get()
                    .into_iter()
                    .map(|c| {
                        let selected = chosen.with(|label| c.label == *label);
                        view! { <option value=c.value selected=selected>{c.label} {(!c.detail.is_empty()).then(|| format!(" · {}", c.detail))}</option> }
                    })
                    .collect_view()}
            </select>
        }
        .into_any()
    };
    let nothing = StoredValue::new(nothing);
    let list_id = format!("{id}-list");
    let controls = list_id.clone();
    let combo = move || {
        let list_id = list_id.clone();
        let controls = controls.clone();
        view! {
            <input type="hidden" name=name value=value/>
            <input
                id=id
                class="combo-input"
                role="combobox"
                autocomplete="off"
                spellcheck="false"
                autocapitalize="off"
                aria-autocomplete="list"
                aria-expanded=move || if open.get() { "true" } else { "false" }
                aria-controls=controls
                aria-activedescendant=move || open.get().then(|| format!("{id}-{}", active.get()))
                prop:value=move || typed.get().unwrap_or_else(|| chosen.get())
                on:click=move |_| show()
                on:focus:target=move |event| event.target().select()
                on:input:target=move |event| {
                    typed.set(Some(event.target().value()));
                    active.set(0);
                    open.set(true);
                }
                on:keydown=on_key
                on:blur=move |_| settle()
            />
            <span class="combo-detail">
                {move || typed.with(Option::is_none).then(|| current().map_or_else(|| note.get(), |c| c.detail))}
            </span>
            <ul class="combo-list" id=list_id role="listbox" aria-label=id hidden=move || !open.get()>
                {move || {
                    found
                        .get()
                        .into_iter()
                        .enumerate()
                        .map(|(i, c)| {
                            let label = c.label.clone();
                            view! {
                                <li
                                    id=format!("{id}-{i}")
                                    role="option"
                                    aria-selected=move || if active.get() == i { "true" } else { "false" }
                                    // Before the input loses its focus.
                                    on:mousedown=move |event| {
                                        event.prevent_default();
                                        choose(label.clone());
                                    }
                                >
                                    <span class="combo-label">{c.label}</span>
                                    <span class="combo-aside">{c.detail}</span>
                                </li>
                            }
                        })
                        .collect_view()
                }}
                {move || {
                    found
                        .with(Vec::is_empty)
                        .then(|| {
                            let text = note.get();
                            view! { <li class="combo-nothing">{if text.is_empty() { nothing.get_value() } else { text }}</li> }
                        })
                }}
            </ul>
        }
        .into_any()
    };
    view! {
        <div class="field combo">
            <label for=id>{label}</label>
            <div class="combo-box" class:ready=move || ready.get()>
                {move || if ready.get() { combo() } else { select() }}
            </div>
            {super::field_error(error, error_id)}
        </div>
    }
    .into_any()
}

fn reveal(id: &str) {
    if let Some(element) = browser::by_id(id) {
        let parent = element.parent_element().and_then(|p| p.dyn_into::<web_sys::HtmlElement>().ok());
        if let Some(parent) = parent {
            let (top, height) = (element.offset_top(), element.offset_height());
            if top < parent.scroll_top() {
                parent.set_scroll_top(top);
            } else if top + height > parent.scroll_top() + parent.client_height() {
                parent.set_scroll_top(top + height - parent.client_height());
            }
        }
    }
}
