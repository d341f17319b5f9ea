//! Build History: newest first, by page, by status and branch.

use super::api::{BeginBuild, get_history};
use super::run::request_key;
use super::{ref_text, status_badge};
use crate::locales::{t, tf};
use crate::model::{BuildHead, HistoryPage, HistoryQuery, StatusFilter};
use crate::services::Shown;
use crate::services::api::list_refs;
use crate::ui::query::Query;
use crate::ui::{CopyButton, FormError, Problems, Returned, format, icon, notice, sentence, when};
use leptos::ev;
use leptos::form::ActionForm;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos::wasm_bindgen::JsCast;
use leptos_router::NavigateOptions;
use leptos_router::hooks::{use_navigate, use_query_map};

const PAGE: u32 = 25;

const FILTERS: [(&str, StatusFilter, &str); 4] = [
    ("success", StatusFilter::Success, "status.success"),
    ("failure", StatusFilter::Failure, "status.failure"),
    ("in_progress", StatusFilter::InProgress, "status.in_progress"),
    ("cancelled", StatusFilter::Cancelled, "status.cancelled"),
];

#[component]
pub fn HistoryTab(shown: Shown) -> impl IntoView {
    let query = use_query_map();
    let wanted = Memo::new(move |_| {
        query.with(|q| HistoryQuery {
            status: q.get_str("status").and_then(|s| FILTERS.iter().find(|(name, ..)| *name == s)).map(|(_, f, _)| *f),
            branch: q.get("branch").filter(|b| !b.is_empty()),
            before: q.get_str("before").and_then(|n| n.parse().ok()),
            after: q.get_str("after").and_then(|n| n.parse().ok()),
            limit: Some(PAGE),
        })
    });
    let service = shown.detail.with_untracked(|d| d.id.clone());
    let base = format!("/services/edit/{service}");
    let page =
        Resource::new_blocking(move || (service.clone(), wanted.get()), |(service, query)| get_history(service, query));
    let start = ServerAction::<BeginBuild>::new();
    let problems = Problems::new(move || start.value().get(), &Returned::of("start"));
    let key = request_key();
    let link = {
        let base = base.clone();
        move |before: Option<i64>, after: Option<i64>| {
            let mut to = Query::default().with("build", "history");
            query.with(|q| {
                for name in ["status", "branch"] {
                    to.set(name, q.get_str(name).unwrap_or_default());
                }
            });
            to.set("before", &before.map(|n| n.to_string()).unwrap_or_default());
            to.set("after", &after.map(|n| n.to_string()).unwrap_or_default());
            format!("{base}?{to}")
        }
    };
    view! {
        <Filters shown=shown base=base.clone()/>
        <FormError error=problems.elsewhere(&[])/>
        <Transition fallback=|| view! { <div class="skeleton-table" aria-hidden="true"></div> }>
            {move || {
                let (base, key, link) = (base.clone(), key.clone(), link.clone());
                Suspend::new(async move {
                    match page.await {
                        Err(problem) => notice("failure", "warning", sentence(&problem)),
                        Ok(page) if page.builds.is_empty() => {
                            view! {
                                <div class="empty">
                                    {icon("build")}
                                    <h3>{t("history.empty_title")}</h3>
                                    <p>{t("history.empty_text")}</p>
                                </div>
                            }
                                .into_any()
                        }
                        Ok(page) => table(page, base, key, start, link),
                    }
                })
            }}
        </Transition>
    }
    .into_any()
}

fn table(
    page: HistoryPage,
    base: String,
    key: String,
    start: ServerAction<BeginBuild>,
    link: impl Fn(Option<i64>, Option<i64>) -> String,
) -> AnyView {
    let now_ms = page.now_ms;
    let older = page.has_older.then(|| link(page.builds.last().map(|b| b.number), None));
    let newer = page.has_newer.then(|| link(None, page.builds.first().map(|b| b.number)));
    let range = match (page.builds.last(), page.builds.first()) {
        (Some(last), Some(first)) => {
            tf("history.range", &[("from", &last.number.to_string()), ("to", &first.number.to_string())])
        }
        _ => String::new(),
    };
    view! {
        <div class="table-scroll" tabindex="0" role="region" aria-label=t("build.history")>
            <table class="history">
                <thead>
                    <tr>
                        <th scope="col">{t("history.number")}</th>
                        <th scope="col">{t("history.branch")}</th>
                        <th scope="col">{t("history.commit")}</th>
                        <th scope="col">{t("history.status")}</th>
                        <th scope="col">{t("history.duration")}</th>
                        <th scope="col">{t("result.image_tag")}</th>
                        <th scope="col">{t("history.when")}</th>
                        <th scope="col">{t("history.who")}</th>
                        <th scope="col">{t("history.profile")}</th>
                        <th scope="col"><span class="offscreen">{t("history.actions")}</span></th>
                    </tr>
                </thead>
                <tbody>
                    {page.builds.into_iter().map(|build| row(build, now_ms, &base, &key, start)).collect_view()}
                </tbody>
            </table>
        </div>
        <footer class="sheet-foot">
            <span class="quiet">{range}</span>
            <span class="spacer"></span>
            {page_link(newer, t("history.newer"))}
            {page_link(older, t("history.older"))}
        </footer>
    }
    .into_any()
}

fn page_link(href: Option<String>, text: String) -> AnyView {
    match href {
        Some(href) => view! { <a class="button small" href=href>{text}</a> }.into_any(),
        None => view! { <a class="button small off" role="link" aria-disabled="true">{text}</a> }.into_any(),
    }
}

