//! Run: which branch, and off it goes; below it the build that runs or was asked for.

use super::api::BeginBuild;
use super::live::LiveView;
use super::ref_text;
use super::settings::profile_text;
use super::status_badge;
use crate::error::Problem;
use crate::locales::{t, tf};
use crate::model::{BuildId, DockerfileChoice, RefHead, RefList};
use crate::services::Shown;
use crate::services::api::list_refs;
use crate::ui::{Choice, Combo, Field, FormError, Problems, Returned, browser, format, icon, notice, sentence, when};
use leptos::form::ActionForm;
use leptos::prelude::*;
use leptos::task::spawn_local;
use leptos_router::hooks::use_query_map;

/// A key that makes two clicks one build: made by whoever draws the form first, and kept when the program takes over.
pub fn request_key() -> String {
    SharedValue::new(random_key).into_inner()
}

#[cfg(feature = "ssr")]
fn random_key() -> String {
    use std::hash::{BuildHasher, RandomState};
    // Unique is enough: who may start builds is checked elsewhere.
    format!("{:016x}{:016x}", RandomState::new().hash_one(1u8), RandomState::new().hash_one(2u8))
}

#[cfg(not(feature = "ssr"))]
fn random_key() -> String {
    let part = || (web_sys::js_sys::Math::random() * 4_294_967_296.0) as u32;
    format!("{:08x}{:08x}{:08x}{:08x}", part(), part(), part(), part())
}

#[component]
pub fn RunTab(shown: Shown) -> impl IntoView {
    let query = use_query_map();
    let running =
        shown.detail.with_untracked(|d| d.last_build.as_ref().filter(|b| !b.status.is_final()).map(|b| b.id.clone()));
    let id = Memo::new(move |_| {
        query.with(|q| q.get_str("id").and_then(|id| id.parse::<BuildId>().ok())).or_else(|| running.clone())
    });
    view! {
        <div class="run">
            <details class="run-fold" open=move || id.with(Option::is_none)>
                <summary>{icon("down")} {t("run.another")}</summary>
                <StartForm shown=shown/>
            </details>
            {move || match id.get() {
                Some(id) => view! { <LiveView id=id shown=shown/> }.into_any(),
                None => view! { <LastBuild shown=shown/> }.into_any(),
            }}
        </div>
    }
    .into_any()
}

/// What stands below the form while nothing runs.
#[component]
fn LastBuild(shown: Shown) -> impl IntoView {
    let (last, base, now) =
        shown.detail.with_untracked(|d| (d.last_build.clone(), format!("/services/edit/{}", d.id), d.now_ms));
    match last {
        None => view! {
            <div class="empty">
                {icon("build")}
                <h3>{t("run.first_title")}</h3>
                <p>{t("settings.first_build")}</p>
            </div>
        }
        .into_any(),
        Some(build) => view! {
            <div class="run-last">
                <p>
                    <span class="quiet">{t("run.last")}</span>
                    " "
                    {status_badge(&build)}
                    " "
                    <a class="link" href=format!("{base}?build=run&id={}", build.id)>"#" {build.number} " " {ref_text(&build.branch).to_owned()}</a>
                    " "
                    <span class="quiet">{when(build.finished_at.unwrap_or(build.queued_at), now)}</span>
                </p>
            </div>
        }
        .into_any(),
    }
}

fn choice(head: &RefHead, now_ms: i64) -> Choice {
    let mut parts = vec![head.commit.get(..7).unwrap_or(&head.commit).to_owned()];
    if let Some(subject) = head.subject.as_deref().filter(|s| !s.is_empty()) {
        parts.push(format!("“{}”", short(subject, 48)));
    }
    if let Some(at) = head.committed_at {
        parts.push(format::ago(at, now_ms));
    }
    if head.is_tag {
        parts.push(t("run.tag"));
    }
    Choice {
        value: format!("{}:{}", head.commit, head.name),
        label: ref_text(&head.name).to_owned(),
        detail: parts.join(" · "),
    }
}

fn short(text: &str, letters: usize) -> String {
    match text.char_indices().nth(letters) {
        Some((at, _)) => format!("{}…", text[..at].trim_end()),
        None => text.to_owned(),
    }
}

