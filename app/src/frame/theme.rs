//! Light, dark, or as the system says. The choice is a cookie, so that the first byte of a page has it already.

use crate::locales::t;
use crate::ui::{browser, icon};
use leptos::prelude::*;

const THEME_COOKIE: &str = "kiops_theme";

/// What the request's cookie says, for the page's root element.
#[cfg(feature = "ssr")]
pub fn theme_of_request() -> Option<&'static str> {
    match crate::call::cookie(THEME_COOKIE)?.as_str() {
        "light" => Some("light"),
        "dark" => Some("dark"),
        _ => None,
    }
}

#[cfg(feature = "ssr")]
fn active() -> &'static str {
    theme_of_request().unwrap_or("system")
}

#[cfg(not(feature = "ssr"))]
fn active() -> &'static str {
    match browser::root_element().and_then(|root| root.get_attribute("data-theme")).as_deref() {
        Some("light") => "light",
        Some("dark") => "dark",
        _ => "system",
    }
}

#[component]
pub fn ThemeSwitch() -> impl IntoView {
    let theme = RwSignal::new(active());
    let choose = move |name: &'static str| {
        theme.set(name);
        let chosen = if name == "system" { "" } else { name };
        browser::set_cookie(THEME_COOKIE, chosen);
        if let Some(root) = browser::root_element() {
            let _ = if chosen.is_empty() {
                root.remove_attribute("data-theme")
            } else {
                root.set_attribute("data-theme", chosen)
            };
        }
    };
    view! {
        <div class="segmented" role="radiogroup" aria-label=t("theme.label")>
            {[("system", "theme.system"), ("light", "theme.light"), ("dark", "theme.dark")]
                .into_iter()
                .map(|(name, key)| {
                    view! {
                        <label title=t(key)>
                            <input
                                class="offscreen"
                                type="radio"
                                name="theme"
                                checked=theme.get_untracked() == name
                                on:change=move |_| choose(name)
                            />
                            {icon(name)}
                            <span class="offscreen">{t(key)}</span>
                        </label>
                    }
                })
                .collect_view()}
        </div>
    }
    .into_any()
}
