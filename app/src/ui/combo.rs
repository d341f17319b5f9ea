//! A combobox that can be searched. Before the page's program runs it is an input with suggestions of the same name.
//!
//! What was typed is never thrown away: a text that is no choice stays where it is, and its owner says that it is wrong.

use super::browser;
use leptos::ev;
use leptos::prelude::*;
use leptos::wasm_bindgen::JsCast;

/// Options shown at once; more are found by typing.
const SHOWN: usize = 100;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Tells it from all others: two may read the same.
    pub key: String,
    /// What the form sends.
    pub value: String,
    pub label: String,
    /// What stands beside it.
    pub detail: String,
}

/// The choice with this key, or else the first that reads so.
pub fn choice_of<'a>(choices: &'a [Choice], text: &str) -> Option<&'a Choice> {
    choices.iter().find(|c| c.key == text).or_else(|| choices.iter().find(|c| c.label == text))
}

/// Those that a search finds.
fn search(choices: &[Choice], text: &str) -> Vec<Choice> {
    let wanted = text.trim().to_lowercase();
    let fits =
        |c: &&Choice| wanted.is_empty() || c.label.to_lowercase().contains(&wanted) || c.value.starts_with(&wanted);
    choices.iter().filter(fits).take(SHOWN).cloned().collect()
}

