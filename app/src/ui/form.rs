//! Forms that work before the page's program has loaded, and keep what was typed when something is wrong.

use super::{Post, browser};
use crate::error::{Problem, ProblemStatus};
use crate::locales::{t, tm};
use leptos::prelude::*;
use leptos_router::hooks::use_query_map;
use leptos_router::params::ParamsMap;

/// What a plain form brought back in the page's address: what was wrong and what was typed.
#[derive(Clone, Debug, Default)]
pub struct Returned {
    pub problem: Option<Problem>,
    values: ParamsMap,
}

impl Returned {
    /// What `form` brought back, if it was this one.
    pub fn of(form: &str) -> Self {
        let map = use_query_map().get_untracked();
        if map.get_str("f") != Some(form) {
            return Self::default();
        }
        let problem = map.get_str("p").map(|code| {
            let mut problem = Problem::new(ProblemStatus::Invalid, code);
            problem.field = map.get("pf");
            problem.args = map
                .clone()
                .into_iter()
                .filter_map(|(name, value)| Some((name.strip_prefix("pa.")?.to_owned(), value)))
                .collect();
            problem
        });
        Self { problem, values: map }
    }

    /// What was typed into a field, or `other`.
    pub fn value(&self, name: &str, other: &str) -> String {
        if self.problem.is_none() {
            return other.to_owned();
        }
        self.values.get(&format!("v.{name}")).unwrap_or_default()
    }
}

/// A problem's sentence.
pub fn sentence(problem: &Problem) -> String {
    let key = format!("problem.{}", problem.code);
    if crate::locales::has(&key) {
        tm(&key, &problem.args)
    } else {
        crate::locales::tf("problem.unknown", &[("code", &problem.code)])
    }
}

/// The problems of a form: what the last answer said, else what a plain form brought back.
#[derive(Clone, Copy)]
pub struct Problems(Signal<Option<Problem>>);

impl Problems {
    pub fn new(post: Post, returned: &Returned) -> Self {
        let before = returned.problem.clone();
        let problem = Signal::derive(move || match post.said() {
            None => before.clone(),
            Some(said) => said.err(),
        });
        // The input may be out of sight. What a plain form brought back is focused by the browser itself.
        Effect::new(move |asked: Option<()>| {
            if problem.with(|p| p.as_ref().is_some_and(|p| p.field.is_some())) && asked.is_some() {
                browser::focus_soon("[aria-invalid=true]");
            }
        });
        Self(problem)
    }

    /// The sentence for one input, by its name in the API.
    pub fn at(self, field: &'static str) -> Signal<Option<String>> {
        let problem = self.0;
        Signal::derive(move || problem.with(|p| p.as_ref().filter(|p| p.field.as_deref() == Some(field)).map(sentence)))
    }

    /// The sentence that belongs to no input of `known`.
    pub fn elsewhere(self, known: &'static [&'static str]) -> Signal<Option<String>> {
        let problem = self.0;
        Signal::derive(move || {
            problem
                .with(|p| p.as_ref().filter(|p| !p.field.as_deref().is_some_and(|f| known.contains(&f))).map(sentence))
        })
    }

    pub fn code(self) -> Signal<Option<String>> {
        let problem = self.0;
        Signal::derive(move || problem.with(|p| p.as_ref().map(|p| p.code.clone())))
    }
}

/// When somebody else has saved meanwhile: the way to what is stored now. It asks the server for the whole page anew, so
/// that nothing of the old one stays.
#[component]
pub fn LoadNewer(problems: Problems, page: String) -> impl IntoView {
    let code = problems.code();
    move || {
        (code.get().as_deref() == Some("settings_conflict"))
            .then(|| view! { <a class="button" href=page.clone() rel="external">{t("settings.load_newer")}</a> })
    }
}

/// A labelled input with its hint and its error.
#[component]
pub fn Field(
    /// Id and form name.
    name: &'static str,
    #[prop(into)] label: String,
    #[prop(into, optional)] value: String,
    #[prop(default = "text")] kind: &'static str,
    #[prop(into, optional)] hint: String,
    #[prop(into, optional)] placeholder: String,
    #[prop(default = "off")] autocomplete: &'static str,
    #[prop(optional)] required: bool,
    #[prop(optional)] readonly: bool,
    /// Letters are not words: no spelling marks, monospace.
    #[prop(optional)]
    code: bool,
    #[prop(optional)] prefix: &'static str,
    error: Signal<Option<String>>,
) -> impl IntoView {
    let id = format!("{prefix}{name}");
    let hint_id = format!("{id}-hint");
    let error_id = format!("{id}-error");
    let described = {
        let (hint_id, error_id, has_hint) = (hint_id.clone(), error_id.clone(), !hint.is_empty());
        move || match (has_hint, error.with(Option::is_some)) {
            (true, true) => Some(format!("{hint_id} {error_id}")),
            (true, false) => Some(hint_id.clone()),
            (false, true) => Some(error_id.clone()),
            (false, false) => None,
        }
    };
    view! {
        <div class="field">
            <label for=id.clone()>{label}</label>
            <input
                id=id
                name=name
                type=kind
                class:code=code
                value=value
                placeholder=placeholder
                autocomplete=autocomplete
                required=required
                readonly=readonly
                spellcheck="false"
                autocapitalize="off"
                autofocus=error.with_untracked(Option::is_some)
                aria-invalid=move || error.with(Option::is_some).then_some("true")
                aria-describedby=described
            />
            {(!hint.is_empty()).then(|| view! { <p class="hint" id=hint_id>{hint}</p> })}
            {field_error(error, error_id)}
        </div>
    }
    .into_any()
}

/// An error below an input; its place is announced when it comes.
pub fn field_error(error: Signal<Option<String>>, id: String) -> impl IntoView {
    view! {
        <p class="error" id=id role="alert">
            {move || error.get()}
        </p>
    }
}

/// An error of a whole form.
#[component]
pub fn FormError(error: Signal<Option<String>>) -> impl IntoView {
    view! {
        <div class="form-error" role="alert">
            {move || error.get()}
        </div>
    }
}
