//! The page "Check": a button, and what the last check found, one line a thing with its outcome and what to do.

use super::api::{RunCheck, last_check};
use crate::frame::ToSignIn;
use crate::loaded::{Page, loaded};
use crate::locales::t;
use crate::model::{CheckOutcome, CheckReport, Finding};
use crate::ui::{FormError, Post, PostForm, Problems, Returned, badge, notice, sentence, when};
use leptos::prelude::*;
use leptos_meta::Title;

#[component]
pub fn CheckPage() -> impl IntoView {
    let last = Resource::from(loaded(Page::Waits, || (), |()| last_check()));
    let post = Post::to::<RunCheck>(move |()| last.refetch());
    let problems = Problems::new(post, &Returned::of("check"));
    view! {
        <Title text=t("check.title")/>
        <div class="page">
            <div class="page-head">
                <h1>{t("check.title")}</h1>
                <span class="spacer"></span>
                <PostForm post=post>
                    <button class="button primary" type="submit" disabled=move || post.pending()>
                        {move || t(if post.pending() { "check.running" } else { "check.run" })}
                    </button>
                </PostForm>
            </div>
            <p class="quiet check-intro">{t("check.intro")}</p>
            <FormError error=problems.elsewhere(&[])/>
            <Suspense>
                {move || Suspend::new(async move {
                    match last.await {
                        Ok(last) => last.report.map_or_else(nothing_yet, |report| found(report, last.now_ms)),
                        Err(problem) if problem.code == "sign_in_needed" => view! { <ToSignIn/> }.into_any(),
                        Err(problem) => notice("failure", "warning", sentence(&problem)),
                    }
                })}
            </Suspense>
        </div>
    }
    .into_any()
}

fn nothing_yet() -> AnyView {
    view! { <p class="quiet">{t("check.none")}</p> }.into_any()
}

fn found(report: CheckReport, now_ms: i64) -> AnyView {
    view! {
        <p class="quiet" role="status">{t("check.at")} ": " {when(report.checked_at, now_ms)}</p>
        <ul class="check-list" aria-label=t("check.findings")>
            {report.findings.into_iter().map(finding).collect_view()}
        </ul>
    }
    .into_any()
}

fn finding(found: Finding) -> AnyView {
    let (tone, icon, word) = match found.outcome {
        CheckOutcome::Ok => ("success", "check", "check.ok"),
        CheckOutcome::Warning => ("warning", "warning", "check.warning"),
        CheckOutcome::Failed => ("failure", "failure", "check.failed"),
        CheckOutcome::Skipped => ("neutral", "cancelled", "check.skipped"),
    };
    view! {
        <li class="check-line">
            {badge(tone, icon, t(word))}
            <h2>{found.title}</h2>
            <div class="check-words">
                <p>{found.message}</p>
                {found.advice.map(|advice| view! { <p class="check-advice">{advice}</p> })}
            </div>
        </li>
    }
    .into_any()
}