#[component]
pub fn Combo(
    id: &'static str,
    name: &'static str,
    #[prop(into)] label: String,
    choices: Signal<Vec<Choice>>,
    /// Key of the chosen one, or what was typed instead.
    chosen: RwSignal<String>,
    /// Something about all choices: that they are still loading.
    note: Signal<String>,
    /// Shown where typing finds nothing.
    #[prop(into)]
    nothing: String,
    error: Signal<Option<String>>,
    /// Somebody is about to choose.
    on_look: impl Fn() + Copy + Send + Sync + 'static,
) -> impl IntoView {
    let ready = browser::hydrated();
    let input = NodeRef::<leptos::html::Input>::new();
    let open = RwSignal::new(false);
    // What is typed to search; none while the chosen one is shown.
    let typed = RwSignal::new(None::<String>);
    // Key of the option that Enter takes: choices may come and go meanwhile.
    let active = RwSignal::new(String::new());
    let current = Memo::new(move |_| choices.with(|list| chosen.with(|key| choice_of(list, key).cloned())));
    let value = move || current.with(|c| c.as_ref().map(|c| c.value.clone())).unwrap_or_else(|| chosen.get());
    let text = Memo::new(move |_| {
        let shown = || current.with(|c| c.as_ref().map(|c| c.label.clone())).unwrap_or_else(|| chosen.get());
        typed.get().unwrap_or_else(shown)
    });
    let found = Memo::new(move |_| choices.with(|list| search(list, typed.get().as_deref().unwrap_or_default())));
    let at = move || found.with(|list| active.with(|key| list.iter().position(|c| c.key == *key)).unwrap_or_default());
    let show = move || {
        if !open.get_untracked() {
            active.set(current.with_untracked(|c| c.as_ref().map(|c| c.key.clone())).unwrap_or_default());
            open.set(true);
        }
    };
    let choose = move |key: String| {
        chosen.set(key);
        typed.set(None);
        open.set(false);
    };
    let settle = move || {
        open.set(false);
        if let Some(text) = typed.get_untracked() {
            let text = text.trim().to_owned();
            // Of two that read the same the chosen one stays chosen.
            if current.with_untracked(|c| c.as_ref().is_none_or(|c| c.label != text)) {
                chosen
                    .set(choices.with_untracked(|list| choice_of(list, &text).map(|c| c.key.clone())).unwrap_or(text));
            }
            typed.set(None);
        }
    };
    let on_input = move |text: String| {
        let exact = choices.with_untracked(|list| choice_of(list, text.trim()).map(|c| c.key.clone()));
        typed.set(Some(text));
        active.set(exact.unwrap_or_default());
        open.set(true);
    };
    let on_key = move |event: ev::KeyboardEvent| {
        let count = found.with_untracked(Vec::len);
        let step = |by: usize| {
            event.prevent_default();
            if open.get_untracked() && count > 0 {
                let next = (untrack(at) + by) % count;
                active.set(found.with_untracked(|list| list[next].key.clone()));
                reveal(&format!("{id}-{next}"));
            } else {
                show();
            }
        };
        match event.key().as_str() {
            "ArrowDown" => step(1),
            "ArrowUp" => step(count.saturating_sub(1)),
            "Enter" if open.get_untracked() => {
                event.prevent_default();
                match found.with_untracked(|list| list.get(untrack(at)).map(|c| c.key.clone())) {
                    Some(key) => choose(key),
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
    // The input's text follows by hand: what was typed before this program ran counts.
    Effect::new(move |begun: Option<bool>| {
        let Some(input) = input.get() else { return false };
        let (text, there) = (text.get(), input.value());
        if begun != Some(true) && there != text {
            typed.set(Some(there));
            settle();
        } else if there != text {
            input.set_value(&text);
        }
        true
    });
    let error_id = format!("{id}-error");
    let (list_id, suggestions_id) = (format!("{id}-list"), format!("{id}-suggestions"));
    let (controls, suggestions, described) = (list_id.clone(), suggestions_id.clone(), error_id.clone());
    let has_error = move || error.with(Option::is_some);
    let written = text.get_untracked();
    view! {
        <div class="field combo">
            <label for=id>{label.clone()}</label>
            <div class="combo-box" class:wrong=has_error>
                <input type="hidden" name=move || ready.get().then_some(name) value=value/>
                <input
                    id=id
                    class="combo-input"
                    node_ref=input
                    name=move || (!ready.get()).then_some(name)
                    list=move || (!ready.get()).then(|| suggestions.clone())
                    role=move || ready.get().then_some("combobox")
                    value=written
                    autocomplete="off"
                    spellcheck="false"
                    autocapitalize="off"
                    autofocus=error.with_untracked(Option::is_some)
                    aria-autocomplete=move || ready.get().then_some("list")
                    aria-expanded=move || ready.get().then(|| if open.get() { "true" } else { "false" })
                    aria-controls=move || ready.get().then(|| controls.clone())
                    aria-activedescendant=move || {
                        (open.get() && !found.with(Vec::is_empty)).then(|| format!("{id}-{}", at()))
                    }
                    aria-invalid=move || has_error().then_some("true")
                    aria-describedby=move || has_error().then(|| described.clone())
                    on:click=move |_| show()
                    on:focus:target=move |event| {
                        event.target().select();
                        on_look();
                    }
                    on:input:target=move |event| on_input(event.target().value())
                    on:keydown=on_key
                    on:blur=move |_| settle()
                />
                <span class="combo-detail">
                    {move || {
                        typed
                            .with(Option::is_none)
                            .then(|| current.with(|c| c.as_ref().map(|c| c.detail.clone()).filter(|d| !d.is_empty())))
                            .flatten()
                            .unwrap_or_else(|| note.get())
                    }}
                </span>
                {move || {
                    (!ready.get())
                        .then(|| {
                            let options = choices.get_untracked().into_iter();
                            view! {
                                <datalist id=suggestions_id.clone()>
                                    {options.map(|c| view! { <option value=c.key></option> }).collect_view()}
                                </datalist>
                            }
                        })
                }}
                <div class="combo-popup" hidden=move || !open.get()>
                    <ul class="combo-list" id=list_id role="listbox" aria-label=label hidden=move || found.with(Vec::is_empty)>
                        {move || {
                            found
                                .get()
                                .into_iter()
                                .enumerate()
                                .map(|(i, c)| {
                                    let key = c.key.clone();
                                    view! {
                                        <li
                                            id=format!("{id}-{i}")
                                            role="option"
                                            aria-selected=move || if at() == i { "true" } else { "false" }
                                            // Before the input loses its focus.
                                            on:mousedown=move |event| {
                                                event.prevent_default();
                                                choose(key.clone());
                                            }
                                        >
                                            <span class="combo-label">{c.label}</span>
                                            <span class="combo-aside">{c.detail}</span>
                                        </li>
                                    }
                                })
                                .collect_view()
                        }}
                    </ul>
                    <p class="combo-nothing" role="status">
                        {move || (open.get() && found.with(Vec::is_empty)).then(|| nothing.clone())}
                    </p>
                </div>
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

#[cfg(test)]
mod tests {
    use super::*;

    fn choices() -> Vec<Choice> {
        [("main", "main"), ("v1", "v1"), ("refs/tags/v1", "v1"), ("refs/tags/v2", "v2"), ("feature/V1", "feature/V1")]
            .map(|(key, label)| Choice {
                key: key.into(),
                value: format!("c0ffee:{key}"),
                label: label.into(),
                ..Choice::default()
            })
            .into()
    }

    #[test]
    fn a_text_means_the_key_and_only_then_what_reads_so() {
        let choices = choices();
        let key = |text| choice_of(&choices, text).map(|c| c.key.as_str());
        assert_eq!(key("v1"), Some("v1"));
        assert_eq!(key("refs/tags/v1"), Some("refs/tags/v1"));
        assert_eq!(key("v2"), Some("refs/tags/v2"));
        assert_eq!(key("mian"), None);
        assert_eq!(key(""), None);
    }

    #[test]
    fn searching_is_by_any_part_of_the_name_or_the_beginning_of_the_commit() {
        let choices = choices();
        let keys = |text| search(&choices, text).into_iter().map(|c| c.key).collect::<Vec<_>>();
        assert_eq!(keys(" V1 "), ["v1", "refs/tags/v1", "feature/V1"]);
        assert_eq!(keys("c0ff").len(), 5);
        assert_eq!(keys("").len(), 5);
        assert!(keys("mian").is_empty());
    }
}