#[component]
fn StartForm(shown: Shown) -> impl IntoView {
    let action = ServerAction::<BeginBuild>::new();
    let value = action.value();
    let returned = Returned::of("start");
    let problems = Problems::new(move || value.get(), &returned);
    let detail = shown.detail.get_untracked();
    let refs = RwSignal::new(None::<Result<RefList, Problem>>);
    let service = detail.id.clone();
    // The Git host may be slow: the page does not wait for it.
    Effect::new(move |_| {
        let service = service.clone();
        spawn_local(async move {
            let result = list_refs(service).await;
            refs.try_set(Some(result));
        });
    });
    let default_branch = detail.source.default_branch.clone();
    let before = returned.value("pick", &default_branch);
    let before = before.split_once(':').map_or(before.as_str(), |(_, branch)| branch);
    let chosen = RwSignal::new(ref_text(before).to_owned());
    let known = chosen.get_untracked();
    let choices = Signal::derive(move || {
        refs.with(|refs| match refs {
            Some(Ok(list)) => list.refs.iter().map(|head| choice(head, list.now_ms)).collect(),
            _ => {
                let mut few = vec![known.clone(), default_branch.clone()];
                few.dedup();
                few.into_iter().map(|b| Choice { value: b.clone(), label: b, detail: String::new() }).collect()
            }
        })
    });
    let note = Signal::derive(move || {
        refs.with(|refs| match refs {
            None => t("run.loading_branches"),
            Some(Err(problem)) => sentence(problem),
            Some(Ok(_)) => String::new(),
        })
    });
    let failed = move || refs.with(|r| r.as_ref().and_then(|r| r.as_ref().err().map(sentence)));
    let key = RwSignal::new(request_key());
    Effect::new(move |_| {
        if value.with(|v| matches!(v, Some(Ok(_)))) {
            key.set(browser_key());
        }
    });
    let complete = Memo::new(move |_| shown.detail.with(|d| d.registry_config.is_complete()));
    view! {
        <ActionForm action=action attr:class="start">
            <input type="hidden" name="service" value=detail.id.to_string()/>
            <input type="hidden" name="request_key" value=move || key.get()/>
            <div class="start-row">
                <Combo
                    id="branch"
                    name="pick"
                    label=t("run.branch")
                    choices=choices
                    chosen=chosen
                    note=note
                    nothing=t("run.no_branch")
                    error=problems.at("branch")
                />
                <Field
                    name="commit"
                    label=t("run.commit")
                    placeholder=t("run.commit_hint")
                    value=returned.value("commit", "")
                    code=true
                    error=problems.at("commit")
                />
                <button
                    type="submit"
                    class="button primary start-button"
                    disabled=move || action.pending().get() || !complete.get()
                    aria-describedby="start-summary"
                >
                    {t("run.start")}
                </button>
            </div>
            <FormError error=problems.elsewhere(&["branch", "commit"])/>
            <Summary shown=shown/>
            <p class="start-warning">{icon("warning")} {t("run.check_branch")}</p>
            {move || failed().map(|text| notice("warning", "warning", text))}
            {move || {
                (!complete.get()).then(|| notice("failure", "warning", t("run.registry_incomplete")))
            }}
        </ActionForm>
    }
    .into_any()
}

fn browser_key() -> String {
    if browser::browser().is_some() { random_key() } else { String::new() }
}

/// Every decision in sight before the start.
#[component]
fn Summary(shown: Shown) -> impl IntoView {
    move || {
        shown.detail.with(|d| {
            let dockerfile = match &d.settings.dockerfile {
                DockerfileChoice::Auto => t("settings.auto"),
                DockerfileChoice::Path { path } => format!("./{path}"),
            };
            let base = format!("/services/edit/{}", d.id);
            view! {
                <ul class="summary" id="start-summary">
                    <li>{t("settings.dockerfile")} " " <strong>{dockerfile}</strong></li>
                    <li class="clip">{t("registry.push_to")} " " <strong>{d.registry_config.repository()}</strong></li>
                    <li>{t("run.profile")} " " <strong>{profile_text(d.settings.profile)}</strong></li>
                    {if d.settings.no_cache {
                        view! { <li class="summary-warning">{icon("warning")} {t("run.no_cache_on")}</li> }.into_any()
                    } else {
                        view! { <li>{t("run.cache")} " " <strong>{t("run.on")}</strong></li> }.into_any()
                    }}
                    <li>{tf("run.time_limit", &[("min", &(d.settings.time_limit_s.div_ceil(60)).to_string())])}</li>
                    <li><a class="link" href=format!("{base}?build=settings")>{t("run.change")}</a></li>
                </ul>
            }
        })
    }
}