fn row(build: BuildHead, now_ms: i64, base: &str, key: &str, start: ServerAction<BeginBuild>) -> AnyView {
    let open = format!("{base}?build=run&id={}", build.id);
    let failed = build.status == crate::model::BuildStatus::Failure;
    let commit = build.short_commit().to_owned();
    let duration = match (build.duration_ms(now_ms), build.expected_duration_ms) {
        (Some(ms), _) => format::clock(ms),
        (None, Some(ms)) => tf("history.expected", &[("duration", &format::clock(ms))]),
        (None, None) => "–".to_owned(),
    };
    let profile = match build.resolved_profile {
        Some(resolved) if resolved != build.profile => format!("{} → {}", build.profile.as_str(), resolved.as_str()),
        _ => build.profile.as_str().to_owned(),
    };
    let pick = format!("{}:{}", build.commit, build.branch);
    let again_key = format!("{key}-{}", build.number);
    let branch = ref_text(&build.branch).to_owned();
    view! {
        <tr>
            <td><a class="row-link" href=open.clone()>"#" {build.number}</a></td>
            <td><span class="clip branch" title=branch.clone()>{branch.clone()}</span></td>
            <td>
                {match build.commit_url.clone() {
                    Some(url) => view! { <a class="link over" href=url target="_blank" rel="noopener external"><code>{commit}</code></a> }.into_any(),
                    None => view! { <code>{commit}</code> }.into_any(),
                }}
            </td>
            <td>{status_badge(&build)}</td>
            <td class="number">{duration}</td>
            <td>
                {build.image_tag.clone().map(|tag| {
                    let short = tag.rsplit_once(':').map_or(tag.clone(), |(_, t)| t.to_owned());
                    view! {
                        <span class="with-copy over">
                            <code class="clip tag" title=tag.clone()>{short}</code>
                            <CopyButton label=t("result.copy_tag") text=Signal::stored(tag)/>
                        </span>
                    }
                })}
            </td>
            <td>{when(build.queued_at, now_ms)}</td>
            <td>{build.created_by.clone()}</td>
            <td>
                {profile}
                {build.no_cache.then(|| view! { <span class="quiet">" · " {t("settings.no_cache")}</span> })}
            </td>
            <td class="row-actions over">
                {failed.then(|| view! { <a class="button small" href=open>{t("history.view_log")}</a> })}
                {build.status.is_final().then(|| {
                    view! {
                        <ActionForm action=start>
                            <input type="hidden" name="service" value=build.service_id.to_string()/>
                            <input type="hidden" name="pick" value=pick/>
                            <input type="hidden" name="request_key" value=again_key/>
                            <button type="submit" class="button small" title=t("result.again_hint")>{t("history.rebuild")}</button>
                        </ActionForm>
                    }
                })}
            </td>
        </tr>
    }
    .into_any()
}

#[component]
fn Filters(shown: Shown, base: String) -> impl IntoView {
    let query = use_query_map();
    let value = move |name: &'static str| query.with(|q| q.get(name).unwrap_or_default());
    let branches = RwSignal::new(shown.detail.with_untracked(|d| vec![d.source.default_branch.clone()]));
    let service = shown.detail.with_untracked(|d| d.id.clone());
    Effect::new(move |_| {
        let service = service.clone();
        spawn_local(async move {
            if let Ok(list) = list_refs(service).await {
                branches.try_set(list.refs.into_iter().map(|r| r.name).collect());
            }
        });
    });
    let options = move || {
        let mut list = branches.get();
        let chosen = value("branch");
        if !chosen.is_empty() && !list.contains(&chosen) {
            list.insert(0, chosen);
        }
        list
    };
    let navigate = use_navigate();
    let apply = move |event: ev::Event| {
        let values = crate::ui::browser::FormValues::around(event.target());
        let to = Query::default()
            .with("build", "history")
            .with("status", &values.get("status"))
            .with("branch", &values.get("branch"));
        event.prevent_default();
        navigate(&format!("{base}?{to}"), NavigateOptions::default());
    };
    let on_submit = {
        let apply = apply.clone();
        move |event: ev::SubmitEvent| apply(event.unchecked_into())
    };
    let ready = crate::ui::browser::hydrated();
    view! {
        <form class="filters" method="get" on:change=apply on:submit=on_submit>
            <input type="hidden" name="build" value="history"/>
            <div class="field">
                <label for="filter-status">{t("history.status")}</label>
                <select id="filter-status" name="status">
                    <option value="" selected=move || value("status").is_empty()>{t("history.all")}</option>
                    {FILTERS
                        .into_iter()
                        .map(|(name, _, key)| {
                            view! { <option value=name selected=move || value("status") == name>{t(key)}</option> }
                        })
                        .collect_view()}
                </select>
            </div>
            <div class="field">
                <label for="filter-branch">{t("history.branch")}</label>
                <select id="filter-branch" name="branch">
                    <option value="" selected=move || value("branch").is_empty()>{t("history.all")}</option>
                    {move || {
                        options()
                            .into_iter()
                            .map(|name| {
                                let text = ref_text(&name).to_owned();
                                let selected = value("branch") == name;
                                view! { <option value=name selected=selected>{text}</option> }
                            })
                            .collect_view()
                    }}
                </select>
            </div>
            <button class="button" type="submit" hidden=move || ready.get()>{t("history.apply")}</button>
        </form>
    }
    .into_any()
}
