//! How a build ended: the image and its facts, or what failed, why, and what to do.

use super::api::BeginBuild;
use super::live::{Live, important_notes, what};
use super::log::plain_click;
use super::run::request_key;
use super::start::start_of;
use super::status_badge;
use crate::locales::{has, t, tf, tm};
use crate::model::{BuildDetail, Diagnosis, Evidence};
use crate::ui::{CopyButton, FormError, PostForm, Problems, Returned, format, when};
use leptos::prelude::*;
use leptos::server_fn::ServerFn;
use std::collections::BTreeMap;

#[component]
pub fn ResultBox(live: Live) -> impl IntoView {
    let build = live.build.get();
    let BuildDetail { head, steps, cached_steps, .. } = build;
    let total = steps.len().to_string();
    let tag = head.image_tag.clone();
    let pull = match (&tag, &head.digest) {
        (Some(tag), Some(digest)) => {
            tag.rsplit_once(':').map(|(repository, _)| format!("docker pull {repository}@{digest}"))
        }
        _ => None,
    };
    let took = head.duration_ms(live.clock.get()).map(format::duration);
    view! {
        <div class="result">
            <div class="result-head">
                <span class="offscreen">{t("result.status")} ": "</span>
                {status_badge(&head)}
                {what(&head)}
                <span class="spacer"></span>
                <span class="quiet">{head.finished_at.map(|at| when(at, live.clock.get()))}</span>
                <Again live=live/>
            </div>
            {important_notes(live)}
            <dl class="result-facts">
                {tag.map(|tag| {
                    view! {
                        <div class="wide">
                            <dt>{t("result.image_tag")}</dt>
                            <dd class="with-copy">
                                <code class="clip" title=tag.clone()>{tag.clone()}</code>
                                <CopyButton label=t("result.copy_tag") text=Signal::stored(tag)/>
                            </dd>
                        </div>
                    }
                })}
                {head.image_size_bytes.map(|bytes| {
                    view! {
                        <div title=t("result.size_hint")>
                            <dt>{t("result.image_size")}</dt>
                            <dd>{format::size(bytes)}</dd>
                        </div>
                    }
                })}
                {took.map(|took| {
                    view! {
                        <div>
                            <dt>{t("result.duration")}</dt>
                            <dd>{took}</dd>
                        </div>
                    }
                })}
                {(!steps.is_empty()).then(|| {
                    view! {
                        <div>
                            <dt>{t("result.cached")}</dt>
                            <dd>{tf("result.cached_of", &[("n", &cached_steps.to_string()), ("total", &total)])}</dd>
                        </div>
                    }
                })}
                {head.digest.map(|digest| {
                    view! {
                        <div class="wide">
                            <dt>{t("result.digest")}</dt>
                            <dd class="with-copy">
                                <code class="clip" title=digest.clone()>{digest.clone()}</code>
                                <CopyButton label=t("result.copy_digest") text=Signal::stored(digest)/>
                            </dd>
                        </div>
                    }
                })}
                {pull.map(|pull| {
                    view! {
                        <div class="wide">
                            <dt>{t("result.pull")}</dt>
                            <dd class="with-copy">
                                <code class="clip" title=pull.clone()>{pull.clone()}</code>
                                <CopyButton label=t("result.copy_pull") text=Signal::stored(pull)/>
                            </dd>
                        </div>
                    }
                })}
            </dl>
        </div>
    }
    .into_any()
}

/// What a build is started again with.
fn service_and_pick(live: Live) -> (String, String) {
    live.build.with_untracked(|b| (b.head.service_id.to_string(), format!("{}:{}", b.head.commit, b.head.branch)))
}

/// The same commit with today's settings.
#[component]
fn Again(live: Live) -> impl IntoView {
    let key = request_key();
    let (service, pick) = service_and_pick(live);
    let post = start_of(live.build.with_untracked(|b| b.head.service_id.clone()), || ());
    let problems = Problems::new(post, &Returned::default());
    view! {
        <PostForm post=post>
            <input type="hidden" name="service" value=service/>
            <input type="hidden" name="pick" value=pick/>
            <input type="hidden" name="request_key" value=key/>
            <button type="submit" class="button small" title=t("result.again_hint") disabled=move || post.pending()>
                {t("result.again")}
            </button>
        </PostForm>
        <FormError error=problems.elsewhere(&[])/>
    }
    .into_any()
}

/// The texts of a failure's class; an unknown class says what is known.
fn failure_text(code: &str, part: &str, args: &BTreeMap<String, String>) -> String {
    let key = format!("failure.{code}.{part}");
    if has(&key) { tm(&key, args) } else { tm(&format!("failure.unknown.{part}"), args) }
}

