//! The page "Service Management": a card a service.

use super::api::{ServiceList, list_services};
use super::detail::registered_badge;
use crate::builds::status_badge;
use crate::frame::ToSignIn;
use crate::loaded::{Page, loaded};
use crate::locales::t;
use crate::model::ServiceCard;
use crate::part::Adding;
use crate::ui::{browser, icon, notice, sentence, when};
use leptos::prelude::*;
use leptos_meta::Title;
use leptos_router::hooks::use_query_map;

const FAVOURITES: &str = "kiops.favourites";

#[component]
pub fn ServicesPage() -> impl IntoView {
    let query = use_query_map();
    let adding = Memo::new(move |_| query.with(|q| q.get_str("add").is_some()));
    let list = Resource::from(loaded(Page::Waits, || (), |()| list_services()));
    view! {
        <Title text=t("nav.services")/>
        <div class="page" inert=move || adding.get()>
            <Suspense fallback=|| view! { <div class="skeleton-cards" aria-hidden="true"></div> }>
                {move || Suspend::new(async move {
                    match list.await {
                        Ok(list) => view! { <Cards list=list/> }.into_any(),
                        Err(problem) if problem.code == "sign_in_needed" => view! { <ToSignIn/> }.into_any(),
                        Err(problem) => notice("failure", "warning", sentence(&problem)),
                    }
                })}
            </Suspense>
        </div>
        {move || adding.get().then(|| view! { <Adding/> })}
    }
}

#[component]
fn Cards(list: ServiceList) -> impl IntoView {
    let search = RwSignal::new(String::new());
    let favourites = RwSignal::new(Vec::<String>::new());
    Effect::new(move |_| {
        if let Some(stored) = browser::stored(FAVOURITES) {
            favourites.set(stored.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect());
        }
    });
    let toggle = move |id: String| {
        favourites.update(|list| match list.iter().position(|f| *f == id) {
            Some(at) => drop(list.remove(at)),
            None => list.push(id),
        });
        browser::store(FAVOURITES, &favourites.get_untracked().join(","));
    };
    let (empty, now_ms) = (list.cards.is_empty(), list.now_ms);
    let cards = StoredValue::new(list.cards);
    let shown = Memo::new(move |_| {
        let wanted = search.get().trim().to_lowercase();
        let mut shown: Vec<ServiceCard> =
            cards.with_value(|c| c.iter().filter(|c| c.name.to_lowercase().contains(&wanted)).cloned().collect());
        favourites.with(|f| shown.sort_by_key(|c| !f.iter().any(|id| id == c.id.as_str())));
        shown
    });
    view! {
        <div class="page-head">
            <h1>{t("nav.services")}</h1>
            <span class="spacer"></span>
            {(!empty)
                .then(|| {
                    view! {
                        <input
                            class="search"
                            type="search"
                            aria-label=t("services.search")
                            placeholder=t("services.search")
                            prop:value=move || search.get()
                            on:input:target=move |event| search.set(event.target().value())
                        />
                    }
                })}
            <a class="button primary" role="button" href="/services?add=1" on:keydown=browser::press_on_space>
                {icon("plus")} {t("services.add")}
            </a>
        </div>
        {if empty {
            view! {
                <div class="empty">
                    {icon("services")}
                    <h2>{t("services.empty_title")}</h2>
                    <p>{t("services.empty_text")}</p>
                    <a class="button primary" href="/services?add=1">{icon("plus")} {t("services.add_first")}</a>
                </div>
            }
                .into_any()
        } else {
            view! {
                <ul class="cards" aria-label=t("nav.services")>
                    <For each=move || shown.get() key=|card| card.id.clone() let:card>
                        {service_card(card, now_ms, favourites, toggle)}
                    </For>
                </ul>
                {move || {
                    shown.with(Vec::is_empty).then(|| view! { <p class="nothing" role="status">{t("services.nothing")}</p> })
                }}
            }
                .into_any()
        }}
    }
    .into_any()
}

fn service_card(
    card: ServiceCard,
    now_ms: i64,
    favourites: RwSignal<Vec<String>>,
    toggle: impl Fn(String) + Copy + Send + Sync + 'static,
) -> AnyView {
    let id = card.id.as_str().to_owned();
    let starred = {
        let id = id.clone();
        Signal::derive(move || favourites.with(|f| f.contains(&id)))
    };
    view! {
        <li class="card">
            <div class="card-head">
                <a class="card-link" href=format!("/services/edit/{id}")>{card.name}</a>
                <button
                    type="button"
                    class="icon-button star"
                    aria-pressed=move || if starred.get() { "true" } else { "false" }
                    aria-label=t("services.favourite")
                    title=t("services.favourite")
                    on:click=move |_| toggle(id.clone())
                >
                    {move || icon(if starred.get() { "star-full" } else { "star" })}
                </button>
            </div>
            <p class="card-branch">{icon("branch")} <span>{card.default_branch}</span></p>
            <p class="card-build">
                {match card.last_build {
                    Some(build) => {
                        view! {
                            {status_badge(&build)}
                            <span class="card-number">"#" {build.number}</span>
                            <span class="card-when">{when(build.finished_at.unwrap_or(build.queued_at), now_ms)}</span>
                        }
                            .into_any()
                    }
                    None => {
                        view! { {registered_badge()} <span class="quiet">{t("services.no_build")}</span> }.into_any()
                    }
                }}
            </p>
        </li>
    }
    .into_any()
}
