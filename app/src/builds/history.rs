//! Build History: newest first, by page, by status and branch.

use super::api::get_history;
use super::run::request_key;
use super::start::start_of;
use super::{commit_text, ref_text, status_badge};
use crate::loaded::{Page, loaded};
use crate::locales::{t, tf, tm};
use crate::model::{BuildHead, BuildStatus, HistoryPage, HistoryQuery, StatusFilter};
use crate::services::Shown;
use crate::services::api::list_refs;
use crate::ui::query::Query;
use crate::ui::{
    CopyButton, FormError, Post, PostForm, Problems, Returned, ServerClock, browser, format, icon, notice, repeat,
    sentence, when,
};
use leptos::ev;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos::wasm_bindgen::JsCast;
use leptos_router::NavigateOptions;
use leptos_router::hooks::{use_navigate, use_query_map};
use std::time::Duration;

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
    let page = Resource::from(loaded(
        Page::Waits,
        move || (service.clone(), wanted.get()),
        |(service, query)| get_history(service, query),
    ));
    let start = start_of(shown.detail.with_untracked(|d| d.id.clone()), || ());
    let problems = Problems::new(start, &Returned::of("start"));
    let rebuild = Rebuild { start, key: StoredValue::new(request_key()) };
    view! {
        <Filters shown=shown base=base.clone()/>
        <FormError error=problems.elsewhere(&[])/>
        <Transition fallback=|| view! { <div class="skeleton-table" aria-hidden="true"></div> }>
            {move || {
                let base = base.clone();
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
                        Ok(page) => {
                            view! { <Table shown=shown page=page base=base wanted=wanted.get_untracked() rebuild=rebuild/> }
                                .into_any()
                        }
                    }
                })
            }}
        </Transition>
    }
    .into_any()
}

/// Building a line's commit again. One form's way for all lines: only one can lead away.
#[derive(Clone, Copy)]
struct Rebuild {
    start: Post,
    key: StoredValue<String>,
}

/// The address of another page of the same builds.
fn page_at(base: &str, wanted: &HistoryQuery, before: Option<i64>, after: Option<i64>) -> String {
    let status = wanted.status.and_then(|s| FILTERS.iter().find(|(_, f, _)| *f == s)).map(|(name, ..)| *name);
    let number = |n: Option<i64>| n.map(|n| n.to_string()).unwrap_or_default();
    let to = Query::default()
        .with("build", "history")
        .with("status", status.unwrap_or_default())
        .with("branch", wanted.branch.as_deref().unwrap_or_default())
        .with("before", &number(before))
        .with("after", &number(after));
    format!("{base}?{to}")
}

