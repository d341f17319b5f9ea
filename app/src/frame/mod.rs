//! The frame around the pages: navigation, top bar, theme and language, the banner while the connection is down, and
//! the question before unsaved edits are left.

mod guard;
mod theme;

pub use guard::{Guard, Unsaved, hear_the_way_back};
#[cfg(feature = "ssr")]
pub use theme::theme_of_request;

use crate::accounts::api::{SignOut, who_am_i};
use crate::loaded::{Page, loaded};
use crate::locales::{Lang, t};
use crate::part::ServicePart;
use crate::ui::{Post, PostForm, browser, icon};
use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::components::{Outlet, Redirect};
use leptos_router::hooks::{use_location, use_query_map};
use theme::ThemeSwitch;

/// Whether the live connection is down: set by whoever holds one.
#[derive(Clone, Copy)]
pub struct ConnectionLost(pub RwSignal<bool>);

/// A dialog is open when the address says so; what lies behind it cannot be reached then.
pub fn dialog_open() -> Memo<bool> {
    let query = use_query_map();
    Memo::new(move |_| query.with(|q| ["build", "add", "edit"].iter().any(|name| q.get_str(name).is_some())))
}

#[component]
pub fn Frame() -> impl IntoView {
    let lost = RwSignal::new(false);
    provide_context(ConnectionLost(lost));
    ServicePart::provide();
    let who = Resource::from(loaded(Page::Waits, || (), |()| who_am_i()));
    let behind = dialog_open();
    let path = use_location().pathname;
    let at = move |part: &'static str| move || path.with(|path| path.starts_with(part)).then_some("page");
    view! {
        <Title formatter=|title: String| if title.is_empty() { "KIOPS".to_owned() } else { format!("{title} · KIOPS") }/>
        <a class="skip" href="#main" inert=move || behind.get()>{t("frame.skip")}</a>
        <div class="frame">
            <nav class="side" aria-label=t("frame.navigation") inert=move || behind.get()>
                <p class="brand"><span class="mark" aria-hidden="true"></span>"KIOPS"</p>
                <a class="side-link" href="/services" aria-current=at("/services")>
                    {icon("services")}
                    {t("nav.services")}
                </a>
                <a class="side-link" href="/settings/check" rel="external" aria-current=at("/settings")>
                    {icon("settings")}
                    {t("nav.settings")}
                </a>
            </nav>
            <header class="top" inert=move || behind.get()>
                <span class="organisation">{t("frame.organisation")}</span>
                <span class="spacer"></span>
                <ThemeSwitch/>
                <Suspense>
                    {move || Suspend::new(async move {
                        match who.await {
                            Ok(Some(session)) => view! { <Account name=session.name/> }.into_any(),
                            Ok(None) => view! { <ToSignIn/> }.into_any(),
                            Err(_) => ().into_any(),
                        }
                    })}
                </Suspense>
            </header>
            <main id="main" tabindex="-1">
                <Outlet/>
            </main>
        </div>
        <div class="banner" role="status">
            {move || lost.get().then(|| view! { <p>{icon("offline")} {t("frame.connection_lost")}</p> })}
        </div>
        <Guard/>
    }
    .into_any()
}

/// To the sign-in page and back afterwards.
#[component]
pub fn ToSignIn() -> impl IntoView {
    let location = use_location();
    let here = {
        let path = location.pathname.get_untracked();
        let query = location.query.get_untracked().to_query_string();
        format!("{path}{query}")
    };
    let next = crate::ui::query::Query::default().with("next", &here);
    view! { <Redirect path=format!("/sign-in?{next}")/> }
}

#[component]
fn Account(name: String) -> impl IntoView {
    let post = Post::to::<SignOut>(|()| ());
    let active = Lang::parse(&t("lang.code")).unwrap_or_default();
    let label = format!("{}: {name}", t("frame.account"));
    view! {
        <details class="menu">
            <summary aria-label=label>
                {icon("account")}
                <span>{name}</span>
                {icon("down")}
            </summary>
            <div class="menu-body">
                <fieldset class="menu-group">
                    <legend>{t("frame.language")}</legend>
                    {Lang::ALL
                        .into_iter()
                        .map(|lang| {
                            let choose = move |_| {
                                browser::set_cookie(crate::locales::LANG_COOKIE, lang.code());
                                browser::reload();
                            };
                            view! {
                                <label class="menu-radio">
                                    <input
                                        type="radio"
                                        name="lang"
                                        lang=lang.code()
                                        checked=lang == active
                                        on:change=choose
                                    />
                                    {lang.name()}
                                </label>
                            }
                        })
                        .collect_view()}
                </fieldset>
                <PostForm post=post>
                    <button class="menu-item" type="submit">{icon("out")} {t("frame.sign_out")}</button>
                </PostForm>
            </div>
        </details>
    }
    .into_any()
}

/// Any address that is no page.
#[component]
pub fn NotFoundPage() -> impl IntoView {
    #[cfg(feature = "ssr")]
    crate::call::page_status(&crate::error::Problem::not_found());
    view! {
        <Title text=t("not_found.title")/>
        <main class="door">
            <div class="door-card">
                <h1>{t("not_found.title")}</h1>
                <p>{t("not_found.text")}</p>
                <a class="button primary" href="/services">{t("nav.services")}</a>
            </div>
        </main>
    }
    .into_any()
}