#[component]
pub fn FailureBox(live: Live, base: String) -> impl IntoView {
    let BuildDetail { head, diagnosis, .. } = live.build.get();
    let code =
        diagnosis.as_ref().map(|d| d.code.clone()).or(head.failure_code.clone()).unwrap_or_else(|| "unknown".into());
    let mut args = diagnosis.as_ref().map(|d| d.arguments.clone()).unwrap_or_default();
    // What the class' sentences may name, where the diagnosis did not say.
    let failed = live.view.with(|v| v.failed_step().cloned());
    if let Some(step) = &failed {
        args.entry("step".to_owned()).or_insert_with(|| step.number.to_string());
        args.entry("step_name".to_owned()).or_insert_with(|| step.name.clone());
        if let Some(error) = &step.error {
            args.entry("error".to_owned()).or_insert_with(|| error.clone());
        }
    }
    args.entry("branch".to_owned()).or_insert_with(|| super::ref_text(&head.branch).to_owned());
    let evidence: Vec<Evidence> = match &diagnosis {
        Some(d) if !d.evidence.is_empty() => d.evidence.clone(),
        _ => failed
            .and_then(|step| {
                let row = live.view.with(|v| v.first_error_row)?;
                let text = step.error.unwrap_or_default();
                Some(Evidence { attempt: head.attempt, step: Some(step.number), phase: None, line: 0, row, text })
            })
            .into_iter()
            .collect(),
    };
    let actions = diagnosis.map(|d| d.actions).unwrap_or_default();
    let took = head.duration_ms(live.clock.get()).map(format::clock).unwrap_or_default();
    let rows_stand = live.build.with(BuildDetail::rows_stand);
    let first_row = evidence.first().map(|e| e.row).filter(|_| rows_stand);
    let service = format!("/services/edit/{}", head.service_id);
    let href = base.clone();
    view! {
        <div class="failure" role="group" aria-labelledby="failure-title">
            <div class="failure-head">
                <span class="offscreen">{t("result.status")} ": "</span>
                {status_badge(&head)}
                <h3 id="failure-title">{failure_text(&code, "title", &args)}</h3>
                <span class="spacer"></span>
                <span class="quiet failure-facts">{what(&head)} " · " {took} " · " <code>{code.clone()}</code></span>
            </div>
            <p class="failure-why">
                {failure_text(&code, "why", &args)} " " {failure_text(&code, Diagnosis::advice(&args), &args)}
            </p>
            {important_notes(live)}
            {evidence
                .into_iter()
                .take(3)
                .map(|line| {
                    view! {
                        <p class="evidence">
                            {rows_stand.then(|| view! { <span class="ln">{line.row + 1}</span> })}
                            <code>{line.text}</code>
                        </p>
                    }
                })
                .collect_view()}
            <div class="failure-actions">
                {first_row
                    .map(|row| {
                        view! {
                            <a
                                class="button small"
                                href=format!("{href}&row={}", row + 1)
                                on:click=move |event| {
                                    if plain_click(&event) {
                                        live.log.go_to(row);
                                    }
                                }
                            >
                                {tf("result.show_line", &[("n", &(row + 1).to_string())])}
                            </a>
                        }
                    })}
                {actions
                    .iter()
                    .filter_map(|action| {
                        let (query, key) = match action.as_str() {
                            "registry_settings" => ("edit=registry", "registry.settings"),
                            "source_settings" => ("edit=source", "source.settings"),
                            "build_settings" => ("build=settings", "result.build_settings"),
                            _ => return None,
                        };
                        Some(view! { <a class="button small" href=format!("{service}?{query}")>{t(key)}</a> })
                    })
                    .collect_view()}
                <span class="spacer"></span>
                {args.get("larger").map(|profile| with_profile(live, profile))}
                <Again live=live/>
            </div>
        </div>
    }
    .into_any()
}

/// The same commit with another size, which is the service's from then on. The browser posts it by itself: the page is
/// loaded anew, and with it the settings that have changed.
fn with_profile(live: Live, profile: &str) -> AnyView {
    let (service, pick) = service_and_pick(live);
    view! {
        <form method="post" action=BeginBuild::url()>
            <input type="hidden" name="service" value=service/>
            <input type="hidden" name="pick" value=pick/>
            <input type="hidden" name="profile" value=profile.to_owned()/>
            <input type="hidden" name="request_key" value=request_key()/>
            <button type="submit" class="button small" title=t("result.larger_hint")>
                {tf("result.larger", &[("profile", profile)])}
            </button>
        </form>
    }
    .into_any()
}