#[component]
fn Table(shown: Shown, page: HistoryPage, base: String, wanted: HistoryQuery, rebuild: Rebuild) -> impl IntoView {
    let clock = ServerClock::new(page.now_ms);
    let service = shown.detail.with_untracked(|d| d.id.clone());
    let page = RwSignal::new(page);
    let open = Memo::new(move |_| page.with(|p| p.builds.iter().any(|b| !b.status.is_final())));
    let query = wanted.clone();
    let refresh = move || {
        let (service, query) = (service.clone(), query.clone());
        if browser::page_hidden() {
            return;
        }
        spawn_local(async move {
            if let Ok(fresh) = get_history(service, query).await
                && page.try_with_untracked(|known| known.now_ms < fresh.now_ms) == Some(true)
            {
                clock.set(fresh.now_ms);
                page.set(fresh);
            }
        });
    };
    // Nothing changes once all are over; whoever comes back looks once more.
    clock.run(Duration::from_secs(1), move || open.get());
    repeat(Duration::from_secs(3), move || open.get(), refresh.clone());
    Effect::new(move |_| browser::when_shown(refresh.clone()));

    let ends =
        Memo::new(move |_| page.with(|p| (p.builds.first().map(|b| b.number), p.builds.last().map(|b| b.number))));
    let range = move || match ends.get() {
        (Some(first), Some(last)) => tf("history.range", &[("from", &last.to_string()), ("to", &first.to_string())]),
        _ => String::new(),
    };
    let address = StoredValue::new((base.clone(), wanted));
    let newer = move || {
        let first = ends.get().0.filter(|_| page.with(|p| p.has_newer));
        first.map(|n| address.with_value(|(base, wanted)| page_at(base, wanted, None, Some(n))))
    };
    let older = move || {
        let last = ends.get().1.filter(|_| page.with(|p| p.has_older));
        last.map(|n| address.with_value(|(base, wanted)| page_at(base, wanted, Some(n), None)))
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
                    <For each=move || page.with(|p| p.builds.clone()) key=|build| build.id.clone() let:build>
                        {
                            let first = build.clone();
                            let now = Memo::new(move |before: Option<&BuildHead>| {
                                let found = page.with(|p| p.builds.iter().find(|b| b.id == first.id).cloned());
                                found.or_else(|| before.cloned()).unwrap_or_else(|| first.clone())
                            });
                            row(build, now, clock, &base, rebuild)
                        }
                    </For>
                </tbody>
            </table>
        </div>
        <footer class="sheet-foot">
            <span class="quiet">{range}</span>
            <span class="spacer"></span>
            {move || page_link(newer(), t("history.newer"))}
            {move || page_link(older(), t("history.older"))}
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

fn duration_text(build: &BuildHead, now_ms: i64) -> String {
    match (build.duration_ms(now_ms), build.expected_duration_ms) {
        (Some(ms), _) => format::clock(ms),
        (None, Some(ms)) if !build.status.is_final() => tf("history.expected", &[("duration", &format::clock(ms))]),
        (None, _) => "–".to_owned(),
    }
}

/// `…/orders` and `:main-41-9f8e7d6` of an image's whole name: what tells builds apart is never cut off.
fn short_image(tag: &str) -> (String, String) {
    let at = tag.rfind(':').filter(|at| !tag[*at..].contains('/')).unwrap_or(tag.len());
    let (repository, tag) = tag.split_at(at);
    let name = match repository.rsplit_once('/') {
        Some((_, name)) => format!("…/{name}"),
        None => repository.to_owned(),
    };
    (name, tag.to_owned())
}

/// What does not change comes from the line as it was, the rest from `now`.
fn row(build: BuildHead, now: Memo<BuildHead>, clock: ServerClock, base: &str, rebuild: Rebuild) -> AnyView {
    let open = format!("{base}?build=run&id={}", build.id);
    let profile = move || {
        now.with(|build| match build.resolved_profile {
            Some(resolved) if resolved != build.profile => {
                format!("{} → {}", build.profile.as_str(), resolved.as_str())
            }
            _ => build.profile.as_str().to_owned(),
        })
    };
    let why = move || {
        let reason = now.with(|build| build.profile_reason.clone()).filter(|reason| reason.code != "chosen")?;
        Some(tm(&format!("note.profile_{}", reason.code), &reason.arguments))
    };
    let branch = ref_text(&build.branch).to_owned();
    let view_log = open.clone();
    let (service, pick) = (build.service_id.to_string(), format!("{}:{}", build.commit, build.branch));
    let again_key = rebuild.key.with_value(|key| format!("{key}-{}", build.number));
    view! {
        <tr>
            <td><a class="row-link" href=open>"#" {build.number}</a></td>
            <td><span class="clip branch" title=branch.clone()>{branch.clone()}</span></td>
            <td>{commit_text(&build)}</td>
            <td>{move || now.with(status_badge)}</td>
            <td class="number">{move || now.with(|build| duration_text(build, clock.get()))}</td>
            <td>
                {move || now.with(|build| build.image_tag.clone()).map(|tag| {
                    let (name, short) = short_image(&tag);
                    view! {
                        <span class="with-copy over">
                            <code class="tag" title=tag.clone()><span class="clip">{name}</span>{short}</code>
                            <CopyButton label=t("result.copy_tag") text=Signal::stored(tag)/>
                        </span>
                    }
                })}
            </td>
            <td>{move || when(build.queued_at, clock.get())}</td>
            <td>{build.created_by.clone()}</td>
            <td title=why>
                {profile}
                {build.no_cache.then(|| view! { <span class="quiet">" · " {t("settings.no_cache")}</span> })}
            </td>
            <td class="row-actions over">
                {move || {
                    (now.with(|build| build.status) == BuildStatus::Failure)
                        .then(|| view! { <a class="button small" href=view_log.clone()>{t("history.view_log")}</a> })
                }}
                {move || {
                    let (service, pick, key) = (service.clone(), pick.clone(), again_key.clone());
                    now.with(|build| build.status.is_final())
                        .then(|| {
                            view! {
                                <PostForm post=rebuild.start>
                                    <input type="hidden" name="service" value=service/>
                                    <input type="hidden" name="pick" value=pick/>
                                    <input type="hidden" name="request_key" value=key/>
                                    <button type="submit" class="button small" title=t("result.again_hint")>{t("history.rebuild")}</button>
                                </PostForm>
                            }
                        })
                }}
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
        let values = browser::FormValues::around(event.target());
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
    let ready = browser::hydrated();
    // The way back changes the address under a select that has been touched: which option it shows is set by hand, once
    // the options are there.
    let (status_select, branch_select) =
        (NodeRef::<leptos::html::Select>::new(), NodeRef::<leptos::html::Select>::new());
    Effect::new(move |_| {
        let _ = options();
        let wanted = [(status_select.get(), value("status")), (branch_select.get(), value("branch"))];
        let show = move || {
            for (select, wanted) in wanted {
                if let Some(select) = select.filter(|select| select.value() != wanted) {
                    select.set_value(&wanted);
                }
            }
        };
        set_timeout(show, Duration::ZERO);
    });
    view! {
        <form class="filters" method="get" on:change=apply on:submit=on_submit>
            <input type="hidden" name="build" value="history"/>
            <div class="field">
                <label for="filter-status">{t("history.status")}</label>
                <select id="filter-status" name="status" node_ref=status_select>
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
                <select id="filter-branch" name="branch" node_ref=branch_select>
                    <option value="" selected=move || value("branch").is_empty()>{t("history.all")}</option>
                    {move || {
                        options()
                            .into_iter()
                            .map(|name| {
                                let mut text = ref_text(&name).to_owned();
                                if text != name {
                                    text = format!("{text} · {}", t("run.tag"));
                                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_image_the_tag_is_always_whole() {
        for (image, name, tag) in [
            ("harbor.example.com/shop/orders:main-41-9f8e7d6", "…/orders", ":main-41-9f8e7d6"),
            ("127.0.0.1:5000/orders:main-1-abc", "…/orders", ":main-1-abc"),
            ("127.0.0.1:5000/orders", "…/orders", ""),
            ("orders:1", "orders", ":1"),
        ] {
            assert_eq!(short_image(image), (name.to_owned(), tag.to_owned()), "{image}");
        }
    }

    #[test]
    fn pages_keep_the_filter() {
        let wanted = HistoryQuery {
            status: Some(StatusFilter::InProgress),
            branch: Some("feature/a b".into()),
            ..HistoryQuery::default()
        };
        assert_eq!(
            page_at("/s", &wanted, Some(7), None),
            "/s?build=history&status=in_progress&branch=feature/a%20b&before=7"
        );
        assert_eq!(page_at("/s", &HistoryQuery::default(), None, Some(7)), "/s?build=history&after=7");
    }
}
