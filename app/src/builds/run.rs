//! Run: which branch, and off it goes; below it the build that runs or was asked for.

use super::live::{LiveView, missing};
use super::ref_text;
use super::refs::Refs;
use super::settings::profile_text;
use super::start::start_of;
use super::status_badge;
use crate::error::Problem;
use crate::locales::{t, tf};
use crate::model::{BuildId, DockerfileChoice, RefHead};
use crate::services::{DiskNotice, Shown};
use crate::ui::{
    Choice, Combo, Field, FormError, PostForm, Problems, Returned, browser, choice_of, format, icon, notice, sentence,
    when,
};
use leptos::ev;
use leptos::prelude::*;
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
    // An address that somebody has cut off or typed: it names no build, and must not pass for the service's last one.
    let malformed = Memo::new(move |_| {
        query.with(|q| q.get_str("id").is_some_and(|id| !id.is_empty() && id.parse::<BuildId>().is_err()))
    });
    let open = RwSignal::new(id.with_untracked(Option::is_none));
    Effect::new(move |before: Option<Option<BuildId>>| {
        let now = id.get();
        if before.is_some_and(|before| before != now) {
            open.set(now.is_none());
        }
        now
    });
    let started = move || {
        open.set(false);
        // Moving the focus lays the page out: that can wait until the new build is on the screen.
        browser::after_paint(|| browser::focus_soon("#run-view"));
    };
    view! {
        <div class="run">
            <details
                class="run-fold"
                open=move || open.get()
                on:toggle:target=move |event| open.set(event.target().has_attribute("open"))
            >
                <summary>{icon("down")} {t("run.another")}</summary>
                <StartForm shown=shown open=open started=started/>
            </details>
            // Has the focus after a start: what one wants to hear next is here.
            <div class="run-view" id="run-view" tabindex="-1" role="group" aria-label=t("run.view")>
                {move || match id.get() {
                    _ if malformed.get() => {
                        missing(&Problem::not_found(), &shown.detail.with_untracked(|d| d.id.clone()))
                    }
                    Some(id) => view! { <LiveView id=id shown=shown/> }.into_any(),
                    None => view! { <LastBuild shown=shown/> }.into_any(),
                }}
            </div>
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
                <span class="quiet">{t("run.last")}</span>
                {status_badge(&build)}
                <a class="inline-link" href=format!("{base}?build=run&id={}", build.id)>
                    {format!("#{} {}", build.number, ref_text(&build.branch))}
                </a>
                <span class="quiet">{when(build.finished_at.unwrap_or(build.queued_at), now)}</span>
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
        key: head.name.clone(),
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
fn StartForm(
    shown: Shown,
    /// Whether the form is unfolded.
    open: RwSignal<bool>,
    started: impl Fn() + Copy + Send + Sync + 'static,
) -> impl IntoView {
    let returned = Returned::of("start");
    let detail = shown.detail.get_untracked();
    let key = RwSignal::new(request_key());
    let post = start_of(detail.id.clone(), move || {
        key.set(browser_key());
        started();
    });
    let problems = Problems::new(post, &returned);
    let refs = Refs::new(detail.id.clone());
    // A commit that nobody has looked at for long is not what one means to build: looked at again whenever somebody
    // comes back to the form, and when a build has ended.
    Effect::new(move |_| {
        if open.get() {
            refs.look();
        }
    });
    Effect::new(move |_| browser::when_shown(move || refs.look()));
    let ended = Memo::new(move |_| {
        shown.detail.with(|d| d.last_build.as_ref().filter(|b| b.status.is_final()).map(|b| b.number))
    });
    Effect::new(move |before: Option<Option<i64>>| {
        let now = ended.get();
        if now.is_some() && before.is_some_and(|before| before != now) {
            refs.look();
        }
        now
    });

    let default_branch = detail.source.default_branch.clone();
    let before = returned.value("pick", &default_branch);
    let before = before.split_once(':').map_or(before.as_str(), |(_, branch)| branch).to_owned();
    let chosen = RwSignal::new(before.clone());
    let choices = Signal::derive(move || {
        refs.list.with(|list| match list {
            Some(list) => list.refs.iter().map(|head| choice(head, list.now_ms)).collect(),
            None => {
                let mut few = vec![before.clone(), default_branch.clone()];
                few.dedup();
                let bare = |name: String| Choice {
                    label: ref_text(&name).to_owned(),
                    value: name.clone(),
                    key: name,
                    detail: String::new(),
                };
                few.into_iter().map(bare).collect::<Vec<_>>()
            }
        })
    });
    // As long as the branches are not known whatever was typed is sent, and the server looks.
    let unknown = Memo::new(move |_| {
        let known = choices.with(|list| chosen.with(|text| choice_of(list, text).is_some()));
        refs.list.with(Option::is_some) && !known
    });
    let refused = problems.at("branch");
    let branch_error = Signal::derive(move || {
        if chosen.with(String::is_empty) {
            Some(t("problem.required"))
        } else if unknown.get() {
            Some(t("run.no_branch"))
        } else {
            refused.get()
        }
    });
    let check = move |event: ev::SubmitEvent| {
        if unknown.get_untracked() || chosen.with_untracked(String::is_empty) {
            event.prevent_default();
            event.stop_propagation();
            browser::focus_soon("#branch");
        }
    };
    let note = Signal::derive(move || if refs.asking.get() { t("run.loading_branches") } else { String::new() });
    let complete = Memo::new(move |_| shown.detail.with(|d| d.registry_config.is_complete()));
    view! {
        // Heard on its way down: a branch that does not exist is not sent.
        <div class="start-form" on:submit:capture=check>
            <PostForm post=post attr:class="start">
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
                        error=branch_error
                        on_look=move || refs.look()
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
                        disabled=move || post.pending() || !complete.get()
                        aria-describedby=move || if complete.get() { "start-summary" } else { "start-blocked" }
                    >
                        {t("run.start")}
                    </button>
                </div>
                <FormError error=problems.elsewhere(&["branch", "commit"])/>
                <Findings shown=shown refs=refs/>
                <Summary shown=shown/>
                <p class="start-warning">{icon("warning")} {t("run.check_branch")}</p>
            </PostForm>
        </div>
    }
    .into_any()
}

/// What is known to stand in the way before the start, the worst first.
#[component]
fn Findings(shown: Shown, refs: Refs) -> impl IntoView {
    let registry = shown.detail.with_untracked(|d| format!("/services/edit/{}?edit=registry", d.id));
    let complete = Memo::new(move |_| shown.detail.with(|d| d.registry_config.is_complete()));
    let paused = Memo::new(move |_| shown.system.with(|s| s.as_ref().is_some_and(|s| s.queue_paused)));
    view! {
        <div class="findings">
            {move || {
                (!complete.get())
                    .then(|| {
                        view! {
                            <p class="notice tone-failure" id="start-blocked">
                                {icon("warning")}
                                <span>
                                    {t("run.registry_incomplete")} " "
                                    <a class="inline-link" href=registry.clone()>{t("registry.settings")}</a>
                                </span>
                            </p>
                        }
                    })
            }}
            <DiskNotice shown=shown/>
            {move || paused.get().then(|| notice("warning", "queued", t("run.queue_paused")))}
            {move || {
                refs.problem
                    .get()
                    .map(|problem| {
                        let known = refs.list.with_untracked(Option::is_some);
                        view! {
                            <p class="notice tone-warning">
                                {icon("warning")}
                                <span>
                                    {sentence(&problem)} " "
                                    {known.then(|| t("run.branches_as_before"))}
                                </span>
                                <button
                                    type="button"
                                    class="button small"
                                    disabled=move || refs.asking.get()
                                    on:click=move |_| refs.load()
                                >
                                    {t("run.try_again")}
                                </button>
                            </p>
                        }
                    })
            }}
        </div>
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
                    <li>{t("run.profile")} " " <strong>{profile_text(shown, d.settings.profile)}</strong></li>
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
